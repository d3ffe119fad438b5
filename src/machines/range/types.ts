/**
 * The range machine's vocabulary: the commands in its log, what applying them answers, and how the main thread talks
 * to the storage worker that owns the SQLite file (RangeStore) and to the killable processes that run whatever might
 * take long (Runner).
 */

import type { WireError } from "../../base/errors.js";
import type { LogIndex, TransactionId } from "../../base/ids.js";
import type { SqlValue } from "../../base/values.js";
import type { GroupMachine } from "../../multiraft/types.js";
import type { SessionFlags } from "../../sql/types.js";

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
    }
  /** The row changes of a transaction whose text must not run again (too expensive, or not deterministic). No triggers, no foreign key actions. */
  | {
      readonly kind: "rows";
      readonly key: IdempotencyKey;
      readonly wallMs: number;
      readonly transaction: TransactionId;
      readonly changes: readonly RowChange[];
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
    };

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
      /** Of a tombstone only: what is, or is now, recorded of the transaction; "unknown" when it may have been forgotten. */
      readonly decision?: TransactionDecision;
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
}

/** How big the state is, told with every apply answer; for cost decisions and splits. */
export interface StoreSize {
  readonly databaseBytes: number;
  readonly walBytes: number;
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
  read(read: BoundedRead): Promise<{ readonly appliedIndex: LogIndex; readonly outcome: StatementOutcome }>;
  speculate(speculation: Speculation): Promise<SpeculationAnswer>;
  /** What is recorded of a transaction at the applied index; undefined when nothing is. */
  outcome(transaction: TransactionId): Promise<"committed" | "aborted" | undefined>;
  /** Ends a transaction's speculation, if it is the one still open. */
  forget(transaction: TransactionId): void;
  schema(): Promise<SchemaSnapshot>;
  /** Called after an apply that changed the schema, before that apply's results are delivered. */
  onSchema(listener: (schema: SchemaSnapshot) => void): void;
  /** A private copy of the file for a runner to write to. */
  copy(): Promise<{ readonly path: string; readonly appliedIndex: LogIndex; release(): Promise<void> }>;
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

/** A killable process holding one pin (read-only) or one private copy (writable), plus a TEMP schema of its own. */
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
  /** Ends the private copy; TEMP objects stay. `commit` fails as COMMIT would (deferred foreign keys), leaving it open. */
  closeCopy(how: "commit" | "rollback"): Promise<void>;
  /** Runs a statement on whichever is open. Its error rejects the call or the first `next()`. */
  run(statement: StampedStatement, options: RunOptions): Promise<RowStream>;
  /** Starts recording row changes on the private copy; must precede the writes. */
  capture(): Promise<void>;
  captured(): Promise<readonly RowChange[]>;
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
