/** Sessions and transactions as users hold them, over a Conversation. */
import { splitScript } from "../sql/splitter.js";
import type { Conversation, Terms } from "./conversation.js";
import { OstrakaError } from "./errors.js";
import { Prepared } from "./prepared.js";
import { type BoundStatement, bindStatement, bindStatements } from "./statements.js";
import { Rows } from "./stream.js";
import { apart, termsOf } from "./terms.js";
import { endsTransaction } from "./text.js";
import type {
  Args,
  CallOptions,
  ExecResult,
  Executor,
  ResultSet,
  RowIterator,
  Session,
  SessionState,
  Statement,
  StatementInput,
  Transaction,
  TransactionMode,
} from "./types.js";

abstract class Conversing implements Executor {
  constructor(
    protected readonly conversation: Conversation,
    private readonly defaultTimeoutMs: number,
  ) {}

  /** Throws what forbids the statement. */
  protected abstract check(statement: BoundStatement): void;

  async execute(
    statement: string | StatementInput,
    second?: Args | CallOptions,
    third?: CallOptions,
  ): Promise<ResultSet> {
    const [args, options] = apart(statement, second, third);
    const bound = bindStatement(statement, args);
    this.check(bound);
    return this.conversation.execute(bound, this.terms(options));
  }

  async batch(
    statements: readonly (string | StatementInput)[],
    options?: CallOptions,
  ): Promise<readonly ResultSet[]> {
    const bound = bindStatements(statements);
    for (const statement of bound) this.check(statement);
    if (bound.length === 0) return [];
    return this.conversation.batch(bound, this.terms(options));
  }

  async exec(script: string, options?: CallOptions): Promise<ExecResult> {
    if (typeof script !== "string") throw new TypeError("exec takes a script's text");
    let rowsAffected = 0;
    const statements = splitScript(script);
    for (const { text } of statements)
      rowsAffected += (await this.execute(text, undefined, options)).rowsAffected;
    return { statements: statements.length, rowsAffected };
  }

  iterate(statement: string | StatementInput, second?: Args | CallOptions, third?: CallOptions): RowIterator {
    const [args, options] = apart(statement, second, third);
    const bound = bindStatement(statement, args);
    this.check(bound);
    const { timeoutMs, signal } = this.terms(options);
    return new Rows(
      (stop) => this.conversation.stream(bound, { timeoutMs, signal: stop }),
      signal,
      this.conversation.intMode,
    );
  }

  prepare(sql: string): Statement {
    return new Prepared(this, sql);
  }

  protected terms(options: CallOptions | undefined): Terms {
    return termsOf(options, this.defaultTimeoutMs);
  }
}

export class ServerSession extends Conversing implements Session {
  get state(): SessionState {
    return this.conversation.state;
  }

  protected check(): void {}

  close(): Promise<void> {
    return this.conversation.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export class OpenTransaction extends Conversing implements Transaction {
  #ended: "no" | "committed" | "rolled back" = "no";
  #id: string | undefined;
  #reads = false;

  get closed(): boolean {
    return this.#ended !== "no" || this.conversation.over;
  }

  get id(): string | undefined {
    return this.#reads ? undefined : (this.#id ?? this.conversation.transactionId);
  }

  /** `retry`: how often it lost before and how long ago it first began. */
  async begin(
    mode: TransactionMode,
    options: CallOptions | undefined,
    retry: readonly [attempt: number, ageMs: number] | undefined,
  ): Promise<void> {
    this.#reads = mode === "read";
    const sql = this.#reads ? "BEGIN READ ONLY" : "BEGIN";
    try {
      await this.conversation.execute(bindStatement(sql), this.terms(options), retry);
      this.#id = this.conversation.transactionId;
      this.conversation.endWithTransaction();
    } catch (error) {
      await this.#end("rolled back");
      throw error;
    }
  }

  protected check({ word, sql }: BoundStatement): void {
    if (this.#ended !== "no")
      throw new OstrakaError("OSTRAKA_CLOSED", `the transaction was ${this.#ended} already`);
    if (word === "begin")
      throw new OstrakaError("OSTRAKA_UNSUPPORTED", "a transaction is open; use SAVEPOINT inside it");
    if (endsTransaction(sql) !== undefined)
      throw new OstrakaError("OSTRAKA_UNSUPPORTED", "end it with tx.commit() or tx.rollback()");
  }

  async commit(options?: CallOptions): Promise<void> {
    const commit = bindStatement("COMMIT");
    this.check({ ...commit, word: "other", sql: "" });
    await this.conversation.execute(commit, this.terms(options));
    await this.#end("committed");
  }

  /** Commits unless that, or a rollback, was asked for already. Rejects when something else ended the transaction. */
  async finish(options: () => CallOptions): Promise<void> {
    if (this.#ended === "no") await this.commit(options());
  }

  async rollback(): Promise<void> {
    if (this.#ended !== "no") return;
    // Closing the session rolls back, wherever the transaction stands.
    await this.#end("rolled back");
  }

  async #end(how: "committed" | "rolled back"): Promise<void> {
    this.#ended = how;
    await this.conversation.close();
  }
}
