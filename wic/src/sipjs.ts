import { HEADER, REQUEST_ROW } from './header.js';
import { withMD5Only } from './message.js';
import { WicTurn, type WicTurnOptions } from './wicturn.js';

/** What we use of a SIP.js user agent, so that sip.js is no dependency of ours. */
export interface SIPjsUserAgent<URI, Message> {
  transport: { onMessage: ((text: string) => void) | undefined };
  configuration: { uri: URI };
  userAgentCore: {
    makeOutgoingRequestMessage(method: string, target: URI, from: URI, to: URI, options: object, rows: string[]): Message;
    request(
      message: Message,
      delegate: {
        onAccept(r: { message: { getHeaders(name: string): string[] } }): void;
        onReject(r: { message: { statusCode?: number | undefined } }): void;
      },
    ): unknown;
  };
}

/**
 * Joins a WicTurn to a SIP.js user agent; call it before ua.start(). `registrar` is the
 * URI of the home domain. Give the Registerer `extraHeaders: [REQUEST_ROW]`, and the
 * user agent a factory that takes the credential of the moment:
 *
 *     sessionDescriptionHandlerFactory: (session, options) =>
 *       Web.defaultSessionDescriptionHandlerFactory()(session, {
 *         ...options, iceGatheringTimeout: 2000, peerConnectionConfiguration: turn.rtcConfiguration() })
 *
 * Call turn.forget() after an un-register, and turn.guard(pc, ...) for each call.
 */
export function wicTurnForSIPjs<URI, Message>(
  ua: SIPjsUserAgent<URI, Message>,
  registrar: URI,
  options: Omit<WicTurnOptions, 'requestCredential'> = {},
): WicTurn {
  const { transport, userAgentCore: core, configuration } = ua;
  const requestCredential = () =>
    new Promise<readonly string[]>((resolve, reject) => {
      const me = configuration.uri;
      core.request(core.makeOutgoingRequestMessage('OPTIONS', registrar, me, registrar, {}, [REQUEST_ROW]), {
        onAccept: ({ message }) => resolve(message.getHeaders(HEADER)),
        onReject: ({ message }) => reject(new Error(`OPTIONS for a TURN credential: ${message.statusCode ?? 'no answer'}`)),
      });
    });
  const turn = new WicTurn({ ...options, requestCredential });
  // SIP.js, too, keeps the 200 of a refreshed REGISTER to itself.
  const deliver = transport.onMessage;
  transport.onMessage = (text) => {
    turn.receive(text);
    deliver?.(withMD5Only(text));
  };
  return turn;
}

export { REQUEST_ROW };
