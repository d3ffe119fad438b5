/**
 * A SQLite file into the database: its schema, then its rows, then indexes, views and triggers, so that nothing fires
 * and nothing is indexed twice meanwhile. The file is opened read-only and read in one transaction.
 *
 * Tables go in before those that refer to them. Where they refer to each other, or to themselves, the row that is
 * referred to may come later than the row that refers; foreign keys are off in the session that loads, and
 * the whole is checked at the end (PRAGMA foreign_key_check), so that what comes out is what was in the file.
 *
 * AUTOINCREMENT goes on from where it was in the file. With the whole file come its user_version and application_id
 * where they are set, and where it has statistics they are gathered anew.
 */
import { basename } from "node:path";
import Sqlite from "better-sqlite3";
import type { InputValue } from "../../driver/types.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { quoteName } from "../format/literals.js";
import { startProgress } from "../progress.js";
import { guarded, type ImportOptions, insertSql, tableColumns } from "./import.js";
import { Loader, type LoadTarget, type SourceRow } from "./loader.js";

interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly tbl_name: string;
  readonly sql: string;
}

/** `options.table`: only this one. */
export async function importSqliteFile(
  target: LoadTarget,
  path: string,
  options: ImportOptions,
): Promise<{ readonly tables: number; readonly rows: number }> {
  const file = openFile(path);
  try {
    file.exec("BEGIN");
    return await new SqliteImport(target, file, path, options).run();
  } finally {
    file.close();
  }
}

function openFile(path: string): Sqlite.Database {
  try {
    const file = new Sqlite(path, { readonly: true, fileMustExist: true });
    file.defaultSafeIntegers(true);
    return file;
  } catch (error) {
    throw new CommandFailure(EXIT.failure, `cannot open ${path}: ${describeError(error)}`);
  }
}

class SqliteImport {
  #rows = 0;

  constructor(
    readonly target: LoadTarget,
    readonly file: Sqlite.Database,
    readonly path: string,
    readonly options: ImportOptions,
  ) {}

  async run(): Promise<{ readonly tables: number; readonly rows: number }> {
    const objects = this.#readSchema();
    const kinds = this.#tableKinds();
    const named = objects.filter(({ type }) => type === "table");
    const plain = named.filter(({ name }) => kinds.get(name) === "table" && !name.startsWith("sqlite_"));
    const virtual = named.filter(({ name }) => kinds.get(name) === "virtual");
    if (this.options.table !== undefined && plain.length + virtual.length === 0) {
      throw new CommandFailure(EXIT.failure, `${this.path} has no table named ${this.options.table}`);
    }
    const ordered = this.#parentsFirst(plain);
    const total = ordered.reduce((sum, { name }) => sum + this.#count(name), 0);
    const progress = startProgress(basename(this.path), total);
    try {
      await this.target.session.execute("PRAGMA foreign_keys=OFF");
      for (const table of [...ordered, ...virtual]) {
        await this.#create(table);
        await this.#loadRows(table, (rows) => progress.update(rows, rows));
      }
    } finally {
      progress.stop();
    }
    await this.#loadSequence(ordered);
    await this.#createRest(objects, new Set([...ordered, ...virtual].map(({ name }) => name)));
    await this.#checkForeignKeys();
    await this.#setPragmas();
    await this.#analyse(ordered);
    return { tables: ordered.length + virtual.length, rows: this.#rows };
  }

  #readSchema(): SchemaObject[] {
    const all = this.file
      .prepare("select type, name, tbl_name, sql from sqlite_schema where sql is not null order by rowid")
      .all() as SchemaObject[];
    const only = this.options.table?.toLowerCase();
    return only === undefined ? all : all.filter(({ tbl_name }) => tbl_name.toLowerCase() === only);
  }

  #tableKinds(): Map<string, string> {
    const rows = this.file.pragma("table_list") as { schema: string; name: string; type: string }[];
    return new Map(rows.filter(({ schema }) => schema === "main").map(({ name, type }) => [name, type]));
  }

  #count(table: string): number {
    return Number(
      this.file
        .prepare(`select count(*) from ${quoteName(table)}`)
        .pluck()
        .get(),
    );
  }

  /** Depth first along foreign keys; a cycle is entered where it is met. */
  #parentsFirst(tables: readonly SchemaObject[]): SchemaObject[] {
    const byName = new Map(tables.map((table) => [table.name.toLowerCase(), table]));
    const ordered: SchemaObject[] = [];
    const visited = new Set<string>();
    const stack: { table: SchemaObject; expanded: boolean }[] = [];
    for (const table of tables) {
      stack.push({ table, expanded: false });
      for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
        if (top.expanded) {
          ordered.push(top.table);
          continue;
        }
        if (visited.has(top.table.name)) continue;
        visited.add(top.table.name);
        stack.push({ table: top.table, expanded: true });
        const keys = this.file.pragma(`foreign_key_list(${quoteName(top.table.name)})`) as {
          table: string;
        }[];
        for (const key of keys) {
          const parent = byName.get(key.table.toLowerCase());
          if (parent !== undefined && !visited.has(parent.name))
            stack.push({ table: parent, expanded: false });
        }
      }
    }
    return ordered;
  }

  async #create({ name, sql }: SchemaObject): Promise<void> {
    if ((await tableColumns(this.target.session, name)) !== undefined) {
      throw new CommandFailure(
        EXIT.failure,
        `table ${name} exists already; ${this.#rows} rows of the tables before it were loaded`,
      );
    }
    await this.#execute(sql, name);
  }

  async #execute(sql: string, name: string, args: readonly InputValue[] = []): Promise<void> {
    try {
      await this.target.session.execute(sql, args);
    } catch (error) {
      throw new CommandFailure(EXIT.failure, `${this.path}: ${name}: ${describeError(error)}`, {
        cause: error,
      });
    }
  }

  async #loadRows({ name, sql }: SchemaObject, progress: (rows: number) => void): Promise<void> {
    const info = this.file.pragma(`table_xinfo(${quoteName(name)})`) as { name: string; hidden: bigint }[];
    const columns = info.filter(({ hidden }) => Number(hidden) === 0).map((column) => column.name);
    // A full-text table's rows are known by their rowid.
    const fullText = /\busing\s+["'`[]?fts[345]\b/i.test(sql);
    const names = fullText ? ["rowid", ...columns] : columns;
    const loader = new Loader(this.target, insertSql(name, names));
    const list = names
      .map((column) => (fullText && column === "rowid" ? column : quoteName(column)))
      .join(",");
    const before = this.#rows;
    await guarded(`${this.path}: table ${name}`, { loader }, async () => {
      let line = 0;
      const rows = this.file
        .prepare(`select ${list} from ${quoteName(name)}`)
        .raw()
        .iterate();
      for (const values of rows as IterableIterator<InputValue[]>) {
        this.options.signal?.throwIfAborted();
        const pending = loader.add(exactRow(name, names, values, ++line));
        if (pending !== undefined) await pending;
        this.#rows = before + loader.loaded;
        if ((line & 1023) === 0) progress(this.#rows);
      }
      await loader.flush();
    });
    this.#rows = before + loader.loaded;
    progress(this.#rows);
  }

  async #loadSequence(tables: readonly SchemaObject[]): Promise<void> {
    const autoincrement = tables.filter(({ sql }) => /\bautoincrement\b/i.test(sql));
    for (const { name } of autoincrement) {
      const seq = this.file.prepare("select seq from sqlite_sequence where name = ?").pluck().get(name);
      if (typeof seq !== "bigint") continue;
      const { rows } = await this.target.session.execute("select seq from sqlite_sequence where name = ?", [
        name,
      ]);
      if (rows[0] !== undefined && BigInt(String(rows[0][0])) >= seq) continue;
      await this.#execute("delete from sqlite_sequence where name = ?", name, [name]);
      await this.#execute("insert into sqlite_sequence values (?, ?)", name, [name, seq]);
    }
  }

  /** They are the database's, not a table's. */
  async #setPragmas(): Promise<void> {
    if (this.options.table !== undefined) return;
    for (const name of ["user_version", "application_id"]) {
      const value = this.file.pragma(name, { simple: true }) as bigint;
      if (value !== 0n) await this.#execute(`PRAGMA ${name} = ${value}`, name);
    }
  }

  /** Statistics are of how rows lie here. */
  async #analyse(tables: readonly SchemaObject[]): Promise<void> {
    const kept = "select 1 from sqlite_schema where name = 'sqlite_stat1'";
    if (this.file.prepare(kept).get() === undefined) return;
    const analysed = this.file.prepare("select distinct tbl from sqlite_stat1").pluck().all();
    for (const { name } of tables)
      if (analysed.includes(name)) await this.#execute(`ANALYZE ${quoteName(name)}`, name);
  }

  async #createRest(objects: readonly SchemaObject[], tables: ReadonlySet<string>): Promise<void> {
    for (const { type, name, tbl_name, sql } of objects) {
      if (type === "table" || name.startsWith("sqlite_")) continue;
      if (type === "index" && !tables.has(tbl_name)) continue;
      await this.#execute(sql, name);
    }
  }

  async #checkForeignKeys(): Promise<void> {
    const { rows } = await this.target.session.execute("PRAGMA foreign_key_check");
    const own = new Set(
      (this.file.pragma("foreign_key_check") as { table: string; rowid: bigint | null }[]).map(
        ({ table, rowid }) => `${table} ${rowid}`,
      ),
    );
    const news = rows.filter((row) => !own.has(`${row[0]} ${row[1]}`));
    if (news.length > 0) {
      throw new CommandFailure(
        EXIT.failure,
        `${this.path}: all rows were loaded, but ${news.length} refer to rows that are not there`,
      );
    }
  }
}

/** A whole number would bind as an INTEGER; a REAL must stay one also where the column does not make it so. */
function exactRow(
  table: string,
  columns: readonly string[],
  values: readonly InputValue[],
  line: number,
): SourceRow {
  const reals = values.map((value) => typeof value === "number" && Number.isInteger(value));
  return reals.includes(true) ? { values, line, sql: insertSql(table, columns, reals) } : { values, line };
}
