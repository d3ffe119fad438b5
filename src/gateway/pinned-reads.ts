/**
 * One snapshot of the database in a runner, to be read for as long as one likes: what a READ ONLY transaction is, and what
 * statements on TEMP objects see of the rest. On one range that is a pin of the replica's file; on many a pin of each,
 * and a scratch database that rows are brought into as statements need them.
 */
import { RetryError } from "../base/errors.js";
import type { RowStream, Runner, StampedStatement, SystemTable } from "../machines/range/types.js";
import { type Analysis, EVERY_TABLE, type Span } from "../sql/types.js";
import { EVERYTHING } from "../txn/spans.js";
import { type GatewayDatabase, outdated } from "./database.js";
import type { Deadline } from "./deadline.js";
import { pushdownOf, safeConditions } from "./pushdown.js";
import { isOwnError, runForm } from "./pushed-reads.js";
import { isStillWhole, reach, reachReadPoint } from "./replica.js";
import { runOptions } from "./run-options.js";
import { Scratch } from "./scratch.js";
import { takeSnapshot } from "./snapshot.js";
import { SpooledRows } from "./spool.js";
import { tablesNamed } from "./tables-named.js";

export class PinnedReads {
  readonly #db: GatewayDatabase;
  readonly runner: Runner;
  readonly wallMs: number;
  readonly #scratch: Scratch | undefined;
  readonly #temp: readonly string[];
  #draining: Promise<void> = Promise.resolve();

  private constructor(
    db: GatewayDatabase,
    runner: Runner,
    wallMs: number,
    scratch: Scratch | undefined,
    temp: readonly string[],
  ) {
    this.#db = db;
    this.runner = runner;
    this.wallMs = wallMs;
    this.#scratch = scratch;
    this.#temp = temp;
  }

  /** `temp`: the texts of the session's TEMP objects. `spans`: all that will be read; by default everything may be. */
  static async open(
    db: GatewayDatabase,
    runner: Runner,
    deadline: Deadline,
    temp: readonly string[],
    spans: readonly Span[] = [EVERYTHING],
  ): Promise<PinnedReads> {
    const { whole } = db;
    if (whole !== undefined) {
      const point = await reachReadPoint(whole, deadline);
      const index = await runner.pin(whole.store.path);
      await reach(whole, index, deadline);
      if (isStillWhole(whole)) return new PinnedReads(db, runner, point.wallMs, undefined, temp);
      await runner.unpin();
    }
    const everywhere = spans.some((span) => span.table === EVERY_TABLE);
    const snapshot = await takeSnapshot(db, runner, { spans, everywhere }, deadline);
    return new PinnedReads(db, runner, snapshot.wallMs, await Scratch.open(db, runner, snapshot), temp);
  }

  async run(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    if (this.runner.dead) {
      throw new RetryError(
        "OSTRAKA_RETRY",
        "the transaction's snapshot was given up: it had kept the database's log from starting over for too long, or its statement had to be killed",
      );
    }
    if (this.#scratch !== undefined)
      return this.#runWide(this.#scratch, statement, analysis, deadline, systemTables);
    this.#db.counts.single++;
    return this.runner.run(statement, runOptions(this.#db, deadline, systemTables));
  }

  async #runWide(
    scratch: Scratch,
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    await deadline.race(this.#draining);
    const { schema } = scratch.snapshot;
    const footprint =
      analysis.systemTables.length > 0
        ? { reads: tablesNamed(statement.sql, schema, this.#temp), writes: [], checks: [] }
        : // What is known of it may not be true of the snapshot's schema: then it may read anything.
          outdated(analysis, schema.version)
          ? { reads: [EVERYTHING], writes: [], checks: [] }
          : analysis.footprint(statement.params);
    const asAnalysed = systemTables.length === 0 && analysis.readonly && statement.sql === analysis.sql;
    const plan = asAnalysed
      ? pushdownOf(analysis, this.#db.ranges.schema().oracle(), schema.tables)
      : undefined;
    const form = plan?.version === schema.version ? plan.form : undefined;
    // A load that fails would take the snapshot with it; queries of ranges fail by themselves.
    if (form !== undefined && !(form.kind === "first" && form.mayRaise)) {
      const read = { plan: plan!, statement, spans: footprint.reads };
      const stream = await runForm(scratch, read, deadline).catch((error: unknown) => {
        if (!isOwnError(error)) throw error;
      });
      if (stream !== undefined) {
        this.#db.counts.pushdown++;
        return form.kind === "merge" ? this.#drained(stream) : stream;
      }
    }
    const conditions = safeConditions(plan, statement, analysis, schema.version);
    this.#db.counts[conditions === undefined ? "gather" : "pushdown"]++;
    await scratch.ensure(footprint, deadline, conditions);
    return scratch.run(statement, deadline, systemTables);
  }

  /** Rows of one range after the other come out of the process at its own pace: nothing else may come in between. */
  #drained(stream: RowStream): RowStream {
    let drained = (): void => {};
    this.#draining = new Promise((resolve) => {
      drained = resolve;
    });
    return new SpooledRows(stream, this.#db.space, drained);
  }

  /** What was written to TEMP objects stays, unless they are rolled back. */
  async close(how: "commit" | "rollback" = "commit"): Promise<void> {
    if (!this.runner.dead) await this.#draining;
    if (this.#scratch !== undefined) await this.#scratch.close(how);
    else if (!this.runner.dead) await this.runner.unpin(how);
  }
}
