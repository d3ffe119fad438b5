/**
 * Writers of single keys, who know nothing of one another, and readers of all keys at once: nobody may see the one write
 * without the other that was acknowledged before it began (causal reverse), nor two readers see two writes in two
 * orders (long fork). checkers/list-append.ts finds both as cycles.
 */
import { type AppendTransaction, checkListAppend, type MicroOperation } from "../../checkers/list-append.js";
import type { Rows } from "../client.js";
import { type LastReads, NEVER, type Tools, times, type Workload } from "./workload.js";

const KEYS = 6;
const ALL = "SELECT k, v FROM fork";

export class Fork implements Workload {
  readonly statements = [
    "CREATE TABLE fork(k INTEGER PRIMARY KEY, v TEXT NOT NULL)",
    `INSERT INTO fork(k, v) VALUES ${times(KEYS, (i) => `(${i}, '')`)}`,
  ];
  readonly splittable = [{ table: "fork", low: 0, high: KEYS }];
  readonly operations = [
    { weight: 3, run: (tools: Tools) => this.#append(tools, tools.random.below(KEYS)) },
    { weight: 2, run: (tools: Tools) => this.#inTurn(tools) },
    { weight: 1, run: (tools: Tools) => this.#both(tools) },
    { weight: 5, run: (tools: Tools) => this.#read(tools) },
  ];
  readonly #history: AppendTransaction[] = [];

  async #append(tools: Tools, k: number): Promise<boolean> {
    const value = tools.unique();
    tools.doing(`append to ${k}`);
    const startMs = tools.nowMs;
    const end = await tools.client.write("UPDATE fork SET v = v || ' ' || ? WHERE k = ?", [String(value), k]);
    const endMs = end.outcome === "unknown" ? NEVER : tools.nowMs;
    const { name: client } = tools.client;
    tools.settle(end, (outcome) =>
      this.#history.push({
        client,
        operations: [{ kind: "append", key: String(k), value }],
        outcome,
        startMs,
        endMs,
      }),
    );
    return end.outcome === "committed";
  }

  /** One after the other: in that order everybody must see them. */
  async #inTurn(tools: Tools): Promise<void> {
    const k = tools.random.below(KEYS);
    if (!(await this.#append(tools, k))) return;
    tools.client.moveOn();
    await this.#append(tools, (k + 1 + tools.random.below(KEYS - 1)) % KEYS);
  }

  /** Several rows by one statement. */
  async #both(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const low = random.below(KEYS - 1);
    const high = random.between(low + 1, KEYS - 1);
    const value = tools.unique();
    tools.doing(`append to ${low} to ${high}`);
    const startMs = tools.nowMs;
    const end = await client.write("UPDATE fork SET v = v || ' ' || ? WHERE k BETWEEN ? AND ?", [
      String(value),
      low,
      high,
    ]);
    const endMs = end.outcome === "unknown" ? NEVER : tools.nowMs;
    const operations: MicroOperation[] = [];
    for (let k = low; k <= high; k++) operations.push({ kind: "append", key: String(k), value });
    tools.settle(end, (outcome) =>
      this.#history.push({ client: client.name, operations, outcome, startMs, endMs }),
    );
  }

  async #read(tools: Tools): Promise<void> {
    tools.doing("read all");
    const startMs = tools.nowMs;
    const rows = await tools.client.read(ALL);
    if (rows !== undefined) this.#saw(tools.client.name, rows, startMs, tools.nowMs);
  }

  #saw(client: string, rows: Rows, startMs: number, endMs: number): void {
    const operations = rows.map(
      ([k, v]): MicroOperation => ({ kind: "read", key: String(k), list: words(String(v)) }),
    );
    this.#history.push({ client, operations, outcome: "committed", startMs, endMs });
  }

  async judge(last: LastReads) {
    for (const reader of last.readers) {
      const startMs = last.nowMs;
      this.#saw(reader.name, await last.read(reader, ALL), startMs, last.nowMs);
    }
    return { fork: checkListAppend(this.#history) };
  }
}

function words(text: string): number[] {
  return text
    .split(" ")
    .filter((word) => word !== "")
    .map(Number);
}
