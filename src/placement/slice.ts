/** Rows of a table within a span of keys. */
import { decodeKey, HOME_TABLE_ID } from "../base/keys.js";
import { type KeySpan, overlaps, type TableKey, type TableSlice, tableSpan } from "./descriptor.js";

export function sliceOf(table: TableKey, span: KeySpan): TableSlice | undefined {
  const id = table.shard === "home" ? HOME_TABLE_ID : table.id;
  const own = tableSpan(id);
  if (!overlaps(own, span)) return undefined;
  return {
    low: span.start <= own.start ? undefined : decodeKey(span.start).values,
    high: span.end === "" || span.end >= own.end ? undefined : decodeKey(span.end).values,
  };
}
