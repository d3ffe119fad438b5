/**
 * What SQLite says of a statement, asked of a database in memory that has the schema and no rows. It runs on the
 * main thread: nothing here executes a user's statement, and preparing takes microseconds.
 *
 * Invariants
 * 1. The same functions are overridden as on replicas, so that the same texts compile to the same programs.
 * 2. Preparing has no effect. PRAGMA would take effect at prepare and transaction control is not a question about
 *    the schema: both are refused here as a second line behind the caller's own classification.
 * 3. Foreign keys and recursive triggers are on unless told otherwise: the program shown touches at least what the
 *    statement touches with them off.
 * 4. An oracle never changes: another schema version is another oracle.
 *
 * Left out: caching (the analysis caches by text and version), and rows, so estimates rest on sqlite_stat alone.
 */
import Database from "better-sqlite3";
import { FatalError, UserError } from "../../base/errors.js";
import { lowerAscii } from "../../sql/tokenizer.js";
import {
  type KeyColumn,
  type OpcodeRow,
  type PreparedFacts,
  type SchemaOracle,
  SessionFlag,
  type SessionFlags,
  type TableFacts,
} from "../../sql/types.js";
import { openConnection, type RangeConnection } from "./connection.js";
import { leadingWord } from "./leading-words.js";
import { bindArguments, planParameters } from "./parameters.js";
import { homeTables } from "./table-keys.js";
import { asTemp, INTERNAL_PREFIX, quoteName, withoutQuoted } from "./temp-objects.js";
import type { SchemaSnapshot } from "./types.js";

/** An oracle that a session with TEMP objects can specialise. */
export interface SessionOracle extends SchemaOracle {
  /**
   * The same schema with a session's TEMP objects: statements as in sqlite_temp_schema, in order, or as the user wrote
   * them. Statements that no longer fit the schema (a view of a dropped table) are left out, as in a session of SQLite.
   */
  withTemp(statements: readonly string[]): SessionOracle;
  /** Names, in lower case, of the tables that stay whole in the first range. */
  homeTables(): ReadonlySet<string>;
  /** The same schema as seen by a session with these settings. */
  withFlags(flags: SessionFlags): SessionOracle;
  close(): void;
}

const DEFAULT_FLAGS: SessionFlags = SessionFlag.RecursiveTriggers;

/** Whoever makes one closes it: SQLite's memory is nothing that the garbage collector knows of. */
export function createOracle(schema: SchemaSnapshot, temp: readonly string[] = []): SessionOracle {
  return new SqliteOracle(schema, temp, DEFAULT_FLAGS);
}

const REFUSED: ReadonlySet<string> = new Set([
  "pragma",
  "attach",
  "detach",
  "begin",
  "commit",
  "end",
  "rollback",
  "savepoint",
  "release",
  "vacuum",
]);

const SCHEMA_TABLES: ReadonlySet<string> = new Set([
  "sqlite_schema",
  "sqlite_master",
  "sqlite_temp_schema",
  "sqlite_temp_master",
]);

const SCHEMA_TABLE: TableFacts = {
  name: "sqlite_schema",
  kind: "table",
  withoutRowid: false,
  integerPrimaryKey: undefined,
  autoincrement: false,
  columns: ["type", "name", "tbl_name", "rootpage", "sql"],
  hasTriggers: false,
};

type RootPageEntry = { readonly name: string; readonly table: string; readonly kind: "table" | "index" };

class SqliteOracle implements SessionOracle {
  readonly version: number;
  readonly #schema: SchemaSnapshot;
  readonly #temp: readonly string[];
  readonly #flags: SessionFlags;
  readonly #connection: RangeConnection;
  readonly #database: Database.Database;
  /** By database number: 0 main, 1 temp. */
  readonly #rootPages: (Map<number, RootPageEntry> | undefined)[] = [];
  readonly #tables = new Map<string, TableFacts | undefined>();
  readonly #keys = new Map<number, readonly KeyColumn[] | undefined>();
  readonly #unique = new Map<number, boolean>();
  #tempFacts: SchemaOracle["temp"];
  #homes: ReadonlySet<string> | undefined;

  constructor(schema: SchemaSnapshot, temp: readonly string[], flags: SessionFlags) {
    this.version = schema.version;
    this.#schema = schema;
    this.#temp = temp;
    this.#flags = flags;
    this.#connection = openConnection(":memory:", { readonly: false, role: "scratch" });
    this.#database = this.#connection.database;
    this.#database.defaultSafeIntegers(false);
    buildSchema(this.#database, schema.statements);
    for (const statement of temp) this.#createTemp(statement);
    this.#connection.setFlags(flags);
  }

  withTemp(statements: readonly string[]): SessionOracle {
    return new SqliteOracle(this.#schema, statements, this.#flags);
  }

  withFlags(flags: SessionFlags): SessionOracle {
    return new SqliteOracle(this.#schema, this.#temp, flags);
  }

  close(): void {
    this.#connection.close();
  }

  get temp(): NonNullable<SchemaOracle["temp"]> {
    this.#tempFacts ??= this.#readTemp();
    return this.#tempFacts;
  }

  prepare(sql: string): PreparedFacts {
    refuseEffects(sql);
    return this.#compiled((withoutForeignKeys) => {
      const statement = this.#database.prepare(planParameters(sql).sql);
      const columns = statement.reader ? statement.columns() : [];
      return {
        readonly: statement.readonly,
        returnsRows: statement.reader,
        columns: columns.map((column) => column.name),
        columnTypes: columns.map((column) => column.type),
        withoutForeignKeys,
      };
    });
  }

  explain(sql: string): readonly OpcodeRow[] {
    return this.#explain("EXPLAIN ", sql) as readonly OpcodeRow[];
  }

  explainQueryPlan(
    sql: string,
  ): readonly { readonly id: number; readonly parent: number; readonly detail: string }[] {
    return this.#explain("EXPLAIN QUERY PLAN ", sql) as readonly {
      id: number;
      parent: number;
      detail: string;
    }[];
  }

  keyColumns(rootPage: number): readonly KeyColumn[] | undefined {
    if (!this.#keys.has(rootPage)) this.#keys.set(rootPage, this.#readKey(rootPage));
    return this.#keys.get(rootPage);
  }

  #readKey(rootPage: number): readonly KeyColumn[] | undefined {
    const object = this.objectByRootPage(0, rootPage);
    if (object === undefined) return undefined;
    let index: string | undefined = object.name;
    if (object.kind === "table")
      index = this.table(object.name)?.withoutRowid
        ? (this.#database
            .prepare("SELECT name FROM pragma_index_list(?, 'main') WHERE origin = 'pk'")
            .pluck()
            .get(object.name) as string | undefined)
        : undefined;
    if (index === undefined) return undefined;
    const rows = this.#database
      .prepare(
        `SELECT i.name, i.coll, t.type FROM pragma_index_xinfo(?, 'main') AS i
         LEFT JOIN pragma_table_xinfo(?, 'main') AS t ON t.cid = i.cid WHERE i.key ORDER BY i.seqno`,
      )
      .raw()
      .all(index, object.table) as [string | null, string, string | null][];
    return rows.map(([name, collation, type]) => ({
      name: name ?? undefined,
      collation,
      real: hasRealAffinity(type ?? ""),
    }));
  }

  isUniqueIndex(rootPage: number): boolean {
    let unique = this.#unique.get(rootPage);
    if (unique === undefined) {
      const object = this.objectByRootPage(0, rootPage);
      unique =
        object?.kind === "index" &&
        this.#database
          .prepare(`SELECT 1 FROM pragma_index_list(?, 'main') WHERE name = ? AND "unique"`)
          .get(object.table, object.name) !== undefined;
      this.#unique.set(rootPage, unique);
    }
    return unique;
  }

  objectByRootPage(database: number, rootPage: number): RootPageEntry | undefined {
    if (database !== 0 && database !== 1) return undefined;
    let pages = this.#rootPages[database];
    if (pages === undefined) {
      pages = this.#readRootPages(
        database === 0 ? "main.sqlite_schema" : "temp.sqlite_temp_schema",
        database,
      );
      this.#rootPages[database] = pages;
    }
    return pages.get(rootPage);
  }

  table(name: string): TableFacts | undefined {
    const key = lowerAscii(name);
    if (!this.#tables.has(key)) this.#tables.set(key, this.#readTable(name));
    return this.#tables.get(key);
  }

  text(name: string): string | undefined {
    const found = this.#database
      .prepare("SELECT sql FROM main.sqlite_schema WHERE name = ? COLLATE NOCASE AND type <> 'trigger'")
      .pluck()
      .get(name) as string | null | undefined;
    return found ?? undefined;
  }

  homeTables(): ReadonlySet<string> {
    this.#homes ??= homeTables(this.#database);
    return this.#homes;
  }

  virtualTables(): readonly { readonly name: string; readonly sql: string }[] {
    return this.#database
      .prepare("SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0")
      .all() as { name: string; sql: string }[];
  }

  #explain(prefix: string, sql: string): readonly unknown[] {
    refuseEffects(prefix + sql);
    const plan = planParameters(sql);
    return this.#compiled(() => {
      const statement = this.#database.prepare(prefix + plan.sql);
      return statement.all(...bindArguments(plan, new Array<null>(plan.count).fill(null)));
    });
  }

  /**
   * A table whose parent is missing, or has no such key, can be written by sessions that have turned foreign keys off;
   * what it fails with is what all others are told.
   */
  #compiled<T>(compile: (failure?: Error) => T): T {
    try {
      return compile();
    } catch (error) {
      if (!(error instanceof Error) || !FOREIGN_KEYS.test(error.message)) throw asUserError(error);
      this.#connection.setFlags(this.#flags | SessionFlag.ForeignKeysOff);
      try {
        return compile(asUserError(error));
      } catch {
        throw asUserError(error);
      } finally {
        this.#connection.setFlags(this.#flags);
      }
    }
  }

  #createTemp(statement: string): void {
    if (/^\s*CREATE\s+TABLE\s+["']?sqlite_sequence\b/i.test(statement))
      for (const sql of MAKE_SEQUENCE) this.#database.exec(sql.replace(" TABLE ", " TABLE temp."));
    if (/^\s*CREATE\s+TABLE\s+'?"?sqlite_/i.test(statement)) return;
    const name = createdName(statement);
    if (name !== undefined && this.#exists("temp.sqlite_temp_schema", name, TRIGGER.test(statement))) return;
    try {
      this.#database.exec(asTemp(statement));
    } catch (error) {
      if (!(error instanceof Database.SqliteError)) throw error;
    }
  }

  #exists(schemaTable: string, name: string, trigger: boolean): boolean {
    return existing(this.#database, schemaTable).get(name, trigger ? 1 : 0) !== undefined;
  }

  #readRootPages(schemaTable: string, database: number): Map<number, RootPageEntry> {
    const pages = new Map<number, RootPageEntry>();
    const own = database === 0 ? "sqlite_schema" : "sqlite_temp_schema";
    pages.set(1, { name: own, table: own, kind: "table" });
    const rows = this.#database
      .prepare(`SELECT type, name, tbl_name, rootpage FROM ${schemaTable} WHERE rootpage > 0`)
      .raw()
      .all() as [string, string, string, number][];
    for (const [type, name, table, page] of rows)
      pages.set(page, { name, table, kind: type === "index" ? "index" : "table" });
    return pages;
  }

  #readTemp(): NonNullable<SchemaOracle["temp"]> {
    if (this.#temp.length === 0) return { names: new Set(), triggers: false };
    const rows = this.#database
      .prepare(
        `SELECT type, lower(name) FROM temp.sqlite_temp_schema
         WHERE substr(tbl_name, 1, ${INTERNAL_PREFIX.length}) <> '${INTERNAL_PREFIX}'`,
      )
      .raw()
      .all() as [string, string][];
    return {
      names: new Set(rows.map(([, name]) => name)),
      triggers: rows.some(([type]) => type === "trigger"),
    };
  }

  #readTable(name: string): TableFacts | undefined {
    if (SCHEMA_TABLES.has(lowerAscii(name))) return SCHEMA_TABLE;
    const found = this.#database
      .prepare("SELECT schema, name, type, wr FROM pragma_table_list(?)")
      .raw()
      .all(name) as [string, string, TableFacts["kind"], number][];
    const [schema, actual, kind, withoutRowid] = found.find(([s]) => s === "temp") ?? found[0] ?? [];
    if (schema === undefined || actual === undefined || kind === undefined) return undefined;
    const columns = this.#readColumns(schema, actual);
    const rowidAlias =
      withoutRowid === 1 || kind === "view" ? undefined : this.#rowidAlias(schema, actual, columns);
    return {
      name: actual,
      kind,
      withoutRowid: withoutRowid === 1,
      integerPrimaryKey: rowidAlias,
      autoincrement: rowidAlias !== undefined && this.#autoincrement(schema, actual),
      columns: columns.map(([column]) => column),
      hasTriggers: this.#hasTriggers(actual),
    };
  }

  /** None of a view of what is gone. */
  #readColumns(schema: string, table: string): [name: string, type: string, key: number][] {
    try {
      return this.#database
        .prepare("SELECT name, type, pk FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid")
        .raw()
        .all(table, schema) as [string, string, number][];
    } catch (error) {
      if (error instanceof Database.SqliteError) return [];
      throw error;
    }
  }

  /** INTEGER PRIMARY KEY DESC is not an alias: it has an index of its own. */
  #rowidAlias(
    schema: string,
    table: string,
    columns: readonly [string, string, number][],
  ): string | undefined {
    const key = columns.filter(([, , pk]) => pk > 0);
    const only = key[0];
    if (key.length !== 1 || only === undefined || only[1].toUpperCase() !== "INTEGER") return undefined;
    const indexed = this.#database
      .prepare("SELECT 1 FROM pragma_index_list(?, ?) WHERE origin = 'pk'")
      .get(table, schema);
    return indexed === undefined ? only[0] : undefined;
  }

  #autoincrement(schema: string, table: string): boolean {
    const sql = this.#database
      .prepare(`SELECT sql FROM ${quoteName(schema)}.sqlite_schema WHERE type = 'table' AND name = ?`)
      .pluck()
      .get(table) as string | null | undefined;
    // A bare AUTOINCREMENT is always the keyword; elsewhere it must be quoted.
    return /\bautoincrement\b/i.test(withoutQuoted(sql ?? ""));
  }

  #hasTriggers(table: string): boolean {
    const found = this.#database
      .prepare(
        `SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = :t COLLATE NOCASE
         UNION ALL
         SELECT 1 FROM temp.sqlite_temp_schema WHERE type = 'trigger' AND tbl_name = :t COLLATE NOCASE`,
      )
      .get({ t: table });
    return found !== undefined;
  }
}

/** What SQLite says of foreign keys that it cannot compile; the first may have other causes. */
const FOREIGN_KEYS = /^(no such table: main\.|foreign key mismatch)/;

const TRIGGER = /^\s*CREATE\s+(TEMP(ORARY)?\s+)?TRIGGER\b/i;

/** Triggers have names of their own: one may be called as a table is. */
function existing(database: Database.Database, schemaTable: string): Database.Statement {
  return database.prepare(
    `SELECT 1 FROM ${schemaTable} WHERE name = ? COLLATE NOCASE AND (type = 'trigger') = ?`,
  );
}

/** sqlite_sequence comes with the first AUTOINCREMENT and outlives the last; no statement makes it by name. */
export const MAKE_SEQUENCE: readonly string[] = [
  "CREATE TABLE _ostraka_sequence(id INTEGER PRIMARY KEY AUTOINCREMENT)",
  "DROP TABLE _ostraka_sequence",
];

/**
 * Makes the schema. Shadow tables come with their virtual table, automatic tables (sqlite_sequence) with whoever needs
 * them, and statistics are rows put into the tables that ANALYZE makes.
 */
export function buildSchema(database: Database.Database, statements: readonly string[]): void {
  const statistics: string[] = [];
  const objects: string[] = [];
  for (const statement of statements) {
    if (MAKE_SEQUENCE.includes(statement)) database.exec(statement);
    else if (!/^\s*CREATE\b/i.test(statement) || /^\s*CREATE\s+TABLE\s+["']?sqlite_stat/i.test(statement))
      statistics.push(statement);
    else objects.push(statement);
  }
  createObjects(database, objects);
  if (statistics.length === 0) return;
  database.exec("ANALYZE");
  for (const statement of statistics)
    if (!/^\s*(CREATE|ANALYZE|DROP)\b/i.test(statement)) database.exec(statement);
  // Makes statistics tables that are missing, so those that were dropped go last.
  database.exec("ANALYZE sqlite_schema");
  for (const statement of statistics) if (/^\s*DROP\b/i.test(statement)) database.exec(statement);
}

/**
 * A virtual table may not be made any more, or not yet: FTS4 takes its columns from the table that has its content, and
 * that was dropped, or made anew behind it. Then it comes last, what may be its shadow tables behind it; and is left out
 * if nobody could use it.
 */
function createObjects(database: Database.Database, statements: readonly string[]): void {
  const exists = existing(database, "main.sqlite_schema");
  const late: string[] = [];
  const lateNames: string[] = [];
  for (const statement of statements) {
    const name = createdName(statement);
    if (name !== undefined) {
      if (/^sqlite_/i.test(name) || exists.get(name, TRIGGER.test(statement) ? 1 : 0) !== undefined) continue;
      if (lateNames.some((other) => name.startsWith(`${other}_`))) {
        late.push(statement);
        continue;
      }
    }
    try {
      database.exec(statement);
    } catch (error) {
      if (name === undefined || !VIRTUAL.test(statement) || !(error instanceof Database.SqliteError))
        throw error;
      late.push(statement);
      lateNames.push(name);
    }
  }
  for (const statement of late) {
    if (exists.get(createdName(statement), 0) !== undefined) continue;
    try {
      database.exec(statement);
    } catch (error) {
      if (!(error instanceof Database.SqliteError)) throw error;
    }
  }
}

const VIRTUAL = /^\s*CREATE\s+VIRTUAL\b/i;

const CREATED =
  /^\s*CREATE\s+(?:TEMP(?:ORARY)?\s+)?(?:TABLE|VIEW|TRIGGER|VIRTUAL\s+TABLE|(?:UNIQUE\s+)?INDEX)\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^\]]*\]|[^\s("'`[.]+)/i;

/** The name of what a stored CREATE statement makes. */
function createdName(statement: string): string | undefined {
  const name = CREATED.exec(statement)?.[1];
  const quote = name?.[0];
  if (name === undefined || quote === undefined) return undefined;
  if (quote === "[") return name.slice(1, -1);
  if (quote !== '"' && quote !== "'" && quote !== "`") return name;
  return name.slice(1, -1).replaceAll(quote + quote, quote);
}

function refuseEffects(sql: string): void {
  const { word } = leadingWord(sql);
  if (REFUSED.has(word))
    throw new UserError("OSTRAKA_UNSUPPORTED", `${word.toUpperCase()} is not a statement about the schema`);
}

function asUserError(error: unknown): Error {
  if (error instanceof Database.SqliteError) return new UserError(error.code, error.message);
  // better-sqlite3's own checks: no statement in the text, or more than one.
  if (error instanceof RangeError) return new UserError("SQLITE_MISUSE", error.message);
  return error instanceof Error ? error : new FatalError("OSTRAKA_INTERNAL", String(error));
}

/** As SQLite tells it from the declared type. */
function hasRealAffinity(type: string): boolean {
  return /REAL|FLOA|DOUB/i.test(type) && !/INT|CHAR|CLOB|TEXT|BLOB/i.test(type);
}
