/** `prepare`: a statement's text with the ways to run it, over whatever executes it. */
import { spreadArgs } from "./statements.js";
import type { CallOptions, Executor, Row, RowIterator, RunResult, Statement } from "./types.js";

type Given = Parameters<Statement["run"]>;

export class Prepared implements Statement {
  constructor(
    private readonly executor: Executor,
    readonly sql: string,
    private readonly options?: CallOptions,
  ) {
    if (typeof sql !== "string") throw new TypeError("prepare takes a statement's text");
  }

  async run(...args: Given): Promise<RunResult> {
    const result = await this.executor.execute(this.sql, spreadArgs(args), this.options);
    return { changes: result.rowsAffected, lastInsertRowid: result.lastInsertRowid };
  }

  async get(...args: Given): Promise<Row | undefined> {
    return (await this.executor.execute(this.sql, spreadArgs(args), this.options)).rows[0];
  }

  async all(...args: Given): Promise<readonly Row[]> {
    return (await this.executor.execute(this.sql, spreadArgs(args), this.options)).rows;
  }

  iterate(...args: Given): RowIterator {
    return this.executor.iterate(this.sql, spreadArgs(args), this.options);
  }

  with(options: CallOptions): Statement {
    return new Prepared(this.executor, this.sql, { ...this.options, ...options });
  }
}
