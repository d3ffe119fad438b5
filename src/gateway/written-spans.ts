/** What a transaction over several ranges writes, as spans: of the rows that change, and of what UNIQUE indexes get. */
import type { RowChange } from "../machines/range/types.js";
import { lowerAscii } from "../sql/tokenizer.js";
import { END_OF_TABLE, type Span, UNIQUE_KEYS } from "../sql/types.js";

/** To UNIQUE indexes, by table; null where it cannot be told. */
export type Added = ReadonlyMap<string, Iterable<bigint> | null>;
/** Beyond this a table's changed rows are held as one interval. */
const MAX_POINTS = 256;

/** What nobody else may have added for what was added not to have been there. */
export function notAdded(tables: Iterable<string>, added: Added): readonly Span[] {
  return [...tables].flatMap(
    (table) => uniqueSpans(table, added) ?? [{ table, low: undefined, high: undefined }],
  );
}

/** What the tables of these changes got in their UNIQUE indexes. */
export function addedSpans(changes: readonly RowChange[], added: Added): readonly Span[] {
  const tables = new Set(changes.map(({ table }) => lowerAscii(table)));
  return [...tables].flatMap((table) => uniqueSpans(table, added) ?? [{ table, ...UNIQUE_KEYS }]);
}

/** Undefined when they are not known, or too many to be named. */
function uniqueSpans(table: string, added: Added): readonly Span[] | undefined {
  const keys = added.get(table);
  if (keys === null) return undefined;
  const spans = Array.from(keys ?? [], (key) => ({ table, low: key, high: key }));
  return spans.length > MAX_POINTS ? undefined : spans;
}

/** What is held until the decision, and conflicts with what others have read: exactly the rows that change. */
export function writtenSpans(
  changes: readonly RowChange[],
  appended: ReadonlySet<string>,
  ownerOf: (table: string) => string,
): readonly Span[] {
  const keys = new Map<string, bigint[]>();
  const wholes = new Set<string>();
  const owners = new Map<string, string>();
  for (const { table, key } of changes) {
    const name = lowerAscii(table);
    const [rowid] = key;
    let owner = owners.get(name);
    if (owner === undefined) {
      owner = ownerOf(name);
      owners.set(name, owner);
    }
    if (owner !== name) wholes.add(owner);
    else if (key.length !== 1 || typeof rowid !== "bigint") wholes.add(name);
    else if (keys.has(name)) keys.get(name)!.push(rowid);
    else keys.set(name, [rowid]);
  }
  const spans: Span[] = [...wholes].map((table) => ({ table, low: undefined, high: undefined }));
  for (const [table, rowids] of keys) {
    if (wholes.has(table)) continue;
    if (rowids.length <= MAX_POINTS) spans.push(...rowids.map((key) => ({ table, low: key, high: key })));
    else {
      rowids.sort((a, b) => (a < b ? -1 : 1));
      spans.push({ table, low: rowids[0], high: rowids.at(-1) });
    }
    // Whoever lets SQLite choose a key reads the table's end.
    if (appended.has(table)) spans.push({ table, low: END_OF_TABLE, high: END_OF_TABLE });
  }
  return spans;
}
