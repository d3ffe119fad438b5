/**
 * RaftNode: one replica of one group, as its host drives it. A synchronous state machine after Ongaro's thesis, with
 * etcd's division of labour: inputs are ticks, messages, proposals and the host's completions; outputs come out of
 * `ready()`. It never does I/O and never waits.
 *
 * The host's part, per ready, in any overlap it likes (several readies may be under way):
 * 1. send `messages` at once;
 * 2. make `append` durable, in the order the readies were taken; then send `append.messages` and call `appended`;
 * 3. apply `committed` in order, then call `applied`;
 * 4. stream a snapshot to each of `snapshotsNeeded`, then call `reportSnapshot`.
 * At start it opens the state machine first and constructs the node with what that has applied.
 *
 * What it leaves out: transport, storage, time (ticks are the host's), forwarding of proposals and reads to the
 * leader, leases.
 *
 * A wrong call by the host, or a message that contradicts Raft's invariants, throws FatalError: the node must stop.
 */
import { assert } from "../base/assert.js";
import { type LogIndex, logIndex, NO_NODE, type NodeId, type Term, term } from "../base/ids.js";
import { isJoint, isVoter, members } from "./conf-change.js";
import { Core } from "./core.js";
import {
  campaign,
  handleVoteRequest,
  handleVoteResponse,
  ignoresCampaign,
  learnCommit,
  ownVoteDurable,
} from "./election.js";
import { askCommit, followLeader, handleAppend, handleHeartbeat, handleSnapshot } from "./follower.js";
import {
  confsApplied,
  maybeAutoLeave,
  noteHandedOut,
  proposeConfChange,
  refusesProposals,
  replayConfs,
} from "./membership.js";
import { RaftLog } from "./raft-log.js";
import {
  ackOwnLog,
  appendEntries,
  beginReadRound,
  checkQuorum,
  handleAppendResponse,
  handleHeartbeatResponse,
  reportSnapshot,
  reportUnreachable,
  sendAppends,
  sendDueHeartbeats,
  sendHeartbeats,
} from "./replication.js";
import { abortTransfer, beginTransfer } from "./transfer.js";
import {
  type Append,
  type ConfChange,
  type ConfState,
  EntryKind,
  type HardState,
  type LogReader,
  type Message,
  MessageType,
  type PeerStatus,
  type ProposalRefusal,
  type Proposed,
  type RaftConfig,
  type RaftStatus,
  type Ready,
  type Role,
} from "./types.js";

export class RaftNode {
  readonly #core: Core;
  /** As last handed to the host. */
  #writtenHard: HardState;
  #toldLeader: NodeId = NO_NODE;
  #toldRole: Role = "follower";

  /**
   * A follower with what was durable: `log`'s hard state, and the membership of the log's base with the changes up to
   * `applied`, the index the state machine has reached.
   */
  constructor(config: RaftConfig, log: LogReader, applied: LogIndex) {
    const hard = log.initialHardState();
    const raftLog = new RaftLog(log, logIndex(Math.max(hard.commit, log.base().index)), applied);
    assert(
      hard.term >= raftLog.lastTerm,
      `term ${hard.term} is before the log's last term ${raftLog.lastTerm}`,
    );
    this.#core = new Core(config, raftLog, hard);
    this.#writtenHard = hard;
    replayConfs(this.#core);
  }

  // ---- inputs ------------------------------------------------------------------------------------------------

  /** One tick of the host's clock. Not to be called while the group is quiesced. */
  tick(): void {
    const core = this.#core;
    core.electionElapsed++;
    if (core.role === "leader") this.#tickLeader();
    else if (core.electionElapsed >= core.electionTimeout) {
      if (core.promotable) campaign(core, false);
      // Whoever was taken out, and whom the leader has not told, is to know at least that it hears of nobody (15, 77).
      else if (core.leader !== NO_NODE && !isVoter(core.conf, core.id))
        core.becomeFollower(core.term, NO_NODE);
    }
  }

  #tickLeader(): void {
    const core = this.#core;
    if (core.transferee !== NO_NODE && ++core.transferElapsed >= core.config.electionTicks)
      abortTransfer(core);
    if (core.electionElapsed >= core.config.electionTicks) {
      core.electionElapsed = 0;
      if (!checkQuorum(core)) {
        core.becomeFollower(core.term, NO_NODE);
        return;
      }
    }
    maybeAutoLeave(core);
    if (++core.heartbeatElapsed >= core.config.heartbeatTicks) {
      core.heartbeatElapsed = 0;
      sendDueHeartbeats(core);
    }
  }

  /**
   * A message from another node. A Snapshot is stepped once its bytes are here; if the next ready's append does not
   * hold it, it was of no use and the bytes may go.
   */
  step(message: Message): void {
    const core = this.#core;
    assert(message.to === core.id, `a message to ${message.to} reached ${core.id}`);
    const { type } = message;
    if (type === MessageType.PreVoteResponse || type === MessageType.VoteResponse) learnCommit(core, message);
    if (message.term < core.term) {
      this.#answerOldTerm(message);
      return;
    }
    if (message.term > core.term) {
      const request = type === MessageType.Vote || type === MessageType.PreVote;
      if (request && ignoresCampaign(core, message)) return;
      // A pre-vote speaks of a term that may never come to be (19).
      const hypothetical =
        type === MessageType.PreVote || (type === MessageType.PreVoteResponse && !message.reject);
      if (!hypothetical) core.becomeFollower(message.term, NO_NODE);
    }
    this.#dispatch(message);
  }

  /**
   * Messages of earlier terms change nothing (5). Two are answered, since silence would leave nodes stranded: an old
   * leader learns the newer term of a node that came back with it (28), and a pre-candidate that it is behind (29).
   */
  #answerOldTerm(message: Message): void {
    const core = this.#core;
    const to = message.from;
    if (message.type === MessageType.Append || message.type === MessageType.Heartbeat)
      core.outbox.sendAfterDisk(core.term, { type: MessageType.AppendResponse, to, reject: true });
    else if (message.type === MessageType.PreVote)
      core.outbox.send(core.term, {
        type: MessageType.PreVoteResponse,
        to,
        reject: true,
        context: message.context,
        commit: core.log.commit,
        logTerm: core.log.term(core.log.commit) ?? term(0),
      });
  }

  #dispatch(message: Message): void {
    const core = this.#core;
    switch (message.type) {
      case MessageType.PreVote:
      case MessageType.Vote:
        handleVoteRequest(core, message);
        return;
      case MessageType.PreVoteResponse:
      case MessageType.VoteResponse:
        handleVoteResponse(core, message);
        return;
      case MessageType.Append:
        followLeader(core, message.from);
        handleAppend(core, message);
        return;
      case MessageType.Heartbeat:
        followLeader(core, message.from);
        handleHeartbeat(core, message);
        return;
      case MessageType.Snapshot:
        followLeader(core, message.from);
        handleSnapshot(core, message);
        return;
      case MessageType.AppendResponse:
        handleAppendResponse(core, message);
        return;
      case MessageType.HeartbeatResponse:
        handleHeartbeatResponse(core, message);
        return;
      case MessageType.TimeoutNow:
        campaign(core, true);
        return;
      default:
        assert(false, `a message of unknown type ${JSON.stringify(message.type)}`);
    }
  }

  /** Appends one entry at the leader, or says why not. */
  propose(data: Uint8Array): Proposed | ProposalRefusal {
    return this.proposeBatch([data]);
  }

  /** Appends many entries, all or none; answers where the first one is, the others follow it without gaps. */
  proposeBatch(batch: readonly Uint8Array[]): Proposed | ProposalRefusal {
    const core = this.#core;
    assert(batch.length > 0, "an empty batch of proposals");
    const refusal = refusesProposals(core);
    if (refusal !== undefined) return refusal;
    let bytes = 0;
    for (const data of batch) bytes += data.length;
    if (!core.uncommitted.admits(bytes)) return "too-much-uncommitted";
    return appendEntries(
      core,
      batch.map((data) => ({ kind: EntryKind.Normal, data })),
    );
  }

  /**
   * Asks for a membership change. It goes through a joint configuration that the group leaves by itself; the change
   * is complete once `conf` is not joint any more. An empty change leaves at once what is joint.
   */
  proposeConfChange(change: ConfChange): Proposed | ProposalRefusal {
    return proposeConfChange(this.#core, change);
  }

  /**
   * Entries up to `index` can be applied only by those who were members when it was: peers that lack any of them are
   * sent a snapshot, which is to be of `index` or later. For applied entries only.
   */
  raiseReplayFloor(index: LogIndex): void {
    if (index > this.#core.replayFloor) this.#core.replayFloor = index;
  }

  /** At the leader: a membership change may be in the log and not applied, or a joint configuration is in force. */
  get membershipChanging(): boolean {
    return this.#core.pendingConfIndex > this.#core.log.applied || isJoint(this.#core.conf);
  }

  /**
   * Asks for a linearizable read point; the answer comes in a ready's `readStates` or `droppedReads` under `context`.
   * False if this node does not lead.
   */
  readIndex(context: number): boolean {
    if (this.#core.role !== "leader") return false;
    this.#core.reads.add(context);
    return true;
  }

  /**
   * Hands leadership to a voter; proposals are refused until it is taken or one election timeout has passed. False if
   * nothing was begun: not leading, the same again, to itself, to a learner or to a node that is no member.
   */
  transferLeadership(to: NodeId): boolean {
    return beginTransfer(this.#core, to);
  }

  /** At the leader: the commit of what was proposed so far is told to all members as soon as it is known. */
  hurry(): void {
    this.#core.hurry(this.#core.log.last);
  }

  /** At a follower that waits for what its leader may know to be committed: asks to be told. */
  askCommit(): void {
    askCommit(this.#core);
  }

  /** Begins an election now, with a pre-vote, if this node may. */
  campaign(): void {
    campaign(this.#core, false);
  }

  // ---- the host's completions --------------------------------------------------------------------------------

  /** `append` is durable; appends complete in the order they were taken. */
  appended(append: Append): void {
    const core = this.#core;
    core.log.completed(append);
    if (append.snapshot !== undefined) core.confs.installed(append.snapshot);
    // Candidacy raises the term, so whatever was handed out in this term holds the candidate's vote.
    if (append.term === core.term) ownVoteDurable(core);
    ackOwnLog(core);
  }

  /** The state machine has applied everything up to `index`; what a snapshot overtook is ignored. */
  applied(index: LogIndex): void {
    const core = this.#core;
    if (!core.log.appliedTo(index)) return;
    confsApplied(core, index);
    maybeAutoLeave(core);
  }

  /** Messages to `node` cannot be delivered at present. */
  reportUnreachable(node: NodeId): void {
    reportUnreachable(this.#core, node);
  }

  /** The snapshot for `node` was installed or refused there (ok), or cut short. */
  reportSnapshot(node: NodeId, ok: boolean): void {
    reportSnapshot(this.#core, node, ok);
  }

  // ---- output ------------------------------------------------------------------------------------------------

  /** Whether `ready()` has something to say. */
  hasReady(): boolean {
    const core = this.#core;
    return (
      !core.outbox.empty ||
      core.replicationDue ||
      core.log.hasUnwritten ||
      core.log.hasCommitted ||
      this.#hardChanged() ||
      this.#softChanged() ||
      (core.role === "leader" && core.reads.waiting && core.committedInTerm)
    );
  }

  /** Takes all there is to do; what is in it is not said again. */
  ready(): Ready {
    const core = this.#core;
    beginReadRound(core);
    sendAppends(core);
    const append = this.#takeAppend();
    const committed = core.log.takeCommitted(core.config.maxReadyBytes);
    noteHandedOut(core, committed);
    const { messages, readStates, droppedReads, snapshotsNeeded } = core.outbox.take();
    if (append === undefined) {
      for (const message of core.outbox.afterDisk) messages.push(message);
    }
    core.outbox.afterDisk = [];
    const softState = this.#softChanged() ? { leader: core.leader, role: core.role } : undefined;
    this.#toldLeader = core.leader;
    this.#toldRole = core.role;
    return { append, messages, committed, readStates, droppedReads, snapshotsNeeded, softState };
  }

  /** What must become durable; undefined if nothing must and nothing waits for what is on its way. */
  #takeAppend(): Append | undefined {
    const core = this.#core;
    const { entries, snapshot } = core.log.takeUnwritten();
    const writes = entries.length > 0 || snapshot !== undefined;
    const { term, vote } = core;
    const { commit } = core.log;
    const hardState =
      this.#hardChanged() || (writes && commit !== this.#writtenHard.commit)
        ? { term, vote, commit }
        : undefined;
    const messages = core.outbox.afterDisk;
    if (!writes && hardState === undefined && (messages.length === 0 || core.log.settled)) return undefined;
    if (hardState !== undefined) this.#writtenHard = hardState;
    const append: Append = { term, hardState, entries, snapshot, messages };
    core.log.handedToDisk(append);
    return append;
  }

  /** A commit index that moved alone is not worth a write: it is learned again from the next leader. */
  #hardChanged(): boolean {
    return this.#core.term !== this.#writtenHard.term || this.#core.vote !== this.#writtenHard.vote;
  }

  #softChanged(): boolean {
    return this.#core.leader !== this.#toldLeader || this.#core.role !== this.#toldRole;
  }

  // ---- quiescence --------------------------------------------------------------------------------------------

  /**
   * Whether this leader's group has nothing to do: every member has every entry and knows it to be committed, all is
   * applied here, and no read, transfer or membership change is under way. The host may then stop ticking all its
   * replicas, as long as it watches the nodes themselves.
   */
  canQuiesce(): boolean {
    const core = this.#core;
    const { last, commit, applied } = core.log;
    if (core.role !== "leader" || commit !== last || applied !== last) return false;
    if (!core.reads.empty || core.transferee !== NO_NODE || isJoint(core.conf)) return false;
    for (const [id, peer] of core.peers) {
      if (id === core.id) continue;
      if (peer.match !== last || peer.ackedCommit < commit || peer.state !== "replicate") return false;
    }
    return !this.hasReady();
  }

  /**
   * To be called before ticking again: time begins anew, with a fresh random timeout, so that replicas that wake
   * together do not campaign together. A leader assumes its peers alive until the next check and greets them.
   */
  wake(): void {
    const core = this.#core;
    core.resetElectionTimer();
    if (core.role !== "leader") return;
    for (const peer of core.peers.values()) {
      peer.recentActive = true;
      peer.activeBefore = false;
      peer.assumed = true;
    }
    core.heartbeatElapsed = 0;
    sendHeartbeats(core);
  }

  // ---- what it knows -----------------------------------------------------------------------------------------

  get id(): NodeId {
    return this.#core.id;
  }

  get term(): Term {
    return this.#core.term;
  }

  get role(): Role {
    return this.#core.role;
  }

  /** NO_NODE if unknown. */
  get leader(): NodeId {
    return this.#core.leader;
  }

  get commitIndex(): LogIndex {
    return this.#core.log.commit;
  }

  get appliedIndex(): LogIndex {
    return this.#core.log.applied;
  }

  get lastIndex(): LogIndex {
    return this.#core.log.last;
  }

  /** The membership in force, that of the applied index. */
  get conf(): ConfState {
    return this.#core.conf;
  }

  /** Everybody who belongs to the group: voters of both halves and learners. */
  get members(): NodeId[] {
    return members(this.#core.conf);
  }

  /** At a leader: whether an entry of its own term is committed, before which reads wait. */
  get committedInTerm(): boolean {
    return this.#core.role === "leader" && this.#core.committedInTerm;
  }

  /** The membership in force at an index between the log's base and the applied one. */
  confAt(index: LogIndex): ConfState {
    assert(index <= this.#core.log.applied, `the membership at ${index} is not known before it is applied`);
    return this.#core.confs.at(index);
  }

  /** At a leader, what it knows of every member, itself included; empty elsewhere. */
  progress(): ReadonlyMap<NodeId, PeerStatus> {
    const core = this.#core;
    const { conf } = core;
    const result = new Map<NodeId, PeerStatus>();
    for (const [id, peer] of core.peers) {
      const own = id === core.id;
      result.set(id, {
        match: logIndex(peer.match),
        next: own ? logIndex(core.log.last + 1) : logIndex(peer.next),
        state: own ? "replicate" : peer.state,
        learner: conf.learners.includes(id),
        recentActive: peer.recentActive,
        active: own || (peer.recentActive && !peer.assumed) || peer.activeBefore,
        inflight: peer.inflights.count,
      });
    }
    return result;
  }

  get status(): RaftStatus {
    const { id, term, vote, role, leader, conf, log } = this.#core;
    return {
      id,
      term,
      vote,
      role,
      leader,
      commit: log.commit,
      applied: log.applied,
      lastIndex: log.last,
      durableIndex: log.durable,
      conf,
      progress: this.progress(),
    };
  }
}
