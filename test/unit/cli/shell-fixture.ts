/** A shell over plain SQLite, with what it writes caught. */
import { Writable } from "node:stream";
import { Output } from "../../../src/cli/output.js";
import { Shell } from "../../../src/cli/shell/shell.js";
import { databaseOf, SqliteSession } from "./sqlite-session.js";

export interface ShellFixture {
  readonly shell: Shell;
  readonly session: SqliteSession;
  /** What was written so far, and forgets it. */
  takeOutput(): string;
  takeErrors(): string;
  /** Runs a script as from standard input; answers what it printed. */
  run(script: string): Promise<string>;
}

export function createShell(options: { terminal?: boolean } = {}): ShellFixture {
  const session = new SqliteSession();
  let output = "";
  let errors = "";
  const stream = new Writable({
    write(chunk, _, done) {
      output += String(chunk);
      done();
    },
  });
  const shell = new Shell({
    database: databaseOf(session),
    session,
    url: "ostraka://unit",
    output: Output.toStream(stream),
    errors: (text) => {
      errors += text;
    },
    terminal: options.terminal ?? false,
    interactive: false,
  });
  shell.settings.stopOnError = true;
  const take = (): string => {
    const text = output;
    output = "";
    return text;
  };
  return {
    shell,
    session,
    takeOutput: take,
    takeErrors: () => {
      const text = errors;
      errors = "";
      return text;
    },
    run: async (script) => {
      await shell.runScript([script], "stdin");
      return take();
    },
  };
}
