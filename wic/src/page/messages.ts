import type { UA } from 'jssip';
import type { IncomingMessageEvent, OutgoingMessageEvent } from 'jssip/lib/UA.js';

import { addressOf, displayName } from './config.js';
import { byId, clockTime, make, trimList } from './dom.js';
import { messageFailure } from './explain.js';
import { log } from './log.js';

/** Texts by SIP MESSAGE, to the user that stands in the call's form. */
export class Messages {
  readonly #list = byId('messages');
  readonly #text = byId<HTMLInputElement>('message-text');
  readonly #send = byId<HTMLButtonElement>('send-message');
  readonly #target = byId<HTMLInputElement>('call-target');
  #ua: UA | undefined;

  constructor(readonly domain: string) {
    byId('message-form').addEventListener('submit', (e) => {
      e.preventDefault();
      this.#sendText();
    });
    this.#target.addEventListener('input', () => this.nameTarget());
  }

  follow(ua: UA): void {
    this.#ua = ua;
    ua.on('newMessage', (e: IncomingMessageEvent | OutgoingMessageEvent) => {
      if (String(e.originator) !== 'remote') return;
      const { uri } = e.request.from;
      const who = displayName(uri.user, uri.host, this.domain);
      this.#add(`from ${who}`, e.request.body).dataset['direction'] = 'in';
      log(`text from ${who}`);
    });
  }

  setConnected(connected: boolean): void {
    this.#send.disabled = !connected;
  }

  clear(): void {
    this.#ua = undefined;
    this.setConnected(false);
    this.#list.replaceChildren();
  }

  /** Says above the field whom a text goes to. */
  nameTarget(): void {
    byId('message-target').textContent = this.#target.value.trim() || 'the user above';
  }

  #sendText(): void {
    const who = this.#target.value.trim();
    if (who === '') {
      this.#target.focus();
      this.#target.reportValidity();
      return;
    }
    const item = this.#add(`to ${who}`, this.#text.value);
    item.dataset['direction'] = 'out';
    const meta = item.querySelector('.meta')!;
    const outcome = (result: string, text: string) => {
      item.dataset['result'] = result;
      meta.append(`, ${text}`);
      log(`text to ${who} ${text}`, result === 'failed');
    };
    try {
      this.#ua?.sendMessage(addressOf(who, this.domain), this.#text.value, {
        eventHandlers: {
          succeeded: () => outcome('ok', 'delivered'),
          failed: (e) => outcome('failed', messageFailure(e.response?.status_code, who)),
        },
      });
      this.#text.value = '';
    } catch {
      outcome('failed', 'not delivered: that is no name or address');
    }
  }

  #add(meta: string, text: string): HTMLLIElement {
    const item = make('li');
    const head = make('div', `${meta}, `, 'meta');
    head.append(clockTime());
    item.append(head, make('div', text));
    this.#list.append(item);
    trimList(this.#list, 100);
    this.#list.scrollTop = this.#list.scrollHeight;
    return item;
  }
}
