/**
 * Puts rows into a table of a scratch database exactly as they are elsewhere. Several rows go in one statement, which is
 * twice as fast. Who is to stay away (rows that the transaction has written) is the caller's knowledge; a row whose key
 * is there already stays as it is.
 */
import type Database from "better-sqlite3";
import { assert } from "../../../base/assert.js";
import { UserError } from "../../../base/errors.js";
import type { SqlValue } from "../../../base/values.js";
import { quoteName } from "../temp-objects.js";
import type { TableShape } from "./shapes.js";
import type { TableOrigin } from "./table-history.js";

const ROWS_AT_ONCE = 32;
/** SQLite's limit on parameters. */
const MAX_PARAMETERS = 32_000;

export class RowSink {
  readonly shape: TableShape;
  readonly #database: Database.Database;
  readonly #insert: string;
  readonly #values: string;
  readonly #width: number;
  readonly #atOnce: number;
  /** Which values of a vector are inserted, where the table has lost columns since; undefined for all. */
  readonly #kept: readonly number[] | undefined;
  /** Where the key's values are in a vector. */
  readonly #keyAt: readonly number[];
  readonly vectorLength: number;
  #one: Database.Statement | undefined;
  #many: Database.Statement | undefined;

  /** `shape` is the table as it is now; vectors are of the table as it was. */
  constructor(database: Database.Database, shape: TableShape, origin: TableOrigin | "unchanged") {
    this.shape = shape;
    this.#database = database;
    const hidden = shape.hiddenRowid ? shape.vector.slice(0, 1) : [];
    const columns = origin === "unchanged" ? shape.columns : origin.columns.map(([, now]) => now);
    const vector: (string | undefined)[] = [
      ...hidden,
      ...columns.map((column) => (column === undefined ? undefined : quoteName(column))),
    ];
    const targets = vector.filter((target) => target !== undefined);
    if (targets.length < vector.length)
      this.#kept = vector.flatMap((target, at) => (target === undefined ? [] : [at]));
    this.vectorLength = vector.length;
    this.#keyAt = shape.key.map((part) => vector.indexOf(part));
    assert(!this.#keyAt.includes(-1), "a row's vector lacks its key");
    this.#width = targets.length;
    this.#atOnce = Math.min(ROWS_AT_ONCE, Math.floor(MAX_PARAMETERS / this.#width));
    this.#insert = `INSERT INTO main.${quoteName(shape.name)}(${targets.join(", ")}) VALUES `;
    this.#values = `(${targets.map(() => "?").join(", ")})`;
  }

  /** Answers how many rows were new. `skip` says which keys to leave alone. */
  insert(rows: readonly SqlValue[][], skip: ((key: readonly SqlValue[]) => boolean) | undefined): number {
    const wanted = this.#wanted(rows, skip);
    const atOnce = this.#atOnce;
    let inserted = 0;
    let at = 0;
    for (; at + atOnce <= wanted.length && atOnce > 1; at += atOnce) {
      this.#many ??= this.#prepare(atOnce);
      inserted += this.#many.run(...wanted.slice(at, at + atOnce)).changes;
    }
    for (; at < wanted.length; at++) {
      this.#one ??= this.#prepare(1);
      inserted += this.#one.run(wanted[at]!).changes;
    }
    return inserted;
  }

  /** Shadow tables come with rows of their own, which the loaded ones replace. */
  clear(): void {
    this.#database.exec(`DELETE FROM main.${quoteName(this.shape.name)}`);
  }

  #wanted(
    rows: readonly SqlValue[][],
    skip: ((key: readonly SqlValue[]) => boolean) | undefined,
  ): readonly SqlValue[][] {
    for (const row of rows)
      if (row.length !== this.vectorLength)
        throw new UserError(
          "SQLITE_SCHEMA",
          `a row of ${row.length} values for ${this.shape.name}, which has ${this.vectorLength}`,
        );
    const keyAt = this.#keyAt;
    const left = skip === undefined ? rows : rows.filter((row) => !skip(keyAt.map((at) => row[at]!)));
    const kept = this.#kept;
    return kept === undefined ? left : left.map((row) => kept.map((at) => row[at]!));
  }

  #prepare(rows: number): Database.Statement {
    const values = new Array<string>(rows).fill(this.#values).join(", ");
    return this.#database.prepare(
      `${this.#insert}${values} ON CONFLICT(${this.shape.conflictTarget}) DO NOTHING`,
    );
  }
}
