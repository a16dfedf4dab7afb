import { UA, WebSocketInterface } from 'jssip';
import type { UnRegisteredEvent } from 'jssip/lib/UA.js';

import { wicTurnForJsSIP } from '../jssip.js';
import type { WicTurn } from '../wicturn.js';
import { webSocketURL, type Settings } from './config.js';
import { connectionLost, registrationFailure } from './explain.js';

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

/** One signed-in user: the SIP user agent, and the TURN credential of its registration. */
export class Agent {
  readonly ua: UA;
  readonly turn: WicTurn;
  #everConnected = false;
  #over = false;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly user: string,
    password: string,
    readonly settings: Settings,
    readonly changed: (change: AgentChange) => void,
  ) {
    const url = webSocketURL(settings);
    const socket = new WebSocketInterface(url);
    this.ua = new UA({
      sockets: socket,
      uri: `sip:${user}@${settings.domain}`,
      password,
      register_expires: EXPIRES_S,
      connection_recovery_min_interval: RECONNECT_MIN_S,
      connection_recovery_max_interval: RECONNECT_MAX_S,
      no_answer_timeout: NO_ANSWER_S,
      user_agent: 'epcscf WIC',
    });
    this.turn = wicTurnForJsSIP(this.ua, socket);
    this.#watch(url);
  }

  start(): void {
    this.#tell('connecting');
    this.ua.start();
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
    this.ua.on('disconnected', () => {
      clearTimeout(this.#again);
      this.#tell('disconnected', connectionLost(url, this.#everConnected));
    });
    this.ua.on('registered', () => this.#tell('registered'));
    this.ua.on('registrationFailed', (e: UnRegisteredEvent) => this.#refused(e));
  }

  #refused({ response }: UnRegisteredEvent): void {
    if (this.#over) return;
    const status = response?.status_code;
    const problem = registrationFailure(status, response?.reason_phrase ?? '');
    if (status === 401 || status === 403 || status === 404 || status === 407) {
      this.#over = true; // another try would end the same way
      this.turn.forget();
      this.ua.stop();
    }
    this.changed({ state: 'failed', problem });
    if (this.#over) return;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      if (!this.#over && this.ua.isConnected()) this.ua.register();
    }, REGISTER_AGAIN_MS);
  }
}
