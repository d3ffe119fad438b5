/**
 * A session's TEMP objects: they live in a process of the session's own, from the first CREATE TEMP until the session
 * closes, and are joined there with a pin or a private copy of the range. Sessions without TEMP objects borrow such a
 * process only while a transaction needs one.
 */
import { UserError } from "../base/errors.js";
import { createOracle, type SessionOracle } from "../machines/range/oracle.js";
import type { Runner, RunnerPool, StampedStatement, SystemTable } from "../machines/range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import { AnalysisCache } from "../sql/analyse.js";
import type { Analysis, Statement } from "../sql/types.js";
import { SCHEMA } from "../txn/spans.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import { collect, collectTexts } from "./outcomes.js";
import { PinnedReads } from "./pinned-reads.js";
import { plainStatement } from "./plain-statement.js";
import { isOwnError } from "./pushed-reads.js";
import { stampAt } from "./replica.js";
import { runOptions } from "./run-options.js";
import type { SessionSettings } from "./settings.js";
import type { RunnerLoan, Transaction } from "./transaction.js";

const CACHED_STATEMENTS = 512;
const TEMP_SCHEMA =
  "SELECT sql FROM sqlite_temp_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_ostraka%' ESCAPE '\\' ORDER BY rowid";

export class TempSpace {
  readonly #db: GatewayDatabase;
  readonly #runners: RunnerPool;
  #runner: Runner | undefined;
  #statements: readonly string[] = [];
  #oracle: SessionOracle | undefined;
  #oracleVersion = -1;
  #cache = new AnalysisCache(CACHED_STATEMENTS);
  /** The transaction under way has changed which TEMP objects there are. */
  #changed = false;
  /** That transaction has ended, perhaps undone: see `refresh`. */
  #stale = false;

  /** `runners`: where its process comes from. */
  constructor(db: GatewayDatabase, runners = db.heldRunners) {
    this.#db = db;
    this.#runners = runners;
  }

  /** The session has TEMP objects. */
  get inUse(): boolean {
    return this.#statements.length > 0;
  }

  get statements(): readonly string[] {
    return this.#statements;
  }

  /** The process with the TEMP objects, or a fresh one that goes back unless TEMP objects were made in it. */
  async borrow(deadline: Deadline): Promise<RunnerLoan> {
    const runner = await this.#own(deadline);
    return {
      runner,
      giveBack: () => {
        this.#stale ||= this.#changed;
        this.#changed = false;
        // Whoever needs TEMP objects next is told that they are lost.
        if (!this.inUse && (runner.dead || !this.#stale)) this.#drop();
      },
    };
  }

  async #own(deadline: Deadline): Promise<Runner> {
    if (this.#runner?.dead) {
      const lost = this.inUse;
      this.#drop();
      if (lost)
        throw new UserError(
          "OSTRAKA_TEMP_LOST",
          "the session's TEMP objects were lost with a statement that had to be killed",
        );
    }
    this.#runner ??= await this.#runners.acquire(deadline.signal);
    return this.#runner;
  }

  #drop(): void {
    if (this.#runner !== undefined) this.#runners.release(this.#runner);
    this.#runner = undefined;
    this.#changed = false;
    this.#stale = false;
    this.#forget([]);
  }

  /** To be called before the next statement is analysed: what a transaction did to TEMP objects may have been undone. */
  async refresh(deadline: Deadline): Promise<void> {
    if (!this.#stale || this.#runner?.dead) return;
    const runner = await this.#own(deadline);
    const place = await PinnedReads.open(this.#db, runner, deadline, this.#statements, [SCHEMA]);
    try {
      await this.#relearn(deadline);
      this.#stale = false;
    } finally {
      await place.close();
      if (!this.inUse) this.#drop();
    }
  }

  #forget(statements: readonly string[]): void {
    this.#statements = statements;
    this.#oracle?.close();
    this.#oracle = undefined;
    this.#cache = new AnalysisCache(CACHED_STATEMENTS);
  }

  analyse(sql: string): Analysis {
    const schema = this.#db.ranges.schema();
    if (this.#oracle === undefined || this.#oracleVersion !== schema.version) {
      this.#oracleVersion = schema.version;
      this.#oracle?.close();
      this.#oracle = createOracle(schema.snapshot, this.#statements);
      this.#cache = new AnalysisCache(CACHED_STATEMENTS);
    }
    return this.#cache.analyse(sql, this.#oracle);
  }

  /** Runs a statement that writes nothing but TEMP objects, on a fresh pin. */
  async run(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    const db = this.#db;
    const runner = await this.#own(deadline);
    const { reads, writes, checks } = analysis.footprint(statement.params);
    const spans = [...reads, ...writes, ...checks];
    const place = await PinnedReads.open(db, runner, deadline, this.#statements, spans);
    let failed = false;
    try {
      const stamped: StampedStatement = {
        sql: statement.sql,
        params: statement.params,
        flags: settings.flags,
        stamp: stampAt(db, place, settings.lastInsertRowid),
        told: undefined,
      };
      const outcome = await collect(
        await place.run(stamped, analysis, deadline, systemTables),
        db.limits.maxTransactionBytes,
      );
      if (analysis.class.kind === "write") settings.wrote(outcome);
      if (analysis.class.kind === "ddl") await this.#relearn(deadline);
      return { kind: "outcome", outcome };
    } catch (error) {
      // What was stopped may have come to its end.
      failed = !isOwnError(error);
      throw error;
    } finally {
      await place.close(failed ? "rollback" : "commit");
      if (!this.inUse) this.#drop();
    }
  }

  /** After a statement of a transaction that may have made or dropped TEMP objects. */
  async learn(transaction: Transaction, deadline: Deadline): Promise<void> {
    const runner = await transaction.scratch(deadline);
    if (this.#runner === undefined) this.#runner = runner;
    this.#changed = true;
    await this.#relearn(deadline);
  }

  /** After ROLLBACK TO, which undoes changes of TEMP objects too. */
  async undone(transaction: Transaction, deadline: Deadline): Promise<void> {
    if (this.#changed) await this.learn(transaction, deadline);
  }

  async #relearn(deadline: Deadline): Promise<void> {
    const stream = await this.#runner!.run(plainStatement(TEMP_SCHEMA), runOptions(this.#db, deadline, []));
    const texts = await collectTexts(stream);
    this.#forget(texts);
  }

  async close(): Promise<void> {
    this.#drop();
  }
}
