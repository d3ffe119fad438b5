/** The pool as users hold it. */
import { pause } from "../base/waits.js";
import { ClientOp } from "../rpc/protocol.js";
import { packMessages } from "../rpc/wire.js";
import { JsonCall } from "./calls.js";
import { Conversation } from "./conversation.js";
import { OstrakaError, timedOut } from "./errors.js";
import { closedError, type Pool } from "./pool.js";
import { Prepared } from "./prepared.js";
import { OpenTransaction, ServerSession } from "./session.js";
import { BatchCall, type BoundStatement, bindStatement, bindStatements, ExecuteCall } from "./statements.js";
import { Rows, StreamCall, type StreamTail } from "./stream.js";
import { apart, termsOf } from "./terms.js";
import type {
  Args,
  CallOptions,
  Database,
  ExecResult,
  IntMode,
  Outcome,
  ResultSet,
  RowIterator,
  ServerInfo,
  Session,
  Statement,
  StatementInput,
  Transaction,
  TransactionMode,
} from "./types.js";

/** The first pause before a transaction runs again. */
const RETRY_FIRST_MS = 4;

export class PooledDatabase implements Database {
  constructor(
    private readonly pool: Pool,
    private readonly intMode: IntMode,
    private readonly timeoutMs: number,
    private readonly onClose: () => Promise<void> | void,
  ) {}

  get server(): ServerInfo {
    return this.pool.server;
  }

  /** Not `async`: that would cost every call two more promises. */
  execute(
    statement: string | StatementInput,
    second?: Args | CallOptions,
    third?: CallOptions,
  ): Promise<ResultSet> {
    try {
      const [args, options] = apart(statement, second, third);
      const bound = bindStatement(statement, args);
      refuseTransactions(bound);
      const repeat = bound.word === "query" ? "harmless" : "keyed";
      const { timeoutMs, signal } = termsOf(options, this.timeoutMs);
      return new ExecuteCall(this.pool, { timeoutMs, signal, repeat }, bound, this.intMode).run();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async batch(
    statements: readonly (string | StatementInput)[],
    options?: CallOptions,
  ): Promise<readonly ResultSet[]> {
    const bound = bindStatements(statements);
    for (const statement of bound) refuseTransactions(statement);
    if (bound.length === 0) return [];
    const terms = { ...termsOf(options, this.timeoutMs), repeat: "keyed" } as const;
    return new BatchCall(this.pool, terms, bound, this.intMode).run();
  }

  async exec(script: string, options?: CallOptions): Promise<ExecResult> {
    const session = await this.session(options);
    let result: ExecResult;
    let open: boolean;
    try {
      result = await session.exec(script, options);
      open = session.state !== "idle";
    } finally {
      await session.close();
    }
    if (open)
      throw new OstrakaError(
        "OSTRAKA_UNSUPPORTED",
        "the script left its transaction open, and it was rolled back: end it with COMMIT, or use db.begin(), db.transaction() or db.session()",
      );
    return result;
  }

  iterate(statement: string | StatementInput, second?: Args | CallOptions, third?: CallOptions): RowIterator {
    const [args, options] = apart(statement, second, third);
    const bound = bindStatement(statement, args);
    refuseTransactions(bound);
    const repeat = bound.word === "query" ? "harmless" : "keyed";
    const { timeoutMs, signal } = termsOf(options, this.timeoutMs);
    const start = (stop: AbortSignal): Promise<StreamTail> =>
      new StreamCall(this.pool, { timeoutMs, signal: stop, repeat }, bound).run();
    return new Rows(start, signal, this.intMode);
  }

  prepare(sql: string): Statement {
    return new Prepared(this, sql);
  }

  async transaction<T>(
    fn: (tx: Transaction) => Promise<T>,
    options: CallOptions & { readonly mode?: TransactionMode | undefined } = {},
  ): Promise<T> {
    if (typeof fn !== "function") throw new TypeError("transaction takes a function of the transaction");
    const { clock } = this.pool;
    const mode = options.mode ?? "write";
    const { timeoutMs, signal } = termsOf(options, this.timeoutMs);
    const startedMs = clock.monotonicMs();
    /** A deadline that was given is that of all of it, else each call has its own. */
    const remaining = (): CallOptions => {
      if (options.timeoutMs === undefined) return options;
      const leftMs = Math.ceil(startedMs + timeoutMs - clock.monotonicMs());
      if (leftMs <= 0) throw timedOut(`the transaction was not over within ${timeoutMs} ms`);
      return { ...options, timeoutMs: leftMs };
    };
    for (let attempt = 0; ; attempt++) {
      const ageMs = Math.round(clock.monotonicMs() - startedMs);
      const tx = await this.#begin(mode, remaining(), attempt === 0 ? undefined : [attempt, ageMs]);
      try {
        const value = await fn(tx);
        await tx.finish(remaining);
        return value;
      } catch (error) {
        await tx.rollback();
        const delayMs = this.pool.backoffMs(attempt, RETRY_FIRST_MS);
        const late = clock.monotonicMs() + delayMs >= startedMs + timeoutMs;
        if (!isRetry(error) || late) throw error;
        await pause(clock, delayMs);
        signal?.throwIfAborted();
      }
    }
  }

  begin(mode: TransactionMode = "write", options?: CallOptions): Promise<Transaction> {
    return this.#begin(mode, options, undefined);
  }

  async #begin(
    mode: TransactionMode,
    options: CallOptions | undefined,
    retry: readonly [attempt: number, ageMs: number] | undefined,
  ): Promise<OpenTransaction> {
    if (mode !== "write" && mode !== "read")
      throw new TypeError('a transaction\'s mode is "write" or "read"');
    const tx = new OpenTransaction(new Conversation(this.pool, this.intMode), this.timeoutMs);
    await tx.begin(mode, options, retry);
    return tx;
  }

  async session(options?: CallOptions): Promise<Session> {
    if (this.pool.closed) throw closedError();
    options?.signal?.throwIfAborted();
    return new ServerSession(new Conversation(this.pool, this.intMode), this.timeoutMs);
  }

  async outcome(transactionId: string, options?: CallOptions): Promise<Outcome> {
    if (typeof transactionId !== "string") throw new TypeError("outcome takes a transaction's id");
    const terms = { ...termsOf(options, this.timeoutMs), repeat: "harmless" } as const;
    const answer = await new JsonCall(this.pool, terms, ClientOp.Outcome, [transactionId]).run();
    const outcome = answer.value as Outcome;
    if (outcome !== "unknown") this.pool.resolved(transactionId);
    return outcome;
  }

  async admin(
    verb: string,
    args: Readonly<Record<string, unknown>> = {},
    options?: CallOptions,
  ): Promise<unknown> {
    const terms = { ...termsOf(options, this.timeoutMs), repeat: "never" } as const;
    try {
      packMessages([verb, args]);
    } catch (error) {
      // Later it would be in one frame with other calls.
      throw new TypeError("an operation's arguments must be plain data", { cause: error });
    }
    return (await new JsonCall(this.pool, terms, ClientOp.Admin, [verb, args]).run()).value;
  }

  async close(): Promise<void> {
    if (this.pool.closed) return;
    this.pool.close();
    await this.onClose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isRetry(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause)
    if (at instanceof OstrakaError) return at.code === "OSTRAKA_RETRY";
  return false;
}

function refuseTransactions({ word }: BoundStatement): void {
  if (word === "query" || word === "insert" || word === "other") return;
  throw new OstrakaError(
    "OSTRAKA_UNSUPPORTED",
    `${word.toUpperCase()} needs one connection, and this is a pool: use db.begin(), db.transaction() or db.session()`,
  );
}
