/**
 * How many rows of each table a range has within its slice, and where it could be split in halves. Asked on the
 * replica's reader, often and by whoever only looks: counts are exact as long as that is cheap, and kept until enough
 * has been applied to make a difference.
 */
import { encodeKey, type Key, tableStart } from "../../base/keys.js";
import type { SqlValue } from "../../base/values.js";
import { isBefore, type KeySpan } from "../../placement/descriptor.js";
import { isWholeTable, keyExpressions, sliceCondition, sliceOf } from "../../placement/slice.js";
import type { RangeConnection } from "./connection.js";
import { type RegisteredTable, readTables } from "./table-keys.js";
import { quoteName } from "./temp-objects.js";
import type { RangeState } from "./types.js";

/** In larger files counting stops at as many rows of a table, and the rest is estimated where keys are numbers. */
const SMALL_BYTES = 256 * 1024 * 1024;
const COUNTED_ROWS = 100_000;
/** Rows are not stepped over one by one beyond this; the middle of the rowids has to do. */
const STEPPED_ROWS = 2_000_000;
/** A large count is kept while fewer than one entry in so many rows has been applied. */
const KEPT_SHARE = 100;

export interface CountedState {
  readonly range: RangeState;
  readonly appliedIndex: number;
  readonly schemaVersion: number;
  readonly databaseBytes: number;
}

interface Counted {
  readonly state: CountedState;
  readonly counts: ReadonlyMap<string, number>;
  readonly total: number;
}

export class RowCounts {
  readonly #reader: RangeConnection;
  #tables: { readonly schemaVersion: number; readonly tables: readonly RegisteredTable[] } | undefined;
  #counted: Counted | undefined;

  constructor(reader: RangeConnection) {
    this.#reader = reader;
  }

  /** By name in lower case; virtual tables are left out. */
  counts(state: CountedState): ReadonlyMap<string, number> {
    return this.#count(state).counts;
  }

  /** A key strictly inside the span, with about as many rows before it as after it; undefined when there is none. */
  splitKey(state: CountedState): Key | undefined {
    const span = state.range.descriptor;
    const { counts, total } = this.#count(state);
    if (total < 2) return undefined;
    const tables = [...this.#tablesOf(state)].sort((a, b) => a.id - b.id);
    let before = 0;
    for (const table of tables) {
      const rows = counts.get(table.name) ?? 0;
      if (table.shard !== "home" && rows > 0 && before + rows > total / 2) {
        const key = this.#keyAt(table, span, Math.max(0, Math.floor(total / 2 - before)), rows);
        if (key !== undefined) return key;
      }
      before += rows;
    }
    return undefined;
  }

  #count(state: CountedState): Counted {
    const last = this.#counted;
    if (last !== undefined && last.state.range === state.range && isRecent(last, state)) return last;
    const counts = new Map<string, number>();
    let total = 0;
    for (const table of this.#tablesOf(state)) {
      const rows = this.#rowsOf(table, state);
      if (rows === undefined) continue;
      counts.set(table.name, rows);
      total += rows;
    }
    this.#counted = { state, counts, total };
    return this.#counted;
  }

  #tablesOf({ schemaVersion }: CountedState): readonly RegisteredTable[] {
    if (this.#tables?.schemaVersion !== schemaVersion)
      this.#tables = { schemaVersion, tables: readTables(this.#reader.database) };
    return this.#tables.tables;
  }

  #rowsOf(table: RegisteredTable, { range, databaseBytes }: CountedState): number | undefined {
    if (table.kind !== "table") return undefined;
    const slice = sliceOf(table, range.descriptor);
    if (slice === undefined) return 0;
    const where =
      isWholeTable(slice) || !range.untrimmed ? { sql: "1", params: [] } : sliceCondition(table, slice);
    const from = `FROM main.${quoteName(table.actualName)} WHERE ${where.sql}`;
    if (databaseBytes <= SMALL_BYTES) {
      // Counting all rows of a table goes by pages, if nothing is asked of them.
      const all = where.sql === "1" ? from.slice(0, -" WHERE 1".length) : from;
      return this.#number(`SELECT count(*) ${all}`, where.params);
    }
    const rows = this.#number(`SELECT count(*) FROM (SELECT 1 ${from} LIMIT ${COUNTED_ROWS})`, where.params);
    if (rows < COUNTED_ROWS) return rows;
    if (table.rowKey.length === 1 && !table.withoutRowid) return this.#estimate(table, from, where.params);
    return this.#number(`SELECT count(*) ${from}`, where.params);
  }

  /** As if rowids were as dense everywhere as among the first that were counted. */
  #estimate(table: RegisteredTable, from: string, params: readonly SqlValue[]): number {
    const [rowid] = table.rowKey.map(quoteName);
    const [low, high] = this.#reader.database
      .prepare(`SELECT (SELECT min(${rowid}) ${from}), (SELECT max(${rowid}) ${from})`)
      .raw(true)
      .safeIntegers(true)
      .get(...params, ...params) as [bigint, bigint];
    const counted = this.#reader.database
      .prepare(`SELECT ${rowid} ${from} ORDER BY ${rowid} LIMIT 1 OFFSET ${COUNTED_ROWS - 1}`)
      .pluck(true)
      .safeIntegers(true)
      .get(...params) as bigint;
    const density = COUNTED_ROWS / Math.max(1, Number(counted - low));
    return Math.max(COUNTED_ROWS, Math.round(density * Number(high - low)));
  }

  #number(sql: string, params: readonly SqlValue[]): number {
    return this.#reader.database
      .prepare(sql)
      .pluck(true)
      .safeIntegers(false)
      .get(...params) as number;
  }

  /** The key of the row that has so many of the table's in front of it; between two tables, the table's own. */
  #keyAt(table: RegisteredTable, span: KeySpan, offset: number, rows: number): Key | undefined {
    const start = tableStart(table.id);
    if (offset === 0 && span.start < start) return start;
    const slice = sliceOf(table, span);
    if (slice === undefined) return undefined;
    const { sql, params } = sliceCondition(table, slice);
    const columns = keyExpressions(table).join(", ");
    const ordered = `SELECT ${columns} FROM main.${quoteName(table.actualName)} WHERE ${sql} ORDER BY ${columns}`;
    const steps = Math.min(Math.max(1, offset), rows - 1);
    const values =
      steps > STEPPED_ROWS && table.shard === "rowid"
        ? this.#middle(ordered, params)
        : this.#rowBehind(ordered, params, steps);
    const found = values === undefined ? undefined : encodeKey(table.id, values);
    if (found !== undefined && span.start < found && isBefore(found, span.end)) return found;
    return span.start < start ? start : undefined;
  }

  /** Counts may be estimates: there may be fewer rows. */
  #rowBehind(ordered: string, params: readonly SqlValue[], steps: number): SqlValue[] | undefined {
    for (let skipped = steps; ; skipped = Math.floor(skipped / 2)) {
      const row = this.#row(`${ordered} LIMIT 1 OFFSET ${skipped}`, params);
      if (row !== undefined || skipped === 0) return row;
    }
  }

  #middle(ordered: string, params: readonly SqlValue[]): SqlValue[] | undefined {
    const low = this.#row(`${ordered} LIMIT 1`, params)?.[0];
    const high = this.#row(`${ordered} DESC LIMIT 1`, params)?.[0];
    if (typeof low !== "bigint" || typeof high !== "bigint") return undefined;
    return [low + (high - low) / 2n + 1n];
  }

  #row(sql: string, params: readonly SqlValue[]): SqlValue[] | undefined {
    return this.#reader.database
      .prepare(sql)
      .raw(true)
      .safeIntegers(true)
      .get(...params) as SqlValue[] | undefined;
  }
}

function isRecent({ state: then, total }: Counted, now: CountedState): boolean {
  if (then.schemaVersion !== now.schemaVersion) return false;
  const applied = now.appliedIndex - then.appliedIndex;
  return applied === 0 || (total > COUNTED_ROWS && applied < total / KEPT_SHARE);
}
