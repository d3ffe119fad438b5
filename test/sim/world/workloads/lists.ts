/**
 * Transactions that append to lists and read whole lists (checkers/list-append.ts). Lists "t0" and on are texts that
 * UPDATE extends; "i0" and on are rows of `items`, in the order of their ids.
 */
import { type AppendTransaction, checkListAppend, type MicroOperation } from "../../checkers/list-append.js";
import type { Rows, WriteEnd } from "../client.js";
import { type LastReads, NEVER, numbers, retrying, type Tools, times, type Workload } from "./workload.js";

const LISTS = 4;
const ALL =
  "SELECT 't' || k AS key, v AS value, k AS position FROM lists UNION ALL SELECT 'i' || k, v, id FROM items ORDER BY 1, 3";
const COMMITTED: WriteEnd = { outcome: "committed", answer: undefined };

type Run = (sql: string, params?: readonly (number | string)[]) => Promise<Rows>;

export class Lists implements Workload {
  readonly statements = [
    "CREATE TABLE lists(k INTEGER PRIMARY KEY, v TEXT NOT NULL)",
    "CREATE TABLE items(id INTEGER PRIMARY KEY, k INTEGER NOT NULL, v INTEGER NOT NULL)",
    "CREATE INDEX items_by_k ON items(k)",
    `INSERT INTO lists(k, v) VALUES ${times(LISTS, (i) => `(${i}, '')`)}`,
  ];
  readonly splittable = [
    { table: "lists", low: 0, high: LISTS },
    { table: "items", low: 1, high: 80 },
  ];
  readonly operations = [
    { weight: 5, run: (tools: Tools) => this.#transaction(tools) },
    { weight: 2, run: (tools: Tools) => this.#alone(tools) },
    { weight: 4, run: (tools: Tools) => this.#read(tools) },
  ];
  readonly #history: AppendTransaction[] = [];

  async #transaction(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const count = random.between(1, 4);
    const plan = Array.from({ length: count }, () => ({ key: someKey(tools), append: random.chance(0.6) }));
    if (!plan.some(({ append }) => append) && random.chance(0.5)) plan[0]!.append = true;
    tools.doing(`list transaction ${plan.map(({ key, append }) => `${append ? "+" : "?"}${key}`).join(" ")}`);
    const begin = random.pick(["BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
    const slow = random.chance(0.3);
    const copies = random.chance(0.08);
    await retrying(tools, 4, async (retry) => {
      const operations: MicroOperation[] = [];
      const startMs = tools.nowMs;
      const { end } = await client.transaction(
        begin,
        async (run) => {
          // A statement of unknown cost makes it go on in a private copy.
          if (copies)
            await run(
              "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 5) INSERT INTO items(k, v) SELECT 0, -i FROM r WHERE i > 9",
            );
          for (const { key, append } of plan) {
            if (slow) await client.pause(random.between(1, 800));
            operations.push(append ? await appendTo(tools, run, key) : await readList(run, key));
          }
        },
        retry,
      );
      this.#record(tools, operations, end, startMs);
      return end;
    });
  }

  #record(tools: Tools, operations: readonly MicroOperation[], end: WriteEnd, startMs: number): void {
    const writes = operations.some(({ kind }) => kind === "append");
    if (operations.length === 0 || (end.outcome === "aborted" && !writes)) return;
    const endMs = tools.nowMs;
    tools.settle(end, (outcome) =>
      this.#history.push({
        client: tools.client.name,
        operations,
        outcome,
        startMs,
        // Told later, it may also have happened later.
        endMs: end.outcome === "unknown" ? NEVER : endMs,
      }),
    );
  }

  async #alone(tools: Tools): Promise<void> {
    const key = someKey(tools);
    tools.doing(`append ${key}`);
    const startMs = tools.nowMs;
    let end: WriteEnd | undefined;
    const run: Run = async (sql, params) => {
      end = await tools.client.write(sql, params ?? []);
      return [];
    };
    const operation = await appendTo(tools, run, key);
    this.#record(tools, [operation], end!, startMs);
  }

  async #read(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const startMs = tools.nowMs;
    const keys = random.chance(0.5) ? [someKey(tools)] : Array.from({ length: 3 }, () => someKey(tools));
    tools.doing(`read ${keys.join(" ")}`);
    if (keys.length === 1) {
      const [key] = keys as [string];
      const rows = await client.read(listSql(key), [Number(key.slice(1))]);
      if (rows === undefined) return;
      this.#record(tools, [{ kind: "read", key, list: listOf(key, rows) }], COMMITTED, startMs);
      return;
    }
    if (random.chance(0.4)) {
      // One statement that sees everything.
      const rows = await client.read(ALL);
      if (rows !== undefined) this.#record(tools, allLists(rows), COMMITTED, startMs);
      return;
    }
    const operations: MicroOperation[] = [];
    const { end } = await client.transaction(
      random.pick(["BEGIN", "BEGIN READ ONLY"]),
      async (run) => {
        for (const key of keys) operations.push(await readList(run, key));
      },
      undefined,
    );
    if (end.outcome === "committed") this.#record(tools, operations, end, startMs);
  }

  async judge(last: LastReads) {
    for (const reader of last.readers) {
      const startMs = last.nowMs;
      const operations = allLists(await last.read(reader, ALL));
      const endMs = last.nowMs;
      this.#history.push({ client: reader.name, operations, outcome: "committed", startMs, endMs });
    }
    return { lists: checkListAppend(this.#history) };
  }
}

function someKey({ random }: Tools): string {
  const k = random.below(LISTS);
  return random.chance(0.5) ? `t${k}` : `i${k}`;
}

async function appendTo(tools: Tools, run: Run, key: string): Promise<MicroOperation> {
  const value = tools.unique();
  const k = Number(key.slice(1));
  if (key.startsWith("t")) await run("UPDATE lists SET v = v || ' ' || ? WHERE k = ?", [String(value), k]);
  else await run("INSERT INTO items(k, v) VALUES (?, ?)", [k, value]);
  return { kind: "append", key, value };
}

function listSql(key: string): string {
  return key.startsWith("t")
    ? "SELECT v FROM lists WHERE k = ?"
    : "SELECT v FROM items WHERE k = ? ORDER BY id";
}

function listOf(key: string, rows: Rows): number[] {
  return key.startsWith("t") ? words(String(rows[0]![0])) : numbers(rows);
}

function words(text: string): number[] {
  return text
    .split(" ")
    .filter((word) => word !== "")
    .map(Number);
}

async function readList(run: Run, key: string): Promise<MicroOperation> {
  return { kind: "read", key, list: listOf(key, await run(listSql(key), [Number(key.slice(1))])) };
}

function allLists(rows: Rows): MicroOperation[] {
  const lists = new Map<string, number[]>();
  for (let k = 0; k < LISTS; k++) {
    lists.set(`t${k}`, []);
    lists.set(`i${k}`, []);
  }
  for (const [key, value] of rows) {
    if (String(key).startsWith("t")) lists.set(String(key), words(String(value)));
    else lists.get(String(key))!.push(Number(value));
  }
  return [...lists].map(([key, list]) => ({ kind: "read", key, list }));
}
