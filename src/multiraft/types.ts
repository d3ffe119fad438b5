/**
 * What hosting asks of its neighbours: state machines below, peers beside, and what it offers to those who propose.
 */
import type { GroupId, LogIndex, NodeId, Term } from "../base/ids.js";
import type { ConfChange, ConfState, Entry, LogEnd, Message, Role, SnapshotMeta } from "../raft/types.js";

/**
 * One replica's state machine as its host drives it. Calls come one at a time per group, but `apply` may be called
 * again before the last one resolved (in index order); implementations queue. Results are opaque to hosting and
 * reach only the proposer, on the node that proposed.
 *
 * Invariants: the applied index and the effects of the entries are one atomic write; applying is a function of the
 * entries and the state alone; entries at or below the applied index are never applied again.
 */
export interface GroupMachine {
  /** Opens or creates the state and answers what has been applied to it. Called once, first. */
  open(): Promise<LogIndex>;
  /**
   * Applies normal, non-empty entries in order; `upTo` is the index reached (entries that carry nothing for the
   * machine, empty ones and membership changes, are left out, so `entries` may be empty). One result an entry.
   */
  apply(entries: readonly Entry[], upTo: LogIndex): Promise<readonly Uint8Array[]>;
  /**
   * The last index of the log that only those can apply who were members there: it took something that is on each
   * member's node. Whoever needs the log from further back is sent a snapshot. Without it, there is none.
   */
  replayFloor?(): LogIndex;
  /**
   * Whether followers may leave this entry unapplied for a while, as long as nobody there waits for it. Without it
   * nothing waits.
   */
  mayWait?(data: Uint8Array): boolean;
  /** Makes the state durable and answers the applied index that is durable now; the log before it may go. */
  checkpoint(): Promise<LogIndex>;
  /** A consistent copy of the state, for another replica. The machine goes on applying meanwhile. */
  snapshot(): Promise<MachineSnapshot>;
  /**
   * Replaces the state by a received snapshot whose bytes lie in `file`, already durable and verified. Idempotent:
   * after a crash it is called again with the same file. Answers the applied index of the state installed.
   */
  restore(file: string): Promise<LogIndex>;
  /** A digest of the logical state at the applied index it was taken at; equal on every replica at equal index. */
  digest(): Promise<{ readonly appliedIndex: LogIndex; readonly digest: string }>;
  close(): Promise<void>;
}

export interface MachineSnapshot {
  readonly appliedIndex: LogIndex;
  readonly bytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Frees the copy. */
  release(): Promise<void>;
}

/** Frames to other nodes. Delivery is best effort, in order per peer while a connection lasts. */
export interface PeerTransport {
  /** Sends what a tick gathered for one peer, in one frame. Drops it when the peer cannot be reached. */
  send(to: NodeId, frame: PeerFrame): void;
  /** Streams a snapshot; resolves once the receiver has installed or refused it, rejects when it was cut short. */
  sendSnapshot(to: NodeId, header: SnapshotHeader, source: MachineSnapshot): Promise<void>;
  /** Who receives; set once by the host. */
  receive(handler: PeerHandler): void;
}

export interface PeerHandler {
  onFrame(from: NodeId, frame: PeerFrame): void;
  /** A snapshot arriving in chunks, in order. The host verifies, installs, and resolves; rejecting tells the sender. */
  onSnapshot(from: NodeId, header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  onUnreachable(peer: NodeId): void;
}

/** All groups' messages to one peer, heartbeats of all groups coalesced in columns. */
export interface PeerFrame {
  readonly messages: readonly GroupMessage[];
  /** Parallel columns: group, term, commit, context; one row a heartbeat (or heartbeat response, with a negative group). */
  readonly heartbeats: readonly number[];
  /**
   * Groups that fall asleep: group, term, commit; one row a group. A follower at that very term and commit stops
   * ticking until a message comes or the sender's frames stop.
   */
  readonly quiesced: readonly number[];
  /** Chosen at random by each start of the sender's host; a change wakes the groups its predecessor led. */
  readonly incarnation: number;
  /** The sender's own wall clock when it sent this, in milliseconds since the Unix epoch. */
  readonly wallMs: number;
  /** The sender has no disk space: leadership is not handed to it. */
  readonly diskFull: boolean;
  /** The sender is alive: keeps the peer's quiesced followers asleep. Sent every tick interval when nothing else is. */
  readonly alive: boolean;
}

export interface GroupMessage {
  readonly group: GroupId;
  readonly message: Message;
}

export interface SnapshotHeader {
  readonly group: GroupId;
  /** The leader's term when it began to send. */
  readonly term: Term;
  readonly meta: SnapshotMeta;
  /** All that travels: the state's bytes and the SHA-256 of them at the end, which the host adds and checks. */
  readonly bytes: number;
}

export interface Committed {
  readonly index: LogIndex;
  readonly term: Term;
  readonly result: Uint8Array;
}

export interface GroupStatus {
  readonly group: GroupId;
  readonly role: Role;
  readonly leader: NodeId;
  readonly term: Term;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly lastIndex: LogIndex;
  readonly conf: ConfState;
  /** At the leader: what each peer's log is known to match. */
  readonly match: ReadonlyMap<NodeId, LogIndex>;
  /** This node leads and has applied an entry of its own term, and so every inherited one: it may serve. */
  readonly leaderReady: boolean;
}

/** What a replica that leaves has bound its node to in its group. */
export interface Promised {
  readonly term: Term;
  readonly vote: NodeId;
  /** It may have acknowledged all that it had. */
  readonly log: LogEnd;
}

/** What a group offers to those who use it on this node. */
export interface GroupHandle {
  readonly group: GroupId;
  /** The leader as this node knows it, 0 for nobody: `status().leader` without the cost of a status. */
  readonly leader: NodeId;
  status(): GroupStatus;
  /**
   * Appends one entry and resolves once it is applied on this node. Rejects with
   * RouteError: this node does not lead (nothing was appended);
   * RetryError OSTRAKA_UNAVAILABLE: refused before it was appended (queue full, transfer under way, disk full);
   * AmbiguousError: appended, but leadership was lost before it was known to commit.
   * A deposed leader waits one election timeout for the log to tell: an entry that commits after all resolves, one
   * that was overwritten can never commit and rejects with RouteError.
   * With `onlyInTerm` it is refused (RouteError) unless this node leads in that very term.
   */
  propose(data: Uint8Array, options?: { onlyInTerm?: Term }): Promise<Committed>;
  /**
   * A linearizable read point: resolves once a quorum confirmed leadership and the index is applied here. Rejects with
   * RouteError when this node does not lead or stops leading, RetryError OSTRAKA_UNAVAILABLE when the queue is full.
   */
  readIndex(): Promise<LogIndex>;
  /**
   * Resolves once `index` is applied here. Rejects with RetryError OSTRAKA_UNAVAILABLE when the group goes away, or too
   * many wait already.
   */
  waitApplied(index: LogIndex): Promise<void>;
  /** Resolves once the change is applied and the joint configuration has been left. Errors as `propose`. */
  changeMembership(change: ConfChange): Promise<void>;
  /**
   * At the leader: the membership stays as it is until the function that is answered is called, or another leads (who
   * can change it only after having applied what this one has appended). RetryError OSTRAKA_UNAVAILABLE when a change
   * is under way.
   */
  holdMembership(): () => void;
  /** Resolves once `to` leads; rejects with RouteError when this node does not, RetryError when it did not work out. */
  transferLeadership(to: NodeId): Promise<void>;
  /**
   * Begins an election at once, for a group that has no leader yet; nothing happens while one is known or a candidacy
   * is under way. With a pre-vote, as after a timeout: it costs a round trip without a disk write, and lets the call be
   * repeated as often as wanted, since a pre-vote that finds no majority raises no term and deposes nobody.
   */
  campaign(): void;
  /** At the leader: members that have not been heard since its last check of the quorum, or never by this leader. */
  silentMembers(): readonly NodeId[];
  /** Asleep: at its leader that means that every member has everything and nothing happens. */
  readonly quiesced: boolean;
  /** The membership in force at the applied index: `status().conf` without the cost of a status. */
  readonly conf: ConfState;
  /** The term of the last entry in the log here. */
  readonly lastTerm: Term;
  /** The last term and vote given to the log. */
  readonly hardState: { readonly term: Term; readonly vote: NodeId };
  /**
   * Called on every change of leader, role, term or membership, with the new status, after a new leader's empty entry
   * is applied too.
   */
  onChange(listener: (status: GroupStatus) => void): () => void;
  digest(): Promise<{ readonly appliedIndex: LogIndex; readonly digest: string }>;
}
