/** Counters that everybody raises: no increment is lost or doubled, and none is seen to go back. */
import { checkMonotonic, type MonotonicEvent } from "../../checkers/monotonic.js";
import { checkCounter } from "../../checkers/set.js";
import type { Verdict } from "../../checkers/verdict.js";
import { check } from "../invariants.js";
import { type LastReads, NEVER, type Tools, times, type Workload } from "./workload.js";

const COUNTERS = 2;

interface Seen {
  readonly value: number;
  readonly startMs: number;
  readonly endMs: number;
}

interface Counter {
  acknowledged: number;
  unknown: number;
  /** Values that RETURNING told. */
  readonly told: Seen[];
  readonly reads: Seen[];
}

export class Counters implements Workload {
  readonly statements = [
    "CREATE TABLE counters(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    `INSERT INTO counters(id, n) VALUES ${times(COUNTERS, (i) => `(${i}, 0)`)}`,
  ];
  readonly splittable = [{ table: "counters", low: 0, high: COUNTERS }];
  readonly operations = [
    { weight: 3, run: (tools: Tools) => this.#increment(tools) },
    { weight: 2, run: (tools: Tools) => this.#read(tools) },
  ];
  readonly #counters: Counter[] = Array.from({ length: COUNTERS }, () => ({
    acknowledged: 0,
    unknown: 0,
    told: [],
    reads: [],
  }));

  async #increment(tools: Tools): Promise<void> {
    const id = tools.random.below(COUNTERS);
    const counter = this.#counters[id]!;
    tools.doing(`increment ${id}`);
    const startMs = tools.nowMs;
    const end = await tools.client.write("UPDATE counters SET n = n + 1 WHERE id = ? RETURNING n", [id]);
    const endMs = tools.nowMs;
    tools.settle(end, (outcome) => {
      if (outcome === "committed") counter.acknowledged++;
      if (outcome === "unknown") counter.unknown++;
    });
    const value = end.outcome === "committed" ? end.answer?.rows[0]?.[0] : undefined;
    if (value !== undefined) counter.told.push({ value: Number(value), startMs, endMs });
  }

  async #read(tools: Tools): Promise<void> {
    const id = tools.random.below(COUNTERS);
    tools.doing(`read counter ${id}`);
    const startMs = tools.nowMs;
    const rows = await tools.client.read("SELECT n FROM counters WHERE id = ?", [id]);
    if (rows === undefined) return;
    this.#counters[id]!.reads.push({ value: Number(rows[0]![0]), startMs, endMs: tools.nowMs });
  }

  async judge({ readers, read }: LastReads) {
    const verdicts: Record<string, Verdict> = {};
    const values = await read(readers[0]!, "SELECT n FROM counters ORDER BY id");
    for (const [id, { acknowledged, unknown, told, reads }] of this.#counters.entries()) {
      verdicts[`counter ${id}`] = checkCounter({ acknowledged, unknown, value: Number(values[id]![0]) });
      verdicts[`counter ${id} in real time`] = checkMonotonic(events(told, reads));
      const twice = told.length - new Set(told.map(({ value }) => value)).size;
      check(twice === 0, () => `counter ${id} told the same value ${twice} times too often`);
    }
    return verdicts;
  }
}

/** What RETURNING told was seen, as by a read; who wrote it may have been somebody whose answer was lost. */
function events(told: readonly Seen[], reads: readonly Seen[]): MonotonicEvent[] {
  const ceiling: MonotonicEvent = { kind: "write", value: NEVER, startMs: 0, endMs: NEVER, client: "" };
  return [ceiling, ...[...told, ...reads].map((seen) => ({ kind: "read" as const, client: "", ...seen }))];
}
