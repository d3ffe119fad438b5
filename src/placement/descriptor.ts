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
  /** Stable for the table's life, also when it is renamed; never used again. */
  readonly id: number;
  /**
   * "rowid": by rowid. "key": WITHOUT ROWID, by its primary key. "home": the whole table stays in the first range
   * (virtual tables and their shadow tables, tables whose triggers feed them, keys that cannot be ordered bytewise).
   */
  readonly shard: "rowid" | "key" | "home";
  /** Primary key columns of a "key" table, in key order. */
  readonly keyColumns: readonly string[];
  readonly autoincrement: boolean;
}

/** An interval of keys: from `start` on, before `end`; an empty end is no bound. */
export interface KeySpan {
  readonly start: Key;
  readonly end: Key;
}

/** Rows of one table by shard key values: from `low` on, before `high`; fewer values than the key has are prefixes. */
export interface TableSlice {
  readonly low: readonly SqlValue[] | undefined;
  readonly high: readonly SqlValue[] | undefined;
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
