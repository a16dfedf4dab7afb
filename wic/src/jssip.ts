import type { UA, WebSocketInterface } from 'jssip';
import type { IncomingRTCSessionEvent, OutgoingRTCSessionEvent, UnRegisteredEvent } from 'jssip/lib/UA.js';
import type { IncomingResponse } from 'jssip/lib/SIPMessage.js';
import type { RTCSession } from 'jssip/lib/RTCSession.js';

import { HEADER, REQUEST_ROW } from './header.js';
import { withMD5Only } from './message.js';
import { WicTurn, type WicTurnOptions } from './wicturn.js';

/** What JsSIP has and its type declarations lack. */
interface Undeclared {
  configuration: { registrar_server: unknown };
  sendOptions(
    target: unknown,
    body: null,
    options: {
      extraHeaders: string[];
      eventHandlers: {
        succeeded(e: { response: IncomingResponse }): void;
        failed(e: { response: IncomingResponse | null; cause: string }): void;
      };
    },
  ): void;
}

/**
 * Joins a WicTurn to a JsSIP user agent and its socket; call it before ua.start().
 * Every REGISTER then asks for a credential, and calls that lose their relay are healed.
 * For a call, give `turn.rtcConfiguration()` as pcConfig to ua.call and session.answer.
 *
 * A page that has credentials of another kind, such as a WAF's tokens, gives its own
 * requestCredential, and the first one to turn.accept; REGISTER asks for none then.
 */
export function wicTurnForJsSIP(ua: UA, socket: WebSocketInterface, options: Partial<WicTurnOptions> = {}): WicTurn {
  const turn = new WicTurn({ requestCredential: () => requestByOptions(ua), ...options });
  if (!options.requestCredential) ua.registrator().setExtraHeaders([REQUEST_ROW]);
  tap(socket, (text) => {
    turn.receive(text);
    return withMD5Only(text);
  });
  ua.on('unregistered', (e: UnRegisteredEvent) => {
    // Without an answer the connection was lost, and the credential outlives that.
    if (e.response) turn.forget();
  });
  ua.on('newRTCSession', (e: IncomingRTCSessionEvent | OutgoingRTCSessionEvent) => {
    attend(e.session, turn);
  });
  return turn;
}

/**
 * Shows every text that the socket delivers, and hands on what `see` makes of it. JsSIP
 * tells an application of the first 200 to REGISTER only, not of a refresh, and sets
 * ondata anew at each connection.
 */
function tap(socket: WebSocketInterface, see: (text: string) => string): void {
  const decoder = new TextDecoder();
  let deliver: (data: unknown) => void = () => undefined;
  Object.defineProperty(socket, 'ondata', {
    configurable: true,
    set: (fn: (data: unknown) => void) => (deliver = fn),
    get: () => (data: unknown) => {
      deliver(see(data instanceof ArrayBuffer ? decoder.decode(data) : String(data)));
    },
  });
}

function requestByOptions(ua: UA): Promise<readonly string[]> {
  const agent = ua as unknown as Undeclared;
  return new Promise((resolve, reject) => {
    // The URI object, since JsSIP would add a user part to a string.
    agent.sendOptions(agent.configuration.registrar_server, null, {
      extraHeaders: [REQUEST_ROW],
      eventHandlers: {
        succeeded: (e) => resolve(e.response.getHeaders(HEADER)),
        failed: (e) => {
          const answer = e.response ? `${e.response.status_code} ${e.response.reason_phrase}` : e.cause;
          reject(new Error(`OPTIONS for a TURN credential: ${answer}`));
        },
      },
    });
  });
}

// One relay candidate is enough to call with; those of the other transports follow
// within milliseconds where they work, and never where they do not.
const OTHER_CANDIDATES = 100;
// RFC 3261 §14.1: who did not call waits, so that the two re-INVITEs do not collide.
const CALLEE_DELAY = 4_000;
// How long a re-offer waits for the relay candidate of its new ICE generation.
const REOFFER_PATIENCE = 3_000;

/** Does for one call what a page would otherwise have to know. */
function attend(session: RTCSession, turn: WicTurn): void {
  session.on('icecandidate', (e) => {
    // JsSIP waits for the end of gathering, which a silent TURN URI delays for long.
    if (isRelay(e.candidate.candidate)) setTimeout(e.ready, OTHER_CANDIDATES);
  });
  const watch = (pc: RTCPeerConnection) => {
    holdReoffers(pc);
    const delay = session.direction === 'outgoing' ? 0 : CALLEE_DELAY;
    const unguard = turn.guard(pc, () => restart(session, pc), delay);
    session.on('ended', unguard);
    session.on('failed', unguard);
    session.on('reinvite', () => {
      if (turn.secondsLeft > 0) turn.refresh(pc); // the other side may be restarting ICE
    });
  };
  // For an outgoing call the connection is there already; for an incoming one it is
  // made by session.answer.
  if (session.connection) watch(session.connection);
  else session.on('peerconnection', (e) => watch(e.peerconnection));
}

function restart(session: RTCSession, pc: RTCPeerConnection): void {
  if (!session.isEstablished()) return;
  pc.restartIce();
  session.renegotiate();
}

/**
 * JsSIP sends a re-offer, and the answer to one, without waiting for the candidates of
 * a restarted ICE. So setting the local description takes until there is one to send.
 */
function holdReoffers(pc: RTCPeerConnection): void {
  const set = pc.setLocalDescription.bind(pc);
  pc.setLocalDescription = async (description?: RTCLocalSessionDescriptionInit): Promise<void> => {
    const before = ufrag(pc);
    await set(description);
    if (before === undefined || before === ufrag(pc)) return;
    const patience = Date.now() + REOFFER_PATIENCE;
    while (!isRelay(pc.localDescription?.sdp ?? '') && Date.now() < patience && pc.signalingState !== 'closed') {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
}

function ufrag(pc: RTCPeerConnection): string | undefined {
  return /^a=ice-ufrag:(.+)$/m.exec(pc.localDescription?.sdp ?? '')?.[1];
}

function isRelay(candidates: string): boolean {
  return / typ relay /.test(candidates);
}
