/**
 * Ranges' files as sources of rows: read-only connections, each pinned on the state at the applied index that `add`
 * answers. Connections are kept for the next time: opening one costs more than reading a few rows.
 *
 * Invariant: everything read from a source until `drop` is of one state of its range.
 */
import { assert } from "../../../base/assert.js";
import type { SqlValue } from "../../../base/values.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import { openConnection, type RangeConnection } from "../connection.js";
import { isStill, openIdentified } from "./file-identity.js";
import { shapeOf, type TableShape } from "./shapes.js";

/** Connections kept open without a pin. */
const KEPT = 64;
/** Rows are read once and in order: a large cache would only hold memory, once for each range. */
const CACHE_KIB = 512;

export class Source {
  readonly path: string;
  readonly connection: RangeConnection;
  /** Device and inode of the file: the same path may come to name another. */
  readonly file: string;
  /** Counts its pins: rows of the last pin can be read no more. */
  pins = 0;
  #schemaCookie = -1;
  readonly #shapes = new Map<string, TableShape | undefined>();

  constructor(path: string) {
    this.path = path;
    const { next, file } = openIdentified(path, () =>
      openConnection(path, { readonly: true, role: "read", spill: true }),
    );
    this.connection = next;
    this.file = file;
    next.database.pragma(`cache_size = -${CACHE_KIB}`);
  }

  /** Answers the applied index of the state pinned. */
  pin(): number {
    const { connection } = this;
    connection.database.exec("BEGIN");
    this.pins++;
    const [index] = connection.internal("SELECT applied_index FROM main._ostraka_state").get() as unknown as [
      bigint,
    ];
    const cookie = connection.schemaCookie();
    if (cookie !== this.#schemaCookie) {
      this.#schemaCookie = cookie;
      this.#shapes.clear();
      connection.schemaChanged();
    }
    return Number(index);
  }

  unpin(): void {
    this.pins++;
    if (this.connection.inTransaction) this.connection.database.exec("COMMIT");
  }

  shape(table: string): TableShape | undefined {
    const name = lowerAscii(table);
    if (!this.#shapes.has(name)) this.#shapes.set(name, shapeOf(this.connection.database, table));
    return this.#shapes.get(name);
  }

  /** The last AUTOINCREMENT value of a table; undefined when it has none. */
  sequence(table: string): SqlValue | undefined {
    if (this.shape("sqlite_sequence") === undefined) return undefined;
    const row = this.connection
      .internal("SELECT seq FROM main.sqlite_sequence WHERE name = ? COLLATE NOCASE")
      .get(table) as unknown as [SqlValue] | undefined;
    return row?.[0];
  }
}

export class Sources {
  #pinned: Source[] = [];
  /** Least recently used first. */
  #idle: Source[] = [];

  get count(): number {
    return this.#pinned.length;
  }

  add(path: string): { readonly source: number; readonly appliedIndex: number } {
    const source = this.#take(path) ?? new Source(path);
    try {
      const appliedIndex = source.pin();
      this.#pinned.push(source);
      return { source: this.#pinned.length - 1, appliedIndex };
    } catch (error) {
      source.connection.close();
      throw error;
    }
  }

  get(number: number): Source {
    const source = this.#pinned[number];
    assert(source !== undefined, "rows were asked of a source that is not pinned");
    return source;
  }

  /** Lets all pins go. */
  drop(): void {
    const pinned = this.#pinned;
    this.#pinned = [];
    for (const source of pinned) source.unpin();
    this.#idle.push(...pinned);
    for (const source of this.#idle.splice(0, Math.max(0, this.#idle.length - KEPT)))
      source.connection.close();
    // A range that is gone must not keep its room on the disk for long.
    const oldest = this.#idle[0];
    if (oldest !== undefined && !isStill(oldest.path, oldest.file)) this.#idle.shift()?.connection.close();
  }

  close(): void {
    for (const { connection } of [...this.#pinned, ...this.#idle]) connection.close();
    this.#pinned = [];
    this.#idle = [];
  }

  #take(path: string): Source | undefined {
    const at = this.#idle.findIndex((source) => source.path === path);
    const source = this.#idle[at];
    if (source === undefined) return undefined;
    this.#idle.splice(at, 1);
    if (isStill(path, source.file)) return source;
    source.connection.close();
    return undefined;
  }
}
