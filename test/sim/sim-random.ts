/**
 * Seeded randomness (sfc32). One seed gives any number of named streams, so that a new draw in one part of a
 * simulation does not shift what the others see.
 */
import type { Random } from "../../src/base/io.js";

function mix(text: string, seed: number): number {
  let hash = (seed ^ 0x9e3779b9) >>> 0;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x85ebca6b);
    hash ^= hash >>> 13;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export class SimRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(
    readonly seed: number,
    readonly name = "root",
  ) {
    this.#a = mix(`${name}/a`, seed);
    this.#b = mix(`${name}/b`, seed);
    this.#c = mix(`${name}/c`, seed);
    for (let i = 0; i < 12; i++) this.uint32();
  }

  /** An independent stream of the same seed. */
  stream(name: string): SimRandom {
    return new SimRandom(this.seed, `${this.name}/${name}`);
  }

  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0;
    return sum;
  }

  float(): number {
    return this.uint32() / 4294967296;
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.uint32() >>> 24;
    return bytes;
  }

  /** Uniform in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.float() * limit);
  }

  /** Uniform in [low, high], both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("picking from nothing");
    return item;
  }
}
