import { NoCredentialError, type TurnCredential, type WicTurn } from '../wicturn.js';
import { byId, clockTime, duration, make, trimList } from './dom.js';
import { credentialUnavailable } from './explain.js';
import { log } from './log.js';

const HIDDEN = '••••••••••••';
const HISTORY = 6;

const ORIGIN: Record<TurnCredential['source'], string> = {
  REGISTER: 'issued by REGISTER',
  OPTIONS: 'renewed by OPTIONS',
  token: 'from the web account',
};

/** The beginning of a user name, by which one knows it: that with a token has a hundred characters. */
function short(username: string): string {
  return username.length <= 60 ? username : `${username.slice(0, 32)}…`;
}

/** Shows the credential of `turn`: what it is, how long it lives, and where it came from. */
export class CredentialPanel {
  readonly #panel = byId('credential');
  readonly #state = byId('cred-state');
  readonly #life = byId('cred-life');
  readonly #reveal = byId<HTMLButtonElement>('reveal-password');
  readonly #renew = byId<HTMLButtonElement>('renew');
  #turn: WicTurn | undefined;
  #renewable = true;
  #revealed = false;

  constructor() {
    this.#reveal.addEventListener('click', () => this.#show(!this.#revealed));
    this.#renew.addEventListener('click', () => void this.#renewNow());
    setInterval(() => this.#countDown(), 500);
  }

  /** Follows turn from now on. */
  follow(turn: WicTurn, renewable = true): void {
    this.#turn = turn;
    this.#renewable = renewable;
    turn.on('credential', (c) => this.#arrived(c));
    turn.on('unavailable', ({ reason, retryIn }) => {
      const text = credentialUnavailable(reason, retryIn);
      if (turn.secondsLeft === 0) this.#set('unavailable', text);
      else this.#state.textContent = `The credential still holds. ${text}`;
      log(text, true);
    });
    turn.on('expired', () => {
      const next = renewable ? 'the page asks for a new one by itself' : 'sign in again for another one';
      this.#set('expired', `The credential has expired. Running calls go on; ${next}.`);
      log('TURN credential expired', true);
    });
    turn.on('error', (err) => log(`TURN credential: ${err.message}; asking again by itself`, true));
    this.#set('none', 'Waiting for the registration.');
    this.#renew.disabled = !renewable;
  }

  /** Shows nothing any more: the user has signed out. */
  clear(): void {
    this.#turn = undefined;
    this.#show(false);
    for (const id of ['cred-username', 'cred-password', 'cred-realm', 'cred-approach']) byId(id).textContent = 'none';
    byId('cred-uris').replaceChildren();
    byId('cred-history').replaceChildren();
    this.#reveal.disabled = this.#renew.disabled = true;
    this.#life.hidden = true;
    this.#panel.dataset['username'] = '';
    this.#set('none', 'Waiting for the registration.');
  }

  #set(state: string, text: string): void {
    this.#panel.dataset['state'] = state;
    this.#state.textContent = text;
  }

  #arrived(c: TurnCredential): void {
    const how = ORIGIN[c.source];
    this.#show(false);
    this.#panel.dataset['username'] = c.username;
    byId('cred-username').textContent = c.username;
    byId('cred-realm').textContent = c.realm || 'not given';
    byId('cred-approach').textContent = c.approach || 'not given';
    byId('cred-uris').replaceChildren(...c.uris.map((uri) => make('li', uri)));
    this.#reveal.disabled = false;
    this.#life.hidden = false;
    this.#set('valid', `Good: ${how}.`);
    this.#countDown();

    const item = make('li');
    item.append(clockTime(), `${how}, ${duration(c.ttl)}: `, make('span', short(c.username), 'mono'));
    item.dataset['source'] = c.source;
    byId('cred-history').append(item);
    trimList(byId('cred-history'), HISTORY);
    log(`TURN credential ${how}, good for ${duration(c.ttl)}`);
  }

  #show(revealed: boolean): void {
    this.#revealed = revealed;
    const password = this.#turn?.credential?.password;
    byId('cred-password').textContent = password === undefined ? 'none' : revealed ? password : HIDDEN;
    this.#reveal.textContent = revealed ? 'Hide' : 'Show';
    this.#reveal.setAttribute('aria-pressed', String(revealed));
  }

  #countDown(): void {
    const credential = this.#turn?.credential;
    if (!this.#turn || !credential) {
      this.#life.hidden = true;
      return;
    }
    const left = this.#turn.secondsLeft;
    const renewal = this.#turn.secondsToRenewal;
    byId('cred-ttl').textContent = duration(left);
    byId('cred-bar').style.width = `${credential.ttl > 0 ? (100 * left) / credential.ttl : 0}%`;
    byId('cred-renewal').textContent = renewal === undefined ? '' : `next one in ${duration(renewal)}`;
  }

  async #renewNow(): Promise<void> {
    if (!this.#turn) return;
    this.#renew.disabled = true;
    try {
      await this.#turn.renew();
    } catch (err) {
      if (!(err instanceof NoCredentialError)) {
        const why = err instanceof Error ? err.message : String(err);
        this.#state.textContent = `No new credential: ${why}. The page asks again by itself; sign in again if that goes on.`;
        log(`TURN credential: ${why}`, true);
      }
    } finally {
      this.#renew.disabled = this.#turn === undefined || !this.#renewable;
    }
  }
}

