/**
 * When to tell a client that another node leads what it writes: a write asked of any other is passed on, which costs
 * a hop and the work of two nodes. Readers are never sent away: reads are served by the node that is asked.
 */
import type { Clock } from "../base/io.js";
import type { Gateway } from "./gateway.js";

/** Looked at once in so many answers. */
const LOOK_EVERY = 64;
/** A client that stays is told again after this; it may have been unable to go. */
const AGAIN_MS = 10_000;

export class LeaderAdvice {
  readonly #clock: Clock;
  readonly #gateway: Gateway;
  readonly #self: number;
  #answers = 0;
  #writes = 0;
  #told: number | undefined;
  #toldMs = 0;

  constructor(clock: Clock, gateway: Gateway, self: number) {
    this.#clock = clock;
    this.#gateway = gateway;
    this.#self = self;
  }

  /** After each answer of a statement; the node to tell the client of, now and then. */
  answered(wrote: boolean): number | undefined {
    if (wrote) this.#writes++;
    if (++this.#answers < LOOK_EVERY) return undefined;
    const mostly = this.#writes * 2 > this.#answers;
    this.#answers = 0;
    this.#writes = 0;
    return mostly ? this.#look() : undefined;
  }

  #look(): number | undefined {
    const leader = this.#gateway.mainLeader?.();
    if (leader === undefined || leader === this.#self) return undefined;
    const nowMs = this.#clock.monotonicMs();
    if (leader === this.#told && nowMs < this.#toldMs + AGAIN_MS) return undefined;
    this.#told = leader;
    this.#toldMs = nowMs;
    return leader;
  }
}
