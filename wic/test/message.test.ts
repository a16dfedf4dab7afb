import assert from 'node:assert/strict';
import test from 'node:test';

import { registerAnswer, withMD5Only } from '../src/message.js';

const H = '3gpp-ext-turn-cred';
const sip = (...lines: string[]) => lines.join('\r\n') + '\r\n\r\n';

test('a 200 to REGISTER gives its rows and says that a contact is bound', () => {
  const text = sip('SIP/2.0 200 OK', 'CSeq: 2 REGISTER', 'Contact: <sip:x@y>;expires=60', '3GPP-Ext-Turn-Cred :  a:1:b ');
  assert.deepEqual(registerAnswer(text, H), { rows: ['a:1:b'], bound: true });
});

test('folded lines are joined', () => {
  const text = sip('SIP/2.0 200 OK', 'CSeq: 2', '  REGISTER', 'm: <sip:x@y>', `${H}: a:1:b`, ' ;ttl=1');
  assert.deepEqual(registerAnswer(text, H), { rows: ['a:1:b ;ttl=1'], bound: true });
});

test('an un-REGISTER leaves nothing bound', () => {
  assert.deepEqual(registerAnswer(sip('SIP/2.0 200 OK', 'CSeq: 3 REGISTER'), H), { rows: [], bound: false });
});

for (const [name, text] of [
  ['a request', sip('MESSAGE sip:a@b SIP/2.0', 'CSeq: 1 REGISTER', `${H}: a:1:b`)],
  ['a 401', sip('SIP/2.0 401 Unauthorized', 'CSeq: 1 REGISTER', `${H}: a:1:b`)],
  ['a 200 to INVITE', sip('SIP/2.0 200 OK', 'CSeq: 1 INVITE', `${H}: a:1:b`)],
  ['a 200 to OPTIONS', sip('SIP/2.0 200 OK', 'CSeq: 1 OPTIONS', `${H}: a:1:b`)],
  ['two CSeq', sip('SIP/2.0 200 OK', 'CSeq: 1 REGISTER', 'CSeq: 1 INVITE', `${H}: a:1:b`)],
  ['CSeq in the body', sip('SIP/2.0 200 OK', 'CSeq: 1 MESSAGE') + 'CSeq: 1 REGISTER\r\n\r\n'],
  ['a keep-alive', '\r\n\r\n'],
  ['nothing', ''],
] as const) {
  test(`not read: ${name}`, () => assert.equal(registerAnswer(text, H), undefined));
}

test('a header in the body is not read', () => {
  const text = sip('SIP/2.0 200 OK', 'CSeq: 1 REGISTER', 'Contact: <sip:x@y>') + `${H}: a:1:b\r\n`;
  assert.deepEqual(registerAnswer(text, H)?.rows, []);
});

const MD5 = 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5, qop="auth"';
const SHA = 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth"';
const PLAIN = 'WWW-Authenticate: Digest realm="r, algorithm of ours", nonce="n"';

for (const [name, given, left] of [
  ['MD5, then SHA-256', [MD5, SHA], [MD5]],
  ['SHA-256, then MD5', [SHA, MD5], [MD5]],
  ['no algorithm is MD5', [SHA, PLAIN], [PLAIN]],
  ['MD5 at the end of the line', [SHA, 'Proxy-Authenticate: Digest nonce="n",algorithm=md5'], ['Proxy-Authenticate: Digest nonce="n",algorithm=md5']],
  ['MD5-sess is not MD5', [MD5, MD5.replace('=MD5', '=MD5-sess')], [MD5]],
  ['SHA-256 alone is left for the library to refuse', [SHA], [SHA]],
  ['MD5 alone', [MD5], [MD5]],
] as const) {
  test(`challenges: ${name}`, () => {
    const message = (rows: readonly string[]) => sip('SIP/2.0 401 Unauthorized', 'CSeq: 1 REGISTER', ...rows) + 'body';
    assert.equal(withMD5Only(message(given)), message(left));
  });
}

test('challenges: nothing but a 401 or 407 is touched', () => {
  for (const text of [sip('SIP/2.0 200 OK', MD5, SHA), sip('MESSAGE sip:a@b SIP/2.0', 'Subject: x', ' y', MD5, SHA), '\r\n'])
    assert.equal(withMD5Only(text), text);
});
