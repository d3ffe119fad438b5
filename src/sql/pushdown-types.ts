/**
 * What of a statement can be done where the rows are, range by range, before the statement itself runs over what is left.
 * Texts are slices of the statement (pushdown-slices.ts): the values of its parameters may be bound to any of them.
 */
import type { StatementParser } from "./syntax.js";
import type { SchemaOracle } from "./types.js";

/** How a table's rows are spread; see TableKey in src/placement. */
export interface KeyFacts {
  readonly shard: "rowid" | "key" | "home";
  readonly keyColumns: readonly string[];
}

export interface PushdownSchema {
  readonly oracle: SchemaOracle;
  readonly parser: StatementParser;
  key(table: string): KeyFacts | undefined;
}

/** Rows of a table that cannot matter are those for which this does not hold. */
export interface TableFilter {
  /** What `sql` calls the table, if not by its name. */
  readonly alias: string | undefined;
  readonly sql: string;
  /** Evaluating it may fail, for a row for which the statement itself would not have evaluated it. */
  readonly mayRaise: boolean;
}

/** A query of one table alone. */
interface OneTable {
  readonly table: string;
  readonly alias: string | undefined;
  /** "1" when all rows count. */
  readonly where: string;
}

export type Direction = "ascending" | "descending";

/** Every range's rows, as the statement's own text makes them, one range after the other in the order of keys. */
export interface MergedRows extends OneTable {
  readonly kind: "merge";
  readonly list: string;
  readonly tail: string;
  readonly direction: Direction;
}

/** The value of LIMIT or OFFSET. */
export type Count = { readonly value: bigint } | { readonly parameter: number };

/** Only the first rows of each range can be among the first of all. */
export interface FirstRows extends OneTable {
  readonly kind: "first";
  readonly list: string;
  /** "" for the order in which rows are found. */
  readonly order: string;
  readonly limit: Count;
  readonly offset: Count | undefined;
  /** The order is that of keys: the ranges at this end may have enough. */
  readonly direction: Direction | undefined;
  /** Rows are found in the order of keys: bounds on the key do not change the order. */
  readonly byKey: boolean;
  /** Looking for them may fail, for a row for which the statement itself would not have. */
  readonly mayRaise: boolean;
}

/** Aggregates of each range, put together in a table `PARTIAL_TABLE`. */
export interface PartialAggregates extends OneTable {
  readonly kind: "aggregate";
  readonly list: string;
  readonly tail: string;
  /** Names of the columns, and the types that give them the affinities of the expressions they stand for ("" for none). */
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  /** Answers a row when what the ranges answered cannot be put together exactly. */
  readonly check: string | undefined;
  readonly merge: string;
}

export type OneTableForm = MergedRows | FirstRows | PartialAggregates;

export const PARTIAL_TABLE = "_ostraka_partial";

export interface Pushdown {
  /** Of the schema that it is right for. */
  readonly version: number;
  /** By table (lower-case): what its rows must meet, one of them at least. Tables that are not here are needed whole. */
  readonly filters: ReadonlyMap<string, readonly TableFilter[]>;
  readonly form: OneTableForm | undefined;
  /** Of the statement itself: a form's rows may bear other names. */
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
}
