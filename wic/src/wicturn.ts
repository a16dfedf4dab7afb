import { systemClock, type Clock } from './clock.js';
import { HEADER, parseRows, type CredentialValue } from './header.js';
import { registerAnswer } from './message.js';

/** A TURN credential, as it stands until it is replaced. */
export interface TurnCredential {
  readonly username: string;
  readonly password: string;
  readonly realm: string;
  /** RFC 7065 URIs, in the server's order of preference. */
  readonly uris: readonly string[];
  readonly approach: string;
  /** The answer that brought it, or that it is a ReadyCredential. */
  readonly source: 'REGISTER' | 'OPTIONS' | 'token';
  /** Life in seconds at the moment of receipt. */
  readonly ttl: number;
  /** Moment of receipt and of expiry, in milliseconds of the clock. */
  readonly received: number;
  readonly expires: number;
}

/** A credential that comes by another way than SIP, such as a WAF's TURN token (RFC 7635). */
export interface ReadyCredential {
  readonly username: string;
  readonly password: string;
  readonly uris: readonly string[];
  /** What is left of its life, in seconds. */
  readonly ttl: number;
  /** When to ask for the next one, in seconds; Infinity: never. Default: by renewAt. */
  readonly renewIn?: number;
}

/** Why there is no credential for now, and in how many seconds WicTurn asks again. */
export interface Unavailable {
  readonly reason: string;
  readonly retryIn: number | undefined;
}

/** Events of WicTurn, with what their listeners get. */
export interface WicTurnEvents {
  /** A credential has arrived; it holds from now on. */
  credential: TurnCredential;
  /** The server has none for now. An older one stays good until it expires. */
  unavailable: Unavailable;
  /** The credential has expired and no newer one has come. */
  expired: TurnCredential;
  /** A header was refused, or a renewal failed; WicTurn tries again by itself. */
  error: Error;
}

export interface WicTurnOptions {
  /**
   * Sends an OPTIONS with "3gpp-ext-turn-cred: request" to the home domain and gives
   * back the header's rows of its 2xx answer; rejects for any other outcome. Where
   * credentials come another way, it gets the next one that way.
   */
  requestCredential(): Promise<readonly string[] | ReadyCredential>;
  /** Part of its life after which a credential is renewed; default 0.8. */
  renewAt?: number;
  /** TURN URIs to use where the header names none; default none. */
  uris?: readonly string[];
  clock?: Clock;
  /** Random number from 0 to below 1, for the back-off. */
  random?: () => number;
}

/** NoCredentialError says that there is no credential that is good now. */
export class NoCredentialError extends Error {
  constructor() {
    super('no TURN credential: wait for the event "credential"');
    this.name = 'NoCredentialError';
  }
}

// Timers stand still while a laptop sleeps and then run on. So no timer is longer than
// this, and each looks at the clock: a sleeper notices at most this late.
const LONGEST_TIMER = 15_000;
// Back-off of renewals that fail, doubled from the first to the last.
const FIRST_RETRY = 1_000;
const LAST_RETRY = 60_000;

/**
 * WicTurn holds the TURN credential of a registration: it reads the header
 * 3gpp-ext-turn-cred from every 200 to REGISTER, renews the credential by OPTIONS at
 * 80 % of its life, and gives out the RTCConfiguration to call with. Adapters join it
 * to a SIP library: wicTurnForJsSIP, wicTurnForSIPjs.
 *
 * A running call is left alone by a renewal, since the server keeps the old credential
 * good for it; `guard` heals a call whose connection has failed.
 */
export class WicTurn {
  readonly #options: WicTurnOptions;
  readonly #clock: Clock;
  readonly #listeners = new Map<string, Set<(detail: never) => void>>();
  #credential: TurnCredential | undefined;
  #expiryTold = false;
  #renewal: Promise<TurnCredential> | undefined;
  #generation = 0; // counts forget(): answers that come later belong to nobody
  #failures = 0;
  #due: number | undefined; // when to renew, by the clock
  #timer: unknown;

  constructor(options: WicTurnOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock();
  }

  /** Calls listener for each event of that name; the result takes it off again. */
  on<K extends keyof WicTurnEvents>(name: K, listener: (detail: WicTurnEvents[K]) => void): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => set.delete(listener);
  }

  /** The last credential, which may have expired. */
  get credential(): TurnCredential | undefined {
    return this.#credential;
  }

  /** Seconds until the credential expires; 0 without one. */
  get secondsLeft(): number {
    return this.#credential ? Math.max(0, this.#credential.expires - this.#clock.now()) / 1000 : 0;
  }

  /** Seconds until WicTurn asks for the next credential; undefined where it will not. */
  get secondsToRenewal(): number | undefined {
    return this.#due === undefined ? undefined : Math.max(0, this.#due - this.#clock.now()) / 1000;
  }

  /**
   * The configuration for a new RTCPeerConnection; relayOnly lets no other candidates
   * through. Throws NoCredentialError where no credential is good now.
   */
  rtcConfiguration({ relayOnly = false } = {}): RTCConfiguration {
    const c = this.#credential;
    if (!c || this.secondsLeft === 0) throw new NoCredentialError();
    return {
      iceServers: [{ urls: [...c.uris], username: c.username, credential: c.password }],
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
    };
  }

  /** Takes each text that the WebSocket delivers; looks at 2xx answers to REGISTER only. */
  receive(text: string): void {
    const answer = registerAnswer(text, HEADER);
    if (answer?.bound) this.#take(answer.rows, 'REGISTER');
  }

  /** Takes a credential that has come another way than SIP. */
  accept(ready: ReadyCredential): void {
    const { username, password, uris, ttl, renewIn } = ready;
    this.#store({ username, password, uris, ttl, realm: '', approach: 'token', source: 'token' }, renewIn);
  }

  /** Asks for a new credential now. Calls that overlap share one request. */
  renew(): Promise<TurnCredential> {
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  /** Drops the credential and asks no more, until the next registration brings one. */
  forget(): void {
    this.#generation++;
    this.#credential = undefined;
    this.#schedule(undefined);
  }

  /**
   * Keeps a call alive: where its connection has failed, it gets a new credential and
   * calls restart, which must restart ICE and send the offer. The side that called
   * passes 0 as delay; the other one a few seconds, so that the two do not collide
   * (RFC 3261 §14.1). The result ends the watch.
   */
  guard(pc: RTCPeerConnection, restart: () => void, delay = 0): () => void {
    let busy = false;
    const failed = () => pc.connectionState === 'failed';
    const heal = async () => {
      await new Promise<void>((resolve) => this.#clock.setTimeout(resolve, delay));
      if (!failed()) return; // the other side was faster
      await this.renew();
      this.refresh(pc);
      restart();
    };
    const watch = () => {
      if (busy || !failed()) return;
      busy = true;
      heal()
        .catch((err: unknown) => this.#emit('error', asError(err)))
        .finally(() => (busy = false));
    };
    pc.addEventListener('connectionstatechange', watch);
    return () => pc.removeEventListener('connectionstatechange', watch);
  }

  /** Gives the credential to a connection, for its next ICE restart; what runs goes on. */
  refresh(pc: RTCPeerConnection): void {
    const { iceServers = [] } = this.rtcConfiguration();
    pc.setConfiguration({ ...pc.getConfiguration(), iceServers });
  }

  async #renew(): Promise<TurnCredential> {
    const generation = this.#generation;
    let got: readonly string[] | ReadyCredential;
    try {
      got = await this.#options.requestCredential();
    } catch (err) {
      if (generation === this.#generation) this.#retry();
      throw asError(err);
    }
    if (generation !== this.#generation) throw new NoCredentialError();
    const before = this.#credential;
    if ('username' in got) this.accept(got);
    else this.#take(got, 'OPTIONS');
    if (!this.#credential || this.#credential === before) throw new NoCredentialError();
    return this.#credential;
  }

  #take(rows: readonly string[], source: TurnCredential['source']): void {
    try {
      const value = parseRows(rows);
      if (value?.kind === 'credential') {
        this.#hold(value, source);
      } else if (value) {
        this.#wait(value.reason, value.retryAfter);
      } else if (source === 'OPTIONS') {
        throw new Error(`the answer to OPTIONS has no ${HEADER}`);
      } else if (this.#credential && this.#credential.source !== 'token') {
        this.#schedule(this.#renewalTime(this.#credential)); // a refresh that brought none
      }
    } catch (err) {
      this.#emit('error', asError(err));
      this.#retry();
    }
  }

  #hold(value: CredentialValue, source: TurnCredential['source']): void {
    const uris = value.uris.length > 0 ? value.uris : (this.#options.uris ?? []);
    if (uris.length === 0) throw new Error(`${HEADER} names no TURN URI, and none is configured`);
    const ttl = value.ttl ?? Math.max(0, Math.floor(value.texp - this.#clock.unix()));
    const { username, password, realm, approach = '' } = value;
    this.#store({ username, password, realm, uris, approach, source, ttl });
  }

  #store(value: Omit<TurnCredential, 'received' | 'expires'>, renewIn?: number): void {
    const received = this.#clock.now();
    this.#credential = { ...value, received, expires: received + value.ttl * 1000 };
    this.#failures = 0;
    this.#expiryTold = false;
    if (renewIn === undefined) this.#schedule(this.#renewalTime(this.#credential));
    else this.#schedule(renewIn === Infinity ? undefined : received + Math.max(renewIn * 1000, FIRST_RETRY));
    this.#emit('credential', this.#credential);
  }

  /** Never in a tight loop, however short a life the server gives. */
  #renewalTime(c: TurnCredential): number {
    return c.received + Math.max(c.ttl * 1000 * (this.#options.renewAt ?? 0.8), FIRST_RETRY);
  }

  #wait(reason: string, retryAfter: number | undefined): void {
    if (reason === 'disabled' && retryAfter === undefined) {
      this.#schedule(undefined); // by the operator's wish: only a new registration may change it
    } else if (retryAfter === undefined) {
      this.#retry();
    } else {
      this.#schedule(this.#clock.now() + Math.max(retryAfter * 1000, FIRST_RETRY));
    }
    this.#emit('unavailable', { reason, retryIn: this.secondsToRenewal });
  }

  #retry(): void {
    const span = Math.min(FIRST_RETRY * 2 ** this.#failures, LAST_RETRY);
    this.#failures++;
    // Half of the span is random, so that a thousand pages do not ask in step.
    this.#schedule(this.#clock.now() + span * (0.5 + (this.#options.random ?? Math.random)() / 2));
  }

  #schedule(due: number | undefined): void {
    this.#due = due;
    this.#tick();
  }

  /** Sets the one timer for what comes first: renewal, expiry, or another look. */
  #tick(): void {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    const now = this.#clock.now();
    const waits: number[] = [];
    if (this.#due !== undefined) waits.push(this.#due - now);
    if (this.#credential && !this.#expiryTold) waits.push(this.#credential.expires - now);
    if (waits.length === 0) return;
    const wait = Math.min(Math.max(0, Math.min(...waits)), LONGEST_TIMER);
    this.#timer = this.#clock.setTimeout(() => this.#look(), wait);
  }

  #look(): void {
    const now = this.#clock.now();
    if (this.#credential && !this.#expiryTold && now >= this.#credential.expires) {
      this.#expiryTold = true;
      this.#emit('expired', this.#credential);
    }
    if (this.#due !== undefined && now >= this.#due) {
      this.#due = undefined; // the outcome sets the next one
      this.renew().catch((err: unknown) => {
        if (!(err instanceof NoCredentialError)) this.#emit('error', asError(err));
      });
    }
    this.#tick();
  }

  #emit<K extends keyof WicTurnEvents>(name: K, detail: WicTurnEvents[K]): void {
    for (const listener of this.#listeners.get(name) ?? []) (listener as (d: WicTurnEvents[K]) => void)(detail);
  }
}

function asError(err: unknown): Error {
  return err instanceof Error ? err : new Error(String(err));
}
