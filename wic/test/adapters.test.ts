import assert from 'node:assert/strict';
import test from 'node:test';

import JsSIP from 'jssip';
import type { WebSocketInterface } from 'jssip';

import { wicTurnForJsSIP } from '../src/jssip.js';
import { wicTurnForSIPjs } from '../src/sipjs.js';
import { settled } from './fakeclock.js';

/** A server at the other end of a socket, that answers each request at once. */
class FakeSocket {
  via_transport = 'WSS';
  url = 'wss://edge.test/ws';
  sip_uri = 'sip:edge.test;transport=ws';
  seen: string[] = [];
  issued = 0;
  binary = false;
  onconnect = () => undefined;
  ondisconnect = () => undefined;
  declare ondata: (data: unknown) => void;

  connect(): void {
    setImmediate(() => this.onconnect());
  }

  disconnect(): void {}
  isConnected = () => true;
  isConnecting = () => false;

  send(text: string): boolean {
    this.seen.push(text);
    const head = text.split('\r\n').filter((line) => /^(via|from|to|call-id|cseq|contact):/i.test(line));
    const rows = head.map((line) => (/^to:/i.test(line) && !line.includes(';tag=') ? `${line};tag=server` : line));
    const unregister = /^Expires: 0\r?$/m.test(text);
    if (/^3gpp-ext-turn-cred: request\r?$/m.test(text) && !unregister) {
      rows.push(`3gpp-ext-turn-cred: k1-${++this.issued}:99:cA==;uris="turn:a";ttl=600`);
    }
    const answer = ['SIP/2.0 200 OK', ...rows.filter((r) => !unregister || !/^contact:/i.test(r)), 'Content-Length: 0', '', ''].join('\r\n');
    setImmediate(() => this.ondata(this.binary ? new TextEncoder().encode(answer).buffer : answer));
    return true;
  }

  methods(): string[] {
    return this.seen.map((text) => text.split(' ')[0] ?? '');
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await settled();
  assert.ok(condition(), `in vain: ${condition}`);
}

test('JsSIP: first and refreshed REGISTER, OPTIONS, un-REGISTER', async () => {
  const fake = new FakeSocket();
  const socket = fake as unknown as WebSocketInterface;
  const ua = new JsSIP.UA({ sockets: socket, uri: 'sip:alice@ims.test', password: 'p' });
  const turn = wicTurnForJsSIP(ua, socket);
  const sources: string[] = [];
  turn.on('credential', (c) => sources.push(`${c.username} ${c.source}`));
  ua.start();
  await until(() => sources.length === 1);

  fake.binary = true; // the server may send either
  ua.register();
  await until(() => sources.length === 2);
  await turn.renew();
  assert.deepEqual(sources, ['k1-1:99 REGISTER', 'k1-2:99 REGISTER', 'k1-3:99 OPTIONS']);
  assert.match(fake.seen.at(-1)!, /^OPTIONS sip:ims\.test SIP/);

  ua.unregister();
  await until(() => turn.credential === undefined);
  assert.deepEqual(fake.methods(), ['REGISTER', 'REGISTER', 'OPTIONS', 'REGISTER']);
  ua.stop();
});

test('JsSIP: with an access token, and credentials that come another way', async () => {
  const fake = new FakeSocket();
  const socket = fake as unknown as WebSocketInterface;
  const ua = new JsSIP.UA({ sockets: socket, uri: 'sip:alice@ims.test', authorization_jwt: 'Bearer eyJ1' });
  const next = { username: 'k1~2', password: 'p', uris: ['turn:a'], ttl: 600 };
  const turn = wicTurnForJsSIP(ua, socket, { requestCredential: async () => next });
  let registered = 0;
  ua.on('registered', () => registered++);
  ua.start();
  await until(() => registered === 1);
  turn.accept({ ...next, username: 'k1~1' });
  assert.equal((await turn.renew()).username, 'k1~2');
  ua.set('authorization_jwt', 'Bearer eyJ2');
  ua.register();
  await until(() => fake.seen.length === 2);
  assert.deepEqual(fake.methods(), ['REGISTER', 'REGISTER'], 'and no OPTIONS');
  assert.match(fake.seen[0]!, /^Authorization: Bearer eyJ1\r?$/m);
  assert.match(fake.seen[1]!, /^Authorization: Bearer eyJ2\r?$/m);
  assert.ok(!fake.seen.some((text) => text.includes('3gpp-ext-turn-cred')));
  turn.forget();
  ua.stop();
});

test('SIP.js: the tap passes everything on, OPTIONS gives rows or the reason', async () => {
  const delivered: string[] = [];
  let status = 200;
  const asked: unknown[][] = [];
  const ua = {
    transport: { onMessage: (text: string) => void delivered.push(text) },
    configuration: { uri: 'sip:alice@ims.test' },
    userAgentCore: {
      makeOutgoingRequestMessage: (...args: unknown[]) => asked.push(args),
      request: (
        _: number,
        d: { onAccept(r: unknown): void; onReject(r: unknown): void },
      ) => (status === 200 ? d.onAccept({ message: { getHeaders: () => ['k1-2:99:cA==;uris="turn:a";ttl=9'] } }) : d.onReject({ message: { statusCode: status } })),
    },
  };
  const turn = wicTurnForSIPjs(ua, 'sip:ims.test');
  const text = 'SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@b>\r\n3gpp-ext-turn-cred: k1-1:99:cA==;uris="turn:a";ttl=9\r\n\r\n';
  ua.transport.onMessage(text);
  assert.deepEqual(delivered, [text]);
  assert.equal(turn.credential?.username, 'k1-1:99');
  const challenge = (...algorithms: string[]) =>
    'SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\n' + algorithms.map((a) => `WWW-Authenticate: Digest realm="a", nonce="b", algorithm=${a}\r\n`).join('') + '\r\n';
  ua.transport.onMessage(challenge('MD5', 'SHA-256'));
  assert.equal(delivered.at(-1), challenge('MD5'), 'SIP.js takes the last challenge, and knows MD5 alone');

  assert.equal((await turn.renew()).username, 'k1-2:99');
  assert.deepEqual(asked[0]?.slice(0, 2), ['OPTIONS', 'sip:ims.test']);
  status = 503;
  await assert.rejects(turn.renew(), /503/);
  turn.forget();
});
