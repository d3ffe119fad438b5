/** `ostraka dump`: the whole cluster at one moment, as SQL on standard output or in a file. */
import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags, resolveUrl, withDatabase } from "../connection.js";
import { dump } from "../dump.js";
import { CommandFailure, EXIT } from "../exit.js";
import { Output, ReaderGone } from "../output.js";
import { WholeFile } from "../whole-file.js";

interface DumpFlags extends ConnectionFlags {
  readonly table?: string[];
  readonly output?: string;
}

export function addDumpCommand(program: Command): void {
  const command = program.command("dump").description("a consistent .sql of the database");
  addConnectionOptions(command)
    .option(
      "-t, --table <table>",
      "only this table; may be given several times",
      (name: string, names: string[] = []) => [...names, name],
    )
    .option("-o, --output <file>", "write there instead of standard output")
    .action(run);
}

async function run(flags: DumpFlags): Promise<void> {
  const wanted = flags.table?.map((name) => name.toLowerCase());
  await withDatabase(flags, resolveUrl(flags), async (database) => {
    const session = await database.session();
    const file = flags.output === undefined ? undefined : await WholeFile.open(flags.output);
    const output = file?.output ?? Output.toStream(process.stdout);
    const stopOnSignal = (signal: NodeJS.Signals): void => {
      file?.discard();
      process.exit(signal === "SIGINT" ? 130 : 143);
    };
    process.on("SIGINT", stopOnSignal).on("SIGTERM", stopOnSignal);
    try {
      await session.execute("BEGIN READ ONLY");
      for (const name of wanted ?? []) {
        const { rows } = await session.execute("select 1 from sqlite_schema where lower(name) = ?", [name]);
        if (rows.length === 0) throw new CommandFailure(EXIT.failure, `there is no table named ${name}`);
      }
      await dump(session, (text) => output.writeWhileRead(text), {
        ...(wanted !== undefined && { includes: (table) => wanted.includes(table.toLowerCase()) }),
      });
      await session.execute("COMMIT");
      await (file?.keep() ?? output.close());
    } catch (error) {
      if (!(error instanceof ReaderGone)) throw error;
    } finally {
      file?.discard();
      process.off("SIGINT", stopOnSignal).off("SIGTERM", stopOnSignal);
      await session.close();
    }
  });
}
