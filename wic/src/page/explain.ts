// What failures mean, and what to do about each.

import type { Settings } from './config.js';

/** Why a registration was refused. */
export function registrationFailure(status: number | undefined, phrase: string): string {
  switch (status) {
    case 401:
    case 403:
    case 407:
      return 'The user name or the password is wrong. Both stand where the server was started; mind upper and lower case.';
    case 404:
      return 'The server does not know this user. Check the user name.';
    case 408:
    case 503:
    case 504:
      return `The core does not answer (${status}). The page tries again by itself; if it goes on, look at the server's log.`;
    case undefined:
      return 'No answer to the registration. The page tries again by itself; is the server still running?';
    default:
      return `The registration was refused: ${status} ${phrase}. The page tries again by itself; the server's log says more.`;
  }
}

/** A token ends by itself this long before its time is over: the edge wants some of it left. */
const LAST_SECONDS = 2;

/** Why the server takes a web account's token no longer. */
export function tokenRefused(secondsLeft: number): string {
  return secondsLeft <= LAST_SECONDS
    ? 'The token of your web account has expired, and the registration with it. Sign in again; the web account may still know you.'
    : 'Your sign-in was revoked: the server takes its token no more, and has ended registration and calls. Sign in again if that was not meant.';
}

/** Why the WAF gives no new token for its refresh token. */
export function renewalRefused(): string {
  return 'The web account renews this sign-in no more: it was revoked, or has reached its end. Sign in again.';
}

/** Why a sign-in with the web account did not come about, by the code of OAuthError. */
export function signInFailure(code: string, issuer: string): string {
  switch (code) {
    case 'access_denied':
      return 'You did not allow this page to use your web account, so you are not signed in. Sign in again and choose "Allow", or use your password here.';
    case 'foreign_answer':
      return 'An answer came that belongs to no sign-in begun in this tab, and was thrown away. Press "Sign in with the web account" once more.';
    case 'invalid_grant':
      return 'The web account\'s answer was too old or had been used before. Press "Sign in with the web account" once more.';
    case 'unreachable':
      return `No connection to the web account at ${issuer}. Open that address once to see whether it runs and your browser trusts it, then sign in again.`;
    case 'temporarily_unavailable':
    case 'server_error':
      return 'The web account cannot sign you in now. Try again in a moment; its log says more.';
    case 'malformed_answer':
      return 'The web account\'s answer could not be read. Sign in once more; if that goes on, look at its log.';
    default:
      return `The web account refused the sign-in (${code}). The operator must look at how this page is registered there.`;
  }
}

/** Why the WebSocket is closed. */
export function connectionLost(url: string, everConnected: boolean): string {
  return everConnected
    ? `The connection to ${url} was lost. The page reconnects by itself; if it does not, see whether the server still runs.`
    : `No connection to ${url}. Is the server running? If it is, its certificate may be new: reload the page and accept it. ` +
        'The page tries again by itself.';
}

/** Why there is no credential. */
export function credentialUnavailable(reason: string, retryIn: number | undefined): string {
  const next = retryIn === undefined ? 'Sign in again once that has changed.' : `The page asks again in ${Math.ceil(retryIn)} s.`;
  switch (reason) {
    case 'relay-unreachable':
      return `The server cannot reach its TURN relay, so it gives no credential now. See whether the relay runs. ${next}`;
    case 'limit':
      return `This user has as many credentials as allowed. Close other tabs or wait. ${next}`;
    case 'disabled':
      return `The operator has switched TURN credentials off. ${next}`;
    default:
      return `The server gives no credential now (${reason}). ${next}`;
  }
}

/** Why a call did not come about. */
export function callFailure(status: number | undefined, cause: string, who: string): string {
  switch (status) {
    case 403:
      return `The server does not allow a call to ${who} (403). Sign in again and try once more.`;
    case 404:
    case 604:
      return `There is no user ${who}. Check the name.`;
    case 410:
    case 480:
      return `${who} is not signed in. Open this page in another tab, sign in as ${who} and call again.`;
    case 408:
      return `${who} did not answer. Try again later, or send a text.`;
    case 486:
    case 600:
      return `${who} is in another call. Try again later, or send a text.`;
    case 487:
      return 'The call was cancelled.';
    case 488:
    case 606:
      return `${who} cannot take a call of this kind (${status}). Both ends must be browsers with audio.`;
    case 603:
      return `${who} rejected the call.`;
    case undefined:
      break;
    default:
      return `The call failed: ${status} ${cause}. The server's log says more.`;
  }
  switch (cause) {
    case 'Connection Error':
      return 'The connection to the server was lost during the call. It comes back by itself; then call again.';
    case 'No Answer':
    case 'Request Timeout':
      return `${who} did not answer. Try again later, or send a text.`;
    case 'Canceled':
      return 'The call was cancelled.';
    case 'RTP Timeout':
      return 'No media came through. Press "Check the relay", see that each URI works, and call again.';
    case 'WebRTC Error':
    case 'Bad Media Description':
      return 'The two browsers could not agree on media. Reload both pages and call again.';
    default:
      return `The call failed: ${cause}. Reload the page and call again.`;
  }
}

/** Why a text did not arrive. */
export function messageFailure(status: number | undefined, who: string): string {
  switch (status) {
    case 404:
      return `not delivered: there is no user ${who}`;
    case 480:
      return `not delivered: ${who} is not signed in`;
    case undefined:
      return 'not delivered: the server does not answer; send it again once the page is connected';
    default:
      return `not delivered: ${status}; try again, the server's log says more`;
  }
}

/** Why there is no microphone. */
export function microphoneFailure(err: unknown): string {
  const name = err instanceof Error ? err.name : '';
  switch (name) {
    case 'NotAllowedError':
      return 'The browser may not use the microphone. Allow it at the left of the address bar, or choose "Test tone" as audio.';
    case 'NotFoundError':
      return 'There is no microphone. Plug one in, or choose "Test tone" as audio.';
    case 'NotReadableError':
      return 'Another program holds the microphone. Close it, or choose "Test tone" as audio.';
    default:
      return `The microphone cannot be used (${name || 'unknown error'}). Choose "Test tone" as audio.`;
  }
}

/** What to do about a relay that gave no candidate, in text and perhaps a command to copy. */
export interface RelayAdvice {
  text: string;
  command?: string;
  link?: string;
}

/** Why a TURN URI gave no relay candidate. The code is all that a browser tells. */
export function relayFailure(code: number | undefined, tls: boolean, settings: Settings): RelayAdvice {
  switch (code) {
    case 701:
      return tls ? untrusted(settings) : { text: 'Nothing answers there. See whether the relay runs and a firewall lets TCP through.' };
    case 401:
      return { text: 'The relay refused the credential: it has expired or was revoked. Press "Renew now", or sign in again, and check once more.' };
    case 403:
      return { text: 'The relay forbids this. Look at its peer policy.' };
    case 438:
      return { text: 'The nonce was stale. Check again.' };
    case 486:
      return { text: 'This user has as many allocations as allowed. Close other calls and tabs, and check again.' };
    case 508:
      return { text: 'The relay has no room for another allocation. Try again later.' };
    case undefined:
      return { text: 'No answer in time. See whether the relay runs and a firewall lets it through.' };
    default:
      return { text: `The relay refused the allocation with error ${code}. Its log says more.` };
  }
}

function untrusted(settings: Settings): RelayAdvice {
  const advice: RelayAdvice = {
    text:
      'No TLS connection. A warning clicked away for this page does not count for turns:, so the browser must trust the server itself. ' +
      'Either import the CA below as one that may identify websites (Settings, Privacy and security, Security, Manage certificates), ' +
      'or start a browser with the command below. If it trusts the server already, see whether the relay runs.',
  };
  if (settings.trust_hint) advice.command = settings.trust_hint;
  if (settings.ca) advice.link = settings.ca;
  return advice;
}
