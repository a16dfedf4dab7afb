import type { WicTurn } from '../wicturn.js';
import type { Settings } from './config.js';
import { byId, make } from './dom.js';
import { relayFailure } from './explain.js';
import { log } from './log.js';

/** Longest wait for a relay candidate; a working relay takes about 0.1 s. */
const PATIENCE = 8_000;
// After an error, another network interface may still bring a candidate.
const GRACE = 1_000;

type Transport = 'udp' | 'tcp' | 'tls';

type Outcome =
  | { result: 'ok'; address: string; ms: number }
  | { result: 'failed'; code: number | undefined; ms: number };

/** The button "Check the relay" and its list. */
export class RelayCheck {
  readonly #button = byId<HTMLButtonElement>('relay-check');
  readonly #list = byId('relay-results');
  #turn: WicTurn | undefined;

  constructor(readonly settings: Settings) {
    this.#button.addEventListener('click', () => void this.#run());
  }

  follow(turn: WicTurn): void {
    this.#turn = turn;
    turn.on('credential', () => (this.#button.disabled = false));
    turn.on('expired', () => (this.#button.disabled = true));
  }

  clear(): void {
    this.#turn = undefined;
    this.#button.disabled = true;
    this.#list.replaceChildren();
  }

  async #run(): Promise<void> {
    const turn = this.#turn;
    if (!turn?.credential) return;
    this.#button.disabled = true;
    this.#button.textContent = 'Checking…';
    try {
      const { username, password, uris } = turn.credential;
      this.#list.replaceChildren();
      await Promise.all(
        uris.map(async (uri) => {
          const item = make('li');
          item.dataset['uri'] = uri;
          item.dataset['transport'] = transportOf(uri);
          item.append(make('span', uri, 'mono'), ' ', make('span', 'asking…', 'verdict'));
          this.#list.append(item);
          const outcome = await probe({ urls: uri, username, credential: password });
          if (turn === this.#turn) this.#report(item, uri, outcome);
        }),
      );
    } finally {
      this.#button.textContent = 'Check the relay';
      this.#button.disabled = this.#turn === undefined;
    }
  }

  #report(item: HTMLElement, uri: string, outcome: Outcome): void {
    item.dataset['result'] = outcome.result;
    item.dataset['ms'] = String(outcome.ms);
    const verdict = item.querySelector('.verdict')!;
    if (outcome.result === 'ok') {
      verdict.textContent = `relay ${outcome.address} after ${outcome.ms} ms`;
      log(`relay check: ${uri} works, ${outcome.ms} ms`);
      return;
    }
    const { code, ms } = outcome;
    verdict.textContent = code === undefined ? `nothing after ${(ms / 1000).toFixed(0)} s` : `failed with ${code}`;
    const advice = relayFailure(code, transportOf(uri) === 'tls', this.settings);
    item.append(make('p', advice.text, 'small'));
    if (advice.link) {
      const link = make('a', 'Download the CA certificate');
      link.href = advice.link;
      link.download = 'epcscf-ca.pem';
      item.append(link);
    }
    if (advice.command) item.append(make('pre', advice.command, 'mono'));
    log(`relay check: ${uri} failed${code === undefined ? '' : ` with ${code}`}`, true);
  }
}

function transportOf(uri: string): Transport {
  if (/^turns:/i.test(uri)) return 'tls';
  return /transport=tcp/i.test(uri) ? 'tcp' : 'udp';
}

/** Asks one TURN URI for a relay candidate. */
async function probe(server: RTCIceServer): Promise<Outcome> {
  const start = performance.now();
  const elapsed = () => Math.round(performance.now() - start);
  const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
  try {
    return await new Promise<Outcome>((resolve, reject) => {
      let code: number | undefined;
      const fail = () => resolve({ result: 'failed', code, ms: elapsed() });
      setTimeout(fail, PATIENCE);
      pc.onicecandidate = ({ candidate }) => {
        if (candidate?.type !== 'relay') return;
        const host = candidate.address ?? 'address hidden';
        resolve({ result: 'ok', address: `${host.includes(':') ? `[${host}]` : host}:${candidate.port ?? 0}`, ms: elapsed() });
      };
      pc.onicecandidateerror = (e) => {
        code ??= e.errorCode;
        setTimeout(fail, GRACE);
      };
      pc.createDataChannel('check');
      pc.createOffer()
        .then((offer) => pc.setLocalDescription(offer))
        .catch(reject);
    });
  } catch {
    return { result: 'failed', code: undefined, ms: elapsed() };
  } finally {
    pc.close();
  }
}
