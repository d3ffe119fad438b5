/** `.import`: as in sqlite3, the first record of a new table names its columns, and of an existing one it is a row. */
import { importSeparated } from "../import/import.js";
import { MetaError, type Shell } from "./shell.js";

const USAGE = "usage: .import [--csv|--tsv] [--skip N] FILE TABLE";

export async function importIntoShell(shell: Shell, args: readonly string[]): Promise<void> {
  let separator = shell.settings.format === "tsv" ? "\t" : shell.settings.separator;
  let skip = 0;
  const names: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const option = arg.replace(/^--/, "-");
    if (option === "-csv") separator = ",";
    else if (option === "-tsv" || option === "-tabs") separator = "\t";
    else if (option === "-skip") skip = Number(args[++i]);
    else if (option === "-v") continue;
    else if (arg.startsWith("-")) throw new MetaError(USAGE);
    else names.push(arg);
  }
  const [file, table] = names;
  if (file === undefined || table === undefined || names.length > 2) throw new MetaError(USAGE);
  if (!Number.isInteger(skip) || skip < 0) throw new MetaError(USAGE);
  if (separator.length !== 1) throw new MetaError(".import needs a separator of one character (.separator)");
  if (shell.session.state !== "idle")
    throw new MetaError(".import runs transactions of its own: COMMIT first");
  await shell.interruptible((signal) =>
    importSeparated({ database: shell.database, session: shell.session }, file, {
      table,
      kind: undefined,
      header: "new table",
      skip,
      separator,
      signal,
      warn: (text) => shell.note(text),
    }),
  );
}
