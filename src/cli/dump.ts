/**
 * Writes a database as SQL that sqlite3 and `ostraka sql` load back: tables and their rows, then virtual tables and
 * theirs, then indexes, views and triggers, so that nothing fires and nothing is indexed twice while rows go in.
 *
 * Invariants
 * 1. One moment: the caller runs this inside a read-only transaction, or in one of its own.
 * 2. Exact: every value reads back with its storage class and every bit (literals.ts says how). Foreign keys are off
 *    while loading, so tables need no order. Rows beyond what one transaction may hold are those of the next one.
 * 3. Bounded memory: rows are written as they arrive.
 * 4. user_version and application_id come last, behind COMMIT, and only in a dump of everything.
 *
 * Virtual tables are dumped by their own rows, never by their shadow tables, which no SQL may write here. Full-text
 * tables with content elsewhere are rebuilt from it; contentless ones cannot be read back at all, and say so.
 */
import { performance } from "node:perf_hooks";
import type { Executor, Value } from "../driver/types.js";
import { RESERVED_WORDS } from "../sql/keywords.js";
import { NO_TIMEOUT_MS } from "./connection.js";
import { CommandFailure, EXIT } from "./exit.js";
import { nameLiteral, quoteName, sqlLiteral, terminated } from "./format/literals.js";

export interface DumpOptions {
  /** Whether to dump this table (or view), with what belongs to it. Default: all. */
  readonly includes?: ((table: string) => boolean) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with the rows written so far. */
  readonly progress?: ((rows: number) => void) | undefined;
}

/** Of one transaction of the dump: far below the limits on a transaction, whatever the characters and tables. */
const MAX_CHARACTERS = 8 * 1024 * 1024;
const MAX_ROWS = 50_000;
const NEXT = "COMMIT;\nBEGIN TRANSACTION;\n";

export type Write = (text: string) => void | Promise<void>;

interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly table: string;
  readonly sql: string;
}

/** Writes the dump; answers how many rows were in it. */
export async function dump(source: Executor, write: Write, options: DumpOptions = {}): Promise<number> {
  const dumper = new Dumper(source, write, options);
  return await dumper.run();
}

class Dumper {
  #rows = 0;
  /** Since BEGIN. */
  #characters = 0;
  #rowsBefore = 0;
  #reported = performance.now();

  constructor(
    readonly source: Executor,
    readonly write: Write,
    readonly options: DumpOptions,
  ) {}

  async run(): Promise<number> {
    const objects = await this.#readSchema();
    const kinds = await this.#readTableKinds();
    const wanted = objects.filter((object) => this.options.includes?.(object.table) ?? true);
    const tables = wanted.filter(
      ({ type, name }) => type === "table" && kinds.get(name) !== "virtual" && kinds.get(name) !== "shadow",
    );
    const virtual = wanted.filter(({ type, name }) => type === "table" && kinds.get(name) === "virtual");
    await this.write("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    for (const table of tables) {
      if (table.name.startsWith("sqlite_")) continue;
      await this.write(`${terminated(table.sql)}\n`);
      await this.#dumpRows(table.name);
    }
    await this.#dumpSequence(tables);
    for (const table of virtual) await this.#dumpVirtual(table);
    const shadows = new Set([...kinds].filter(([, kind]) => kind === "shadow").map(([name]) => name));
    await this.#dumpRest(wanted, shadows);
    await this.write("COMMIT;\n");
    if (this.options.includes === undefined) await this.#dumpVersions();
    return this.#rows;
  }

  async #query(sql: string): Promise<Value[][]> {
    const { rows } = await this.source.execute(sql, undefined, {
      timeoutMs: NO_TIMEOUT_MS,
      signal: this.options.signal,
    });
    return rows.map((row) => [...row]);
  }

  async #readSchema(): Promise<SchemaObject[]> {
    // The prefix is the server's own; it shows no such table, and a dump must never hold one.
    const rows = await this.#query(
      "select type, name, tbl_name, sql from sqlite_schema where sql is not null " +
        "and tbl_name not like '\\_ostraka\\_%' escape '\\' order by rowid",
    );
    return rows.map((row) => ({
      type: String(row[0]),
      name: String(row[1]),
      table: String(row[2]),
      sql: String(row[3]),
    }));
  }

  async #readTableKinds(): Promise<Map<string, string>> {
    const rows = await this.#query("PRAGMA table_list");
    return new Map(rows.filter((row) => row[0] === "main").map((row) => [String(row[1]), String(row[2])]));
  }

  /** Names of the columns that an INSERT without a column list fills: all that are neither generated nor hidden. */
  async #columns(table: string): Promise<string[]> {
    const rows = await this.#query(`PRAGMA table_xinfo(${quoteName(table)})`);
    return rows.filter((row) => Number(row[6]) === 0).map((row) => String(row[1]));
  }

  async #dumpRows(table: string): Promise<void> {
    const columns = await this.#columns(table);
    if (columns.length === 0) return;
    await this.#writeRows(
      `INSERT INTO ${shown(table)} VALUES(`,
      `select ${columns.map(quoteName).join(",")} from ${quoteName(table)}`,
    );
  }

  async #writeRows(prefix: string, sql: string): Promise<void> {
    const rows = this.source.iterate(sql, undefined, {
      timeoutMs: NO_TIMEOUT_MS,
      signal: this.options.signal,
    });
    for await (const row of rows) {
      const values = Array.from(row, sqlLiteral);
      const statement = `${prefix}${values.join(",")});\n`;
      const written = this.write(this.#goesOn(statement.length) ? statement : `${NEXT}${statement}`);
      if (written !== undefined) await written;
      if ((++this.#rows & 1023) === 0) this.#reportProgress();
    }
  }

  /** Whether the transaction has room for another row of this length; begins to count the next one if not. */
  #goesOn(characters: number): boolean {
    this.#characters += characters;
    if (this.#characters <= MAX_CHARACTERS && this.#rows - this.#rowsBefore < MAX_ROWS) return true;
    this.#characters = characters;
    this.#rowsBefore = this.#rows;
    return false;
  }

  #reportProgress(): void {
    if (this.options.progress === undefined || performance.now() - this.#reported < 100) return;
    this.#reported = performance.now();
    this.options.progress(this.#rows);
  }

  /** Behind COMMIT: no transaction can set them here, and what was not loaded has no version. */
  async #dumpVersions(): Promise<void> {
    for (const pragma of ["user_version", "application_id"]) {
      const [value] = await this.#query(`PRAGMA ${pragma}`);
      if (value?.[0] !== undefined && Number(value[0]) !== 0)
        await this.write(`PRAGMA ${pragma}=${value[0]};\n`);
    }
  }

  /** AUTOINCREMENT goes on where it was. */
  async #dumpSequence(tables: readonly SchemaObject[]): Promise<void> {
    if (!tables.some(({ sql }) => /\bautoincrement\b/i.test(sql))) return;
    const names = new Set(tables.map(({ name }) => name));
    const rows = await this.#query("select name, seq from sqlite_sequence order by rowid");
    const kept = rows.filter((row) => names.has(String(row[0])));
    if (this.options.includes === undefined) await this.write("DELETE FROM sqlite_sequence;\n");
    for (const row of kept) {
      const values = row.map(sqlLiteral);
      if (this.options.includes !== undefined) {
        await this.write(`DELETE FROM sqlite_sequence WHERE name=${values[0]};\n`);
      }
      await this.write(`INSERT INTO sqlite_sequence VALUES(${values.join(",")});\n`);
    }
  }

  async #dumpVirtual({ name, sql }: SchemaObject): Promise<void> {
    await this.write(`${terminated(sql)}\n`);
    const fullText = /\busing\s+["'`[]?fts[345]["'`\]]?/i.test(sql);
    const content = /\bcontent\s*=\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)"|([^,)\s]*))/i.exec(sql);
    if (fullText && content !== null) {
      if ((content[1] ?? content[2] ?? content[3] ?? "") === "") {
        throw new CommandFailure(
          EXIT.failure,
          `${name} is a full-text table without content: its rows cannot be read back, so no dump can hold them`,
        );
      }
      await this.write(`INSERT INTO ${shown(name)}(${shown(name)}) VALUES('rebuild');\n`);
      return;
    }
    const columns = await this.#columns(name);
    const names = fullText ? ["rowid", ...columns] : columns;
    await this.#writeRows(
      `INSERT INTO ${shown(name)}(${names.map(shown).join(",")}) VALUES(`,
      `select ${names.map((column) => (column === "rowid" ? column : quoteName(column))).join(",")} from ${quoteName(name)}`,
    );
  }

  /** Indexes, views and triggers in the order they were made: a view may use an earlier one. */
  async #dumpRest(wanted: readonly SchemaObject[], shadows: ReadonlySet<string>): Promise<void> {
    for (const { type, name, table, sql } of wanted) {
      if (type === "table" || shadows.has(table) || name.startsWith("sqlite_")) continue;
      await this.write(`${terminated(sql)}\n`);
    }
    if (wanted.some(({ name }) => name === "sqlite_stat1")) await this.write("ANALYZE;\n");
  }
}

function shown(name: string): string {
  return nameLiteral(name, (word) => RESERVED_WORDS.has(word.toUpperCase()));
}

/** SQLite's LIKE, as the shell's patterns use it: % and _, ASCII letters in either case. */
export function likePattern(pattern: string): (name: string) => boolean {
  const source = pattern
    .replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
    .replaceAll("%", ".*")
    .replaceAll("_", ".");
  const expression = new RegExp(`^${source}$`, "is");
  return (name) => expression.test(name);
}
