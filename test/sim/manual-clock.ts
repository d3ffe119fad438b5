/**
 * A clock that moves only when told to. Timers fire in order of (time, creation); between two of them everything that
 * was set going gets to its end, so a run depends on nothing but its inputs.
 */
import type { Clock, Timer } from "../../src/base/io.js";

interface Armed {
  readonly at: number;
  readonly sequence: number;
  readonly fire: () => void;
}

export class ManualClock implements Clock {
  #now = 0;
  #sequence = 0;
  /** Sorted, the next one last. */
  readonly #timers: Armed[] = [];

  monotonicMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#now;
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const timer: Armed = { at: this.#now + Math.max(0, delayMs), sequence: this.#sequence++, fire };
    let low = 0;
    let high = this.#timers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.#timers[middle] as Armed;
      if (other.at > timer.at || (other.at === timer.at && other.sequence > timer.sequence)) low = middle + 1;
      else high = middle;
    }
    this.#timers.splice(low, 0, timer);
    return {
      cancel: () => {
        const at = this.#timers.indexOf(timer);
        if (at >= 0) this.#timers.splice(at, 1);
      },
    };
  }

  /** Moves on by `ms`, firing what is due on the way. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settle();
    for (;;) {
      const next = this.#timers[this.#timers.length - 1];
      if (next === undefined || next.at > until) break;
      this.#timers.pop();
      // After a stall timers are late.
      this.#now = Math.max(this.#now, next.at);
      next.fire();
      await settle();
    }
    this.#now = until;
  }

  /** Time passes and nothing runs: a stopped process. Timers that became due fire at the next advance, late. */
  stall(ms: number): void {
    this.#now += ms;
  }
}

/** Lets every promise that can go on do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A view of a clock that ends: after `kill` no timer made through it fires any more. */
export class MortalClock implements Clock {
  #dead = false;
  #pausedUntil = 0;

  constructor(private readonly inner: Clock) {}

  kill(): void {
    this.#dead = true;
  }

  monotonicMs(): number {
    return this.inner.monotonicMs();
  }

  wallMs(): number {
    return this.inner.wallMs();
  }

  /** As SIGSTOP: what becomes due in the next `ms` fires after them. */
  pause(ms: number): void {
    this.#pausedUntil = this.inner.monotonicMs() + ms;
  }

  /** How long the pause still lasts. */
  pausedMs(): number {
    return Math.max(0, this.#pausedUntil - this.inner.monotonicMs());
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    let timer = this.inner.setTimer(delayMs, () => run());
    const run = (): void => {
      if (this.#dead) return;
      const wait = this.pausedMs();
      if (wait > 0) timer = this.inner.setTimer(wait, run);
      else fire();
    };
    return { cancel: () => timer.cancel() };
  }
}
