/** The version of the SQLite that this node runs on. */
import { createRequire } from "node:module";

export function sqliteVersion(): string {
  const Database = createRequire(import.meta.url)("better-sqlite3") as typeof import("better-sqlite3");
  const database = new Database(":memory:");
  const { version } = database.prepare("select sqlite_version() as version").get() as { version: string };
  database.close();
  return version;
}
