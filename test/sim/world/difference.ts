/** What tells two replicas' databases apart, for people: the first rows that only one of them has, table by table. */
import Database from "better-sqlite3";

const SHOWN = 3;

export function describeDifference(paths: readonly string[]): string {
  const databases = paths.map((path) => new Database(path, { readonly: true }));
  try {
    const found: string[] = [];
    const names = databases[0]!
      .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
      .pluck()
      .all() as string[];
    for (const name of names) {
      const rows = databases.map((database) => rowsOf(database, name));
      for (let i = 1; i < rows.length; i++) {
        const onlyFirst = [...rows[0]!].filter((row) => !rows[i]!.has(row)).slice(0, SHOWN);
        const onlyOther = [...rows[i]!].filter((row) => !rows[0]!.has(row)).slice(0, SHOWN);
        for (const row of onlyFirst) found.push(`${name}: only replica 0 has ${row} (compared with ${i})`);
        for (const row of onlyOther) found.push(`${name}: only replica ${i} has ${row}`);
      }
    }
    return found.join("\n  ");
  } finally {
    for (const database of databases) database.close();
  }
}

function rowsOf(database: Database.Database, table: string): Set<string> {
  try {
    const rows = database
      .prepare(`SELECT * FROM "${table.replaceAll('"', '""')}"`)
      .raw()
      .all();
    return new Set(
      rows.map((row) =>
        JSON.stringify(row, (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value)),
      ),
    );
  } catch (error) {
    return new Set([String(error)]);
  }
}
