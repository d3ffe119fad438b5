/**
 * Money in two tables, of numbered and of named accounts, which are opened and closed all the time: whoever adds up both
 * tables at once always finds the same sum.
 */
import { checkBank } from "../../checkers/bank.js";
import type { Rows } from "../client.js";
import { type LastReads, retrying, type Tools, times, type Workload } from "./workload.js";

const NUMBERED = 12;
const NAMED = 6;
const INITIAL = 50;
const TOTAL = (NUMBERED / 2 + NAMED / 2) * INITIAL;
const SUM =
  "SELECT (SELECT coalesce(sum(balance), 0) FROM numbered) + (SELECT coalesce(sum(balance), 0) FROM named)";
const ROWS = "SELECT balance FROM numbered UNION ALL SELECT balance FROM named";

type Run = (sql: string, params?: readonly (number | string)[]) => Promise<Rows>;

interface Account {
  readonly table: "numbered" | "named";
  readonly id: number | string;
}

export class Ledger implements Workload {
  readonly statements = [
    "CREATE TABLE numbered(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0))",
    "CREATE TABLE named(id TEXT NOT NULL PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) WITHOUT ROWID",
    `INSERT INTO numbered(id, balance) VALUES ${times(NUMBERED / 2, (i) => `(${2 * i}, ${INITIAL})`)}`,
    `INSERT INTO named(id, balance) VALUES ${times(NAMED / 2, (i) => `('${name(2 * i)}', ${INITIAL})`)}`,
  ];
  readonly splittable = [
    { table: "numbered", low: 0, high: NUMBERED },
    { table: "named", low: 0, high: NAMED, word: name },
  ];
  readonly operations = [
    { weight: 5, run: (tools: Tools) => this.#transfer(tools) },
    { weight: 3, run: (tools: Tools) => this.#add(tools) },
  ];
  readonly #sums: number[] = [];

  async #transfer(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const from = someAccount(tools);
    const to = someAccount(tools);
    if (from.table === to.table && from.id === to.id) return;
    tools.doing(`move from ${from.id} to ${to.id}`);
    const begin = random.pick(["BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
    const closes = random.chance(0.3);
    await retrying(tools, 4, async (retry) => {
      const { end } = await client.transaction(
        begin,
        (run) => move(run, from, to, closes, () => client.pause(random.between(0, 40))),
        retry,
      );
      return end;
    });
  }

  async #add(tools: Tools): Promise<void> {
    const { random, client } = tools;
    tools.doing("add up");
    if (random.chance(0.7)) {
      const rows = await client.read(random.chance(0.5) ? SUM : ROWS);
      if (rows !== undefined) this.#sums.push(total(rows));
      return;
    }
    const { end, value } = await client.transaction(
      random.pick(["BEGIN", "BEGIN READ ONLY"]),
      async (run) => {
        const numbered = await run("SELECT balance FROM numbered");
        return total(numbered) + total(await run("SELECT balance FROM named"));
      },
      undefined,
    );
    if (end.outcome === "committed" && value !== undefined) this.#sums.push(value);
  }

  async judge({ readers, read }: LastReads) {
    for (const reader of readers) this.#sums.push(total(await read(reader, ROWS)));
    return { ledger: checkBank({ total: TOTAL, accounts: 1, reads: this.#sums.map((sum) => [sum]) }) };
  }
}

async function move(run: Run, from: Account, to: Account, closes: boolean, pause: () => Promise<void>) {
  const balance = (await run(`SELECT balance FROM ${from.table} WHERE id = ?`, [from.id]))[0]?.[0];
  if (balance === undefined) return;
  const amount = closes ? Number(balance) : Math.min(Number(balance), 7);
  await pause();
  if (closes) await run(`DELETE FROM ${from.table} WHERE id = ?`, [from.id]);
  else await run(`UPDATE ${from.table} SET balance = balance - ? WHERE id = ?`, [amount, from.id]);
  const there = await run(`SELECT count(*) FROM ${to.table} WHERE id = ?`, [to.id]);
  if (Number(there[0]![0]) === 0)
    await run(`INSERT INTO ${to.table}(id, balance) VALUES (?, ?)`, [to.id, amount]);
  else await run(`UPDATE ${to.table} SET balance = balance + ? WHERE id = ?`, [amount, to.id]);
}

function someAccount({ random }: Tools): Account {
  return random.chance(0.6)
    ? { table: "numbered", id: random.below(NUMBERED) }
    : { table: "named", id: name(random.below(NAMED)) };
}

function name(i: number): string {
  return String.fromCharCode("a".charCodeAt(0) + i);
}

function total(rows: Rows): number {
  return rows.reduce((sum, [balance]) => sum + Number(balance), 0);
}
