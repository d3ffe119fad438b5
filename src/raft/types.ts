/**
 * The agreement engine's data: what goes into a log, what nodes say to each other, and what the core asks of its
 * host. The core (node.ts) is a synchronous state machine: tick, step, propose and the host's completions go in,
 * `ready()` comes out. It never waits and never does I/O; the host persists, sends, applies, and reports back.
 */
import type { LogIndex, NodeId, Term } from "../base/ids.js";

export const EntryKind = { Normal: 0, ConfChange: 1 } as const;
export type EntryKind = (typeof EntryKind)[keyof typeof EntryKind];

/** An entry of a log. A new leader's empty entry is Normal with no bytes; hosts do not apply those to machines. */
export interface Entry {
  readonly term: Term;
  readonly index: LogIndex;
  readonly kind: EntryKind;
  readonly data: Uint8Array;
}

/**
 * Durable before any message that depends on it leaves; all three in one record, not after the entries of the same
 * append: a node that has a membership change in its log must know that the one before it is committed. A commit
 * index that moved alone is not written; it goes along with the next term, vote or entry.
 */
export interface HardState {
  readonly term: Term;
  /** 0 for nobody. */
  readonly vote: NodeId;
  readonly commit: LogIndex;
}

/** Membership. `votersOutgoing` is not empty while joint; `learnersNext` become learners when the joint state ends. */
export interface ConfState {
  readonly voters: readonly NodeId[];
  readonly votersOutgoing: readonly NodeId[];
  readonly learners: readonly NodeId[];
  readonly learnersNext: readonly NodeId[];
  readonly autoLeave: boolean;
}

/** Where a log begins: everything up to `index` is in a state machine's snapshot with this membership. */
export interface SnapshotMeta {
  readonly index: LogIndex;
  readonly term: Term;
  readonly conf: ConfState;
}

/** What a membership change asks for; every change goes through a joint configuration. An empty list leaves it. */
export interface ConfChange {
  readonly changes: readonly { readonly kind: "voter" | "learner" | "remove"; readonly node: NodeId }[];
}

export const MessageType = {
  PreVote: 1,
  PreVoteResponse: 2,
  Vote: 3,
  VoteResponse: 4,
  Append: 5,
  AppendResponse: 6,
  Heartbeat: 7,
  HeartbeatResponse: 8,
  /** Stepped by the receiving host once a snapshot's bytes have arrived whole and verified. */
  Snapshot: 9,
  TimeoutNow: 10,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

/** One shape for all messages keeps the hot path monomorphic; a field a type does not use is 0, false or empty. */
export interface Message {
  readonly type: MessageType;
  readonly from: NodeId;
  readonly to: NodeId;
  readonly term: Term;
  /** Append: index and term of the entry before the first. Votes: the candidate's last. Responses: the acknowledged or rejected index. */
  readonly index: LogIndex;
  readonly logTerm: Term;
  readonly entries: readonly Entry[];
  /**
   * The sender's commit index; in heartbeats capped by what the receiver is known to match. In answers to votes and
   * pre-votes `logTerm` is that entry's term, so that the candidate can tell whether it has the same. Not used by
   * requests for votes.
   */
  readonly commit: LogIndex;
  readonly reject: boolean;
  /** With `reject`: where the sender's log might match. */
  readonly rejectHint: LogIndex;
  /**
   * Heartbeats: the newest read round, echoed in the response. Votes: 1 when campaigning by leadership transfer.
   * Pre-votes: the candidacy's number, echoed in the response. Rejected Appends: 1 when only a snapshot will do.
   */
  readonly context: number;
  readonly snapshot: SnapshotMeta | undefined;
}

/** The stored part of a group's log, as the core reads it. Calls are synchronous; old entries may come from disk. */
export interface LogReader {
  /** What was durable at start. */
  initialHardState(): HardState;
  /** Where the log begins: entries up to and including `base().index` are gone. */
  base(): SnapshotMeta;
  /** `base().index` when the log holds no entries. */
  lastIndex(): LogIndex;
  /** Undefined when the index is before the base or after the last. */
  term(index: LogIndex): Term | undefined;
  /** Entries in [low, high), at least one if low < high, cut at `maxBytes` of data. Throws if any is compacted. */
  entries(low: LogIndex, high: LogIndex, maxBytes: number): Entry[];
}

export interface RaftConfig {
  readonly id: NodeId;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Data bytes an Append carries, but at least one entry. */
  readonly maxAppendBytes: number;
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  /** Bytes of a leader's uncommitted entries beyond which proposals are refused. */
  readonly maxUncommittedBytes: number;
  /** Bytes of committed entries handed out by one ready. */
  readonly maxReadyBytes: number;
  /** Uniform in [0, 1); for election timeouts. */
  readonly random: () => number;
  /**
   * A leader tells of a commit with the next entries or the next heartbeat, not with a message of its own, unless
   * somebody waits for it (`hurry`, `askCommit`).
   */
  readonly lazyCommits?: boolean;
  /**
   * What the log of an earlier replica of this node ended with, if there was one and it is gone. Until a leader has given
   * this one a state it votes as if it still had that log: the earlier one may have acknowledged all of it.
   */
  readonly lostLog?: LogEnd;
}

/** What a log ends with. */
export interface LogEnd {
  readonly index: LogIndex;
  readonly term: Term;
}

export type Role = "follower" | "preCandidate" | "candidate" | "leader";

/**
 * What must become durable in one write, in the order the readies were taken. When it is, the host calls
 * `appended(append)` with this very object. A snapshot here replaces log and state machine.
 */
export interface Append {
  /** The node's term when this was handed out: completions of an older term never clear a newer tail. */
  readonly term: Term;
  readonly hardState: HardState | undefined;
  /** Contiguous; if the first is at or below the stored last index, the stored tail from there on is replaced. */
  readonly entries: readonly Entry[];
  readonly snapshot: SnapshotMeta | undefined;
  /** Sent by the host once this append is durable: votes, append responses. */
  readonly messages: readonly Message[];
}

export interface Ready {
  readonly append: Append | undefined;
  /** May leave at once, in parallel with the append (a leader's Appends and heartbeats). */
  readonly messages: readonly Message[];
  /** Committed and durable here; to be applied in order, then reported by `applied`. */
  readonly committed: readonly Entry[];
  /** Reads whose quorum round is complete: may be served once `index` is applied. */
  readonly readStates: readonly { readonly context: number; readonly index: LogIndex }[];
  /** Reads that will not complete here (leadership lost); to be retried elsewhere. */
  readonly droppedReads: readonly number[];
  /** Peers that need a snapshot; the host streams one and then calls `reportSnapshot`. */
  readonly snapshotsNeeded: readonly NodeId[];
  /** Present when leader or role changed since the last ready. */
  readonly softState: { readonly leader: NodeId; readonly role: Role } | undefined;
}

export type ProposalRefusal =
  | "not-leader"
  | "transferring"
  | "removed"
  | "too-much-uncommitted"
  | "change-pending"
  /** A membership change that may never be made: all voters removed, or leaving what is not joint. */
  | "invalid-change";

/** Where a proposal went; of a batch, its first entry. */
export interface Proposed {
  readonly index: LogIndex;
  readonly term: Term;
}

/** One peer as its leader sees it. */
export interface PeerStatus {
  readonly match: LogIndex;
  readonly next: LogIndex;
  readonly state: "probe" | "replicate" | "snapshot";
  readonly learner: boolean;
  readonly recentActive: boolean;
  /** Heard from since the last check of the quorum but one, and since the group woke. */
  readonly active: boolean;
  readonly inflight: number;
}

export interface RaftStatus {
  readonly id: NodeId;
  readonly term: Term;
  readonly vote: NodeId;
  readonly role: Role;
  readonly leader: NodeId;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly lastIndex: LogIndex;
  /** The last index known to be durable here. */
  readonly durableIndex: LogIndex;
  readonly conf: ConfState;
  /** Empty unless leading. */
  readonly progress: ReadonlyMap<NodeId, PeerStatus>;
}
