// The page: it uses WicTurn as any page would, and shows all that it does. README.md
// lists the ids and data attributes that tests rely on.

import { Agent, type AgentChange, type AgentState } from './agent.js';
import { CallPanel } from './call.js';
import { loadSettings, type Settings } from './config.js';
import { CredentialPanel } from './credential.js';
import { byId, make, notice, setState } from './dom.js';
import { log } from './log.js';
import { Messages } from './messages.js';
import { RelayCheck } from './relaycheck.js';

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
  #agent: Agent | undefined;
  #lastLine = '';

  constructor(readonly settings: Settings) {
    this.#relay = new RelayCheck(settings);
    this.#call = new CallPanel(settings.domain);
    this.#messages = new Messages(settings.domain);
    byId('domain').textContent = settings.domain;
    byId('demo-hint').hidden = !settings.demo;
    byId('users').replaceChildren(...settings.users.map((user) => Object.assign(make('option'), { value: user })));
    byId('user-buttons').replaceChildren(...settings.users.map((user) => this.#userButton(user)));
    byId('sign-in-form').addEventListener('submit', (e) => {
      e.preventDefault();
      this.#signIn();
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

  #signIn(): void {
    const user = byId<HTMLInputElement>('user').value.trim();
    const password = byId<HTMLInputElement>('password').value;
    let agent: Agent;
    try {
      agent = new Agent(user, password, this.settings, (change) => {
        if (this.#agent === agent) this.#changed(change);
      });
    } catch {
      notice(this.#notice, 'That is no user name. Write a name such as alice, without spaces.');
      return;
    }
    this.#agent = agent;
    byId<HTMLInputElement>('password').value = ''; // nothing secret stays in the form
    this.#credential.follow(agent.turn);
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
  }

  #signedOut(): void {
    this.#agent = undefined;
    this.#credential.clear();
    this.#relay.clear();
    this.#call.clear();
    this.#messages.clear();
    this.#showSignedIn(false);
    byId('password').focus();
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

loadSettings().then(
  (settings) => {
    const page = new Page(settings);
    log(`page ready for ${page.settings.domain}`);
  },
  () => notice(byId('notice'), 'The page could not load its settings. Is the server still running? Reload the page once it is.'),
);
