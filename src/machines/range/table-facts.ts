/**
 * What follows from a schema's text alone about its tables: what their rows are sharded by, and what tells rows apart.
 *
 * Everything here comes of SQLite's reading of the text, on connections with the same functions, and nothing of rows, root
 * pages or settings; so it is remembered by the text.
 */
import type Database from "better-sqlite3";
import type { TableKey } from "../../placement/descriptor.js";
import { lowerAscii } from "../../sql/tokenizer.js";
import { Remembered } from "./remembered.js";
import { quoteName, withoutQuoted } from "./temp-objects.js";

/** A table but for the ids that a range gives. */
export interface TableFacts extends Omit<TableKey, "id"> {
  /** As it is written in the schema. */
  readonly actualName: string;
  readonly kind: "table" | "virtual" | "shadow";
  readonly withoutRowid: boolean;
  /** What tells one row from all others, sharded by it or not; empty when that has no name. */
  readonly rowKey: readonly string[];
}

interface Listed {
  readonly name: string;
  readonly kind: TableFacts["kind"];
  readonly withoutRowid: boolean;
  readonly sql: string;
}

interface Column {
  readonly name: string;
  readonly type: string;
  readonly primaryKey: number;
}

export const OURS = "substr(name, 1, 7) <> 'sqlite_' AND substr(name, 1, 9) <> '_ostraka_'";
const ROWID_NAMES = ["rowid", "_rowid_", "oid"];
const ACTS = /^(CASCADE|SET NULL|SET DEFAULT)$/;

const remembered = new Remembered<readonly TableFacts[]>(4);

/** Of all tables of the user's, in the order of their names; `database` must be a RangeConnection's. */
export function readTableFacts(database: Database.Database): readonly TableFacts[] {
  return remembered.of(schemaText(database), () => deriveTableFacts(database));
}

/** In the order in which it was made, which SQLite goes by in places. */
function schemaText(database: Database.Database): string {
  const rows = database
    .prepare("SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY rowid")
    .raw(true)
    .all();
  return JSON.stringify(rows);
}

/** The same for any database, without remembering. */
export function deriveTableFacts(database: Database.Database): readonly TableFacts[] {
  const tables = listTables(database);
  const columns = readColumns(database);
  const home = feedingVirtualTables(database, tables);
  return tables.map((table): TableFacts => {
    const name = lowerAscii(table.name);
    const key =
      table.kind === "table"
        ? keyOfRows(database, table, columns.get(table.name) ?? [])
        : { columns: [], ordered: false };
    const keyColumns = key.ordered && !home.has(name) ? key.columns : undefined;
    const common = {
      name,
      actualName: table.name,
      kind: table.kind,
      withoutRowid: table.withoutRowid,
      rowKey: key.columns,
      autoincrement:
        table.kind === "table" && /\bautoincrement\b/i.test(table.sql) && isAutoincrement(table.sql),
    };
    return keyColumns === undefined
      ? { ...common, shard: "home", keyColumns: [] }
      : { ...common, shard: table.withoutRowid ? "key" : "rowid", keyColumns };
  });
}

/** A bare AUTOINCREMENT is always the keyword; elsewhere it must be quoted. */
function isAutoincrement(sql: string): boolean {
  return /\bautoincrement\b/i.test(withoutQuoted(sql));
}

function listTables(database: Database.Database): Listed[] {
  const rows = database
    .prepare(
      `SELECT l.name, l.type, l.wr, s.sql FROM pragma_table_list l
       JOIN main.sqlite_schema s ON s.type = 'table' AND s.name = l.name
       WHERE l.schema = 'main' AND l.type <> 'view' AND ${OURS.replaceAll("name", "l.name")}
       ORDER BY l.name`,
    )
    .raw(true)
    .safeIntegers(false)
    .all() as [string, Listed["kind"], number, string][];
  return rows.map(([name, kind, wr, sql]) => ({ name, kind, withoutRowid: wr === 1, sql }));
}

function readColumns(database: Database.Database): Map<string, Column[]> {
  const rows = database
    .prepare(
      `SELECT s.name, c.name, c.type, c.pk FROM main.sqlite_schema s, pragma_table_xinfo(s.name, 'main') c
       WHERE s.type = 'table' AND s.rootpage > 0 AND ${OURS.replaceAll("name", "s.name")} ORDER BY c.cid`,
    )
    .raw(true)
    .safeIntegers(false)
    .all() as [string, string, string, number][];
  const columns = new Map<string, Column[]>();
  for (const [table, name, type, primaryKey] of rows) {
    let list = columns.get(table);
    if (list === undefined) {
      list = [];
      columns.set(table, list);
    }
    list.push({ name, type, primaryKey });
  }
  return columns;
}

interface RowKey {
  readonly columns: readonly string[];
  /** Encoded keys are in the order of the rows. */
  readonly ordered: boolean;
}

function keyOfRows(
  database: Database.Database,
  { name, withoutRowid }: Listed,
  columns: readonly Column[],
): RowKey {
  if (withoutRowid) return primaryKey(database, name, columns);
  const taken = new Set(columns.map((column) => lowerAscii(column.name)));
  const rowid = ROWID_NAMES.find((candidate) => !taken.has(candidate));
  if (rowid !== undefined) return { columns: [rowid], ordered: true };
  const key = columns.filter(({ primaryKey }) => primaryKey > 0);
  const alias = key.length === 1 && lowerAscii(key[0]!.type) === "integer" ? key[0]!.name : undefined;
  return alias === undefined || primaryKeyIndex(database, name).length > 0
    ? { columns: [], ordered: false }
    : { columns: [alias], ordered: true };
}

/** Of a table by name: the columns of the index that its primary key has, if it has one, in key order. */
export const PRIMARY_KEY_INDEX = `SELECT x.name, x."desc", x.coll
  FROM pragma_index_list(?, 'main') i, pragma_index_xinfo(i.name, 'main') x
  WHERE i.origin = 'pk' AND x.key = 1 ORDER BY x.seqno`;

export function primaryKeyIndex(
  database: Database.Database,
  table: string,
): [column: string, descending: number, collation: string][] {
  return database.prepare(PRIMARY_KEY_INDEX).raw(true).safeIntegers(false).all(table) as [
    string,
    number,
    string,
  ][];
}

function primaryKey(database: Database.Database, table: string, columns: readonly Column[]): RowKey {
  const key = primaryKeyIndex(database, table);
  const ordered = key.every(([name, descending, collation]) => {
    const column = columns.find((one) => one.name === name);
    return (
      column !== undefined &&
      descending === 0 &&
      collation.toUpperCase() === "BINARY" &&
      /^(integer|text|blob)$/.test(affinity(column.type))
    );
  });
  return { columns: key.map(([name]) => name), ordered: ordered && key.length > 0 };
}

/** See "Determination Of Column Affinity" in SQLite's documentation. */
function affinity(type: string): string {
  if (/int/i.test(type)) return "integer";
  if (/char|clob|text/i.test(type)) return "text";
  if (type === "" || /blob/i.test(type)) return "blob";
  return /real|floa|doub/i.test(type) ? "real" : "numeric";
}

/** Names, in lower case, of ordinary tables whose writing may write a virtual table. */
function feedingVirtualTables(database: Database.Database, tables: readonly Listed[]): Set<string> {
  const feeding = new Set<string>();
  if (!tables.some(({ kind }) => kind === "virtual")) return feeding;
  const writes = new Map<string, Set<string>>();
  const edges = (from: string): Set<string> => {
    const name = lowerAscii(from);
    let to = writes.get(name);
    if (to === undefined) {
      to = new Set();
      writes.set(name, to);
    }
    return to;
  };
  for (const [table, type] of triggered(database))
    for (const written of programWrites(database, table, type)) edges(table).add(written);
  for (const { name, kind } of tables)
    if (kind === "table") for (const parent of parents(database, name)) edges(parent).add(lowerAscii(name));
  for (let found = true; found; ) {
    found = false;
    for (const [from, to] of writes) {
      if (feeding.has(from) || ![...to].some((name) => name === VIRTUAL || feeding.has(name))) continue;
      feeding.add(from);
      found = true;
    }
  }
  return feeding;
}

/** Stands for any virtual table. */
const VIRTUAL = "";

function triggered(database: Database.Database): [string, string][] {
  return database
    .prepare(
      `SELECT DISTINCT o.name, o.type FROM main.sqlite_schema t
       JOIN main.sqlite_schema o ON o.type IN ('table', 'view') AND o.name = t.tbl_name COLLATE NOCASE
       WHERE t.type = 'trigger'`,
    )
    .raw(true)
    .all() as [string, string][];
}

/** Tables whose rows go or change with those of a parent table: the parent's writes are theirs. */
function parents(database: Database.Database, table: string): string[] {
  const rows = database
    .prepare(`SELECT "table", on_update, on_delete FROM pragma_foreign_key_list(?, 'main')`)
    .raw(true)
    .all(table) as [string, string, string][];
  return rows
    .filter(([, onUpdate, onDelete]) => ACTS.test(onUpdate) || ACTS.test(onDelete))
    .map(([to]) => to);
}

/** What SQLite says that writing rows of a table, or of a view with INSTEAD OF triggers, writes. */
function programWrites(database: Database.Database, table: string, type: string): Set<string> {
  const written = new Set<string>();
  let columns: string[];
  try {
    const found = database
      .prepare("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0 ORDER BY cid")
      .pluck(true)
      .all(table) as string[];
    columns = found.map(quoteName);
  } catch {
    // A view of what is gone.
    return written;
  }
  const name = `main.${quoteName(table)}`;
  const texts = [
    `INSERT INTO ${name}(${columns.join(", ")}) VALUES (${columns.map(() => "NULL").join(", ")})`,
    `UPDATE ${name} SET ${columns.map((column) => `${column} = ${column}`).join(", ")}`,
    `DELETE FROM ${name}`,
  ];
  for (const text of texts) {
    let program: { opcode: string; p2: number; p3: number }[];
    try {
      program = database.prepare(`EXPLAIN ${text}`).safeIntegers(false).all() as typeof program;
    } catch {
      // A trigger that does not compile, or a view without one for this: nothing can be written so.
      continue;
    }
    for (const { opcode, p2, p3 } of program) {
      if (opcode === "VUpdate") written.add(VIRTUAL);
      else if (opcode === "OpenWrite" && p3 === 0) {
        const owner = tableOfPage(database, p2);
        if (owner !== undefined && (type === "view" || owner !== lowerAscii(table))) written.add(owner);
      }
    }
  }
  return written;
}

function tableOfPage(database: Database.Database, page: number): string | undefined {
  return database
    .prepare("SELECT lower(tbl_name) FROM main.sqlite_schema WHERE rootpage = ? LIMIT 1")
    .pluck(true)
    .get(page) as string | undefined;
}
