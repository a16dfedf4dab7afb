import { UA, WebSocketInterface } from 'jssip';
import type { DisconnectEvent, UnRegisteredEvent } from 'jssip/lib/UA.js';

import { wicTurnForJsSIP } from '../jssip.js';
import type { WicTurn } from '../wicturn.js';
import type { WebAccount } from './account.js';
import { webSocketURL, type Settings } from './config.js';
import { connectionLost, registrationFailure, renewalRefused, tokenRefused } from './explain.js';
import { log } from './log.js';

/** Where a sign-in stands; the values stand in #registration-state[data-state]. */
export type AgentState = 'signed-out' | 'connecting' | 'registering' | 'registered' | 'disconnected' | 'failed';

/** A change of state, with what went wrong, for a person to read. */
export interface AgentChange {
  state: AgentState;
  problem: string;
}

// A registration lives this long; JsSIP refreshes it in the second half.
const EXPIRES_S = 600;
// Pauses of the reconnection, between which JsSIP backs off.
const RECONNECT_MIN_S = 1;
const RECONNECT_MAX_S = 15;
// Pause before a registration that was refused for another reason than the password.
const REGISTER_AGAIN_MS = 10_000;
const NO_ANSWER_S = 45;
/** Close code with which the edge ends what was revoked (RFC 6455 §7.4.1). */
const POLICY_VIOLATION = 1008;

/** What a user shows: his password (SIP Digest), or the tokens of his web account. */
export type Proof = { readonly password: string } | { readonly account: WebAccount };

/** One signed-in user: the SIP user agent, and the TURN credential of its registration. */
export class Agent {
  readonly ua: UA;
  readonly turn: WicTurn;
  #everConnected = false;
  readonly #account: WebAccount | undefined;
  #over = false;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly user: string,
    proof: Proof,
    readonly settings: Settings,
    readonly changed: (change: AgentChange) => void,
  ) {
    const account = 'account' in proof ? proof.account : undefined;
    const url = webSocketURL(settings);
    const socket = new WebSocketInterface(url);
    this.ua = new UA({
      sockets: socket,
      uri: account ? account.impu : `sip:${user}@${settings.domain}`,
      ...('password' in proof ? { password: proof.password } : { authorization_jwt: proof.account.authorization }),
      register_expires: EXPIRES_S,
      connection_recovery_min_interval: RECONNECT_MIN_S,
      connection_recovery_max_interval: RECONNECT_MAX_S,
      no_answer_timeout: NO_ANSWER_S,
      user_agent: 'epcscf WIC',
    });
    // A web account brings its TURN credential along; others ask for one in REGISTER.
    this.turn = wicTurnForJsSIP(this.ua, socket, account ? { requestCredential: () => account.next() } : {});
    this.#account = account;
    this.#watch(url);
    if (account) this.#watchAccount(account);
  }

  start(): void {
    this.#tell('connecting');
    this.ua.start();
  }

  /** Whether the user signed in with a web account. */
  get byWebAccount(): boolean {
    return this.#account !== undefined;
  }

  /** Whether it goes on by itself after a failure. */
  get retrying(): boolean {
    return !this.#over;
  }

  /** Hangs up, un-registers and closes the connection. */
  stop(): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#again);
    this.turn.forget();
    const account = this.#account;
    if (account) {
      const revoke = () => void account.revoke().catch(() => log('web account: its tokens were not taken back', true));
      if (this.ua.isRegistered()) this.ua.once('unregistered', revoke); // un-REGISTER needs the token
      else revoke();
    }
    this.ua.stop();
    this.changed({ state: 'signed-out', problem: '' });
  }

  #tell(state: AgentState, problem = ''): void {
    if (!this.#over) this.changed({ state, problem });
  }

  #watch(url: string): void {
    this.ua.on('connected', () => {
      this.#everConnected = true;
      this.#tell('registering');
    });
    this.ua.on('disconnected', (e: DisconnectEvent) => {
      clearTimeout(this.#again);
      if (this.#account && e.code === POLICY_VIOLATION) this.#end(tokenRefused(this.#account.secondsLeft));
      this.#tell('disconnected', connectionLost(url, this.#everConnected));
    });
    this.ua.on('registered', () => this.#registered());
    this.ua.on('registrationFailed', (e: UnRegisteredEvent) => this.#refused(e));
  }

  #registered(): void {
    if (this.#over) return;
    if (this.#account && !this.turn.credential) this.turn.accept(this.#account.credential());
    this.#tell('registered');
  }

  /** New tokens go into the next REGISTER, which is now: the registration ends with the old one. */
  #watchAccount(account: WebAccount): void {
    account.onChange(() => {
      if (this.#over) return;
      if (account.over) {
        this.#end(renewalRefused());
        return;
      }
      this.ua.set('authorization_jwt', account.authorization);
      if (this.ua.isConnected()) this.ua.register();
    });
  }

  /** Ends it, since another try would end the same way. */
  #end(problem: string): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#again);
    this.turn.forget();
    this.ua.stop();
    this.changed({ state: 'failed', problem });
  }

  #refused({ response }: UnRegisteredEvent): void {
    if (this.#over) return;
    const status = response?.status_code;
    const final = status === 401 || status === 403 || status === 404 || status === 407;
    if (final && this.#account) {
      this.#end(tokenRefused(this.#account.secondsLeft));
      return;
    }
    const problem = registrationFailure(status, response?.reason_phrase ?? '');
    if (final) {
      this.#end(problem);
      return;
    }
    this.changed({ state: 'failed', problem });
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      if (!this.#over && this.ua.isConnected()) this.ua.register();
    }, REGISTER_AGAIN_MS);
  }
}
