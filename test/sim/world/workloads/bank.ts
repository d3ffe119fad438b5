/** Money that moves between accounts in transactions: every read of all accounts shows the same total. */
import { checkBank } from "../../checkers/bank.js";
import { type LastReads, numbers, retrying, type Tools, times, type Workload } from "./workload.js";

const ACCOUNTS = 5;
const INITIAL = 100;
const ALL = "SELECT balance FROM accounts ORDER BY id";

export class Bank implements Workload {
  readonly statements = [
    "CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
    `INSERT INTO accounts(id, balance) VALUES ${times(ACCOUNTS, (i) => `(${i}, ${INITIAL})`)}`,
  ];
  readonly splittable = [{ table: "accounts", low: 0, high: ACCOUNTS }];
  readonly operations = [
    { weight: 4, run: (tools: Tools) => this.#transfer(tools) },
    { weight: 2, run: (tools: Tools) => this.#read(tools) },
  ];
  readonly #reads: number[][] = [];

  async #transfer(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const from = random.below(ACCOUNTS);
    const to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
    const amount = random.between(1, 60);
    tools.doing(`transfer ${from} to ${to}`);
    const begin = random.pick(["BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
    const whole = random.chance(0.3);
    await retrying(tools, 4, async (retry) => {
      const { end } = await client.transaction(
        begin,
        async (run) => {
          const rows = whole
            ? (await run(ALL)).slice(from)
            : await run("SELECT balance FROM accounts WHERE id = ?", [from]);
          if (Number(rows[0]![0]) < amount) return;
          if (random.chance(0.2)) await run("SAVEPOINT s");
          await run("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, from]);
          if (random.chance(0.2)) await client.pause(random.between(1, 500));
          await run("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, to]);
        },
        retry,
      );
      return end;
    });
  }

  async #read(tools: Tools): Promise<void> {
    const { random, client } = tools;
    tools.doing("read accounts");
    const die = random.below(4);
    if (die < 2) {
      const rows = await client.read(ALL);
      if (rows !== undefined) this.#reads.push(numbers(rows));
      return;
    }
    const { end, value } = await client.transaction(
      die === 2 ? "BEGIN READ ONLY" : "BEGIN",
      async (run) => {
        const balances: number[] = [];
        if (random.chance(0.5)) return numbers(await run(ALL));
        for (let id = 0; id < ACCOUNTS; id++)
          balances.push(...numbers(await run("SELECT balance FROM accounts WHERE id = ?", [id])));
        return balances;
      },
      undefined,
    );
    if (end.outcome === "committed" && value !== undefined) this.#reads.push(value);
  }

  async judge({ readers, read }: LastReads) {
    for (const reader of readers) this.#reads.push(numbers(await read(reader, ALL)));
    return { bank: checkBank({ total: ACCOUNTS * INITIAL, accounts: ACCOUNTS, reads: this.#reads }) };
  }
}
