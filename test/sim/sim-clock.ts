/**
 * Virtual time. Timers fire in the order of (time, creation); between two of them all promises that can settle do,
 * so that what one wakes has run before the next fires. Nothing happens unless a test asks for it.
 */
import type { Clock, Timer } from "../../src/base/io.js";

interface Scheduled {
  readonly at: number;
  readonly order: number;
  /** Undefined once cancelled: a timer that will not fire holds on to nothing. */
  fire: (() => void) | undefined;
}

function before(a: Scheduled, b: Scheduled): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Lets every promise settle that waits for nothing but other promises. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** So many turns go into one round of the event loop, which itself costs as much as a small one. */
const TURNS_A_ROUND = 64;

/** Calls `turn` again and again while it answers true; before each, every promise settles that can. */
export function turns(turn: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let over = false;
    const once = (): void => {
      if (over) return;
      try {
        over = !turn();
        if (over) resolve();
      } catch (error) {
        over = true;
        reject(error);
      }
    };
    // Promises settle between any two callbacks of one round too.
    const round = (): void => {
      once();
      if (over) return;
      for (let i = 1; i < TURNS_A_ROUND; i++) setImmediate(once);
      setImmediate(round);
    };
    setImmediate(round);
  });
}

export class SimClock implements Clock {
  #now = 0;
  #order = 0;
  #heap: Scheduled[] = [];
  /** Added to virtual time to give wall time; a test may make it jump. */
  wallOffsetMs: number;

  constructor(wallStartMs = 1_700_000_000_000) {
    this.wallOffsetMs = wallStartMs;
  }

  monotonicMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return Math.floor(this.#now + this.wallOffsetMs);
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const scheduled: Scheduled = {
      at: this.#now + Math.max(0, delayMs),
      order: this.#order++,
      fire,
    };
    this.#push(scheduled);
    return {
      cancel: () => {
        scheduled.fire = undefined;
      },
    };
  }

  /** When the next timer is due, if there is one. */
  nextAt(): number | undefined {
    while (this.#heap[0] !== undefined && this.#heap[0].fire === undefined) this.#pop();
    return this.#heap[0]?.at;
  }

  /** Moves to the next timer and fires it; false if there is none. Promises it wakes have not run yet. */
  fireNext(): boolean {
    if (this.nextAt() === undefined) return false;
    const next = this.#pop()!;
    this.#now = next.at;
    next.fire!();
    return true;
  }

  /** Runs for a stretch of virtual time. */
  async run(forMs: number): Promise<void> {
    const end = this.#now + forMs;
    await settle();
    for (let at = this.nextAt(); at !== undefined && at <= end; at = this.nextAt()) {
      this.fireNext();
      await settle();
    }
    this.#now = end;
  }

  /** Runs until the promise settles, and answers it. Throws if time could not bring that about. */
  async until<T>(promise: Promise<T>, limitMs = 3_600_000): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    watched.catch(() => undefined);
    const end = this.#now + limitMs;
    await settle();
    while (!settled) {
      const at = this.nextAt();
      if (at === undefined) throw new Error("nothing is scheduled that could settle the promise");
      if (at > end) throw new Error(`the promise did not settle within ${limitMs} ms of virtual time`);
      this.fireNext();
      await settle();
    }
    return watched;
  }

  #push(item: Scheduled): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(item);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = item;
  }

  #pop(): Scheduled | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}
