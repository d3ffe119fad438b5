/**
 * Another database's dump into this one. It is read twice: first for the schema, which has to be known whole before any
 * of it can be made (keys and constraints may come after the rows), then for the rows. Memory does not grow with the
 * dump.
 *
 * Tables are made with their constraints, rows go in with foreign keys off in the session, then indexes and views, then
 * foreign keys are checked: a violation fails the import, as rows do that could not be carried over. Whatever else was
 * not, or not as it was, is told at the end, also when it failed.
 */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { CommandFailure, describeError, EXIT } from "../../exit.js";
import { type Progress, startProgress } from "../../progress.js";
import { guarded, tableColumns } from "../import.js";
import { Loader, type LoadTarget, RowError } from "../loader.js";
import { DdlParser } from "./ddl-parser.js";
import { checkFile } from "./dump-file.js";
import { type Plan, planSchema, type Statement, UnusableSchema } from "./plan.js";
import { Report } from "./report.js";
import { type OnConflict, RowTarget } from "./row-target.js";
import { DumpError, type DumpItem, DumpScanner } from "./scanner.js";
import { type Schema, shownName } from "./schema.js";
import { SchemaReader } from "./schema-reader.js";
import { type Dialect, DumpSession } from "./session.js";
import { SourceText } from "./source-text.js";
import type { BuiltColumn } from "./table-sql.js";
import { findColumn } from "./table-sql.js";
import { splitAtCommas, TokenReader } from "./tokens.js";

export interface DumpOptions {
  readonly dialect: Dialect;
  /** Only this table. */
  readonly table: string | undefined;
  readonly warn: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface DumpResult {
  readonly tables: number;
  readonly rows: number;
}

export async function importDump(
  target: LoadTarget,
  path: string,
  options: DumpOptions,
): Promise<DumpResult> {
  const report = new Report();
  checkFile(path, options.dialect, report);
  const run = new DumpImport(target, path, options, report, await DdlParser.load(options.dialect));
  try {
    return await run.run();
  } finally {
    const text = report.text(path);
    if (text !== "") options.warn(text);
  }
}

class DumpImport {
  #rows = 0;

  constructor(
    readonly target: LoadTarget,
    readonly path: string,
    readonly options: DumpOptions,
    readonly report: Report,
    readonly parser: DdlParser,
  ) {}

  async run(): Promise<DumpResult> {
    const schema = await this.#readSchema();
    const plan = this.#plan(schema);
    for (const { name } of plan.tables) {
      if ((await tableColumns(this.target.session, name)) !== undefined) {
        throw new CommandFailure(EXIT.failure, `table ${name} exists already; nothing was loaded`);
      }
    }
    await this.target.session.execute("PRAGMA foreign_keys=OFF");
    for (const { name, sql, source } of plan.tables) {
      await this.#execute({ name: `table ${name}`, sql, line: source.line }, "no row was loaded");
    }
    await this.#loadRows(plan);
    for (const statement of [...plan.indexes, ...plan.views]) {
      await this.#execute(statement, "all rows were loaded; indexes and views after this one were not made");
    }
    await this.#goOnCounting(plan);
    await this.#checkForeignKeys(plan);
    const result = { tables: plan.tables.length, rows: this.#rows };
    if (this.report.rowsAreMissing) {
      throw new CommandFailure(
        EXIT.failure,
        `${result.rows} rows into ${result.tables} tables, but rows are missing`,
      );
    }
    return result;
  }

  async #readSchema(): Promise<Schema> {
    const session = new DumpSession(this.options.dialect);
    const reader = new SchemaReader(session, this.parser, this.report);
    const take = (item: DumpItem): void => {
      if (item.kind === "statement") {
        reader.statement(item.bytes, item.line);
      } else if (
        item.kind === "command" &&
        /^c(?:onnect)?\b/.test(item.bytes) &&
        reader.schema.tables.size > 0
      ) {
        // Of pg_dumpall: from here on the same names are those of other tables.
        this.report.missing("another database; dump each by itself", item.line, `\\${item.bytes}`);
        this.#endLine = Math.min(this.#endLine, item.line);
      }
    };
    await guarded(this.path, { loader: undefined }, () => this.#scan("schema", session, () => 0, take));
    return reader.schema;
  }

  #plan(schema: Schema): Plan {
    const family = this.options.dialect === "postgresql" ? "postgresql" : "mysql";
    const only = this.options.table;
    try {
      const plan = planSchema(schema, family, this.report, only);
      if (only !== undefined && plan.tables.length === 0) {
        throw new CommandFailure(EXIT.failure, `${this.path} has no table named ${only}`);
      }
      return plan;
    } catch (error) {
      if (!(error instanceof UnusableSchema)) throw error;
      throw new CommandFailure(
        EXIT.failure,
        `${this.path}:${error.line}: ${error.message}\nnothing was loaded`,
      );
    }
  }

  async #execute({ name, sql, line }: Statement, state: string): Promise<void> {
    try {
      await this.target.session.execute(sql);
    } catch (error) {
      const message = `${this.path}:${line}: ${name}: ${describeError(error)}\n${state}`;
      throw new CommandFailure(EXIT.failure, message, { cause: error });
    }
  }

  async #loadRows(plan: Plan): Promise<void> {
    const session = new DumpSession(this.options.dialect);
    const loader = new Loader(this.target, "");
    await guarded(this.path, { loader }, async () => {
      await this.#scan(
        "rows",
        session,
        () => loader.loaded,
        async (item, scanner) => {
          if (item.kind === "statement") session.apply(item.bytes);
          else if (item.kind === "rows") await this.#loadItem(item, scanner, session, plan, loader);
        },
      );
      await loader.flush();
    });
    this.#rows = loader.loaded;
  }

  async #loadItem(
    item: DumpItem & { kind: "rows" },
    scanner: DumpScanner,
    session: DumpSession,
    plan: Plan,
    loader: Loader,
  ): Promise<void> {
    const target = this.#rowTarget(item, session, plan);
    if (target === undefined) return;
    for (let row = item.rows.next(); row !== undefined; row = item.rows.next()) {
      if (row === "more") {
        await scanner.more();
        this.#progress?.update(scanner.source.passed, loader.loaded);
        continue;
      }
      this.#line = row.line;
      const pending = loader.add(target.row(row));
      if (pending !== undefined) await pending;
    }
  }

  /** Undefined where the rows have no place to go. */
  #rowTarget(item: DumpItem & { kind: "rows" }, session: DumpSession, plan: Plan): RowTarget | undefined {
    const reader = session.reader(item.head);
    const { family } = session.mode;
    const onConflict = readVerb(reader);
    const name = session.qualify(reader.qualifiedName());
    const found = plan.target(name);
    if (found === undefined) {
      const wanted = this.options.table?.toLowerCase();
      if (wanted === undefined || wanted === name.name.toLowerCase()) {
        this.report.missing("rows of a table that the dump does not make", item.line, shownName(name));
      }
      return undefined;
    }
    const { table, columns } = found;
    let names = columns.map((column) => column.name);
    if (reader.is("(")) {
      names = splitAtCommas(reader.parenthesized()).map((tokens) => new TokenReader(tokens, family).name());
    }
    if (reader.take("from", "stdin") && !reader.done) {
      this.report.missing("COPY with options", item.line, shownName(name));
      return undefined;
    }
    const context = {
      family,
      decode: session.decode,
      loss: (kind: string, column: string) => this.report.note(kind, this.#line, column),
    };
    const filled = names.map((column): BuiltColumn => {
      const source = findColumn(columns, column, family);
      const built = source === undefined ? undefined : findBuilt(table.columns, source.name, family);
      if (built === undefined)
        throw new RowError(item.line, new Error(`${shownName(name)} has no column ${column}`));
      return built;
    });
    return new RowTarget(table, filled, session, context, onConflict);
  }

  /** Where the scan is. */
  #line = 0;
  /** What comes after it is not read. */
  #endLine = Number.POSITIVE_INFINITY;
  #progress: Progress | undefined;

  /** Runs over the whole file; errors become RowErrors, with their line. */
  async #scan(
    what: string,
    session: DumpSession,
    rows: () => number,
    take: (item: DumpItem, scanner: DumpScanner) => void | Promise<void>,
  ): Promise<void> {
    const source = await SourceText.open(this.path, this.options.signal);
    const progress = startProgress(`${basename(this.path)} ${what}`, statSync(this.path).size);
    this.#progress = progress;
    try {
      const scanner = new DumpScanner(source, session);
      for (let item = await scanner.next(); item !== undefined; item = await scanner.next()) {
        if (item.line > this.#endLine) break;
        this.#line = item.line;
        await take(item, scanner);
        progress.update(source.passed, rows());
      }
    } catch (error) {
      throw this.#located(error);
    } finally {
      progress.stop();
      await source.close();
    }
  }

  #located(error: unknown): unknown {
    if (error instanceof DumpError) return new RowError(error.line, error);
    if (error instanceof SyntaxError || error instanceof TypeError) return new RowError(this.#line, error);
    return error;
  }

  /** AUTOINCREMENT goes on where the other database's counting was. */
  async #goOnCounting(plan: Plan): Promise<void> {
    const { session } = this.target;
    for (const { name, next } of plan.tables) {
      if (next === undefined || next <= 1n) continue;
      const { rows } = await session.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [name]);
      const last = next - 1n;
      if (rows[0] === undefined)
        await session.execute("INSERT INTO sqlite_sequence(name, seq) VALUES(?, ?)", [name, last]);
      else if (BigInt(String(rows[0][0])) < last) {
        await session.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", [last, name]);
      }
    }
  }

  async #checkForeignKeys(plan: Plan): Promise<void> {
    const own = new Set(plan.tables.map(({ name }) => name));
    const { rows } = await this.target.session.execute("PRAGMA foreign_key_check");
    const counts = new Map<string, number>();
    for (const row of rows) {
      if (!own.has(String(row[0]))) continue;
      const key = `${row[0]} to ${row[2]}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    if (counts.size === 0) return;
    const list = [...counts].map(([key, count]) => `${key}: ${count}`).join(", ");
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    throw new CommandFailure(
      EXIT.failure,
      `${this.path}: all ${this.#rows} rows were loaded, but ${total} refer to rows that are not there (${list})`,
    );
  }
}

function findBuilt(
  columns: readonly BuiltColumn[],
  name: string,
  family: "mysql" | "postgresql",
): BuiltColumn | undefined {
  const source = findColumn(
    columns.map((column) => column.source),
    name,
    family,
  );
  return columns.find((column) => column.source === source);
}

/** INSERT [IGNORE] [INTO], REPLACE [INTO], COPY; what it does with rows that are there. */
function readVerb(reader: TokenReader): OnConflict {
  const verb = reader.next().value;
  let onConflict: OnConflict = verb === "replace" ? "replace" : "fail";
  for (;;) {
    if (reader.take("ignore")) onConflict = "ignore";
    else if (
      !["low_priority", "delayed", "high_priority", "into", "only"].some((word) => reader.take(word))
    ) {
      return onConflict;
    }
  }
}
