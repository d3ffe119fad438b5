/**
 * Hosts all Raft groups of a node: one ready loop, one durable append and one frame a peer for whatever a turn of
 * the event loop has gathered from all of them.
 *
 * A turn (`#turn`): requests queued in dirty groups enter their cores; the readies are taken; all appends go to the
 * durable log in one call while messages that need not wait for it leave; committed entries go to the machines. The
 * completions (append durable, entries applied) make their groups dirty for a later turn.
 *
 * Invariants:
 * 1. A message that depends on an append leaves only after the append is durable, and appends complete in order.
 * 2. A sleeping group is in neither `#awake` nor `#dirty`: a tick costs as much as there are groups awake and peers.
 * 3. The first failure of the log, a machine, the disk or an assertion stops everything here, and is told once.
 *
 * Left out: creating groups by messages (whoever owns the directory of groups adds them), and the transport.
 */
import { assert } from "../base/assert.js";
import { FatalError, OstrakaError, RetryError } from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, NO_NODE, type NodeId, term as toTerm } from "../base/ids.js";
import type { GroupAppend } from "../log/types.js";
import { isDiskFull } from "../log/writer.js";
import { membersOf } from "../raft/index.js";
import {
  type Append,
  type LogEnd,
  type Message,
  MessageType,
  type Ready,
  type SnapshotMeta,
} from "../raft/types.js";
import { Compactor } from "./compaction.js";
import { firstRecord, type GroupConfig, openMachine } from "./group-start.js";
import { QUIESCE_COLUMNS, readHeartbeats } from "./heartbeats.js";
import type { HostDependencies, HostLogger, HostOptions } from "./options.js";
import { Peers } from "./peers.js";
import { Replica, type ReplicaHost } from "./replica.js";
import { SnapshotReceiver } from "./snapshot-receiver.js";
import { SnapshotSender } from "./snapshot-sender.js";
import { Ticker } from "./ticker.js";
import type { GroupHandle, PeerFrame, PeerHandler, Promised, SnapshotHeader } from "./types.js";

/** What the host counts; for metrics and tests. */
export interface HostStats {
  readonly groups: number;
  readonly awake: number;
  readonly leading: number;
  readonly ticks: number;
  /** Ticks given to groups. */
  readonly groupTicks: number;
  readonly turns: number;
  readonly appends: number;
  readonly framesSent: number;
  readonly stalls: number;
  readonly checkpoints: number;
  readonly snapshotsSent: number;
  readonly snapshotsInstalled: number;
}

interface PendingAppend {
  readonly replica: Replica;
  readonly append: Append;
  /** The bytes of `append.snapshot`. */
  readonly file: string | undefined;
}

/** Log pressure is looked at once in so many ticks. */
const PRESSURE_TICKS = 10;
/** A machine that had no disk space is tried again after this. */
const APPLY_RETRY_MS = 500;

export class MultiRaft implements ReplicaHost, PeerHandler {
  readonly nodeId: NodeId;
  readonly options: HostOptions;
  readonly random: () => number;
  readonly #deps: HostDependencies;
  readonly #logger: HostLogger;
  readonly #replicas = new Map<GroupId, Replica>();
  readonly #opening = new Set<GroupId>();
  readonly #awake = new Set<Replica>();
  /** Sleeping followers by the node whose liveness lets them sleep. */
  readonly #sleepers = new Map<NodeId, Set<Replica>>();
  #dirty = new Set<Replica>();
  readonly #peers: Peers;
  readonly #ticker: Ticker;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #compactor: Compactor;
  #turnPlanned = false;
  #membersStale = false;
  #running = false;
  #stopped = false;
  /** Why there is no disk space: in the log, or for a group's machine. */
  readonly #shortages = new Map<"log" | GroupId, string>();
  #clockCorrected = false;
  /** Of groups that have left this node: an entry that is known to be committed. */
  #committed: (group: GroupId) => LogEnd | undefined = () => undefined;
  #ticks = 0;
  #groupTicks = 0;
  #turns = 0;
  #appends = 0;

  constructor(deps: HostDependencies) {
    this.#deps = deps;
    this.nodeId = deps.nodeId;
    this.options = deps.options;
    this.#logger = deps.logger;
    this.random = () => deps.random.float();
    this.#peers = new Peers(deps.transport, deps.random.uint32(), () => deps.clock.ownWallMs());
    this.#ticker = new Ticker(deps.clock, deps.options.tickMs, deps.defer, () => this.#tick());
    const markDirty = (replica: Replica): void => this.markDirty(replica);
    const fail = (error: unknown): void => this.fail(error);
    const { transport, logger, disk, log, options } = deps;
    this.#sender = new SnapshotSender({
      transport,
      logger,
      maxSending: options.maxSnapshotsSending,
      markDirty,
      fail,
      later: (delayMs, run) =>
        void deps.clock.setTimer(delayMs, () => {
          if (!this.#stopped) run();
        }),
    });
    this.#receiver = new SnapshotReceiver({
      disk,
      directory: options.snapshotDirectory,
      maxReceiving: options.maxSnapshotsReceiving,
      replica: (group) => this.#replicas.get(group),
      markDirty,
      fail,
    });
    this.#compactor = new Compactor({ log, options, logger, fail });
    transport.receive(this);
  }

  // --- lifecycle ---------------------------------------------------------------------------------------------

  /** Begins to tick and to take readies. Groups may be added before and after. */
  start(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    this.#ticker.start();
    if (this.#dirty.size > 0) this.#planTurn();
  }

  /** Ends all groups: what waits is rejected, machines are closed. Log and transport stay open; whoever made them closes them. */
  async stop(): Promise<void> {
    if (this.#stopped && this.#replicas.size === 0) return;
    this.#stopped = true;
    this.#running = false;
    this.#ticker.stop();
    await this.#compactor.stop();
    const replicas = [...this.#replicas.values()];
    this.#replicas.clear();
    await Promise.all(replicas.map((replica) => this.#close(replica, "the node is stopping")));
  }

  /** Opens a group's replica, finishing or undoing whatever a crash has cut short. */
  async addGroup(config: GroupConfig): Promise<GroupHandle> {
    const { group, machine } = config;
    assert(!this.#stopped, "a group was added to a stopped host");
    assert(!this.#replicas.has(group) && !this.#opening.has(group), `group ${group} is here already`);
    this.#opening.add(group);
    try {
      await this.#deps.disk.makeDirectory(this.options.snapshotDirectory);
      await this.begin(config);
      const log = this.#deps.log.group(group);
      const applied = await openMachine(group, machine, log, this.#receiver, this.#logger);
      if (this.#stopped) {
        await machine.close();
        throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
      }
      const replica = new Replica(this, group, machine, log, applied, config.promised?.log);
      this.#replicas.set(group, replica);
      this.#awake.add(replica);
      this.#membersStale = true;
      this.markDirty(replica);
      return replica;
    } finally {
      this.#opening.delete(group);
    }
  }

  /**
   * Closes a group and forgets its log; the machine's own files are the caller's to remove. `remember` is given what the
   * replica has promised, once it can promise nothing more and before the log forgets it.
   */
  async removeGroup(group: GroupId, remember?: (promised: Promised) => Promise<void>): Promise<void> {
    const replica = this.#replicas.get(group);
    if (replica === undefined) return;
    this.#replicas.delete(group);
    try {
      await this.#close(replica, `group ${group} was removed from this node`);
      await remember?.({ ...replica.hardState, log: replica.logEnd });
      await this.#deps.log.removeGroup(group);
      await this.#receiver.discard(group);
    } catch (error) {
      // It is neither here nor gone. The next start finds it in the log, or removed.
      if (error instanceof FatalError && !isDiskFull(error)) this.fail(error);
      throw error;
    }
    this.#membersStale = true;
  }

  /**
   * Who knows of groups that have left this node what they have committed. Their removal of this node may be all that it
   * was, and those who have it may have crashed before they knew, wait for this node's vote by the old membership, and
   * never get it.
   */
  tellCommitted(committed: (group: GroupId) => LogEnd | undefined): void {
    this.#committed = committed;
  }

  group(id: GroupId): GroupHandle {
    const replica = this.#replicas.get(id);
    assert(replica !== undefined, `group ${id} is not on this node`);
    return replica;
  }

  findGroup(id: GroupId): GroupHandle | undefined {
    return this.#replicas.get(id);
  }

  groups(): GroupHandle[] {
    return [...this.#replicas.values()];
  }

  stats(): HostStats {
    let leading = 0;
    for (const replica of this.#replicas.values()) if (replica.node.role === "leader") leading++;
    return {
      groups: this.#replicas.size,
      awake: this.#awake.size,
      leading,
      ticks: this.#ticks,
      groupTicks: this.#groupTicks,
      turns: this.#turns,
      appends: this.#appends,
      framesSent: this.#peers.framesSent,
      stalls: this.#ticker.stalls,
      checkpoints: this.#compactor.checkpoints,
      snapshotsSent: this.#sender.sent,
      snapshotsInstalled: this.#receiver.installed,
    };
  }

  // --- disk full ---------------------------------------------------------------------------------------------

  get diskFull(): string | undefined {
    for (const reason of this.#shortages.values()) return reason;
    return undefined;
  }

  /** With a reason: proposals are refused and leadership is handed away. Undefined: space is back. */
  setDiskFull(reason: string | undefined, where: "log" | GroupId = "log"): void {
    const before = this.diskFull !== undefined;
    if (reason === undefined) this.#shortages.delete(where);
    else this.#shortages.set(where, reason);
    if (reason !== undefined && where === "log") this.#receiver.stalled();
    const full = this.diskFull !== undefined;
    if (full === before) return;
    this.#peers.diskFull = full;
    if (!full) this.#logger.info({}, "there is disk space again");
    else {
      this.#logger.error({ reason }, "no disk space: this node takes no writes and hands leadership away");
      this.#handLeadershipAway();
    }
  }

  /** Asks the peer with the longest log that can write to lead, for every group led here. */
  #handLeadershipAway(): void {
    for (const replica of this.#replicas.values()) {
      if (replica.node.role !== "leader") continue;
      let best: NodeId | undefined;
      let bestMatch: LogIndex = logIndex(-1);
      for (const [peer, match] of replica.status().match) {
        if (!replica.node.conf.voters.includes(peer) || !this.#peers.mayLead(peer)) continue;
        if (match > bestMatch) [best, bestMatch] = [peer, match];
      }
      if (best === undefined) continue;
      replica.transferLeadership(best).catch((error: unknown) => {
        this.#logger.warn({ group: replica.group, err: error }, "leadership could not be handed away");
      });
    }
  }

  // --- peers -------------------------------------------------------------------------------------------------

  onFrame(from: NodeId, frame: PeerFrame): void {
    if (this.#stopped) return;
    try {
      this.#deps.clock.heard(from, frame.wallMs);
      if (this.#peers.heard(from, frame)) {
        this.#wakeSleepersUnder(from);
        this.#wakeLedFor(from);
      }
      for (const { group, message } of readHeartbeats(frame.heartbeats, from, this.nodeId))
        this.#replicas.get(group)?.step(message);
      for (const { group, message } of frame.messages) {
        if (message.from === from && message.to === this.nodeId) this.#step(group, message);
        else
          this.#logger.warn(
            { group, from, message: message.type },
            "a message with a wrong sender or receiver",
          );
      }
      this.#readQuiesced(from, frame.quiesced);
    } catch (error) {
      this.fail(error);
    }
  }

  #step(group: GroupId, message: Message): void {
    const replica = this.#replicas.get(group);
    if (replica !== undefined) replica.step(message);
    else if (message.type === MessageType.PreVote) this.#tellCommitted(group, message);
  }

  /** To whoever campaigns in a group that has left this node, and may wait for its vote: it has none (term 0). */
  #tellCommitted(group: GroupId, { from, context }: Message): void {
    const committed = this.#committed(group);
    if (committed === undefined) return;
    this.#peers.queue(group, {
      type: MessageType.PreVoteResponse,
      from: this.nodeId,
      to: from,
      term: toTerm(0),
      index: logIndex(0),
      logTerm: committed.term,
      entries: [],
      commit: committed.index,
      reject: true,
      rejectHint: logIndex(0),
      context,
      snapshot: undefined,
    });
    this.#planTurn();
  }

  async onSnapshot(from: NodeId, header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    if (this.#stopped) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
    await this.#receiver.receive(from, header, chunks);
  }

  onUnreachable(peer: NodeId): void {
    if (this.#stopped) return;
    // A sleeping leader will notice when it next sends something.
    for (const replica of this.#awake) {
      if (replica.node.role !== "leader") continue;
      replica.node.reportUnreachable(peer);
      this.markDirty(replica);
    }
  }

  #readQuiesced(from: NodeId, rows: readonly number[]): void {
    for (let at = 0; at + QUIESCE_COLUMNS <= rows.length; at += QUIESCE_COLUMNS) {
      const replica = this.#replicas.get(rows[at] as GroupId);
      if (replica?.maySleep(from, toTerm(rows[at + 1] as number), logIndex(rows[at + 2] as number)))
        this.#sleep(replica, from);
    }
  }

  // --- ReplicaHost -------------------------------------------------------------------------------------------

  markDirty(replica: Replica): void {
    if (replica.closed) return;
    this.#dirty.add(replica);
    this.#planTurn();
  }

  wake(replica: Replica): void {
    if (!replica.quiesced) return;
    replica.quiesced = false;
    this.#sleepers.get(replica.sleepsUnder)?.delete(replica);
    replica.sleepsUnder = NO_NODE;
    replica.awakened();
    this.#awake.add(replica);
    this.markDirty(replica);
  }

  membersChanged(): void {
    this.#membersStale = true;
  }

  restored(replica: Replica, meta: SnapshotMeta): void {
    this.#logger.info({ group: replica.group, index: meta.index, term: meta.term }, "snapshot installed");
    this.#receiver.restored(replica.group);
  }

  applyBlocked(replica: Replica, reason: string, retry: () => void, diskFull: boolean): void {
    this.#receiver.stalled(replica.group);
    if (diskFull) this.setDiskFull(reason, replica.group);
    else this.#logger.info({ group: replica.group, reason }, "applying waits");
    this.#deps.clock.setTimer(APPLY_RETRY_MS, () => {
      if (!replica.closed && !this.#stopped) retry();
    });
  }

  applyUnblocked(replica: Replica): void {
    this.setDiskFull(undefined, replica.group);
  }

  /** The node must go down: what is in memory may no longer be true. */
  fail(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#running = false;
    this.#ticker.stop();
    const reason =
      error instanceof OstrakaError
        ? error
        : new FatalError("OSTRAKA_INTERNAL", error instanceof Error ? error.message : String(error), {
            cause: error,
          });
    this.#logger.error({ err: reason }, "hosting stops");
    this.#deps.onFatal(reason);
  }

  // --- turns -------------------------------------------------------------------------------------------------

  #planTurn(): void {
    if (this.#turnPlanned || !this.#running) return;
    this.#turnPlanned = true;
    this.#deps.defer(() => {
      this.#turnPlanned = false;
      if (!this.#running) return;
      try {
        this.#turn();
      } catch (error) {
        this.fail(error);
      }
    });
  }

  #turn(): void {
    this.#turns++;
    const dirty = this.#dirty;
    this.#dirty = new Set();
    const appends: PendingAppend[] = [];
    for (const replica of dirty) {
      if (replica.closed) continue;
      replica.feed();
      if (replica.node.hasReady()) {
        const append = this.#take(replica, replica.node.ready());
        if (append !== undefined) {
          const { snapshot } = append;
          const file = snapshot && this.#receiver.accept(replica, snapshot);
          appends.push({ replica, append, file });
        }
        if (replica.node.hasReady()) this.markDirty(replica);
      }
      this.#receiver.dropOffered(replica.group);
    }
    if (appends.length > 0) this.#persist(appends);
    this.#peers.flush();
    for (const replica of dirty) if (!replica.closed) replica.notify();
  }

  /** Deals with all of a ready but its append, which the turn persists with those of the other groups. */
  #take(replica: Replica, ready: Ready): Append | undefined {
    for (const message of ready.messages) this.#peers.queue(replica.group, message);
    const { append } = ready;
    if (append !== undefined) {
      for (const entry of append.entries) replica.logBytes += entry.data.length;
      if (append.snapshot !== undefined) replica.logBytes = 0;
    }
    if (ready.committed.length > 0) {
      replica.patience.committed(ready.committed);
      this.#compactor.consider(replica);
    }
    replica.readStates(ready.readStates);
    replica.droppedReads(ready.droppedReads);
    for (const peer of ready.snapshotsNeeded) this.#sender.request(replica, peer);
    return append;
  }

  #persist(appends: readonly PendingAppend[]): void {
    this.#appends++;
    const records: GroupAppend[] = [];
    for (const { replica, append } of appends) {
      const { hardState, entries, snapshot } = append;
      // An append may carry nothing but messages that wait for the ones before it.
      if (hardState !== undefined || entries.length > 0 || snapshot !== undefined)
        records.push({ group: replica.group, hardState, entries, snapshot });
    }
    this.#deps.log.append(records).then(
      () => this.#persisted(appends),
      (error: unknown) => this.fail(error),
    );
  }

  #persisted(appends: readonly PendingAppend[]): void {
    if (this.#stopped) return;
    try {
      for (const { replica, append, file } of appends) {
        if (replica.closed) continue;
        for (const message of append.messages) this.#peers.queue(replica.group, message);
        if (file !== undefined) replica.applier.restore(append.snapshot as SnapshotMeta, file);
        replica.node.appended(append);
        this.markDirty(replica);
      }
    } catch (error) {
      this.fail(error);
    }
  }

  // --- ticks and sleep ---------------------------------------------------------------------------------------

  #tick(): void {
    try {
      this.#ticks++;
      if (this.#membersStale) this.#refreshMembers();
      const { electionTicks } = this.options;
      for (const replica of this.#awake) {
        this.#groupTicks++;
        if (replica.tick()) this.#leaderSleeps(replica);
      }
      // Well before an election timeout, so that those who wake have most of theirs still before them.
      for (const silent of this.#peers.tick(Math.max(2, Math.ceil(electionTicks / 2))))
        this.#wakeSleepersUnder(silent);
      if (this.#ticks % PRESSURE_TICKS === 0) {
        this.#relieveLog();
        this.#watchClock();
        if (this.diskFull !== undefined) this.#handLeadershipAway();
      }
    } catch (error) {
      this.fail(error);
    }
  }

  #watchClock(): void {
    const correctionMs = this.#deps.clock.correctionMs();
    const corrected = correctionMs !== 0;
    if (corrected === this.#clockCorrected) return;
    this.#clockCorrected = corrected;
    if (corrected)
      this.#logger.warn({ correctionMs }, "this node's wall clock is not its peers': it goes by theirs");
    else this.#logger.info({}, "this node's wall clock is near its peers' again");
  }

  #leaderSleeps(replica: Replica): void {
    const { term, commitIndex, conf } = replica.node;
    for (const peer of membersOf(conf))
      if (peer !== this.nodeId) this.#peers.queueQuiesced(peer, replica.group, term, commitIndex);
    this.#sleep(replica, NO_NODE);
    this.#planTurn();
  }

  #sleep(replica: Replica, under: NodeId): void {
    replica.quiesced = true;
    replica.sleepsUnder = under;
    this.#awake.delete(replica);
    if (under === NO_NODE) return;
    let sleepers = this.#sleepers.get(under);
    if (sleepers === undefined) {
      sleepers = new Set();
      this.#sleepers.set(under, sleepers);
    }
    sleepers.add(replica);
  }

  /** Election timeouts are random per group, which spreads what follows. */
  #wakeSleepersUnder(leader: NodeId): void {
    const sleepers = this.#sleepers.get(leader);
    if (sleepers === undefined || sleepers.size === 0) return;
    this.#logger.info({ leader, groups: sleepers.size }, "a node fell silent: the groups it led wake");
    for (const replica of [...sleepers]) this.wake(replica);
  }

  /** A member that has started anew knows no leader, and may not be one to ask for it: a learner never campaigns. */
  #wakeLedFor(member: NodeId): void {
    for (const replica of this.#replicas.values())
      if (replica.quiesced && replica.node.role === "leader" && membersOf(replica.node.conf).has(member))
        this.wake(replica);
  }

  #refreshMembers(): void {
    this.#membersStale = false;
    const members = new Set<NodeId>();
    for (const { node } of this.#replicas.values())
      for (const member of membersOf(node.conf)) members.add(member);
    members.delete(this.nodeId);
    this.#peers.setMembers(members);
  }

  #relieveLog(): void {
    const { segments, oldestHeldBy } = this.#deps.log.usage();
    if (segments <= this.options.maxLogSegments || oldestHeldBy === undefined) return;
    const replica = this.#replicas.get(oldestHeldBy.group);
    // With nothing to cut, the log itself has to write what is live again.
    if (replica !== undefined && replica.applier.appliedIndex > replica.log.base().index)
      this.#compactor.force(replica);
  }

  // --- opening and closing -----------------------------------------------------------------------------------

  /**
   * Writes a group's first record, as opening it would, and queues it before this returns: whatever is written
   * afterwards, of this or another group, is not durable before it.
   */
  async begin(config: Omit<GroupConfig, "machine">): Promise<void> {
    const { log } = this.#deps;
    const first = log.groups().includes(config.group) ? undefined : firstRecord(config);
    if (first !== undefined) await log.append([first]);
  }

  async #close(replica: Replica, reason: string): Promise<void> {
    this.#awake.delete(replica);
    this.#dirty.delete(replica);
    this.#sleepers.get(replica.sleepsUnder)?.delete(replica);
    await replica.close(reason);
    this.setDiskFull(undefined, replica.group);
    this.#receiver.close(replica.group);
    await replica.machine.close();
  }
}
