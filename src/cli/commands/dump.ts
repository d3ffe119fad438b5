/** `ostraka dump`: the whole cluster at one moment, as SQL on standard output or in a file. */
import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags, resolveUrl, withDatabase } from "../connection.js";
import { dump } from "../dump.js";
import { CommandFailure, EXIT } from "../exit.js";
import { Output, ReaderGone } from "../output.js";

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
    const output =
      flags.output === undefined ? Output.toStream(process.stdout) : await Output.toFile(flags.output);
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
      await output.close();
    } catch (error) {
      if (!(error instanceof ReaderGone)) throw error;
    } finally {
      await session.close();
    }
  });
}
