/**
 * Clients whose transactions cross ranges and tables while a test breaks the cluster, with the histories to judge them
 * by. Tables are such that they lie in several ranges once these are small.
 *
 * - A bank of two tables, one by rowid and one by a text key. A transfer moves money between any two accounts and notes
 *   itself in a third table, so that besides the total every account's balance must be what its notes add up to.
 * - Lists that transactions extend and read (list-append), one row a list.
 * - Reads of everything, in one statement.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type Database, OstrakaError, type Row, type Transaction } from "../../src/driver/index.js";
import { checkBank } from "../sim/checkers/bank.js";
import { type AppendTransaction, checkListAppend, type MicroOperation } from "../sim/checkers/list-append.js";
import type { Verdict } from "../sim/checkers/verdict.js";
import type { SeededRandom } from "../sim/seeded-random.js";
import { until } from "./harness.js";

const ACCOUNTS = 24;
const BALANCE = 100;
const LISTS = 24;
const PASSING = /^OSTRAKA_(RETRY|UNAVAILABLE|TIMEOUT|UNKNOWN_OUTCOME)$/;
const ALL_BALANCES = "select id, balance from account union all select name, balance from safe order by 1";
const ALL_LISTS = "select k, v from list order by k";

type Outcome = AppendTransaction["outcome"];

export class WideWorkload {
  readonly #random: SeededRandom;
  readonly #pauseMs: number;
  readonly #balances: number[][] = [];
  readonly #lists: AppendTransaction[] = [];
  /** Transactions whose outcome has to be asked for. */
  readonly #unknown: { readonly id: string; readonly settle: (outcome: Outcome) => void }[] = [];
  readonly #clients: Promise<void>[] = [];
  readonly counts = { transfers: 0, appends: 0, reads: 0, retries: 0, unknown: 0 };
  #next = 0;
  #stopped = false;
  #failure: unknown;

  constructor(random: SeededRandom, options: { readonly pauseMs?: number } = {}) {
    this.#random = random;
    this.#pauseMs = options.pauseMs ?? 0;
  }

  static async prepare(database: Database): Promise<void> {
    await database.exec(`
      create table account (id integer primary key, balance integer not null check (balance >= 0));
      create table safe (name text not null primary key, balance integer not null check (balance >= 0)) without rowid;
      create table transfer (id integer primary key, source text not null, target text not null, amount integer not null);
      create table list (k integer primary key, v text not null)`);
    for (let i = 1; i <= ACCOUNTS / 2; i++) {
      await database.execute("insert into account values (?, ?)", [i, BALANCE]);
      await database.execute("insert into safe values (?, ?)", [`safe ${i}`, BALANCE]);
    }
    for (let k = 0; k < LISTS; k++) await database.execute("insert into list values (?, '')", [k]);
  }

  start(database: Database, name: string): void {
    const works = [
      () => this.#transfer(database),
      () => this.#append(database, name),
      () => this.#read(database, name),
    ];
    for (const work of works)
      this.#clients.push(
        this.#repeat(work).catch((error: unknown) => {
          this.#failure ??= error;
        }),
      );
  }

  async #repeat(work: () => Promise<void>): Promise<void> {
    while (!this.#stopped && this.#failure === undefined) {
      try {
        await work();
      } catch (error) {
        if (!isPassing(error)) throw error;
        this.counts.retries++;
      }
      if (this.#pauseMs > 0) await delay(this.#pauseMs);
    }
  }

  #below(limit: number): number {
    return this.#random.uint32() % limit;
  }

  async #transfer(database: Database): Promise<void> {
    const from = this.#below(ACCOUNTS);
    const to = (from + 1 + this.#below(ACCOUNTS - 1)) % ACCOUNTS;
    const tx = await database.begin("write");
    try {
      const has = await balanceOf(tx, from);
      const amount = this.#below(has + 1);
      // What was read is written back: a lost update would make or lose money.
      await setBalance(tx, from, has - amount);
      await setBalance(tx, to, (await balanceOf(tx, to)) + amount);
      await tx.execute("insert into transfer (source, target, amount) values (?, ?, ?)", [
        nameOf(from),
        nameOf(to),
        amount,
      ]);
      await tx.commit();
      this.counts.transfers++;
    } finally {
      await tx.rollback().catch(() => undefined);
    }
  }

  async #append(database: Database, client: string): Promise<void> {
    const count = 1 + this.#below(3);
    const operations: MicroOperation[] = [];
    const startMs = performance.now();
    const record = (outcome: Outcome, endMs: number): void => {
      if (operations.length > 0) this.#lists.push({ client, operations, outcome, startMs, endMs });
    };
    const tx = await database.begin("write");
    try {
      for (let i = 0; i < count; i++) {
        const k = this.#below(LISTS);
        if (i > 0 && this.#random.float() < 0.4) {
          const row = (await tx.execute("select v from list where k = ?", [k])).rows[0]!;
          operations.push({ kind: "read", key: String(k), list: valuesOf(row.v) });
        } else {
          const value = ++this.#next;
          await tx.execute("update list set v = v || ' ' || ? where k = ?", [String(value), k]);
          operations.push({ kind: "append", key: String(k), value });
        }
      }
      await tx.commit();
    } catch (error) {
      if (!isPassing(error)) throw error;
      if (error.code === "OSTRAKA_UNKNOWN_OUTCOME") {
        this.counts.unknown++;
        // Told later, it may also have happened later.
        const settle = (outcome: Outcome): void => record(outcome, Number.POSITIVE_INFINITY);
        this.#unknown.push({ id: error.transactionId!, settle });
      } else record("aborted", performance.now());
      throw error;
    } finally {
      await tx.rollback().catch(() => undefined);
    }
    this.counts.appends++;
    record("committed", performance.now());
  }

  async #read(database: Database, client: string): Promise<void> {
    const balances = await database.execute(ALL_BALANCES);
    this.#balances.push(balances.rows.map(({ balance }) => Number(balance)));
    const startMs = performance.now();
    const lists = await database.execute(ALL_LISTS);
    const operations = lists.rows.map(
      ({ k, v }): MicroOperation => ({ kind: "read", key: String(k), list: valuesOf(v) }),
    );
    this.#lists.push({ client, operations, outcome: "committed", startMs, endMs: performance.now() });
    this.counts.reads++;
  }

  /** Resolves after so many more transfers, appends and reads of everything. */
  async progress(count = 3): Promise<void> {
    const { transfers, appends, reads } = this.counts;
    await until(`${count} more transfers, appends and reads`, () => {
      if (this.#failure !== undefined) throw this.#failure;
      const now = this.counts;
      return Math.min(now.transfers - transfers, now.appends - appends, now.reads - reads) >= count;
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Settles what is in doubt, reads everything once more, and judges all that was seen. */
  async verdict(database: Database): Promise<{ bank: Verdict; notes: readonly string[]; lists: Verdict }> {
    for (const { id, settle } of this.#unknown) {
      const outcome = await until(`the outcome of ${id} is known`, async () => {
        const answer = await database.outcome(id);
        return answer === "unknown" ? undefined : answer;
      });
      settle(outcome);
    }
    await this.#read(database, "last");
    return {
      bank: checkBank({ total: ACCOUNTS * BALANCE, accounts: ACCOUNTS, reads: this.#balances }),
      notes: await unexplained(database),
      lists: checkListAppend(this.#lists),
    };
  }
}

export const WIDE_FINE = {
  bank: { verdict: "valid", problems: [] },
  notes: [],
  lists: { verdict: "valid", problems: [] },
};

function isPassing(error: unknown): error is OstrakaError {
  return error instanceof OstrakaError && PASSING.test(error.code);
}

function valuesOf(text: Row[number] | undefined): number[] {
  return String(text).split(" ").filter(Boolean).map(Number);
}

/** The first half of the accounts are rows of `account`, the others of `safe`. */
function keyOf(account: number): {
  readonly table: string;
  readonly column: string;
  readonly key: number | string;
} {
  const half = ACCOUNTS / 2;
  return account < half
    ? { table: "account", column: "id", key: account + 1 }
    : { table: "safe", column: "name", key: `safe ${account - half + 1}` };
}

function nameOf(account: number): string {
  return String(keyOf(account).key);
}

async function balanceOf(tx: Transaction, account: number): Promise<number> {
  const { table, column, key } = keyOf(account);
  const { rows } = await tx.execute(`select balance from ${table} where ${column} = ?`, [key]);
  return Number(rows[0]!.balance);
}

async function setBalance(tx: Transaction, account: number, balance: number): Promise<void> {
  const { table, column, key } = keyOf(account);
  await tx.execute(`update ${table} set balance = ? where ${column} = ?`, [balance, key]);
}

/** Accounts whose balance is not what the transfers add up to. */
async function unexplained(database: Database): Promise<string[]> {
  const { rows } = await database.execute(`
    with accounts (name, balance) as
      (select cast(id as text), balance from account union all select name, balance from safe),
    moves (name, amount) as
      (select source, -amount from transfer union all select target, amount from transfer),
    sums as (select name, sum(amount) as amount from moves group by name)
    select name, balance, coalesce(amount, 0) as moved from accounts left join sums using (name)`);
  return rows
    .filter(({ balance, moved }) => Number(balance) !== BALANCE + Number(moved))
    .map(({ name, balance, moved }) => `${String(name)} has ${String(balance)}, and ${String(moved)} moved`);
}
