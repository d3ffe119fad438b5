/**
 * The range machine's vocabulary: the commands in its log, what applying them answers, and how the main thread talks
 * to the storage worker that owns the SQLite file (RangeStore) and to the killable processes that run whatever might
 * take long (Runner).
 */

import type { WireError } from "../../base/errors.js";
import type { GroupId, LogIndex, Term, TransactionId } from "../../base/ids.js";
import type { Key } from "../../base/keys.js";
import type { SqlValue } from "../../base/values.js";
import type { GroupMachine } from "../../multiraft/types.js";
import type { RangeDescriptor, TableKey, TableSlice } from "../../placement/descriptor.js";
import type { ConfState } from "../../raft/types.js";
import type { SessionFlags, Span } from "../../sql/types.js";
import type { TableNames } from "./runner/table-history.js";
import type { UniqueKeysOf } from "./runner/unique-keys.js";

/** Decided by the leader before the log; the only source of time, randomness and connection state at apply. */
export interface Stamp {
  /** Milliseconds since the epoch; what 'now' means. */
  readonly wallMs: number;
  /** Seeds random() and randomblob(); 53 bits. */
  readonly seed: number;
  /** What last_insert_rowid() answers until the statement inserts. */
  readonly lastInsertRowid: bigint;
}

/** A statement as it is replicated and re-run: final text, parameters, settings, stamp. */
export interface StampedStatement {
  readonly sql: string;
  readonly params: readonly SqlValue[];
  /** `params` as they came, encoded; need not be there. */
  readonly vector?: Uint8Array | undefined;
  readonly flags: SessionFlags;
  readonly stamp: Stamp;
  /**
   * Digest of what the session was told when the statement first ran (`toldDigest` of its outcome); undefined when it
   * has told nobody yet (autocommit). A different outcome at apply fails the command with OSTRAKA_RETRY.
   */
  readonly told: string | undefined;
  /**
   * Tables (lower-case) that it gives rows whose rowids SQLite chooses, at the top level. In a range that does not have
   * the whole table, apply refuses (OSTRAKA_MOVE) where SQLite would choose otherwise than for the whole table.
   */
  readonly appendsTo?: readonly string[] | undefined;
}

/** Exactly-once: the range keeps a write's answer under (client, sequence). */
export interface IdempotencyKey {
  readonly client: string;
  readonly sequence: number;
  /** Every sequence below this has been answered; their answers may go. */
  readonly lowestUnanswered: number;
  /** Gateway's wall clock when first sent; answers are dropped by this age, judged by later stamps. */
  readonly issuedMs: number;
}

/** One changed row by key; `row` undefined deletes. Columns in table order, generated columns left out. */
export interface RowChange {
  readonly table: string;
  /** [rowid] or, for WITHOUT ROWID tables, the primary key's values. */
  readonly key: readonly SqlValue[];
  readonly row: readonly SqlValue[] | undefined;
}

/** Row changes, or the same as bytes (row-changes.ts), as they come from where they were captured. */
export type RowChanges = readonly RowChange[] | Uint8Array;

export type Command =
  /** Autocommit: one statement, executed in log order. */
  | {
      readonly kind: "execute";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly statement: StampedStatement;
    }
  /** A validated transaction: its write statements in order (or db.batch: `told` undefined). All or nothing. */
  | {
      readonly kind: "transaction";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly transaction: TransactionId;
      readonly statements: readonly StampedStatement[];
      /** Each of `statements`, encoded (command-body.ts); need not be there. */
      readonly encoded?: readonly Uint8Array[] | undefined;
    }
  /** The row changes of a transaction whose text must not run again (too expensive, or not deterministic). No triggers, no foreign key actions. */
  | {
      readonly kind: "rows";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly transaction: TransactionId;
      readonly changes: RowChanges;
      /** The answers to give, as the session was told. */
      readonly outcomes: readonly StatementOutcome[];
    }
  /**
   * Records that a transaction did not and will never commit, unless its outcome is already known. `key.issuedMs` is
   * when the transaction began, or an earlier time if that is not known: outcomes as old as that may be forgotten.
   */
  | {
      readonly kind: "tombstone";
      readonly wallMs: number;
      readonly key: IdempotencyKey;
      readonly transaction: TransactionId;
    }
  /** PRAGMA user_version / application_id. */
  | {
      readonly kind: "pragma";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly name: "user_version" | "application_id";
      readonly value: number;
    }
  /**
   * First half of a commit across ranges. The body is tried in a savepoint and undone; what it reads and writes is held
   * from then on, durably, until `resolve`. Its result is the vote: ok with `vote` is yes; ok without it is what the key
   * was answered before (nothing is held); an error is no, and nothing is held (and, unless the key may have been used
   * before, the transaction is recorded as aborted here). A transaction known to be aborted (a tombstone) is refused;
   * one that is prepared already votes yes again.
   *
   * `key` is that of the client's write, not of this message: nothing is remembered under it until the transaction is
   * committed, and meanwhile other commands with the key are refused (AmbiguousError with this transaction's id).
   */
  | {
      readonly kind: "prepare";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly prepared: PreparedTransaction;
    }
  /** Second half, idempotent: applies or drops what was prepared, records the outcome, and ends the hold. */
  | {
      readonly kind: "resolve";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly transaction: TransactionId;
      readonly decision: "committed" | "aborted";
    }
  /**
   * Gives the keys from `at` on to a new range. Refused (deterministically, changing nothing) unless `generation` is the
   * range's own, `at` lies strictly inside it and nothing is prepared. The child begins as a copy of the file as of this
   * entry, with the log index of this entry; rows that are the other's stay in both files until `trim` deletes them,
   * and nobody looks at them: statements reach a range only for keys of its slice.
   */
  | {
      readonly kind: "split";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly generation: number;
      readonly at: Key;
      readonly child: GroupId;
      /** The parent's membership, with which the child begins. */
      readonly conf: ConfState;
    }
  /** Deletes at most `maxRows` rows that lie outside the range's slice; the result's change count is 0 once there are none. */
  | {
      readonly kind: "trim";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly maxRows: number;
    }
  /** Ends a range for ever, so that its left neighbour can take it in: after this nothing but reads of it pass. */
  | {
      readonly kind: "freeze";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly generation: number;
      readonly into: GroupId;
    }
  /**
   * Takes in the frozen right neighbour, whose replica must lie on this node and have applied its freeze (whoever
   * proposes has seen to it that it has, on all of them).
   */
  | {
      readonly kind: "absorb";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly generation: number;
      readonly right: RangeDescriptor;
    };

/** What a participant keeps of a transaction between its vote and the decision. */
export interface PreparedTransaction {
  readonly transaction: TransactionId;
  /** The group to ask what became of it. */
  readonly coordinator: GroupId;
  /** Stamped wall time of the prepare, for telling how long it has been in doubt. */
  readonly preparedMs: number;
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
  readonly schemaVersion: number;
  readonly body:
    | { readonly kind: "nothing" }
    | { readonly kind: "rows"; readonly changes: readonly RowChange[] }
    /**
     * Bounded writes of rows of this range, to be run at the commit as they were when they were tried: all that they
     * look at is held meanwhile. No constraint of theirs waits for COMMIT.
     */
    | { readonly kind: "statements"; readonly statements: readonly StampedStatement[] }
    /**
     * Texts to be run at the commit, foreign keys off, then row changes: schema changes. Nobody else touches the range
     * between vote and decision (the spans are everything).
     */
    | {
        readonly kind: "schema";
        readonly statements: readonly StampedStatement[];
        readonly changes: readonly RowChange[];
      };
}

/** What a range knows of itself; part of its replicated state. */
export interface RangeState {
  readonly descriptor: Omit<RangeDescriptor, "replicas">;
  /**
   * Set by `freeze`, once: the range takes no commands any more and is to be taken in. By this one, unless that is split or
   * taken in itself before: whoever has the range as its right neighbour then takes it in.
   */
  readonly frozenInto: GroupId | undefined;
  /** Rows outside the slice may be left. */
  readonly untrimmed: boolean;
  /** Ranges that it has taken in: what is asked of those is answered here. */
  readonly absorbed: readonly GroupId[];
  /** Where in its log it last took one in, 0 for never: who was no member there cannot apply the log up to there. */
  readonly absorbedAt: LogIndex;
  /**
   * The range that begins where this one ends, the only one that it can take in; undefined where nothing does. A range never
   * begins elsewhere than where it was born, so only splits and merges of this one give it another.
   */
  readonly rightNeighbour: GroupId | undefined;
}

/** How a range came to be: where its log begins, and with which members. */
export interface RangeBeginning {
  readonly parent: GroupId;
  /** The log index that its log begins after: that of the split in the parent's log. */
  readonly index: LogIndex;
  readonly term: Term;
  readonly conf: ConfState;
}

/** What a split makes of the parent's file as of its entry. */
export interface NewChild extends RangeBeginning {
  readonly descriptor: RangeState["descriptor"];
  readonly rightNeighbour: GroupId | undefined;
}

/** A range that a split has made and whose file is complete at `path`; hosting it is the node's business. */
export interface SplitChild extends RangeBeginning {
  readonly descriptor: Omit<RangeDescriptor, "replicas">;
  readonly path: string;
}

/** What a statement did and returned. */
export interface StatementOutcome {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  /** Row vectors one after the other (src/base/values.ts). */
  readonly rows: Uint8Array;
  readonly rowCount: number;
  /** As changes() after it: rows changed by this statement itself, triggers not counted. */
  readonly changes: number;
  /** With those that triggers and foreign key actions changed. */
  readonly totalChanges: number;
  readonly lastInsertRowid: bigint;
}

export type TransactionDecision = "committed" | "aborted" | "unknown";

export type CommandResult =
  | {
      readonly ok: true;
      readonly outcomes: readonly StatementOutcome[];
      /** Answered from memory: it had been applied before. */
      readonly repeated: boolean;
      /**
       * Of a tombstone or a resolve: what is, or is now, recorded of the transaction; "unknown" when it may have been
       * forgotten, or awaits its decision. On any other command: the write was part of a transaction across ranges that
       * was decided so; what it answered is known to the transaction's coordinator.
       */
      readonly decision?: TransactionDecision;
      /** Of a prepare that holds. Without it, a prepare's result is what its key was answered before. */
      readonly vote?: "yes";
    }
  | {
      readonly ok: false;
      readonly error: WireError;
      /** Which statement of the list failed. */
      readonly statement: number;
    };

/** A schema, enough to build an oracle from: statements of sqlite_schema in creation order, statistics included. */
export interface SchemaSnapshot {
  /** Changes whenever the schema does; equal on every replica at equal applied index. */
  readonly version: number;
  readonly statements: readonly string[];
  readonly appliedIndex: LogIndex;
  /** How each table's rows are spread over ranges. */
  readonly tables: readonly TableKey[];
}

/** How big the state is, told with every apply answer; for cost decisions and splits. */
export interface StoreSize {
  readonly databaseBytes: number;
  readonly walBytes: number;
  /** Of the database, without its free pages. */
  readonly liveBytes: number;
}

/** A bounded read or write run in the storage worker. Limits are exact: beyond them OSTRAKA_TOO_LARGE. */
export interface BoundedRead {
  readonly statement: StampedStatement;
  readonly maxBytes: number;
  /**
   * The answer may be of an index beyond `appliedIndex()` of that moment, and of one before entries that are being
   * applied; then the read need not go to the worker.
   */
  readonly mayBeAhead?: boolean;
}

export interface ReadAnswer {
  /** Of the state that was read. */
  readonly appliedIndex: LogIndex;
  readonly outcome: StatementOutcome;
  /**
   * What transactions that were prepared in that state may yet change (absent: none were). Their decision may have been
   * told to somebody, so that who must not miss it waits and reads again.
   */
  readonly held?: readonly Span[] | undefined;
}

export interface Speculation {
  readonly transaction: TransactionId;
  /** How many write statements it ran before, those that failed among them. */
  readonly position: number;
  /** Those statements, to be replayed if the worker no longer has them open; without them it answers "lost" then. */
  readonly earlier: readonly StampedStatement[] | undefined;
  readonly statement: StampedStatement;
  readonly maxBytes: number;
}

export type SpeculationAnswer =
  /** `appliedIndex`: the state the statement (and the replay) ran on. A statement's own error is in `outcome`. */
  | {
      readonly kind: "ran";
      readonly appliedIndex: LogIndex;
      readonly outcome:
        | StatementOutcome
        | WireError /** The statement rolled the transaction back (OR ROLLBACK, RAISE(ROLLBACK)). */;
      readonly rolledBack: boolean;
      readonly replayMs: number;
    }
  /** The worker no longer has the earlier writes open. */
  | { readonly kind: "lost" }
  /** A replayed statement told something else than before. */
  | { readonly kind: "changed"; readonly appliedIndex: LogIndex };

/** A range's storage as the main thread sees it. Batches calls per turn to the worker that owns the file. */
export interface RangeStore extends GroupMachine {
  /** The SQLite file, for runners to pin. */
  readonly path: string;
  appliedIndex(): LogIndex;
  /** The newest stamp's wall time among what was applied: a new leader's stamps do not go back behind it. */
  lastWallMs(): number;
  size(): StoreSize;
  read(read: BoundedRead): Promise<ReadAnswer>;
  speculate(speculation: Speculation): Promise<SpeculationAnswer>;
  /** What is recorded of a transaction at the applied index; undefined when nothing is. */
  outcome(transaction: TransactionId): Promise<"committed" | "aborted" | undefined>;
  /**
   * What was answered here under this key, or that nobody can tell any more, at the applied index; undefined when it was
   * surely not executed.
   */
  answered(key: IdempotencyKey): Promise<CommandResult | undefined>;
  /** Ends a transaction's speculation, if it is the one still open. */
  forget(transaction: TransactionId): void;
  schema(): Promise<SchemaSnapshot>;
  /** Called after an apply that changed the schema, before that apply's results are delivered. */
  onSchema(listener: (schema: SchemaSnapshot) => void): void;
  /** A private copy of the file for a runner to write to. */
  copy(): Promise<{ readonly path: string; readonly appliedIndex: LogIndex; release(): Promise<void> }>;
  /** The range's slice and state as of the applied index told last. Means nothing before anything is applied. */
  state(): RangeState;
  /** How the range began, once it is open; undefined for the first range. */
  beginning(): RangeBeginning | undefined;
  /** Called when `state()` has changed, before the results of the apply that changed it are delivered. */
  onState(listener: (state: RangeState) => void): void;
  /** Children whose files are being made here: they will be told of by `onSplit`. */
  making(): readonly GroupId[];
  /**
   * Called when a child's file is complete and durable, perhaps more than once: also after `open()`, for what an earlier
   * process left unfinished or may not have told, and when the log is applied again. Until the first time `checkpoint()`
   * answers less than the split's index.
   */
  onSplit(listener: (child: SplitChild) => void): void;
  /** Transactions that wait for their decision, as of the applied index. */
  prepared(): Promise<readonly PreparedTransaction[]>;
  /** Rows within the slice, by table; counted on the reader, for splits by rows and for ostraka_ranges. */
  rowCounts(): Promise<ReadonlyMap<string, number>>;
  /** A key that halves the slice by rows (of the tables that can be split), undefined when there is none. */
  splitKey(): Promise<Key | undefined>;
}

/** What is wanted of one of a runner's sources. */
export interface SourceLoad {
  /** Its number, as `addSource` answered. */
  readonly source: number;
  readonly load: ScratchLoad;
}

/** Rows of one table to be placed in a scratch database. */
export interface ScratchLoad {
  /** As the range's file has it. A virtual table (of the home range) comes whole, whatever else is asked. */
  readonly table: string;
  /** Rows of the range's own slice, perhaps narrowed to what a statement can touch. */
  readonly slice: TableSlice;
  /** What rows must meet. */
  readonly where?: ScratchCondition | undefined;
  /** Only the last row of the slice by key: what the next rowid follows from. */
  readonly last?: boolean | undefined;
  /** Only rows that a query finds first. */
  readonly first?: ScratchFirst | undefined;
  /** Of `scan` alone: other rows than the table's own, made from those that `where` lets through. */
  readonly query?: ScratchQuery | undefined;
}

/**
 * Slices of the user's own text around `FROM table WHERE …`; what the table is called in them, their settings and the
 * values of their parameters (numbered `?N`, as many as `where` has values) are those of `where`.
 */
export interface ScratchQuery {
  readonly list: string;
  /** GROUP BY, ORDER BY. */
  readonly tail: string;
}

/** The rows that a query would give first. */
export interface ScratchFirst {
  readonly list: string;
  /** ORDER BY, or "" for the order in which they are found. */
  readonly order: string;
  readonly limit: number;
  /** The slice's bounds may be used to find the rows: they are found in the order of keys anyhow. */
  readonly byKey: boolean;
}

/** A condition over one table's columns: a slice of the user's own text. */
export interface ScratchCondition {
  readonly sql: string;
  /** By number, as `sql` alone numbers them; more than it has are ignored. */
  readonly params: readonly SqlValue[];
  /** What `sql` calls the table, if not by its name. */
  readonly alias?: string | undefined;
  /** Those that change its answer: CaseSensitiveLike. */
  readonly flags?: SessionFlags | undefined;
  /** What 'now' means, and what seeds random(). */
  readonly stamp?: Stamp | undefined;
}

/** Rows of a query, pulled at the consumer's pace from where they are spooled. */
export interface RowStream {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  /** The next chunk of row vectors, about 64 KiB; undefined at the end. Rejects with the statement's error. */
  next(): Promise<{ readonly rows: Uint8Array; readonly count: number } | undefined>;
  /** After the last chunk. */
  summary(): Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">;
  /** Frees what it holds; the query stops if it still runs. */
  close(): Promise<void>;
}

/** A system table's content, placed in a runner's TEMP schema before a statement that reads it. */
export interface SystemTable {
  readonly name: string;
  readonly columns: readonly string[];
  /** Declared types of the columns, where they need affinities. */
  readonly types?: readonly string[] | undefined;
  readonly rows: readonly (readonly SqlValue[])[];
}

export interface RunOptions {
  readonly systemTables: readonly SystemTable[];
  /** The runner is killed and the call rejects with OSTRAKA_TIMEOUT beyond this; undefined for none. */
  readonly timeoutMs: number | undefined;
  readonly maxResultBytes: number;
  /** Memory of the process beyond which it is killed and the call rejects with OSTRAKA_TOO_LARGE. */
  readonly maxMemoryBytes: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * A killable process holding one pin (read-only), or one private copy or scratch database (writable), plus a TEMP schema
 * of its own; and any number of pinned sources of rows.
 */
export interface Runner {
  /** Takes a read snapshot of the replica's file; answers its applied index. Replaces an earlier pin; TEMP objects stay. */
  pin(path: string): Promise<LogIndex>;
  /**
   * Lets the pin go once the running statement is finished; its rows may still be fetched. TEMP objects stay; what was
   * written to them since the pin is undone by "rollback", kept otherwise.
   */
  unpin(how?: "commit" | "rollback"): Promise<void>;
  /** Opens a private, writable copy and begins a transaction on it. */
  openCopy(path: string): Promise<void>;
  /**
   * Makes an empty database with this schema and is ready for statements on it, in one transaction, as on a private
   * copy (run, capture, captured, closeCopy), over rows that `load` and `fill` bring from several ranges. It lives in a
   * temporary file without a name, as far as it does not fit into memory. Row changes are always captured: `capture` need
   * not be called.
   *
   * Requests are answered in order, so that openScratch, addSource, load and run may be sent without waiting in between;
   * when one fails, so do those behind it.
   */
  openScratch(schema: SchemaSnapshot): Promise<void>;
  /** Pins a range's file as a source; answers its number (from 0 on, until `dropSources`) and applied index. */
  addSource(path: string): Promise<{ readonly source: number; readonly appliedIndex: LogIndex }>;
  /**
   * Copies rows from sources into the scratch database, also while its transaction is open. Rows already there stay as
   * they are, and rows that the transaction has deleted stay away; a wider slice may be loaded later. Triggers, CHECK
   * constraints, foreign keys and the capture of changes see nothing of it. What ROLLBACK TO takes away of it comes back
   * by itself. AUTOINCREMENT goes on behind the largest value that any loaded source has seen.
   *
   * A table that the transaction has renamed or altered goes by its present name; one that it has made has no rows
   * elsewhere. Rejects with OSTRAKA_TOO_LARGE when the scratch database has more than `maxBytes`; after any failure it
   * must be closed.
   */
  load(loads: readonly SourceLoad[], maxBytes: number): Promise<{ readonly rows: number }>;
  /**
   * Streams the rows that loads (at least one) name, one load's after the other's. Row vectors are the rowid, unless an
   * INTEGER PRIMARY KEY stands for it, and all columns that are not generated, in table order, exact; see source-rows.ts
   * for virtual tables and sequences.
   */
  scan(loads: readonly SourceLoad[], options: RunOptions): Promise<RowStream>;
  /** Places what `scan` gave of this table, chunk by chunk or concatenated, as `load` does. */
  fill(table: string, rows: Uint8Array, maxBytes: number): Promise<{ readonly rows: number }>;
  /** Lets all sources go; what is loaded stays, but does not come back after ROLLBACK TO. */
  dropSources(): Promise<void>;
  /** Ends the private copy or scratch database; TEMP objects stay. `commit` fails as COMMIT would (deferred foreign keys), leaving it open. */
  closeCopy(how: "commit" | "rollback"): Promise<void>;
  /** Runs a statement on whichever is open. Its error rejects the call or the first `next()`. */
  run(statement: StampedStatement, options: RunOptions): Promise<RowStream>;
  /** Starts recording row changes on the private copy; must precede the writes. */
  capture(): Promise<void>;
  captured(): Promise<readonly RowChange[]>;
  /** The same, encoded. */
  capturedBytes(): Promise<Uint8Array>;
  /** What rows written since it was last asked have in UNIQUE indexes, also those of statements that were undone. */
  takeUniqueKeys(): Promise<UniqueKeysOf>;
  /** Tables that the transaction has given another name, or made, on a copy whose changes are captured. */
  tableNames(): Promise<TableNames>;
  /**
   * A statement ended the whole transaction (OR ROLLBACK, RAISE(ROLLBACK)): told by the time its error is. Statements
   * are refused until the next pin or copy.
   */
  readonly rolledBack: boolean;
  /** True once the process has died or was killed; nothing else works then. */
  readonly dead: boolean;
  kill(): void;
}

export interface RunnerPool {
  /** A runner without pin, copy or TEMP objects. Waits when all are busy (bounded), then OSTRAKA_UNAVAILABLE. */
  acquire(signal?: AbortSignal): Promise<Runner>;
  /** Gives it back; one with TEMP objects, or not idle, is killed and replaced. */
  release(runner: Runner): void;
  /** Runners whose pins keep the WAL of `path` from being reset, oldest first; for the WAL cap. */
  pinned(path: string): readonly Runner[];
  close(): Promise<void>;
}
