// The page: it uses WicTurn as any page would, and shows all that it does. README.md
// lists the ids and data attributes that tests rely on.

import type { WebAccount } from './account.js';
import { Agent, type AgentChange, type AgentState, type Proof } from './agent.js';
import { CallPanel } from './call.js';
import { displayName, loadSettings, type Settings } from './config.js';
import { CredentialPanel } from './credential.js';
import { byId, make, notice, setState } from './dom.js';
import { log } from './log.js';
import { Messages } from './messages.js';
import { RelayCheck } from './relaycheck.js';
import { TokenPanel } from './tokenpanel.js';
import { arrive, WebSignIn, type Arrival } from './websignin.js';

const STATE_TEXT: Record<AgentState, string> = {
  'signed-out': 'Signed out',
  connecting: 'Connecting',
  registering: 'Registering',
  registered: 'Registered',
  disconnected: 'Not connected',
  failed: 'Not registered',
};

class Page {
  readonly #state = byId('registration-state');
  readonly #notice = byId('notice');
  readonly #credential = new CredentialPanel();
  readonly #relay: RelayCheck;
  readonly #call: CallPanel;
  readonly #messages: Messages;
  readonly #token: TokenPanel;
  readonly #web: WebSignIn | undefined;
  #agent: Agent | undefined;
  #lastLine = '';

  constructor(readonly settings: Settings) {
    this.#relay = new RelayCheck(settings);
    this.#call = new CallPanel(settings.domain);
    this.#messages = new Messages(settings.domain);
    this.#token = new TokenPanel(settings);
    if (settings.oauth) this.#web = new WebSignIn(settings.oauth, (problem) => notice(this.#notice, problem));
    byId('domain').textContent = settings.domain;
    byId('demo-hint').hidden = !settings.demo;
    byId('users').replaceChildren(...settings.users.map((user) => Object.assign(make('option'), { value: user })));
    byId('user-buttons').replaceChildren(...settings.users.map((user) => this.#userButton(user)));
    byId('sign-in-form').addEventListener('submit', (e) => {
      e.preventDefault();
      this.#signInByPassword();
    });
    byId('sign-out').addEventListener('click', () => this.#agent?.stop());
    // A call in a page that goes away should end at the other side too.
    addEventListener('pagehide', () => this.#agent?.ua.terminateSessions());
  }

  #userButton(user: string): HTMLButtonElement {
    const button = make('button', user);
    button.type = 'button';
    button.addEventListener('click', () => {
      byId<HTMLInputElement>('user').value = user;
      byId('password').focus();
    });
    return button;
  }

  /** Goes on with a sign-in at the web account, where the browser has come back from one. */
  async comeBack(arrival: Arrival): Promise<void> {
    const account = await this.#web?.comeBack(arrival);
    if (account) this.#signInByAccount(account);
  }

  #signInByPassword(): void {
    const user = byId<HTMLInputElement>('user').value.trim();
    const password = byId<HTMLInputElement>('password').value;
    try {
      this.#signIn(user, { password });
    } catch {
      notice(this.#notice, 'That is no user name. Write a name such as alice, without spaces.');
      return;
    }
    byId<HTMLInputElement>('password').value = ''; // nothing secret stays in the form
  }

  #signInByAccount(account: WebAccount): void {
    const [, user = '', host = ''] = /^sips?:([^@]+)@([^;]+)/i.exec(account.impu) ?? [];
    try {
      this.#signIn(displayName(user, host, this.settings.domain), { account });
    } catch {
      notice(this.#notice, `The web account has an address that cannot register here: ${account.impu}. The operator must give it one of ${this.settings.domain}.`);
      return;
    }
    this.#token.follow(account);
  }

  #signIn(user: string, proof: Proof): void {
    const agent: Agent = new Agent(user, proof, this.settings, (change) => {
      if (this.#agent === agent) this.#changed(change);
    });
    this.#agent = agent;
    this.#credential.follow(agent.turn, 'password' in proof || proof.account.renewable);
    this.#relay.follow(agent.turn);
    this.#call.follow(agent);
    this.#messages.follow(agent.ua);
    agent.start();
  }

  #changed({ state, problem }: AgentChange): void {
    const user = this.#agent?.user ?? '';
    const named = state === 'registered' ? `${user}: ${STATE_TEXT[state].toLowerCase()}` : STATE_TEXT[state];
    const line = problem ? `${named}: ${problem}` : named;
    if (line !== this.#lastLine) log(line, problem !== ''); // a reconnection says the same at each try
    this.#lastLine = line;
    setState(this.#state, state, named);
    notice(this.#notice, problem);
    document.title = state === 'registered' ? `${user} – WIC` : 'WIC';

    this.#call.setConnected(state === 'registered');
    this.#messages.setConnected(state === 'registered');
    if (state === 'registered') this.#showSignedIn(true);
    const refused = state === 'failed' && !this.#agent?.retrying;
    if (state === 'signed-out' || refused) this.#signedOut();
    byId('sign-out').hidden = this.#agent === undefined;
    byId<HTMLButtonElement>('sign-in').disabled = this.#agent !== undefined;
    byId<HTMLButtonElement>('web-sign-in').disabled = this.#agent !== undefined;
  }

  #signedOut(): void {
    const byWebAccount = this.#agent?.byWebAccount;
    this.#agent = undefined;
    this.#credential.clear();
    this.#token.clear();
    this.#relay.clear();
    this.#call.clear();
    this.#messages.clear();
    this.#showSignedIn(false);
    byId<HTMLButtonElement>('web-sign-in').disabled = false;
    if (byWebAccount) byId('web-sign-in').focus();
    else byId('password').focus();
  }

  #showSignedIn(signedIn: boolean): void {
    byId('sign-in-card').hidden = signedIn;
    for (const column of document.querySelectorAll<HTMLElement>('.signed-in')) column.hidden = !signedIn;
    if (signedIn) this.#suggestPeer();
  }

  /** Fills in somebody to call: the first known user that is not this one. */
  #suggestPeer(): void {
    const target = byId<HTMLInputElement>('call-target');
    if (target.value === '' || target.value === this.#agent?.user) {
      target.value = this.settings.users.find((user) => user !== this.#agent?.user) ?? '';
    }
    this.#messages.nameTarget();
  }
}

const arrival = arrive();
if (arrival) {
  loadSettings().then(
    (settings) => {
      const page = new Page(settings);
      log(`page ready for ${page.settings.domain}`);
      return page.comeBack(arrival);
    },
    () => notice(byId('notice'), 'The page could not load its settings. Is the server still running? Reload the page once it is.'),
  );
}
