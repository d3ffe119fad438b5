/**
 * One conversation: a session, its settings, and where its output goes. Runs statements and scripts; the commands
 * that begin with a dot or a backslash are in meta.ts, reading from a person in interactive.ts.
 *
 * Scripts are read as a stream and statements run as they end, so that a script of any length takes constant memory.
 * Errors go to `errors` as `Error: FILE:LINE: message (CODE)`, LINE being that of the statement's first token.
 */
import { performance } from "node:perf_hooks";
import type { Database, Row, Session, Value } from "../../driver/types.js";
import { StatementSplitter } from "../../sql/splitter.js";
import { describeError } from "../exit.js";
import { createPrinter } from "../format/printer.js";
import { bindLongLiterals } from "../long-literals.js";
import type { Output } from "../output.js";
import { runMetaCommand } from "./meta.js";
import { Pipeline } from "./pipeline.js";
import { defaultSettings, printOptions, type Settings } from "./settings.js";

/** Ends the shell from within a command (`.quit`). */
export class Quit extends Error {
  constructor(readonly exitCode: number) {
    super("quit");
  }
}

/** An error that the user caused in a dot or backslash command; told like a failed statement. */
export class MetaError extends Error {}

export interface ShellOptions {
  readonly database: Database;
  readonly session: Session;
  readonly url: string;
  readonly output: Output;
  readonly errors: (text: string) => void;
  /** Output goes to a screen. */
  readonly terminal: boolean;
  /** A person is at the other end: affects prompts, pager and progress, never results. */
  readonly interactive: boolean;
  /** Opens another cluster, for \c. */
  readonly connect?: ((url: string) => Promise<Database>) | undefined;
}

interface ScriptPosition {
  readonly name: string;
  readonly interactive: boolean;
}

/** Scripts that read one another must end somewhere. */
const MAX_NESTED_SCRIPTS = 25;

export class Shell {
  database: Database;
  session: Session;
  url: string;
  readonly settings: Settings = defaultSettings();
  readonly interactive: boolean;
  readonly terminal: boolean;
  /** Where results go now. */
  output: Output;
  readonly standardOutput: Output;
  /** Back to `standardOutput` after the next statement or command (.once). */
  outputOnce = false;
  /** For \watch and \e. */
  lastStatement: string | undefined;
  /** The last error that stopped a script. */
  stoppedBy: unknown;
  /** Opens a pager for one result, when a person is looking. */
  openPager: (() => PagedOutput | undefined) | undefined;

  readonly #errors: (text: string) => void;
  readonly #connect: ((url: string) => Promise<Database>) | undefined;
  #running: AbortController | undefined;
  #interrupted = false;
  #depth = 0;
  #pipelines: Pipeline[] = [];

  constructor(options: ShellOptions) {
    this.database = options.database;
    this.session = options.session;
    this.url = options.url;
    this.output = options.output;
    this.standardOutput = options.output;
    this.terminal = options.terminal;
    this.interactive = options.interactive;
    this.#errors = options.errors;
    this.#connect = options.connect;
  }

  /** Text for a screen must not be able to act on it; a file gets the data as it is. */
  get #toTerminal(): boolean {
    return this.terminal && this.output === this.standardOutput;
  }

  /** Stops the statement that runs; false when none does. */
  interrupt(): boolean {
    this.#interrupted = true;
    if (this.#running === undefined) return false;
    this.#running.abort(new Error("interrupted"));
    return true;
  }

  get interrupted(): boolean {
    return this.#interrupted;
  }

  clearInterrupt(): void {
    this.#interrupted = false;
  }

  /** For what takes long and is not one statement (import, dump, \watch): aborted by Ctrl-C. */
  async interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const outer = this.#running;
    this.#running = controller;
    try {
      return await body(controller.signal);
    } finally {
      this.#running = outer;
    }
  }

  report(error: unknown, where?: string): void {
    this.#errors(`Error: ${where === undefined ? "" : `${where}: `}${describeError(error)}\n`);
  }

  note(text: string): void {
    this.#errors(text);
  }

  async reconnect(url: string): Promise<void> {
    if (this.#connect === undefined) throw new MetaError("this shell keeps its connection");
    const database = await this.#connect(url);
    const session = await database.session();
    await this.session.close();
    await this.database.close();
    this.database = database;
    this.session = session;
    this.url = url;
  }

  /** Runs one statement and prints its rows. Throws what the database answers. */
  async runStatement(sql: string): Promise<void> {
    const started = performance.now();
    this.lastStatement = sql;
    if (this.settings.echo) await this.output.write(`${sql}\n`);
    const paged = this.openPager?.();
    const target = paged ?? this.output;
    let rows: number | undefined;
    try {
      rows = await this.interruptible((signal) => this.#runAndPrint(sql, target, signal));
    } finally {
      await target.flush();
      await paged?.close();
    }
    if (this.settings.changes) {
      const counts = (await this.session.execute("select changes(), total_changes()")).rows[0];
      await this.output.write(`changes: ${counts?.[0]}   total_changes: ${counts?.[1]}\n`);
    }
    if (this.settings.timing) {
      const count = rows === undefined ? "" : `(${rows} row${rows === 1 ? "" : "s"}) `;
      await this.output.write(`${count}Time: ${(performance.now() - started).toFixed(3)} ms\n`);
    }
    await this.endOnce();
  }

  async #runAndPrint(
    sql: string,
    target: PagedOutput | Output,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const options = { signal, timeoutMs: this.settings.statementTimeoutMs };
    const printer = createPrinter(this.settings.format, printOptions(this.settings, this.#toTerminal));
    if (/^(?:insert|replace|update|delete|create|drop|alter|begin|commit|end|rollback)\b/i.test(sql)) {
      const result = await this.session.execute(bindLongLiterals(sql), undefined, options);
      if (result.columns.length === 0) return undefined;
      await target.write(printer.head(result.columns));
      for (const row of result.rows) await target.write(printer.row([...row]));
      await target.write(printer.end());
      return result.rows.length;
    }
    const rows = this.session.iterate(sql, undefined, options);
    const { columns } = await rows.head();
    if (columns.length === 0) {
      for await (const _ of rows);
      return undefined;
    }
    let count = 0;
    await target.write(printer.head(columns));
    for await (const row of rows) {
      count++;
      const written = target.write(printer.row([...row]));
      if (written !== undefined) await written;
      if (target.closed) break;
    }
    await target.write(printer.end());
    return count;
  }

  async endOnce(): Promise<void> {
    if (!this.outputOnce) return;
    this.outputOnce = false;
    await this.redirect(undefined);
  }

  /** Sends output elsewhere; undefined sends it back to standard output. */
  async redirect(output: Output | undefined): Promise<void> {
    const before = this.output;
    this.output = output ?? this.standardOutput;
    if (before === this.standardOutput) await before.flush();
    else await before.close();
  }

  /** One dot or backslash command. Throws. */
  async runMeta(line: string): Promise<void> {
    for (const pipeline of this.#pipelines) await pipeline.drain();
    const once = this.outputOnce;
    try {
      await runMetaCommand(this, line);
    } finally {
      for (const pipeline of this.#pipelines) pipeline.forget();
    }
    await this.output.flush();
    if (once) await this.endOnce();
  }

  /** Answers a query of the shell's own: rows as arrays. */
  async query(sql: string, args: readonly (string | number | bigint | null)[] = []): Promise<Value[][]> {
    const { rows } = await this.session.execute(sql, args, {
      timeoutMs: this.settings.statementTimeoutMs,
    });
    return rows.map((row: Row) => [...row]);
  }

  /**
   * Runs a script. Answers false when an error stopped it (under stop-on-error). `name` stands in error messages.
   */
  async runScript(chunks: AsyncIterable<string> | Iterable<string>, name: string): Promise<boolean> {
    if (this.#depth >= MAX_NESTED_SCRIPTS)
      throw new MetaError(`scripts nested more than ${MAX_NESTED_SCRIPTS} deep`);
    this.#depth++;
    const run = new ScriptRun(this, { name, interactive: false });
    this.#pipelines.push(run.pipeline);
    try {
      for await (const chunk of chunks) {
        if (!(await run.push(chunk))) return false;
        if (this.output.closed || this.#interrupted) return false;
      }
      return await run.finish();
    } finally {
      this.#pipelines.pop();
      this.#depth--;
      await this.output.flush();
    }
  }
}

/** What printing needs of an output; the pager's is one too. */
export interface PagedOutput {
  readonly closed: boolean;
  write(text: string): void | Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** A script on its way through the shell. */
class ScriptRun {
  readonly pipeline: Pipeline;
  readonly #shell: Shell;
  readonly #position: ScriptPosition;
  readonly #splitter = new StatementSplitter();
  /** Text of a dot or backslash command whose line has not ended. */
  #meta: string | undefined;
  #atLineStart = true;
  #atFileStart = true;

  constructor(shell: Shell, position: ScriptPosition) {
    this.#shell = shell;
    this.#position = position;
    this.pipeline = new Pipeline(
      () => shell.session,
      { failed: (error, _sql, line) => this.#failed(error, line) },
      {
        stopOnError: () => shell.settings.stopOnError,
        timeoutMs: () => shell.settings.statementTimeoutMs,
      },
    );
  }

  /** False when the script is to stop. */
  async push(chunk: string): Promise<boolean> {
    let at = this.#atFileStart && chunk.startsWith("\ufeff") ? 1 : 0;
    if (chunk !== "") this.#atFileStart = false;
    while (at < chunk.length) {
      const newline = chunk.indexOf("\n", at);
      const end = newline < 0 ? chunk.length : newline + 1;
      const piece = chunk.slice(at, end);
      at = end;
      if (this.#meta !== undefined || (this.#atLineStart && this.#splitter.atStart && isMeta(piece))) {
        this.#meta = (this.#meta ?? "") + piece;
        if (newline >= 0 && !(await this.#runMeta())) return false;
      } else {
        for (const { text, line } of this.#splitter.push(piece)) {
          if (!(await this.#run(text, line))) return false;
        }
      }
      this.#atLineStart = newline >= 0;
    }
    return true;
  }

  async finish(): Promise<boolean> {
    if (this.#meta !== undefined && !(await this.#runMeta())) return false;
    const rest = this.#splitter.finish();
    if (rest !== undefined && !(await this.#run(rest.text, rest.line))) return false;
    return this.pipeline.drain();
  }

  async #runMeta(): Promise<boolean> {
    const text = (this.#meta ?? "").trim();
    const line = this.#splitter.line;
    this.#meta = undefined;
    // The splitter counts lines; it has not seen this one.
    this.#splitter.push("\n");
    if (text.startsWith("#")) return true;
    if (this.#shell.interrupted) return false;
    if (!(await this.pipeline.drain())) return false;
    try {
      await this.#shell.runMeta(text);
      return true;
    } catch (error) {
      if (error instanceof Quit) throw error;
      return this.#failed(error, line);
    }
  }

  async #run(sql: string, line: number): Promise<boolean> {
    if (this.#shell.interrupted) return false;
    const { settings } = this.#shell;
    const mayPipeline = !settings.timing && !settings.changes && !settings.echo;
    const offered = mayPipeline ? await this.pipeline.offer(sql, line) : "no";
    if (offered !== "no") return offered === "taken";
    if (!mayPipeline && !(await this.pipeline.drain())) return false;
    try {
      await this.#shell.runStatement(sql);
      return true;
    } catch (error) {
      return this.#failed(error, line);
    }
  }

  #failed(error: unknown, line: number): boolean {
    // Who interrupts means the script, and is told once, by whoever began it.
    if (this.#shell.interrupted) return false;
    if (!(error instanceof ScriptStopped)) {
      this.#shell.report(error, `${this.#position.name}:${line}`);
      this.#shell.stoppedBy = error;
    }
    return !this.#shell.settings.stopOnError;
  }
}

/** A script that another one reads (.read) was stopped by an error that has been told. */
export class ScriptStopped extends MetaError {}

function isMeta(line: string): boolean {
  const first = line.charCodeAt(0);
  return first === 0x2e || first === 0x5c || first === 0x23;
}
