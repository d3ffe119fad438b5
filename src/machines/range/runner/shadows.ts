/**
 * Which rows of virtual tables' shadow tables a transaction on a scratch database has changed. No trigger can tell:
 * FTS5 writes in the middle of a savepoint, where a trigger would begin the next one. So what the shadow tables hold is
 * noted before the first statement that writes a virtual table, and compared in the end.
 *
 * Such rows are put in place on replicas as they are, so they must be the same on all of them but for what is changed
 * here: whoever applies statements has virtual tables write after each of them (executor.ts), and the digest covers them.
 *
 * Invariants:
 * 1. A shadow table is noted after its rows were brought (all at once, before the first statement that may write them)
 *    and before anything was written to it.
 * 2. What is noted is taken back with the savepoint since which it was noted, or forgotten.
 * 3. Only what is noted is told. Where a transaction makes a virtual table the rows that it is made with count as noted:
 *    they are the same wherever its text runs.
 */
import { createHash } from "node:crypto";
import { UserError } from "../../../base/errors.js";
import { encodeVector, type SqlValue } from "../../../base/values.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import type { RangeConnection } from "../connection.js";
import { quoteName } from "../temp-objects.js";
import type { RowChange } from "../types.js";
import { type KeyId, keyId, keyOf } from "./key-id.js";
import { shapeOf, type TableShape } from "./shapes.js";

/** Rows beyond which they are not kept in mind. */
const MAX_ROWS = 2_000_000;
/** Rows not longer than a hash stand for themselves. */
const HASH_BYTES = 32;

/** By root page, which a table keeps for life: what its rows were, by key. */
export type NotedShadows = ReadonlyMap<number, ReadonlyMap<KeyId, string>>;

export class ShadowWatch {
  readonly #connection: RangeConnection;
  #noted = new Map<number, ReadonlyMap<KeyId, string>>();
  #rows = 0;

  constructor(connection: RangeConnection) {
    this.#connection = connection;
  }

  /** Before a statement that writes a virtual table. */
  note(): void {
    for (const [root, name] of this.#shadows()) {
      if (this.#noted.has(root)) continue;
      const rows = new Map<KeyId, string>();
      for (const [key, row] of this.#read(shapeOf(this.#connection.database, name)!)) {
        if (++this.#rows > MAX_ROWS)
          throw new UserError(
            "OSTRAKA_TOO_LARGE",
            `the virtual tables that a transaction over several ranges writes hold more than ${MAX_ROWS} rows`,
          );
        rows.set(keyId(key), contents(row));
      }
      this.#noted.set(root, rows);
    }
  }

  /** After rows of the table were brought: it is noted anew. */
  brought(name: string): void {
    for (const [root, shadow] of this.#shadows())
      if (lowerAscii(shadow) === lowerAscii(name)) this.#forget(root);
  }

  /** The page of a table that was dropped may come to be another's. */
  schemaChanged(): void {
    if (this.#noted.size === 0) return;
    const roots = new Set(this.#shadows().map(([root]) => root));
    for (const root of this.#noted.keys()) if (!roots.has(root)) this.#forget(root);
  }

  mark(): NotedShadows {
    return new Map(this.#noted);
  }

  /** After ROLLBACK TO: what was noted since is as it was then, and tables that were dropped since are back. */
  restore(mark: NotedShadows): void {
    this.#noted = new Map(mark);
    this.#rows = 0;
    for (const rows of mark.values()) this.#rows += rows.size;
  }

  *changes(): Generator<RowChange> {
    if (this.#noted.size === 0) return;
    this.#connection.writeVirtualTables();
    for (const [root, name] of this.#shadows()) {
      const before = this.#noted.get(root);
      if (before !== undefined) yield* this.#difference(shapeOf(this.#connection.database, name)!, before);
    }
  }

  #forget(root: number): void {
    this.#rows -= this.#noted.get(root)?.size ?? 0;
    this.#noted.delete(root);
  }

  #difference(shape: TableShape, before: ReadonlyMap<KeyId, string>): RowChange[] {
    const gone = new Set(before.keys());
    const changes: RowChange[] = [];
    for (const [key, row] of this.#read(shape)) {
      const id = keyId(key);
      gone.delete(id);
      if (before.get(id) !== contents(row)) changes.push({ table: shape.name, key, row });
    }
    for (const id of gone) changes.push({ table: shape.name, key: keyOf(id), row: undefined });
    return changes;
  }

  /** Names by root page. */
  #shadows(): [root: number, name: string][] {
    return this.#connection.database
      .prepare(
        `SELECT s.rootpage, s.name FROM main.sqlite_schema s
         JOIN pragma_table_list l ON l.schema = 'main' AND l.name = s.name AND l.type = 'shadow'
         WHERE s.type = 'table' ORDER BY s.name`,
      )
      .raw()
      .safeIntegers(false)
      .all() as [number, string][];
  }

  *#read(shape: TableShape): Generator<[key: SqlValue[], row: SqlValue[]]> {
    const width = shape.key.length;
    const list = [...shape.key, ...shape.columns.map(quoteName)].join(", ");
    const rows = this.#connection.database
      .prepare(`SELECT ${list} FROM main.${quoteName(shape.name)}`)
      .raw()
      .safeIntegers()
      .iterate() as IterableIterator<SqlValue[]>;
    for (const row of rows) yield [row.slice(0, width), row.slice(width)];
  }
}

function contents(row: readonly SqlValue[]): string {
  const bytes = encodeVector(row);
  if (bytes.length <= HASH_BYTES) return Buffer.from(bytes).toString("latin1");
  return createHash("sha256").update(bytes).digest().toString("latin1");
}
