/**
 * From spans of the keyspace to rows of tables, and to the SQL that says which rows those are.
 *
 * Invariants:
 * 1. A row is in `sliceOf(table, span)` exactly if its key is in the span.
 * 2. `sliceCondition` holds for exactly the rows of a slice, and each of `outsideConditions` for rows outside of it
 *    only, all of them together for every such row. SQLite can seek by every one of them.
 */
import { decodeKey, type Key } from "../base/keys.js";
import type { SqlValue } from "../base/values.js";
import {
  covers,
  isBefore,
  type KeySpan,
  overlaps,
  type TableKey,
  type TableSlice,
  tableSpan,
} from "./descriptor.js";

export interface SqlCondition {
  readonly sql: string;
  readonly params: readonly SqlValue[];
}

const WHOLE_TABLE: TableSlice = { low: undefined, high: undefined };
const MIN_ROWID = -(1n << 63n);
const MAX_ROWID = (1n << 63n) - 1n;
const NO_VALUES: readonly SqlValue[] = [];

/** The rows of a table whose keys lie in the span; undefined when none can. */
export function sliceOf(table: TableKey, span: KeySpan): TableSlice | undefined {
  const all = tableSpan(table.id);
  if (table.shard === "home") return covers(span, all) ? WHOLE_TABLE : undefined;
  if (!overlaps(span, all)) return undefined;
  const start = span.start <= all.start ? undefined : span.start;
  const end = span.end === "" || (all.end !== "" && span.end >= all.end) ? undefined : span.end;
  if (start === undefined && end === undefined) return WHOLE_TABLE;
  return table.shard === "rowid" ? rowidSlice(start, end) : keySlice(table, start, end);
}

/** Whether a range with this span has all rows of the table. */
export function isWholeTable({ low, high }: TableSlice): boolean {
  return low === undefined && high === undefined;
}

/** SQL that holds for the rows of a slice; "1" for all of the table. */
export function sliceCondition(table: Pick<TableKey, "keyColumns">, slice: TableSlice): SqlCondition {
  const { low, high, lowAfter, highAfter } = slice;
  const parts: SqlCondition[] = [];
  if (low !== undefined) parts.push(compare(table, lowAfter ? ">" : ">=", low));
  if (high !== undefined) parts.push(compare(table, highAfter ? "<=" : "<", high));
  if (parts.length === 0) return { sql: "1", params: NO_VALUES };
  return {
    sql: parts.map(({ sql }) => sql).join(" AND "),
    params: parts.flatMap(({ params }) => params),
  };
}

/** SQL that holds for rows outside of a slice (undefined: the table has no rows inside). */
export function outsideConditions(table: TableKey, slice: TableSlice | undefined): SqlCondition[] {
  if (slice === undefined) return [{ sql: "1", params: NO_VALUES }];
  const { low, high, lowAfter, highAfter } = slice;
  const parts: SqlCondition[] = [];
  if (low !== undefined) parts.push(compare(table, lowAfter ? "<=" : "<", low));
  if (high !== undefined) parts.push(compare(table, highAfter ? ">" : ">=", high));
  return parts;
}

/** The key's columns as SQL, in key order. */
export function keyExpressions(table: Pick<TableKey, "keyColumns">): string[] {
  const names = table.keyColumns.length === 0 ? ["rowid"] : table.keyColumns;
  return names.map((name) => `"${name.replaceAll('"', '""')}"`);
}

function compare(
  table: Pick<TableKey, "keyColumns">,
  operator: string,
  values: readonly SqlValue[],
): SqlCondition {
  const columns = keyExpressions(table).slice(0, values.length);
  const marks = columns.map(() => "?");
  const sql =
    columns.length === 1
      ? `${columns[0]} ${operator} ?`
      : `(${columns.join(", ")}) ${operator} (${marks.join(", ")})`;
  return { sql, params: values };
}

function rowidSlice(start: Key | undefined, end: Key | undefined): TableSlice | undefined {
  const low = start === undefined ? MIN_ROWID : firstRowidFrom(start);
  const high = end === undefined ? MAX_ROWID + 1n : firstRowidFrom(end);
  if (low >= high) return undefined;
  return { low: low <= MIN_ROWID ? undefined : [low], high: high > MAX_ROWID ? undefined : [high] };
}

/** The least rowid whose key is not before this key of the table; beyond the last one when there is none. */
function firstRowidFrom(key: Key): bigint {
  const { values, after } = decodeKey(key);
  const value = values[0];
  if (value === undefined) return after ? MAX_ROWID + 1n : MIN_ROWID;
  if (typeof value === "bigint") return values.length > 1 || after ? value + 1n : value;
  if (value === null) return MIN_ROWID;
  if (typeof value !== "number" || value >= 2 ** 63) return MAX_ROWID + 1n;
  return value < -(2 ** 63) ? MIN_ROWID : BigInt(Math.ceil(value));
}

function keySlice(table: TableKey, start: Key | undefined, end: Key | undefined): TableSlice | undefined {
  const from = start === undefined ? undefined : bound(table, start);
  const to = end === undefined ? undefined : bound(table, end);
  // Bounds without values are behind everything (before everything they are the table's own).
  if (from?.values.length === 0 || (start !== undefined && end !== undefined && !isBefore(start, end)))
    return undefined;
  const high = to?.values.length === 0 ? undefined : to;
  return {
    low: from?.values,
    high: high?.values,
    ...(from?.after ? { lowAfter: true } : {}),
    ...(high?.after ? { highAfter: true } : {}),
  };
}

function bound(table: TableKey, key: Key): { readonly values: readonly SqlValue[]; readonly after: boolean } {
  const { values, after } = decodeKey(key);
  const { length } = table.keyColumns;
  return values.length > length ? { values: values.slice(0, length), after: true } : { values, after };
}
