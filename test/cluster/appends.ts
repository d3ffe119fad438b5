/**
 * Clients that append to lists and read them in interactive transactions while a test breaks the cluster, and what they
 * were told, for the list-append checker.
 */
import { type Database, OstrakaError } from "../../src/driver/index.js";
import { type AppendTransaction, checkListAppend, type MicroOperation } from "../sim/checkers/list-append.js";
import type { Verdict } from "../sim/checkers/verdict.js";
import type { SeededRandom } from "../sim/seeded-random.js";
import { until } from "./harness.js";

const LISTS = 4;
const NEVER = Number.POSITIVE_INFINITY;
const PASSING = /^OSTRAKA_(RETRY|UNAVAILABLE|TIMEOUT|UNKNOWN_OUTCOME)$/;

export class Appends {
  readonly #history: AppendTransaction[] = [];
  readonly #doubted: { readonly id: string; readonly attempt: Omit<AppendTransaction, "outcome"> }[] = [];
  readonly #clients: Promise<void>[] = [];
  readonly #random: SeededRandom;
  #next = 0;
  #stopped = false;
  committed = 0;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  static async prepare(database: Database): Promise<void> {
    await database.exec(
      "create table item (id integer primary key, list integer not null, value integer not null); create index item_list on item (list)",
    );
  }

  start(database: Database, client: string): void {
    const repeated = this.#repeat(database, client);
    // Should the test end before: nobody is left to be told.
    repeated.catch(() => undefined);
    this.#clients.push(repeated);
  }

  #below(limit: number): number {
    return this.#random.uint32() % limit;
  }

  async #repeat(database: Database, client: string): Promise<void> {
    while (!this.#stopped) await this.#transaction(database, client);
  }

  async #transaction(database: Database, client: string): Promise<void> {
    const plan = Array.from({ length: 1 + this.#below(3) }, () => ({
      list: this.#below(LISTS),
      append: this.#below(10) < 6,
    }));
    let operations: MicroOperation[] = [];
    let startMs = performance.now();
    const attempt = (endMs: number) => ({ client, operations, startMs, endMs });
    try {
      await database.transaction(async (tx) => {
        // Run again: what the attempt before did was given up.
        if (operations.length > 0) this.#history.push({ ...attempt(performance.now()), outcome: "aborted" });
        operations = [];
        startMs = performance.now();
        for (const { list, append } of plan) {
          const key = String(list);
          if (append) {
            const value = ++this.#next;
            operations.push({ kind: "append", key, value });
            await tx.execute("insert into item (list, value) values (?, ?)", [list, value]);
          } else {
            const { rows } = await tx.execute("select value from item where list = ? order by id", [list]);
            operations.push({ kind: "read", key, list: rows.map((row) => Number(row.value)) });
          }
        }
      });
      this.committed++;
      this.#history.push({ ...attempt(performance.now()), outcome: "committed" });
    } catch (error) {
      if (!(error instanceof OstrakaError && PASSING.test(error.code))) throw error;
      if (error.code === "OSTRAKA_UNKNOWN_OUTCOME")
        this.#doubted.push({ id: error.transactionId!, attempt: attempt(NEVER) });
      else this.#history.push({ ...attempt(performance.now()), outcome: "aborted" });
    }
  }

  /** Stops the clients, asks what became of what is in doubt, reads all lists once more, and judges everything. */
  async verdict(database: Database): Promise<Verdict> {
    this.#stopped = true;
    await Promise.all(this.#clients);
    for (const { id, attempt } of this.#doubted) {
      const outcome = await until(`the outcome of ${id} is known`, async () => {
        const answer = await database.outcome(id);
        return answer === "unknown" ? undefined : answer;
      });
      this.#history.push({ ...attempt, outcome });
    }
    const startMs = performance.now();
    const { rows } = await database.execute("select list, value from item order by id");
    const operations = Array.from(
      { length: LISTS },
      (_, list): MicroOperation => ({
        kind: "read",
        key: String(list),
        list: rows.filter((row) => Number(row.list) === list).map((row) => Number(row.value)),
      }),
    );
    const endMs = performance.now();
    this.#history.push({ client: "last", operations, outcome: "committed", startMs, endMs });
    return checkListAppend(this.#history);
  }
}
