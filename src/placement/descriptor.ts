/**
 * Ranges as everybody knows them: which slice of the keyspace is where. A range's own replicas are the authority on its
 * descriptor (it changes by commands in its log, and its generation grows with every change); meta's directory and
 * every gateway's are copies that may lag behind, and are healed by whoever meets a newer one.
 */
import type { GroupId, NodeId } from "../base/ids.js";
import { type Key, tableEnd, tableStart } from "../base/keys.js";
import type { SqlValue } from "../base/values.js";

/** The keys from `start` on and before `end` (empty: no bound), and the group that has them. */
export interface RangeDescriptor {
  /** The range's group, which is its id. */
  readonly range: GroupId;
  readonly start: Key;
  readonly end: Key;
  /** Grows with every split and merge that the range takes part in. */
  readonly generation: number;
  /** Voters and learners as last told; for finding a leader, and for placement. */
  readonly replicas: readonly NodeId[];
}

/** How a table's rows are spread over the keyspace. */
export interface TableKey {
  /** Lower-case. */
  readonly name: string;
  /** Stable for the table's life, also when it is renamed; never used again. 0 (HOME_TABLE_ID) while it is "home". */
  readonly id: number;
  /**
   * "rowid": by rowid. "key": WITHOUT ROWID, by its primary key. "home": the whole table stays in the first range
   * (virtual tables and their shadow tables, tables whose triggers feed them, keys that cannot be ordered bytewise).
   */
  readonly shard: "rowid" | "key" | "home";
  /**
   * What the key's values are called: the primary key's columns of a "key" table, in key order; one name of the rowid
   * of a "rowid" table ("rowid", or another where a column is called that); nothing for "home".
   */
  readonly keyColumns: readonly string[];
  readonly autoincrement: boolean;
}

/** An interval of keys: from `start` on, before `end`; an empty end is no bound. */
export interface KeySpan {
  readonly start: Key;
  readonly end: Key;
}

/**
 * Rows of one table by shard key values: from `low` on, before `high`; fewer values than the key has are prefixes.
 * See slice.ts for how one is made and turned into SQL.
 */
export interface TableSlice {
  readonly low: readonly SqlValue[] | undefined;
  readonly high: readonly SqlValue[] | undefined;
  /** The slice begins behind all keys that begin with `low`, instead of with them. Of "key" tables only. */
  readonly lowAfter?: boolean | undefined;
  /** The slice ends behind all keys that begin with `high`, instead of before them. Of "key" tables only. */
  readonly highAfter?: boolean | undefined;
}

export function isBefore(key: Key, end: Key): boolean {
  return end === "" || key < end;
}

export function covers(outer: KeySpan, inner: KeySpan): boolean {
  return outer.start <= inner.start && (outer.end === "" || (inner.end !== "" && inner.end <= outer.end));
}

export function overlaps(a: KeySpan, b: KeySpan): boolean {
  return isBefore(a.start, b.end) && isBefore(b.start, a.end);
}

export function tableSpan(tableId: number): KeySpan {
  return { start: tableStart(tableId), end: tableEnd(tableId) };
}

export function isWhole({ start, end }: KeySpan): boolean {
  return start === "" && end === "";
}
