import type { WebAccount } from './account.js';
import type { Settings } from './config.js';
import { byId, duration, make } from './dom.js';
import { log } from './log.js';

/** What the demo's relay says of a token. */
interface Fields {
  kid: string;
  server_name: string;
  issued: string;
  lifetime_s: number;
  session_key_bits: number;
  subject: string;
}

/** Shows the web account that is signed in, and on request what its TURN token says. */
export class TokenPanel {
  readonly #card = byId('token-card');
  readonly #toggle = byId<HTMLButtonElement>('token-fields-toggle');
  readonly #fields = byId('token-fields');
  readonly #revoke = byId<HTMLButtonElement>('token-revoke');
  #account: WebAccount | undefined;
  #renewals = 0;
  #shown = ''; // user name whose fields are shown

  constructor(readonly settings: Settings) {
    this.#toggle.addEventListener('click', () => void this.#show(this.#fields.hidden));
    this.#revoke.addEventListener('click', () => void this.#takeBack());
    setInterval(() => this.#countDown(), 500);
  }

  follow(account: WebAccount): void {
    this.#account = account;
    this.#renewals = 0;
    byId('token-impi').textContent = account.tokens.impi;
    byId('token-grant').textContent = account.grant === 'code' ? 'authorization code with PKCE' : 'implicit, as in the contribution';
    this.#revoke.disabled = false;
    this.#card.hidden = false;
    account.onChange(() => {
      if (account !== this.#account || account.over) return;
      this.#renewals++;
      log('web account: new tokens, and the next refresh token');
      this.#countDown();
      if (!this.#fields.hidden) void this.#show(true);
    });
    this.#countDown();
  }

  clear(): void {
    this.#account = undefined;
    this.#card.hidden = true;
    void this.#show(false);
  }

  #countDown(): void {
    const account = this.#account;
    if (!account) return;
    byId('token-left').textContent = `${duration(account.secondsLeft)} left`;
    byId('token-renewal').textContent = account.renewable
      ? `by refresh token, which changes each time: ${this.#renewals} so far`
      : 'none: this grant gives no refresh token';
    this.#card.dataset['renewals'] = String(this.#renewals);
  }

  async #takeBack(): Promise<void> {
    if (!this.#account) return;
    this.#revoke.disabled = true;
    try {
      await this.#account.revoke();
      log('web account: revoked at the WAF; registration, credential and calls end now');
    } catch (err) {
      log(`web account: not revoked: ${err instanceof Error ? err.message : String(err)}`, true);
      this.#revoke.disabled = false;
    }
  }

  async #show(shown: boolean): Promise<void> {
    this.#fields.hidden = !shown;
    this.#toggle.setAttribute('aria-expanded', String(shown));
    this.#toggle.textContent = shown ? 'Hide the fields' : 'What the relay sees';
    const username = this.#account?.tokens.turn?.iceServers[0]?.username;
    this.#shown = shown ? (username ?? '') : '';
    if (!shown || username === undefined) {
      this.#fields.replaceChildren();
      return;
    }
    const [kid = '', token = ''] = username.split('~');
    const rows: [string, string][] = [
      ['Key id', kid],
      ['Token', `${Math.floor((token.length * 3) / 4)} bytes, ${token.slice(0, 8)}… sealed with the relay's key (AES-256-GCM)`],
      ['Server name', `${this.settings.oauth?.turn_server ?? 'the only relay'} (sealed for it alone)`],
    ];
    const fields = await this.#ask(username);
    if (this.#shown !== username) return; // another token by now
    if (fields) {
      rows.push(
        ['Issued', new Date(fields.issued).toLocaleString()],
        ['Lifetime', duration(fields.lifetime_s)],
        ['Subject', `${fields.subject}, a number for quota and revocation that names nobody`],
        ['Session key', `${fields.session_key_bits} bits, not shown`],
      );
    } else {
      rows.push(['Inside', 'issue time, lifetime, session key: sealed, the relay alone reads them']);
    }
    this.#fields.dataset['kid'] = kid;
    this.#fields.replaceChildren(...rows.flatMap(([name, value]) => [make('dt', name), make('dd', value)]));
  }

  /** Asks the demo's server; another relay tells nobody. */
  async #ask(username: string): Promise<Fields | undefined> {
    const path = this.settings.oauth?.token_fields;
    if (!path) return undefined;
    try {
      const response = await fetch(path, { method: 'POST', body: new URLSearchParams({ username }) });
      return response.ok ? ((await response.json()) as Fields) : undefined;
    } catch {
      return undefined;
    }
  }
}
