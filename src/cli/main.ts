#!/usr/bin/env node
/**
 * The `ostraka` command. Each command lives in its own file under commands/; here they are put together, and whatever
 * ends one of them becomes an exit code and, if there is something to say, one line on standard error.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { addCheckCommand } from "./commands/check.js";
import { addDemoCommand } from "./commands/demo.js";
import { addDumpCommand } from "./commands/dump.js";
import { addImportCommand } from "./commands/import.js";
import { addNodeCommand } from "./commands/node.js";
import { addPlannedCommands } from "./commands/planned.js";
import { addRangeCommand } from "./commands/range.js";
import { addRecoverCommand } from "./commands/recover.js";
import { addSltCommand } from "./commands/slt.js";
import { addSqlCommand } from "./commands/sql.js";
import { addStartCommand } from "./commands/start.js";
import { CommandFailure, describeError, EXIT } from "./exit.js";

export function createProgram(): Command {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  const program = new Command("ostraka")
    .description("A sharded, transactional, replicated SQLite database")
    .version(version)
    .showHelpAfterError("(ostraka --help, ostraka COMMAND --help)")
    .exitOverride();
  addStartCommand(program);
  addDemoCommand(program);
  addSqlCommand(program);
  addSltCommand(program);
  addNodeCommand(program);
  addRangeCommand(program);
  addCheckCommand(program);
  addRecoverCommand(program);
  addDumpCommand(program);
  addImportCommand(program);
  addPlannedCommands(program);
  return program;
}

async function main(): Promise<void> {
  // Node's remarks on how gRPC uses it (a server named by its IP address) have no place among errors and log lines.
  process.noDeprecation = true;
  // A reader that goes away is no failure of ours (see output.ts).
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") return;
    process.stderr.write(`Error: cannot write: ${describeError(error)}\n`);
    process.exit(EXIT.failure);
  });
  try {
    await createProgram().parseAsync();
  } catch (error) {
    process.exitCode = exitCodeOf(error);
  }
}

function exitCodeOf(error: unknown): number {
  // commander has printed its message already; help and version are no errors.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.failure;
  if (error instanceof CommandFailure) {
    if (error.message !== "") process.stderr.write(`Error: ${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(`Error: ${describeError(error)}\n`);
  return EXIT.failure;
}

await main();
