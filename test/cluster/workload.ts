/**
 * Clients that write while a test breaks the cluster, and keep a history of what they were told.
 *
 * Each writer inserts a token that nobody else uses and raises a counter, one statement after the other, and notes
 * for each whether it was acknowledged, failed for sure or is unknown. `settle` asks what became of the unknown ones.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type Database, OstrakaError } from "../../src/driver/index.js";
import { type AddOutcome, checkCounter, checkSet } from "../sim/checkers/set.js";
import type { Verdict } from "../sim/checkers/verdict.js";
import { until } from "./harness.js";

/** Codes that say for sure that nothing was or will be committed. */
const FAILED_FOR_SURE = new Set(["OSTRAKA_RETRY", "OSTRAKA_UNAVAILABLE", "OSTRAKA_TIMEOUT"]);

export interface Acknowledgement {
  readonly startMs: number;
  readonly atMs: number;
}

interface Counter {
  acknowledged: number;
  failed: number;
  readonly unknown: string[];
}

export class Workload {
  readonly tokens = new Map<string, AddOutcome>();
  readonly counter: Counter = { acknowledged: 0, failed: 0, unknown: [] };
  readonly acknowledgements: Acknowledgement[] = [];
  readonly #unknown = new Map<string, string>();
  readonly #timeoutMs: number;
  readonly #pauseMs: number;
  readonly #name: string;
  #next = 0;
  #writers: Promise<void>[] = [];
  #stopped = false;
  #failure: unknown;

  constructor(
    options: { readonly timeoutMs?: number; readonly pauseMs?: number; readonly name?: string } = {},
  ) {
    this.#name = options.name ?? "t";
    this.#timeoutMs = options.timeoutMs ?? 60_000;
    this.#pauseMs = options.pauseMs ?? 0;
  }

  static async prepare(database: Database): Promise<void> {
    await database.exec(`
      create table tokens (id integer primary key, token text not null);
      create table counter (id integer primary key, n integer not null);
      insert into counter values (1, 0)`);
  }

  /** Starts writers on this client. */
  start(database: Database, writers: number): void {
    for (let i = 0; i < writers; i++)
      this.#writers.push(
        this.#write(database).catch((error: unknown) => {
          this.#failure ??= error;
        }),
      );
  }

  get failure(): unknown {
    return this.#failure;
  }

  async #write(database: Database): Promise<void> {
    const options = { timeoutMs: this.#timeoutMs };
    while (!this.#stopped && this.#failure === undefined) {
      const token = `${this.#name}${this.#next++}`;
      this.tokens.set(token, "unknown");
      const inserted = await this.#try(() =>
        database.execute("insert into tokens (token) values (?)", [token], options),
      );
      if (typeof inserted === "object") this.#unknown.set(token, inserted.transactionId);
      else this.tokens.set(token, inserted);

      const raised = await this.#try(() =>
        database.execute("update counter set n = n + 1 where id = 1", [], options),
      );
      if (typeof raised === "object") this.counter.unknown.push(raised.transactionId);
      else this.counter[raised]++;
      if (this.#pauseMs > 0) await delay(this.#pauseMs);
    }
  }

  async #try(
    run: () => Promise<unknown>,
  ): Promise<"acknowledged" | "failed" | { readonly transactionId: string }> {
    const startMs = performance.now();
    try {
      await run();
      this.acknowledgements.push({ startMs, atMs: performance.now() });
      return "acknowledged";
    } catch (error) {
      if (!(error instanceof OstrakaError)) throw error;
      if (error.code === "OSTRAKA_UNKNOWN_OUTCOME") return { transactionId: error.transactionId! };
      if (FAILED_FOR_SURE.has(error.code)) return "failed";
      throw error;
    }
  }

  /** Resolves after `count` more acknowledgements. */
  async progress(count = 20): Promise<void> {
    const goal = this.acknowledgements.length + count;
    await until(`${count} more writes are acknowledged`, () => {
      if (this.#failure !== undefined) throw this.#failure;
      return this.acknowledgements.length >= goal;
    });
  }

  /** The longest time without an acknowledgement from a moment on. */
  pauseMsAfter(momentMs: number): number {
    const after = this.acknowledgements.filter(({ atMs }) => atMs >= momentMs);
    let longest = 0;
    let last = momentMs;
    for (const { atMs } of after) {
      longest = Math.max(longest, atMs - last);
      last = atMs;
    }
    return longest;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#writers);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Asks what became of every write whose outcome is unknown; nothing may stay in doubt. */
  async settle(database: Database): Promise<void> {
    for (const [token, id] of this.#unknown) this.tokens.set(token, await settled(database, id));
    for (const id of this.counter.unknown) this.counter[await settled(database, id)]++;
    this.#unknown.clear();
    this.counter.unknown.length = 0;
  }

  get unknownCount(): number {
    return this.#unknown.size + this.counter.unknown.length;
  }
}

/** Reads everything back and judges it against what all the workloads were told. */
export async function verdict(
  database: Database,
  workloads: readonly Workload[],
): Promise<{ readonly set: Verdict; readonly counter: Verdict }> {
  const { rows } = await database.execute("select token from tokens");
  const value = Number((await database.execute("select n from counter where id = 1")).rows[0]!.n);
  const sum = (of: (workload: Workload) => number): number =>
    workloads.reduce((total, workload) => total + of(workload), 0);
  return {
    set: checkSet({
      added: new Map(workloads.flatMap(({ tokens }) => [...tokens])),
      found: rows.map((row) => String(row.token)),
    }),
    counter: checkCounter({
      acknowledged: sum(({ counter }) => counter.acknowledged),
      unknown: sum(({ counter }) => counter.unknown.length),
      value,
    }),
  };
}

/** What `verdict` answers of a history that is right. */
export const FINE = {
  set: { verdict: "valid", problems: [] },
  counter: { verdict: "valid", problems: [] },
};

async function settled(database: Database, id: string): Promise<"acknowledged" | "failed"> {
  const outcome = await until(`the outcome of ${id} is known`, async () => {
    const answer = await database.outcome(id);
    return answer === "unknown" ? undefined : answer;
  });
  return outcome === "committed" ? "acknowledged" : "failed";
}
