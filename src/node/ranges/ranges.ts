/**
 * The ranges that have a replica on this node. Which ones is told by the log: a group with records is here. Replicas
 * come and go while the node runs: children of the ranges that split here, replicas that a leader on another node asks
 * for (`ranges.host`), and those that belong here no longer.
 *
 * Invariants:
 * 1. A child's log begins, durably, before its parent's log may be cut behind the split: both records are in the one
 *    log of the node, in this order. So after a crash either the child's group is in the log, or the parent's log still
 *    has the split and makes the child again.
 * 2. A replica that left is recorded (departed.ts) before anything of it is deleted; its split, applied once more, does
 *    not bring it back.
 * 3. What is done to one range is done one after the other.
 */

import { join } from "node:path";
import { assert } from "../../base/assert.js";
import { RetryError } from "../../base/errors.js";
import {
  COORDINATOR_GROUP,
  type GroupId,
  groupId,
  type LogIndex,
  logIndex,
  META_GROUP,
  NO_NODE,
  type NodeId,
  type Term,
  term as toTerm,
} from "../../base/ids.js";
import type { Clock, Disk, Random } from "../../base/io.js";
import { keyBytes, keyOf } from "../../base/keys.js";
import { atMost, pause } from "../../base/waits.js";
import type { DurableLog } from "../../log/types.js";
import { isDiskFull } from "../../log/writer.js";
import type { StoreWorker } from "../../machines/range/store.js";
import type { SplitChild } from "../../machines/range/types.js";
import type { GroupConfig } from "../../multiraft/group-start.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { GroupHandle } from "../../multiraft/types.js";
import { overlaps, type RangeDescriptor } from "../../placement/descriptor.js";
import { membersOf } from "../../raft/index.js";
import type { ConfState, LogEnd } from "../../raft/types.js";
import { type LeaderLimits, RangeLeader } from "../../range/leader.js";
import type { Inquire } from "../../range/leadership.js";
import { Schema, SchemaPool } from "../../range/schema.js";
import type { TransactionTrace } from "../../txn/trace.js";
import type { Logger } from "../logger.js";
import type { NodeCalls } from "../network.js";
import type { DepartedRanges } from "./departed.js";
import { HostedRange } from "./hosted-range.js";

/** Replicas opened at once when the node starts. */
const OPENING_AT_ONCE = 16;
const FIRST_CAMPAIGN_MS = 10;
const MAX_CAMPAIGN_MS = 200;
const STOP_MS = 5_000;
/** After this a child is left to ordinary elections. */
const CAMPAIGN_FOR_MS = 10_000;
/** How often room on a full disk is looked for. */
const FULL_MS = 1_000;

/** How a group begins that the log does not have, and what one that is back had promised. */
type FirstConfig = Pick<GroupConfig, "bootstrap" | "begins" | "promised">;

export interface RangesOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  /** Of the node's data. */
  readonly directory: string;
  readonly host: MultiRaft;
  readonly log: DurableLog;
  readonly workers: readonly StoreWorker[];
  readonly departed: DepartedRanges;
  /** Nodes that were lost with the quorum of the cluster that this one was recovered from. */
  readonly lost: ReadonlySet<number>;
  readonly limits: LeaderLimits;
  /** What became of a transaction that a range has prepared. */
  readonly inquire: Inquire;
  readonly trace: TransactionTrace;
  /** Replicas whose failure to open must end the node. */
  readonly onFatal: (error: unknown) => void;
}

export interface MembershipAnswer {
  readonly member: boolean;
  readonly index: LogIndex;
  readonly term: number;
  /** 0 where that is not known. */
  readonly logTerm: Term;
}

export interface RangesListener {
  /** A replica is here, perhaps still without a state. */
  opened(range: HostedRange): void;
  /** It has a state now, its first or another: slice, membership, leader or term may have changed. */
  changed(range: HostedRange): void;
  closed(range: HostedRange): void;
}

export class Ranges {
  readonly #options: RangesOptions;
  readonly #hosted = new Map<GroupId, HostedRange>();
  readonly #listeners = new Set<RangesListener>();
  readonly #turns = new Map<GroupId, Promise<unknown>>();
  readonly schemas = new SchemaPool();
  /** Opened at the start, whoever else tells of them meanwhile. */
  readonly #awaited = new Set<GroupId>();
  /** Nodes that this one, as the leader, is about to take in. */
  readonly expected = new ExpectedMembers();
  #opened = 0;
  /** Everything that was here at the start is open. */
  #started = false;
  #stopped = false;

  constructor(options: RangesOptions) {
    this.#options = options;
  }

  get all(): ReadonlyMap<GroupId, HostedRange> {
    return this.#hosted;
  }

  get(range: GroupId): HostedRange | undefined {
    return this.#hosted.get(range);
  }

  listen(listener: RangesListener): void {
    this.#listeners.add(listener);
  }

  /** At start: finishes departures that a crash cut short, and opens what the log has, or `first` where it has nothing. */
  async open(first: { readonly range: GroupId; readonly config: FirstConfig } | undefined) {
    const { log, departed, disk } = this.#options;
    const folders = new Set(await disk.list(join(this.#options.directory, "ranges")));
    const gone = new Set(departed.gone());
    for (const range of gone) {
      if (log.groups().includes(range)) await log.removeGroup(range);
      if (folders.has(String(range))) await this.#remove(range);
    }
    const ranges = log.groups().filter((group) => group !== META_GROUP && group !== COORDINATOR_GROUP);
    const configs = new Map<GroupId, FirstConfig>(ranges.map((range) => [range, departed.returning(range)]));
    // One that was here before does not begin anew, also when it was to come back and nothing of it is kept yet.
    if (first !== undefined && departed.get(first.range) === undefined)
      configs.set(first.range, first.config);
    for (const folder of folders) {
      const range = groupId(Number(folder));
      if (Number.isSafeInteger(range) && range > 0 && !configs.has(range) && !gone.has(range))
        await this.#readopt(range, configs);
    }
    for (const range of configs.keys()) this.#awaited.add(range);
    const waiting = [...configs];
    const openNext = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
        await this.#open(next[0], next[1]);
    };
    await Promise.all(Array.from({ length: OPENING_AT_ONCE }, openNext));
    this.#awaited.clear();
    this.#started = true;
  }

  /** A folder whose range is not in the log: a child whose birth a crash cut short, or a replica that never got a state. */
  async #readopt(range: GroupId, configs: Map<GroupId, FirstConfig>): Promise<void> {
    const { departed, self, workers } = this.#options;
    const store = workers[0]!.store(this.#path(range));
    const applied = await store.open();
    const beginning = store.beginning();
    await store.close();
    const child = beginning !== undefined && applied === beginning.index && departed.get(range) === undefined;
    if (!child || !membersOf(beginning.conf).has(self)) return this.#remove(range);
    const { index, term } = beginning;
    const conf = this.#survivors(beginning.conf);
    configs.set(range, { bootstrap: conf, begins: { index, term } });
  }

  /** Nothing is opened or removed any more. What waits for disk space ends when the log is closed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await atMost(this.#options.clock, STOP_MS, Promise.allSettled([...this.#turns.values()]));
    for (const { leader } of this.#hosted.values()) leader.close();
  }

  // --- children -----------------------------------------------------------------------------------------------------

  /** A split made this child's file here. */
  #adopt(child: SplitChild): Promise<void> {
    const { descriptor, index, term, parent } = child;
    const conf = this.#survivors(child.conf);
    const { range } = descriptor;
    const { self, departed, log, logger, host } = this.#options;
    // Told of again: it is here, or is about to be opened.
    const here = this.#hosted.has(range) || this.#awaited.has(range);
    if (here || log.groups().includes(range)) return Promise.resolve();
    const parentHandle = this.#hosted.get(parent)?.handle;
    const welcome = (): boolean => departed.get(range) === undefined && membersOf(conf).has(self);
    const begin = (): Promise<void> => host.begin({ group: range, bootstrap: conf, begins: { index, term } });
    // Invariant 1: not a moment later, unless something else is being done to it. Then its note keeps it from being
    // forgotten (src/machines/range/children.ts).
    const begun = welcome() && !this.#turns.has(range) ? begin() : undefined;
    return this.#exclusively(range, async () => {
      await begun;
      if (this.#hosted.has(range)) return;
      if (!welcome()) {
        await this.#remove(range);
        return;
      }
      await begin();
      const hosted = await this.#open(range, {}, true);
      logger.info({ range, parent, index }, "a range was born");
      if (parentHandle?.leader === self) this.#campaign(hosted.handle, FIRST_CAMPAIGN_MS, 0);
    });
  }

  /** Whoever split before the quorum was lost meant members that are gone: this node is the only one left of them. */
  #survivors(conf: ConfState): ConfState {
    const { lost, self } = this.#options;
    if (lost.size === 0 || ![...membersOf(conf)].some((node) => lost.has(node))) return conf;
    return { voters: [self], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
  }

  /** Until somebody leads: the other members may not have made their replicas yet. */
  #campaign(handle: GroupHandle, pauseMs: number, spentMs: number): void {
    if (this.#stopped || handle.leader !== NO_NODE || spentMs > CAMPAIGN_FOR_MS) return;
    handle.campaign();
    this.#options.clock.setTimer(pauseMs, () =>
      this.#campaign(handle, Math.min(MAX_CAMPAIGN_MS, pauseMs * 1.5), spentMs + pauseMs),
    );
  }

  // --- replicas that others ask for ---------------------------------------------------------------------------------

  serve(calls: NodeCalls, makeCoordinator: () => Promise<void>): void {
    calls.serve("ranges.host", async ([range, start, end, generation]) => {
      // What is here can be told from what is not only once all of it is open.
      if (!this.#started)
        throw new RetryError("OSTRAKA_UNAVAILABLE", `node ${this.#options.self} is starting`);
      if (range === COORDINATOR_GROUP) await makeCoordinator();
      else
        await this.host({
          range: groupId(Number(range)),
          start: keyOf(start as Uint8Array),
          end: keyOf(end as Uint8Array),
          generation: Number(generation),
          replicas: [],
        });
      return true;
    });
    calls.serve("ranges.membership", ([group, node]) =>
      this.membership(groupId(Number(group)), node as NodeId),
    );
  }

  /** Makes an empty replica that waits for a leader's snapshot, unless there is one. */
  host(descriptor: RangeDescriptor): Promise<void> {
    const { range } = descriptor;
    const { departed, logger, log } = this.#options;
    return this.#exclusively(range, async () => {
      if (this.#hosted.has(range)) return;
      // Its promises are in the log already where it could not be opened, as on a full disk.
      const empty = !log.groups().includes(range) || log.group(range).lastIndex() === 0;
      assert(empty, `range ${range} is here and not open`);
      // Whoever asks has yet to learn of it; an empty replica would only deny what the one that left had acknowledged.
      if (this.absorbed().has(range))
        throw new RetryError("OSTRAKA_UNAVAILABLE", `range ${range} has been taken in by another`);
      const behind = this.#behind(descriptor);
      if (behind !== undefined)
        throw new RetryError(
          "OSTRAKA_UNAVAILABLE",
          `range ${range} has to wait: range ${behind.range} on this node has yet to learn what became of its keys`,
        );
      await departed.back(range);
      await this.#remove(range);
      await this.#open(range, departed.returning(range));
      logger.info({ range }, "a replica is made and waits for its state");
    });
  }

  /** There is not, and never was, a replica of it here, so nothing was promised or acknowledged in its group. */
  neverHad(range: GroupId): boolean {
    const { departed, log } = this.#options;
    if (!this.#started || this.#hosted.has(range) || this.#turns.has(range)) return false;
    return departed.get(range) === undefined && !log.groups().includes(range);
  }

  /** What replicas here have taken in. */
  absorbed(): ReadonlySet<GroupId> {
    const absorbed = new Set<GroupId>();
    for (const { filled, store } of this.#hosted.values())
      if (filled) for (const range of store.state().absorbed) absorbed.add(range);
    return absorbed;
  }

  /** A replica here that is making this range, or may yet make it by applying a split. */
  #behind(descriptor: RangeDescriptor): HostedRange | undefined {
    for (const hosted of this.#hosted.values()) {
      if (!hosted.filled) continue;
      if (hosted.store.making().includes(descriptor.range)) return hosted;
      const own = hosted.store.state().descriptor;
      if (own.generation < descriptor.generation && overlaps(own, descriptor)) return hosted;
    }
    return undefined;
  }

  /**
   * As a group's leader, confirmed by a quorum: whether a node is a member, the index and term up to which that is so, and
   * the term of the entry there. RouteError when this node does not lead.
   */
  async membership(group: GroupId, node: NodeId): Promise<MembershipAnswer> {
    const { host, self } = this.#options;
    const handle = host.findGroup(group);
    if (handle === undefined)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `node ${self} has no replica of group ${group}`);
    const { term } = handle.status();
    await handle.readIndex();
    const { conf, applied } = handle.status();
    if (this.expected.has(group, node))
      throw new RetryError("OSTRAKA_UNAVAILABLE", `node ${node} is being made a member of group ${group}`);
    const logTerm = this.#options.log.group(group).term(applied) ?? toTerm(0);
    return { member: membersOf(conf).has(node), index: applied, term, logTerm };
  }

  // --- leaving ------------------------------------------------------------------------------------------------------

  /**
   * Ends a replica for good. `still` is asked once nothing can come between: a replica that has grown meanwhile was
   * taken in again, and stays. `committed`: an entry that is known to be.
   */
  leave(
    range: GroupId,
    still: (hosted: HostedRange) => boolean,
    committed?: LogEnd | undefined,
  ): Promise<boolean> {
    return this.#exclusively(range, async () => {
      const hosted = this.#hosted.get(range);
      if (hosted === undefined || !still(hosted)) return false;
      this.#hosted.delete(range);
      for (const listener of this.#listeners) listener.closed(hosted);
      const { host, departed, logger } = this.#options;
      await host.removeGroup(range, (promised) => departed.left(range, promised, committed));
      hosted.leader.close();
      hosted.schema.close();
      await this.#remove(range);
      logger.info({ range }, "a replica has left this node");
      return true;
    });
  }

  // --- opening ------------------------------------------------------------------------------------------------------

  /** With `patient` it waits for room on a full disk. */
  async #open(
    range: GroupId,
    config: Omit<GroupConfig, "group" | "machine">,
    patient = false,
  ): Promise<HostedRange> {
    const { host, workers, clock, random, limits, inquire, trace } = this.#options;
    const worker = workers[this.#opened++ % workers.length]!;
    const store = worker.store(this.#path(range));
    // Before the first apply can tell of one.
    store.onSplit((child) => {
      this.#adopt(child).catch((error: unknown) => {
        if (!this.#stopped) this.#options.onFatal(error);
      });
    });
    const add = (): Promise<GroupHandle> => host.addGroup({ group: range, machine: store, ...config });
    const handle = await (patient ? this.#onceThereIsRoom(range, add) : add());
    const schema = await Schema.follow(store, this.schemas);
    const leader = new RangeLeader({ handle, store, schema, clock, random, limits, inquire, trace });
    const hosted = new HostedRange(range, handle, store, schema, leader);
    hosted.filled = handle.status().applied > 0;
    this.#hosted.set(range, hosted);
    for (const listener of this.#listeners) listener.opened(hosted);
    const changed = (): void => {
      if (this.#hosted.get(range) !== hosted || !hosted.filled) return;
      for (const listener of this.#listeners) listener.changed(hosted);
    };
    handle.onChange(changed);
    store.onState(changed);
    if (hosted.filled) changed();
    else
      handle.waitApplied(logIndex(1)).then(
        () => {
          hosted.filled = true;
          changed();
        },
        // It left before it had a state.
        () => undefined,
      );
    return hosted;
  }

  /** A child is in the log already, and what filled the disk may be its own file. */
  async #onceThereIsRoom<T>(range: GroupId, open: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await open();
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        this.#options.logger.warn({ range, reason: error.message }, "a new range waits for disk space");
      }
      await pause(this.#options.clock, FULL_MS);
      if (this.#stopped) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
    }
  }

  #path(range: GroupId): string {
    return join(this.#options.directory, "ranges", String(range), "range.db");
  }

  #remove(range: GroupId): Promise<void> {
    return this.#options.workers[0]!.remove(this.#path(range));
  }

  #exclusively<T>(range: GroupId, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(range) ?? Promise.resolve();
    const turn = before
      .catch(() => undefined)
      .then(() => {
        if (this.#stopped) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
        return work();
      });
    this.#turns.set(range, turn);
    const done = (): void => {
      if (this.#turns.get(range) === turn) this.#turns.delete(range);
    };
    turn.then(done, done);
    return turn;
  }
}

/**
 * Who makes an empty replica, to be taken in next, may ask before that is done whether it is a member: a "no" would end
 * the replica, and the group would have a member without one.
 */
class ExpectedMembers {
  readonly #counts = new Map<string, number>();

  has(group: GroupId, node: NodeId): boolean {
    return this.#counts.has(`${group} ${node}`);
  }

  async during<T>(group: GroupId, nodes: readonly NodeId[], work: () => Promise<T>): Promise<T> {
    const names = nodes.map((node) => `${group} ${node}`);
    for (const name of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const name of names) {
        const left = this.#counts.get(name)! - 1;
        if (left === 0) this.#counts.delete(name);
        else this.#counts.set(name, left);
      }
    }
  }
}

/** What stands for the coordinator's group where ranges have descriptors. */
export function coordinatorDescriptor(): RangeDescriptor {
  return { range: COORDINATOR_GROUP, start: "", end: "", generation: 0, replicas: [] };
}

/** The arguments of `ranges.host`. */
export function hostArguments({ range, start, end, generation }: RangeDescriptor): readonly unknown[] {
  return [range, keyBytes(start), keyBytes(end), generation];
}
