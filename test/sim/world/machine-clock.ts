/**
 * One machine's clock: monotonic time at the machine's own rate, wall time with the machine's own error, and pauses
 * (SIGSTOP) in which nothing of the machine runs. The world's virtual time stays what it is.
 *
 * A process sees it through `mount()`, which ends with the process: a timer of a dead process never fires.
 */
import type { Clock, Timer } from "../../../src/base/io.js";
import type { SimClock } from "../sim-clock.js";

export class MachineClock {
  readonly #world: SimClock;
  #rate = 1;
  #originWorldMs = 0;
  #originLocalMs = 0;
  #pausedUntilMs = 0;
  readonly #arrived: (() => void)[] = [];
  /** Added to the world's wall time. */
  wallErrorMs = 0;

  constructor(world: SimClock) {
    this.#world = world;
  }

  /** How fast this machine's clock runs from now on. */
  setRate(rate: number): void {
    this.#originLocalMs = this.monotonicMs();
    this.#originWorldMs = this.#world.monotonicMs();
    this.#rate = rate;
  }

  monotonicMs(): number {
    return this.#originLocalMs + (this.#world.monotonicMs() - this.#originWorldMs) * this.#rate;
  }

  wallMs(): number {
    return Math.floor(this.#world.wallMs() + this.wallErrorMs);
  }

  /** Nothing of this machine runs for so long. */
  pause(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#world.monotonicMs() + ms);
  }

  resume(): void {
    this.#pausedUntilMs = 0;
  }

  /** Runs at once, or in order of arrival once the machine runs again. */
  whenAwake(run: () => void): void {
    if (this.pausedMs === 0 && this.#arrived.length === 0) {
      run();
      return;
    }
    this.#arrived.push(run);
    if (this.#arrived.length === 1) this.#drainLater();
  }

  #drainLater(): void {
    this.#world.setTimer(this.pausedMs, () => {
      if (this.pausedMs > 0) {
        this.#drainLater();
        return;
      }
      for (const run of this.#arrived.splice(0)) run();
    });
  }

  get pausedMs(): number {
    return Math.max(0, this.#pausedUntilMs - this.#world.monotonicMs());
  }

  /** Fires after `delayMs` of this machine's time, later if it is paused then, and not at all once `dead`. */
  setTimer(delayMs: number, fire: () => void, dead: () => boolean): Timer {
    let timer: Timer;
    const run = (): void => {
      if (dead()) return;
      const wait = this.pausedMs;
      if (wait > 0) timer = this.#world.setTimer(wait, run);
      else fire();
    };
    timer = this.#world.setTimer(Math.max(0, delayMs) / this.#rate, run);
    return { cancel: () => timer.cancel() };
  }

  /** The clock as one process sees it while it lives. */
  mount(dead: () => boolean): Clock {
    return {
      monotonicMs: () => this.monotonicMs(),
      wallMs: () => this.wallMs(),
      setTimer: (delayMs, fire) => this.setTimer(delayMs, fire, dead),
    };
  }
}
