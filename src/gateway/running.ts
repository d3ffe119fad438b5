/** The statements that run at this gateway now, for `ostraka_statements`. Those of the fast path are over too soon to list. */
import type { Clock } from "../base/io.js";

export interface RunningStatement {
  readonly id: number;
  readonly kind: "session" | "autocommit";
  readonly sql: string;
  readonly startedMs: number;
}

export class RunningStatements {
  readonly #clock: Clock;
  readonly #running = new Map<number, RunningStatement>();
  #lastId = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Lists a statement until the returned function is called. */
  begin(kind: RunningStatement["kind"], sql: string): () => void {
    const id = ++this.#lastId;
    this.#running.set(id, { id, kind, sql, startedMs: this.#clock.monotonicMs() });
    return () => this.#running.delete(id);
  }

  /** With how long each has run. */
  list(): readonly (RunningStatement & { readonly runningMs: number })[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#running.values()].map((statement) => ({
      ...statement,
      runningMs: nowMs - statement.startedMs,
    }));
  }
}
