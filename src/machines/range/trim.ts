/**
 * Deletes what a split has left in the file of rows that are another range's. Nobody reads them, but they take room,
 * and may be in the way of unique constraints: whoever meets that, or must see the range's own rows only, trims first.
 *
 * Invariants:
 * 1. Nothing within the slice is touched; no trigger fires and no foreign key acts (the caller has switched them off).
 * 2. Which rows a bounded trim deletes follows from the rows alone.
 *
 * Virtual tables have no keys to tell rows by. They are whole in the first range, so elsewhere they are made anew.
 */
import { type KeySpan, tableSpan } from "../../placement/descriptor.js";
import { outsideConditions, type SqlCondition, sliceOf } from "../../placement/slice.js";
import { userError } from "./apply-errors.js";
import type { RangeConnection } from "./connection.js";
import { withoutTriggers } from "./row-images.js";
import type { SliceState } from "./slice-state.js";
import type { RegisteredTable, TableRegistry } from "./table-keys.js";
import { quoteName } from "./temp-objects.js";

const EVERYTHING = Number.MAX_SAFE_INTEGER;

export class Trimmer {
  readonly #connection: RangeConnection;
  readonly #slice: SliceState;
  readonly #tables: TableRegistry;

  constructor(connection: RangeConnection, slice: SliceState, tables: TableRegistry) {
    this.#connection = connection;
    this.#slice = slice;
    this.#tables = tables;
  }

  /** Deletes at most so many rows and answers how many: 0 when none are left. */
  trim(maxRows: number): number {
    if (!this.#slice.state.untrimmed) return 0;
    const { descriptor } = this.#slice.state;
    let deleted = this.#slice.virtualUntrimmed ? this.#renewVirtualTables(descriptor) : 0;
    for (const table of this.#tables.tables) {
      if (deleted >= maxRows) return deleted;
      deleted += this.#trimTable(table, descriptor, maxRows - deleted);
    }
    if (deleted === 0) this.#slice.change({ untrimmed: false });
    return deleted;
  }

  /** Deletes whatever is not the range's. */
  trimAll(): void {
    while (this.trim(EVERYTHING) > 0);
  }

  /** Deletes the table's rows that are not the range's. */
  trimTable(table: RegisteredTable): void {
    this.#trimTable(table, this.#slice.state.descriptor, EVERYTHING);
  }

  #trimTable(table: RegisteredTable, span: KeySpan, maxRows: number): number {
    if (table.kind !== "table") return 0;
    let deleted = 0;
    for (const condition of outsideConditions(table, sliceOf(table, span)))
      if (deleted < maxRows && this.#holds(table, condition))
        deleted += this.#delete(table, condition, maxRows - deleted);
    return deleted;
  }

  /** Whether there is a row like that. */
  #holds(table: RegisteredTable, { sql, params }: SqlCondition): boolean {
    const name = quoteName(table.actualName);
    return (
      this.#connection.database.prepare(`SELECT 1 FROM main.${name} WHERE ${sql} LIMIT 1`).get(...params) !==
      undefined
    );
  }

  #delete(table: RegisteredTable, { sql, params }: SqlCondition, maxRows: number): number {
    const { database } = this.#connection;
    const name = `main.${quoteName(table.actualName)}`;
    const key = table.rowKey.map(quoteName).join(", ");
    const all = table.rowKey.length === 0 || maxRows === EVERYTHING;
    const text = all
      ? `DELETE FROM ${name} WHERE ${sql}`
      : `DELETE FROM ${name} WHERE (${key}) IN (SELECT ${key} FROM ${name} WHERE ${sql} ORDER BY ${key} LIMIT ?)`;
    let deleted = 0;
    withoutTriggers(this.#connection, [table.actualName], () => {
      deleted = Number(database.prepare(text).run(...params, ...(all ? [] : [BigInt(maxRows)])).changes);
    });
    return deleted;
  }

  #renewVirtualTables({ start }: KeySpan): number {
    this.#slice.virtualTrimmed();
    if (start < tableSpan(0).end) return 0;
    const { database } = this.#connection;
    const tables = this.#tables.tables;
    const shadows = tables.filter(({ kind }) => kind === "shadow");
    const stored = tables.filter(
      ({ kind, name }) => kind === "virtual" && shadows.some((shadow) => shadow.name.startsWith(`${name}_`)),
    );
    const text = database
      .prepare("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?")
      .pluck(true);
    for (const { actualName } of stored)
      this.#renew(`DROP TABLE main.${quoteName(actualName)}`, text.get(actualName) as string);
    if (stored.length > 0) {
      this.#connection.schemaChanged();
      this.#tables.forget();
    }
    this.#connection.disturbed();
    return stored.length;
  }

  /** A table that cannot be made any more (of a module that has changed) stays as it is. */
  #renew(...texts: readonly string[]): void {
    const { database } = this.#connection;
    database.exec("SAVEPOINT _ostraka_renew");
    try {
      for (const text of texts) database.exec(text);
    } catch (error) {
      userError(error);
      database.exec("ROLLBACK TO _ostraka_renew");
    }
    database.exec("RELEASE _ostraka_renew");
  }
}

/** Whether the table has a row that is not in its slice of this span. */
export function rowOutside(connection: RangeConnection, table: RegisteredTable, span: KeySpan): boolean {
  if (table.kind !== "table") return false;
  return outsideConditions(table, sliceOf(table, span)).some(
    ({ sql, params }) =>
      connection.database
        .prepare(`SELECT 1 FROM main.${quoteName(table.actualName)} WHERE ${sql} LIMIT 1`)
        .get(...params) !== undefined,
  );
}
