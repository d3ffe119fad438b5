/**
 * What a range's leader offers to gateways, on its own node or over the wire. Requests that find another leader
 * reject with RouteError; the gateway retries within the statement's deadline.
 */
import type { WireError } from "../base/errors.js";
import type { GroupId, LogIndex, NodeId, Term, TransactionId } from "../base/ids.js";
import type { Key } from "../base/keys.js";
import type {
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  RowChanges,
  SchemaSnapshot,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { SessionFlags, Span, Statement } from "../sql/types.js";

/** A point from which a replica may serve a linearizable read once it has applied `index`. */
export interface ReadPoint {
  readonly index: LogIndex;
  readonly term: Term;
  /** For the stamps of what is run at this point elsewhere. */
  readonly wallMs: number;
  /**
   * Spans that transactions between vote and decision may yet change, or were to change when the round began (absent:
   * none). Whoever reads any of them waits with `awaitHolds` and asks again: the decision may have been told to somebody, and
   * be behind `index`. Who then reads a later state than that of
   * `index` has to look at what is prepared in the state that was read as well.
   */
  readonly held?: readonly Span[] | undefined;
}

export interface WriteRequest {
  readonly key: IdempotencyKey;
  readonly statement: Statement;
  readonly flags: SessionFlags;
  readonly lastInsertRowid: bigint;
  /** To be executed under this version of the schema only, "move" under another; undefined: whichever it is. */
  readonly schemaVersion?: number | undefined;
}

export interface TransactionStatement {
  readonly transaction: TransactionId;
  /** Position in the transaction, from 0; the leader refuses gaps (it lost its memory: OSTRAKA_RETRY). */
  readonly ordinal: number;
  readonly statement: Statement;
  readonly flags: SessionFlags;
  readonly lastInsertRowid: bigint;
  /** It lost before, and first began so many milliseconds ago: it reserves what the statement touches. */
  readonly reserveAgeMs?: number | undefined;
}

export type TransactionStatementAnswer =
  | {
      readonly kind: "ran";
      /** The statement's own error is an answer too: it does not end the transaction (unless `rolledBack`). */
      readonly outcome: StatementOutcome | WireError;
      /** As it has to run again at apply; undefined for what need not: reads, statements without effects. */
      readonly stamped: StampedStatement | undefined;
      /** OR ROLLBACK or RAISE(ROLLBACK): the transaction is gone. */
      readonly rolledBack: boolean;
    }
  /** Not for the leader's worker: the gateway goes on with a private copy. What the transaction did so far still holds. */
  | { readonly kind: "move" };

/** A transaction that ran on a gateway's private copy. */
export interface CopyCommit {
  readonly transaction: TransactionId;
  readonly key: IdempotencyKey;
  /** Applied index of the copy; nothing in `reads` may have been written since. */
  readonly readAt: LogIndex;
  readonly readTerm: Term;
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
  /** What the texts look at to check constraints, beyond `reads`; undefined: not known. */
  readonly checks?: readonly Span[] | undefined;
  readonly schemaVersion: number;
  /** As in a PrepareRequest. */
  readonly ran?: number | undefined;
  /** Either the text to run again on every replica, or the rows it changed. */
  readonly body:
    | { readonly kind: "statements"; readonly statements: readonly StampedStatement[] }
    | {
        readonly kind: "rows";
        readonly changes: RowChanges;
        readonly outcomes: readonly StatementOutcome[];
      };
}

/** What a transaction read on a gateway's own replica, to be validated at commit. */
export interface LocalRead {
  readonly index: LogIndex;
  readonly term: Term;
  readonly spans: readonly Span[];
}

/** A part of a commit across ranges, for one of them. */
export interface PrepareRequest {
  readonly transaction: TransactionId;
  readonly key: IdempotencyKey;
  readonly coordinator: GroupId;
  /**
   * Of the descriptor by which the transaction was divided over ranges: spans stand for the part of them that lies in
   * that slice. The range refuses (RouteError) when it is another one by now.
   */
  readonly generation: number;
  /** What was read in this range and where: of pins, copies and at the leader (known to it by the transaction's id). */
  readonly reads: readonly LocalRead[];
  readonly writes: readonly Span[];
  readonly schemaVersion: number;
  /**
   * Statements that this leader has run for it: it votes no unless it remembers just those. Undefined: none, or none that
   * the gateway relies on.
   */
  readonly ran?: number | undefined;
  /**
   * Names the run of a write that may be run more than once under one id, by several gateways at the same time: what is
   * committed under it must all be of one run. Undefined: there is but one.
   */
  readonly run?: string | undefined;
  /** How many ranges are asked to vote; 1 if it is not said. */
  readonly participants?: number | undefined;
  /** "own": what it has run here; `generation`, `writes` and `schemaVersion` are then the leader's to know. */
  readonly body:
    | Exclude<PreparedTransaction["body"], { readonly kind: "statements" }>
    | { readonly kind: "own" };
}

export type Vote =
  | { readonly vote: "yes" }
  /** The write was applied here before, under the same key: this is what it answered. */
  | { readonly vote: "known"; readonly result: CommandResult }
  | { readonly vote: "no"; readonly error: WireError };

/** At least what a range is to be pinned at, and the version of the schema there. */
export interface PinPoint extends ReadPoint {
  readonly schemaVersion: number;
}

export interface RangeStatus {
  readonly descriptor: RangeDescriptor;
  readonly leader: NodeId;
  readonly term: Term;
  readonly applied: LogIndex;
  readonly rows: number;
  readonly bytes: number;
  readonly prepared: number;
}

export interface RangeService {
  readonly group: GroupId;
  /** Confirmed by a quorum round begun after the call. */
  readPoint(): Promise<ReadPoint>;
  /** A bounded autocommit write: stamped, proposed, applied, answered. "move" when it is not, or another schema is wanted. */
  write(request: WriteRequest): Promise<CommandResult | { readonly ok: "move" }>;
  /** All or nothing, nothing told before: one command. "move" when any statement's cost is not bounded, and as for `write`. */
  batch(request: {
    readonly key: IdempotencyKey;
    readonly transaction: TransactionId;
    readonly statements: readonly Omit<WriteRequest, "key" | "schemaVersion">[];
    readonly schemaVersion?: number | undefined;
  }): Promise<CommandResult | { readonly ok: "move" }>;
  /**
   * Starts a transaction, once no change of the schema is held; with `reserve`, its turn comes when older reservations are
   * gone.
   */
  begin(
    transaction: TransactionId,
    options: { readonly reserve: readonly Span[] | undefined; readonly age: number },
  ): Promise<PinPoint>;
  run(statement: TransactionStatement): Promise<TransactionStatementAnswer>;
  /**
   * Resolves if nothing has changed of what the transaction has read here in its first `ordinal` statements, which are
   * all; rejects with OSTRAKA_RETRY if something has, or is about to, or if they are not remembered.
   */
  recheck(transaction: TransactionId, ordinal: number): Promise<void>;
  /** Drops the statements from `ordinal` on (ROLLBACK TO). */
  truncate(transaction: TransactionId, ordinal: number): Promise<void>;
  /**
   * Validates and commits what ran here, together with what was read elsewhere. `ran`: how many statements have run
   * here, undefined for none at all; a leader that does not remember just those does not know what they have read.
   */
  commit(
    transaction: TransactionId,
    key: IdempotencyKey,
    reads: readonly LocalRead[],
    ran?: number,
  ): Promise<CommandResult>;
  /** `transaction` goes on elsewhere: what it has read at the leader still holds and is remembered for its CopyCommit. */
  commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult>;
  rollback(transaction: TransactionId): Promise<void>;
  /**
   * Committed, or never will here: an unknown one is tombstoned first. RouteError if the range is not as of this
   * generation: whoever puts together what all ranges say has to have asked all of them.
   */
  outcome(transaction: TransactionId, generation: number): Promise<"committed" | "aborted" | "unknown">;
  /**
   * What this range has answered under the key, linearizably, without a trace in the log; undefined when it was not
   * executed here so far. RouteError as for `outcome`.
   */
  answered(key: IdempotencyKey, generation: number): Promise<CommandResult | undefined>;
  setPragma(
    name: "user_version" | "application_id",
    value: number,
    key: IdempotencyKey,
  ): Promise<CommandResult>;

  // --- several ranges -------------------------------------------------------------------------------------------

  /**
   * A bounded, linearizable read at the leader, for gateways without a replica. Rejects with OSTRAKA_TOO_LARGE beyond
   * `maxBytes`, with RouteError when not all that it may read lies in the range.
   */
  read(request: {
    readonly statement: StampedStatement;
    readonly maxBytes: number;
  }): Promise<{ readonly outcome: StatementOutcome; readonly wallMs: number }>;
  /** Resolves once nothing that is held now may change these spans. */
  awaitHolds(spans: readonly Span[]): Promise<void>;
  /**
   * Validates, then logs and votes. Waits a bounded time for reservations, fences and prepared transactions in its way;
   * then it votes no (OSTRAKA_RETRY).
   */
  prepare(request: PrepareRequest): Promise<Vote>;
  /** Tells the decision; idempotent, never blocked. Resolves once it is applied. */
  resolve(transaction: TransactionId, decision: "committed" | "aborted"): Promise<void>;
  /**
   * Lets no write into the spans from now on, waits until everything in flight and everything held on them is settled:
   * all of it is applied at the answer's index.
   * Expires by itself after a bounded time. Fences do not exclude one another. The spans may reach beyond the range: what
   * counts is its `generation`, another one is refused with a RouteError. Rejects with OSTRAKA_UNAVAILABLE when it took
   * too long: the other fences are to be released, and all of it tried again under another id. Once answered it stands for
   * `standMs`.
   */
  fence(id: string, spans: readonly Span[], generation: number, standMs: number): Promise<PinPoint>;
  /** Ends a fence; true if it stood all the time, in the term it was made in, confirmed by a quorum round begun after the call. */
  release(id: string, term: Term): Promise<boolean>;
  /** Splits at this key, or in the middle; answers the new range. RouteError when the key is not in this range. */
  split(at: Key | undefined, child: GroupId): Promise<RangeDescriptor>;
  /** The first half of a merge, at the right range, once and for all; then `absorb` at the left one. */
  freeze(into: GroupId): Promise<RangeDescriptor>;
  /**
   * Every member of the left range is among `ready`, the nodes whose replica of the right one has applied the freeze;
   * RetryError when that is not so.
   */
  absorb(right: RangeDescriptor, ready: readonly NodeId[]): Promise<RangeDescriptor>;
  describe(): Promise<RangeStatus>;
  /** The schema as this range has it, for gateways without a replica of any range. */
  schema(): Promise<SchemaSnapshot>;
}
