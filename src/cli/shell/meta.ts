/**
 * The shell's own commands: those of sqlite3 begin with a dot, those of psql with a backslash. Each is one entry of a
 * table, from which `.help` and `\?` are printed and names are completed.
 */
import { open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { dump, likePattern } from "../dump.js";
import { FORMATS, type Format } from "../format/printer.js";
import { readText } from "../import/import.js";
import { Output, ReaderGone } from "../output.js";
import { splitArguments } from "./arguments.js";
import { describeCommands } from "./describe.js";
import { importIntoShell } from "./import-command.js";
import { schemaCommands } from "./schema.js";
import { MetaError, Quit, ScriptStopped, type Shell } from "./shell.js";
import { traceCommand } from "./trace.js";

export interface MetaCommand {
  readonly names: readonly string[];
  readonly usage: string;
  readonly help: string;
  run(shell: Shell, args: readonly string[], line: string): void | Promise<void>;
}

/** Runs the command on this line. Throws MetaError for what is not one, and what the command throws. */
export async function runMetaCommand(shell: Shell, line: string): Promise<void> {
  const [name = "", ...args] = splitArguments(line);
  const command = findCommand(name, args);
  if (command === undefined) {
    const help = line.startsWith("\\") ? "\\?" : ".help";
    throw new MetaError(`unknown command ${JSON.stringify(name)}; ${help} lists them`);
  }
  await command.run(shell, args, line);
}

/** By its name, or (for dot commands) the beginning of exactly one, as in sqlite3. */
function findCommand(name: string, args: readonly string[]): MetaCommand | undefined {
  const exact = COMMANDS.find((command) => command.names.includes(name));
  if (exact !== undefined) return exact;
  // psql's \d+ and the like: the plus asks for more than is kept here.
  if (name.startsWith("\\") && name.endsWith("+")) return findCommand(name.slice(0, -1), args);
  if (!name.startsWith(".") || name.length < 2) return undefined;
  const candidates = COMMANDS.filter((command) => command.names.some((known) => known.startsWith(name)));
  return candidates.length === 1 ? candidates[0] : undefined;
}

export function metaCommandNames(): string[] {
  return COMMANDS.flatMap(({ names }) => names);
}

function needArgument(args: readonly string[], usage: string): string {
  const first = args[0];
  if (first === undefined) throw new MetaError(`usage: ${usage}`);
  return first;
}

/** A text that may be a semicolon, which ends other commands. */
function textArgument(args: readonly string[], line: string, usage: string): string {
  return args[0] ?? (/\s;\s*$/.test(line) ? ";" : needArgument(args, usage));
}

function parseSwitch(text: string, usage: string): boolean {
  if (/^(?:on|yes|true|1)$/i.test(text)) return true;
  if (/^(?:off|no|false|0)$/i.test(text)) return false;
  throw new MetaError(`usage: ${usage}`);
}

/** A command that turns one setting on or off; without an argument psql's turn it over, sqlite3's do nothing. */
function toggle(
  names: readonly string[],
  key: "timing" | "changes" | "echo" | "header" | "expanded" | "stopOnError" | "pager",
  help: string,
): MetaCommand {
  const ofPsql = names[0]!.startsWith("\\");
  const usage = ofPsql ? `${names[0]} [on|off]` : `${names[0]} on|off`;
  return {
    names,
    usage,
    help,
    run: (shell, args) => {
      const over = ofPsql && args[0] === undefined;
      shell.settings[key] = over ? !shell.settings[key] : parseSwitch(needArgument(args, usage), usage);
      if (shell.interactive && ofPsql) {
        shell.note(`${help} is ${shell.settings[key] ? "on" : "off"}.\n`);
      }
    },
  };
}

async function redirectTo(shell: Shell, target: string | undefined): Promise<void> {
  if (target === undefined || target === "stdout") return shell.redirect(undefined);
  if (target.startsWith("|")) return shell.redirect(Output.toCommand(target.slice(1)));
  await shell.redirect(await Output.toFile(target));
}

/** A file name, or `|` and a command line, which may have spaces. */
function redirectTarget(args: readonly string[], line: string): string | undefined {
  return args[0]?.startsWith("|") ? line.slice(line.indexOf("|")).trim() : args[0];
}

async function readScript(shell: Shell, path: string): Promise<void> {
  // Opened first: a wrong name is an error of the command, not of the script.
  await (await open(path, "r")).close();
  if (!(await shell.runScript(texts(path), path))) throw new ScriptStopped();
}

async function* texts(path: string): AsyncGenerator<string> {
  for await (const { text } of readText(path)) yield text;
}

function setMode(shell: Shell, args: readonly string[]): void {
  const usage = `.mode ${FORMATS.join("|")}`;
  const wanted = args.find((arg) => !arg.startsWith("-"));
  if (wanted === undefined) {
    shell.note(`current output mode: ${shell.settings.format}\n`);
    return;
  }
  const aliases: Readonly<Record<string, Format>> = {
    tabs: "tsv",
    column: "table",
    columns: "table",
    lines: "line",
  };
  const format = FORMATS.find((known) => known === wanted) ?? aliases[wanted];
  if (format === undefined) throw new MetaError(`usage: ${usage}`);
  shell.settings.format = format;
  if (format === "insert") shell.settings.tableName = args[args.indexOf(wanted) + 1] ?? "table";
}

async function dumpCommand(shell: Shell, args: readonly string[]): Promise<void> {
  const patterns = args.filter((arg) => !arg.startsWith("-")).map(likePattern);
  const own = shell.session.state === "idle";
  if (own) await shell.session.execute("BEGIN READ ONLY");
  try {
    await shell.interruptible((signal) =>
      dump(shell.session, (text) => shell.output.writeWhileRead(text), {
        signal,
        ...(patterns.length > 0 && { includes: (table) => patterns.some((matches) => matches(table)) }),
      }),
    );
  } catch (error) {
    if (!(error instanceof ReaderGone)) throw error;
  } finally {
    await shell.output.flush();
    if (own) await shell.session.execute("ROLLBACK").catch(() => undefined);
  }
}

/** Runs the last statement again and again, until Ctrl-C. */
async function watchCommand(shell: Shell, args: readonly string[]): Promise<void> {
  const seconds = args[0] === undefined ? 2 : Number(args[0].replace(/^i=/, ""));
  if (!Number.isFinite(seconds) || seconds < 0) throw new MetaError("usage: \\watch [SECONDS]");
  const sql = shell.lastStatement;
  if (sql === undefined) throw new MetaError("\\watch repeats the last statement, and there is none");
  const pager = shell.openPager;
  shell.openPager = undefined;
  shell.clearInterrupt();
  try {
    while (!shell.interrupted && !shell.output.closed) {
      await shell.output.write(`${new Date().toLocaleTimeString()} (every ${seconds}s)\n\n`);
      await shell.runStatement(sql);
      await shell.output.flush();
      await shell
        .interruptible((signal) => delay(seconds * 1000, undefined, { signal }))
        .catch(() => undefined);
    }
  } finally {
    shell.openPager = pager;
  }
}

/** psql's variables, as far as they exist here. */
function setVariable(shell: Shell, args: readonly string[]): void {
  const [name, value = "on"] = args;
  if (name === undefined) {
    shell.note(`ON_ERROR_STOP = '${shell.settings.stopOnError ? "on" : "off"}'\n`);
  } else if (name.toUpperCase() === "ON_ERROR_STOP") {
    shell.settings.stopOnError = parseSwitch(value, "\\set ON_ERROR_STOP on|off");
  } else {
    throw new MetaError(`\\set knows ON_ERROR_STOP only, not ${name}`);
  }
}

async function showSettings(shell: Shell): Promise<void> {
  const { settings } = shell;
  const shown: [string, string][] = [
    ["mode", settings.format],
    ["headers", settings.header ? "on" : "off"],
    ["nullvalue", JSON.stringify(settings.nullText)],
    ["separator", JSON.stringify(settings.separator)],
    ["width", settings.widths.join(" ")],
    ["timer", settings.timing ? "on" : "off"],
    ["changes", settings.changes ? "on" : "off"],
    ["echo", settings.echo ? "on" : "off"],
    ["bail", settings.stopOnError ? "on" : "off"],
    ["timeout", `${settings.statementTimeoutMs} ms`],
    ["url", shell.url],
  ];
  for (const [name, value] of shown) await shell.output.write(`${name.padStart(12)}: ${value}\n`);
}

async function printHelp(shell: Shell, prefix: string): Promise<void> {
  const lines = COMMANDS.filter(({ names }) => names[0]!.startsWith(prefix))
    .toSorted((a, b) => (a.names[0]! < b.names[0]! ? -1 : 1))
    .map(({ usage, help }) => `${usage.padEnd(30)} ${help}\n`);
  await shell.output.write(lines.join(""));
  const other =
    prefix === "." ? "\\? lists the commands that begin with a backslash" : ".help lists those with a dot";
  await shell.output.write(`${other}; statements end with a semicolon.\n`);
}

async function connectionInfo(shell: Shell): Promise<void> {
  const { clusterId, nodeId, sqliteVersion } = shell.database.server;
  await shell.output.write(
    `Connected to ${shell.url}: node ${nodeId} of cluster ${clusterId}, SQLite ${sqliteVersion}.\n`,
  );
}

const quit = (args: readonly string[]): never => {
  throw new Quit(/^\d+$/.test(args[0] ?? "") ? Number(args[0]) & 255 : 0);
};

const DOT_COMMANDS: readonly MetaCommand[] = [
  { names: [".help"], usage: ".help", help: "This list", run: (shell) => printHelp(shell, ".") },
  { names: [".quit"], usage: ".quit", help: "Leave", run: (_, args) => quit(args) },
  {
    names: [".exit"],
    usage: ".exit [CODE]",
    help: "Leave, with this exit code",
    run: (_, args) => quit(args),
  },
  { names: [".mode"], usage: ".mode FORMAT [TABLE]", help: `One of ${FORMATS.join(" ")}`, run: setMode },
  toggle([".headers", ".header"], "header", "Show column names"),
  toggle([".timer"], "timing", "Show how long statements take"),
  toggle([".changes"], "changes", "Show how many rows statements change"),
  toggle([".echo"], "echo", "Show statements before they run"),
  toggle([".bail"], "stopOnError", "Stop scripts at the first error"),
  {
    names: [".nullvalue"],
    usage: ".nullvalue TEXT",
    help: "What NULL looks like",
    run: (shell, args, line) => {
      shell.settings.nullText = textArgument(args, line, ".nullvalue TEXT");
    },
  },
  {
    names: [".separator"],
    usage: ".separator TEXT",
    help: "What stands between the columns of csv",
    run: (shell, args, line) => {
      shell.settings.separator = textArgument(args, line, ".separator TEXT");
    },
  },
  {
    names: [".width"],
    usage: ".width N…",
    help: "Least widths of columns; negative aligns right",
    run: (shell, args) => {
      shell.settings.widths = args.map((arg) => {
        if (!/^-?\d{1,4}$/.test(arg)) throw new MetaError("usage: .width N…");
        return Number(arg);
      });
    },
  },
  {
    names: [".timeout"],
    usage: ".timeout MS",
    help: "How long a statement may take",
    run: (shell, args) => {
      const ms = Number(needArgument(args, ".timeout MS"));
      if (!Number.isInteger(ms) || ms < 1 || ms >= 2 ** 31) throw new MetaError("usage: .timeout MS");
      shell.settings.statementTimeoutMs = ms;
    },
  },
  {
    names: [".output"],
    usage: ".output [FILE or |COMMAND]",
    help: "Send output there, or back to the screen",
    run: (shell, args, line) => redirectTo(shell, redirectTarget(args, line)),
  },
  {
    names: [".once"],
    usage: ".once FILE or |COMMAND",
    help: "Send the next output there",
    run: async (shell, args, line) => {
      needArgument(args, ".once FILE");
      await redirectTo(shell, redirectTarget(args, line));
      shell.outputOnce = true;
    },
  },
  {
    names: [".read"],
    usage: ".read FILE",
    help: "Run a script",
    run: (shell, args) => readScript(shell, needArgument(args, ".read FILE")),
  },
  {
    names: [".import"],
    usage: ".import [--csv] [--skip N] FILE TABLE",
    help: "Load a CSV or TSV file; the table is made if missing",
    run: importIntoShell,
  },
  { names: [".dump"], usage: ".dump [TABLE]…", help: "The database as SQL", run: dumpCommand },
  { names: [".show"], usage: ".show", help: "The settings", run: showSettings },
  {
    names: [".print"],
    usage: ".print TEXT…",
    help: "Write the text",
    run: (shell, args) => shell.output.write(`${args.join(" ")}\n`),
  },
  ...schemaCommands,
];

const BACKSLASH_COMMANDS: readonly MetaCommand[] = [
  { names: ["\\?", "\\h"], usage: "\\?", help: "This list", run: (shell) => printHelp(shell, "\\") },
  { names: ["\\q", "\\quit"], usage: "\\q", help: "Leave", run: () => quit([]) },
  toggle(["\\timing"], "timing", "Timing"),
  toggle(["\\x"], "expanded", "Expanded display"),
  toggle(["\\pager"], "pager", "Paging of long output"),
  {
    names: ["\\i", "\\include"],
    usage: "\\i FILE",
    help: "Run a script",
    run: (shell, args) => readScript(shell, needArgument(args, "\\i FILE")),
  },
  {
    names: ["\\o", "\\out"],
    usage: "\\o [FILE or |COMMAND]",
    help: "Send output there, or back to the screen",
    run: (shell, args, line) => redirectTo(shell, redirectTarget(args, line)),
  },
  {
    names: ["\\watch"],
    usage: "\\watch [SECONDS]",
    help: "Repeat the last statement until Ctrl-C",
    run: watchCommand,
  },
  traceCommand,
  {
    names: ["\\set"],
    usage: "\\set ON_ERROR_STOP on|off",
    help: "Stop scripts at the first error",
    run: setVariable,
  },
  {
    names: ["\\echo", "\\qecho"],
    usage: "\\echo TEXT…",
    help: "Write the text",
    run: (shell, args) => shell.output.write(`${args.join(" ")}\n`),
  },
  {
    names: ["\\c", "\\connect"],
    usage: "\\c URL",
    help: "Connect to another cluster",
    run: async (shell, args) => {
      await shell.reconnect(needArgument(args, "\\c URL"));
      await connectionInfo(shell);
    },
  },
  { names: ["\\conninfo"], usage: "\\conninfo", help: "What this is connected to", run: connectionInfo },
  ...describeCommands,
];

const COMMANDS: readonly MetaCommand[] = [...DOT_COMMANDS, ...BACKSLASH_COMMANDS];
