/**
 * Whether SQLite would choose a rowid here as it would in the whole table: one more than the greatest. In a range that
 * has a part of the table that is so only where the table ends, and if the greatest rowid (with AUTOINCREMENT: the
 * greatest there ever was) is within the slice; in front of it lie other ranges' rows, which are not here or are left
 * over from before a split.
 */
import type { KeySpan } from "../../placement/descriptor.js";
import { isWholeTable, sliceCondition, sliceOf } from "../../placement/slice.js";
import { MoveError } from "./apply-errors.js";
import type { RangeConnection } from "./connection.js";
import type { RegisteredTable } from "./table-keys.js";
import { quoteName } from "./temp-objects.js";

/** Throws MoveError unless rows can be appended to the table in the range with this span. */
export function checkAppend(connection: RangeConnection, table: RegisteredTable, span: KeySpan): void {
  const slice = sliceOf(table, span);
  if (slice !== undefined && isWholeTable(slice)) return;
  if (slice === undefined || slice.high !== undefined)
    throw new MoveError(`the end of ${table.actualName} is in another range`);
  const { database } = connection;
  const { sql, params } = sliceCondition(table, slice);
  const row = database
    .prepare(`SELECT 1 FROM main.${quoteName(table.actualName)} WHERE ${sql} LIMIT 1`)
    .get(...params);
  if (row !== undefined) return;
  const [low] = slice.low as [bigint];
  const sequence = table.autoincrement
    ? (database
        .prepare("SELECT seq FROM main.sqlite_sequence WHERE name = ?")
        .pluck(true)
        .safeIntegers(true)
        .get(table.actualName) as bigint | undefined)
    : undefined;
  if (sequence === undefined || sequence < low)
    throw new MoveError(`the greatest rowid of ${table.actualName} is in another range`);
}
