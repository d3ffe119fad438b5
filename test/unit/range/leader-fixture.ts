/** A range's leader on a real store, over a log of one node that the test holds back, loses and hands to others. */
import { join } from "node:path";
import { RetryError, RouteError } from "../../../src/base/errors.js";
import {
  FIRST_RANGE_GROUP,
  type GroupId,
  groupId,
  type LogIndex,
  logIndex,
  nodeId,
  type Term,
  type TransactionId,
  term,
  transactionId,
} from "../../../src/base/ids.js";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { openLocalStores, type StoreWorker } from "../../../src/machines/range/store.js";
import type { IdempotencyKey, RangeStore, RowChange, SplitChild } from "../../../src/machines/range/types.js";
import type { Committed, GroupHandle, GroupStatus } from "../../../src/multiraft/types.js";
import { EMPTY_CONF } from "../../../src/raft/index.js";
import { type Entry, EntryKind } from "../../../src/raft/types.js";
import { DEFAULT_LEADER_LIMITS, type LeaderLimits, RangeLeader } from "../../../src/range/leader.js";
import { Schema } from "../../../src/range/schema.js";
import type { LocalRead, PrepareRequest } from "../../../src/range/types.js";
import type { Span } from "../../../src/sql/types.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";
import { statement, temporaryDirectory } from "./helpers.js";

const COORDINATOR = groupId(2);
const workers: StoreWorker[] = [];

export async function closeWorlds(): Promise<void> {
  for (const worker of workers.splice(0)) await worker.close();
}

interface Pending {
  readonly data: Uint8Array;
  readonly term: Term;
  resolve(committed: Committed): void;
  reject(error: Error): void;
}

/** The log of a group with one voter: entries wait here while `held`. */
export class OneNodeLog {
  readonly group: GroupId;
  readonly store: RangeStore;
  #term = 1;
  #leads = true;
  /** Entries stay on their way until `deliver`. */
  held = false;
  /** A quorum answers. */
  confirms = true;
  /** Entries that have come this far. */
  entries = 0;
  membershipChanging = false;
  /** Those who keep the members from being changed. */
  holds = 0;
  #pending: Pending[] = [];
  #applying: Promise<unknown> = Promise.resolve();
  readonly #listeners: ((status: GroupStatus) => void)[] = [];
  /** Until then no round is confirmed. */
  confirming: Promise<void> = Promise.resolve();
  #index = 0;

  constructor(group: GroupId, store: RangeStore) {
    this.group = group;
    this.store = store;
  }

  async open(): Promise<void> {
    this.#index = await this.store.open();
  }

  handle(): GroupHandle {
    const self = this;
    const conf = { ...EMPTY_CONF, voters: [nodeId(1)] };
    return {
      group: this.group,
      conf,
      get leader() {
        return nodeId(self.#leads ? 1 : 2);
      },
      status: () => self.#status(conf),
      onChange: (listener: (status: GroupStatus) => void) => {
        self.#listeners.push(listener);
        return () => undefined;
      },
      propose: (data: Uint8Array, options?: { onlyInTerm?: Term }) =>
        self.#propose(data, options?.onlyInTerm),
      readIndex: () => self.#readIndex(),
      holdMembership: () => {
        if (self.membershipChanging)
          throw new RetryError("OSTRAKA_UNAVAILABLE", "the members are being changed");
        self.holds++;
        return () => void self.holds--;
      },
    } as unknown as GroupHandle;
  }

  #status(conf: GroupStatus["conf"]): GroupStatus {
    const leads = this.#leads;
    return {
      group: this.group,
      role: leads ? "leader" : "follower",
      leader: nodeId(leads ? 1 : 2),
      term: term(this.#term),
      leaderReady: leads,
      conf,
    } as GroupStatus;
  }

  #propose(data: Uint8Array, onlyInTerm: Term | undefined): Promise<Committed> {
    if (!this.#leads || (onlyInTerm ?? this.#term) !== this.#term)
      return Promise.reject(new RouteError("not the leader", nodeId(2)));
    return new Promise((resolve, reject) => {
      this.entries++;
      this.#pending.push({ data, term: term(this.#term), resolve, reject });
      if (!this.held) this.deliver();
    });
  }

  async #readIndex(): Promise<LogIndex> {
    await this.#applying;
    if (!this.confirms || !this.#leads) throw new RouteError("leadership was lost", nodeId(2));
    const index = this.store.appliedIndex();
    await this.confirming;
    return index;
  }

  /** Applies what is on its way. */
  deliver(): void {
    for (const { data, term: proposed, resolve, reject } of this.#pending.splice(0)) {
      const index = logIndex(++this.#index);
      const entry: Entry = { term: proposed, index, kind: EntryKind.Normal, data };
      const applied = this.store.apply([entry], index);
      this.#applying = applied.catch(() => {});
      applied.then(([result]) => resolve({ index, term: proposed, result: result! }), reject);
    }
  }

  /** Another node leads; what was on its way is overwritten. */
  depose(): void {
    this.#leads = false;
    this.#tell();
    for (const { reject } of this.#pending.splice(0))
      reject(new RouteError("leadership was lost", nodeId(2)));
  }

  lead(): void {
    this.#leads = true;
    this.#term++;
    this.#tell();
  }

  #tell(): void {
    const status = this.handle().status();
    for (const listener of this.#listeners) listener(status);
  }
}

export interface LeaderWorld {
  readonly leader: RangeLeader;
  readonly log: OneNodeLog;
  readonly store: RangeStore;
  readonly schema: Schema;
  readonly clock: ManualClock;
  /** What the coordinator was asked, and what it answers. */
  readonly asked: TransactionId[];
  decision: "committed" | "aborted" | "unknown" | undefined;
  /** Opens the range that was split off, with a leader of its own. */
  child(): Promise<LeaderWorld>;
}

export async function newWorld(limits: Partial<LeaderLimits> = {}): Promise<LeaderWorld> {
  const clock = new ManualClock();
  const worker = openLocalStores({ clock });
  workers.push(worker);
  const path = join(temporaryDirectory(), "ranges", String(FIRST_RANGE_GROUP), "range.db");
  return openWorld(FIRST_RANGE_GROUP, worker, path, clock, { ...DEFAULT_LEADER_LIMITS, ...limits });
}

async function openWorld(
  group: GroupId,
  worker: StoreWorker,
  path: string,
  clock: ManualClock,
  limits: LeaderLimits,
): Promise<LeaderWorld> {
  const store = worker.store(path);
  const split = new Promise<SplitChild>((resolve) => store.onSplit(resolve));
  const log = new OneNodeLog(group, store);
  await log.open();
  const schema = await Schema.follow(store);
  const asked: TransactionId[] = [];
  const child = async (): Promise<LeaderWorld> => {
    const { descriptor, path: at } = await split;
    return openWorld(descriptor.range, worker, at, clock, limits);
  };
  const world = { log, store, schema, clock, asked, decision: undefined, child } as Omit<
    LeaderWorld,
    "leader"
  > & { leader?: RangeLeader };
  world.leader = new RangeLeader({
    handle: log.handle(),
    store,
    schema,
    clock,
    random: new SeededRandom(1),
    limits,
    inquire: async (coordinator, transaction) => {
      if (coordinator !== COORDINATOR) throw new Error(`group ${coordinator} is asked`);
      asked.push(transaction);
      if (world.decision === undefined) throw new Error("nobody answers");
      return { decision: world.decision };
    },
  });
  await settle();
  return world as LeaderWorld;
}

let sequence = 0;

export function key(world: LeaderWorld): IdempotencyKey {
  sequence++;
  return { client: "test", sequence, lowestUnanswered: 1, issuedMs: world.clock.wallMs() };
}

export async function write(world: LeaderWorld, sql: string, params: readonly SqlValue[] = []) {
  return world.leader.write({ key: key(world), statement: { sql, params }, flags: 0, lastInsertRowid: 0n });
}

/** Statements that must succeed. */
export async function run(world: LeaderWorld, ...texts: string[]): Promise<void> {
  for (const sql of texts) {
    const result = await write(world, sql);
    if (result.ok !== true) throw new Error(`${sql}: ${JSON.stringify(result)}`);
  }
}

export async function rows(world: LeaderWorld, sql: string): Promise<SqlValue[][]> {
  const { outcome } = await world.store.read({ statement: statement(sql), maxBytes: 1 << 20 });
  return decodeRows(outcome.rows);
}

export const point = (key: number | bigint, table = "t"): Span => ({
  table,
  low: BigInt(key),
  high: BigInt(key),
});
export const whole = (table = "t"): Span => ({ table, low: undefined, high: undefined });

export const row = (key: number, value: number, table = "t"): RowChange => ({
  table,
  key: [BigInt(key)],
  row: [BigInt(key), BigInt(value)],
});

export interface Part {
  readonly id: string;
  readonly reads?: readonly LocalRead[];
  readonly changes?: readonly RowChange[];
  readonly writes?: readonly Span[];
  readonly generation?: number;
  readonly schemaVersion?: number;
  readonly ran?: number;
  readonly participants?: number;
  readonly body?: PrepareRequest["body"];
  readonly key?: IdempotencyKey;
}

export function request(world: LeaderWorld, part: Part): PrepareRequest {
  const changes = part.changes ?? [];
  return {
    transaction: transactionId(part.id),
    key: part.key ?? key(world),
    coordinator: COORDINATOR,
    generation: part.generation ?? world.store.state().descriptor.generation,
    reads: part.reads ?? [],
    writes: part.writes ?? changes.map((change) => point(change.key[0] as bigint, change.table)),
    schemaVersion: part.schemaVersion ?? world.schema.version,
    ...(part.ran === undefined ? {} : { ran: part.ran }),
    ...(part.participants === undefined ? {} : { participants: part.participants }),
    body: part.body ?? (changes.length === 0 ? { kind: "nothing" } : { kind: "rows", changes }),
  };
}

export function prepare(world: LeaderWorld, part: Part) {
  return world.leader.prepare(request(world, part));
}

export const id = transactionId;

/** How a promise has settled by now. */
export async function now<T>(promise: Promise<T>): Promise<T | "waits" | { readonly error: unknown }> {
  let outcome: T | "waits" | { readonly error: unknown } = "waits";
  promise.then(
    (value) => {
      outcome = value;
    },
    (error: unknown) => {
      outcome = { error };
    },
  );
  for (let i = 0; i < 5; i++) await settle();
  return outcome;
}
