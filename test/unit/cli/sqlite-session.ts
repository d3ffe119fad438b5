/**
 * A Session and Database over plain SQLite in memory, so that what the shell does is tested against SQLite itself and
 * without a cluster. Calls run one after the other, each in a later turn of the event loop, as over a wire.
 */
import Sqlite from "better-sqlite3";
import { OstrakaError } from "../../../src/driver/errors.js";
import type {
  Args,
  CallOptions,
  Database,
  ResultSet,
  Row,
  RowIterator,
  Session,
  SessionState,
  StatementInput,
  Value,
} from "../../../src/driver/types.js";
import { splitScript } from "../../../src/sql/splitter.js";

export class SqliteSession implements Session {
  readonly sqlite: Sqlite.Database = new Sqlite(":memory:");
  /** Every statement in the order in which it arrived. */
  readonly received: string[] = [];
  /** The most calls that were outstanding at once. */
  mostOutstanding = 0;
  #outstanding = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor() {
    this.sqlite.defaultSafeIntegers(true);
    this.sqlite.pragma("foreign_keys = on");
  }

  get state(): SessionState {
    return this.sqlite.inTransaction ? "open" : "idle";
  }

  execute(
    statement: string | StatementInput,
    second?: Args | CallOptions,
    options?: CallOptions,
  ): Promise<ResultSet> {
    const args = second as Args | undefined;
    const sql = typeof statement === "string" ? statement : statement.sql;
    this.#outstanding++;
    this.mostOutstanding = Math.max(this.mostOutstanding, this.#outstanding);
    const result = this.#last.then(async () => {
      await new Promise((resolve) => setImmediate(resolve));
      this.#outstanding--;
      options?.signal?.throwIfAborted();
      this.received.push(sql);
      return this.#run(sql, args ?? []);
    });
    this.#last = result.catch(() => undefined);
    return result;
  }

  #run(sql: string, args: Args): ResultSet {
    const text = sql.replace(/^begin read only/i, "BEGIN");
    try {
      const statement = this.sqlite.prepare(text);
      const list = (args as Value[]).map((value) =>
        Number.isSafeInteger(value) ? BigInt(value as number) : value,
      );
      // better-sqlite3 takes numbered parameters for named ones.
      const values = /\?\d/.test(sql) ? [Object.fromEntries(list.map((value, i) => [i + 1, value]))] : list;
      if (statement.reader) {
        const columns = statement.columns();
        const rows = statement.raw().all(...values) as Value[][];
        return {
          columns: columns.map(({ name }) => name),
          columnTypes: columns.map(({ type }) => type),
          rows: rows as unknown as Row[],
          rowsAffected: 0,
          lastInsertRowid: undefined,
        };
      }
      const { changes } = statement.run(...values);
      return { columns: [], columnTypes: [], rows: [], rowsAffected: changes, lastInsertRowid: undefined };
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      throw new OstrakaError(code ?? "SQLITE_MISUSE", message);
    }
  }

  iterate(statement: string | StatementInput, args?: Args | CallOptions, options?: CallOptions): RowIterator {
    const result = this.execute(statement, args as Args, options);
    result.catch(() => undefined);
    const rows = (async function* () {
      yield* (await result).rows;
    })();
    const iterator: RowIterator = {
      head: async () => await result,
      next: () => rows.next(),
      return: () => rows.return(undefined),
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  async batch(statements: readonly (string | StatementInput)[]): Promise<ResultSet[]> {
    const results: ResultSet[] = [];
    for (const statement of statements) results.push(await this.execute(statement));
    return results;
  }

  async exec(script: string): Promise<{ statements: number; rowsAffected: number }> {
    const statements = splitScript(script);
    for (const { text } of statements) await this.execute(text);
    return { statements: statements.length, rowsAffected: 0 };
  }

  prepare(): never {
    throw new Error("not used by the shell");
  }

  async close(): Promise<void> {
    if (this.sqlite.open) this.sqlite.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** A database whose only session is the given one. */
export function databaseOf(session: SqliteSession): Database {
  const database = {
    server: { clusterId: "unit", nodeId: 1, sqliteVersion: "3" },
    session: async () => session,
    execute: session.execute.bind(session),
    outcome: async () => "unknown",
    close: async () => undefined,
  };
  return database as unknown as Database;
}
