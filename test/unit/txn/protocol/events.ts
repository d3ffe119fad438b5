/** What happens next is chosen at random among everything that may: messages, timers, steps of replication. */
import { SeededRandom } from "../../../sim/seeded-random.js";

export interface Timer {
  readonly atMs: number;
  readonly fire: () => void;
  cancelled: boolean;
}

interface Message {
  readonly deliver: () => void;
  /** How often the network delivers it once more. */
  readonly repeatPercent: number;
  readonly losable: boolean;
}

export class Events {
  readonly random: SeededRandom;
  /** Orders what clients see; no two events have the same. */
  step = 0;
  nowMs = 1_000_000;
  /** Messages get lost and repeated. */
  unreliable = true;
  #messages: Message[] = [];
  #timers: Timer[] = [];

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  below(n: number): number {
    return this.random.uint32() % n;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  send(deliver: () => void, repeatPercent = 6): void {
    this.#messages.push({ deliver, repeatPercent, losable: true });
  }

  /** Happens once, some time later. */
  later(happen: () => void): void {
    this.#messages.push({ deliver: happen, repeatPercent: 0, losable: false });
  }

  timer(delayMs: number, fire: () => void): Timer {
    const timer = { atMs: this.nowMs + delayMs, fire, cancelled: false };
    this.#timers.push(timer);
    return timer;
  }

  get messages(): number {
    return this.#messages.length;
  }

  deliverOne(): void {
    const at = this.below(this.#messages.length);
    const message = this.#messages[at]!;
    const repeated = this.unreliable && this.chance(message.repeatPercent);
    if (!repeated) {
      this.#messages[at] = this.#messages.at(-1)!;
      this.#messages.pop();
    }
    if (!repeated && this.unreliable && message.losable && this.chance(3)) return;
    message.deliver();
  }

  /** Lets time pass, to the next timer at most. False when there is none. */
  advance(): boolean {
    this.#timers = this.#timers.filter(({ cancelled }) => !cancelled);
    let next: Timer | undefined;
    for (const timer of this.#timers) if (next === undefined || timer.atMs < next.atMs) next = timer;
    if (next === undefined) return false;
    const idleMs = this.unreliable ? this.below(40) : Number.POSITIVE_INFINITY;
    if (this.nowMs + idleMs < next.atMs) {
      this.nowMs += idleMs;
      return true;
    }
    this.nowMs = Math.max(this.nowMs, next.atMs);
    this.#timers.splice(this.#timers.indexOf(next), 1);
    next.fire();
    return true;
  }
}
