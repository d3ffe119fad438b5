/**
 * What became of transactions on this node, step by step, for whoever wants to know why one was slow or lost: the last
 * few thousand steps, in memory only. What runs at one range's leader leaves none, so that the common path pays nothing.
 *
 * How long the phases of commits took is handed on to `observed` (metrics) as they end.
 */
import type { GroupId, TransactionId } from "../base/ids.js";
import type { Clock } from "../base/io.js";

/**
 * In the order of a life: at the gateway `commit`, `votes`, `end`; at the coordinator `registered`, `decided`; at each range `prepare`, `vote`, `resolved`.
 */
export type Step = "commit" | "votes" | "end" | "registered" | "decided" | "prepare" | "vote" | "resolved";

/**
 * `prepare`: from COMMIT until all votes and the registration are in; `decide`: until the decision is logged; both at
 * the gateway. `hold`: from a range's vote until it has applied the decision.
 */
export type Phase = "prepare" | "decide" | "hold";

export interface TracedStep {
  readonly transaction: TransactionId;
  /** Wall clock of this node, milliseconds. */
  readonly atMs: number;
  readonly range: GroupId | undefined;
  readonly step: Step;
  readonly detail: string;
}

const CAPACITY = 4_096;

export class TransactionTrace {
  readonly #clock: Pick<Clock, "wallMs" | "monotonicMs">;
  readonly #capacity: number;
  /** A ring once it is full; `#next` is where the next one goes, and so the oldest. */
  readonly #steps: TracedStep[] = [];
  #next = 0;
  /** Called as a phase ends, with its duration in milliseconds. */
  observed: ((phase: Phase, ms: number) => void) | undefined;

  constructor(clock: Pick<Clock, "wallMs" | "monotonicMs">, capacity = CAPACITY) {
    this.#clock = clock;
    this.#capacity = capacity;
  }

  note(transaction: TransactionId, step: Step, detail = "", range?: GroupId): void {
    const traced = { transaction, atMs: this.#clock.wallMs(), range, step, detail };
    this.#steps[this.#next] = traced;
    this.#next = (this.#next + 1) % this.#capacity;
  }

  /** Begins a phase; the function that is answered ends it. */
  phase(phase: Phase): () => void {
    const sinceMs = this.#clock.monotonicMs();
    return () => this.observed?.(phase, this.#clock.monotonicMs() - sinceMs);
  }

  /** What is remembered, oldest first. */
  steps(): TracedStep[] {
    return [...this.#steps.slice(this.#next), ...this.#steps.slice(0, this.#next)];
  }
}
