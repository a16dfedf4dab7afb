import type { UA } from 'jssip';
import type { IncomingRTCSessionEvent, OutgoingRTCSessionEvent } from 'jssip/lib/UA.js';
import type { EndEvent, RTCSession } from 'jssip/lib/RTCSession.js';

import { NoCredentialError, type WicTurn } from '../wicturn.js';
import type { Agent } from './agent.js';
import { openAudio, type AudioSource } from './audio.js';
import { CallMeter } from './callmeter.js';
import { addressOf, displayName } from './config.js';
import { DataLink } from './datachannel.js';
import { byId, notice, setState } from './dom.js';
import { callFailure, microphoneFailure } from './explain.js';
import { log } from './log.js';

/** Values of #call-state[data-state]. */
type CallState = 'idle' | 'calling' | 'ringing' | 'incoming' | 'connecting' | 'connected' | 'healing' | 'ended' | 'failed';

/** The caller gives up by itself where nobody answers and no server says so. */
const PATIENCE_MS = 60_000;

/** The call of a signed-in user: one at a time, audio and a data channel. */
export class CallPanel {
  readonly #state = byId('call-state');
  readonly #notice = byId('call-notice');
  readonly #callButton = byId<HTMLButtonElement>('call');
  readonly #hangUp = byId<HTMLButtonElement>('hang-up');
  readonly #mute = byId<HTMLButtonElement>('mute');
  readonly #target = byId<HTMLInputElement>('call-target');
  readonly #audioSource = byId<HTMLSelectElement>('audio-source');
  readonly #relayOnly = byId<HTMLInputElement>('relay-only');
  readonly #remoteAudio = byId<HTMLAudioElement>('remote-audio');
  readonly #incoming = byId('incoming');
  readonly #data = new DataLink();
  readonly #meter = new CallMeter();
  #ua: UA | undefined;
  #turn: WicTurn | undefined;
  #session: RTCSession | undefined;
  #audio: AudioSource | undefined;
  #who = '';
  #starting = false;
  #connected = false;

  constructor(readonly domain: string) {
    byId('call-form').addEventListener('submit', (e) => {
      e.preventDefault();
      void this.#call();
    });
    byId('answer').addEventListener('click', () => void this.#answer());
    byId('reject').addEventListener('click', () => this.#session?.terminate({ status_code: 603, reason_phrase: 'Decline' }));
    this.#hangUp.addEventListener('click', () => this.#end());
    this.#mute.addEventListener('click', () => this.#toggleMute());
  }

  follow({ ua, turn }: Agent): void {
    this.#ua = ua;
    this.#turn = turn;
    turn.on('credential', () => this.#buttons());
    turn.on('expired', () => this.#buttons());
    ua.on('newRTCSession', ({ session }: IncomingRTCSessionEvent | OutgoingRTCSessionEvent) => {
      if (session.direction === 'incoming') this.#ring(session);
      else this.#adopt(session);
    });
    this.#show('idle', 'No call');
  }

  /** Without a connection there is nothing to call with; a running call goes on. */
  setConnected(connected: boolean): void {
    this.#connected = connected;
    this.#buttons();
  }

  clear(): void {
    this.#end();
    this.#ua = this.#turn = undefined;
    this.#meter.hide();
    notice(this.#notice, '');
    this.#show('idle', 'No call');
  }

  async #call(): Promise<void> {
    if (!this.#ua || this.#session || this.#starting) return;
    notice(this.#notice, '');
    this.#who = this.#target.value.trim();
    const pcConfig = this.#configuration();
    if (!pcConfig || !(await this.#openAudio())) return;
    this.#show('calling', `Calling ${this.#who}`);
    log(`calling ${this.#who}`);
    try {
      this.#ua.call(addressOf(this.#who, this.domain), { mediaStream: this.#audio!.stream, pcConfig });
    } catch {
      this.#finish('failed', 'Not called', 'That is no name or address. Write a name such as bob.');
    }
  }

  #ring(session: RTCSession): void {
    if (this.#session || this.#starting) {
      session.terminate({ status_code: 486, reason_phrase: 'Busy Here' });
      return;
    }
    const { uri } = session.remote_identity;
    this.#who = displayName(uri.user, uri.host, this.domain);
    this.#adopt(session);
    notice(this.#notice, '');
    byId('incoming-from').textContent = this.#who;
    this.#incoming.hidden = false;
    byId('answer').focus();
    this.#show('incoming', `${this.#who} is calling`);
    log(`${this.#who} is calling`);
  }

  async #answer(): Promise<void> {
    const session = this.#session;
    if (!session || this.#starting) return;
    const pcConfig = this.#configuration();
    if (!pcConfig || !(await this.#openAudio())) return; // still ringing: another try is possible
    if (session.isEnded()) {
      this.#closeAudio();
      return;
    }
    this.#incoming.hidden = true;
    this.#show('connecting', `Connecting to ${this.#who}`);
    session.answer({ mediaStream: this.#audio!.stream, pcConfig });
  }

  /** Follows a session from its beginning to its end. */
  #adopt(session: RTCSession): void {
    this.#session = session;
    if (session.connection) this.#attach(session.connection);
    else session.on('peerconnection', (e) => this.#attach(e.peerconnection));
    const patience = setTimeout(() => {
      if (session.direction === 'outgoing' && session.isInProgress()) session.terminate({ cause: 'No Answer' });
    }, PATIENCE_MS);
    session.on('progress', () => {
      if (session.direction === 'outgoing') this.#show('ringing', `Ringing at ${this.#who}`);
    });
    session.on('accepted', () => this.#show('connecting', `Connecting to ${this.#who}`));
    session.on('confirmed', () => this.#connection(session));
    session.on('ended', (e) => this.#over(session, e, patience));
    session.on('failed', (e) => this.#over(session, e, patience));
    this.#buttons();
  }

  /** Takes the connection before its offer or answer is made. */
  #attach(pc: RTCPeerConnection): void {
    this.#data.open(pc);
    this.#meter.watch(pc);
    pc.addEventListener('track', (e) => {
      this.#remoteAudio.srcObject = e.streams[0] ?? new MediaStream([e.track]);
    });
    pc.addEventListener('connectionstatechange', () => {
      if (this.#session) this.#connection(this.#session);
    });
  }

  #connection(session: RTCSession): void {
    if (!session.isEstablished()) return;
    switch (session.connection.connectionState) {
      case 'connected':
        if (this.#state.dataset['state'] !== 'connected') log(`call with ${this.#who}: connected`);
        notice(this.#notice, '');
        this.#show('connected', `In a call with ${this.#who}`);
        break;
      case 'disconnected':
      case 'failed':
        log(`call with ${this.#who}: connection ${session.connection.connectionState}`, true);
        this.#show('healing', 'The connection is broken; finding another way');
        break;
      default:
        this.#show('connecting', `Connecting to ${this.#who}`);
    }
  }

  #over(session: RTCSession, e: EndEvent, patience: ReturnType<typeof setTimeout>): void {
    clearTimeout(patience);
    if (session !== this.#session) return;
    const mine = String(e.originator) === 'local';
    const status = e.message && 'status_code' in e.message ? e.message.status_code : undefined;
    if (e.cause === 'Terminated') {
      this.#finish('ended', mine ? 'You hung up' : `${this.#who} hung up`);
    } else if (session.direction === 'incoming' && e.cause === 'Canceled') {
      this.#finish('ended', `${this.#who} gave up`);
    } else if (mine && (e.cause === 'Canceled' || e.cause === 'Rejected')) {
      this.#finish('ended', e.cause === 'Rejected' ? 'You rejected the call' : 'You gave up');
    } else if (session.direction === 'incoming' && e.cause === 'No Answer') {
      this.#finish('ended', `You missed a call from ${this.#who}`);
    } else {
      this.#finish('failed', 'Call failed', callFailure(status, e.cause, this.#who));
    }
  }

  #end(): void {
    const session = this.#session;
    if (session && !session.isEnded()) session.terminate();
  }

  #finish(state: CallState, text: string, problem = ''): void {
    this.#session = undefined;
    this.#incoming.hidden = true;
    this.#data.close();
    this.#meter.stop();
    this.#closeAudio();
    this.#remoteAudio.srcObject = null;
    notice(this.#notice, problem);
    this.#show(state, text);
    log(problem ? `${text}: ${problem}` : text, problem !== '');
  }

  #configuration(): RTCConfiguration | undefined {
    try {
      return this.#turn?.rtcConfiguration({ relayOnly: this.#relayOnly.checked });
    } catch (err) {
      if (!(err instanceof NoCredentialError)) throw err;
      notice(this.#notice, 'There is no TURN credential now. Wait until it arrives, or press "Renew now".');
      return undefined;
    }
  }

  async #openAudio(): Promise<boolean> {
    this.#starting = true;
    try {
      this.#audio = await openAudio(this.#audioSource.value === 'tone' ? 'tone' : 'microphone');
      return true;
    } catch (err) {
      notice(this.#notice, microphoneFailure(err));
      this.#audioSource.focus();
      return false;
    } finally {
      this.#starting = false;
    }
  }

  #closeAudio(): void {
    this.#audio?.stop();
    this.#audio = undefined;
  }

  #toggleMute(): void {
    const muted = this.#session?.isMuted().audio ?? false;
    if (muted) this.#session?.unmute({ audio: true });
    else this.#session?.mute({ audio: true });
    this.#buttons();
  }

  #show(state: CallState, text: string): void {
    setState(this.#state, state, text);
    this.#buttons();
  }

  #buttons(): void {
    const busy = this.#session !== undefined;
    this.#callButton.disabled = busy || !this.#connected || !this.#turn?.credential || this.#turn.secondsLeft === 0;
    this.#callButton.hidden = busy;
    this.#hangUp.hidden = !busy || !this.#incoming.hidden;
    this.#mute.hidden = !this.#session?.isEstablished();
    const muted = this.#session?.isMuted().audio ?? false;
    this.#mute.setAttribute('aria-pressed', String(muted));
    this.#mute.textContent = muted ? 'Unmute' : 'Mute';
  }
}
