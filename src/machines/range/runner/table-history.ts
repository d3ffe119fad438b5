/**
 * What becomes of tables while a transaction changes the schema: which ones are made, dropped and renamed, and which
 * column of which table in the ranges' files (as of the beginning) is which one now.
 *
 * A table is known by its root page, which it keeps for life; a page is only given to another table after the statement
 * that dropped its owner, so looking after each statement tells them apart. One ALTER changes one thing: as many
 * columns as before with one name changed is RENAME COLUMN.
 *
 * Nothing is looked at before the first change of the schema: `begin` comes before each.
 */
import type Database from "better-sqlite3";
import { lowerAscii } from "../../../sql/tokenizer.js";
import { tablesByRoot } from "./shapes.js";

export interface TrackedTable {
  readonly name: string;
  readonly columns: readonly string[];
  /** Undefined for a table that the transaction has made: nobody else has rows of it. */
  readonly origin: TableOrigin | undefined;
}

export interface TableOrigin {
  readonly name: string;
  /** Its columns, each with its name now; undefined where it was dropped. In table order. */
  readonly columns: readonly (readonly [name: string, now: string | undefined])[];
}

/** What tables are called now, and in the ranges' files; null where they are not there. */
export type TableNames = readonly (readonly [now: string, before: string | null])[];

export interface SchemaDifference {
  /** Root pages. */
  readonly made: readonly number[];
  readonly dropped: readonly number[];
  readonly renamed: readonly (readonly [root: number, name: string])[];
}

/** A mark of before the first change stands for the beginning. */
export type HistoryMark = ReadonlyMap<number, TrackedTable> | undefined;

export class TableHistory {
  readonly #database: Database.Database;
  /** Lower-case names of the ordinary tables of the beginning. */
  readonly #first = new Set<string>();
  /** Undefined until the schema changes for the first time. */
  #tables: HistoryMark;

  constructor(database: Database.Database) {
    this.#database = database;
  }

  /** Before a statement that may change the schema. */
  begin(): void {
    if (this.#tables !== undefined) return;
    const tables = new Map<number, TrackedTable>();
    for (const [root, { name, columns }] of tablesByRoot(this.#database))
      tables.set(root, {
        name,
        columns,
        origin: { name, columns: columns.map((column) => [column, column]) },
      });
    this.#tables = tables;
    for (const { name } of tables.values()) this.#first.add(lowerAscii(name));
  }

  /** After it, whether or not it has failed. */
  end(): SchemaDifference {
    const before = this.#tables ?? new Map<number, TrackedTable>();
    const after = new Map<number, TrackedTable>();
    const made: number[] = [];
    const renamed: [number, string][] = [];
    for (const [root, { name, columns }] of tablesByRoot(this.#database)) {
      const known = before.get(root);
      if (known === undefined) made.push(root);
      else if (known.name !== name) renamed.push([root, name]);
      after.set(root, { name, columns, origin: known && followed(known, columns) });
    }
    this.#tables = after;
    return { made, dropped: [...before.keys()].filter((root) => !after.has(root)), renamed };
  }

  /** Tables that go by another name than in the ranges' files, and those made here, which are not there: lower-case. */
  names(): TableNames {
    return [...(this.#tables?.values() ?? [])]
      .map(
        ({ name, origin }) =>
          [lowerAscii(name), origin === undefined ? null : lowerAscii(origin.name)] as const,
      )
      .filter(([now, before]) => now !== before);
  }

  mark(): HistoryMark {
    return this.#tables;
  }

  /** After the database has been rolled back to where it was marked. */
  restore(mark: HistoryMark): void {
    this.#tables = mark;
  }

  /**
   * What a table of this name is made from: "unchanged" when nothing has happened to it, as far as that is followed
   * (virtual tables, their shadow tables and SQLite's own are not), undefined when the transaction has made it.
   */
  originOf(name: string): TableOrigin | "unchanged" | undefined {
    const lower = lowerAscii(name);
    for (const table of this.#tables?.values() ?? [])
      if (lowerAscii(table.name) === lower) return table.origin;
    return "unchanged";
  }

  /** The name now of the table that the ranges' files have under this name; undefined when it was dropped. */
  currentName(originName: string): string | undefined {
    const lower = lowerAscii(originName);
    for (const { name, origin } of this.#tables?.values() ?? [])
      if (origin !== undefined && lowerAscii(origin.name) === lower) return name;
    return this.#tables !== undefined && this.#first.has(lower) ? undefined : originName;
  }
}

function followed(
  { columns: before, origin }: TrackedTable,
  after: readonly string[],
): TableOrigin | undefined {
  if (origin === undefined) return undefined;
  const gone = before.filter((column) => !after.includes(column));
  if (gone.length === 0) return origin;
  const fresh = after.filter((column) => !before.includes(column));
  const renamed = after.length === before.length && fresh.length === gone.length;
  const now = (column: string): string | undefined =>
    gone.includes(column) ? (renamed ? fresh[gone.indexOf(column)] : undefined) : column;
  return {
    name: origin.name,
    columns: origin.columns.map(([name, was]) => [name, was === undefined ? undefined : now(was)]),
  };
}
