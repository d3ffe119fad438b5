/**
 * One group's replica on this node: the Raft core, its machine, and everyone who waits for something from them.
 * It is driven by the host's loop (host.ts): input marks it dirty, the next turn takes its readies.
 *
 * Invariants:
 * 1. Only the host's loop takes readies. Proposals enter the core at once, so that who validates and proposes does
 *    both in one step; what has gathered by the next turn goes out as one append and one message a peer.
 * 2. A caller's promise settles exactly once, also when the group goes away.
 * 3. Asleep means: no ticks, no work. Whatever comes in wakes it first, but answers to a leader that stays idle.
 *
 * Not here: persistence and sending (host.ts), snapshot streaming (snapshot-sender.ts, snapshot-receiver.ts),
 * cutting the log (compaction.ts).
 */
import { RetryError, RouteError, UserError } from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, NO_NODE, type NodeId, type Term } from "../base/ids.js";
import type { GroupLog } from "../log/types.js";
import { EMPTY_CONF } from "../raft/conf-change.js";
import { RaftNode } from "../raft/node.js";
import {
  type ConfChange,
  type ConfState,
  type Entry,
  EntryKind,
  type LogEnd,
  type Message,
  MessageType,
  type ProposalRefusal,
  type Proposed,
  type SnapshotMeta,
} from "../raft/types.js";
import { Applier } from "./applier.js";
import { MembershipChanges } from "./membership-changes.js";
import type { HostOptions } from "./options.js";
import { Patience } from "./patience.js";
import { Proposals } from "./proposals.js";
import { AppliedWaiters, Reads } from "./reads.js";
import type { Committed, GroupHandle, GroupMachine, GroupStatus } from "./types.js";

const NO_RESULT = new Uint8Array(0);

/** What a replica asks of the host that runs it. */
export interface ReplicaHost {
  readonly nodeId: NodeId;
  readonly options: HostOptions;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Why this node takes no proposals just now. */
  readonly diskFull: string | undefined;
  /** The replica has something for the next turn. */
  markDirty(replica: Replica): void;
  wake(replica: Replica): void;
  /** Members may have changed. */
  membersChanged(): void;
  restored(replica: Replica, meta: SnapshotMeta): void;
  fail(error: unknown): void;
  /** The replica's machine has no disk space: `retry` is called after a while. */
  applyBlocked(replica: Replica, reason: string, retry: () => void, diskFull: boolean): void;
  applyUnblocked(replica: Replica): void;
}

interface Transfer {
  readonly to: NodeId;
  readonly done: Promise<void>;
  ticksLeft: number;
  resolve(): void;
  reject(error: Error): void;
}

function newTransfer(to: NodeId, ticksLeft: number): Transfer {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const done = new Promise<void>((onDone, onFailed) => {
    resolve = onDone;
    reject = onFailed;
  });
  return { to, ticksLeft, done, resolve, reject };
}

export class Replica implements GroupHandle {
  readonly group: GroupId;
  readonly node: RaftNode;
  readonly log: GroupLog;
  readonly machine: GroupMachine;
  readonly applier: Applier;
  readonly patience: Patience;
  /** Asleep; set by the host only. */
  quiesced = false;
  /** The leader under whose node it sleeps, as the host filed it. */
  sleepsUnder: NodeId = NO_NODE;
  closed = false;
  /** Data bytes in the log since its base, as far as this process has seen them. */
  logBytes = 0;
  checkpointing = false;
  /** The applied index of the last one, and `logBytes` after it. */
  lastCheckpoint: { readonly index: LogIndex; readonly bytes: number } = { index: logIndex(0), bytes: 0 };

  readonly #host: ReplicaHost;
  readonly #proposals = new Proposals();
  readonly #reads = new Reads();
  readonly #waiters = new AppliedWaiters();
  /** Log positions that snapshots on their way to peers will need to go on from. */
  readonly #floors = new Map<symbol, LogIndex>();
  readonly #listeners = new Set<(status: GroupStatus) => void>();
  readonly #membership: MembershipChanges;
  #transfer: Transfer | undefined;
  #idleTicks = 0;
  #staleTicks = 0;
  #told = { leader: NO_NODE, role: "follower", term: 0, leaderReady: false, conf: EMPTY_CONF };

  constructor(
    host: ReplicaHost,
    group: GroupId,
    machine: GroupMachine,
    log: GroupLog,
    applied: LogIndex,
    lostLog: LogEnd | undefined,
  ) {
    this.group = group;
    this.#host = host;
    this.machine = machine;
    this.log = log;
    this.applier = new Applier(machine, log, applied, host.options, {
      applied: (entries, results, upTo) => this.#onApplied(entries, results, upTo),
      restored: (meta) => this.#onRestored(meta),
      failed: (error) => host.fail(error),
      blocked: (reason, retry, diskFull) => {
        this.#waiters.rejectHasty(blockedError(reason));
        host.applyBlocked(this, reason, retry, diskFull);
      },
      unblocked: () => host.applyUnblocked(this),
    });
    const { electionTicks, heartbeatTicks, maxAppendBytes, maxInflightMessages } = host.options;
    const { maxInflightBytes, maxUncommittedBytes, maxReadyBytes } = host.options;
    this.node = new RaftNode(
      {
        id: host.nodeId,
        electionTicks,
        heartbeatTicks,
        maxAppendBytes,
        maxInflightMessages,
        maxInflightBytes,
        maxUncommittedBytes,
        maxReadyBytes,
        random: host.random,
        lazyCommits: host.options.lazyTicks > 0,
        ...(lostLog === undefined ? {} : { lostLog }),
      },
      log,
      applied,
    );
    const { node, applier } = this;
    const { lazyTicks } = host.options;
    this.patience = new Patience({ node, applier, machine, waiters: this.#waiters, lazyTicks });
    this.#membership = new MembershipChanges(group, node, electionTicks);
    this.#raiseReplayFloor();
  }

  // --- GroupHandle -------------------------------------------------------------------------------------------

  get leader(): NodeId {
    return this.node.leader;
  }

  status(): GroupStatus {
    const { node } = this;
    const match = new Map<NodeId, LogIndex>();
    if (node.role === "leader")
      for (const [peer, progress] of node.progress()) match.set(peer, progress.match);
    return {
      group: this.group,
      role: node.role,
      leader: node.leader,
      term: node.term,
      commit: node.commitIndex,
      applied: this.applier.appliedIndex,
      lastIndex: node.lastIndex,
      conf: node.conf,
      match,
      leaderReady: this.leaderReady,
    };
  }

  get leaderReady(): boolean {
    return this.node.role === "leader" && this.applier.appliedTerm === this.node.term;
  }

  propose(data: Uint8Array, options?: { onlyInTerm?: Term }): Promise<Committed> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(data.length, options?.onlyInTerm);
      if (refusal !== undefined) {
        reject(refusal);
        return;
      }
      const where = this.node.propose(data);
      this.patience.proposed(data);
      this.#appended(where, data.length, resolve, reject);
    });
  }

  readIndex(): Promise<LogIndex> {
    return new Promise((resolve, reject) => {
      if (this.closed) reject(this.#gone());
      else if (this.node.role !== "leader") reject(this.#notLeader());
      else if (this.#reads.count >= this.#host.options.maxPendingReads)
        reject(new RetryError("OSTRAKA_UNAVAILABLE", "too many reads wait for a quorum"));
      else {
        this.#reads.add({ resolve, reject });
        this.#stir();
      }
    });
  }

  /** `hasty`: not for disk space, nor for another machine on this node. */
  waitApplied(index: LogIndex, hasty = false): Promise<void> {
    if (index <= this.applier.appliedIndex) return Promise.resolve();
    if (this.closed) return Promise.reject(this.#gone());
    // Whoever has given up waiting is still among them: while nothing is applied they are not to become ever more.
    if (this.#waiters.count >= this.#host.options.maxPendingReads)
      return Promise.reject(new RetryError("OSTRAKA_UNAVAILABLE", "too many wait for what is to be applied"));
    const { blocked } = this.applier;
    if (hasty && blocked !== undefined) return Promise.reject(blockedError(blocked));
    return new Promise((resolve, reject) => {
      this.#waiters.add(index, { resolve: () => resolve(), reject, hasty });
      if (this.patience.hurry(index) && !this.quiesced) this.#host.markDirty(this);
    });
  }

  async changeMembership(change: ConfChange): Promise<void> {
    // Who is there is known of an active group only.
    if (this.quiesced) await this.readIndex();
    const heard = this.closed ? undefined : this.#membership.untilHeard(change);
    if (heard !== undefined) {
      this.#stir();
      await heard;
    }
    await new Promise<Committed>((resolve, reject) => {
      const refusal = this.#refusal(0, undefined) ?? this.#membership.refusal(change);
      if (refusal !== undefined) {
        reject(refusal);
        return;
      }
      this.#appended(this.node.proposeConfChange(change), 0, resolve, reject);
    });
    if (this.node.conf.votersOutgoing.length === 0) return;
    if (this.closed) throw this.#gone();
    await this.#membership.untilLeft();
  }

  holdMembership(): () => void {
    return this.#membership.hold();
  }

  transferLeadership(to: NodeId): Promise<void> {
    if (this.closed) return Promise.reject(this.#gone());
    if (this.node.role !== "leader") return Promise.reject(this.#notLeader());
    if (to === this.#host.nodeId) return Promise.resolve();
    if (this.#transfer?.to === to) return this.#transfer.done;
    if (!this.node.transferLeadership(to))
      return Promise.reject(
        new RetryError("OSTRAKA_UNAVAILABLE", `node ${to} cannot lead group ${this.group} at present`),
      );
    this.#endTransfer(new RetryError("OSTRAKA_UNAVAILABLE", "another leadership transfer was asked for"));
    // The core gives up after one election timeout; the tick after it the target leads or does not.
    this.#transfer = newTransfer(to, this.#host.options.electionTicks + 1);
    this.#stir();
    return this.#transfer.done;
  }

  campaign(): void {
    const { role, leader } = this.node;
    // A candidacy that has begun is left to its votes; a new one would make them void.
    if (this.closed || leader !== NO_NODE || role === "candidate") return;
    this.node.campaign();
    this.#stir();
  }

  silentMembers(): readonly NodeId[] {
    const silent: NodeId[] = [];
    for (const [peer, { match, recentActive }] of this.node.progress())
      if (peer !== this.#host.nodeId && (match === 0 || !recentActive)) silent.push(peer);
    return silent;
  }

  get conf(): ConfState {
    return this.node.conf;
  }

  get lastTerm(): Term {
    return this.log.term(this.log.lastIndex()) as Term;
  }

  get logEnd(): LogEnd {
    return { index: this.log.lastIndex(), term: this.lastTerm };
  }

  get hardState(): { readonly term: Term; readonly vote: NodeId } {
    const { term, vote } = this.log.hardState();
    return { term, vote };
  }

  onChange(listener: (status: GroupStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  digest(): Promise<{ readonly appliedIndex: LogIndex; readonly digest: string }> {
    this.applier.hurry();
    return this.machine.digest();
  }

  // --- driven by the host ------------------------------------------------------------------------------------

  step(message: Message): void {
    const asleep = this.quiesced;
    this.node.step(message);
    if (asleep) {
      // Late answers to the last heartbeats must not keep an idle leader awake.
      const answer =
        message.type === MessageType.HeartbeatResponse || message.type === MessageType.AppendResponse;
      if (!(answer && this.node.role === "leader" && this.node.canQuiesce())) this.#stir();
    } else if (message.type !== MessageType.Heartbeat && message.type !== MessageType.HeartbeatResponse) {
      this.#idleTicks = 0;
    }
    this.#host.markDirty(this);
  }

  /** One tick; only called while awake. Answers true, and does nothing, when the group may fall asleep, as its leader. */
  tick(): boolean {
    this.#membership.tick();
    const { quiesceTicks } = this.#host.options;
    // Asked before the tick, which may make a heartbeat.
    const idle = quiesceTicks > 0 && ++this.#idleTicks >= quiesceTicks;
    this.patience.tick();
    if (idle && this.#nothingPending() && this.node.canQuiesce()) return true;
    this.node.tick();
    if (this.node.hasReady()) this.#host.markDirty(this);
    this.#tickTransfer();
    this.#tickStale();
    return false;
  }

  /** Whether a follower may fall asleep because its leader does, at this term and commit. */
  maySleep(leader: NodeId, term: Term, commit: LogIndex): boolean {
    const { node } = this;
    return (
      !this.closed &&
      node.role === "follower" &&
      node.leader === leader &&
      node.term === term &&
      node.commitIndex === commit &&
      node.lastIndex === commit &&
      this.#nothingPending()
    );
  }

  awakened(): void {
    this.#idleTicks = 0;
    this.node.wake();
  }

  /** The reads gathered since the last turn enter the core; called at the start of the group's part of a turn. */
  feed(): void {
    this.patience.ask();
    this.#reads.startRound((context) => this.node.readIndex(context), this.#leaderHint());
  }

  readStates(states: readonly { readonly context: number; readonly index: LogIndex }[]): void {
    for (const { context, index } of states)
      this.#reads.confirmed(context, index, this.#waiters, this.applier.appliedIndex);
  }

  droppedReads(contexts: readonly number[]): void {
    for (const context of contexts) this.#reads.dropped(context, this.#leaderHint());
  }

  /** Tells listeners what has changed since they were last told. */
  notify(): void {
    const { leader, role, term, conf } = this.node;
    const leaderReady = this.leaderReady;
    const told = this.#told;
    if (
      told.leader === leader &&
      told.role === role &&
      told.term === term &&
      told.leaderReady === leaderReady &&
      told.conf === conf
    )
      return;
    this.#told = { leader, role, term, leaderReady, conf };
    if (this.#transfer !== undefined && leader !== NO_NODE && leader !== this.#host.nodeId) {
      const { to } = this.#transfer;
      this.#endTransfer(
        leader === to
          ? undefined
          : new RetryError("OSTRAKA_UNAVAILABLE", `node ${leader} was elected instead`),
      );
    }
    const status = this.status();
    for (const listener of this.#listeners) listener(status);
  }

  /** Ends everything that waits; the machine is closed by the host. */
  async close(reason: string): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    const error = new RetryError("OSTRAKA_UNAVAILABLE", reason);
    this.#proposals.abandonAll(reason);
    this.#reads.rejectAll(error);
    this.#waiters.rejectAll(error);
    this.#membership.close(error);
    this.#endTransfer(error);
    await this.applier.stop();
  }

  /** Asks that the log after `index` be kept until the returned function is called. */
  keepLogFrom(index: LogIndex): () => void {
    const key = Symbol();
    this.#floors.set(key, index);
    return () => this.#floors.delete(key);
  }

  /** The lowest position somebody asked to keep. */
  logFloor(): LogIndex | undefined {
    let floor: LogIndex | undefined;
    for (const index of this.#floors.values()) if (floor === undefined || index < floor) floor = index;
    return floor;
  }

  // --- inside ------------------------------------------------------------------------------------------------

  #appended(
    where: Proposed | ProposalRefusal,
    bytes: number,
    resolve: (committed: Committed) => void,
    reject: (error: Error) => void,
  ): void {
    if (typeof where === "string") reject(this.#refused(where));
    else {
      this.#proposals.add(where.index, where.term, { bytes, resolve, reject }, this.#leaderHint());
      this.#stir();
    }
  }

  #onApplied(entries: readonly Entry[], results: ReadonlyMap<LogIndex, Uint8Array>, upTo: LogIndex): void {
    this.node.applied(upTo);
    this.#raiseReplayFloor();
    const leader = this.#leaderHint();
    let membership = false;
    for (const entry of entries) {
      if (entry.kind === EntryKind.ConfChange) membership = true;
      if (this.#proposals.count > 0)
        this.#proposals.applied(entry.index, entry.term, results.get(entry.index) ?? NO_RESULT, leader);
    }
    this.#waiters.applied(upTo);
    if (membership) this.#membersChanged();
    this.#host.markDirty(this);
  }

  #raiseReplayFloor(): void {
    const floor = this.machine.replayFloor?.();
    if (floor !== undefined) this.node.raiseReplayFloor(floor);
  }

  #onRestored(meta: SnapshotMeta): void {
    this.node.applied(meta.index);
    this.#raiseReplayFloor();
    this.#proposals.skipped(meta.index);
    this.#waiters.applied(meta.index);
    this.#membersChanged();
    this.#host.restored(this, meta);
    this.#host.markDirty(this);
  }

  #membersChanged(): void {
    this.#host.membersChanged();
    if (this.node.conf.votersOutgoing.length === 0) this.#membership.left();
  }

  #tickTransfer(): void {
    if (this.#transfer === undefined || --this.#transfer.ticksLeft > 0) return;
    this.#endTransfer(
      new RetryError("OSTRAKA_UNAVAILABLE", `node ${this.#transfer.to} did not take over in time`),
    );
  }

  #endTransfer(error: Error | undefined): void {
    const transfer = this.#transfer;
    this.#transfer = undefined;
    if (transfer === undefined) return;
    if (error === undefined) transfer.resolve();
    else transfer.reject(error);
  }

  /** A deposed leader gives the log one election timeout to tell what became of its proposals. */
  #tickStale(): void {
    const leading = this.node.role === "leader";
    const stale = this.#proposals.anyStale(leading, this.node.term) || (!leading && this.#membership.leaving);
    this.#staleTicks = stale ? this.#staleTicks + 1 : 0;
    if (this.#staleTicks <= this.#host.options.electionTicks) return;
    this.#staleTicks = 0;
    const reason = "leadership was lost before the entry was known to commit";
    if (leading) this.#proposals.abandon(this.node.term, reason);
    else {
      this.#proposals.abandonAll(reason);
      this.#membership.left(
        new RetryError("OSTRAKA_RETRY", "leadership was lost while the change was under way"),
      );
    }
  }

  #nothingPending(): boolean {
    return (
      this.#proposals.count === 0 &&
      this.#reads.count === 0 &&
      this.#transfer === undefined &&
      !this.#membership.waiting &&
      this.applier.idle
    );
  }

  #stir(): void {
    this.#idleTicks = 0;
    if (this.quiesced) this.#host.wake(this);
    this.#host.markDirty(this);
  }

  /** Why a proposal cannot be taken right now, before it touches the core. */
  #refusal(bytes: number, onlyInTerm: Term | undefined): Error | undefined {
    if (this.closed) return this.#gone();
    if (this.node.role !== "leader" || (onlyInTerm !== undefined && onlyInTerm !== this.node.term))
      return this.#notLeader();
    const { diskFull, options } = this.#host;
    if (diskFull !== undefined)
      return new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `node ${this.#host.nodeId} has no disk space: ${diskFull}`,
      );
    const { count, bytes: pendingBytes } = this.#proposals;
    if (
      count >= options.maxPendingProposals ||
      (count > 0 && pendingBytes + bytes > options.maxPendingProposalBytes)
    )
      return new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `too many proposals wait (${count}, ${pendingBytes} bytes)`,
      );
    return undefined;
  }

  #refused(refusal: ProposalRefusal): Error {
    switch (refusal) {
      case "not-leader":
      case "removed":
        return this.#notLeader();
      case "transferring":
        return new RetryError("OSTRAKA_UNAVAILABLE", "leadership is being transferred");
      case "too-much-uncommitted":
        return new RetryError("OSTRAKA_UNAVAILABLE", "too much is not committed yet");
      case "change-pending":
        return new RetryError("OSTRAKA_UNAVAILABLE", "another membership change is under way");
      case "invalid-change":
        return new UserError(
          "OSTRAKA_UNSUPPORTED",
          "this membership change would leave the group without voters",
        );
    }
  }

  /** A sleeping replica that is asked for a leader it cannot name for sure looks for itself. */
  #notLeader(): RouteError {
    if (this.quiesced) this.#host.wake(this);
    return new RouteError(`node ${this.#host.nodeId} does not lead group ${this.group}`, this.#leaderHint());
  }

  #leaderHint(): NodeId | undefined {
    const { leader } = this.node;
    return leader === NO_NODE || (leader === this.#host.nodeId && this.node.role !== "leader")
      ? undefined
      : leader;
  }

  #gone(): RetryError {
    return new RetryError("OSTRAKA_UNAVAILABLE", `group ${this.group} is not open on this node`);
  }
}

function blockedError(reason: string): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", `nothing is applied for now: ${reason}`);
}

/** The index that a bootstrapped group's log begins behind: the machine's initial state stands for it. */
export const BOOTSTRAP_INDEX = logIndex(1);
