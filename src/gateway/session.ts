/**
 * One client's conversation: tells statements apart, keeps the state that SQLite keeps in a connection (open
 * transaction, settings, changes(), TEMP objects), and sends each statement where it runs.
 *
 * Invariants:
 * 1. Calls of a session run one after the other, in order; those of the autocommit pool (kind "autocommit") run
 *    concurrently and share no state but settings nobody can change.
 * 2. After OSTRAKA_RETRY in a transaction nothing but ROLLBACK passes.
 * 3. A write is proposed under the caller's idempotency key, or under one that is never used again.
 */

import { fromWireError, OstrakaError, RetryError, UserError } from "../base/errors.js";
import { transactionId as brandTransactionId, type TransactionId } from "../base/ids.js";
import type {
  CommandResult,
  IdempotencyKey,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { ExecuteRequest, ExecuteResult, Params, Session, SessionState } from "../rpc/gateway.js";
import { bindParameters } from "../sql/parameters.js";
import type { Analysis, Statement, StatementClass } from "../sql/types.js";
import { allOf, autocommitId, batchBefore, byKey, settled } from "./attempts.js";
import { AutocommitStatements, changesTempSchema } from "./autocommit.js";
import { BATCH_SAVEPOINT, batchLeader, refuseEndings, undoBatch } from "./batches.js";
import type { GatewayDatabase } from "./database.js";
import { Deadline } from "./deadline.js";
import { explain } from "./explain.js";
import { executeFast } from "./fast-path.js";
import { RolledBack } from "./light-parts.js";
import { reservationsOf } from "./losses.js";
import { collectResult, emptyOutcome } from "./outcomes.js";
import { executePragma } from "./pragma-statements.js";
import { isOwnError } from "./pushed-reads.js";
import { autocommitRead, runsInWorker } from "./reads.js";
import { Resend } from "./resend.js";
import type { RunningStatements } from "./running.js";
import { SessionSettings } from "./settings.js";
import { likesOtherwise, type StatementCache } from "./statements.js";
import type { SystemTables } from "./system-tables.js";
import { TempSpace } from "./temp-space.js";
import { Transaction, type TransactionMode } from "./transaction.js";
import { UNANALYSED_READ, UNANALYSED_SCHEMA } from "./unanalysed.js";
import { executeUpkeep } from "./upkeep.js";

export interface SessionContext {
  readonly db: GatewayDatabase;
  readonly statements: StatementCache;
  readonly systemTables: SystemTables;
  readonly running: RunningStatements;
  readonly nextKey: (deadline: Deadline) => IdempotencyKey;
  readonly nextTransactionId: () => TransactionId;
  readonly closed: (session: GatewaySession) => void;
}

type RequestTail = Omit<ExecuteRequest, "sql" | "params">;

export class GatewaySession implements Session {
  readonly #context: SessionContext;
  readonly #kind: "session" | "autocommit";
  readonly settings = new SessionSettings();
  readonly temp: TempSpace;
  readonly #autocommit: AutocommitStatements;
  #transaction: Transaction | undefined;
  #failed: RetryError | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;
  #idleSince: number;

  constructor(context: SessionContext, kind: "session" | "autocommit") {
    this.#context = context;
    this.#kind = kind;
    this.temp = new TempSpace(context.db);
    const temp = kind === "session" ? this.temp : undefined;
    this.#autocommit = new AutocommitStatements(context, this.settings, temp);
    this.#idleSince = context.db.clock.monotonicMs();
  }

  get transaction(): Transaction | undefined {
    return this.#transaction;
  }

  /** Its statements run at the same time and have nothing of their own between them. */
  get pooled(): boolean {
    return this.#kind === "autocommit";
  }

  /** In a transaction that may write. */
  get writing(): boolean {
    return this.#transaction !== undefined && !this.#transaction.readOnly;
  }

  state(): SessionState {
    return this.#failed !== undefined ? "failed" : this.#transaction !== undefined ? "open" : "idle";
  }

  transactionId(): string | undefined {
    return this.#transaction?.id;
  }

  counts() {
    return this.pooled ? undefined : this.settings.counted();
  }

  execute(request: ExecuteRequest): Promise<ExecuteResult> {
    if (this.#kind === "autocommit") {
      return executeFast(this, this.#context, request) ?? this.executeSlowly(request);
    }
    return this.#ordered(() => this.#timed(request, (deadline) => this.#executeOne(request, deadline)));
  }

  batch(
    statements: readonly { readonly sql: string; readonly params: Params }[],
    request: RequestTail,
  ): Promise<readonly StatementOutcome[]> {
    const run = () => this.#timed(request, (deadline) => this.#batch(statements, request, deadline));
    return this.#kind === "autocommit" ? run() : this.#ordered(run);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#ordered(async () => {
      await this.#endTransaction((transaction) => transaction.rollback());
      await this.temp.close();
    });
    this.#context.closed(this);
  }

  /** Rolls back a transaction that nobody has used for too long; its next statement is told. */
  expireIdle(nowMs: number): void {
    const limit = this.#context.db.limits.idleTransactionMs;
    if (this.#transaction === undefined || nowMs - this.#idleSince < limit) return;
    void this.#ordered(async () => {
      if (this.#transaction === undefined || nowMs - this.#idleSince < limit) return;
      await this.#endTransaction((transaction) => transaction.rollback());
      this.#failed = new RetryError(
        "OSTRAKA_RETRY",
        `the transaction was idle for more than ${limit} ms and was rolled back`,
      );
    });
  }

  #ordered<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(work, work);
    this.#queue = run.then(ignore, ignore);
    return run;
  }

  async #timed<T>(
    request: RequestTail & { readonly sql?: string },
    work: (deadline: Deadline) => Promise<T>,
  ): Promise<T> {
    const { clock, limits } = this.#context.db;
    const ended = this.#context.running.begin(this.#kind, request.sql ?? "(batch)");
    const deadline = new Deadline(clock, request.timeoutMs, limits.availabilityMs, request);
    try {
      return await work(deadline);
    } catch (error) {
      // Whoever was stopped by the deadline's signal does not know why.
      if (deadline.stopped && error instanceof UserError && error.code === "SQLITE_INTERRUPT")
        throw deadline.reason();
      throw error;
    } finally {
      deadline.dispose();
      ended();
      this.#idleSince = clock.monotonicMs();
    }
  }

  async #executePooled(request: ExecuteRequest, deadline: Deadline): Promise<ExecuteResult> {
    const { sql, class: kind } = this.#context.statements.get(request.sql);
    if (kind.kind === "select" || kind.kind === "write" || kind.kind === "ddl") {
      let analysis: Analysis;
      try {
        analysis = await this.analyseFresh(sql, deadline);
      } catch (error) {
        if (kind.kind === "select") throw error;
        return this.#autocommit.toldBefore(kind, request.key, error, deadline);
      }
      // The pool has no TEMP objects: what names system tables touches one only when it makes one.
      if (
        !analysis.touchesTemp ||
        (analysis.systemTables.length > 0 && !(kind.kind === "ddl" && kind.temp))
      ) {
        const statement = this.#bind(sql, analysis, request.params);
        return analysis.readonly
          ? this.#autocommit.read(statement, analysis, deadline)
          : this.#autocommit.write(statement, analysis, request, deadline);
      }
    }
    return this.#executeOther(sql, kind, request, deadline);
  }

  async #executeOther(
    sql: string,
    kind: StatementClass,
    request: ExecuteRequest,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    switch (kind.kind) {
      case "begin":
      case "commit":
      case "rollback":
      case "savepoint":
      case "release":
      case "rollback to":
        throw new UserError(
          "OSTRAKA_UNSUPPORTED",
          "BEGIN and COMMIT belong to one session: use db.begin(), db.transaction() or db.session()",
        );
      case "ddl":
      case "select":
      case "write":
        throw new UserError("OSTRAKA_UNSUPPORTED", "TEMP objects belong to one session: use db.session()");
      default:
        return this.#executeClass(sql, kind, request, deadline);
    }
  }

  async #executeOne(request: ExecuteRequest, deadline: Deadline): Promise<ExecuteResult> {
    if (this.#closed) throw new RetryError("OSTRAKA_RETRY", "the session was closed: its node is stopping");
    const { sql, class: kind } = this.#context.statements.get(request.sql);
    if (this.#failed !== undefined) {
      if (kind.kind !== "rollback") throw this.#failed;
      this.#failed = undefined;
      return emptyOutcome();
    }
    const begins = this.#transaction === undefined && kind.kind === "savepoint";
    try {
      await this.temp.refresh(deadline);
      return await this.#executeClass(sql, kind, request, deadline);
    } catch (error) {
      if (begins) await this.#endTransaction((transaction) => transaction.rollback());
      else if (this.#transaction !== undefined) await this.#afterError(error);
      throw error;
    }
  }

  async #afterError(error: unknown): Promise<void> {
    const ended =
      error instanceof RolledBack ||
      (error instanceof OstrakaError &&
        (error.family === "retry" || error.family === "ambiguous") &&
        error.code !== "OSTRAKA_TIMEOUT" &&
        error.code !== "OSTRAKA_UNAVAILABLE");
    if (!ended) return;
    await this.#endTransaction((transaction) => transaction.rollback());
    if (error instanceof RetryError) this.#failed = error;
  }

  async #executeClass(
    sql: string,
    kind: StatementClass,
    request: ExecuteRequest,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    switch (kind.kind) {
      case "empty":
        throw new UserError("SQLITE_MISUSE", "the text holds no statement");
      case "begin":
        return this.#begin(kind.mode, request, deadline);
      case "commit":
        return this.#commit(request, deadline);
      case "rollback":
        if (this.#transaction === undefined)
          throw new UserError("SQLITE_ERROR", "cannot rollback - no transaction is active");
        await this.#endTransaction((transaction) => transaction.rollback());
        return emptyOutcome();
      case "savepoint":
        this.#transaction ??= this.#open("deferred", undefined);
        await this.#transaction.savepoint(kind.name, deadline);
        return emptyOutcome();
      case "release":
        if (this.#transaction === undefined)
          throw new UserError("SQLITE_ERROR", `no such savepoint: ${kind.name}`);
        // SAVEPOINT outside of BEGIN began the transaction, so its RELEASE is COMMIT; if that fails, it stays.
        if (!this.#explicit && this.#transaction.history.isOutermost(kind.name))
          return this.#commit(request, deadline);
        await this.#transaction.release(kind.name, deadline);
        return emptyOutcome();
      case "rollback to":
        if (this.#transaction === undefined)
          throw new UserError("SQLITE_ERROR", `no such savepoint: ${kind.name}`);
        await this.#transaction.rollbackTo(kind.name, deadline);
        if (this.#transaction.moved) await this.temp.undone(this.#transaction, deadline);
        return emptyOutcome();
      case "pragma":
        return executePragma(this, this.#context, sql, kind, request, deadline);
      case "explain":
        return explain(this.#context, this, sql, request, deadline);
      case "attach":
      case "detach":
      case "vacuum":
      case "reindex":
        return executeUpkeep(this, kind);
      default:
        return this.#statement(sql, kind, request, deadline);
    }
  }

  #explicit = false;

  async #begin(
    mode: "deferred" | "immediate" | "exclusive" | "concurrent" | "read only",
    request: ExecuteRequest,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    if (this.#transaction !== undefined)
      throw new UserError("SQLITE_ERROR", "cannot start a transaction within a transaction");
    const immediate = mode === "immediate" || mode === "exclusive";
    if (immediate) this.settings.admitWrite();
    const kind = immediate ? "immediate" : mode === "read only" ? mode : "deferred";
    const transaction = this.#open(kind, request.retry);
    this.#transaction = transaction;
    this.#explicit = true;
    if (!immediate) return emptyOutcome();
    try {
      await transaction.begin(deadline);
    } catch (error) {
      // As in SQLite, none has begun. Its leader may not answer, which is nobody's concern any more.
      this.#endTransaction((unbegun) => unbegun.rollback()).catch(ignore);
      throw error;
    }
    return emptyOutcome();
  }

  #open(mode: TransactionMode, retry: ExecuteRequest["retry"], again = false): Transaction {
    this.#explicit = false;
    const across = this.#context.db.whole === undefined;
    const losses = mode === "read only" ? 0 : (retry?.attempt ?? 0);
    return new Transaction(this.#context.db, {
      id: this.#context.nextTransactionId(),
      mode,
      age: retry?.ageMs ?? 0,
      ...reservationsOf(losses, mode === "immediate", across),
      // On a copy it is sure under which schema it runs.
      needsCopy: again || this.temp.inUse,
      temp: this.temp.statements,
      borrow: (deadline) => this.temp.borrow(deadline),
    });
  }

  async #commit(request: RequestTail, deadline: Deadline): Promise<ExecuteResult> {
    await this.#commitTransaction(request, deadline);
    return emptyOutcome();
  }

  async #commitTransaction(
    request: RequestTail,
    deadline: Deadline,
  ): Promise<Extract<CommandResult, { ok: true }>> {
    const transaction = this.#transaction;
    if (transaction === undefined)
      throw new UserError("SQLITE_ERROR", "cannot commit - no transaction is active");
    const result = await transaction.commit(request.key ?? this.#context.nextKey(deadline), deadline);
    if (!result.ok) {
      const error = fromWireError(result.error);
      if (error instanceof RetryError) this.#failed = error;
      if (error instanceof RetryError || transaction.ended) this.#transactionEnded();
      throw error;
    }
    this.#transactionEnded();
    return result;
  }

  async #endTransaction(how: (transaction: Transaction) => Promise<void>): Promise<void> {
    const transaction = this.#transaction;
    if (transaction === undefined) return;
    this.#transactionEnded();
    await how(transaction);
  }

  #transactionEnded(): void {
    this.#transaction = undefined;
    this.#explicit = false;
    this.settings.transactionEnded();
  }

  /** SELECT, writes, DDL, ANALYZE. */
  async #statement(
    text: string,
    kind: StatementClass,
    request: ExecuteRequest,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const sql = this.#context.statements.bindSession(text, this.settings);
    let analysis: Analysis;
    try {
      analysis = await this.analyseFresh(sql, deadline);
    } catch (error) {
      if (this.#transaction !== undefined) throw error;
      return this.#autocommit.toldBefore(kind, request.key, error, deadline);
    }
    const statement = this.#bind(sql, analysis, request.params);
    try {
      return await this.#run(statement, analysis, request, deadline);
    } catch (error) {
      if (kind.kind === "write" && isOwnError(error)) this.settings.failed();
      throw error;
    }
  }

  async #run(
    statement: Statement,
    analysis: Analysis,
    request: ExecuteRequest,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    if (!analysis.readonly) this.settings.admitWrite();
    const transaction = this.#transaction;
    if (transaction !== undefined) {
      const result = await transaction.run(
        statement,
        analysis,
        this.settings,
        deadline,
        await this.#autocommit.systemTables(analysis),
      );
      if (changesTempSchema(analysis)) await this.temp.learn(transaction, deadline);
      return result;
    }
    if (analysis.touchesTemp && (this.temp.inUse || analysis.systemTables.length === 0 || !analysis.readonly))
      return this.#autocommit.withTemp(statement, analysis, request, deadline);
    return analysis.readonly
      ? this.#autocommit.read(statement, analysis, deadline)
      : this.#autocommit.write(statement, analysis, request, deadline);
  }

  /** As the open transaction and the session's TEMP objects see the schema. */
  analyse(sql: string): Analysis {
    return this.settings.compiled(this.#analyse(sql));
  }

  #analyse(sql: string): Analysis {
    if (this.temp.inUse && this.#transaction?.knowsSchema !== true) return this.temp.analyse(sql);
    if (this.#transaction !== undefined) return this.#transaction.analyse(sql);
    return this.#context.db.ranges.schema().analyse(sql);
  }

  /** A statement that does not compile is judged again by the schema of now: this replica may be behind. */
  async analyseFresh(sql: string, deadline: Deadline): Promise<Analysis> {
    try {
      return this.analyse(sql);
    } catch (error) {
      if (!(error instanceof UserError) || this.#transaction?.moved) throw error;
      await this.#context.db.refreshSchema(deadline);
      return this.analyse(sql);
    }
  }

  /**
   * Runs a read that is not analysed (introspection, EXPLAIN) where the session's view of the schema is: its
   * transaction's workspace or snapshot, the process of its TEMP objects, or a replica.
   */
  async runHere(
    statement: Statement,
    deadline: Deadline,
    looksAt = UNANALYSED_SCHEMA,
    systemTables: readonly SystemTable[] = [],
  ): Promise<ExecuteResult> {
    const { db } = this.#context;
    const analysis = db.whole === undefined ? looksAt : UNANALYSED_READ;
    const rows = looksAt === UNANALYSED_READ;
    const transaction = this.#transaction;
    if (
      transaction !== undefined &&
      (rows || transaction.readOnly || transaction.moved || transaction.history.hasWrites())
    )
      return transaction.introspect(statement, analysis, this.settings, deadline, systemTables);
    if (this.temp.inUse) return this.temp.run(statement, analysis, this.settings, deadline, systemTables);
    await db.refreshSchema(deadline);
    return autocommitRead(db, { statement, analysis, settings: this.settings, systemTables }, deadline);
  }

  /** What the fast path began and could not finish, under the same key. */
  executeSlowly(request: ExecuteRequest): Promise<ExecuteResult> {
    return this.#timed(request, (deadline) => this.#executePooled(request, deadline));
  }

  #bind(sql: string, analysis: Analysis, params: Params): Statement {
    return { sql, params: bindParameters(analysis.parameters, params) };
  }

  async #batch(
    statements: readonly { readonly sql: string; readonly params: Params }[],
    request: RequestTail,
    deadline: Deadline,
  ): Promise<readonly StatementOutcome[]> {
    if (this.#failed !== undefined) throw this.#failed;
    refuseEndings(statements.map(({ sql }) => this.#context.statements.get(sql).class));
    const { db } = this.#context;
    const key = request.key ?? this.#context.nextKey(deadline);
    const resend = new Resend(db, key, request.sentUnder);
    const bounded =
      this.#transaction === undefined && !this.temp.inUse && !resend.elsewhere
        ? this.#boundedBatch(statements)
        : undefined;
    if (bounded !== undefined) {
      const id = brandTransactionId(autocommitId(key));
      const result = await db
        .persist(
          deadline,
          async () => {
            if (resend.elsewhere) return MOVE;
            const leader = batchLeader(db, bounded);
            const batch = { key, transaction: id, statements: bounded };
            return leader?.batch({ ...batch, schemaVersion: resend.attempt() }) ?? MOVE;
          },
          { transaction: id, repeatable: true },
        )
        .catch((failure: unknown) => ({ ok: "failed" as const, failure }));
      if (result.ok === "failed") return batchBefore(db, statements, request.key, result.failure, deadline);
      if (result.ok !== "move") {
        if (!result.ok) throw byKey(fromWireError(result.error), key);
        const outcomes = allOf(statements, result.outcomes, key);
        outcomes.forEach((outcome, i) => {
          if (bounded[i]?.readonly === false) this.settings.wrote(outcome);
        });
        return outcomes;
      }
    }
    if (this.#transaction === undefined && resend.unsettled)
      return allOf(statements, await settled(db, key, deadline), key);
    const scratch = this.#kind === "autocommit" ? new GatewaySession(this.#context, "session") : this;
    const inner = scratch.#transaction !== undefined;
    try {
      return await scratch.batchInTransaction(statements, { ...request, key }, resend, deadline);
    } catch (failure) {
      if (inner) throw failure;
      return batchBefore(db, statements, request.key, failure, deadline);
    } finally {
      if (scratch !== this) await scratch.close();
    }
  }

  /** Undefined unless every statement is a plain read or write of bounded cost. */
  #boundedBatch(statements: readonly { readonly sql: string; readonly params: Params }[]) {
    const { db } = this.#context;
    const bounded: { statement: Statement; flags: number; lastInsertRowid: bigint; readonly: boolean }[] = [];
    let wrote = false;
    for (const { sql: text, params } of statements) {
      const { sql, class: kind, readsSession } = this.#context.statements.get(text);
      if ((kind.kind !== "select" && kind.kind !== "write") || readsSession) return undefined;
      if (kind.kind === "write" && this.settings.queryOnly) return undefined;
      const analysis = db.analysed(sql);
      if (
        analysis === undefined ||
        (db.whole === undefined ? analysis.cost !== "bounded" : !runsInWorker(db.whole, analysis)) ||
        analysis.rowChangesOnly ||
        likesOtherwise(analysis, this.settings.flags, db.ranges.schema().snapshot) ||
        analysis.touchesTemp ||
        analysis.systemTables.length > 0
      )
        return undefined;
      // Each after the first has the last_insert_rowid() of the one before.
      if (wrote && this.#kind === "session") return undefined;
      wrote ||= !analysis.readonly;
      bounded.push({
        statement: this.#bind(sql, analysis, params),
        flags: this.settings.flags,
        lastInsertRowid: this.settings.lastInsertRowid,
        readonly: analysis.readonly,
      });
    }
    return bounded;
  }

  /** Where the answer to COMMIT was lost it has been asked for, and then it is this transaction that was committed. */
  async #committedNow(transaction: Transaction, deadline: Deadline): Promise<boolean> {
    return (await this.#context.db.outcome(transaction.id, deadline)) === "committed";
  }

  /** All or nothing inside whatever is open: a savepoint in a transaction, else a transaction of its own. */
  async batchInTransaction(
    statements: readonly { readonly sql: string; readonly params: Params }[],
    request: RequestTail,
    resend: Resend,
    deadline: Deadline,
  ): Promise<readonly StatementOutcome[]> {
    const inner = this.#transaction !== undefined;
    this.#transaction ??= this.#open("deferred", undefined, resend.again);
    const transaction = this.#transaction;
    if (inner) await transaction.savepoint(BATCH_SAVEPOINT, deadline);
    else this.#explicit = true;
    const outcomes: StatementOutcome[] = [];
    try {
      for (const { sql, params } of statements) {
        const result = await this.#executeOne({ ...request, sql, params }, deadline);
        outcomes.push(await collectResult(result, this.#context.db.limits.maxTransactionBytes));
      }
      if (inner) await transaction.release(BATCH_SAVEPOINT, deadline);
      else {
        const done = await resend.done(deadline);
        if (done !== undefined) await this.#endTransaction((open) => open.rollback());
        const result = done ?? (await this.#commitTransaction(request, deadline));
        // What was committed when the batch was sent before is told, not what it would do now.
        if (result.repeated && !(await this.#committedNow(transaction, deadline)))
          return allOf(statements, result.outcomes, request.key);
      }
      return outcomes;
    } catch (error) {
      if (this.#transaction === transaction && inner) {
        const failure = await undoBatch(this.#context.db, transaction, this.temp);
        if (failure !== undefined) await this.#endTransaction((open) => open.rollback());
        this.#failed = failure;
      } else if (this.#transaction === transaction) {
        await this.#endTransaction((open) => open.rollback());
      }
      if (!inner) this.#failed = undefined;
      throw error;
    }
  }
}

const MOVE = { ok: "move" } as const;
const ignore = (): void => {};
