import { callStats } from './callstats.js';
import { byId, bytes } from './dom.js';
import { Plot } from './plot.js';

const EVERY_MS = 1_000;

/** Shows what goes over the connection of a call, once a second. */
export class CallMeter {
  readonly #details = byId('call-details');
  readonly #plot = new Plot(byId<SVGSVGElement>('plot'), byId('plot-scale'));
  #timer: ReturnType<typeof setInterval> | undefined;
  #flowed = false;

  watch(pc: RTCPeerConnection): void {
    clearInterval(this.#timer);
    this.#flowed = false;
    this.#plot.clear();
    for (const id of ['local-candidate', 'remote-candidate']) byId(id).textContent = 'none yet';
    for (const id of ['bytes-sent', 'bytes-received']) byId(id).textContent = '0 B';
    byId('audio-packets').textContent = '0';
    this.#details.hidden = false;
    let last = { at: performance.now(), sent: 0, received: 0 };
    this.#timer = setInterval(() => {
      void callStats(pc).then((stats) => {
        if (pc.connectionState === 'closed') return;
        this.#flowed ||= stats.received > 0;
        if (stats.local) byId('local-candidate').textContent = stats.local;
        if (stats.remote) byId('remote-candidate').textContent = stats.remote;
        byId('bytes-sent').textContent = bytes(stats.sent);
        byId('bytes-received').textContent = bytes(stats.received);
        byId('audio-packets').textContent = String(stats.audioPackets);
        const at = performance.now();
        const kbits = (n: number) => Math.max(0, (n * 8) / (at - last.at)); // bytes per ms, 8 bit each: kbit/s
        this.#plot.add(kbits(stats.sent - last.sent), kbits(stats.received - last.received));
        last = { at, sent: stats.sent, received: stats.received };
      });
    }, EVERY_MS);
  }

  /** Leaves the last numbers to be read, where there were any. */
  stop(): void {
    clearInterval(this.#timer);
    if (!this.#flowed) this.#details.hidden = true;
  }

  hide(): void {
    this.#flowed = false;
    this.stop();
  }
}
