/**
 * Autocommit statements of one session, on the general path: reads at a read point, bounded writes at the leader, all
 * other writes as transactions of one statement on a private copy, where they can be stopped.
 *
 * Invariant: statements of the pool run at the same time, so each has a process of its own, and none has TEMP objects.
 */
import { AmbiguousError, fromWireError, isGivenUp, RetryError } from "../base/errors.js";
import { NO_OUTCOME } from "../machines/range/no-outcome.js";
import type {
  CommandResult,
  IdempotencyKey,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { RangeService } from "../range/types.js";
import type { ExecuteRequest, ExecuteResult } from "../rpc/gateway.js";
import type { Analysis, Statement, StatementClass } from "../sql/types.js";
import {
  ATTEMPTS,
  attemptId,
  autocommitId,
  byKey,
  committedBefore,
  keptOutcomes,
  notKept,
  settled,
} from "./attempts.js";
import type { Deadline } from "./deadline.js";
import { RolledBack } from "./light-parts.js";
import { reservedBy } from "./losses.js";
import { emptyOutcome } from "./outcomes.js";
import { isOwnError } from "./pushed-reads.js";
import { autocommitRead, runsInWorker } from "./reads.js";
import { Resend } from "./resend.js";
import type { SessionContext } from "./session.js";
import type { SessionSettings } from "./settings.js";
import { changesDatabase, likesOtherwise } from "./statements.js";
import { systemTablesFor } from "./system-tables.js";
import { TempSpace } from "./temp-space.js";
import { Transaction } from "./transaction.js";

const MOVE = { ok: "move" } as const;
/** Between the tries of a change of the schema. */
const MOST_PAUSE_MS = 500;
/** In a statement, a constraint or a trigger. */
const FAIL = /\bfail\b/i;

type RequestTail = Omit<ExecuteRequest, "sql" | "params">;

export class AutocommitStatements {
  readonly #context: SessionContext;
  readonly #settings: SessionSettings;
  /** The session's; undefined in the pool. */
  readonly #temp: TempSpace | undefined;

  constructor(context: SessionContext, settings: SessionSettings, temp: TempSpace | undefined) {
    this.#context = context;
    this.#settings = settings;
    this.#temp = temp;
  }

  async systemTables(analysis: Analysis): Promise<readonly SystemTable[]> {
    return analysis.systemTables.length === 0
      ? []
      : systemTablesFor(this.#context.systemTables, analysis.systemTables);
  }

  async read(statement: Statement, analysis: Analysis, deadline: Deadline): Promise<ExecuteResult> {
    const final = { sql: analysis.sql, params: statement.params };
    const systemTables = await this.systemTables(analysis);
    const again = (): Analysis => this.#analyse(statement.sql);
    const request = { statement: final, analysis, settings: this.#settings, systemTables, again };
    return autocommitRead(this.#context.db, request, deadline);
  }

  async write(
    statement: Statement,
    analysis: Analysis,
    request: RequestTail,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const { db } = this.#context;
    const key = request.key ?? this.#context.nextKey(deadline);
    const resend = new Resend(db, key, request.sentUnder);
    const inDoubt = { transaction: autocommitId(key), repeatable: true };
    let moved = false;
    const { snapshot } = db.ranges.schema();
    if (
      !resend.elsewhere &&
      !analysis.rowChangesOnly &&
      analysis.systemTables.length === 0 &&
      !likesOtherwise(analysis, this.#settings.flags, snapshot)
    ) {
      const write = {
        key,
        statement,
        flags: this.#settings.flags,
        lastInsertRowid: this.#settings.lastInsertRowid,
      };
      const result = await db
        .persist(
          deadline,
          async (tries) => {
            const current = tries === 0 ? analysis : this.#analyse(statement.sql);
            if (resend.elsewhere) return MOVE;
            const leader = this.#leaderOf(statement, current);
            return leader?.write({ ...write, schemaVersion: resend.attempt() }) ?? MOVE;
          },
          inDoubt,
        )
        .catch((failure: unknown) => ({ ok: "failed" as const, failure }));
      if (result.ok === "failed") return this.toldBefore(analysis.class, key, result.failure, deadline);
      if (result.ok !== "move") return this.#wrote(analysis.class, result, key, deadline);
      moved = true;
    }
    let kept = false;
    try {
      const current = moved ? this.#analyse(statement.sql) : analysis;
      return await this.#writeInCopy(statement, current, resend, deadline, () => {
        kept = true;
      });
    } catch (failure) {
      // It is committed although it failed.
      if (kept) throw failure;
      if (this.#mayKeep(analysis)) return this.#succeededBefore(request.key, failure, deadline);
      return this.toldBefore(analysis.class, request.key, failure, deadline);
    }
  }

  /** As toldBefore, for what may also have been committed before although it had failed, as it fails now. */
  async #succeededBefore(
    key: IdempotencyKey | undefined,
    failure: unknown,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const [outcome] = await committedBefore(this.#context.db, key, failure, deadline);
    const { columns, changes } = outcome ?? NO_OUTCOME;
    if (outcome === undefined || (columns.length === 0 && changes === 0)) throw failure;
    return { kind: "outcome", outcome };
  }

  /** What a write that fails now was answered when it was sent before; else throws `failure`. */
  async toldBefore(
    { kind }: StatementClass,
    key: IdempotencyKey | undefined,
    failure: unknown,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const [outcome] = await committedBefore(this.#context.db, key, failure, deadline);
    return told(kind, outcome, key);
  }

  /** By the schema of now. */
  #analyse(sql: string): Analysis {
    return this.#temp?.inUse ? this.#temp.analyse(sql) : this.#context.db.ranges.schema().analyse(sql);
  }

  /** The leader of the one range that a write of bounded cost touches. */
  #leaderOf(statement: Statement, analysis: Analysis): RangeService | undefined {
    const { db } = this.#context;
    const { whole } = db;
    if (whole !== undefined) return runsInWorker(whole, analysis) ? whole.leader : undefined;
    if (analysis.cost !== "bounded") return undefined;
    const touched = db.touched(analysis.footprint(statement.params));
    return touched.length > 1 ? undefined : db.client((touched[0] ?? db.first).range);
  }

  async #wrote(
    { kind }: StatementClass,
    result: CommandResult,
    key: IdempotencyKey,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    if (!result.ok) throw byKey(fromWireError(result.error), key);
    this.#context.db.counts.single++;
    const said = await this.#saidBefore(kind, result, key, deadline);
    if (said.kind === "outcome") this.#settings.wrote(said.outcome);
    return said;
  }

  /**
   * A write whose cost is not bounded: a transaction of one statement, run where it can be stopped. `onKept`: it fails, and
   * what it had done is committed.
   */
  async #writeInCopy(
    statement: Statement,
    first: Analysis,
    resend: Resend,
    deadline: Deadline,
    onKept: () => void,
  ): Promise<ExecuteResult> {
    const { db } = this.#context;
    const { key } = resend;
    if (resend.unsettled) {
      const [outcome] = await settled(db, key, deadline);
      // What has failed and kept a part fails again, and changes nothing any more.
      if (!this.#mayKeep(first)) return told(first.class.kind, outcome, key);
    }
    const ofSession = this.#temp?.inUse || first.touchesTemp ? this.#temp : undefined;
    const temp = ofSession ?? new TempSpace(db, db.gatherRunners);
    const before = this.#settings.counted();
    const startedMs = db.clock.monotonicMs();
    let losses = 0;
    // What came of a state that never was is run again, and then not told.
    const { kind } = first.class;
    let fenced = !(kind === "write" || kind === "ddl" || kind === "analyze") || this.#mayKeep(first);
    for (let attempt = 0; ; attempt++) {
      const analysis = attempt === 0 ? first : this.#analyse(statement.sql);
      const transaction = new Transaction(db, {
        id: attemptId(key, attempt + 1),
        mode: "deferred",
        age: db.clock.monotonicMs() - startedMs,
        reserve: losses === 0 ? undefined : reservedBy(analysis.footprint(statement.params), losses),
        needsCopy: true,
        fenced,
        borrow: (wait) => temp.borrow(wait),
      });
      try {
        const ran = await transaction.run(
          statement,
          analysis,
          this.#settings,
          deadline,
          await this.systemTables(analysis),
        );
        if (changesTempSchema(analysis)) await temp.learn(transaction, deadline);
        const done = await resend.done(deadline);
        if (done !== undefined) await transaction.rollback();
        const result = done ?? (await transaction.commit(key, deadline));
        if (result.ok)
          return result.repeated ? await this.#saidBefore(analysis.class.kind, result, key, deadline) : ran;
        throw fromWireError(result.error);
      } catch (failure) {
        const error = this.#mayKeep(analysis)
          ? await this.#keepWhatItDid(transaction, failure, resend, deadline, onKept)
          : failure;
        await transaction.rollback();
        this.#settings.recount(before);
        if (isGivenUp(error) || attempt + 1 >= ATTEMPTS || deadline.stopped) throw error;
        if (error instanceof RetryError && error.code === "OSTRAKA_RETRY") {
          losses++;
          // It takes part everywhere, and fences everywhere are hard to have while ranges come and go.
          if (kind === "ddl") {
            await deadline.pause(Math.min(10 * 2 ** attempt, MOST_PAUSE_MS));
            continue;
          }
        } else if (fenced || error instanceof RetryError || error instanceof AmbiguousError) throw error;
        // It waits for what is decided, and perhaps told, and not everywhere yet.
        fenced = true;
      }
    }
  }

  /** The write was applied before, and its answer lost: it is told again. What it would do now is no answer. */
  async #saidBefore(
    kind: StatementClass["kind"],
    result: Extract<CommandResult, { ok: true }>,
    key: IdempotencyKey,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    const [outcome = (await keptOutcomes(this.#context.db, key, deadline))[0]] = result.outcomes;
    return told(kind, outcome, key);
  }

  /**
   * Whether a failure may keep what was done before it; of all others the workspace remembers which rows were written,
   * though they were put back.
   */
  #mayKeep({ sql, touchesTemp }: Analysis): boolean {
    const { statements } = this.#context.db.ranges.schema().snapshot;
    return touchesTemp || FAIL.test(sql) || statements.some((text) => FAIL.test(text));
  }

  /** OR FAIL and RAISE(FAIL) fail and keep what was done before. Answers the error to be told. */
  async #keepWhatItDid(
    transaction: Transaction,
    error: unknown,
    resend: Resend,
    deadline: Deadline,
    onKept: () => void,
  ): Promise<unknown> {
    if (!isOwnError(error) || error instanceof RolledBack || transaction.ended) return error;
    try {
      if (!(await transaction.leftChanges()) || (await resend.done(deadline)) !== undefined) return error;
      const result = await transaction.commit(resend.key, deadline);
      if (!result.ok) return fromWireError(result.error);
      onKept();
      return error;
    } catch (unkept) {
      return unkept;
    }
  }

  /** Autocommit statements on TEMP objects: in the session's own process, on a pin, or on a copy if they also write. */
  async withTemp(
    statement: Statement,
    analysis: Analysis,
    request: RequestTail,
    deadline: Deadline,
  ): Promise<ExecuteResult> {
    if (changesDatabase(analysis, statement.params)) {
      const key = request.key ?? this.#context.nextKey(deadline);
      const resend = new Resend(this.#context.db, key, request.sentUnder);
      return this.#writeInCopy(statement, analysis, resend, deadline, () => undefined);
    }
    return (this.#temp ?? new TempSpace(this.#context.db)).run(
      { sql: analysis.sql, params: statement.params },
      analysis,
      this.#settings,
      deadline,
      await this.systemTables(analysis),
    );
  }
}

function told(
  kind: StatementClass["kind"],
  outcome: StatementOutcome | undefined,
  key: IdempotencyKey | undefined,
): ExecuteResult {
  if (outcome !== undefined) return { kind: "outcome", outcome };
  // Changes of the schema have but one answer.
  if (kind === "ddl" || kind === "analyze") return emptyOutcome();
  throw notKept(key);
}

export function changesTempSchema(analysis: Analysis): boolean {
  return analysis.touchesTemp && analysis.class.kind === "ddl";
}
