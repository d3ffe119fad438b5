/**
 * An interactive transaction as its gateway runs it. Nothing is locked and nothing replicated before COMMIT.
 *
 * Where a statement runs:
 * - bounded ones at the leader, speculatively, in its storage worker ("light");
 * - a read of unknown cost, while nothing has been written, on a pin of the gateway's own replica;
 * - everything from the first other statement on in a private copy of the range;
 * - READ ONLY transactions wholly on one pin.
 *
 * Invariants:
 * 1. Every read that the client was told of is in a footprint that the leader validates at commit.
 * 2. OSTRAKA_RETRY means that nothing was and nothing will be committed; after it only ROLLBACK passes (the session
 *    sees to that).
 */

import {
  AmbiguousError,
  fromWireError,
  isWireError,
  RetryError,
  RouteError,
  toWireError,
  UserError,
} from "../base/errors.js";
import type { TransactionId } from "../base/ids.js";
import { toldDigest } from "../machines/range/told.js";
import type {
  CommandResult,
  IdempotencyKey,
  Runner,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { LocalRead, ReadPoint } from "../range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Analysis, Span, Statement } from "../sql/types.js";
import { SCHEMA } from "../txn/spans.js";
import type { Deadline } from "./deadline.js";
import { History, statementBytes } from "./history.js";
import { PrivateCopy } from "./private-copy.js";
import { runOnPin } from "./reads.js";
import { type Replica, reach, reachReadPoint, stampAt } from "./replica.js";
import { runOptions } from "./run-options.js";
import type { SessionSettings } from "./settings.js";
import type { SpoolSpace } from "./spool.js";
import { changesDatabase } from "./statements.js";

export type TransactionMode = "deferred" | "immediate" | "read only";

/** A runner that outlives statements; given back when the transaction ends. */
export interface RunnerLoan {
  readonly runner: Runner;
  giveBack(): void;
}

export interface TransactionOptions {
  readonly id: TransactionId;
  readonly mode: TransactionMode;
  /** Milliseconds since the transaction was first tried: the older, the earlier its turn when it reserves. */
  readonly age: number;
  /** It lost before, or must not lose: its footprint queues at the leader. undefined: no reservation. */
  readonly reserve: readonly Span[] | undefined;
  /** The session holds TEMP objects: everything runs where they are. */
  readonly needsCopy: boolean;
  readonly borrow: (deadline: Deadline) => Promise<RunnerLoan>;
}

export class Transaction {
  readonly id: TransactionId;
  readonly history = new History();
  readonly #replica: Replica;
  readonly #space: SpoolSpace;
  readonly #options: TransactionOptions;
  /** Statements the leader has run for us. */
  #ordinal = 0;
  #point: ReadPoint | undefined;
  #localReads: LocalRead[] = [];
  #loan: RunnerLoan | undefined;
  #copy: PrivateCopy | undefined;
  #pinned: ReadPoint | undefined;

  constructor(replica: Replica, space: SpoolSpace, options: TransactionOptions) {
    this.#replica = replica;
    this.#space = space;
    this.#options = options;
    this.id = options.id;
  }

  /** Committed or rolled back, or past the point where it could go on. */
  ended = false;

  /** It runs on a private copy. */
  get moved(): boolean {
    return this.#copy !== undefined;
  }

  get readOnly(): boolean {
    return this.#options.mode === "read only";
  }

  /** Registers at the leader, waiting for its turn when it reserves. Statements do this by themselves. */
  async begin(deadline: Deadline): Promise<ReadPoint> {
    if (this.#point !== undefined) return this.#point;
    const { reserve, age } = this.#options;
    this.#point = await deadline.persist(() => this.#replica.leader.begin(this.id, { reserve, age }));
    return this.#point;
  }

  analyse(sql: string): Analysis {
    return this.#copy !== undefined ? this.#copy.analyse(sql) : this.#replica.schema.analyse(sql);
  }

  /** The private copy or pin that session-level questions (pragmas, TEMP) are answered from; opened on demand. */
  async scratch(deadline: Deadline): Promise<Runner> {
    if (this.readOnly) await this.#pin(deadline);
    else await this.#move(deadline);
    return this.#loan!.runner;
  }

  async run(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    this.#bound(statement);
    const admitted = { sql: analysis.sql, params: statement.params };
    if (this.readOnly) return this.#runPinned(admitted, analysis, settings, deadline, systemTables);
    await this.#buryDeadCopy();
    if (
      this.#copy === undefined &&
      !this.#options.needsCopy &&
      systemTables.length === 0 &&
      !analysis.touchesTemp &&
      analysis.class.kind !== "ddl"
    ) {
      const unknownRead = analysis.readonly && !this.#isCheap(analysis);
      if (!unknownRead && !analysis.rowChangesOnly && (analysis.readonly || this.#isCheap(analysis))) {
        const answer = await this.#runLight(statement, analysis, settings, deadline);
        if (answer !== undefined) return answer;
      } else if (unknownRead && !this.history.hasWrites()) {
        return this.#runLocally(admitted, analysis, settings, deadline);
      }
    }
    await this.#move(deadline);
    return this.#runInCopy(admitted, analysis, settings, deadline, systemTables);
  }

  #isCheap(analysis: Analysis): boolean {
    return (
      analysis.cost === "bounded" ||
      (analysis.cost === "scan" && this.#replica.store.size().databaseBytes <= this.#replica.limits.scanBytes)
    );
  }

  #bound(statement: Statement): void {
    const { maxTransactionBytes } = this.#replica.limits;
    if (this.history.bytes + statementBytes(statement.sql, statement.params) > maxTransactionBytes) {
      throw new UserError(
        "OSTRAKA_TOO_LARGE",
        `a transaction may hold ${maxTransactionBytes} bytes of statements and parameters`,
      );
    }
  }

  /** Undefined when the leader will not run it in its worker. */
  async #runLight(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
  ): Promise<ExecuteResult | undefined> {
    const first = this.#ordinal === 0 && this.#localReads.length === 0;
    if (this.#options.reserve !== undefined) await this.begin(deadline);
    const request = {
      transaction: this.id,
      ordinal: this.#ordinal,
      statement,
      flags: settings.flags,
      lastInsertRowid: settings.lastInsertRowid,
    };
    const attempt = () => this.#replica.leader.run(request);
    const answer = await (first ? deadline.persist(attempt) : deadline.race(attempt())).catch(
      (error: unknown) => {
        throw first ? error : asRetry(error);
      },
    );
    if (answer.kind === "move") return undefined;
    this.#ordinal++;
    if (answer.rolledBack) throw new RolledBack(fromWireError(answer.outcome as never));
    if (answer.stamped !== undefined) this.history.wrote(answer.stamped, answer.outcome, this.#ordinal - 1);
    if (isWireError(answer.outcome)) throw fromWireError(answer.outcome);
    if (!analysis.readonly) settings.wrote(answer.outcome);
    return { kind: "outcome", outcome: answer.outcome };
  }

  async #runLocally(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const point = await this.begin(deadline);
    await reach(this.#replica, point.index, deadline);
    const { stream, index } = await runOnPin(
      this.#replica,
      this.#space,
      this.#stamped(statement, analysis, settings, point),
      deadline,
      [],
    );
    this.#localReads.push({
      index,
      term: point.term,
      spans: [SCHEMA, ...analysis.footprint(statement.params).reads],
    });
    return { kind: "stream", stream };
  }

  #stamped(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    point: Pick<ReadPoint, "wallMs">,
  ): StampedStatement {
    return {
      sql: analysis.sql,
      params: statement.params,
      flags: settings.flags,
      stamp: stampAt(this.#replica, point, settings.lastInsertRowid),
      told: undefined,
    };
  }

  async #pin(deadline: Deadline): Promise<ReadPoint> {
    if (this.#pinned !== undefined) return this.#pinned;
    this.#loan ??= await this.#options.borrow(deadline);
    const point = await reachReadPoint(this.#replica, deadline);
    await this.#loan.runner.pin(this.#replica.store.path);
    this.#pinned = point;
    return point;
  }

  async #runPinned(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    if (!analysis.readonly && changesDatabase(analysis, statement.params))
      throw new UserError("SQLITE_READONLY", "attempt to write a readonly database");
    const point = await this.#pin(deadline);
    if (this.#loan!.runner.dead) {
      throw new RetryError(
        "OSTRAKA_RETRY",
        "the transaction's snapshot was given up: it had kept the database's log from starting over for too long, or its statement had to be killed",
      );
    }
    const stream = await this.#loan!.runner.run(
      this.#stamped(statement, analysis, settings, point),
      runOptions(this.#replica, deadline, systemTables),
    );
    return { kind: "stream", stream };
  }

  async #move(deadline: Deadline): Promise<PrivateCopy> {
    await this.#buryDeadCopy();
    if (this.#copy !== undefined) return this.#copy;
    await this.begin(deadline);
    this.#loan ??= await this.#options.borrow(deadline);
    this.#copy = await PrivateCopy.open(this.#replica, this.#loan.runner, this.history, deadline);
    return this.#copy;
  }

  /**
   * A statement that was stopped took the process and the copy with it. The transaction goes on in another one, doing
   * again what it had done; what it had read there still has to hold.
   */
  async #buryDeadCopy(): Promise<void> {
    const copy = this.#copy;
    if (copy === undefined || !copy.runner.dead) return;
    this.#localReads.push({ index: copy.readAt, term: copy.readTerm, spans: copy.reads });
    await copy.rollback();
    this.#returnLoan();
  }

  /** What ends or marks the transaction needs the copy as a statement does. */
  async #revive(deadline: Deadline): Promise<void> {
    if (this.#copy?.runner.dead === true) await this.#move(deadline);
  }

  async #runInCopy(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    const copy = this.#copy!;
    const stamped = this.#stamped(statement, analysis, settings, copy);
    if (analysis.readonly)
      return { kind: "stream", stream: await copy.stream(stamped, analysis, deadline, systemTables) };
    let outcome: StatementOutcome;
    try {
      outcome = await copy.run(stamped, analysis, deadline, systemTables);
    } catch (error) {
      if (!(error instanceof UserError) || copy.runner.dead) throw error;
      if (copy.runner.rolledBack) throw new RolledBack(error);
      if (error.code.startsWith("SQLITE_")) {
        const told = toWireError(error);
        this.history.wrote({ ...stamped, told: toldDigest(told) }, told, this.#ordinal);
      }
      throw error;
    }
    // What only touches the session's TEMP objects is nothing to replicate.
    if (changesDatabase(analysis, statement.params)) {
      this.history.wrote({ ...stamped, told: toldDigest(outcome) }, outcome, this.#ordinal);
    }
    settings.wrote(outcome);
    return { kind: "outcome", outcome };
  }

  /** Whether a statement that failed on the private copy has left changes behind (OR FAIL, RAISE(FAIL)). */
  async leftChanges(): Promise<boolean> {
    if (this.#copy === undefined || this.#copy.runner.dead || !this.history.hasWrites()) return false;
    try {
      return (await this.#copy.runner.captured()).length > 0;
    } catch (error) {
      // Not captured, so it cannot be ruled out.
      if (error instanceof UserError) return true;
      throw error;
    }
  }

  async savepoint(name: string, deadline: Deadline): Promise<void> {
    await this.#revive(deadline);
    this.history.savepoint(name, this.#ordinal);
    await this.#copy?.control(`SAVEPOINT ${quoted(name)}`, deadline);
  }

  async release(name: string, deadline: Deadline): Promise<void> {
    await this.#revive(deadline);
    this.history.release(name);
    await this.#copy?.control(`RELEASE ${quoted(name)}`, deadline);
  }

  async rollbackTo(name: string, deadline: Deadline): Promise<void> {
    await this.#revive(deadline);
    const ordinal = this.history.rollbackTo(name);
    if (this.#copy !== undefined) {
      await this.#copy.control(`ROLLBACK TO ${quoted(name)}`, deadline);
    } else if (ordinal < this.#ordinal) {
      await deadline.race(this.#replica.leader.truncate(this.id, ordinal)).catch((error: unknown) => {
        throw asRetry(error);
      });
      this.#ordinal = ordinal;
    }
  }

  /** Commits, or says why not. A failed deferred constraint leaves the transaction open, as in SQLite. */
  async commit(key: IdempotencyKey, deadline: Deadline): Promise<CommandResult> {
    const { leader } = this.#replica;
    const untouched = this.#ordinal === 0 && this.#localReads.length === 0 && this.#copy === undefined;
    if (this.readOnly || untouched) {
      await this.rollback();
      return { ok: true, outcomes: [], repeated: false };
    }
    await this.#revive(deadline);
    const copied = this.#copy === undefined ? undefined : await this.#copy.prepareCommit(this.history);
    const attempt =
      copied === undefined
        ? leader.commit(this.id, key, this.#localReads)
        : leader.commitCopy({ transaction: this.id, key, ...copied }, this.#localReads);
    const result = await attempt.catch((error: unknown) => this.#resolve(error, deadline));
    if (!result.ok && copied !== undefined) await leader.rollback(this.id).catch(() => {});
    // A constraint that only COMMIT checks: nothing was committed, the transaction goes on. A committed copy cannot.
    if (result.ok || copied !== undefined || result.error[1] === "OSTRAKA_RETRY") this.#giveBack();
    return result;
  }

  /** The answer to COMMIT got lost: asks what became of it (an unknown transaction is recorded as aborted first). */
  async #resolve(error: unknown, deadline: Deadline): Promise<CommandResult> {
    if (!(error instanceof AmbiguousError)) throw asRetry(error);
    const outcome = await deadline
      .persist(() => this.#replica.leader.outcome(this.id), { transaction: this.id, repeatable: true })
      .catch(() => "unknown" as const);
    if (outcome === "committed") return { ok: true, outcomes: [], repeated: true };
    if (outcome === "aborted")
      throw new RetryError("OSTRAKA_RETRY", "leadership changed during COMMIT; nothing was committed");
    throw new AmbiguousError(
      `it is not known whether the transaction was committed: ${error.message}`,
      this.id,
    );
  }

  async rollback(): Promise<void> {
    const registered = this.#point !== undefined || this.#ordinal > 0;
    if (registered) await this.#replica.leader.rollback(this.id).catch(() => {});
    await this.#copy?.rollback();
    this.#giveBack();
  }

  #giveBack(): void {
    this.ended = true;
    this.#returnLoan();
  }

  #returnLoan(): void {
    this.#copy = undefined;
    this.#loan?.giveBack();
    this.#loan = undefined;
  }
}

/** A statement's error that ended the transaction (OR ROLLBACK, RAISE(ROLLBACK)). */
export class RolledBack extends UserError {
  constructor(cause: { readonly code: string; readonly message: string }) {
    super(cause.code, cause.message);
  }
}

/** A transaction that has read at a leader cannot go on at another. */
function asRetry(error: unknown): unknown {
  if (error instanceof AmbiguousError)
    return new RetryError("OSTRAKA_RETRY", "the range's leader was lost; run the transaction again", {
      cause: error,
    });
  if (error instanceof RouteError)
    return new RetryError("OSTRAKA_RETRY", "leadership changed; run the transaction again", { cause: error });
  if (error instanceof RetryError && error.code === "OSTRAKA_UNAVAILABLE")
    return new RetryError("OSTRAKA_RETRY", error.message, { cause: error });
  return error;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
