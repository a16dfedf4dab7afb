import assert from 'node:assert/strict';
import test from 'node:test';

import { HeaderError, isTurnURI, parseRows, parseValue } from '../src/header.js';

const FULL =
  'k1-AbCdEfGhIjKlMnOpQrStUv:1795330000:c2VjcmV0+/==' +
  ';username="k1-AbCdEfGhIjKlMnOpQrStUv:1795330000";realm="ims.test"' +
  ';uris="turns:127.0.0.1:5349?transport=tcp turn:[::1]:3478?transport=udp turn:relay.example"' +
  ';ttl=600;approach=push';

test('a credential with everything', () => {
  assert.deepEqual(parseValue(FULL), {
    kind: 'credential',
    tid: 'k1-AbCdEfGhIjKlMnOpQrStUv',
    texp: 1795330000,
    password: 'c2VjcmV0+/==',
    username: 'k1-AbCdEfGhIjKlMnOpQrStUv:1795330000',
    realm: 'ims.test',
    uris: ['turns:127.0.0.1:5349?transport=tcp', 'turn:[::1]:3478?transport=udp', 'turn:relay.example'],
    ttl: 600,
    approach: 'push',
  });
});

test('the value of TS 33.203 alone', () => {
  const value = parseValue('tid : 17 : cGFzcw==');
  assert.equal(value.kind, 'credential');
  if (value.kind !== 'credential') return;
  assert.equal(value.username, 'tid:17');
  assert.equal(value.password, 'cGFzcw==');
  assert.deepEqual(value.uris, []);
  assert.equal(value.ttl, undefined);
});

for (const [name, value, want] of [
  ['order of the REST draft', 'tid:17:cA==;username="17:tid"', '17:tid'],
  ['semicolon, comma and equals in quotes', 'tid:17:cA==;username="a;b,c=d"', 'a;b,c=d'],
  ['quoted pairs', 'tid:17:cA==;username="a\\"b\\\\c"', 'a"b\\c'],
  ['name in capitals, spaces around', 'tid:17:cA== ; USERNAME = "u" ', 'u'],
  ['unknown parameters', 'tid:17:cA==;x;y=1;z="a;b";username="u"', 'u'],
] as const) {
  test(`username: ${name}`, () => {
    const got = parseValue(value);
    assert.equal(got.kind === 'credential' && got.username, want);
  });
}

test('unavailable', () => {
  assert.deepEqual(parseValue('unavailable;reason=relay-unreachable;retry-after=30'), {
    kind: 'unavailable',
    reason: 'relay-unreachable',
    retryAfter: 30,
  });
  assert.deepEqual(parseValue('Unavailable'), { kind: 'unavailable', reason: 'unknown' });
});

for (const [name, value] of [
  ['empty', ''],
  ['request, which only a WIC says', 'request'],
  ['unquoted comma', 'tid:17:cA==, tid:17:cA=='],
  ['repeated parameter', 'tid:17:cA==;ttl=1;TTL=2'],
  ['repeated unknown parameter', 'tid:17:cA==;x;x'],
  ['two fields', 'tid:17'],
  ['four fields', 'tid:17:a:b'],
  ['Tid with a dot', 'ti.d:17:cA=='],
  ['Texp not digits', 'tid:1e3:cA=='],
  ['Texp negative', 'tid:-1:cA=='],
  ['Texp beyond a double', 'tid:1234567890123456:cA=='],
  ['Tpwd with base64url', 'tid:17:a-b_'],
  ['Tpwd with three equals', 'tid:17:a==='],
  ['Tpwd empty', 'tid:17:'],
  ['ttl negative', 'tid:17:cA==;ttl=-1'],
  ['ttl without value', 'tid:17:cA==;ttl'],
  ['ttl over 32 bits', 'tid:17:cA==;ttl=4294967296'],
  ['username without quotes', 'tid:17:cA==;username=u'],
  ['quote not closed', 'tid:17:cA==;username="u'],
  ['text after a quote', 'tid:17:cA==;username="u"x'],
  ['control character', 'tid:17:cA==;username="u\u0007"'],
  ['line feed', 'tid:17:cA==\n;ttl=1'],
  ['empty parameter', 'tid:17:cA==;;ttl=1'],
  ['unknown approach', 'tid:17:cA==;approach=magic'],
  ['URI of another scheme', 'tid:17:cA==;uris="https://evil.example"'],
  ['URI with a path', 'tid:17:cA==;uris="turn:a.example/x"'],
  ['STUN URI', 'tid:17:cA==;uris="stun:a.example"'],
] as const) {
  test(`refused: ${name}`, () => {
    assert.throws(() => parseValue(value), HeaderError);
  });
}

test('an error does not repeat the password', () => {
  assert.throws(
    () => parseValue('tid:17:CANARY;ttl=x'),
    (err: Error) => !err.message.includes('CANARY'),
  );
});

test('rows', () => {
  assert.equal(parseRows([]), undefined);
  assert.equal(parseRows(['unavailable'])?.kind, 'unavailable');
  assert.throws(() => parseRows([FULL, FULL]), HeaderError);
});

test('TURN URIs', () => {
  for (const uri of ['turn:a', 'turns:a.example:443', 'turn:10.0.0.1?transport=udp', 'turns:[2001:db8::1]:5349?transport=tcp'])
    assert.ok(isTurnURI(uri), uri);
  for (const uri of ['turn:', 'turn:a:b', 'turn://a', 'turn:u@a', 'turn:a?transport=sctp', 'turn:a?x=1', 'a'])
    assert.ok(!isTurnURI(uri), uri);
});
