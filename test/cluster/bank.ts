/**
 * Clients that move money between accounts in interactive transactions, and others that read all accounts, while a
 * test breaks the cluster. What became of a single transfer does not matter: the total does, at every read.
 */
import { type Database, OstrakaError } from "../../src/driver/index.js";
import { checkBank } from "../sim/checkers/bank.js";
import type { Verdict } from "../sim/checkers/verdict.js";
import type { SeededRandom } from "../sim/seeded-random.js";

const ACCOUNTS = 6;
const BALANCE = 100;
const PASSING = /^OSTRAKA_(RETRY|UNAVAILABLE|TIMEOUT|UNKNOWN_OUTCOME)$/;

export class Bank {
  readonly #reads: number[][] = [];
  readonly #random: SeededRandom;
  readonly #clients: Promise<void>[] = [];
  transfers = 0;
  #stopped = false;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  static async prepare(database: Database): Promise<void> {
    await database.exec(
      "create table account (id integer primary key, balance integer not null check (balance >= 0))",
    );
    for (let id = 1; id <= ACCOUNTS; id++)
      await database.execute("insert into account values (?, ?)", [id, BALANCE]);
  }

  start(database: Database): void {
    for (const work of [() => this.#transfer(database), () => this.#read(database)])
      this.#keep(this.#repeat(work));
  }

  #keep(client: Promise<void>): void {
    // Should the test end before: nobody is left to be told.
    client.catch(() => undefined);
    this.#clients.push(client);
  }

  async #repeat(work: () => Promise<void>): Promise<void> {
    while (!this.#stopped) {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof OstrakaError && PASSING.test(error.code))) throw error;
      }
    }
  }

  async #transfer(database: Database): Promise<void> {
    const from = 1 + (this.#random.uint32() % ACCOUNTS);
    const to = 1 + ((from + (this.#random.uint32() % (ACCOUNTS - 1))) % ACCOUNTS);
    await database.transaction(async (tx) => {
      const balance = async (id: number): Promise<number> =>
        Number((await tx.execute("select balance from account where id = ?", [id])).rows[0]!.balance);
      const has = await balance(from);
      const amount = this.#random.uint32() % (has + 1);
      // What was read is written back: a lost update would make or lose money.
      await tx.execute("update account set balance = ? where id = ?", [has - amount, from]);
      await tx.execute("update account set balance = ? where id = ?", [(await balance(to)) + amount, to]);
    });
    this.transfers++;
  }

  async #read(database: Database): Promise<void> {
    const { rows } = await database.execute("select balance from account order by id");
    this.#reads.push(rows.map((row) => Number(row.balance)));
  }

  /** Stops the clients, reads once more, and judges every read. */
  async verdict(database: Database): Promise<Verdict> {
    this.#stopped = true;
    await Promise.all(this.#clients);
    await this.#read(database);
    return checkBank({ total: ACCOUNTS * BALANCE, accounts: ACCOUNTS, reads: this.#reads });
  }
}
