/** `ostraka import`: SQL, CSV, TSV, JSON lines, SQLite's own format or another database's dump into the cluster. */
import { type Command, Option } from "commander";
import type { Database } from "../../driver/types.js";
import { addConnectionOptions, type ConnectionFlags, resolveUrl, withDatabase } from "../connection.js";
import { CommandFailure, EXIT } from "../exit.js";
import { importDump } from "../import/dialect/dump-import.js";
import type { Dialect } from "../import/dialect/session.js";
import {
  detectKind,
  type FileKind,
  type HeaderRule,
  type ImportOptions,
  importJsonLines,
  importSeparated,
} from "../import/import.js";
import { importSqlScript } from "../import/sql-script.js";
import { importSqliteFile } from "../import/sqlite-file.js";

interface ImportFlags extends ConnectionFlags {
  readonly table?: string;
  readonly format?: FileKind;
  readonly header: HeaderRule;
  readonly skip: string;
  readonly dialect?: Dialect;
}

export function addImportCommand(program: Command): void {
  const command = program
    .command("import")
    .description("load a .sql, .csv, .tsv, .jsonl or SQLite file, or a dump of MySQL, MariaDB or PostgreSQL")
    .argument("<file>", "what to load");
  addConnectionOptions(command)
    .option(
      "-t, --table <table>",
      "the table to load into (default: the file's name; of a SQLite file or a dump: only this table)",
    )
    .addOption(
      new Option("--format <kind>", "what the file is").choices(["sql", "csv", "tsv", "jsonl", "sqlite"]),
    )
    .addOption(
      new Option(
        "--header <rule>",
        "whether the first record names columns; auto: if it does, or the table is new",
      )
        .choices(["auto", "yes", "no"])
        .default("auto"),
    )
    .option("--skip <n>", "records to pass over first", "0")
    .addOption(
      new Option(
        "--dialect <dialect>",
        "the file is a dump of this database (mysqldump, mariadb-dump, pg_dump in plain format)",
      ).choices(["mysql", "mariadb", "postgresql"]),
    )
    .action(run);
}

async function run(file: string, flags: ImportFlags): Promise<void> {
  const { dialect } = flags;
  if (dialect !== undefined) {
    if (flags.format !== undefined && flags.format !== "sql") {
      throw new CommandFailure(EXIT.failure, "--dialect is for dumps in SQL, not for other formats");
    }
    await withDatabase(flags, resolveUrl(flags), (database) =>
      loadDump(database, file, dialect, flags.table),
    );
    return;
  }
  const skip = Number(flags.skip);
  if (!Number.isInteger(skip) || skip < 0)
    throw new CommandFailure(EXIT.failure, "--skip: not a number of records");
  const kind = flags.format ?? detectKind(file);
  const options: ImportOptions = {
    table: flags.table,
    kind,
    header: flags.header,
    skip,
    separator: undefined,
    warn: (text) => process.stderr.write(text),
  };
  await withDatabase(flags, resolveUrl(flags), (database) => load(database, file, kind, options));
}

async function loadDump(
  database: Database,
  file: string,
  dialect: Dialect,
  table: string | undefined,
): Promise<void> {
  const session = await database.session();
  try {
    const warn = (text: string): boolean => process.stderr.write(text);
    const { tables, rows } = await importDump({ database, session }, file, { dialect, table, warn });
    process.stderr.write(`${rows} rows into ${tables} tables\n`);
  } finally {
    await session.close();
  }
}

async function load(database: Database, file: string, kind: FileKind, options: ImportOptions): Promise<void> {
  const session = await database.session();
  const target = { database, session };
  const say = (text: string): boolean => process.stderr.write(`${text}\n`);
  try {
    switch (kind) {
      case "csv":
      case "tsv": {
        const { table, rows } = await importSeparated(target, file, {
          ...options,
          separator: kind === "csv" ? "," : "\t",
        });
        say(`${rows} rows into ${table}`);
        return;
      }
      case "jsonl": {
        const { table, rows } = await importJsonLines(target, file, options);
        say(`${rows} rows into ${table}`);
        return;
      }
      case "sqlite": {
        const { tables, rows } = await importSqliteFile(target, file, options);
        say(`${rows} rows into ${tables} tables`);
        return;
      }
      case "sql": {
        if (options.table !== undefined) {
          throw new CommandFailure(
            EXIT.failure,
            "--table has no meaning for SQL, which names its tables itself",
          );
        }
        const { statements } = await importSqlScript(session, file);
        say(`${statements} statements`);
      }
    }
  } finally {
    await session.close();
  }
}
