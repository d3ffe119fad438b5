/**
 * What the clients do, what they were told, and what the checkers say of it at the end. All of it runs at once on one
 * database, so that every kind of statement meets every other on its way.
 */

import { checkBank } from "../checkers/bank.js";
import { type AppendTransaction, checkListAppend, type MicroOperation } from "../checkers/list-append.js";
import { checkMonotonic, type MonotonicEvent } from "../checkers/monotonic.js";
import { type AddOutcome, checkCounter, checkSet } from "../checkers/set.js";
import type { Verdict } from "../checkers/verdict.js";
import type { SimRandom } from "../sim-random.js";
import type { Rows, SimClient, WriteEnd } from "./client.js";
import { check } from "./invariants.js";

const ACCOUNTS = 5;
const INITIAL = 100;
const LISTS = 4;
const COUNTERS = 2;
const UNIQUE_KEYS = 24;
const NEVER = Number.POSITIVE_INFINITY;

export const SCHEMA = [
  "CREATE TABLE tokens(id INTEGER PRIMARY KEY, token INTEGER NOT NULL, at TEXT DEFAULT CURRENT_TIMESTAMP, dice INTEGER DEFAULT (random()))",
  "CREATE TABLE uniq(id INTEGER PRIMARY KEY, k INTEGER NOT NULL UNIQUE, owner INTEGER NOT NULL)",
  "CREATE TABLE counters(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
  "CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
  "CREATE TABLE lists(k INTEGER PRIMARY KEY, v TEXT NOT NULL)",
  "CREATE TABLE items(id INTEGER PRIMARY KEY, k INTEGER NOT NULL, v INTEGER NOT NULL)",
  "CREATE INDEX items_by_k ON items(k)",
  "CREATE TABLE wide(id INTEGER PRIMARY KEY, base INTEGER)",
] as const;

export const ROWS = [
  `INSERT INTO counters(id, n) VALUES ${times(COUNTERS, (i) => `(${i}, 0)`)}`,
  `INSERT INTO accounts(id, balance) VALUES ${times(ACCOUNTS, (i) => `(${i}, ${INITIAL})`)}`,
  `INSERT INTO lists(k, v) VALUES ${times(LISTS, (i) => `(${i}, '')`)}`,
] as const;

function times(count: number, row: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => row(i)).join(", ");
}

interface Doubted {
  readonly id: string;
  readonly resolve: (outcome: "committed" | "aborted" | "unknown") => void;
}

interface UniqueClaim {
  readonly k: number;
  readonly owner: number;
  outcome: AddOutcome;
}

interface CounterRun {
  acknowledged: number;
  unknown: number;
  /** Values that RETURNING told. */
  readonly told: {
    readonly value: number;
    readonly startMs: number;
    readonly endMs: number;
  }[];
  readonly reads: {
    readonly value: number;
    readonly startMs: number;
    readonly endMs: number;
  }[];
}

/** Everything the clients were told. */
export class History {
  readonly tokens = new Map<number, AddOutcome>();
  readonly claims: UniqueClaim[] = [];
  readonly counters: CounterRun[] = Array.from({ length: COUNTERS }, () => ({
    acknowledged: 0,
    unknown: 0,
    told: [],
    reads: [],
  }));
  readonly balances: number[][] = [];
  readonly appends: AppendTransaction[] = [];
  readonly schema: MonotonicEvent[] = [{ kind: "write", value: 0, startMs: 0, endMs: 0, client: "" }];
  /** Outcomes to be asked for once the cluster is well. */
  readonly doubted: Doubted[] = [];
  operations = 0;
  finished = 0;
}

/** One client's work: operations one after the other until told to stop. */
export class Worker {
  readonly #client: SimClient;
  readonly #history: History;
  readonly #random: SimRandom;
  readonly #weights: readonly (readonly [weight: number, run: () => Promise<void>])[];
  #next = 0;
  #columns = 0;
  stopped = false;
  busy = "";

  constructor(client: SimClient, history: History, random: SimRandom, alters: boolean) {
    this.#client = client;
    this.#history = history;
    this.#random = random;
    const all: [number, () => Promise<void>][] = [
      [4, () => this.#addToken()],
      [2, () => this.#claim()],
      [3, () => this.#increment()],
      [2, () => this.#readCounter()],
      [4, () => this.#transfer()],
      [2, () => this.#readAccounts()],
      [5, () => this.#appendInTransaction()],
      [2, () => this.#appendAlone()],
      [4, () => this.#readLists()],
      [1, () => this.#insertWide()],
      [1, () => this.#readSchema()],
      [1, () => this.#bulk()],
    ];
    // A client has a character: some kinds of work it never does.
    const liked = all.filter(() => random.chance(0.7));
    this.#weights = [
      ...(liked.length > 0 ? liked : all),
      ...(alters ? [[2, () => this.#alter()] as const] : []),
    ];
  }

  get #now(): number {
    return this.#client.world.clock.monotonicMs();
  }

  async run(): Promise<void> {
    const thinkMs = this.#random.pick([2, 20, 100]);
    while (!this.stopped) {
      await this.#client.pause(this.#random.float() * 2 * thinkMs);
      if (this.stopped) break;
      if (this.#random.chance(0.1)) this.#client.moveOn();
      this.#history.operations++;
      await this.#pick()();
      this.busy = "";
      this.#history.finished++;
    }
  }

  #pick(): () => Promise<void> {
    const total = this.#weights.reduce((sum, [weight]) => sum + weight, 0);
    let drawn = this.#random.float() * total;
    for (const [weight, run] of this.#weights) {
      drawn -= weight;
      if (drawn < 0) return run;
    }
    return this.#weights[0]![1];
  }

  #unique(): number {
    return this.#client.id * 100_000 + ++this.#next;
  }

  /** Tells once it is known; what stays unknown is asked for at the end. */
  #settle(end: WriteEnd, tell: (outcome: "committed" | "aborted" | "unknown") => void): void {
    if (end.outcome !== "unknown") {
      tell(end.outcome);
      return;
    }
    if (end.id === "") tell("unknown");
    else this.#history.doubted.push({ id: end.id, resolve: tell });
  }

  async #addToken(): Promise<void> {
    const token = this.#unique();
    this.busy = `token ${token}`;
    this.#history.tokens.set(token, "unknown");
    const sql = this.#random.pick([
      "INSERT INTO tokens(token) VALUES (?)",
      "INSERT INTO tokens(token) VALUES (?) RETURNING id, dice",
      "INSERT INTO tokens(token) SELECT ?",
    ]);
    const end = await this.#client.write(sql, [token]);
    this.#settle(end, (outcome) => this.#history.tokens.set(token, addOutcome(outcome)));
  }

  async #claim(): Promise<void> {
    const claim: UniqueClaim = {
      k: this.#random.below(UNIQUE_KEYS),
      owner: this.#unique(),
      outcome: "unknown",
    };
    this.busy = `claim ${claim.k}`;
    this.#history.claims.push(claim);
    const orIgnore = this.#random.chance(0.3);
    const end = await this.#client.write(
      `INSERT ${orIgnore ? "OR IGNORE " : ""}INTO uniq(k, owner) VALUES (?, ?)`,
      [claim.k, claim.owner],
    );
    this.#settle(end, (outcome) => {
      claim.outcome = addOutcome(outcome);
      // Ignored is committed and did nothing; without the answer it cannot be told.
      if (!orIgnore || outcome !== "committed") return;
      const changes = end.outcome === "committed" ? end.answer?.changes : undefined;
      claim.outcome = changes === undefined ? "unknown" : changes === 1 ? "acknowledged" : "failed";
    });
  }

  async #increment(): Promise<void> {
    const id = this.#random.below(COUNTERS);
    const counter = this.#history.counters[id]!;
    this.busy = `increment ${id}`;
    const startMs = this.#now;
    const end = await this.#client.write("UPDATE counters SET n = n + 1 WHERE id = ? RETURNING n", [id]);
    const endMs = this.#now;
    this.#settle(end, (outcome) => {
      if (outcome === "committed") counter.acknowledged++;
      if (outcome === "unknown") counter.unknown++;
    });
    const value = end.outcome === "committed" ? end.answer?.rows[0]?.[0] : undefined;
    if (value !== undefined) counter.told.push({ value: Number(value), startMs, endMs });
  }

  async #readCounter(): Promise<void> {
    const id = this.#random.below(COUNTERS);
    this.busy = `read counter ${id}`;
    const startMs = this.#now;
    const rows = await this.#client.read("SELECT n FROM counters WHERE id = ?", [id]);
    if (rows === undefined) return;
    this.#history.counters[id]!.reads.push({
      value: Number(rows[0]![0]),
      startMs,
      endMs: this.#now,
    });
  }

  async #transfer(): Promise<void> {
    const random = this.#random;
    const from = random.below(ACCOUNTS);
    const to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
    const amount = random.between(1, 60);
    this.busy = `transfer ${from} to ${to}`;
    const begin = random.pick(["BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
    const whole = random.chance(0.3);
    const startedMs = this.#now;
    for (let attempt = 0; attempt < 4 && !this.stopped; attempt++) {
      const { end } = await this.#client.transaction(
        begin,
        async (run) => {
          if (whole) {
            const all = await run("SELECT balance FROM accounts ORDER BY id");
            if (Number(all[from]![0]) < amount) return;
          } else {
            const rows = await run("SELECT balance FROM accounts WHERE id = ?", [from]);
            if (Number(rows[0]![0]) < amount) return;
          }
          if (random.chance(0.2)) await run("SAVEPOINT s");
          await run("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, from]);
          if (random.chance(0.2)) await this.#client.pause(random.between(1, 500));
          await run("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, to]);
        },
        attempt === 0 ? undefined : { attempt, ageMs: this.#now - startedMs },
      );
      if (end.outcome !== "aborted") return;
      await this.#client.pause(5);
    }
  }

  async #readAccounts(): Promise<void> {
    this.busy = "read accounts";
    const sql = "SELECT balance FROM accounts ORDER BY id";
    const die = this.#random.below(4);
    if (die < 2) {
      const rows = await this.#client.read(sql);
      if (rows !== undefined) this.#history.balances.push(numbers(rows));
      return;
    }
    const begin = die === 2 ? "BEGIN READ ONLY" : "BEGIN";
    const { end, value } = await this.#client.transaction(
      begin,
      async (run) => {
        const balances: number[] = [];
        if (this.#random.chance(0.5)) return numbers(await run(sql));
        for (let id = 0; id < ACCOUNTS; id++)
          balances.push(...numbers(await run("SELECT balance FROM accounts WHERE id = ?", [id])));
        return balances;
      },
      undefined,
    );
    if (end.outcome === "committed" && value !== undefined) this.#history.balances.push(value);
  }

  // --- lists ----------------------------------------------------------------------------------------------------

  /** Lists 0 to LISTS-1 are texts that UPDATE extends; "i0" and on are rows of `items`, in the order of their ids. */
  #key(): string {
    const k = this.#random.below(LISTS);
    return this.#random.chance(0.5) ? `t${k}` : `i${k}`;
  }

  async #appendInTransaction(): Promise<void> {
    const random = this.#random;
    const count = random.between(1, 4);
    const plan = Array.from({ length: count }, () => ({
      key: this.#key(),
      append: random.chance(0.6),
    }));
    if (!plan.some(({ append }) => append) && random.chance(0.5)) plan[0]!.append = true;
    this.busy = `list transaction ${plan.map(({ key, append }) => `${append ? "+" : "?"}${key}`).join(" ")}`;
    const begin = random.pick(["BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
    const slow = random.chance(0.3);
    const copies = random.chance(0.15);
    const startedMs = this.#now;
    for (let attempt = 0; attempt < 4 && !this.stopped; attempt++) {
      const operations: MicroOperation[] = [];
      const startMs = this.#now;
      const { end } = await this.#client.transaction(
        begin,
        async (run) => {
          // A statement of unknown cost makes it go on in a private copy.
          if (copies)
            await run(
              "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 5) INSERT INTO tokens(token) SELECT -i FROM r WHERE i > 9",
            );
          for (const { key, append } of plan) {
            if (slow) await this.#client.pause(random.between(1, 800));
            if (append) operations.push(await this.#append(run, key));
            else operations.push(await readList(run, key));
          }
        },
        attempt === 0 ? undefined : { attempt, ageMs: this.#now - startedMs },
      );
      this.#recordAppend(operations, end, startMs);
      if (end.outcome !== "aborted") return;
      await this.#client.pause(5);
    }
  }

  async #append(
    run: (sql: string, params?: readonly (number | string)[]) => Promise<Rows>,
    key: string,
  ): Promise<MicroOperation> {
    const value = this.#unique();
    const k = Number(key.slice(1));
    if (key.startsWith("t")) await run("UPDATE lists SET v = v || ' ' || ? WHERE k = ?", [String(value), k]);
    else await run("INSERT INTO items(k, v) VALUES (?, ?)", [k, value]);
    return { kind: "append", key, value };
  }

  #recordAppend(operations: readonly MicroOperation[], end: WriteEnd, startMs: number): void {
    const writes = operations.some(({ kind }) => kind === "append");
    if (operations.length === 0 || (end.outcome === "aborted" && !writes)) return;
    const endMs = this.#now;
    this.#settle(end, (outcome) =>
      this.#history.appends.push({
        client: this.#client.name,
        operations,
        outcome,
        startMs,
        // Told later, it may also have happened later.
        endMs: end.outcome === "unknown" ? NEVER : endMs,
      }),
    );
  }

  async #appendAlone(): Promise<void> {
    const key = this.#key();
    this.busy = `append ${key}`;
    const startMs = this.#now;
    let end: WriteEnd | undefined;
    const operation = await this.#append(async (sql, params) => {
      end = await this.#client.write(sql, params ?? []);
      return [];
    }, key);
    this.#recordAppend([operation], end!, startMs);
  }

  async #readLists(): Promise<void> {
    const startMs = this.#now;
    const keys = this.#random.chance(0.5) ? [this.#key()] : Array.from({ length: 3 }, () => this.#key());
    this.busy = `read ${keys.join(" ")}`;
    if (keys.length === 1) {
      const [key] = keys as [string];
      const rows = await this.#client.read(listSql(key), [Number(key.slice(1))]);
      if (rows !== undefined)
        this.#recordAppend(
          [{ kind: "read", key, list: listOf(key, rows) }],
          { outcome: "committed", answer: undefined },
          startMs,
        );
      return;
    }
    if (this.#random.chance(0.4)) return this.#readAllLists(startMs);
    const operations: MicroOperation[] = [];
    const { end } = await this.#client.transaction(
      this.#random.pick(["BEGIN", "BEGIN READ ONLY"]),
      async (run) => {
        for (const key of keys) operations.push(await readList(run, key));
      },
      undefined,
    );
    if (end.outcome === "committed") this.#recordAppend(operations, end, startMs);
  }

  /** One statement that sees everything. */
  async #readAllLists(startMs: number): Promise<void> {
    const rows = await this.#client.read(
      "SELECT 't' || k AS key, v AS value, k AS position FROM lists UNION ALL SELECT 'i' || k, v, id FROM items ORDER BY 1, 3",
    );
    if (rows === undefined) return;
    this.#recordAppend(allLists(rows), { outcome: "committed", answer: undefined }, startMs);
  }

  // --- schema ---------------------------------------------------------------------------------------------------

  /** Only one client does this. */
  async #alter(): Promise<void> {
    const value = this.#columns + 1;
    this.busy = `alter ${value}`;
    const startMs = this.#now;
    const end = await this.#client.write(
      `ALTER TABLE wide ADD COLUMN c${value} INTEGER DEFAULT ${value}`,
      [],
    );
    // What is not known is not repeated under the same name: the next one looks.
    const rows = end.outcome === "committed" ? undefined : await this.#columnsSeen();
    const event = (endMs: number): MonotonicEvent => ({
      kind: "write",
      value,
      startMs,
      endMs,
      client: this.#client.name,
    });
    if (end.outcome === "committed") {
      this.#columns = value;
      this.#history.schema.push(event(this.#now));
    } else {
      if (end.outcome === "unknown") this.#history.schema.push(event(NEVER));
      if (rows !== undefined) this.#columns = rows;
      else this.stopped = true;
    }
    if (this.#random.chance(0.3))
      await this.#client.write(
        this.#random.pick([
          "CREATE INDEX IF NOT EXISTS wide_base ON wide(base)",
          "DROP INDEX IF EXISTS wide_base",
        ]),
        [],
      );
  }

  async #columnsSeen(): Promise<number | undefined> {
    const rows = await this.#client.read("SELECT count(*) - 2 FROM pragma_table_info('wide')");
    return rows === undefined ? undefined : Number(rows[0]![0]);
  }

  async #readSchema(): Promise<void> {
    this.busy = "read schema";
    const startMs = this.#now;
    const value = await this.#columnsSeen();
    if (value === undefined) return;
    this.#history.schema.push({
      kind: "read",
      value,
      startMs,
      endMs: this.#now,
      client: this.#client.name,
    });
  }

  async #insertWide(): Promise<void> {
    this.busy = "insert wide";
    await this.#client.write("INSERT INTO wide(base) VALUES (?)", [this.#unique()]);
    const rows = await this.#client.read("SELECT * FROM wide ORDER BY id LIMIT 3");
    for (const row of rows ?? [])
      for (const [at, value] of row.entries())
        check(at < 2 || Number(value) === at - 1, () => `column ${at} of wide holds ${String(value)}`);
  }

  /** Many rows at once, and then fewer: snapshots and checkpoints have something to carry. */
  async #bulk(): Promise<void> {
    this.busy = "bulk";
    const count = this.#random.between(20, 200);
    await this.#client.write(
      `WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < ${count}) INSERT INTO wide(base) SELECT i FROM r`,
      [],
    );
    if (this.#random.chance(0.5)) await this.#client.write("DELETE FROM wide WHERE id % 3 = 0", []);
  }
}

function addOutcome(outcome: "committed" | "aborted" | "unknown"): AddOutcome {
  return outcome === "committed" ? "acknowledged" : outcome === "aborted" ? "failed" : "unknown";
}

function numbers(rows: Rows): number[] {
  return rows.map((row) => Number(row[0]));
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

async function readList(
  run: (sql: string, params?: readonly number[]) => Promise<Rows>,
  key: string,
): Promise<MicroOperation> {
  return {
    kind: "read",
    key,
    list: listOf(key, await run(listSql(key), [Number(key.slice(1))])),
  };
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

/** Reads everything a last time, on every node, and has the checkers judge. */
export async function judge(
  history: History,
  readers: readonly SimClient[],
  now: () => number,
): Promise<Map<string, Verdict>> {
  const read = async (client: SimClient, sql: string): Promise<Rows> => {
    const rows = await client.read(sql);
    check(rows !== undefined, () => `a healed cluster does not answer ${sql}`);
    return rows;
  };
  const verdicts = new Map<string, Verdict>();
  const note = (name: string, verdict: Verdict): void => void verdicts.set(name, verdict);
  for (const client of readers) {
    const startMs = now();
    const all = await read(
      client,
      "SELECT 't' || k AS key, v AS value, k AS position FROM lists UNION ALL SELECT 'i' || k, v, id FROM items ORDER BY 1, 3",
    );
    history.appends.push({
      client: client.name,
      operations: allLists(all),
      outcome: "committed",
      startMs,
      endMs: now(),
    });
    history.balances.push(numbers(await read(client, "SELECT balance FROM accounts ORDER BY id")));
  }
  const reader = readers[0]!;
  const found = numbers(await read(reader, "SELECT token FROM tokens"));
  note("tokens", checkSet({ added: history.tokens, found }));
  const owners = await read(reader, "SELECT k, owner FROM uniq");
  note(
    "unique",
    checkSet({
      added: new Map(history.claims.map(({ k, owner, outcome }) => [`${k}:${owner}`, outcome])),
      found: owners.map(([k, owner]) => `${String(k)}:${String(owner)}`),
    }),
  );
  const values = await read(reader, "SELECT n FROM counters ORDER BY id");
  for (const [id, counter] of history.counters.entries()) {
    const { acknowledged, unknown, told, reads } = counter;
    note(`counter ${id}`, checkCounter({ acknowledged, unknown, value: Number(values[id]![0]) }));
    note(`counter ${id} in real time`, checkMonotonic(counterEvents(told, reads)));
    const twice = told.length - new Set(told.map(({ value }) => value)).size;
    check(twice === 0, () => `counter ${id} told the same value ${twice} times too often`);
  }
  note(
    "bank",
    checkBank({
      total: ACCOUNTS * INITIAL,
      accounts: ACCOUNTS,
      reads: history.balances,
    }),
  );
  note("lists", checkListAppend(history.appends));
  note("schema", checkMonotonic(history.schema));
  return verdicts;
}

/** What RETURNING told was seen, as by a read; who wrote it may have been somebody whose answer was lost. */
function counterEvents(told: CounterRun["told"], reads: CounterRun["reads"]): MonotonicEvent[] {
  const ceiling: MonotonicEvent = {
    kind: "write",
    value: NEVER,
    startMs: 0,
    endMs: NEVER,
    client: "",
  };
  const event = ({ value, startMs, endMs }: CounterRun["reads"][number]): MonotonicEvent => ({
    kind: "read",
    value,
    startMs,
    endMs,
    client: "",
  });
  return [ceiling, ...told.map(event), ...reads.map(event)];
}
