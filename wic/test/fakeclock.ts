import type { Clock } from '../src/clock.js';

/** A clock that stands still until a test turns it. */
export class FakeClock implements Clock {
  #now = 1_000;
  #next = 1;
  #timers = new Map<number, { at: number; fn: () => void }>();
  wallSkew = 0; // seconds by which unix() is wrong

  now(): number {
    return this.#now;
  }

  unix(): number {
    return this.#now / 1000 + this.wallSkew;
  }

  setTimeout(fn: () => void, ms: number): number {
    const id = this.#next++;
    this.#timers.set(id, { at: this.#now + ms, fn });
    return id;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number);
  }

  get pending(): number {
    return this.#timers.size;
  }

  /** Moves time on, running timers in their order, and lets promises settle between. */
  async advance(seconds: number): Promise<void> {
    const until = this.#now + seconds * 1000;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(([, t]) => t.at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].fn();
    }
    this.#now = until;
    await settled();
  }

  /** Time passes, as in a laptop's sleep, without timers coming nearer. */
  sleep(seconds: number): void {
    this.#now += seconds * 1000;
    for (const t of this.#timers.values()) t.at += seconds * 1000;
  }
}

/** Lets every promise that can settle do so. */
export async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
