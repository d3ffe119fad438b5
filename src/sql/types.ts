/**
 * What is known of a statement before it runs. SQLite is the authority (through the SchemaOracle); the parser may
 * only narrow what SQLite said. Results are cached by text and schema version.
 */
import type { SqlValue } from "../base/values.js";

/** A statement as it travels: its own text, and the values of its parameters by SQLite's numbering (1..n → 0..n-1). */
export interface Statement {
  readonly sql: string;
  readonly params: readonly SqlValue[];
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

export interface Footprint {
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
}

/**
 * How much work a statement may be, as far as can be told without running it.
 * "bounded": a handful of key operations whatever the data; may run in the storage worker and be proposed as text.
 * "unknown": must first run where it can be killed.
 */
export type Cost = "bounded" | "unknown";

export interface Analysis {
  readonly class: StatementClass;
  readonly readonly: boolean;
  /** Returns rows (SELECT, RETURNING, some pragmas). */
  readonly returnsRows: boolean;
  readonly cost: Cost;
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
  /** Spans for these parameter values. */
  footprint(params: readonly SqlValue[]): Footprint;
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
  table(name: string): TableFacts | undefined;
}

export interface PreparedFacts {
  readonly readonly: boolean;
  readonly returnsRows: boolean;
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
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
