/** What the server says of itself in /config.json. */
export interface Settings {
  domain: string;
  websocket_path: string;
  users: string[];
  turn_approach: string;
  ca?: string;
  demo: boolean;
  trust_hint?: string;
  oauth?: OAuthSettings;
}

/** The WAF that signs the page's users in. */
export interface OAuthSettings {
  issuer: string;
  client_id: string;
  scope: string;
  turn_server?: string;
  implicit: boolean;
  token_fields?: string;
}

export async function loadSettings(): Promise<Settings> {
  const response = await fetch('config.json', { cache: 'no-store' });
  if (!response.ok) throw new Error(`config.json: ${response.status}`);
  return (await response.json()) as Settings;
}

/** Where SIP over WebSocket is spoken: at the server that the page came from. */
export function webSocketURL(settings: Settings): string {
  return `wss://${location.host}${settings.websocket_path}`;
}

/** The address of a user as typed: a name of the home domain, or a whole address. */
export function addressOf(typed: string, domain: string): string {
  const name = typed.trim().replace(/^sips?:/i, '');
  return `sip:${name.includes('@') ? name : `${name}@${domain}`}`;
}

/** A name as a person says it: without scheme, and without the home domain. */
export function displayName(user: string, host: string, domain: string): string {
  return host === domain ? user : `${user}@${host}`;
}
