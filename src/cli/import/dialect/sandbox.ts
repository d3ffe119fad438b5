/**
 * An empty SQLite of this process, in which a schema is made before any of it is made in the database: what SQLite
 * refuses is known before anything has been done.
 */
import Sqlite from "better-sqlite3";

export class Sandbox {
  readonly #database = new Sqlite(":memory:");

  /** Runs a statement for good. Answers why not. */
  run(sql: string): string | undefined {
    try {
      this.#database.prepare(sql).run();
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Runs statements and undoes them. Answers why one would not do. */
  objection(...statements: readonly string[]): string | undefined {
    this.#database.exec("SAVEPOINT attempt");
    try {
      for (const sql of statements) {
        const statement = this.#database.prepare(sql);
        if (statement.reader) statement.all();
        else statement.run();
      }
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      this.#database.exec("ROLLBACK TO attempt; RELEASE attempt");
    }
  }

  close(): void {
    this.#database.close();
  }
}
