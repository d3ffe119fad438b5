/**
 * Puts rows into a table in transactions of a bounded size, and knows at every moment which of them are in.
 *
 * Invariants
 * 1. A row is in exactly when its transaction has committed; `loaded` counts those and `loadedThrough` names the
 *    source line of the last of them. After a failure nothing later is in.
 * 2. A transaction lost to others (OSTRAKA_RETRY) runs again from its first row; anything else is the caller's.
 * 3. One whose outcome is unknown is asked about, and is neither repeated nor forgotten until the answer is known.
 */
import type { Database, InputValue, Session } from "../../driver/types.js";
import { NO_TIMEOUT_MS } from "../connection.js";
import { CommandFailure, describeError, EXIT, errorCode } from "../exit.js";
import { SCHEMA_MENTIONS_ROLLBACK } from "../shell/pipeline.js";

export interface SourceRow {
  readonly values: readonly InputValue[];
  /** When this row needs another statement than the loader's. */
  readonly sql?: string | undefined;
  /** Line in the source, or the number of the row where it has no lines. */
  readonly line: number;
}

/** Rows go through one ordered session; the database is asked only what became of a transaction. */
export interface LoadTarget {
  readonly database: Pick<Database, "outcome">;
  readonly session: Session;
}

/** Small enough to commit quickly and stay far below the limits on a transaction, large enough to cost little each. */
const BATCH_ROWS = 1000;
const BATCH_BYTES = 2 * 1024 * 1024;
const MAX_ATTEMPTS = 20;

/** A row that the database refused. */
export class RowError extends Error {
  constructor(
    readonly line: number,
    cause: unknown,
  ) {
    super(describeError(cause), { cause });
  }
}

export class Loader {
  loaded = 0;
  loadedThrough = 0;
  /** It is not known whether rows after those are in. */
  inDoubt = false;
  readonly #target: LoadTarget;
  readonly #sql: string;
  #batch: SourceRow[] = [];
  #bytes = 0;
  #rollbacks: boolean | undefined;

  constructor(target: LoadTarget, sql: string) {
    this.#target = target;
    this.#sql = sql;
  }

  /** Takes a row; answers a promise when a batch is full. */
  add(row: SourceRow): void | Promise<void> {
    this.#batch.push(row);
    for (const value of row.values) this.#bytes += sizeOf(value);
    if (this.#batch.length >= BATCH_ROWS || this.#bytes >= BATCH_BYTES) return this.flush();
  }

  async flush(): Promise<void> {
    const batch = this.#batch;
    if (batch.length === 0) return;
    this.#batch = [];
    this.#bytes = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#insert(batch);
        break;
      } catch (error) {
        if (errorCode(error instanceof RowError ? error.cause : error) !== "OSTRAKA_RETRY") throw error;
        if (attempt === MAX_ATTEMPTS) throw error;
      }
    }
    this.loaded += batch.length;
    this.loadedThrough = batch[batch.length - 1]!.line;
  }

  async #insert(batch: readonly SourceRow[]): Promise<void> {
    const { session } = this.#target;
    await session.execute("BEGIN");
    try {
      await this.#insertRows(batch);
      await this.#commit(batch);
    } finally {
      if (session.state !== "idle") await session.execute("ROLLBACK").catch(() => undefined);
    }
  }

  /** All rows are sent before the first answer is awaited; the first that failed is the one to tell. */
  async #insertRows(batch: readonly SourceRow[]): Promise<void> {
    const run = ({ values, sql }: SourceRow): Promise<{ error: unknown } | undefined> =>
      this.#target.session.execute(sql ?? this.#sql, values, { timeoutMs: NO_TIMEOUT_MS }).then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
    if (await this.#mayEndTransactions()) {
      for (const row of batch) {
        const failure = await run(row);
        if (failure !== undefined) throw new RowError(row.line, failure.error);
      }
      return;
    }
    const answers = batch.map(run);
    let first: RowError | undefined;
    for (const [i, answer] of answers.entries()) {
      const failure = await answer;
      if (failure !== undefined) first ??= new RowError(batch[i]!.line, failure.error);
    }
    if (first !== undefined) throw first;
  }

  /** Where a failing row may end its transaction, the next one must not be on its way (see shell/pipeline.ts). */
  async #mayEndTransactions(): Promise<boolean> {
    if (this.#rollbacks === undefined) {
      const { rows } = await this.#target.session.execute(SCHEMA_MENTIONS_ROLLBACK);
      this.#rollbacks = Number(rows[0]?.[0]) !== 0;
    }
    return this.#rollbacks;
  }

  async #commit(batch: readonly SourceRow[]): Promise<void> {
    try {
      await this.#target.session.execute("COMMIT");
    } catch (error) {
      if (errorCode(error) !== "OSTRAKA_UNKNOWN_OUTCOME") {
        // A deferred constraint speaks only now, of no row in particular.
        throw errorCode(error) === "OSTRAKA_RETRY" ? error : new RowError(batch[0]!.line, error);
      }
      const { transactionId } = error as { transactionId?: string };
      const outcome =
        transactionId === undefined ? "unknown" : await this.#target.database.outcome(transactionId);
      if (outcome === "committed") return;
      this.inDoubt = outcome === "unknown";
      throw new CommandFailure(
        EXIT.failure,
        `rows of lines ${batch[0]!.line} to ${batch[batch.length - 1]!.line}: ` +
          (outcome === "aborted" ? "not loaded" : "it is not known whether they were loaded") +
          ` (${describeError(error)})`,
      );
    }
  }
}

function sizeOf(value: InputValue): number {
  if (typeof value === "string") return value.length + 2;
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return value.byteLength + 2;
  return 9;
}
