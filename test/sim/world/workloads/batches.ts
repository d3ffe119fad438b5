/**
 * Batches of rows under ids that clients choose, each put in by one statement or one transaction, over many ranges, and
 * some taken out again the same way: every read sees a batch whole or not at all, and at the end what was acknowledged
 * is there.
 */
import { type AddOutcome, checkSet } from "../../checkers/set.js";
import type { Rows, WriteEnd } from "../client.js";
import { check } from "../invariants.js";
import { addOutcome } from "./tokens.js";
import { type LastReads, type Tools, times, type Workload } from "./workload.js";

const IDS = 1_000;
const SIZE = 4;
const ALL = "SELECT batch, count(*), sum(id) FROM batches GROUP BY batch ORDER BY batch";

interface Batch {
  readonly ids: readonly number[];
  outcome: AddOutcome;
}

export class Batches implements Workload {
  readonly statements = [
    "CREATE TABLE batches(id INTEGER PRIMARY KEY, batch INTEGER NOT NULL)",
    "CREATE INDEX batches_by_batch ON batches(batch)",
  ];
  readonly splittable = [{ table: "batches", low: 1, high: IDS }];
  readonly operations = [
    { weight: 4, run: (tools: Tools) => this.#put(tools) },
    { weight: 1, run: (tools: Tools) => this.#take(tools) },
    { weight: 3, run: (tools: Tools) => this.#look(tools) },
  ];
  readonly #batches = new Map<number, Batch>();

  /** Ids may be taken: then none of the batch gets in. */
  async #put(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const batch = tools.unique();
    const ids = Array.from({ length: SIZE }, () => random.between(1, IDS - 1));
    if (new Set(ids).size < SIZE) return;
    const put: Batch = { ids, outcome: "unknown" };
    this.#batches.set(batch, put);
    tools.doing(`put batch ${batch}`);
    const rows = ids.flatMap((id) => [id, batch]);
    let end: WriteEnd;
    if (random.chance(0.5))
      end = await client.write(`INSERT INTO batches(id, batch) VALUES ${times(SIZE, () => "(?, ?)")}`, rows);
    else
      ({ end } = await client.transaction(
        "BEGIN",
        async (run) => {
          for (const id of ids) await run("INSERT INTO batches(id, batch) VALUES (?, ?)", [id, batch]);
        },
        undefined,
      ));
    tools.settle(end, (outcome) => {
      put.outcome = addOutcome(outcome);
    });
  }

  /** Whole, by its number: from then on it counts as never put. */
  async #take(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const mine = [...this.#batches].filter(([, { outcome }]) => outcome === "acknowledged");
    if (mine.length === 0) return;
    const [batch, taken] = random.pick(mine);
    taken.outcome = "unknown";
    tools.doing(`take batch ${batch}`);
    const end = await client.write("DELETE FROM batches WHERE batch = ?", [batch]);
    if (end.outcome === "committed" && end.answer !== undefined)
      check(end.answer.changes === SIZE, () => `${end.answer?.changes} rows of batch ${batch} were deleted`);
    tools.settle(end, (outcome) => {
      if (outcome === "committed") taken.outcome = "failed";
      if (outcome === "aborted") taken.outcome = "acknowledged";
    });
  }

  async #look(tools: Tools): Promise<void> {
    tools.doing("look at batches");
    const before = [...this.#batches].filter(([, { outcome }]) => outcome === "acknowledged");
    const rows = await tools.client.read(ALL);
    if (rows === undefined) return;
    this.#whole(rows);
    const seen = new Set(rows.map(([batch]) => Number(batch)));
    for (const [batch, { outcome }] of before)
      check(
        outcome !== "acknowledged" || seen.has(batch),
        () => `batch ${batch} was acknowledged and is missing`,
      );
  }

  #whole(rows: Rows): void {
    for (const [batch, count, sum] of rows) {
      const { ids = [] } = this.#batches.get(Number(batch)) ?? {};
      const expected = ids.reduce((a, b) => a + b, 0);
      check(
        Number(count) === SIZE && Number(sum) === expected,
        () => `batch ${batch} has ${count} rows, of sum ${sum} (put were ${ids.join(", ")})`,
      );
    }
  }

  async judge({ readers, read }: LastReads) {
    let found: number[] = [];
    for (const reader of readers) {
      const rows = await read(reader, ALL);
      this.#whole(rows);
      found = rows.map(([batch]) => Number(batch));
    }
    return {
      batches: checkSet({
        added: new Map([...this.#batches].map(([batch, { outcome }]) => [batch, outcome])),
        found,
      }),
    };
  }
}
