import { beginSignIn, discover, OAuthError, readAnswer, redeemCode, type Grant, type OAuthClient, type PendingSignIn } from '../oauth.js';
import { WebAccount } from './account.js';
import type { OAuthSettings } from './config.js';
import { byId } from './dom.js';
import { signInFailure } from './explain.js';
import { log } from './log.js';

/** Where a sign-in is kept while the browser is at the WAF: this tab's storage, and no token. */
const KEPT = 'sign-in';

/** What the URL of the page says, read once. */
export interface Arrival {
  readonly search: string;
  readonly hash: string;
}

/** Begins what window.name holds while the page is loaded once more. */
const CARRIED = 'sign-in-answer ';

/**
 * Takes what the URL says out of the address bar and the history, before anything else. A
 * fragment may hold tokens (RFC 6749 §4.2.2), and stays readable in the timing entry of the
 * navigation for as long as the document lives. So the page is loaded once more, and the
 * fragment carried over in memory; undefined says that this is under way.
 */
export function arrive(): Arrival | undefined {
  const { search, hash } = location;
  if (search || hash) history.replaceState(null, '', location.pathname);
  if (hash) {
    window.name = CARRIED + hash;
    location.replace(location.pathname);
    return undefined;
  }
  if (!window.name.startsWith(CARRIED)) return { search, hash };
  const carried = window.name.slice(CARRIED.length);
  window.name = '';
  return { search: '', hash: carried };
}

/** "Sign in with the operator's web account": the way there, and back. */
export class WebSignIn {
  readonly #button = byId<HTMLButtonElement>('web-sign-in');
  readonly #grant = byId<HTMLSelectElement>('grant');
  readonly #client: OAuthClient;

  constructor(
    settings: OAuthSettings,
    readonly failed: (problem: string) => void,
  ) {
    this.#client = {
      issuer: settings.issuer,
      clientId: settings.client_id,
      redirectUri: `${location.origin}/`,
      scope: settings.scope,
      ...(settings.turn_server ? { aud: settings.turn_server } : {}),
    };
    byId('web-account').hidden = false;
    byId('grant-choice').hidden = !settings.implicit;
    this.#button.addEventListener('click', () => void this.#leave());
  }

  async #leave(): Promise<void> {
    this.#button.disabled = true;
    this.failed('');
    try {
      const grant: Grant = this.#grant.value === 'implicit' ? 'implicit' : 'code';
      const { url, pending } = await beginSignIn(this.#client, await discover(this.#client.issuer), grant);
      sessionStorage.setItem(KEPT, JSON.stringify(pending));
      location.assign(url);
    } catch (err) {
      this.#tell(err);
    } finally {
      this.#button.disabled = false;
    }
  }

  /** Goes on with a sign-in that the browser came back from; undefined where it did not. */
  async comeBack(arrival: Arrival): Promise<WebAccount | undefined> {
    const kept = sessionStorage.getItem(KEPT);
    try {
      const pending = kept === null ? undefined : (JSON.parse(kept) as PendingSignIn);
      const answer = readAnswer(this.#client, pending, arrival);
      if (!answer || !pending) return undefined;
      sessionStorage.removeItem(KEPT); // good for one answer
      this.#grant.value = pending.grant;
      const at = await discover(this.#client.issuer);
      const tokens = 'code' in answer ? await redeemCode(this.#client, at, pending, answer.code) : answer.tokens;
      log(`web account: signed in as ${tokens.impi}, by ${pending.grant === 'code' ? 'code and PKCE' : 'the implicit grant'}`);
      return new WebAccount(this.#client, at, pending.grant, tokens);
    } catch (err) {
      if (err instanceof OAuthError && err.code !== 'foreign_answer') sessionStorage.removeItem(KEPT);
      this.#tell(err);
      return undefined;
    }
  }

  #tell(err: unknown): void {
    const code = err instanceof OAuthError ? err.code : 'malformed_answer';
    const problem = signInFailure(code, this.#client.issuer);
    log(`web account: ${problem}`, true);
    this.failed(problem);
  }
}
