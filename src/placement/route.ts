/** Which keys, and so which ranges, the spans of a footprint mean. */
import { encodeKey, encodeKeyAfter, HOME_TABLE_ID, tableEnd, tableStart } from "../base/keys.js";
import type { Span } from "../sql/types.js";
import type { KeySpan, RangeDescriptor, TableKey } from "./descriptor.js";
import type { RangeDirectory } from "./directory.js";

const EVERYTHING: KeySpan = { start: "", end: "" };

export function spanToKeys(span: Span, tables: readonly TableKey[]): readonly KeySpan[] {
  const table = tables.find(({ name }) => name === span.table);
  if (table === undefined) return [EVERYTHING];
  const id = table.shard === "home" ? HOME_TABLE_ID : table.id;
  if (table.shard !== "rowid") return [{ start: tableStart(id), end: tableEnd(id) }];
  if (span.low !== undefined && span.low > 0x7fffffffffffffffn)
    return [{ start: encodeKeyAfter(id, [0x7fffffffffffffffn]), end: tableEnd(id) }];
  const high = span.high !== undefined && span.high <= 0x7fffffffffffffffn ? span.high : undefined;
  return [
    {
      start: span.low === undefined ? tableStart(id) : encodeKey(id, [span.low]),
      end: high === undefined ? tableEnd(id) : encodeKeyAfter(id, [high]),
    },
  ];
}

export function rangesOf(
  spans: readonly Span[],
  tables: readonly TableKey[],
  directory: RangeDirectory,
): readonly RangeDescriptor[] {
  if (directory.ranges.length === 1) return directory.ranges;
  const found = new Set<RangeDescriptor>();
  for (const span of spans)
    for (const keys of spanToKeys(span, tables))
      for (const range of directory.between(keys)) found.add(range);
  return directory.ranges.filter((range) => found.has(range));
}
