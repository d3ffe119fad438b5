/**
 * The shell with a person at it. Lines are read by node:readline all the time, also while a statement runs, so that
 * Ctrl-C arrives; lines typed meanwhile wait their turn.
 *
 * Ctrl-C stops the statement that runs, or drops what has been typed of one; at an empty prompt it says how to leave.
 * Ctrl-D leaves, and an open transaction is rolled back. The prompt shows what the session is in: `ostraka>`,
 * `ostraka*>` in a transaction, `ostraka!>` in one that has failed, and `   ...>` within a statement.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { StatementSplitter } from "../../sql/splitter.js";
import { complete, NO_NAMES, readSchemaNames, type SchemaNames } from "./completion.js";
import { historyPath, loadHistory, saveHistory } from "./history.js";
import { Pager, pagerCommand } from "./pager.js";
import { Quit, ScriptStopped, type Shell } from "./shell.js";

const CONTINUATION = "   ...> ";
const CHANGES_SCHEMA = /^(?:create|drop|alter|rollback|commit|end)\b/i;

/** Runs until the person leaves; answers the exit code. */
export async function runInteractive(shell: Shell): Promise<number> {
  const conversation = new Conversation(shell);
  try {
    return await conversation.run();
  } finally {
    conversation.close();
  }
}

class Conversation {
  readonly #shell: Shell;
  readonly #readline: Interface;
  readonly #lines: (string | undefined)[] = [];
  #wake: (() => void) | undefined;
  #splitter = new StatementSplitter();
  #pendingText = "";
  #busy = false;
  #names: SchemaNames = NO_NAMES;
  #namesStale = true;
  readonly #historyPath = historyPath();
  readonly #history: string[] = [];
  #paging = false;

  constructor(shell: Shell) {
    this.#shell = shell;
    this.#readline = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal: true,
      historySize: 2000,
      removeHistoryDuplicates: true,
      history: loadHistory(this.#historyPath).reverse(),
      completer: (line: string, answer: (error: Error | null, result: [string[], string]) => void) => {
        void this.#complete(line).then((result) => answer(null, result));
      },
    });
    this.#readline.on("line", (line) => this.#arrived(line));
    this.#readline.on("close", () => this.#arrived(undefined));
    this.#readline.on("SIGINT", () => this.#interrupt());
    shell.openPager = () => this.#openPager();
  }

  async run(): Promise<number> {
    this.#prompt();
    for (;;) {
      const line = await this.#nextLine();
      if (line === undefined) {
        process.stdout.write("\n");
        return 0;
      }
      this.#busy = true;
      try {
        await this.#take(line);
      } catch (error) {
        if (error instanceof Quit) return error.exitCode;
        throw error;
      } finally {
        this.#busy = false;
        await this.#shell.output.flush();
      }
      this.#prompt();
    }
  }

  close(): void {
    this.#readline.close();
    saveHistory(this.#historyPath, this.#history);
  }

  #arrived(line: string | undefined): void {
    this.#lines.push(line);
    this.#wake?.();
  }

  async #nextLine(): Promise<string | undefined> {
    while (this.#lines.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#wake = undefined;
    return this.#lines.shift();
  }

  #prompt(): void {
    this.#readline.setPrompt(this.#pendingText === "" ? this.#firstPrompt() : CONTINUATION);
    this.#readline.prompt();
  }

  #firstPrompt(): string {
    const mark = { idle: "", open: "*", failed: "!" }[this.#shell.session.state];
    return `ostraka${mark}> `;
  }

  #interrupt(): void {
    if (this.#busy) {
      this.#shell.interrupt();
      return;
    }
    const typed = this.#pendingText !== "" || this.#readline.line !== "";
    process.stdout.write("^C\n");
    if (!typed) process.stdout.write("Ctrl-D or .quit leaves.\n");
    this.#dropTyped();
    this.#prompt();
  }

  #dropTyped(): void {
    this.#pendingText = "";
    this.#splitter = new StatementSplitter();
    // readline has no call to empty its line but the key that does.
    this.#readline.write(null, { ctrl: true, name: "e" });
    this.#readline.write(null, { ctrl: true, name: "u" });
  }

  async #take(line: string): Promise<void> {
    if (line.trim() !== "") this.#history.push(line);
    if (this.#splitter.atStart && this.#pendingText === "") {
      const trimmed = line.trim();
      if (trimmed.startsWith(".") || trimmed.startsWith("\\")) return this.#meta(trimmed);
      if (trimmed === "" || trimmed.startsWith("#")) return;
      if (/^(?:exit|quit)\s*;?$/i.test(trimmed)) throw new Quit(0);
      if (/^help\s*;?$/i.test(trimmed)) return this.#meta(".help");
    } else if (/^\s*\\(?:q|r|\?)\s*$/.test(line) && this.#splitter.inside === undefined) {
      this.#pendingText = "";
      this.#splitter = new StatementSplitter();
      return line.includes("q") ? this.#meta("\\q") : undefined;
    }
    const statements = this.#splitter.push(`${line}\n`);
    this.#pendingText = this.#splitter.atStart ? "" : "open";
    if (this.#pendingText === "") this.#splitter = new StatementSplitter();
    this.#shell.clearInterrupt();
    for (const { text } of statements) {
      if (!(await this.#attempt(() => this.#shell.runStatement(text)))) break;
      if (CHANGES_SCHEMA.test(text)) this.#namesStale = true;
    }
  }

  async #meta(line: string): Promise<void> {
    this.#shell.clearInterrupt();
    if (/^\\e(?:dit)?\b/.test(line)) return this.#edit();
    await this.#attempt(() => this.#shell.runMeta(line));
    this.#namesStale = true;
  }

  /** Runs and tells what went wrong; false when it did. */
  async #attempt(body: () => Promise<void>): Promise<boolean> {
    try {
      await body();
      return true;
    } catch (error) {
      if (error instanceof Quit) throw error;
      await this.#shell.output.flush();
      if (this.#shell.interrupted) this.#shell.note("Interrupted.\n");
      else if (!(error instanceof ScriptStopped)) this.#shell.report(error);
      return false;
    }
  }

  /** \e: the last statement in an editor; what is left there runs. */
  async #edit(): Promise<void> {
    const directory = mkdtempSync(join(tmpdir(), "ostraka-edit-"));
    const file = join(directory, "statement.sql");
    try {
      writeFileSync(file, `${this.#shell.lastStatement ?? ""}\n`, { mode: 0o600 });
      const editor = process.env.VISUAL ?? process.env.EDITOR ?? "vi";
      this.#suspend();
      const { status } = spawnSync(`${editor} "${file}"`, { shell: true, stdio: "inherit" });
      this.#resume();
      if (status !== 0) return this.#shell.note(`${editor} failed; nothing was run\n`);
      const text = readFileSync(file, "utf8").trim();
      if (text === "") return;
      this.#history.push(...text.split("\n"));
      await this.#attempt(async () => {
        await this.#shell.runScript([text], "edited");
      });
      this.#namesStale = true;
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  #openPager(): Pager | undefined {
    const command = pagerCommand();
    const { settings, output, standardOutput } = this.#shell;
    const { rows, columns, isTTY } = process.stdout;
    if (!settings.pager || command === undefined || !isTTY || output !== standardOutput) return undefined;
    return new Pager(command, {
      output,
      rows: rows ?? 24,
      columns: columns ?? 80,
      suspend: () => this.#suspend(),
      resume: () => this.#resume(),
    });
  }

  /** Hands the terminal to another program. */
  #suspend(): void {
    if (this.#paging) return;
    this.#paging = true;
    this.#readline.pause();
    process.stdin.setRawMode?.(false);
    // Ctrl-C is the other program's while it has the terminal.
    process.on("SIGINT", ignoreSignal);
  }

  #resume(): void {
    if (!this.#paging) return;
    this.#paging = false;
    process.off("SIGINT", ignoreSignal);
    process.stdin.setRawMode?.(true);
    this.#readline.resume();
  }

  async #complete(line: string): Promise<[string[], string]> {
    if (this.#namesStale && !this.#busy && this.#shell.session.state !== "failed") {
      try {
        this.#names = await readSchemaNames(this.#shell);
        this.#namesStale = false;
      } catch {
        // Completion is a courtesy: without a cluster there are still keywords.
      }
    }
    return complete(line, this.#names);
  }
}

function ignoreSignal(): void {}
