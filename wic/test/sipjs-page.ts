// A WIC on SIP.js without a face: cmd/epcscf's browser test puts it into a tab and drives it.
import { Invitation, Inviter, Registerer, RegistererState, type Session, SessionState, UserAgent, Web } from 'sip.js';

import { REQUEST_ROW, wicTurnForSIPjs } from '../src/sipjs.js';
import type { WicTurn } from '../src/wicturn.js';

class Phone {
  readonly ua: UserAgent;
  readonly turn: WicTurn;
  readonly registerer: Registerer;
  /** Where each credential came from, in order. */
  readonly sources: string[] = [];
  session: Session | undefined;

  constructor(user: string, password: string, readonly domain: string) {
    let turn: WicTurn | undefined;
    this.ua = new UserAgent({
      uri: this.uri(user),
      authorizationUsername: `${user}@${domain}`,
      authorizationPassword: password,
      transportOptions: { server: `wss://${location.host}/ws` },
      logLevel: 'error',
      delegate: { onInvite: (invitation) => this.#take(invitation) },
      sessionDescriptionHandlerFactory: (session, options) =>
        Web.defaultSessionDescriptionHandlerFactory()(session, {
          ...options,
          iceGatheringTimeout: 2000,
          peerConnectionConfiguration: turn!.rtcConfiguration({ relayOnly: true }),
        }),
    });
    this.turn = turn = wicTurnForSIPjs(this.ua, this.uri());
    this.turn.on('credential', (c) => this.sources.push(c.source));
    this.registerer = new Registerer(this.ua, { extraHeaders: [REQUEST_ROW], expires: 600 });
  }

  uri(user?: string) {
    const uri = UserAgent.makeURI(user ? `sip:${user}@${this.domain}` : `sip:${this.domain}`);
    if (!uri) throw new Error(`no URI for ${user}`);
    return uri;
  }

  async register(): Promise<void> {
    await this.ua.start();
    await this.registerer.register();
  }

  get registered(): boolean {
    return this.registerer.state === RegistererState.Registered;
  }

  async unregister(): Promise<void> {
    await this.registerer.unregister();
    this.turn.forget();
  }

  async call(user: string): Promise<void> {
    const inviter = new Inviter(this.ua, this.uri(user), { sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } } });
    this.session = inviter;
    await inviter.invite();
  }

  #take(invitation: Invitation): void {
    this.session = invitation;
    void invitation.accept({ sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } } });
  }

  get calling(): boolean {
    return this.session?.state === SessionState.Established;
  }

  async hangUp(): Promise<void> {
    await this.session?.bye();
  }

  /** Kinds of the candidates in use at both ends, and audio packets that have come. */
  async media(): Promise<{ local: string; remote: string; packets: number }> {
    const handler = this.session?.sessionDescriptionHandler as Web.SessionDescriptionHandler | undefined;
    const found = { local: '', remote: '', packets: 0 };
    const stats = await handler?.peerConnection?.getStats();
    stats?.forEach((s) => {
      if (s.type === 'inbound-rtp' && s.kind === 'audio') found.packets = s.packetsReceived;
      if (s.type === 'transport' && s.selectedCandidatePairId) {
        const pair = stats.get(s.selectedCandidatePairId);
        found.local = stats.get(pair.localCandidateId)?.candidateType;
        found.remote = stats.get(pair.remoteCandidateId)?.candidateType;
      }
    });
    return found;
  }
}

Object.assign(globalThis, { SIPjsPhone: Phone });
