/**
 * Brings a file into the database. What it is, is told by its first bytes and its name: a SQLite file, SQL, CSV, TSV
 * or JSON lines. A table that is missing is made as sqlite3's .import makes it.
 *
 * Errors name the file and the line; whatever happens, the message says how many rows are in and where to go on.
 */
import { closeSync, createReadStream, openSync, readSync, statSync } from "node:fs";
import { basename, extname } from "node:path";
import type { Executor, Session } from "../../driver/types.js";
import { CsvReader, type CsvRecord } from "../csv-reader.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { quoteName } from "../format/literals.js";
import { startProgress } from "../progress.js";
import { parseJsonObject, WholeReal } from "./json.js";
import { Loader, type LoadTarget, RowError } from "./loader.js";

export type FileKind = "sql" | "csv" | "tsv" | "jsonl" | "sqlite";
export type HeaderRule = "auto" | "yes" | "no" | "new table";

export interface ImportOptions {
  readonly table: string | undefined;
  readonly kind: FileKind | undefined;
  /** Whether the first record names columns. "auto": yes when the table is new, or when it names columns of it; "new table": only when it is new. */
  readonly header: HeaderRule;
  /** Records to pass over first. */
  readonly skip: number;
  readonly separator: string | undefined;
  readonly warn: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface ImportResult {
  readonly table: string;
  readonly rows: number;
}

/** Where a file's rows go. */
interface Sink {
  readonly loader: Loader | undefined;
  /** The table that was made for them. */
  readonly made?: MadeTable | undefined;
}

const SQLITE_MAGIC = "SQLite format 3\0";

/** What a file is: its content where that is certain, else its name. */
export function detectKind(path: string): FileKind {
  let head: Buffer;
  try {
    if (statSync(path).isDirectory()) throw new CommandFailure(EXIT.failure, `${path} is a directory`);
    head = readHead(path);
  } catch (error) {
    if (error instanceof CommandFailure) throw error;
    throw new CommandFailure(EXIT.failure, `cannot read ${path}: ${describeError(error)}`);
  }
  if (head.toString("latin1").startsWith(SQLITE_MAGIC)) return "sqlite";
  switch (extname(path).toLowerCase()) {
    case ".sql":
      return "sql";
    case ".csv":
      return "csv";
    case ".tsv":
    case ".tab":
      return "tsv";
    case ".jsonl":
    case ".ndjson":
      return "jsonl";
    case ".db":
    case ".sqlite":
    case ".sqlite3":
      throw new CommandFailure(EXIT.failure, `${path} is not a SQLite database`);
  }
  const text = head
    .toString("utf8")
    .replace(/^\ufeff/, "")
    .trimStart();
  if (text.startsWith("{")) return "jsonl";
  if (/^(?:--|\/\*|(?:pragma|begin|create|insert|drop|delete|update|alter|with|replace)\b)/i.test(text)) {
    return "sql";
  }
  const firstLine = text.split("\n", 1)[0] ?? "";
  if (firstLine.includes("\t")) return "tsv";
  if (firstLine.includes(",")) return "csv";
  throw new CommandFailure(EXIT.failure, `${path}: cannot tell what this is; say so with --format`);
}

function readHead(path: string): Buffer {
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(4096);
    return head.subarray(0, readSync(file, head, 0, head.length, 0));
  } finally {
    closeSync(file);
  }
}

/** The table that a file's name suggests. */
export function tableFromPath(path: string): string {
  const name = basename(path, extname(path)).replace(/[^\p{L}\p{N}_]+/gu, "_");
  return name === "" ? "imported" : name;
}

/** CSV and TSV. */
export async function importSeparated(
  target: LoadTarget,
  path: string,
  options: ImportOptions & { readonly separator: string },
): Promise<ImportResult> {
  const table = options.table ?? tableFromPath(path);
  const sink = new SeparatedSink(target, path, table, options);
  const reader = new CsvReader(options.separator);
  const progress = startProgress(basename(path), statSync(path).size);
  try {
    await guarded(path, sink, async () => {
      for await (const { text, bytes } of readText(path, options.signal)) {
        for (const record of reader.push(text)) {
          const pending = sink.record(record);
          if (pending !== undefined) await pending;
        }
        progress.update(bytes, sink.rows);
      }
      const rest = reader.finish();
      if (rest !== undefined) await sink.record(rest);
      await sink.finish();
    });
  } finally {
    progress.stop();
  }
  return { table, rows: sink.rows };
}

class MadeTable {
  private constructor(
    private readonly session: Session,
    readonly name: string,
  ) {}

  static async create(session: Session, name: string, definitions: string): Promise<MadeTable> {
    await session.execute(`CREATE TABLE IF NOT EXISTS ${quoteName(name)}(${definitions})`);
    return new MadeTable(session, name);
  }

  /** Nothing came into it: whether it could be dropped again. What others put into it meanwhile stays. */
  async drop(): Promise<boolean> {
    const name = quoteName(this.name);
    try {
      const { rows } = await this.session.execute(`select 1 from ${name} limit 1`);
      if (rows.length === 0) await this.session.execute(`DROP TABLE ${name}`);
      return rows.length === 0;
    } catch {
      return false;
    }
  }
}

class SeparatedSink implements Sink {
  loader: Loader | undefined;
  made: MadeTable | undefined;
  #columns = 0;
  #skipped = 0;
  #first = true;
  #warnings = 0;

  constructor(
    readonly target: LoadTarget,
    readonly path: string,
    readonly table: string,
    readonly options: ImportOptions,
  ) {}

  get rows(): number {
    return this.loader?.loaded ?? 0;
  }

  record(record: CsvRecord): void | Promise<void> {
    if (this.#skipped < this.options.skip) {
      this.#skipped++;
      return;
    }
    if (this.#first) {
      this.#first = false;
      return this.#begin(record);
    }
    return this.#row(record);
  }

  async finish(): Promise<void> {
    if (this.#first) await mustExist(this.target.session, this.table);
    await this.loader?.flush();
    if (this.#warnings > 10) this.options.warn(`… and ${this.#warnings - 10} more such lines\n`);
  }

  async #begin(record: CsvRecord): Promise<void> {
    const existing = await tableColumns(this.target.session, this.table);
    const { header } = this.options;
    if (existing === undefined) {
      const names =
        header === "no" ? record.fields.map((_, i) => `c${i + 1}`) : uniqueNames([...record.fields]);
      // As sqlite3 does for .import.
      const definitions = `\n${names.map((name) => `${quoteName(name)} TEXT`).join(", ")}`;
      this.made = await MadeTable.create(this.target.session, this.table, definitions);
      this.#start(names);
      if (header === "no") await this.#row(record);
      return;
    }
    const known = new Map(existing.map((name) => [name.toLowerCase(), name]));
    const named = record.fields.map((field) => known.get(field.trim().toLowerCase()));
    const distinct = new Set(named).size === named.length;
    if (header === "yes" || (header === "auto" && distinct && named.every((name) => name !== undefined))) {
      const unknown = record.fields.find((_, i) => named[i] === undefined);
      if (unknown !== undefined) {
        throw new RowError(record.line, new Error(`table ${this.table} has no column named ${unknown}`));
      }
      this.#start(named as string[]);
      return;
    }
    this.#start(existing);
    await this.#row(record);
  }

  #start(columns: readonly string[]): void {
    this.#columns = columns.length;
    this.loader = new Loader(this.target, insertSql(this.table, columns));
  }

  #row({ fields, quoted, line }: CsvRecord): void | Promise<void> {
    const blank = fields.length === 1 && fields[0] === "" && quoted[0] === false;
    if (blank && this.#columns > 1) return;
    if (fields.length === this.#columns) return this.loader!.add({ values: fields, line });
    this.#warn(
      `${this.path}:${line}: expected ${this.#columns} columns but found ${fields.length} - ` +
        (fields.length < this.#columns ? "filling the rest with NULL" : "extras ignored"),
    );
    const values = Array.from({ length: this.#columns }, (_, i) => fields[i] ?? null);
    return this.loader!.add({ values, line });
  }

  #warn(text: string): void {
    if (++this.#warnings <= 10) this.options.warn(`${text}\n`);
  }
}

/** One JSON object a line. Columns of a new table are the members of the first objects. */
export async function importJsonLines(
  target: LoadTarget,
  path: string,
  options: ImportOptions,
): Promise<ImportResult> {
  const table = options.table ?? tableFromPath(path);
  const sink = new JsonSink(target, table);
  const progress = startProgress(basename(path), statSync(path).size);
  let lineNumber = 0;
  try {
    await guarded(path, sink, async () => {
      let carry = "";
      for await (const { text, bytes } of readText(path, options.signal)) {
        const lines = (carry + text).split("\n");
        carry = lines.pop()!;
        for (const line of lines) await sink.line(line, ++lineNumber);
        progress.update(bytes, sink.rows);
      }
      if (carry !== "") await sink.line(carry, ++lineNumber);
      await sink.finish();
    });
  } finally {
    progress.stop();
  }
  return { table, rows: sink.rows };
}

/** How many objects are looked at to find a new table's columns. */
const JSON_LOOK_AHEAD = 1000;

class JsonSink implements Sink {
  loader: Loader | undefined;
  made: MadeTable | undefined;
  #columns: string[] = [];
  #names = new Set<string>();
  #waiting: { members: ReturnType<typeof parseJsonObject>; line: number }[] = [];

  constructor(
    readonly target: LoadTarget,
    readonly table: string,
  ) {}

  get rows(): number {
    return this.loader?.loaded ?? 0;
  }

  async line(text: string, line: number): Promise<void> {
    const trimmed = text.replace(/^\ufeff/, "").trim();
    if (trimmed === "") return;
    let members: ReturnType<typeof parseJsonObject>;
    try {
      members = parseJsonObject(trimmed);
    } catch (error) {
      throw new RowError(line, error);
    }
    if (this.loader !== undefined) return this.#add(members, line);
    this.#waiting.push({ members, line });
    if (this.#waiting.length >= JSON_LOOK_AHEAD) await this.#begin();
  }

  async finish(): Promise<void> {
    if (this.loader === undefined && this.#waiting.length > 0) await this.#begin();
    if (this.loader === undefined) await mustExist(this.target.session, this.table);
    await this.loader?.flush();
  }

  async #begin(): Promise<void> {
    const existing = await tableColumns(this.target.session, this.table);
    this.#columns = existing ?? uniqueMembers(this.#waiting.map(({ members }) => members));
    if (existing === undefined) {
      if (this.#columns.length === 0)
        throw new RowError(this.#waiting[0]!.line, new Error("an object without members"));
      const definitions = this.#columns.map(quoteName).join(", ");
      this.made = await MadeTable.create(this.target.session, this.table, definitions);
    }
    this.#names = new Set(this.#columns.map((name) => name.toLowerCase()));
    this.loader = new Loader(this.target, insertSql(this.table, this.#columns));
    for (const { members, line } of this.#waiting) await this.#add(members, line);
    this.#waiting = [];
  }

  async #add(members: ReturnType<typeof parseJsonObject>, line: number): Promise<void> {
    const byName = new Map([...members].map(([name, value]) => [name.toLowerCase(), value]));
    for (const name of members.keys()) {
      if (!this.#names.has(name.toLowerCase())) {
        throw new RowError(line, new Error(`table ${this.table} has no column named ${name}`));
      }
    }
    // Only what the object has is named, so that columns it leaves out take their defaults.
    const columns = this.#columns.filter((name) => byName.has(name.toLowerCase()));
    const given = columns.map((name) => byName.get(name.toLowerCase()) ?? null);
    const reals = given.map((value) => value instanceof WholeReal);
    const usual = columns.length === this.#columns.length && !reals.includes(true);
    await this.loader!.add({
      values: given.map((value) => (value instanceof WholeReal ? value.value : value)),
      line,
      sql: usual ? undefined : insertSql(this.table, columns, reals),
    });
  }
}

function uniqueMembers(objects: readonly ReadonlyMap<string, unknown>[]): string[] {
  const seen = new Map<string, string>();
  for (const object of objects) {
    for (const name of object.keys()) if (!seen.has(name.toLowerCase())) seen.set(name.toLowerCase(), name);
  }
  return [...seen.values()];
}

/** Adds to an error where it happened and what is in by then. */
export async function guarded(path: string, sink: Sink, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    const loader = sink.loader;
    const where =
      error instanceof RowError
        ? `${path}:${error.line}: ${error.message}`
        : `${path}: ${describeError(error)}`;
    const state =
      loader === undefined || loader.loaded === 0
        ? await describeNothing(sink)
        : `${loader.loaded} rows were loaded, the last from line ${loader.loadedThrough}; ` +
          (loader.inDoubt ? "nothing after those in doubt was" : "nothing after it was");
    throw new CommandFailure(EXIT.failure, `${where}\n${state}`, { cause: error });
  }
}

async function describeNothing({ loader, made }: Sink): Promise<string> {
  if (loader?.inDoubt === true) return "no row before those in doubt was loaded";
  const left = made !== undefined && !(await made.drop());
  return left ? `no row was loaded, but table ${made.name} was made` : "no row was loaded";
}

/** A file that says nothing makes no table. */
async function mustExist(session: Session, table: string): Promise<void> {
  if ((await tableColumns(session, table)) === undefined)
    throw new Error(`empty file, and there is no table named ${table}`);
}

/** Columns an INSERT may name; undefined when there is no such table or view. */
export async function tableColumns(executor: Executor, table: string): Promise<string[] | undefined> {
  const { rows } = await executor.execute(`PRAGMA table_xinfo(${quoteName(table)})`);
  if (rows.length === 0) return undefined;
  return rows.filter((row) => Number(row[6]) === 0).map((row) => String(row[1]));
}

/** `reals`: the columns whose value is a REAL, though it is bound as the whole number that it is. */
export function insertSql(table: string, columns: readonly string[], reals?: readonly boolean[]): string {
  const values = columns.map((_, i) => (reals?.[i] === true ? "CAST(? AS REAL)" : "?")).join(",");
  const names = columns.map(quoteName).join(",");
  return columns.length === 0
    ? `INSERT INTO ${quoteName(table)} DEFAULT VALUES`
    : `INSERT INTO ${quoteName(table)}(${names}) VALUES(${values})`;
}

/** Column names must differ and not be empty: as sqlite3, `_2` and so on tells repeated ones apart. */
function uniqueNames(fields: readonly string[]): string[] {
  const seen = new Set<string>();
  return fields.map((field, i) => {
    const base = field.trim() === "" ? `c${i + 1}` : field;
    let name = base;
    for (let n = 2; seen.has(name.toLowerCase()); n++) name = `${base}_${n}`;
    seen.add(name.toLowerCase());
    return name;
  });
}

/** A file as text. */
export function readText(path: string, signal?: AbortSignal): ReturnType<typeof decodeText> {
  return decodeText(createReadStream(path, { highWaterMark: 256 * 1024 }), signal);
}

/** Bytes as text, with the bytes read so far. Bytes that are not UTF-8 are an error, not a guess. */
export async function* decodeText(
  chunks: AsyncIterable<Buffer>,
  signal?: AbortSignal,
): AsyncGenerator<{ readonly text: string; readonly bytes: number }> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let bytes = 0;
  for await (const chunk of chunks) {
    signal?.throwIfAborted();
    let text: string;
    try {
      text = decoder.decode(chunk, { stream: true });
    } catch {
      throw new CommandFailure(
        EXIT.failure,
        `not UTF-8 text (within bytes ${bytes} to ${bytes + chunk.length})`,
      );
    }
    bytes += chunk.length;
    yield { text, bytes };
  }
  try {
    yield { text: decoder.decode(), bytes };
  } catch {
    throw new CommandFailure(EXIT.failure, "the text ends within a character");
  }
}
