/** Time as WicTurn needs it; tests turn their own. */
export interface Clock {
  /** Milliseconds since some start. Never goes back, and goes on while a laptop sleeps. */
  now(): number;
  /** Unix seconds, as well as the browser knows them. */
  unix(): number;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(handle: unknown): void;
}

/** Where a system clock reads the time. */
export interface TimeSources {
  monotonic(): number;
  wall(): number;
}

const browserTime: TimeSources = { monotonic: () => performance.now(), wall: () => Date.now() };

/**
 * The browser's clock. performance.now() may stand still during sleep, and Date.now()
 * jumps when somebody sets the time: each step counts the larger advance of the two, so
 * a sleep is seen, a clock set back does no harm, and one set forward costs at worst
 * one renewal too early.
 */
export function systemClock(time: TimeSources = browserTime): Clock {
  let monotonic = time.monotonic();
  let wall = time.wall();
  let elapsed = 0;
  return {
    now() {
      const [m, w] = [time.monotonic(), time.wall()];
      elapsed += Math.max(m - monotonic, w - wall, 0);
      [monotonic, wall] = [m, w];
      return elapsed;
    },
    unix: () => time.wall() / 1000,
    setTimeout: (fn, ms) => setTimeout(fn, ms),
    clearTimeout: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
  };
}
