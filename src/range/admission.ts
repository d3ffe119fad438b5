/**
 * The gate of one leadership (src/txn/gate.ts) with the clock that lets waits end, and what is to be done by whoever
 * passes: a step that runs in the very turn of its passing, so that waiting, validation and proposing have no pause
 * between them.
 */
import { RouteError } from "../base/errors.js";
import type { Clock, Timer } from "../base/io.js";
import { type Entrant, Gate, type Passage } from "../txn/gate.js";

interface Waiting {
  readonly pass: (passage: Passage) => void;
  readonly refuse: (error: Error) => void;
}

export class Admission {
  readonly gate: Gate;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, Waiting>();
  #timer: Timer | undefined;
  #firesMs = Infinity;
  #settling = false;
  #again = false;
  #ended = false;

  constructor(clock: Clock, options: { readonly claimMs: number }) {
    this.#clock = clock;
    this.gate = new Gate(options);
  }

  /** Nothing is held, fenced or waited for: whoever comes may go on without asking. */
  get clear(): boolean {
    return this.gate.clear;
  }

  /** Runs `step` once `entrant` has passed, at once if nothing is in its way. Rejects when the leadership ends. */
  pass<T>(entrant: Entrant, step: (passage: Passage) => T | Promise<T>): Promise<T> {
    if (this.#ended) return Promise.reject(new RouteError("leadership changed", undefined));
    const passage = this.gate.enter(entrant, this.#clock.monotonicMs());
    if (typeof passage !== "number") return new Promise((resolve) => resolve(step(passage)));
    return new Promise((resolve, reject) => {
      this.#waiting.set(passage, {
        pass: (outcome) => {
          try {
            resolve(step(outcome));
          } catch (error) {
            reject(error);
          }
        },
        refuse: reject,
      });
      this.#watchFor(entrant);
    });
  }

  /** Something that others may wait for is over. */
  settle(): void {
    if (this.#settling) {
      this.#again = true;
      return;
    }
    if (this.#waiting.size === 0) return;
    this.#settling = true;
    do {
      this.#again = false;
      for (const { ticket, passage } of this.gate.settle(this.#clock.monotonicMs())) {
        const waiting = this.#waiting.get(ticket);
        this.#waiting.delete(ticket);
        waiting?.pass(passage);
      }
    } while (this.#again);
    this.#settling = false;
    this.#watch();
  }

  /** Leadership ended: nobody waits here any longer. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { refuse } of waiting) refuse(new RouteError("leadership changed", undefined));
  }

  /** One more waits: only it, or a fence raised since, may have to be woken earlier than the timer will. */
  #watchFor(entrant: Entrant): void {
    const untilMs = this.gate.waitsUntilMs(entrant);
    const expiryMs = this.gate.fences.nextExpiryMs();
    this.#arm(Math.min(this.#firesMs, untilMs ?? Infinity, expiryMs ?? Infinity));
  }

  #watch(): void {
    this.#arm(this.gate.nextMs() ?? Infinity);
  }

  #arm(firesMs: number): void {
    if (firesMs === this.#firesMs || this.#ended) return;
    this.#timer?.cancel();
    this.#firesMs = firesMs;
    if (firesMs === Infinity) return;
    const delayMs = Math.max(1, firesMs - this.#clock.monotonicMs());
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#firesMs = Infinity;
      this.settle();
    });
  }
}
