/**
 * Ticks from the monotonic clock. A node that was not running (a blocked event loop, SIGSTOP, a laptop's lid) ticks
 * once, not once for every interval it missed, and only after it has read what its sockets hold: otherwise it would
 * depose its leader for a silence that was its own.
 */
import type { Clock, Timer } from "../base/io.js";

/** Turns of the event loop given to input after a stall: bytes, then the frames and streams made of them. */
const TURNS_AFTER_STALL = 3;

export class Ticker {
  readonly #clock: Clock;
  readonly #tickMs: number;
  readonly #defer: (run: () => void) => void;
  readonly #tick: () => void;
  #timer: Timer | undefined;
  #dueMs = 0;
  #running = false;
  stalls = 0;

  constructor(clock: Clock, tickMs: number, defer: (run: () => void) => void, tick: () => void) {
    this.#clock = clock;
    this.#tickMs = tickMs;
    this.#defer = defer;
    this.#tick = tick;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#dueMs = this.#clock.monotonicMs() + this.#tickMs;
    this.#arm();
  }

  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    if (!this.#running) return;
    const delay = Math.max(0, this.#dueMs - this.#clock.monotonicMs());
    this.#timer = this.#clock.setTimer(delay, () => this.#fire());
  }

  #fire(): void {
    if (!this.#running) return;
    const lateMs = this.#clock.monotonicMs() - this.#dueMs;
    if (lateMs >= this.#tickMs) {
      this.stalls++;
      this.#afterInput(TURNS_AFTER_STALL);
      return;
    }
    this.#dueMs += this.#tickMs;
    this.#tick();
    this.#arm();
  }

  #afterInput(turns: number): void {
    this.#defer(() => {
      if (!this.#running) return;
      if (turns > 1) {
        this.#afterInput(turns - 1);
        return;
      }
      this.#dueMs = this.#clock.monotonicMs() + this.#tickMs;
      this.#tick();
      this.#arm();
    });
  }
}
