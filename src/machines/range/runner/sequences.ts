/**
 * sqlite_sequence, which no trigger can watch: what the last AUTOINCREMENT value of each table was at the beginning, and
 * which of them are in the end not what the rows written explain (the row was deleted again, or the user wrote the
 * table itself). Those are told as changes of sqlite_sequence: key [null], row [table, value], since each range's rows
 * have rowids of their own there; a value that is gone is 0, which means the same.
 */
import type { SqlValue } from "../../../base/values.js";
import type { RangeConnection } from "../connection.js";
import type { RowChange } from "../types.js";

export class SequenceWatch {
  readonly #connection: RangeConnection;
  readonly #initial = new Map<string, SqlValue>();
  readonly #present = new Map<string, SqlValue>();
  /** Some statement may have written it. */
  touched = false;

  /** Before anything is written. */
  constructor(connection: RangeConnection) {
    this.#connection = connection;
    for (const [name, value] of this.#read()) this.#initial.set(name, value);
  }

  /** Brings in what another range has: the larger one counts. */
  merge(table: string, value: SqlValue): void {
    if (typeof value !== "bigint") return;
    const { database } = this.#connection;
    if (!this.#exists()) return;
    const larger = database
      .prepare("UPDATE main.sqlite_sequence SET seq = ? WHERE name = ? AND seq < ?")
      .run(value, table, value).changes;
    if (larger === 0)
      database
        .prepare(
          `INSERT INTO main.sqlite_sequence(name, seq)
           SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ?)`,
        )
        .run(table, value, table);
    const before = this.#initial.get(table);
    if (typeof before !== "bigint" || before < value) this.#initial.set(table, value);
  }

  /** A row that was written and is there in the end: its rowid explains a sequence up to it. */
  present(table: string, rowid: SqlValue): void {
    if (!this.touched || typeof rowid !== "bigint") return;
    const before = this.#present.get(table);
    if (typeof before !== "bigint" || before < rowid) this.#present.set(table, rowid);
  }

  /** After all rows were told by `present`. */
  *changes(): Generator<RowChange> {
    if (!this.touched) return;
    const now = new Map(this.#read());
    for (const [name, value] of now)
      if (value !== this.#expected(name)) yield { table: "sqlite_sequence", key: [null], row: [name, value] };
    for (const [name, value] of this.#initial)
      if (!now.has(name) && value !== 0n && this.#tableExists(name))
        yield { table: "sqlite_sequence", key: [null], row: [name, 0n] };
    this.#present.clear();
  }

  #expected(table: string): SqlValue {
    const initial = this.#initial.get(table) ?? 0n;
    const present = this.#present.get(table);
    if (typeof initial !== "bigint" || typeof present !== "bigint") return initial;
    return present > initial ? present : initial;
  }

  #exists(): boolean {
    const found = this.#connection.database
      .prepare("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'")
      .get();
    return found !== undefined;
  }

  #tableExists(name: string): boolean {
    const found = this.#connection.database
      .prepare("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?")
      .get(name);
    return found !== undefined;
  }

  #read(): [string, SqlValue][] {
    if (!this.#exists()) return [];
    return this.#connection.database
      .prepare("SELECT name, seq FROM main.sqlite_sequence ORDER BY rowid")
      .raw()
      .safeIntegers()
      .all() as [string, SqlValue][];
  }
}
