/**
 * Brings rows inside an open transaction without its foreign keys minding. foreign_keys cannot be switched off there, so
 * SQLite counts a violation for each child whose parent was not brought, and takes one off when a parent is.
 *
 * With defer_foreign_keys on, all violations go to one counter, and switching it off sets that counter to zero: around
 * the rows that are brought, this leaves what was counted otherwise as it was. If the session itself has it on, the
 * counter is the session's: what it was before is then counted again, by as many orphans in a TEMP table of our own.
 * That number is not to be read, but it is how many violations there are now, less those that were never counted.
 *
 * Rests on SQLite's OP_FkCounter, and on pragma.c for the zero; the tests would notice.
 */
import { SessionFlag, type SessionFlags } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import { INTERNAL_PREFIX } from "../temp-objects.js";

const PARENT = `temp.${INTERNAL_PREFIX}parent`;
const CHILD = `temp.${INTERNAL_PREFIX}child`;

export class UncountedKeys {
  readonly #connection: RangeConnection;
  /** Violations that the session's counter does not have; undefined while the session does not defer. */
  #uncounted: number | undefined;
  #tables = false;

  constructor(connection: RangeConnection) {
    this.#connection = connection;
  }

  /** Before a statement with these settings. */
  observe(flags: SessionFlags): void {
    if ((flags & SessionFlag.DeferForeignKeys) === 0) this.#uncounted = undefined;
    else this.#uncounted ??= this.#violations();
  }

  mark(): number | undefined {
    return this.#uncounted;
  }

  restore(mark: number | undefined): void {
    this.#uncounted = mark;
    this.#tables = false;
  }

  without<T>(run: () => T): T {
    const { database, flags } = this.#connection;
    if ((flags & SessionFlag.ForeignKeysOff) !== 0 || !this.#any()) return run();
    const own = this.#uncounted === undefined ? undefined : this.#violations() - this.#uncounted;
    if (own !== undefined) database.pragma("defer_foreign_keys = OFF");
    database.pragma("defer_foreign_keys = ON");
    let result: T;
    try {
      result = run();
    } finally {
      database.pragma("defer_foreign_keys = OFF");
    }
    if (own === undefined) return result;
    this.#uncounted = this.#violations() - own;
    this.#count(own);
    return result;
  }

  #any(): boolean {
    const found = this.#connection.database
      .prepare(
        "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND instr(lower(sql), 'references') > 0",
      )
      .get();
    return found !== undefined;
  }

  #violations(): number {
    return this.#connection.database
      .prepare("SELECT count(*) FROM pragma_foreign_key_check WHERE schema = 'main'")
      .pluck()
      .safeIntegers(false)
      .get() as number;
  }

  /** Leaves defer_foreign_keys on and its counter at `count`. */
  #count(count: number): void {
    const { database } = this.#connection;
    if (!this.#tables) {
      database.exec(`CREATE TABLE IF NOT EXISTS ${PARENT}(id INTEGER PRIMARY KEY)`);
      database.exec(
        `CREATE TABLE IF NOT EXISTS ${CHILD}(id INTEGER PRIMARY KEY, parent REFERENCES ${INTERNAL_PREFIX}parent)`,
      );
      this.#tables = true;
    }
    const insert = database.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       INSERT INTO ${CHILD}(parent) SELECT i FROM n`,
    );
    database.pragma("defer_foreign_keys = ON");
    if (count > 0) insert.run(count);
    if (count >= 0) return;
    // The session has mended what was counted as deferred before: as many orphans go that are not counted.
    insert.run(-count);
    database.pragma("defer_foreign_keys = OFF");
    database.pragma("defer_foreign_keys = ON");
    database.exec(`DELETE FROM ${CHILD}`);
  }
}
