/**
 * The real clock and random source of a node, beside its real disk (real-disk.ts). Everything below src/node takes
 * them by injection; this is the one place that makes them.
 */
import { randomBytes } from "node:crypto";
import type { Clock, Random, Timer } from "../base/io.js";

export { RealDisk } from "./real-disk.js";

export class RealClock implements Clock {
  monotonicMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const timer = setTimeout(fire, delayMs);
    return { cancel: () => clearTimeout(timer) };
  }
}

/** Draws from the system's generator, in blocks. */
export class RealRandom implements Random {
  #block = Buffer.alloc(0);
  #at = 0;

  uint32(): number {
    if (this.#at + 4 > this.#block.length) {
      this.#block = randomBytes(8192);
      this.#at = 0;
    }
    const value = this.#block.readUInt32LE(this.#at);
    this.#at += 4;
    return value;
  }

  float(): number {
    return this.uint32() / 4294967296;
  }

  bytes(length: number): Uint8Array {
    return new Uint8Array(randomBytes(length));
  }
}
