// Signing a user in at a WAF, and the tokens that come of it: OAuth 2.0 for a public client
// in a browser (RFC 9700), with the TURN token of RFC 7635.
//
//     discover                    RFC 8414   where the WAF's endpoints are
//     beginSignIn   -> redirect   RFC 6749 §4.1.1, RFC 7636 §4
//     readAnswer    <- redirect   RFC 6749 §4.1.2 or §4.2.2; state, and iss by RFC 9207
//     redeemCode                  RFC 6749 §4.1.3
//     refresh                     RFC 6749 §6
//     revoke                      RFC 7009
//
// Nothing here keeps anything. What beginSignIn returns as `pending` belongs in sessionStorage
// until the browser is back; the tokens belong in memory and nowhere else.

/** What a page knows of its WAF, and wants of it. */
export interface OAuthClient {
  /** The WAF's issuer, https and without a path. */
  readonly issuer: string;
  readonly clientId: string;
  /** Registered at the WAF, and the same to the letter. */
  readonly redirectUri: string;
  readonly scope: string;
  /** The TURN server for which tokens are wanted (RFC 7635 Appendix B); default: the WAF's only one. */
  readonly aud?: string;
}

/** How the tokens come: by a code that is redeemed, or in the redirect itself. */
export type Grant = 'code' | 'implicit';

/** What a sign-in needs to know when the browser comes back. */
export interface PendingSignIn {
  readonly grant: Grant;
  readonly state: string;
  /** RFC 7636 §4.1; "" with the implicit grant. */
  readonly verifier: string;
}

/** The WAF's endpoints (RFC 8414 §2). */
export interface Endpoints {
  readonly authorization: string;
  readonly token: string;
  readonly revocation: string;
}

/** A TURN token, ready for a browser. */
export interface TurnToken {
  /** Go into RTCConfiguration as they are: the token is in the user name. */
  readonly iceServers: readonly { readonly urls: readonly string[]; readonly username: string; readonly credential: string }[];
  readonly kid: string;
  readonly expiresIn: number;
}

/** What a sign-in gave. */
export interface Tokens {
  /** For "Authorization: Bearer" of REGISTER; "" where it was not asked for. */
  readonly registration: string;
  readonly registrationExpiresIn: number;
  readonly turn: TurnToken | undefined;
  /** Good once: the answer to refresh has the next one. "" with the implicit grant. */
  readonly refresh: string;
  readonly impi: string;
  readonly impus: readonly string[];
}

/** An answer to a sign-in: a code to redeem, or the tokens. */
export type Answer = { readonly code: string } | { readonly tokens: Tokens };

/**
 * OAuthError is a refusal. Its code is that of RFC 6749 §4.1.2.1 and §5.2, or one of ours:
 * "foreign_answer" is not an answer to what was asked, "malformed_answer" cannot be read,
 * "unreachable" got no answer.
 */
export class OAuthError extends Error {
  constructor(
    readonly code: string,
    description = '',
  ) {
    super(description ? `${code}: ${description}` : code);
    this.name = 'OAuthError';
  }
}

/** Asks the WAF where its endpoints are. */
export async function discover(issuer: string, get: typeof fetch = fetch): Promise<Endpoints> {
  const m = await answer(() => get(`${issuer}/.well-known/oauth-authorization-server`));
  // RFC 8414 §3.3: the issuer in it must be the one that was asked.
  if (m['issuer'] !== issuer) throw new OAuthError('malformed_answer', 'the metadata is of another issuer');
  const at = (name: string) => {
    const url = String(m[name]);
    if (!url.startsWith(`${issuer}/`)) throw new OAuthError('malformed_answer', `${name} is elsewhere`);
    return url;
  };
  return { authorization: at('authorization_endpoint'), token: at('token_endpoint'), revocation: at('revocation_endpoint') };
}

/** Makes the URL to send the browser to, and what to keep until it is back. */
export async function beginSignIn(client: OAuthClient, at: Endpoints, grant: Grant): Promise<{ url: string; pending: PendingSignIn }> {
  const pending = { grant, state: random(), verifier: grant === 'code' ? random() : '' };
  const query = new URLSearchParams({
    response_type: grant === 'code' ? 'code' : 'token',
    client_id: client.clientId,
    redirect_uri: client.redirectUri,
    scope: client.scope,
    state: pending.state,
  });
  if (client.aud) query.set('aud', client.aud);
  if (grant === 'code') {
    query.set('code_challenge', await challenge(pending.verifier));
    query.set('code_challenge_method', 'S256');
  }
  return { url: `${at.authorization}?${query}`, pending };
}

/**
 * Reads the answer out of the URL that the browser came back with; undefined where there is
 * none. Take it out of the address bar first, by history.replaceState. It throws an
 * OAuthError where the user or the WAF refused, and for what nobody here asked for.
 */
export function readAnswer(client: OAuthClient, pending: PendingSignIn | undefined, { search, hash }: { search: string; hash: string }): Answer | undefined {
  const got = new URLSearchParams(hash.includes('state=') ? hash.slice(1) : search);
  if (!got.has('state')) return undefined;
  // RFC 6749 §10.12 and RFC 9207 §2.4: an answer of another's making would sign this page in
  // as somebody else, or take its code to another server.
  if (!pending || got.get('state') !== pending.state || got.get('iss') !== client.issuer) throw new OAuthError('foreign_answer');
  const error = got.get('error');
  if (error !== null) throw new OAuthError(error, got.get('error_description') ?? '');
  if (pending.grant === 'implicit') return { tokens: fromFragment(got) };
  const code = got.get('code');
  if (!code) throw new OAuthError('malformed_answer', 'no code');
  return { code };
}

/** Redeems a code. It serves once. */
export async function redeemCode(client: OAuthClient, at: Endpoints, pending: PendingSignIn, code: string, post: typeof fetch = fetch): Promise<Tokens> {
  return askTokens(at, post, {
    grant_type: 'authorization_code',
    client_id: client.clientId,
    redirect_uri: client.redirectUri,
    code,
    code_verifier: pending.verifier,
  });
}

/** Gets new tokens. An OAuthError "invalid_grant" says that the user must sign in again. */
export async function refresh(client: OAuthClient, at: Endpoints, refreshToken: string, post: typeof fetch = fetch): Promise<Tokens> {
  return askTokens(at, post, { grant_type: 'refresh_token', client_id: client.clientId, refresh_token: refreshToken });
}

/** Takes back all that came of a sign-in, by its refresh token or its registration token. */
export async function revoke(client: OAuthClient, at: Endpoints, token: string, post: typeof fetch = fetch): Promise<void> {
  await answer(() => post(at.revocation, { method: 'POST', body: new URLSearchParams({ client_id: client.clientId, token }) }), false);
}

async function askTokens(at: Endpoints, post: typeof fetch, form: Record<string, string>): Promise<Tokens> {
  const a = await answer(() => post(at.token, { method: 'POST', body: new URLSearchParams(form) }));
  // With a registration token beside it, the TURN token stands in "turn"; alone, at the top.
  const beside = a['turn'] as Record<string, unknown> | undefined;
  const alone = a['ice_servers'] !== undefined;
  return {
    registration: alone ? '' : text(a['access_token']),
    registrationExpiresIn: alone ? 0 : seconds(a['expires_in']),
    turn: beside || alone ? turnToken(beside ?? a) : undefined,
    refresh: typeof a['refresh_token'] === 'string' ? a['refresh_token'] : '',
    impi: typeof a['impi'] === 'string' ? a['impi'] : '',
    impus: Array.isArray(a['impus']) ? a['impus'].map(text) : [],
  };
}

/** RFC 6749 §4.2.2 with RFC 7635 Appendix B: access_token is the TURN token where there is one. */
function fromFragment(got: URLSearchParams): Tokens {
  const servers = got.get('ice_servers');
  let turn: TurnToken | undefined;
  if (servers !== null) {
    let list: unknown;
    try {
      list = JSON.parse(servers);
    } catch {
      throw new OAuthError('malformed_answer', 'ice_servers');
    }
    turn = turnToken({ ice_servers: list, kid: got.get('kid'), expires_in: got.get('expires_in') });
  }
  const registration = got.get(turn ? 'registration_token' : 'access_token') ?? '';
  return {
    registration,
    registrationExpiresIn: registration ? seconds(got.get(turn ? 'registration_expires_in' : 'expires_in')) : 0,
    turn,
    refresh: '',
    impi: got.get('impi') ?? '',
    impus: got.getAll('impu'),
  };
}

function turnToken(t: Record<string, unknown>): TurnToken {
  const servers = t['ice_servers'];
  if (!Array.isArray(servers) || servers.length === 0) throw new OAuthError('malformed_answer', 'ice_servers');
  return {
    iceServers: servers.map((s: Record<string, unknown> | null) => {
      if (!Array.isArray(s?.['urls'])) throw new OAuthError('malformed_answer', 'ice_servers');
      return { urls: s['urls'].map(text), username: text(s['username']), credential: text(s['credential']) };
    }),
    kid: text(t['kid']),
    expiresIn: seconds(t['expires_in']),
  };
}

/** Errors name what is missing, and never a value: it may be a secret. */
function text(v: unknown): string {
  if (typeof v !== 'string' || v === '') throw new OAuthError('malformed_answer', 'a text is missing');
  return v;
}

function seconds(v: unknown): number {
  const n = typeof v === 'string' && v !== '' ? Number(v) : v;
  if (typeof n !== 'number' || !Number.isFinite(n) || n < 0) throw new OAuthError('malformed_answer', 'expires_in');
  return n;
}

/** The JSON of an answer; a refusal (RFC 6749 §5.2) is thrown. */
async function answer(send: () => Promise<Response>, body = true): Promise<Record<string, unknown>> {
  let response: Response;
  try {
    response = await send();
  } catch {
    throw new OAuthError('unreachable');
  }
  if (response.ok && !body) return {};
  const got = (await response.json().catch(() => undefined)) as unknown;
  const object = typeof got === 'object' && got !== null ? (got as Record<string, unknown>) : undefined;
  if (response.ok && object) return object;
  throw new OAuthError(String(object?.['error'] ?? 'malformed_answer'), String(object?.['error_description'] ?? response.status));
}

/** 256 random bits, in the characters that RFC 7636 §4.1 allows. */
function random(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

/** RFC 7636 §4.2, S256. */
export async function challenge(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}
