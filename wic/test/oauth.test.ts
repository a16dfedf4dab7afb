import assert from 'node:assert/strict';
import test from 'node:test';

import { beginSignIn, challenge, discover, OAuthError, readAnswer, redeemCode, refresh, revoke, type PendingSignIn } from '../src/oauth.js';

const issuer = 'https://waf.test:8444';
const client = { issuer, clientId: 'demo', redirectUri: 'https://page.test/', scope: 'stun register', aud: 'turn.test' };
const at = { authorization: `${issuer}/authorize`, token: `${issuer}/token`, revocation: `${issuer}/revoke` };
const servers = [{ urls: ['turns:relay.test'], username: 'k1~abc', credential: 'key' }];

/** A fetch that answers once, and what it was asked. */
function server(status: number, body: unknown) {
  const asked: { url: string; form: Record<string, string> }[] = [];
  const fake = (async (url: string | URL | Request, init?: RequestInit) => {
    asked.push({ url: String(url), form: Object.fromEntries((init?.body as URLSearchParams | undefined) ?? []) });
    return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
  }) as typeof fetch;
  return { fake, asked };
}

function refusedWith(code: string): (err: unknown) => boolean {
  return (err) => err instanceof OAuthError && err.code === code;
}

test('PKCE: the example of RFC 7636 Appendix B', async () => {
  assert.equal(await challenge('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk'), 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM');
});

test('discovery believes its own issuer alone', async () => {
  const good = {
    issuer,
    authorization_endpoint: at.authorization,
    token_endpoint: at.token,
    revocation_endpoint: at.revocation,
  };
  const { fake, asked } = server(200, good);
  assert.deepEqual(await discover(issuer, fake), at);
  assert.equal(asked[0]?.url, `${issuer}/.well-known/oauth-authorization-server`);
  for (const [name, bad] of Object.entries({
    'another issuer': { ...good, issuer: 'https://evil.test' },
    'codes would go elsewhere': { ...good, token_endpoint: 'https://evil.test/token' },
    'a longer host': { ...good, token_endpoint: `${issuer}.evil.test/token` },
    'no JSON': '<html>',
  })) {
    await assert.rejects(discover(issuer, server(200, bad).fake), refusedWith('malformed_answer'), name);
  }
  await assert.rejects(
    discover(issuer, () => Promise.reject(new TypeError('Failed to fetch'))),
    refusedWith('unreachable'),
  );
});

test('the authorization request of both grants', async () => {
  const code = await beginSignIn(client, at, 'code');
  const q = new URL(code.url).searchParams;
  assert.match(code.url, /^https:\/\/waf\.test:8444\/authorize\?/);
  assert.deepEqual(
    ['response_type', 'client_id', 'redirect_uri', 'scope', 'aud', 'code_challenge_method', 'state'].map((name) => q.get(name)),
    ['code', 'demo', 'https://page.test/', 'stun register', 'turn.test', 'S256', code.pending.state],
  );
  assert.match(code.pending.verifier, /^[\w-]{43}$/);
  assert.equal(q.get('code_challenge'), await challenge(code.pending.verifier));
  assert.ok(!code.url.includes(code.pending.verifier));

  const implicit = await beginSignIn(client, at, 'implicit');
  assert.equal(new URL(implicit.url).searchParams.get('response_type'), 'token');
  assert.equal(implicit.pending.verifier, '');
  assert.notEqual(implicit.pending.state, code.pending.state);
});

const pending: PendingSignIn = { grant: 'code', state: 's', verifier: 'v' };
const back = (values: Record<string, string>) => new URLSearchParams({ state: 's', iss: issuer, ...values }).toString();

test('answers: a code, a refusal, and what nobody asked for', () => {
  const read = (search: string, p: PendingSignIn | undefined = pending) => readAnswer(client, p, { search, hash: '' });
  assert.equal(read(''), undefined);
  assert.equal(read('?utm=1'), undefined);
  assert.deepEqual(read(`?${back({ code: 'c' })}`), { code: 'c' });
  assert.throws(() => read(`?${back({ error: 'access_denied' })}`), refusedWith('access_denied'));
  assert.throws(() => read(`?${back({})}`), refusedWith('malformed_answer'));
  for (const [name, search] of Object.entries({
    state: back({ code: 'c', state: 'other' }),
    issuer: back({ code: 'c', iss: 'https://evil.test' }),
    'no issuer': 'state=s&code=c',
  })) {
    assert.throws(() => read(`?${search}`), refusedWith('foreign_answer'), name);
  }
  assert.throws(() => readAnswer(client, undefined, { search: `?${back({ code: 'c' })}`, hash: '' }), refusedWith('foreign_answer'));
});

test('the fragment of the implicit grant, as RFC 6749 §4.2.2 and RFC 7635 Appendix B have it', () => {
  const read = (values: Record<string, string>) => readAnswer(client, { ...pending, grant: 'implicit' }, { search: '', hash: `#${back(values)}` });
  const whole = {
    access_token: 'AAz=',
    token_type: 'pop',
    expires_in: '60',
    kid: 'k1',
    key: 'key',
    alg: 'HMAC-SHA-1',
    ice_servers: JSON.stringify(servers),
    registration_token: 'eyJ',
    registration_expires_in: '600',
    impi: 'alice@ims.test',
    impu: 'sip:alice@ims.test',
  };
  assert.deepEqual(read(whole), {
    tokens: {
      registration: 'eyJ',
      registrationExpiresIn: 600,
      turn: { iceServers: servers, kid: 'k1', expiresIn: 60 },
      refresh: '',
      impi: 'alice@ims.test',
      impus: ['sip:alice@ims.test'],
    },
  });
  assert.deepEqual(read({ access_token: 'eyJ', token_type: 'Bearer', expires_in: '9' }), {
    tokens: { registration: 'eyJ', registrationExpiresIn: 9, turn: undefined, refresh: '', impi: '', impus: [] },
  });
  for (const bad of [{ ice_servers: '{' }, { ice_servers: '[]' }, { ice_servers: '[null]' }, { ice_servers: '[{"urls":[1]}]' }, { expires_in: 'soon' }, { kid: '' }]) {
    assert.throws(() => read({ ...whole, ...bad }), refusedWith('malformed_answer'), JSON.stringify(bad));
  }
});

test('code and refresh token are redeemed by POST, and a refusal keeps its code', async () => {
  const body = {
    access_token: 'eyJ',
    token_type: 'Bearer',
    expires_in: 600,
    refresh_token: 'r1',
    impi: 'alice@ims.test',
    impus: ['sip:alice@ims.test'],
    turn: { access_token: 'AAz=', kid: 'k1', key: 'key', expires_in: 60, ice_servers: servers },
  };
  const { fake, asked } = server(200, body);
  const tokens = await redeemCode(client, at, pending, 'c', fake);
  assert.deepEqual(tokens, {
    registration: 'eyJ',
    registrationExpiresIn: 600,
    turn: { iceServers: servers, kid: 'k1', expiresIn: 60 },
    refresh: 'r1',
    impi: 'alice@ims.test',
    impus: ['sip:alice@ims.test'],
  });
  await refresh(client, at, 'r1', fake);
  await revoke(client, at, 'r1', server(200, '').fake);
  assert.deepEqual(asked, [
    { url: at.token, form: { grant_type: 'authorization_code', client_id: 'demo', redirect_uri: 'https://page.test/', code: 'c', code_verifier: 'v' } },
    { url: at.token, form: { grant_type: 'refresh_token', client_id: 'demo', refresh_token: 'r1' } },
  ]);
  assert.ok(!asked.some(({ url }) => url.includes('?')), 'secrets stay out of URLs');

  const alone = await refresh(client, at, 'r', server(200, { ...body.turn, token_type: 'pop' }).fake);
  assert.deepEqual([alone.registration, alone.turn?.kid], ['', 'k1'], 'scope "stun" alone');
  await assert.rejects(refresh(client, at, 'r', server(400, { error: 'invalid_grant' }).fake), refusedWith('invalid_grant'));
  await assert.rejects(refresh(client, at, 'r', server(502, 'bad gateway').fake), refusedWith('malformed_answer'));
  await assert.rejects(refresh(client, at, 'r', server(200, { token_type: 'Bearer' }).fake), refusedWith('malformed_answer'));
});
