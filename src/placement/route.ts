/**
 * From what a statement touches (spans of a table's rows) to where that lies (keys, ranges).
 *
 * - "*" is the whole keyspace. "" is the schema, of which every range has a copy: reading it is reading any, so it lies
 *   nowhere in particular; who writes it has to see to it that all ranges do. HEADER is in the first range.
 * - A "rowid" table's spans are intervals of its keys. END_OF_TABLE is behind all of them: in the table's last range.
 *   What is beyond, UNIQUE_KEYS, is in all of them.
 * - A "key" table's spans are the whole table.
 * - "home" tables lie together under HOME_TABLE_ID.
 * - A table that is not known (the schema at hand is older) may lie anywhere: the whole keyspace.
 */
import { encodeKey, encodeKeyAfter, HOME_TABLE_ID, type Key, tableEnd, tableStart } from "../base/keys.js";
import { END_OF_TABLE, EVERY_TABLE, type Footprint, HEADER, SCHEMA, type Span } from "../sql/types.js";
import { covers, isWhole, type KeySpan, type RangeDescriptor, type TableKey } from "./descriptor.js";
import type { RangeDirectory } from "./directory.js";

type ByName = ReadonlyMap<string, TableKey>;

const LEAST_ROWID = -(1n << 63n);
const LAST_ROWID = (1n << 63n) - 1n;
const EVERYWHERE: KeySpan = { start: "", end: "" };

/** Lists of tables come with schemas, which live for long: each is looked up by name again and again. */
const namesOf = new WeakMap<readonly TableKey[], ByName>();

function byName(tables: readonly TableKey[]): ByName {
  let names = namesOf.get(tables);
  if (names === undefined) {
    names = new Map(tables.map((table) => [table.name, table]));
    namesOf.set(tables, names);
  }
  return names;
}

/** The least key at which a range may be split: tables that stay whole are in front of it. */
export const FIRST_SPLIT_KEY: Key = tableEnd(HOME_TABLE_ID);

/** The keys that a table's rows may have. */
export function tableKeySpan(table: TableKey): KeySpan {
  const id = table.shard === "home" ? HOME_TABLE_ID : table.id;
  return { start: tableStart(id), end: tableEnd(id) };
}

/** The intervals of keys that a span covers: one, or none for the schema. */
export function spanToKeys(span: Span, tables: readonly TableKey[]): readonly KeySpan[] {
  if (span.table === SCHEMA) return [];
  if (span.table === EVERY_TABLE) return [EVERYWHERE];
  if (span.table === HEADER) return [{ start: "", end: FIRST_SPLIT_KEY }];
  const table = byName(tables).get(span.table);
  if (table === undefined) return [EVERYWHERE];
  if (table.shard !== "rowid" || isOfUniqueKeys(span)) return [tableKeySpan(table)];
  return [{ start: rowidStart(table.id, span.low), end: rowidEnd(table.id, span.high) }];
}

function rowidStart(id: number, low: bigint | undefined): Key {
  if (low === undefined || low <= LEAST_ROWID) return tableStart(id);
  return low > LAST_ROWID ? encodeKeyAfter(id, [LAST_ROWID]) : encodeKey(id, [low]);
}

/** Behind every row of up to `high`, and no further than to the next row. */
function rowidEnd(id: number, high: bigint | undefined): Key {
  if (high === undefined || high > LAST_ROWID) return tableEnd(id);
  if (high < LEAST_ROWID) return tableStart(id);
  return encodeKeyAfter(id, [high]);
}

/** All ranges of the directory that have keys of the spans, in key order; the only range whatever the spans. */
export function rangesOf(
  spans: readonly Span[],
  tables: readonly TableKey[],
  directory: RangeDirectory,
): readonly RangeDescriptor[] {
  if (directory.ranges.length === 1) return directory.ranges;
  const keys = spans.flatMap((span) => spanToKeys(span, tables));
  if (keys.length === 1) return directory.between(keys[0]!);
  const touched = new Set(keys.flatMap((span) => directory.between(span)));
  return touched.size < 2 ? [...touched] : [...touched].sort((a, b) => (a.start < b.start ? -1 : 1));
}

/** AUTOINCREMENT's own; every range has one for its part of a table. */
const SEQUENCES = "sqlite_sequence";

/**
 * The spans of a footprint that say where it has to run. What a search found nothing under, or a range of keys, depends
 * also on rows that will come under keys that SQLite chooses (END_OF_TABLE): these come in the table's last range, with
 * keys of that range, so that they concern only what lies there, whose own span names it. And who makes such a row,
 * which it says by writing END_OF_TABLE, needs no more than that range to know which key is the next. What is added to
 * UNIQUE indexes is added with its rows.
 */
export function rowsOf({ reads, writes, checks }: Footprint): readonly Span[] {
  const rows = writes.filter((span) => span.table !== SEQUENCES && !isOfUniqueKeys(span));
  return [
    ...reads.filter((span) => !isOfChosenKeys(span)),
    ...checks.filter((span) => !isOfChosenKeys(span)),
    // Who writes nothing else means the sequences themselves.
    ...(rows.length > 0 ? rows : writes),
  ];
}

/** Of UNIQUE_KEYS. */
export function isOfUniqueKeys({ low }: Span): boolean {
  return low !== undefined && low > END_OF_TABLE;
}

/** It is read only because a key that is chosen depends on it. */
export function isOfChosenKeys({ low, high }: Span): boolean {
  return high === END_OF_TABLE && (low === undefined || low === END_OF_TABLE);
}

/**
 * Whether spans lie in one slice. What has to be looked at for every statement at a range's leader is kept by table: as
 * long as neither the slice nor the schema changes, one of these serves.
 */
export class SliceCheck {
  readonly slice: KeySpan;
  /** The slice is the whole keyspace. */
  readonly whole: boolean;
  readonly tables: readonly TableKey[];
  readonly #inside = new Map<string, boolean>();

  constructor(slice: KeySpan, tables: readonly TableKey[]) {
    this.slice = slice;
    this.whole = isWhole(slice);
    this.tables = tables;
  }

  /** What has this footprint can run here: all its rows are in the slice. */
  contains(footprint: Footprint): boolean {
    return this.whole || rowsOf(footprint).every((span) => this.#contains(span));
  }

  /** The same for what is only read. */
  containsReads(spans: readonly Span[]): boolean {
    return this.whole || spans.every((span) => isOfChosenKeys(span) || this.#contains(span));
  }

  /** Tables that get a row under a key that SQLite chooses, and whose first rows may lie in an earlier range. */
  appendsTo(writes: readonly Span[]): readonly TableKey[] {
    if (this.whole) return [];
    return writes.flatMap((span) => {
      const table = byName(this.tables).get(span.table);
      if (table === undefined || table.shard !== "rowid") return [];
      const chosen = span.low === END_OF_TABLE;
      return chosen && this.slice.start > tableStart(table.id) ? [table] : [];
    });
  }

  #contains(span: Span): boolean {
    const known = this.#inside.get(span.table);
    if (known === true) return true;
    if (known === undefined) {
      const table = byName(this.tables).get(span.table);
      const inside =
        span.table === SCHEMA || (table !== undefined && covers(this.slice, tableKeySpan(table)));
      this.#inside.set(span.table, inside);
      if (inside) return true;
    }
    return spanToKeys(span, this.tables).every((keys) => covers(this.slice, keys));
  }
}
