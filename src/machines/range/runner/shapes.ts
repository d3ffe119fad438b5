/**
 * How a table's rows are read, named by key, and put elsewhere exactly as they are: shared by what captures row
 * changes and by what carries rows from ranges' files to a scratch database.
 *
 * A row's vector is its rowid, where no column stands for it, and then the values of all columns that are not
 * generated, in table order.
 */
import type Database from "better-sqlite3";
import { UserError } from "../../../base/errors.js";
import { primaryKeyIndex } from "../table-facts.js";
import { quoteName } from "../temp-objects.js";

export interface TableShape {
  readonly name: string;
  readonly kind: "table" | "shadow" | "virtual" | "view";
  readonly withoutRowid: boolean;
  /** The row's key as SQL, quoted: a name of the rowid, or the primary key's columns. */
  readonly key: readonly string[];
  /** Names of the primary key's columns of a table without rowid, in key order; twice where it has one in two collations. */
  readonly keyColumns: readonly string[];
  /** The key as the target of ON CONFLICT, with its collations, which need not be those of its columns. */
  readonly conflictTarget: string;
  /** SQL that finds the row with a key. */
  readonly hasKey: string;
  /** Names of all columns that are not generated, in table order. */
  readonly columns: readonly string[];
  /** A row's vector as SQL, quoted: the rowid first unless a column stands for it. */
  readonly vector: readonly string[];
  /** The vector begins with a rowid that no column stands for. */
  readonly hiddenRowid: boolean;
  /** Where the key's values are in a row's vector. */
  readonly keyAt: readonly number[];
}

const ROWID_NAMES = ["rowid", "_rowid_", "oid"];

type Column = [name: string, type: string, key: bigint, hidden: bigint];

/** Undefined when there is no such table; throws OSTRAKA_UNSUPPORTED for one whose rowid cannot be named. */
export function shapeOf(database: Database.Database, table: string): TableShape | undefined {
  const listed = database
    .prepare("SELECT name, type, wr FROM pragma_table_list(?) WHERE schema = 'main'")
    .raw()
    .safeIntegers()
    .get(table) as [string, TableShape["kind"], bigint] | undefined;
  if (listed === undefined) return undefined;
  const [name, kind, withoutRowid] = listed;
  const all = database
    .prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid")
    .raw()
    .safeIntegers()
    .all(name) as Column[];
  const columns = all.filter(([, , , hidden]) => hidden === 0n).map(([column]) => column);
  const vector = columns.map(quoteName);
  const common = { name, kind, columns };
  if (kind === "view" || kind === "virtual")
    return {
      ...common,
      withoutRowid: false,
      key: [],
      keyColumns: [],
      conflictTarget: "",
      hasKey: "",
      vector,
      hiddenRowid: false,
      keyAt: [],
    };
  if (withoutRowid === 1n) {
    const primary = primaryKeyIndex(database, name);
    const keyColumns = primary.map(([column]) => column);
    // A conflict target names an index only with the index's own collations, and only by these a key is one row's.
    const collated = primary.map(([column, , coll]) => `${quoteName(column)} COLLATE ${quoteName(coll)}`);
    return {
      ...common,
      withoutRowid: true,
      key: keyColumns.map(quoteName),
      keyColumns,
      conflictTarget: collated.join(", "),
      hasKey: collated.map((part) => `${part} = ?`).join(" AND "),
      vector,
      hiddenRowid: false,
      keyAt: keyColumns.map((column) => columns.indexOf(column)),
    };
  }
  const alias = rowidAlias(database, name, all);
  const taken = new Set(all.map(([column]) => column.toLowerCase()));
  const rowid =
    alias === undefined ? ROWID_NAMES.find((candidate) => !taken.has(candidate)) : quoteName(alias);
  if (rowid === undefined)
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      `the rowid of ${name} cannot be named: its columns take all its names`,
    );
  return {
    ...common,
    withoutRowid: false,
    key: [rowid],
    keyColumns: [],
    conflictTarget: rowid,
    hasKey: `${rowid} = ?`,
    vector: alias === undefined ? [rowid, ...vector] : vector,
    hiddenRowid: alias === undefined,
    keyAt: [alias === undefined ? 0 : columns.indexOf(alias)],
  };
}

export interface RootedTable {
  readonly name: string;
  /** Those that are not generated, in table order. */
  readonly columns: readonly string[];
}

/** All ordinary tables by the root page that programs name them by; ours, SQLite's own and shadow tables left out. */
export function tablesByRoot(database: Database.Database): Map<number, RootedTable> {
  const rows = database
    .prepare(
      `SELECT s.rootpage, s.name, x.name FROM main.sqlite_schema s
       JOIN pragma_table_list l ON l.schema = 'main' AND l.name = s.name AND l.type = 'table'
       JOIN pragma_table_xinfo(s.name, 'main') x ON x.hidden = 0
       WHERE s.type = 'table' AND substr(s.name, 1, 7) <> 'sqlite_' AND substr(s.name, 1, 9) <> '_ostraka_'
       ORDER BY s.rowid, x.cid`,
    )
    .raw()
    .safeIntegers(false)
    .all() as [number, string, string][];
  const tables = new Map<number, { name: string; columns: string[] }>();
  for (const [root, name, column] of rows) {
    const table = tables.get(root);
    if (table === undefined) tables.set(root, { name, columns: [column] });
    else table.columns.push(column);
  }
  return tables;
}

function primaryKey(columns: readonly Column[]): Column[] {
  return columns.filter(([, , pk]) => pk > 0n).sort((a, b) => Number(a[2] - b[2]));
}

/** INTEGER PRIMARY KEY, when it is the rowid: with DESC it has an index of its own and is not. */
function rowidAlias(
  database: Database.Database,
  table: string,
  columns: readonly Column[],
): string | undefined {
  const [only, ...others] = primaryKey(columns);
  if (only === undefined || others.length > 0 || only[1].toUpperCase() !== "INTEGER") return undefined;
  const indexed = database
    .prepare("SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'")
    .get(table);
  return indexed === undefined ? only[0] : undefined;
}
