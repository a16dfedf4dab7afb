import { byId, bytes } from './dom.js';
import { log } from './log.js';

const CHUNK = 16 * 1024; // what every browser takes as one message
const TOTAL = 1024 * 1024;
const BUFFER = 256 * 1024;

/** The data channel of a call: agreed beforehand, so both ends just open number 0. */
export class DataLink {
  readonly #button = byId<HTMLButtonElement>('send-data');
  readonly #received = byId('data-received');
  #channel: RTCDataChannel | undefined;
  #receivedBytes = 0;
  #sentBytes = 0;

  constructor() {
    this.#button.addEventListener('click', () => void this.#send());
  }

  /** Opens the channel on pc, before its offer or answer is made. */
  open(pc: RTCPeerConnection): void {
    this.close();
    this.#receivedBytes = this.#sentBytes = 0;
    this.#show();
    const channel = pc.createDataChannel('wic', { negotiated: true, id: 0 });
    this.#channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = BUFFER / 2;
    channel.onopen = () => {
      this.#button.disabled = false;
      log('data channel open');
    };
    channel.onclose = () => {
      if (channel === this.#channel) this.#button.disabled = true;
    };
    channel.onmessage = ({ data }) => {
      const before = this.#receivedBytes;
      this.#receivedBytes += data instanceof ArrayBuffer ? data.byteLength : String(data).length;
      if (Math.floor(before / TOTAL) < Math.floor(this.#receivedBytes / TOTAL)) {
        log(`data channel: ${bytes(this.#receivedBytes)} received`);
      }
      this.#show();
    };
  }

  close(): void {
    this.#channel?.close();
    this.#channel = undefined;
    this.#button.disabled = true;
  }

  async #send(): Promise<void> {
    const channel = this.#channel;
    if (channel?.readyState !== 'open') return;
    this.#button.disabled = true;
    const chunk = new Uint8Array(CHUNK);
    for (let left = TOTAL; left > 0 && channel.readyState === 'open'; left -= CHUNK) {
      if (channel.bufferedAmount > BUFFER) await drained(channel);
      if (channel.readyState !== 'open') break;
      channel.send(chunk);
      this.#sentBytes += CHUNK;
      this.#show();
    }
    this.#button.disabled = channel !== this.#channel || channel.readyState !== 'open';
  }

  #show(): void {
    byId('data-sent').textContent = bytes(this.#sentBytes);
    this.#received.textContent = bytes(this.#receivedBytes);
    this.#received.dataset['bytes'] = String(this.#receivedBytes);
  }
}

function drained(channel: RTCDataChannel): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      channel.removeEventListener('bufferedamountlow', done);
      channel.removeEventListener('close', done);
      resolve();
    };
    channel.addEventListener('bufferedamountlow', done);
    channel.addEventListener('close', done);
  });
}
