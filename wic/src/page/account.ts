import { OAuthError, refresh, revoke, type Endpoints, type Grant, type OAuthClient, type Tokens } from '../oauth.js';
import type { ReadyCredential } from '../wicturn.js';

/** Part of its life after which a token is renewed. */
const RENEW_AT = 0.8;

/** Tokens, and when they came. */
interface Held {
  readonly tokens: Tokens;
  readonly at: number;
}

/**
 * A web account that has signed in, and its tokens. They are in memory alone: who reloads the
 * page signs in again, which takes a click while the WAF still knows him.
 */
export class WebAccount {
  #held: Held;
  #renewing: Promise<void> | undefined;
  #over = false;
  readonly #listeners = new Set<() => void>();

  constructor(
    readonly client: OAuthClient,
    readonly endpoints: Endpoints,
    readonly grant: Grant,
    tokens: Tokens,
  ) {
    if (!tokens.registration || !tokens.impus[0] || !tokens.turn) throw new OAuthError('malformed_answer', 'not all that was asked for');
    this.#held = { tokens, at: Date.now() };
  }

  get tokens(): Tokens {
    return this.#held.tokens;
  }

  /** The address to register: the first of the token's public identities. */
  get impu(): string {
    return this.tokens.impus[0] ?? '';
  }

  /** The value of Authorization in REGISTER (RFC 6750 §2.1). */
  get authorization(): string {
    return `Bearer ${this.tokens.registration}`;
  }

  /** Seconds until the registration token ends. */
  get secondsLeft(): number {
    return Math.max(0, this.tokens.registrationExpiresIn - this.#age);
  }

  get received(): Date {
    return new Date(this.#held.at);
  }

  /** Whether it gets new tokens by itself. */
  get renewable(): boolean {
    return this.tokens.refresh !== '';
  }

  /** Whether its sign-in was ended: by the user, or by the WAF. */
  get over(): boolean {
    return this.#over;
  }

  /** Calls listener whenever there are new tokens, or an end of them. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** The TURN token as it stands. */
  credential(): ReadyCredential {
    const { turn, registrationExpiresIn } = this.tokens;
    const [server] = turn?.iceServers ?? [];
    if (!turn || !server || this.#over) throw new OAuthError('invalid_grant', 'the sign-in is over');
    const life = Math.min(turn.expiresIn, registrationExpiresIn);
    return {
      username: server.username,
      password: server.credential,
      uris: server.urls,
      ttl: Math.max(0, turn.expiresIn - this.#age),
      renewIn: this.renewable ? Math.max(0, life * RENEW_AT - this.#age) : Infinity,
    };
  }

  /** Gets new tokens, where there is a refresh token, and returns the TURN token. */
  async next(): Promise<ReadyCredential> {
    if (this.renewable && !this.#over) {
      this.#renewing ??= this.#renew().finally(() => (this.#renewing = undefined));
      await this.#renewing;
    }
    return this.credential();
  }

  /** Takes everything back that came of this sign-in, at the WAF. */
  async revoke(): Promise<void> {
    await this.#renewing?.catch(() => undefined); // or its refresh token would be the old one
    await revoke(this.client, this.endpoints, this.tokens.refresh || this.tokens.registration);
  }

  get #age(): number {
    return Math.max(0, Date.now() - this.#held.at) / 1000;
  }

  async #renew(): Promise<void> {
    try {
      const tokens = await refresh(this.client, this.endpoints, this.tokens.refresh);
      this.#held = { tokens, at: Date.now() };
    } catch (err) {
      // The refresh token serves once, so after this refusal there is no other.
      if (!(err instanceof OAuthError) || err.code !== 'invalid_grant') throw err;
      this.#over = true;
      throw err;
    } finally {
      for (const listener of this.#listeners) listener();
    }
  }
}
