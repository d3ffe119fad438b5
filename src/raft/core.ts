/**
 * The state of one replica of one group, and the transition every role shares: becoming a follower. The rules work on
 * it from their own files: election.ts, replication.ts (a leader's side), follower.ts, membership.ts, transfer.ts.
 * Only RaftNode (node.ts) creates one and calls the rules.
 *
 * Invariants:
 * 1. The term never goes back; the vote is set at most once a term, and a same-term step-down keeps it (6, 11).
 * 2. `peers` is filled exactly while leading, with one Progress a member, this node included if it is one.
 */
import { assert } from "../base/assert.js";
import { type LogIndex, logIndex, NO_NODE, type NodeId, type Term } from "../base/ids.js";
import { isVoter } from "./conf-change.js";
import { ConfHistory } from "./conf-history.js";
import { Outbox } from "./outbox.js";
import type { Progress } from "./progress.js";
import type { RaftLog } from "./raft-log.js";
import { ReadQueue } from "./read-index.js";
import type { ConfState, HardState, RaftConfig, Role } from "./types.js";
import { UncommittedBytes } from "./uncommitted.js";

export class Core {
  readonly id: NodeId;
  readonly config: RaftConfig;
  readonly log: RaftLog;
  readonly confs: ConfHistory;
  readonly outbox: Outbox;

  term: Term;
  vote: NodeId;
  leader: NodeId = NO_NODE;
  role: Role = "follower";

  /** Ticks since a leader was heard, since a campaign began, or, leading, since the last check of the quorum. */
  electionElapsed = 0;
  electionTimeout = 0;

  /** Votes heard in the current candidacy; the first answer of a voter counts (10). */
  readonly votes = new Map<NodeId, boolean>();
  /** Numbers pre-candidacies, so that a late answer to an earlier one is told apart. */
  preCandidacy = 0;

  readonly peers = new Map<NodeId, Progress>();
  heartbeatElapsed = 0;
  /** The empty entry this leader's term began with; committing at or beyond it is committing in its own term (33). */
  termStart: LogIndex = logIndex(0);
  /** No membership change before this one is applied (67). */
  pendingConfIndex: LogIndex = logIndex(0);
  /** Entries up to this one are not sent, as if they were compacted: see RaftNode.raiseReplayFloor. */
  replayFloor: LogIndex = logIndex(0);
  transferee: NodeId = NO_NODE;
  transferElapsed = 0;
  readonly uncommitted: UncommittedBytes;
  readonly reads = new ReadQueue();
  /** Something changed that may let Appends leave; they are made when the host takes the next ready. */
  replicationDue = false;
  /** Commits up to here are told to everybody at once. */
  hurriedCommit: number;

  constructor(config: RaftConfig, log: RaftLog, hard: HardState) {
    assert(config.id > 0, "a node needs an id");
    assert(config.heartbeatTicks >= 1, "heartbeatTicks must be at least 1");
    assert(config.electionTicks > config.heartbeatTicks, "electionTicks must be more than heartbeatTicks");
    this.id = config.id;
    this.config = config;
    this.log = log;
    this.term = hard.term;
    this.vote = hard.vote;
    this.confs = new ConfHistory(log.base);
    this.outbox = new Outbox(config.id);
    this.uncommitted = new UncommittedBytes(config.maxUncommittedBytes);
    this.hurriedCommit = config.lazyCommits === true ? 0 : Number.POSITIVE_INFINITY;
    this.resetElectionTimer();
  }

  /** Whoever waits for the commit of entries up to `index` is told at once. */
  hurry(index: number): void {
    if (index > this.hurriedCommit) this.hurriedCommit = index;
  }

  /** The membership in force: that of the applied index. */
  get conf(): ConfState {
    return this.confs.current;
  }

  /** Whether this node may become leader at all (14, 16, 77). */
  get promotable(): boolean {
    return isVoter(this.conf, this.id) && this.log.installing === undefined;
  }

  /** Whether what an earlier replica of this node acknowledged is missing here: see RaftConfig.lostLog. */
  get forgetful(): boolean {
    return this.config.lostLog !== undefined && this.conf.voters.length === 0;
  }

  /** Whether a log that ends in (index, term) has all that a replica of this node may have acknowledged (7). */
  isUpToDate(index: LogIndex, term: Term): boolean {
    const { lostLog } = this.config;
    if (this.forgetful && lostLog !== undefined)
      return term > lostLog.term || (term === lostLog.term && index >= lostLog.index);
    return this.log.isUpToDate(index, term);
  }

  get committedInTerm(): boolean {
    return this.log.commit >= this.termStart;
  }

  resetElectionTimer(): void {
    this.electionElapsed = 0;
    const ticks = this.config.electionTicks;
    this.electionTimeout = ticks + Math.floor(this.config.random() * ticks);
  }

  /** Follows `leader` (or nobody) in `term`; whatever a leader or candidate had is gone. */
  becomeFollower(term: Term, leader: NodeId): void {
    this.resetRole(term);
    this.role = "follower";
    this.leader = leader;
  }

  /** What every change of role has in common. */
  resetRole(term: Term): void {
    assert(term >= this.term, `the term would go back from ${this.term} to ${term}`);
    if (term > this.term) {
      this.term = term;
      this.vote = NO_NODE;
      this.outbox.dropOlder(term);
    }
    this.leader = NO_NODE;
    this.votes.clear();
    this.peers.clear();
    this.heartbeatElapsed = 0;
    this.transferee = NO_NODE;
    this.transferElapsed = 0;
    this.uncommitted.reset();
    this.replicationDue = false;
    this.outbox.snapshotsNeeded = [];
    for (const context of this.reads.drop()) this.outbox.droppedReads.push(context);
    this.resetElectionTimer();
  }
}
