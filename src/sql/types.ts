/**
 * What is known of a statement before it runs. SQLite is the authority (through the SchemaOracle); the parser may
 * only narrow what SQLite said. Results are cached by text and schema version.
 */
import type { SqlValue } from "../base/values.js";
import type { Probed } from "./probes.js";

/** A statement as it travels: its own text, and the values of its parameters by SQLite's numbering (1..n → 0..n-1). */
export interface Statement {
  readonly sql: string;
  readonly params: readonly SqlValue[];
  /** `params` as they came, encoded (src/base/values.ts), for whoever passes them on; need not be there. */
  readonly vector?: Uint8Array | undefined;
}

/** Session settings that change what a statement does; they travel with commands. */
export const SessionFlag = {
  ForeignKeysOff: 1,
  DeferForeignKeys: 2,
  RecursiveTriggers: 4,
  CaseSensitiveLike: 8,
  IgnoreCheckConstraints: 16,
} as const;
export type SessionFlags = number;

/** What kind of thing a statement is, told from its tokens alone, before anything is prepared. */
export type StatementClass =
  | { readonly kind: "empty" }
  | {
      readonly kind: "begin";
      readonly mode: "deferred" | "immediate" | "exclusive" | "concurrent" | "read only";
    }
  | { readonly kind: "commit" }
  | { readonly kind: "rollback" }
  | { readonly kind: "savepoint"; readonly name: string }
  | { readonly kind: "release"; readonly name: string }
  | { readonly kind: "rollback to"; readonly name: string }
  | {
      readonly kind: "pragma";
      readonly schema: string | undefined;
      readonly name: string;
      readonly argument: string | undefined;
      readonly assigned: boolean;
    }
  | { readonly kind: "explain"; readonly queryPlan: boolean }
  | { readonly kind: "vacuum"; readonly into: boolean }
  | { readonly kind: "attach" | "detach" | "analyze" | "reindex" }
  /** CREATE, DROP, ALTER. `temp` when the object is created in, or qualified by, temp. */
  | { readonly kind: "ddl"; readonly temp: boolean }
  /** SELECT, VALUES, WITH … SELECT. */
  | { readonly kind: "select" }
  /** INSERT, REPLACE, UPDATE, DELETE, with or without WITH. */
  | { readonly kind: "write" };

/**
 * An interval of keys of one table: by rowid or INTEGER PRIMARY KEY, inclusive bounds; undefined is unbounded.
 * `keyFrom` parameters are resolved by the time a span is made. Tables keyed otherwise use the whole table.
 */
export interface Span {
  /** Lower-case table name. "" stands for the schema itself: reading it is reading the schema version. */
  readonly table: string;
  readonly low: bigint | undefined;
  readonly high: bigint | undefined;
}

/** The table name of a span that stands for every table, and the schema. */
export const EVERY_TABLE = "*";
/** The table name of the span that stands for the schema. */
export const SCHEMA = "";
/** The table name of the span that stands for user_version and application_id, which the first range has. */
export const HEADER = "_ostraka_header";
/**
 * The key that stands for "rows that do not exist yet, with keys that SQLite will choose": beyond every rowid, so
 * that it lies in every span without upper bound. An INSERT without a key reads and writes only this; whatever could
 * be changed by a row that appears under an unforeseen key (a search that found nothing, a bounded range) reads it.
 */
export const END_OF_TABLE: bigint = 1n << 63n;
/**
 * Beyond that: what a table's UNIQUE indexes hold, a key for each value or list of values, by their hash. Whoever adds
 * some writes their keys, or all of these where the values are not known before; a constraint that nothing was found
 * to break has read those of its own values. They lie where the rows lie, in all of the table's ranges.
 */
export const UNIQUE_KEYS = { low: END_OF_TABLE + 1n, high: (1n << 64n) - 1n } as const;

/** See footprint.ts for what each part means and why it is enough for strict serializability. */
export interface Footprint {
  /** What must not have been written since, when the statement's text is run again and its outcome compared. */
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
  /**
   * What the statement looked at only to check constraints. Its outcome, compared when the text is run again, covers
   * it; it counts as read where nothing is run again: when the statement failed, or when its row changes are replicated.
   */
  readonly checks: readonly Span[];
}

/** What a statement answered, as far as it narrows its footprint. */
export interface SeenOutcome {
  readonly rowCount: number;
  readonly changes: number;
}

/**
 * How much work a statement may be, as far as can be told without running it.
 * "bounded": a handful of key operations whatever the data; may run in the storage worker and be proposed as text.
 * "scan": at most linear in the size of the tables (one level of scans, sorts, DDL); as good as bounded on a small database.
 * "unknown": must first run where it can be killed.
 */
export type Cost = "bounded" | "scan" | "unknown";

/**
 * What a statement looks at to see that what it adds to UNIQUE indexes is not there yet. When it has succeeded, nothing
 * but the same values being added meanwhile could have made it fail.
 */
export interface UniqueChecks {
  /** Lower-case; the checks of a footprint have each of them whole. */
  readonly tables: ReadonlySet<string>;
  /** All other checks, for these parameter values. */
  others(params: readonly SqlValue[]): readonly Span[];
}

export interface Analysis {
  readonly class: StatementClass;
  readonly readonly: boolean;
  /** Returns rows (SELECT, RETURNING, some pragmas). */
  readonly returnsRows: boolean;
  readonly cost: Cost;
  /** Of the schema that this is true of; undefined where it is true of any. */
  readonly schemaVersion?: number | undefined;
  /** Names of parameters by index (undefined for plain `?`), e.g. ":id", "@x", "$y", "?3". */
  readonly parameters: readonly (string | undefined)[];
  /** Touches TEMP objects or pragma/system tables that only the session's own scratch process can answer. */
  readonly touchesTemp: boolean;
  /** Names of ostraka_* system tables that are read, lower-case. */
  readonly systemTables: readonly string[];
  /** Text must not be replicated: apply row changes instead (OR IGNORE/FAIL over many rows, LIMIT without ORDER BY, ...). */
  readonly rowChangesOnly: boolean;
  /** Calls random(), a date function with 'now', or CURRENT_*: directly, or through a trigger, view or default. */
  readonly usesStamp: boolean;
  /**
   * Spans for these parameter values; narrower where the outcome is known (a key that was found cannot be touched by
   * rows that appear later).
   */
  footprint(params: readonly SqlValue[], seen?: SeenOutcome): Footprint;
  /**
   * For these parameter values: which rows of the tables that it looks at whole only to check constraints can make it
   * succeed or fail. Undefined where all can.
   */
  readonly probed?: ((params: readonly SqlValue[]) => Probed) | undefined;
  /** Of the checks, those of UNIQUE indexes; undefined where there are none. */
  readonly uniqueChecks?: UniqueChecks | undefined;
  /** Analysed with foreign keys off, since it does not compile otherwise: what a session that has them on is told. */
  readonly withoutForeignKeys?: Error | undefined;
  /** Writes sqlite_stat tables directly: the schema must be loaded again at the same log position on every replica. */
  readonly writesStatistics: boolean;
  /**
   * The text to run, when it differs from the user's: sqlite_schema hidden behind a view, and so on. Values of
   * changes(), total_changes() and last_insert_rowid() at top level are bound by `bindSession`.
   */
  readonly sql: string;
}

/** What SQLite itself says about a statement on a schema-only in-memory database; implemented in src/machines/range. */
export interface SchemaOracle {
  readonly version: number;
  /** Throws UserError with SQLite's code and message when the statement does not compile. */
  prepare(sql: string): PreparedFacts;
  /** Rows of EXPLAIN: opcode program. */
  explain(sql: string): readonly OpcodeRow[];
  /** Rows of EXPLAIN QUERY PLAN. */
  explainQueryPlan(
    sql: string,
  ): readonly { readonly id: number; readonly parent: number; readonly detail: string }[];
  /** From the b-tree root pages of EXPLAIN to tables and indexes. */
  objectByRootPage(
    database: number,
    rootPage: number,
  ): { readonly name: string; readonly table: string; readonly kind: "table" | "index" } | undefined;
  /** What the b-tree of an index, or of a table without rowid, is ordered by; undefined for others. */
  keyColumns?(rootPage: number): readonly KeyColumn[] | undefined;
  /** Whether a b-tree is that of a UNIQUE index; without it any index may be. */
  isUniqueIndex?(rootPage: number): boolean;
  table(name: string): TableFacts | undefined;
  /** The text that made a table, a view or an index of the shared database; automatic ones have none. */
  text?(name: string): string | undefined;
  /** The session's TEMP objects (names in lower case); without it there may be any. */
  readonly temp?: { readonly names: ReadonlySet<string>; readonly triggers: boolean };
  /** All virtual tables with their text, to tell which one a program opens; without it they are taken for everything. */
  virtualTables?(): readonly { readonly name: string; readonly sql: string }[];
}

export interface PreparedFacts {
  readonly readonly: boolean;
  readonly returnsRows: boolean;
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  /** It compiles only while foreign keys are off; else it fails so. */
  readonly withoutForeignKeys?: Error | undefined;
}

export interface OpcodeRow {
  readonly addr: number;
  readonly opcode: string;
  readonly p1: number;
  readonly p2: number;
  readonly p3: number;
  readonly p4: string | null;
  readonly p5: number;
}

/** Of a b-tree of the shared database. */
export interface KeyColumn {
  /** Undefined for an expression and for the rowid. */
  readonly name: string | undefined;
  readonly collation: string;
  /** Numbers are stored as REAL. */
  readonly real: boolean;
}

export interface TableFacts {
  readonly name: string;
  readonly kind: "table" | "view" | "virtual" | "shadow";
  readonly withoutRowid: boolean;
  /** Column that is the rowid alias, if any. */
  readonly integerPrimaryKey: string | undefined;
  readonly autoincrement: boolean;
  readonly columns: readonly string[];
  readonly hasTriggers: boolean;
}
