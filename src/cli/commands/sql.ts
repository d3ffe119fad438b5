/**
 * `ostraka sql`: the shell, with a person at it or with SQL from -c, -f or standard input, all in one session.
 * Exit codes are psql's (exit.ts). Without a terminal errors stop the run, unless --no-stop-on-error says otherwise.
 */
import { type Command, Option } from "commander";
import { connect } from "../../driver/index.js";
import type { Database } from "../../driver/types.js";
import {
  addConnectionOptions,
  type ConnectionFlags,
  connectOptions,
  isConnectionLost,
  openDatabase,
  resolveUrl,
} from "../connection.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { FORMATS, type Format } from "../format/printer.js";
import { decodeText, readText } from "../import/import.js";
import { Output } from "../output.js";
import { runInteractive } from "../shell/interactive.js";
import { Quit, Shell } from "../shell/shell.js";

interface SqlFlags extends ConnectionFlags {
  readonly format?: Format;
  readonly stopOnError?: boolean;
  readonly header: boolean;
  readonly nullvalue?: string;
  readonly timeoutMs?: string;
  readonly quiet?: boolean;
}

/** What to run, in the order in which it was asked for. */
export interface ScriptInput {
  readonly kind: "command" | "file";
  readonly text: string;
}

export function addSqlCommand(program: Command): void {
  const inputs: ScriptInput[] = [];
  const gather = (kind: ScriptInput["kind"]) => (text: string) => {
    inputs.push({ kind, text });
    return inputs;
  };
  const command = program
    .command("sql")
    .description("the shell; runs SQL from -c, -f or standard input when there is any")
    .argument("[url]", "the cluster, as --url")
    .addOption(
      new Option("-c, --command <sql>", "run this; may be given several times").argParser(gather("command")),
    )
    .addOption(
      new Option("-f, --file <file>", "run this file (- is standard input); several times").argParser(
        gather("file"),
      ),
    )
    .addOption(new Option("--format <format>", "how results look").choices(FORMATS))
    .option("--no-header", "results without column names")
    .option("--nullvalue <text>", "what NULL looks like")
    .option("--timeout-ms <ms>", "how long a statement may take")
    .option(
      "--stop-on-error",
      "end at the first error, with exit code 3 (default for -c, -f and piped input)",
    )
    .option("--no-stop-on-error", "go on after errors")
    .option("-q, --quiet", "no greeting");
  addConnectionOptions(command).action(async (url: string | undefined, flags: SqlFlags) => {
    process.exitCode = await runSql(resolveUrl(flags, url), flags, inputs);
  });
}

async function runSql(url: string, flags: SqlFlags, inputs: readonly ScriptInput[]): Promise<number> {
  const database = await openDatabase(flags, url);
  return runShellOn(database, url, flags, inputs);
}

/** Runs the shell on an open connection and closes it; answers the exit code. Also what `demo` runs. */
export async function runShellOn(
  database: Database,
  url: string,
  flags: Partial<SqlFlags>,
  inputs: readonly ScriptInput[],
): Promise<number> {
  const interactive = inputs.length === 0 && process.stdin.isTTY === true && process.stdout.isTTY === true;
  const shell = new Shell({
    database,
    session: await openSession(database),
    url,
    output: Output.toStream(process.stdout),
    errors: (text) => process.stderr.write(text),
    terminal: process.stdout.isTTY === true,
    interactive,
    connect: (other) => connect(other, connectOptions(flags, "bigint")),
  });
  try {
    applyFlags(shell, flags, interactive);
    return interactive ? await converse(shell, flags) : await runInputs(shell, inputs, flags);
  } catch (error) {
    if (error instanceof Quit) return error.exitCode;
    throw error;
  } finally {
    await shell.output.close();
    await shell.session.close();
    await shell.database.close();
  }
}

async function openSession(database: Database): Promise<Awaited<ReturnType<Database["session"]>>> {
  try {
    return await database.session();
  } catch (error) {
    await database.close();
    throw new CommandFailure(EXIT.noConnection, describeError(error), { cause: error });
  }
}

function applyFlags(shell: Shell, flags: Partial<SqlFlags>, interactive: boolean): void {
  const { settings } = shell;
  settings.stopOnError = flags.stopOnError ?? !interactive;
  if (flags.format !== undefined) settings.format = flags.format;
  if (flags.header === false) settings.header = false;
  if (flags.nullvalue !== undefined) settings.nullText = flags.nullvalue;
  if (flags.timeoutMs !== undefined) {
    const ms = Number(flags.timeoutMs);
    if (!Number.isInteger(ms) || ms < 1 || ms >= 2 ** 31) {
      throw new CommandFailure(EXIT.failure, "--timeout-ms: not a number of milliseconds");
    }
    settings.statementTimeoutMs = ms;
  }
}

async function converse(shell: Shell, flags: Partial<SqlFlags>): Promise<number> {
  if (flags.quiet !== true) {
    const { clusterId, nodeId, sqliteVersion } = shell.database.server;
    shell.note(
      `ostraka: node ${nodeId} of cluster ${clusterId}, SQLite ${sqliteVersion}. ` +
        "Statements end with a semicolon; .help and \\? list commands.\n",
    );
  }
  return runInteractive(shell);
}

async function runInputs(
  shell: Shell,
  inputs: readonly ScriptInput[],
  flags: ConnectionFlags,
): Promise<number> {
  const all: readonly ScriptInput[] = inputs.length > 0 ? inputs : [{ kind: "file", text: "-" }];
  for (const [i, input] of all.entries()) {
    const commandName = all.length === 1 ? "-c" : `-c ${i + 1}`;
    const done =
      input.kind === "command"
        ? await shell.runScript([input.text], commandName)
        : await shell.runScript(await openScript(input.text), input.text === "-" ? "stdin" : input.text);
    if (done) continue;
    if (shell.output.closed) return EXIT.ok;
    const lost = await isConnectionLost(shell.stoppedBy, flags, shell.url);
    return lost ? EXIT.noConnection : EXIT.statementFailed;
  }
  return EXIT.ok;
}

/** Opened before it is read: a file that is not there is a failure of the command, not of a statement. */
async function openScript(path: string): Promise<AsyncIterable<string>> {
  if (path === "-") {
    return readStandardInput();
  }
  const texts = mapTexts(path);
  try {
    const first = await texts.next();
    return prepend(first, texts);
  } catch (error) {
    throw new CommandFailure(EXIT.failure, `cannot read ${path}: ${describeError(error)}`);
  }
}

async function* readStandardInput(): AsyncGenerator<string> {
  try {
    for await (const { text } of decodeText(process.stdin)) yield text;
  } catch (error) {
    throw error instanceof CommandFailure
      ? new CommandFailure(error.exitCode, `stdin: ${error.message}`)
      : error;
  }
}

async function* mapTexts(path: string): AsyncGenerator<string> {
  for await (const { text } of readText(path)) yield text;
}

async function* prepend(first: IteratorResult<string>, rest: AsyncGenerator<string>): AsyncGenerator<string> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}
