/**
 * A transaction's private copy of the range: where it goes on once it does something whose cost is not bounded, so
 * that whatever it does can be killed and nobody waits for it. It runs on the gateway's own replica's file, copied, in
 * a process of its own, and is validated by the leader when it commits.
 */

import { RetryError, UserError } from "../base/errors.js";
import type { LogIndex, Term } from "../base/ids.js";
import { createOracle, type SessionOracle } from "../machines/range/oracle.js";
import type {
  CommandResult,
  RowStream,
  Runner,
  Stamp,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { CopyCommit, ReadPoint } from "../range/types.js";
import { analyse } from "../sql/analyse.js";
import { type Analysis, EVERY_TABLE } from "../sql/types.js";
import { SpanBag } from "../txn/span-bag.js";
import type { Deadline } from "./deadline.js";
import type { History } from "./history.js";
import { collect, collectTexts } from "./outcomes.js";
import { plainStatement } from "./plain-statement.js";
import { TableNamesNow } from "./renamed.js";
import { replay } from "./replay.js";
import { isStillWhole, type Replica, reach, reachReadPoint } from "./replica.js";
import { runOptions } from "./run-options.js";
import { changesDatabase, likesOtherwise } from "./statements.js";
import type { RangeRead, Workspace, WorkspaceCommit } from "./workspace.js";

export class PrivateCopy implements Workspace {
  readonly #replica: Replica;
  readonly #runner: Runner;
  readonly readAt: LogIndex;
  readonly readTerm: Term;
  readonly schemaVersion: number;
  /** The leader's wall clock at the copy's read point, for stamps. */
  readonly wallMs: number;
  readonly #releaseFile: () => Promise<void>;
  readonly #reads = new SpanBag();
  readonly #writes = new SpanBag();
  /** What constraints looked at; counts as read where nothing runs again. */
  readonly #checks = new SpanBag();
  #ranMs = 0;
  /** Of statements that only row changes can replicate; those that were undone are no longer in the history. */
  readonly #needingRows = new Set<Stamp>();
  /** Of those that change the schema, and not only that of TEMP objects. */
  readonly #changingSchema = new Set<Stamp>();
  /** Until COMMIT or ROLLBACK. */
  #open = true;
  #oracle: SessionOracle | undefined;
  readonly #names = new TableNamesNow();

  private constructor(
    replica: Replica,
    runner: Runner,
    point: ReadPoint,
    copy: { readonly appliedIndex: LogIndex; release(): Promise<void> },
  ) {
    this.#replica = replica;
    this.#runner = runner;
    this.readAt = copy.appliedIndex;
    this.readTerm = point.term;
    this.wallMs = point.wallMs;
    this.schemaVersion = replica.schema.version;
    this.#releaseFile = () => copy.release();
  }

  /** Copies the replica as of a fresh read point and does again what the transaction has done so far. */
  static async open(
    replica: Replica,
    runner: Runner,
    history: History,
    deadline: Deadline,
  ): Promise<PrivateCopy> {
    const point = await reachReadPoint(replica, deadline);
    const copy = await deadline.race(replica.store.copy(), (late) => void late.release().catch(() => {}));
    try {
      await reach(replica, copy.appliedIndex, deadline);
      if (!isStillWhole(replica))
        throw new RetryError("OSTRAKA_RETRY", "the range has been split since the transaction began");
    } catch (error) {
      await copy.release().catch(() => {});
      throw error;
    }
    const self = new PrivateCopy(replica, runner, point, copy);
    try {
      await runner.openCopy(copy.path);
      await runner.capture();
      await self.#replay(history, deadline);
    } catch (error) {
      await self.rollback();
      throw error;
    }
    return self;
  }

  reads(): readonly RangeRead[] {
    return [
      { range: this.#replica.range, index: this.readAt, term: this.readTerm, spans: this.#reads.spans() },
    ];
  }

  get runner(): Runner {
    return this.#runner;
  }

  async #replay(history: History, deadline: Deadline): Promise<void> {
    await replay(history, {
      run: (statement) => {
        const oracle = this.#oracle ?? this.#replica.schema.oracle();
        return this.run(statement, analyse(statement.sql, oracle, { admitted: true }), deadline, []);
      },
      control: (sql) => this.control(sql, deadline),
    });
  }

  get knowsSchema(): boolean {
    return this.#oracle !== undefined;
  }

  /** As of the transaction's own schema changes and TEMP objects. */
  analyse(sql: string): Analysis {
    if (this.#oracle === undefined) return this.#replica.schema.analyse(sql);
    return analyse(sql, this.#oracle);
  }

  /** Runs one statement and answers its whole outcome; for SELECTs that may be large use `stream`. */
  async run(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<StatementOutcome> {
    const startedMs = this.#replica.clock.monotonicMs();
    let outcome: StatementOutcome | undefined;
    try {
      const stream = await this.#start(statement, analysis, deadline, systemTables);
      outcome = await collect(stream, this.#replica.limits.maxTransactionBytes);
    } finally {
      // A statement that failed told its client what its checks found.
      const { reads, writes, checks } = analysis.footprint(statement.params, outcome);
      const checked = this.#names.spansBefore(checks);
      this.#reads.addAll(this.#names.spansBefore(reads));
      if (outcome === undefined) this.#reads.addAll(checked);
      this.#checks.addAll(checked);
      if (changesDatabase(analysis, statement.params)) this.#writes.addAll(writes);
      if (!analysis.readonly) this.#ranMs += this.#replica.clock.monotonicMs() - startedMs;
    }
    if (analysis.class.kind === "ddl") {
      if (changesDatabase(analysis, statement.params)) this.#changingSchema.add(statement.stamp);
      await this.#learnSchema(deadline);
    }
    return outcome;
  }

  /** Starts a query; its rows come at the caller's pace. */
  async stream(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    this.#reads.addAll(this.#names.spansBefore(analysis.footprint(statement.params).reads));
    return this.#start(statement, analysis, deadline, systemTables);
  }

  #start(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    const changes = changesDatabase(analysis, statement.params);
    const { schema } = this.#replica;
    if (
      changes &&
      (analysis.rowChangesOnly ||
        feedsOnTemp(analysis, statement.params) ||
        likesOtherwise(analysis, statement.flags, schema.snapshot))
    )
      this.#needingRows.add(statement.stamp);
    return this.#runner.run(statement, runOptions(this.#replica, deadline, systemTables));
  }

  /** Savepoint statements: not replicated, nothing to analyse. */
  async control(sql: string, deadline: Deadline): Promise<void> {
    const stream = await this.#runner.run(
      plainStatement(sql, this.wallMs),
      runOptions(this.#replica, deadline, []),
    );
    await stream.close();
    if (!sql.startsWith("ROLLBACK")) return;
    // What is undone does not run again, and its client was told what its checks had found.
    this.#reads.addAll(this.#checks.spans());
    if (this.#oracle !== undefined) await this.#learnSchema(deadline);
  }

  async #learnSchema(deadline: Deadline): Promise<void> {
    const statements = await this.#texts(
      "SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_ostraka%' ESCAPE '\\' ORDER BY rowid",
      deadline,
    );
    const temp = await this.#texts(
      "SELECT sql FROM sqlite_temp_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_ostraka%' ESCAPE '\\' ORDER BY rowid",
      deadline,
    );
    await this.#names.learn(this.#runner);
    this.#forgetSchema();
    this.#oracle = createOracle(
      { version: -1, statements, appliedIndex: this.readAt, tables: this.#replica.schema.snapshot.tables },
      temp,
    );
  }

  #forgetSchema(): void {
    this.#oracle?.close();
    this.#oracle = undefined;
  }

  async #texts(sql: string, deadline: Deadline): Promise<string[]> {
    const stream = await this.#runner.run(
      plainStatement(sql, this.wallMs),
      runOptions(this.#replica, deadline, []),
    );
    return collectTexts(stream);
  }

  async commit({ transaction, key, history, earlier, ran }: WorkspaceCommit): Promise<CommandResult> {
    const body = await this.#body(history);
    await this.#runner.closeCopy("commit");
    this.#open = false;
    this.#forgetSchema();
    await this.#releaseFile();
    const { leader } = this.#replica;
    const [reads, checks] = [this.#reads.spans(), this.#checks.spans()];
    const result = await leader.commitCopy(
      {
        transaction,
        key,
        readAt: this.readAt,
        readTerm: this.readTerm,
        reads: body.kind === "rows" ? [...reads, ...checks] : reads,
        writes: this.#writes.spans(),
        checks,
        schemaVersion: this.schemaVersion,
        ran: ran.get(this.#replica.range),
        body,
      },
      earlier,
    );
    if (!result.ok) await leader.rollback(transaction).catch(() => {});
    return result;
  }

  async #body(history: History): Promise<CopyCommit["body"]> {
    const { writes } = history;
    const schemaChanged = writes.some(({ stamp }) => this.#changingSchema.has(stamp));
    const rowsNeeded = writes.some(({ stamp }) => this.#needingRows.has(stamp));
    const expensive = this.#ranMs > this.#replica.limits.replayTextMs && !schemaChanged;
    if (!rowsNeeded && !expensive) return { kind: "statements", statements: writes };
    if (schemaChanged) {
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        "this transaction changes the schema and also does what only row changes can replicate; split it in two",
      );
    }
    const changes = await this.#runner.capturedBytes();
    return { kind: "rows", changes, outcomes: history.outcomes };
  }

  async rollback(): Promise<void> {
    this.#forgetSchema();
    if (!this.#open) return;
    this.#open = false;
    if (!this.#runner.dead) await this.#runner.closeCopy("rollback").catch(() => this.#runner.kill());
    await this.#releaseFile();
  }
}

/** Rows of TEMP objects go into the database: a change of the schema minds TEMP objects but copies none of their rows. */
function feedsOnTemp(analysis: Analysis, params: StampedStatement["params"]): boolean {
  if (!analysis.touchesTemp || analysis.class.kind !== "ddl") return analysis.touchesTemp;
  return analysis.footprint(params).reads.some((span) => span.table === EVERY_TABLE);
}
