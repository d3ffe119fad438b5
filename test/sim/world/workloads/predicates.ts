/**
 * Transactions that look for members of a team, or of a colour, and add some because of what they saw: phantoms would
 * show (checkers/predicate.ts). Teams have an index, colours are found by looking at every row.
 */
import {
  checkPredicates,
  type PredicateOperation,
  type PredicateTransaction,
} from "../../checkers/predicate.js";
import type { Rows, WriteEnd } from "../client.js";
import { type LastReads, NEVER, numbers, retrying, type Tools, type Workload } from "./workload.js";

const TEAMS = 3;
const COLOURS = 2;

type Run = (sql: string, params?: readonly (number | string)[]) => Promise<Rows>;

export class Predicates implements Workload {
  readonly statements = [
    "CREATE TABLE members(id INTEGER PRIMARY KEY, team INTEGER NOT NULL, colour INTEGER NOT NULL, element INTEGER NOT NULL)",
    "CREATE INDEX members_by_team ON members(team)",
  ];
  readonly splittable = [{ table: "members", low: 1, high: 60 }];
  readonly operations = [
    { weight: 3, run: (tools: Tools) => this.#lookAndAdd(tools) },
    { weight: 1, run: (tools: Tools) => this.#addAlone(tools) },
    { weight: 2, run: (tools: Tools) => this.#scanAlone(tools) },
  ];
  readonly #history: PredicateTransaction[] = [];

  #record(tools: Tools, operations: readonly PredicateOperation[], end: WriteEnd, startMs: number): void {
    if (operations.length === 0) return;
    const endMs = end.outcome === "unknown" ? NEVER : tools.nowMs;
    tools.settle(end, (outcome) =>
      this.#history.push({ client: tools.client.name, operations, outcome, startMs, endMs }),
    );
  }

  async #lookAndAdd(tools: Tools): Promise<void> {
    const { random, client } = tools;
    tools.doing("look and add");
    const looks = Array.from({ length: random.between(1, 2) }, () => somePredicate(tools));
    const adds = random.between(0, 2);
    const slow = random.chance(0.3);
    await retrying(tools, 3, async (retry) => {
      const operations: PredicateOperation[] = [];
      const startMs = tools.nowMs;
      const { end } = await client.transaction(
        random.pick(["BEGIN", "BEGIN", "BEGIN IMMEDIATE"]),
        async (run) => {
          for (const predicate of looks) operations.push(await scan(run, predicate));
          if (slow) await client.pause(random.between(1, 600));
          for (let i = 0; i < adds; i++) await add(tools, run, 1, operations);
          if (random.chance(0.3)) operations.push(await scan(run, somePredicate(tools)));
        },
        retry,
      );
      this.#record(tools, operations, end, startMs);
      return end;
    });
  }

  async #addAlone(tools: Tools): Promise<void> {
    tools.doing("add members");
    const startMs = tools.nowMs;
    const operations: PredicateOperation[] = [];
    let end: WriteEnd | undefined;
    const run: Run = async (sql, params) => {
      end = await tools.client.write(sql, params ?? []);
      return [];
    };
    await add(tools, run, tools.random.between(1, 3), operations);
    this.#record(tools, operations, end!, startMs);
  }

  async #scanAlone(tools: Tools): Promise<void> {
    const predicate = somePredicate(tools);
    tools.doing(`scan ${predicate}`);
    const startMs = tools.nowMs;
    const rows = await tools.client.read(scanSql(predicate), [Number(predicate.slice(1))]);
    if (rows === undefined) return;
    const operation: PredicateOperation = { kind: "scan", predicate, found: numbers(rows) };
    this.#record(tools, [operation], { outcome: "committed", answer: undefined }, startMs);
  }

  async judge(last: LastReads) {
    for (const reader of last.readers) {
      const startMs = last.nowMs;
      const rows = await last.read(reader, "SELECT element, team, colour FROM members");
      const endMs = last.nowMs;
      const found = (at: number, which: number): number[] =>
        numbers(rows.filter((row) => Number(row[at]) === which));
      const operations: PredicateOperation[] = [
        ...Array.from({ length: TEAMS }, (_, t) => ({ predicate: `t${t}`, found: found(1, t) })),
        ...Array.from({ length: COLOURS }, (_, c) => ({ predicate: `c${c}`, found: found(2, c) })),
      ].map((seen) => ({ kind: "scan", ...seen }));
      this.#history.push({ client: reader.name, operations, outcome: "committed", startMs, endMs });
    }
    return { predicates: checkPredicates(this.#history) };
  }
}

function somePredicate({ random }: Tools): string {
  return random.chance(0.7) ? `t${random.below(TEAMS)}` : `c${random.below(COLOURS)}`;
}

function scanSql(predicate: string): string {
  return predicate.startsWith("t")
    ? "SELECT element FROM members WHERE team = ?"
    : "SELECT element FROM members WHERE colour = ?";
}

async function scan(run: Run, predicate: string): Promise<PredicateOperation> {
  const rows = await run(scanSql(predicate), [Number(predicate.slice(1))]);
  return { kind: "scan", predicate, found: numbers(rows) };
}

/** Noted before it is answered: without an answer it may be there all the same. */
async function add(tools: Tools, run: Run, count: number, into: PredicateOperation[]): Promise<void> {
  const values: number[] = [];
  for (let i = 0; i < count; i++) {
    const team = tools.random.below(TEAMS);
    const colour = tools.random.below(COLOURS);
    const element = tools.unique();
    values.push(team, colour, element);
    into.push({ kind: "add", element, predicates: [`t${team}`, `c${colour}`] });
  }
  const rows = Array.from({ length: count }, () => "(?, ?, ?)").join(", ");
  await run(`INSERT INTO members(team, colour, element) VALUES ${rows}`, values);
}
