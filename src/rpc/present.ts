/**
 * What a client goes by that is the node's to know: its clock, for the age of keys, and the version of the schema, for
 * writes that are sent again (gateway/resend.ts). Told with the welcome, then whenever the schema has changed, and now and
 * then, because clocks are set.
 */
import type { Clock } from "../base/io.js";
import type { Gateway } from "./gateway.js";

/** The clock is looked at once in so many answers. */
const LOOK_EVERY = 64;
const AGAIN_MS = 10_000;

type Told = readonly [wallMs: number, schemaVersion: number | null];

export class Present {
  readonly #clock: Clock;
  readonly #gateway: Gateway;
  #answers = 0;
  #version: number | undefined;
  #toldMs = 0;

  constructor(clock: Clock, gateway: Gateway) {
    this.#clock = clock;
    this.#gateway = gateway;
  }

  tell(): Told {
    this.#version = this.#gateway.schemaVersion?.();
    this.#toldMs = this.#clock.monotonicMs();
    this.#answers = 0;
    return [this.#clock.wallMs(), this.#version ?? null];
  }

  /** After each answer of a statement; what to tell the client, now and then. */
  answered(): Told | undefined {
    if (this.#gateway.schemaVersion?.() !== this.#version) return this.tell();
    if (++this.#answers < LOOK_EVERY) return undefined;
    this.#answers = 0;
    return this.#clock.monotonicMs() < this.#toldMs + AGAIN_MS ? undefined : this.tell();
  }
}
