/**
 * Keeps a database's write-ahead log as it is while connections to it are closed. SQLite moves the log into the file
 * and removes it when the last connection is closed; but not where that one can only read, or the process dies.
 *
 * Nothing is locked: checkpoints that are asked for go on.
 */
import Database from "better-sqlite3";

export class LogKeeper {
  #database: Database.Database | undefined;

  /** From now on, where the file has a log. Throws what SQLite says when it cannot be opened. */
  keep(path: string): void {
    if (this.#database !== undefined) return;
    const database = new Database(path, { readonly: true });
    try {
      // Only whoever has read takes part in the log.
      database.prepare("SELECT count(*) FROM sqlite_schema").get();
    } catch (error) {
      database.close();
      throw error;
    }
    this.#database = database;
  }

  letGo(): void {
    this.#database?.close();
    this.#database = undefined;
  }
}
