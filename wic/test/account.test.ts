import assert from 'node:assert/strict';
import test from 'node:test';

import { OAuthError, type Tokens } from '../src/oauth.js';
import { WebAccount } from '../src/page/account.js';

const client = { issuer: 'https://waf.test', clientId: 'demo', redirectUri: 'https://page.test/', scope: 's' };
const at = { authorization: 'https://waf.test/authorize', token: 'https://waf.test/token', revocation: 'https://waf.test/revoke' };
const servers = [{ urls: ['turns:relay.test'], username: 'k1~1', credential: 'key' }];
const tokens: Tokens = {
  registration: 'eyJ1',
  registrationExpiresIn: 100,
  turn: { iceServers: servers, kid: 'k1', expiresIn: 600 },
  refresh: 'r1',
  impi: 'alice@ims.test',
  impus: ['sip:alice@ims.test'],
};

/** Puts a WAF in the place of the network: it answers with the n-th tokens, or refuses. */
function waf(t: test.TestContext, refusal?: { status: number; error: string }) {
  const forms: Record<string, string>[] = [];
  t.mock.method(globalThis, 'fetch', async (_: unknown, init: RequestInit) => {
    forms.push(Object.fromEntries(init.body as URLSearchParams));
    if (refusal) return Response.json({ error: refusal.error }, { status: refusal.status });
    const n = forms.length + 1;
    const turn = { kid: 'k1', expires_in: 600, ice_servers: [{ ...servers[0], username: `k1~${n}` }] };
    return Response.json({ access_token: `eyJ${n}`, expires_in: 100, refresh_token: `r${n}`, impus: tokens.impus, turn });
  });
  return forms;
}

test('a web account renews by the refresh token of the moment, once for all who ask', async (t) => {
  const forms = waf(t);
  const account = new WebAccount(client, at, 'code', tokens);
  let changes = 0;
  account.onChange(() => changes++);
  assert.ok(Math.abs((account.credential().renewIn ?? 0) - 80) < 1, '80 % of the shorter life');
  const [a, b] = await Promise.all([account.next(), account.next()]);
  assert.deepEqual([a.username, b.username, account.authorization], ['k1~2', 'k1~2', 'Bearer eyJ2']);
  await account.next();
  assert.deepEqual(forms.map((f) => f['refresh_token']), ['r1', 'r2']);
  assert.equal(changes, 2);
  await account.revoke();
  assert.equal(forms.at(-1)?.['token'], 'r3');
});

test('a refusal ends the account; an outage does not', async (t) => {
  const refusal = { status: 503, error: 'temporarily_unavailable' };
  waf(t, refusal);
  const account = new WebAccount(client, at, 'code', tokens);
  await assert.rejects(account.next(), OAuthError);
  assert.equal(account.over, false);
  assert.equal(account.credential().username, 'k1~1');
  Object.assign(refusal, { status: 400, error: 'invalid_grant' });
  await assert.rejects(account.next(), OAuthError);
  assert.equal(account.over, true);
  assert.throws(() => account.credential(), OAuthError);
});

test('without a refresh token there is nothing to renew with', async (t) => {
  const forms = waf(t);
  const account = new WebAccount(client, at, 'implicit', { ...tokens, refresh: '' });
  assert.equal(account.credential().renewIn, Infinity);
  assert.equal((await account.next()).username, 'k1~1');
  assert.equal(forms.length, 0);
  await account.revoke();
  assert.equal(forms[0]?.['token'], 'eyJ1');
  for (const part of [{ registration: '' }, { turn: undefined }, { impus: [] }]) {
    assert.throws(() => new WebAccount(client, at, 'code', { ...tokens, ...part }), OAuthError);
  }
});
