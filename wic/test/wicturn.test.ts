import assert from 'node:assert/strict';
import test from 'node:test';

import { systemClock } from '../src/clock.js';
import { NoCredentialError, WicTurn, type ReadyCredential, type TurnCredential, type Unavailable } from '../src/wicturn.js';
import { FakeClock, settled } from './fakeclock.js';

const value = (n: number, ttl = 100) => `k1-${n}:99:cA==;uris="turn:127.0.0.1:3478";realm="r";ttl=${ttl};approach=push`;
const register = (row?: string, contact = 'Contact: <sip:a@b>;expires=600\r\n') =>
  `SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n${contact}${row === undefined ? '' : `3gpp-ext-turn-cred: ${row}\r\n`}\r\n`;

/** A WicTurn on a clock we turn, with a server that answers what `answer` says. */
function setup(answer: () => Promise<readonly string[] | ReadyCredential> = async () => [value(2)]) {
  const clock = new FakeClock();
  const seen = { credentials: [] as TurnCredential[], unavailable: [] as Unavailable[], expired: 0, errors: [] as Error[] };
  const asked: number[] = [];
  const start = clock.now();
  const server = { answer };
  const turn = new WicTurn({
    clock,
    random: () => 1, // the longest back-off
    requestCredential: () => {
      asked.push((clock.now() - start) / 1000);
      return server.answer();
    },
  });
  turn.on('credential', (c) => seen.credentials.push(c));
  turn.on('unavailable', (u) => seen.unavailable.push(u));
  turn.on('expired', () => seen.expired++);
  turn.on('error', (e) => seen.errors.push(e));
  return { clock, turn, seen, asked, server };
}

test('the 200 to REGISTER brings a credential, every one of them', () => {
  const { turn, seen } = setup();
  turn.receive(register(value(1)));
  assert.equal(turn.credential?.username, 'k1-1:99');
  assert.equal(turn.credential?.source, 'REGISTER');
  assert.equal(turn.secondsLeft, 100);
  turn.receive(register(value(2)));
  assert.deepEqual(seen.credentials.map((c) => c.username), ['k1-1:99', 'k1-2:99']);
});

test('nothing else is believed', () => {
  const { turn } = setup();
  turn.receive(register(value(1)).replace('REGISTER', 'MESSAGE'));
  turn.receive(register(value(1), '')); // nothing bound
  assert.equal(turn.credential, undefined);
});

test('it renews at 80 % of the life, again and again', async () => {
  let n = 1;
  const { clock, turn, asked, seen } = setup(async () => [value(++n)]);
  turn.receive(register(value(1)));
  assert.equal(turn.secondsToRenewal, 80);
  await clock.advance(250);
  assert.deepEqual(asked, [80, 160, 240]);
  assert.deepEqual(seen.credentials.map((c) => c.source), ['REGISTER', 'OPTIONS', 'OPTIONS', 'OPTIONS']);
  assert.equal(seen.expired, 0);
});

test('a refreshed registration puts the renewal off', async () => {
  const { clock, turn, asked } = setup();
  turn.receive(register(value(1)));
  await clock.advance(70);
  turn.receive(register(value(2)));
  await clock.advance(70);
  assert.deepEqual(asked, []);
});

test('failed renewals back off, and the expiry is told once', async () => {
  const { clock, turn, asked, seen, server } = setup(() => Promise.reject(new Error('503')));
  turn.receive(register(value(1)));
  await clock.advance(300);
  assert.deepEqual(asked, [80, 81, 83, 87, 95, 111, 143, 203, 263]);
  assert.equal(seen.expired, 1);
  assert.ok(seen.errors.every((e) => e.message === '503'));
  assert.throws(() => turn.rtcConfiguration(), NoCredentialError);

  server.answer = async () => [value(2)];
  await clock.advance(60);
  assert.equal(turn.credential?.username, 'k1-2:99');
  server.answer = () => Promise.reject(new Error('503'));
  asked.length = 0;
  await clock.advance(82); // 80 % of the new life, and the back-off begins anew
  assert.equal(asked[1]! - asked[0]!, 1);
});

test('after a sleep it renews within 15 s', async () => {
  const { clock, turn, asked } = setup();
  turn.receive(register(value(1, 1000)));
  await clock.advance(1);
  clock.sleep(900);
  await clock.advance(15);
  assert.equal(asked.length, 1);
});

test('unavailable: retry-after is honoured', async () => {
  const { clock, turn, asked, seen } = setup();
  turn.receive(register('unavailable;reason=relay-unreachable;retry-after=30'));
  assert.deepEqual(seen.unavailable, [{ reason: 'relay-unreachable', retryIn: 30 }]);
  await clock.advance(29);
  assert.deepEqual(asked, []);
  await clock.advance(1);
  assert.deepEqual(asked, [30]);
  assert.equal(turn.credential?.username, 'k1-2:99');
});

test('unavailable leaves an older credential in use', () => {
  const { turn } = setup();
  turn.receive(register(value(1)));
  turn.receive(register('unavailable;reason=limit;retry-after=5'));
  assert.equal(turn.credential?.username, 'k1-1:99');
  assert.equal(turn.secondsToRenewal, 5);
});

test('unavailable as an operator wants it is not asked about again', async () => {
  const { clock, turn, asked } = setup();
  turn.receive(register('unavailable;reason=disabled'));
  await clock.advance(1000);
  assert.deepEqual(asked, []);
});

test('a malformed header is told, backed off from, and replaces nothing', async () => {
  const { clock, turn, asked, seen } = setup();
  turn.receive(register(value(1)));
  turn.receive(register(`${value(3)};ttl=5`));
  assert.equal(seen.errors.length, 1);
  assert.equal(turn.credential?.username, 'k1-1:99');
  await clock.advance(1);
  assert.deepEqual(asked, [1]);
});

test('ttl decides, and the browser\'s clock only where there is none', () => {
  const { clock, turn } = setup();
  clock.wallSkew = 1_000_000;
  turn.receive(register(value(1)));
  assert.equal(turn.secondsLeft, 100);
  clock.wallSkew = 0;
  turn.receive(register('k1-1:61:cA==;uris="turn:a"'));
  assert.equal(turn.secondsLeft, 60);
});

test('a life of zero does not spin', async () => {
  const { clock, turn, asked } = setup(async () => [value(2, 0)]);
  turn.receive(register(value(1, 0)));
  await clock.advance(10);
  assert.ok(asked.length <= 10, `asked ${asked.length} times in 10 s`);
});

test('renew: overlapping calls share one request', async () => {
  const { turn, asked } = setup();
  const [a, b] = await Promise.all([turn.renew(), turn.renew()]);
  assert.equal(a, b);
  assert.equal(asked.length, 1);
  assert.equal(a.source, 'OPTIONS');
});

test('renew rejects where the server has none', async () => {
  const { turn } = setup(async () => ['unavailable;reason=limit;retry-after=5']);
  await assert.rejects(turn.renew(), NoCredentialError);
});

test('forget drops the credential, its timers, and an answer that comes late', async () => {
  let late: (rows: string[]) => void = () => undefined;
  const { clock, turn, seen } = setup(() => new Promise((resolve) => (late = resolve)));
  turn.receive(register(value(1)));
  const renewal = turn.renew();
  turn.forget();
  assert.equal(clock.pending, 0);
  late([value(2)]);
  await assert.rejects(renewal, NoCredentialError);
  assert.equal(turn.credential, undefined);
  assert.equal(seen.credentials.length, 1);
});

test('rtcConfiguration', () => {
  const { turn } = setup();
  assert.throws(() => turn.rtcConfiguration(), NoCredentialError);
  turn.receive(register(value(1)));
  assert.deepEqual(turn.rtcConfiguration(), {
    iceServers: [{ urls: ['turn:127.0.0.1:3478'], username: 'k1-1:99', credential: 'cA==' }],
    iceTransportPolicy: 'all',
  });
  assert.equal(turn.rtcConfiguration({ relayOnly: true }).iceTransportPolicy, 'relay');
});

test('a credential that is no SIP header: taken as it is, and renewed when it says', async () => {
  const ready = (n: number, renewIn?: number): ReadyCredential => ({
    username: `k1~${n}`,
    password: 'p',
    uris: ['turn:127.0.0.1'],
    ttl: 100,
    ...(renewIn === undefined ? {} : { renewIn }),
  });
  let n = 1;
  const { clock, turn, asked, seen } = setup(async () => ready(++n, n === 2 ? undefined : Infinity));
  turn.accept(ready(1, 20));
  assert.deepEqual(turn.rtcConfiguration().iceServers, [{ urls: ['turn:127.0.0.1'], username: 'k1~1', credential: 'p' }]);
  await clock.advance(10);
  turn.receive(register()); // a refresh of the registration moves nothing
  await clock.advance(1000);
  assert.deepEqual(asked, [20, 100], 'at 20 s as it said, 80 % of 100 s later, and never after that');
  assert.deepEqual(seen.credentials.map((c) => [c.username, c.source]), [['k1~1', 'token'], ['k1~2', 'token'], ['k1~3', 'token']]);
  assert.equal(turn.secondsToRenewal, undefined);
  assert.deepEqual([seen.expired, seen.errors.length], [1, 0]);
});

class FakeConnection extends EventTarget {
  connectionState = 'connected';
  configuration: RTCConfiguration = { bundlePolicy: 'max-bundle', iceTransportPolicy: 'relay' };
  getConfiguration = () => this.configuration;
  setConfiguration = (c: RTCConfiguration) => (this.configuration = c);
  become(state: string) {
    this.connectionState = state;
    this.dispatchEvent(new Event('connectionstatechange'));
  }
}

test('guard: a failed call gets a new credential and one restart', async () => {
  const { clock, turn } = setup();
  const pc = new FakeConnection();
  let restarts = 0;
  turn.receive(register(value(1)));
  const unguard = turn.guard(pc as unknown as RTCPeerConnection, () => restarts++);
  pc.become('disconnected');
  pc.become('failed');
  pc.become('failed'); // it flaps
  await clock.advance(0);
  assert.equal(restarts, 1);
  assert.equal(pc.configuration.iceServers?.[0]?.username, 'k1-2:99');
  assert.equal(pc.configuration.bundlePolicy, 'max-bundle');
  assert.equal(pc.configuration.iceTransportPolicy, 'relay');
  unguard();
  pc.become('failed');
  await clock.advance(10);
  assert.equal(restarts, 1);
});

test('guard: the called side leaves it to the caller, who is faster', async () => {
  const { clock, turn, asked } = setup();
  const pc = new FakeConnection();
  turn.guard(pc as unknown as RTCPeerConnection, () => assert.fail('restarted'), 4000);
  pc.become('failed');
  await clock.advance(2);
  pc.become('connected');
  await clock.advance(10);
  assert.deepEqual(asked, []);
});

test('the system clock counts sleep and never goes back', async () => {
  const time = { m: 0, w: 0 };
  const clock = systemClock({ monotonic: () => time.m, wall: () => time.w });
  Object.assign(time, { m: 10, w: 10 });
  assert.equal(clock.now(), 10);
  Object.assign(time, { m: 11, w: 5_011 }); // sleep: the monotonic clock stood still
  assert.equal(clock.now(), 5_011);
  Object.assign(time, { m: 12, w: -9_000 }); // set back by hand
  assert.equal(clock.now(), 5_012);
  await settled();
});
