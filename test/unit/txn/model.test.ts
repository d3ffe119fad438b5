/**
 * The transaction rules of one range against abstract logs: random short histories over a handful of keys, with entries
 * on their way, leaders that change and lose entries, a memory that forgets, savepoints and failing statements. Every
 * committed transaction must have been told what it would have been told had it run alone at its place in the log.
 * Then the same with one rule removed at a time: the violation must be found, or the model proves nothing.
 */
import { describe, expect, it } from "vitest";
import {
  type LogIndex,
  logIndex,
  type Term,
  type TransactionId,
  term,
  transactionId,
} from "../../../src/base/ids.js";
import { END_OF_TABLE, type Footprint, type Span } from "../../../src/sql/types.js";
import { type OpenTransaction, TransactionTable } from "../../../src/txn/transactions.js";
import type { WriteToken } from "../../../src/txn/write-memory.js";

const RULES = [
  "validate at commit",
  "count writes from when they are proposed",
  "admit what is on its way when the first transaction opens",
  "propose in the step that validates",
  "refuse what was read before the term",
  "refuse what was read below the floor",
  "a search that finds nothing reads the end",
  "an append writes the end",
  "compare what was told",
  "a failed statement's checks are reads",
  "a rolled back statement's checks are reads",
] as const;
type Rule = (typeof RULES)[number];

type Op =
  | { readonly kind: "get" | "add" | "delete"; readonly key: bigint }
  | { readonly kind: "insert"; readonly key: bigint; readonly value: number }
  | { readonly kind: "all" }
  | { readonly kind: "append"; readonly value: number };

type State = Map<bigint, number>;

class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 12345) >>> 0;
  }
  below(n: number): number {
    this.#state = (Math.imul(this.#state ^ (this.#state >>> 15), 2246822519) + 0x9e3779b9) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 13), 3266489917);
    return ((x ^ (x >>> 16)) >>> 0) % n;
  }
}

/** Runs one statement; answers what its session is told. */
function execute(state: State, op: Op): string {
  switch (op.kind) {
    case "get":
      return String(state.get(op.key));
    case "all":
      return [...state]
        .map(([k, v]) => `${k}=${v}`)
        .sort()
        .join();
    case "add": {
      const value = state.get(op.key);
      if (value !== undefined) state.set(op.key, value + 1);
      return value === undefined ? "0 changes" : "1 change";
    }
    case "delete":
      return state.delete(op.key) ? "1 change" : "0 changes";
    case "insert":
      if (state.has(op.key)) return "constraint failed";
      state.set(op.key, op.value);
      return "1 change";
    default: {
      const key = [...state.keys()].reduce((a, b) => (b > a ? b : a), 0n) + 1n;
      state.set(key, op.value);
      return `key ${key}`;
    }
  }
}

const point = (key: bigint): Span => ({ table: "t", low: key, high: key });
const END: Span = point(END_OF_TABLE);
const WHOLE: Span = { table: "t", low: undefined, high: undefined };

/** As src/sql/footprint.ts has it. */
function footprintOf(op: Op, told: string, rules: ReadonlySet<Rule>): Footprint {
  const end = rules.has("a search that finds nothing reads the end") ? [END] : [];
  switch (op.kind) {
    case "get":
      return {
        reads: told === "undefined" ? [point(op.key), ...end] : [point(op.key)],
        writes: [],
        checks: [],
      };
    case "all":
      return { reads: [WHOLE], writes: [], checks: [] };
    case "add":
    case "delete": {
      const reads = told === "1 change" ? [point(op.key)] : [point(op.key), ...end];
      return { reads, writes: [point(op.key)], checks: [] };
    }
    case "insert":
      return { reads: [], writes: [point(op.key)], checks: [point(op.key), ...end] };
    default: {
      const writes = rules.has("an append writes the end") ? [END] : [];
      return { reads: [END], writes, checks: [WHOLE] };
    }
  }
}

interface Entry {
  readonly ops: readonly { readonly op: Op; readonly told: string | undefined }[];
  readonly writes: readonly Span[];
  readonly client: Client | undefined;
  token: WriteToken | undefined;
  committed: boolean;
}

interface Written {
  readonly op: Op;
  readonly told: string;
}

/** One transaction of one client. */
interface Client {
  readonly id: TransactionId;
  open: OpenTransaction<Written> | undefined;
  table: TransactionTable<Written> | undefined;
  readonly ran: { readonly op: Op; readonly told: string; readonly kept: boolean }[];
  state: "running" | "validated" | "proposed" | "committed" | "gone";
  /** Log length when a read-only transaction was validated. */
  place: Entry | undefined;
  readOnly: boolean;
}

class World {
  readonly random: Random;
  readonly rules: ReadonlySet<Rule>;
  log: Entry[] = [];
  applied = 0;
  state: State = new Map([[1n, 10]]);
  term = 1;
  table: TransactionTable<Written>;
  clients: Client[] = [];
  stats = { committed: 0, refused: 0 };
  #next = 0;
  readonly #maxKeys: number;

  constructor(seed: number, rules: ReadonlySet<Rule>) {
    this.random = new Random(seed);
    this.rules = rules;
    this.#maxKeys = this.random.below(3) === 0 ? 2 : 100;
    this.table = new TransactionTable(term(this.term) as Term, this.#maxKeys);
  }

  run(): void {
    for (let i = 0; i < 3; i++) this.newClient();
    for (let step = 0; step < 30; step++) this.step();
    while (this.applied < this.log.length) this.apply();
  }

  newClient(): void {
    const id = transactionId(`x${this.#next++}`);
    this.clients.push({
      id,
      open: undefined,
      table: undefined,
      ran: [],
      state: "running",
      place: undefined,
      readOnly: false,
    });
  }

  step(): void {
    const { random } = this;
    const choice = random.below(20);
    if (choice < 5) {
      if (this.applied < this.log.length) this.apply();
    } else if (choice < 8) this.autocommit();
    else if (choice === 8 && random.below(4) === 0) this.changeLeader();
    else {
      const running = this.clients.filter((c) => c.state === "running" || c.state === "validated");
      const client = running[random.below(Math.max(1, running.length))];
      if (client === undefined) this.newClient();
      else if (client.state === "validated") this.propose(client);
      else if (client.ran.length >= 1 + random.below(4)) this.commit(client);
      else if (client.ran.length > 0 && random.below(6) === 0) this.rollBackTo(client);
      else this.statement(client);
    }
  }

  randomOp(): Op {
    const key = BigInt(1 + this.random.below(3));
    const value = this.random.below(1000);
    switch (this.random.below(9)) {
      case 0:
      case 1:
      case 2:
        return { kind: "get", key };
      case 3:
        return { kind: "all" };
      case 4:
        return { kind: "add", key };
      case 5:
        return { kind: "delete", key };
      case 6:
      case 7:
        return { kind: "insert", key, value };
      default:
        return { kind: "append", value };
    }
  }

  append(entry: Entry): void {
    if (this.table.remembering && this.rules.has("count writes from when they are proposed")) {
      entry.token = this.table.admit(entry.writes);
    }
    this.log.push(entry);
    if (entry.token !== undefined && this.random.below(2) === 0) this.settle(entry);
  }

  settle(entry: Entry): void {
    if (entry.token === undefined) return;
    this.table.settle(entry.token, logIndex(this.log.indexOf(entry) + 1));
    entry.token = undefined;
  }

  apply(): void {
    const entry = this.log[this.applied]!;
    if (!this.rules.has("count writes from when they are proposed") && this.table.remembering) {
      entry.token = this.table.admit(entry.writes);
    }
    this.settle(entry);
    this.applied++;
    const next: State = new Map(this.state);
    const asTold = entry.ops.every(({ op, told }) => {
      const now = execute(next, op);
      return told === undefined || told === now || !this.rules.has("compare what was told");
    });
    if (asTold) this.state = next;
    entry.committed = asTold;
    if (entry.client === undefined) return;
    entry.client.state = asTold ? "committed" : "gone";
    if (asTold) this.stats.committed++;
    else this.stats.refused++;
  }

  autocommit(): void {
    const op = this.randomOp();
    if (op.kind === "get" || op.kind === "all") return;
    const { writes } = footprintOf(op, "", this.rules);
    this.append({
      ops: [{ op, told: undefined }],
      writes,
      client: undefined,
      token: undefined,
      committed: false,
    });
  }

  changeLeader(): void {
    // Entries that no quorum has may be lost; the rest is applied before the new leader serves.
    const lost = this.random.below(this.log.length - this.applied + 1);
    for (const { client } of this.log.splice(this.log.length - lost, lost))
      if (client !== undefined) client.state = "gone";
    for (const entry of this.log) entry.token = undefined;
    this.table = new TransactionTable(term(++this.term) as Term, this.#maxKeys);
    while (this.applied < this.log.length) this.apply();
  }

  openFor(client: Client): OpenTransaction<Written> {
    const first = !this.table.remembering;
    const open = this.table.open(client.id, logIndex(this.applied) as LogIndex, 0);
    if (first && this.rules.has("admit what is on its way when the first transaction opens")) {
      for (const entry of this.log.slice(this.applied)) entry.token = this.table.admit(entry.writes);
    }
    client.table = this.table;
    client.open = open;
    return open;
  }

  end(client: Client, state: Client["state"]): void {
    client.state = state;
    if (client.table === this.table) this.table.close(client.id);
    if (state === "gone") this.stats.refused++;
  }

  statement(client: Client): void {
    let open = client.open;
    if (open === undefined) open = this.openFor(client);
    else if (client.table !== this.table) {
      if (this.rules.has("refuse what was read before the term")) {
        this.end(client, "gone");
        return;
      }
      const known = open;
      open = this.openFor(client);
      open.reads.push(...known.reads.map((read) => ({ ...read, index: logIndex(this.applied) })));
      open.writes.push(...known.writes);
      open.ordinal = known.ordinal;
    }
    const state: State = new Map(this.state);
    for (const { statement } of open.writes) {
      if (execute(state, statement.op) !== statement.told) {
        this.end(client, "gone");
        return;
      }
    }
    const op = this.randomOp();
    const told = execute(state, op);
    const footprint = footprintOf(op, told, this.rules);
    const failed = told === "constraint failed";
    const counted =
      failed && this.rules.has("a failed statement's checks are reads")
        ? [...footprint.reads, ...footprint.checks]
        : footprint.reads;
    const again = failed || op.kind === "get" || op.kind === "all" ? undefined : { op, told };
    this.table.ran(open, { ...footprint, reads: counted }, logIndex(this.applied), again);
    client.ran.push({ op, told, kept: true });
  }

  rollBackTo(client: Client): void {
    if (client.table !== this.table || client.open === undefined) return;
    const ordinal = this.random.below(client.ran.length);
    if (this.rules.has("a rolled back statement's checks are reads"))
      this.table.truncate(client.open, ordinal);
    else client.open.writes = client.open.writes.filter((write) => write.ordinal < ordinal);
    // What was told stays told; only its effects go.
    for (let i = 0; i < client.ran.length; i++) {
      const ran = client.ran[i]!;
      if (i >= ordinal && ran.kept) client.ran[i] = { ...ran, kept: false };
    }
    client.ran.push({ op: { kind: "all" }, told: "rollback", kept: true });
    client.open.ordinal = client.ran.length;
  }

  conflict(client: Client): boolean {
    const { open } = client;
    if (open === undefined) return true;
    if (client.table !== this.table && this.rules.has("refuse what was read before the term")) return true;
    const found = client.table!.conflict(open);
    if (!this.rules.has("validate at commit")) return false;
    if (found?.startsWith("too much") === true) return this.rules.has("refuse what was read below the floor");
    return found !== undefined;
  }

  commit(client: Client): void {
    if (this.conflict(client)) {
      this.end(client, "gone");
      return;
    }
    client.state = "validated";
    if (this.rules.has("propose in the step that validates")) this.propose(client);
  }

  propose(client: Client): void {
    const open = client.open!;
    const { writes } = open;
    this.end(client, "proposed");
    if (writes.length === 0) {
      client.state = "committed";
      client.readOnly = true;
      client.place = this.log.at(-1);
      this.stats.committed++;
      return;
    }
    this.append({
      ops: writes.map(({ statement }) => statement),
      writes: writes.flatMap(({ spans }) => spans),
      client,
      token: undefined,
      committed: false,
    });
  }
}

/** What a transaction was told, against what it would be told alone at its place; undefined when all is well. */
function violation(world: World): string | undefined {
  const before = new Map<Client, State>();
  let state: State = new Map([[1n, 10]]);
  const readers = world.clients.filter((client) => client.readOnly);
  const present = new Set(world.log);
  for (const reader of readers)
    if (reader.place === undefined || !present.has(reader.place)) before.set(reader, new Map(state));
  for (const entry of world.log) {
    if (entry.client !== undefined) before.set(entry.client, new Map(state));
    if (entry.committed) {
      const next: State = new Map(state);
      for (const { op } of entry.ops) execute(next, op);
      state = next;
    }
    for (const reader of readers) if (reader.place === entry) before.set(reader, new Map(state));
  }
  for (const client of world.clients) {
    if (client.state !== "committed") continue;
    // A reader whose place was lost with a deposed leader's entries has no place in this log to be judged at.
    if (client.readOnly && client.place !== undefined && !present.has(client.place)) continue;
    const problem = replay(client, before.get(client)!);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function replay(client: Client, start: State): string | undefined {
  // Statements rolled back saw the effects of those before them; each is judged on what was kept or not yet rolled back.
  let state: State = new Map(start);
  let undo: State = new Map(start);
  for (const [i, { op, told, kept }] of client.ran.entries()) {
    if (told === "rollback") {
      state = undo;
      continue;
    }
    if (kept || i === 0 || client.ran[i - 1]!.kept) undo = kept ? undo : new Map(state);
    const now = execute(state, op);
    if (now !== told) return `${client.id}: ${op.kind} was told "${told}", at its place it would be "${now}"`;
    if (kept) undo = new Map(state);
  }
  return undefined;
}

function explore(
  rules: ReadonlySet<Rule>,
  runs: number,
  seed: number,
): { found: string | undefined; committed: number; refused: number } {
  let committed = 0;
  let refused = 0;
  for (let run = 0; run < runs; run++) {
    const world = new World(seed + run, rules);
    world.run();
    committed += world.stats.committed;
    refused += world.stats.refused;
    const found = violation(world);
    if (found !== undefined) return { found: `seed ${seed + run}: ${found}`, committed, refused };
  }
  return { found: undefined, committed, refused };
}

const SEED = Number(process.env.SEED ?? 1);

describe(`transactions of one range (SEED=${SEED})`, () => {
  it("are strictly serializable over 20,000 histories", () => {
    const { found, committed, refused } = explore(new Set(RULES), 20_000, SEED);
    expect(found).toBeUndefined();
    expect(committed).toBeGreaterThan(20_000);
    expect(refused).toBeGreaterThan(5_000);
  }, 60_000);

  it.each(RULES)(
    "need the rule: %s",
    (rule) => {
      const { found } = explore(new Set(RULES.filter((other) => other !== rule)), 20_000, SEED);
      expect(found, `without "${rule}" nothing went wrong`).toBeDefined();
    },
    60_000,
  );
});
