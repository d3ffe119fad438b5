/**
 * A table's slice as a condition in SQL, for those who read or delete rows by slice. Pure: the text is made from names
 * alone, the bounds are parameters.
 */
import type { SqlValue } from "../base/values.js";
import type { TableKey, TableSlice } from "./descriptor.js";

export interface SliceCondition {
  /** Over the table's columns, with one `?` for each of `params` in order; "" when the slice is the whole table. */
  readonly sql: string;
  readonly params: readonly SqlValue[];
}

/**
 * `rowid` is a name of the table's rowid, quoted where it must be, for tables with a column called "rowid". Bounds of a
 * table that is not spread over ranges ("home") must be open.
 */
export function sliceCondition(
  table: Pick<TableKey, "shard" | "keyColumns">,
  { low, high }: TableSlice,
  rowid = "rowid",
): SliceCondition {
  const key = table.shard === "key" ? table.keyColumns.map(quoted) : [rowid];
  const parts: string[] = [];
  const params: SqlValue[] = [];
  for (const [values, operator] of [
    [low, ">="],
    [high, "<"],
  ] as const) {
    if (values === undefined || values.length === 0) continue;
    // What begins with a prefix is at or after the prefix itself, so its columns alone decide.
    const columns = key.slice(0, values.length);
    if (columns.length < values.length || table.shard === "home")
      throw new RangeError("a slice's bound has more values than the table's key");
    const marks = columns.map(() => "?").join(", ");
    parts.push(
      columns.length === 1 ? `${columns[0]} ${operator} ?` : `(${columns.join(", ")}) ${operator} (${marks})`,
    );
    params.push(...values);
  }
  return { sql: parts.join(" AND "), params };
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
