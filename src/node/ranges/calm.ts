/**
 * When ranges are left as they are: while somebody wants many of them together and has had to start over because they
 * split, or changed their leaders, faster than all could be reached, nothing is done here that can wait.
 *
 * Invariant: after a calm, ranges may change for at least as long as it has lasted, whoever asks.
 */
import type { Clock } from "../../base/io.js";

const MOST_MS = 30_000;

export class Calm {
  readonly #clock: Clock;
  #beganMs = 0;
  #untilMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long ranges are to be left as they are from now on; 0 when they are not. */
  get leftMs(): number {
    return Math.max(0, this.#untilMs - this.#clock.monotonicMs());
  }

  /** Asks for so long, in milliseconds; answers whether ranges are left as they are for longer because of it. */
  ask(ms: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs >= this.#untilMs) {
      const lastedMs = this.#untilMs - this.#beganMs;
      if (nowMs < this.#untilMs + lastedMs) return false;
      this.#beganMs = nowMs;
    }
    const untilMs = Math.min(nowMs + ms, this.#beganMs + MOST_MS);
    if (untilMs <= this.#untilMs) return false;
    this.#untilMs = untilMs;
    return true;
  }
}
