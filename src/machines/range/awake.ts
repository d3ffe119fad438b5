/**
 * Which stores of a worker have their files open, and which of them are to rest: a store that is open costs a third of
 * a megabyte and some file descriptors, opening it again about a millisecond, and closing it two writes to the disk that
 * are waited for.
 *
 * Invariants:
 * 1. At most `most` are open, but for those that cannot rest just now. Room is made by one of the half that was used
 *    longest ago, by chance: if it were always the very last, who goes through a few more than `most` in turn (a change of
 *    the schema does) would find none of them open, ever; and who is used often stays open, whoever else comes by.
 * 2. A store that was used within `IDLE_MS` only rests for want of room: whoever uses many ranges in turn does not open
 *    and close files all the time.
 * 3. Of those that nobody uses `FEW` stay open; the rest close one by one, `PACE_MS` apart, so that ranges in use hardly
 *    wait for it. While there are no more than `FEW`, no timer runs.
 *
 * Whether a store rests changes nothing but its costs (StoreCore).
 */
import { readFileSync } from "node:fs";
import type { Timer } from "../../base/io.js";

/** What can rest; false when something is under way. */
export interface Restable {
  rest(): boolean;
}

export interface AwakeParts {
  readonly monotonicMs: () => number;
  /** Runs something later; without it stores only rest for want of room. */
  readonly later?: (delayMs: number, run: () => void) => Timer;
}

const IDLE_MS = 60_000;
const FEW = 16;
const PACE_MS = 50;
const MOST = 1024;
/** Where the system does not say how many files a process may have open, or says very few. */
const LEAST = 64;
/** A file and its log: by the worker's writer and its reader, and the main thread's; the index of the log once. */
const FILES_PER_STORE = 7;
const OTHER_FILES = 1024;

interface Used {
  readonly store: Restable;
  usedMs: number;
}

export class Awake {
  readonly #parts: AwakeParts;
  readonly #most: number;
  /** In order of use. */
  readonly #used = new Map<number, Used>();
  #last: number | undefined;
  #timer: Timer | undefined;
  #seed = 1;

  constructor(parts: AwakeParts, most = MOST) {
    this.#parts = parts;
    this.#most = most;
  }

  /** To be called before a store is used: it will be open. */
  use(id: number, store: Restable): void {
    if (this.#last === id) return;
    this.#last = id;
    const nowMs = this.#parts.monotonicMs();
    const known = this.#used.get(id);
    if (known !== undefined) this.#used.delete(id);
    this.#used.set(id, { store, usedMs: nowMs });
    if (this.#used.size > this.#most) this.#makeRoom();
    if (this.#used.size > FEW) this.#plan(IDLE_MS);
  }

  delete(id: number): void {
    this.#used.delete(id);
    if (this.#last === id) this.#last = undefined;
  }

  clear(): void {
    this.#used.clear();
    this.#last = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #makeRoom(): void {
    const ids = [...this.#used.keys()];
    const first = this.#random() % Math.ceil(ids.length / 2);
    for (let at = 0; at < ids.length && this.#used.size > this.#most; at++) {
      const id = ids[(first + at) % ids.length] as number;
      const { store } = this.#used.get(id) as Used;
      if (id !== this.#last && putToRest(store)) this.#used.delete(id);
    }
  }

  /** A linear congruential generator's high bits: no chance from outside, so that simulation repeats itself. */
  #random(): number {
    this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
    return this.#seed >>> 8;
  }

  #plan(delayMs: number): void {
    const { later } = this.#parts;
    if (this.#timer !== undefined || later === undefined) return;
    this.#timer = later(delayMs, () => {
      this.#timer = undefined;
      this.#letOneRest();
    });
  }

  #letOneRest(): void {
    // Whoever was used last may have been used all the time since.
    this.#last = undefined;
    const nowMs = this.#parts.monotonicMs();
    for (const [id, { store, usedMs }] of this.#used) {
      if (this.#used.size <= FEW) return;
      if (nowMs - usedMs < IDLE_MS) {
        // What is left may be too little to count: the clock would say the same again, and again.
        this.#plan(Math.max(PACE_MS, usedMs + IDLE_MS - nowMs));
        return;
      }
      if (!putToRest(store)) continue;
      this.#used.delete(id);
      this.#plan(PACE_MS);
      return;
    }
    if (this.#used.size > FEW) this.#plan(IDLE_MS);
  }
}

function putToRest(store: Restable): boolean {
  try {
    return store.rest();
  } catch {
    // Whatever it is that SQLite has to say, it says to the next call that needs the file.
    return false;
  }
}

/** How many stores may be open in a process that may have so many files open. */
export function mostAwake(maxFiles = openFilesLimit()): number {
  if (maxFiles === undefined) return LEAST;
  return Math.max(LEAST, Math.min(MOST, Math.floor((maxFiles - OTHER_FILES) / FILES_PER_STORE)));
}

/** Node raises the soft limit to the hard one when it starts. Undefined where the system does not say. */
function openFilesLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === "unlimited" ? Number.MAX_SAFE_INTEGER : soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
