// The header 3gpp-ext-turn-cred (TS 33.203 X.5.2.2), parsed strictly:
//
//   3gpp-ext-turn-cred = "3gpp-ext-turn-cred" HCOLON ( "request" / cred / "unavailable" ) *( SEMI param )
//   cred  = Tid COLON Texp COLON Tpwd
//   param = ( "username" / "realm" / "uris" ) EQUAL quoted-string   ; uris: RFC 7065, separated by spaces
//         / ( "ttl" / "retry-after" ) EQUAL delta-seconds
//         / "approach" EQUAL token / "reason" EQUAL token / generic-param
//
// It is no list: a second row, an unquoted comma or a repeated parameter is refused.
// No error repeats the value, which may hold a password.

/** The name of the header, and of the option tag that asks for it. */
export const HEADER = '3gpp-ext-turn-cred';

/** The row that a request for a credential carries. */
export const REQUEST_ROW = `${HEADER}: request`;

/** What the header says when it carries a credential. */
export interface CredentialValue {
  kind: 'credential';
  tid: string;
  /** Expiry in Unix seconds, by the server's clock. */
  texp: number;
  password: string;
  /** USERNAME for TURN; Tid:Texp where the header does not give it literally. */
  username: string;
  realm: string;
  uris: string[];
  /** Life in seconds from the moment of receipt; browsers' clocks are wrong. */
  ttl?: number;
  approach?: string;
}

/** What the header says when there is no credential to be had. */
export interface UnavailableValue {
  kind: 'unavailable';
  reason: string;
  /** Seconds to wait before asking again. */
  retryAfter?: number;
}

export type HeaderValue = CredentialValue | UnavailableValue;

/** HeaderError says why a header was refused. */
export class HeaderError extends Error {
  constructor(why: string) {
    super(`malformed ${HEADER}: ${why}`);
    this.name = 'HeaderError';
  }
}

// RFC 3261 §25.1.
const TOKEN = /^[A-Za-z0-9\-.!%*_+`'~]+$/;
const GEN_VALUE = /^[A-Za-z0-9\-.!%*_+`'~[\]:]+$/;
const QUOTED = /^"((?:[^"\\]|\\.)*)"$/s;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

const TID = /^[A-Za-z0-9\-_]+$/;
const TEXP = /^[0-9]{1,15}$/; // 15 digits stay exact in a double
const TPWD = /^[A-Za-z0-9+/]+={0,2}$/;

// RFC 7065 §3.1: turn or turns, a host or an address, a port, a transport.
const TURN_URI =
  /^turns?:(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?)(?::[0-9]{1,5})?(?:\?transport=(?:udp|tcp))?$/i;

/** Reports whether uri is one that a browser takes as an ICE server. */
export function isTurnURI(uri: string): boolean {
  return TURN_URI.test(uri);
}

/**
 * Reads the rows that a message had of the header. None: undefined. More than one, or
 * one outside the grammar: HeaderError.
 */
export function parseRows(rows: readonly string[]): HeaderValue | undefined {
  const [row] = rows;
  if (row === undefined) return undefined;
  if (rows.length > 1) throw new HeaderError(`${rows.length} rows, want one`);
  return parseValue(row);
}

/** Reads one value as a server sends it. */
export function parseValue(value: string): HeaderValue {
  const [head = '', ...rest] = splitOutsideQuotes(value);
  const params = parseParams(rest);
  switch (head.toLowerCase()) {
    case 'request':
      throw new HeaderError('"request" is for requests');
    case 'unavailable':
      return unavailableFrom(params);
    default:
      return credentialFrom(head, params);
  }
}

function unavailableFrom(params: Map<string, string>): UnavailableValue {
  const value: UnavailableValue = { kind: 'unavailable', reason: params.get('reason') ?? 'unknown' };
  const retryAfter = params.get('retry-after');
  if (retryAfter !== undefined) value.retryAfter = Number(retryAfter);
  return value;
}

function credentialFrom(head: string, params: Map<string, string>): CredentialValue {
  const fields = head.split(':').map(trimLWS);
  const [tid = '', texp = '', password = ''] = fields;
  if (fields.length !== 3) throw new HeaderError('want Tid:Texp:Tpwd or "unavailable"');
  if (!TID.test(tid)) throw new HeaderError('Tid is outside the grammar');
  if (!TEXP.test(texp)) throw new HeaderError('Texp: want digits only');
  if (!TPWD.test(password)) throw new HeaderError('Tpwd is not base64');

  const uris = (params.get('uris') ?? '').split(' ').filter((uri) => uri !== '');
  const foreign = uris.find((uri) => !isTurnURI(uri));
  if (foreign !== undefined) throw new HeaderError(`uris: ${JSON.stringify(foreign)} is no TURN URI`);

  const value: CredentialValue = {
    kind: 'credential',
    tid,
    texp: Number(texp),
    password,
    username: params.get('username') ?? `${tid}:${texp}`, // TS 33.203 X.5.2.2 step 5
    realm: params.get('realm') ?? '',
    uris,
  };
  const ttl = params.get('ttl');
  if (ttl !== undefined) value.ttl = Number(ttl);
  const approach = params.get('approach');
  if (approach !== undefined) value.approach = approach.toLowerCase();
  return value;
}

function parseParams(parts: readonly string[]): Map<string, string> {
  const params = new Map<string, string>();
  for (const part of parts) {
    const equal = part.indexOf('=');
    const name = trimLWS(equal < 0 ? part : part.slice(0, equal)).toLowerCase();
    if (!TOKEN.test(name)) throw new HeaderError("a parameter's name is no token");
    if (params.has(name)) throw new HeaderError(`parameter ${name} is repeated`);
    params.set(name, paramValue(name, equal < 0 ? undefined : trimLWS(part.slice(equal + 1))));
  }
  return params;
}

function paramValue(name: string, raw: string | undefined): string {
  switch (name) {
    case 'username':
    case 'realm':
    case 'uris':
      return unquote(name, raw ?? '');
    case 'ttl':
    case 'retry-after': // delta-seconds, at most 2**32 - 1 (RFC 3261 §20.19)
      if (!/^[0-9]{1,10}$/.test(raw ?? '') || Number(raw) > 0xffffffff) {
        throw new HeaderError(`parameter ${name}: want seconds`);
      }
      return raw ?? '';
    case 'approach':
      if (!/^(?:shared-key|push)$/i.test(raw ?? '')) {
        throw new HeaderError('parameter approach: want "shared-key" or "push"');
      }
      return raw ?? '';
    case 'reason':
      if (!TOKEN.test(raw ?? '')) throw new HeaderError('parameter reason: no token');
      return raw ?? '';
    default: // generic-param = token [ EQUAL gen-value ]
      if (raw !== undefined && !GEN_VALUE.test(raw) && !QUOTED.test(raw)) {
        throw new HeaderError(`parameter ${name}: neither token, host nor quoted-string`);
      }
      return raw ?? '';
  }
}

function unquote(name: string, raw: string): string {
  const body = QUOTED.exec(raw)?.[1];
  if (body === undefined) throw new HeaderError(`parameter ${name}: no quoted-string`);
  return body.replace(/\\(.)/gs, '$1');
}

/** Splits at ";" outside quotes, never at "=", which base64 ends with. */
function splitOutsideQuotes(value: string): string[] {
  if (CONTROL.test(value)) throw new HeaderError('control character');
  const parts: string[] = [];
  let start = 0;
  let quoted = false;
  for (let i = 0; i < value.length; i++) {
    const c = value[i];
    if (quoted && c === '\\') i++;
    else if (c === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (c === ',') throw new HeaderError('comma outside quotes: the header is no list');
    else if (c === ';') {
      parts.push(trimLWS(value.slice(start, i)));
      start = i + 1;
    }
  }
  if (quoted) throw new HeaderError('quote is not closed');
  parts.push(trimLWS(value.slice(start)));
  return parts;
}

function trimLWS(s: string): string {
  return s.replace(/^[ \t]+|[ \t]+$/g, '');
}
