/**
 * Brings rows inside an open transaction without its foreign keys minding. foreign_keys cannot be switched off there, so
 * SQLite counts a violation for each child whose parent was not brought, and takes one off when a parent is.
 *
 * With defer_foreign_keys on none of that fails a statement, and switching it off sets the counters to zero. What the
 * transaction itself had counted until then (deferred constraints, or all of them when the session defers) is counted
 * again, by as many orphans in a TEMP table of our own. That number cannot be read, but it is how many violations there
 * are, less those that were never counted; which is why they are counted before the first write, where constraints can
 * be deferred at all.
 *
 * Rests on SQLite's OP_FkCounter and OP_FkIfZero (immediate constraints of a session that defers look at a counter of
 * their own, so that is the one to restore then), and on what PRAGMA defer_foreign_keys does.
 */
import Database from "better-sqlite3";
import { SessionFlag, type SessionFlags } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import { INTERNAL_PREFIX, quoteName } from "../temp-objects.js";

const PARENT = `${INTERNAL_PREFIX}parent`;
const CHILD = `${INTERNAL_PREFIX}child`;
const DEFERRED_CHILD = `${INTERNAL_PREFIX}deferred_child`;
const HELPERS = `
CREATE TABLE IF NOT EXISTS temp.${PARENT}(id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS temp.${CHILD}(parent REFERENCES ${PARENT});
CREATE TABLE IF NOT EXISTS temp.${DEFERRED_CHILD}(parent REFERENCES ${PARENT} DEFERRABLE INITIALLY DEFERRED);
`;

export class UncountedKeys {
  readonly #connection: RangeConnection;
  /** Violations that no counter has; undefined while the transaction can have counted none itself. */
  #uncounted: number | undefined;
  /** The session has defer_foreign_keys on. */
  #deferring = false;
  /** What the transaction had counted when rows began to be brought. */
  #counted = 0;

  constructor(connection: RangeConnection) {
    this.#connection = connection;
  }

  /** Before each statement, with its settings in force. */
  observe(flags: SessionFlags, writes: boolean): void {
    const deferring = (flags & SessionFlag.DeferForeignKeys) !== 0;
    // Switching it off has forgotten all violations.
    if (this.#deferring && !deferring) this.#uncounted = undefined;
    this.#deferring = deferring;
    if (!writes || this.#uncounted !== undefined || (flags & SessionFlag.ForeignKeysOff) !== 0) return;
    if (deferring || this.#schemaHas("deferr")) this.#uncounted = this.#violations();
  }

  /** Before rows are brought into an open transaction. */
  begin(): void {
    this.#counted = this.#uncounted === undefined ? 0 : this.#violations() - this.#uncounted;
  }

  /** Brings some of them. In small portions: while something is counted, SQLite looks for children of each parent. */
  without<T>(run: () => T): T {
    const { database, flags } = this.#connection;
    if ((flags & SessionFlag.ForeignKeysOff) !== 0 || !this.#schemaHas("references")) return run();
    database.pragma("defer_foreign_keys = ON");
    try {
      return run();
    } finally {
      database.pragma("defer_foreign_keys = OFF");
    }
  }

  /** After all are there. */
  end(): void {
    const { database } = this.#connection;
    if (this.#uncounted !== undefined) this.#uncounted = this.#violations() - this.#counted;
    if (this.#deferring) database.pragma("defer_foreign_keys = ON");
    if (this.#counted <= 0) return;
    database.exec(HELPERS);
    database
      .prepare(
        `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO temp.${this.#deferring ? CHILD : DEFERRED_CHILD} SELECT i FROM n`,
      )
      .run(this.#counted);
  }

  mark(): number | undefined {
    return this.#uncounted;
  }

  /** After ROLLBACK TO, which puts the counters back too. */
  restore(mark: number | undefined): void {
    this.#uncounted = mark;
  }

  #schemaHas(word: string): boolean {
    const found = this.#connection.database
      .prepare("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND instr(lower(sql), ?) > 0")
      .get(word);
    return found !== undefined;
  }

  #violations(): number {
    const { database } = this.#connection;
    let count = 0;
    for (const schema of ["main", "temp"]) {
      const children = database
        .prepare(
          `SELECT name FROM ${schema}.sqlite_schema WHERE type = 'table' AND instr(lower(sql), 'references') > 0`,
        )
        .pluck()
        .all() as string[];
      for (const child of children)
        if (!child.startsWith(INTERNAL_PREFIX)) count += this.#violationsOf(schema, child);
    }
    return count;
  }

  #violationsOf(schema: string, child: string): number {
    const { database } = this.#connection;
    try {
      return database.prepare(`PRAGMA ${schema}.foreign_key_check(${quoteName(child)})`).all().length;
    } catch (error) {
      // Its parent has no such key: whatever writes either of them fails, and counts nothing.
      if (error instanceof Database.SqliteError && error.code === "SQLITE_ERROR") return 0;
      throw error;
    }
  }
}
