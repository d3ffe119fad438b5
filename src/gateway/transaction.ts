/**
 * An interactive transaction as its gateway runs it. Nothing is locked and nothing replicated before COMMIT.
 *
 * Where a statement runs:
 * - bounded ones that touch one range at that one's leader, speculatively, in its storage worker ("light";
 *   light-parts.ts). Different statements may run at different leaders;
 * - a read of unknown cost, while nothing has been written, on a pin of the gateway's own replica, while there is one
 *   range;
 * - everything from the first other statement on in a workspace: a private copy of the one range, or a scratch database
 *   over many;
 * - READ ONLY transactions wholly on one snapshot.
 *
 * Invariants:
 * 1. Every read that the client was told of is in a footprint that the leader of its range validates at commit, also
 *    after the transaction has moved to a workspace.
 * 2. OSTRAKA_RETRY means that nothing was and nothing will be committed; after it only ROLLBACK passes (the session
 *    sees to that).
 */

import { AmbiguousError, RetryError, toWireError, UserError, type WireError } from "../base/errors.js";
import { type GroupId, type LogIndex, type TransactionId, transactionId } from "../base/ids.js";
import { quoteName } from "../machines/range/temp-objects.js";
import { toldDigest } from "../machines/range/told.js";
import type {
  CommandResult,
  IdempotencyKey,
  Runner,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import { rowsOf } from "../placement/route.js";
import type { ReadPoint } from "../range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Analysis, Span, Statement } from "../sql/types.js";
import { SCHEMA } from "../txn/spans.js";
import { type GatewayDatabase, outdated } from "./database.js";
import type { Deadline } from "./deadline.js";
import { History, statementBytes } from "./history.js";
import { asRetry, LightParts, outcomeOf, RolledBack } from "./light-parts.js";
import { collect } from "./outcomes.js";
import { PinnedReads } from "./pinned-reads.js";
import { PrivateCopy } from "./private-copy.js";
import { isOwnError } from "./pushed-reads.js";
import { reachOrClose, runOnPin } from "./reads.js";
import { isStillWhole, type Replica, reach, reachReadPoint, stampAt } from "./replica.js";
import type { SessionSettings } from "./settings.js";
import { changesDatabase, likesOtherwise } from "./statements.js";
import { WideWorkspace } from "./wide-workspace.js";
import type { RangeRead, Workspace } from "./workspace.js";

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
  /** The same, should it move to a workspace. */
  readonly reserveMoved?: readonly Span[] | undefined;
  /** It lost before: what each statement touches is reserved at the leader where it runs. */
  readonly lost?: boolean;
  /** Everything runs in a workspace. */
  readonly needsCopy: boolean;
  /** False: what it reads need not be one moment's, since nothing is told of it before all of it is validated. */
  readonly fenced?: boolean;
  /** The session's TEMP objects as the transaction begins; while there are any, it needs a copy. */
  readonly temp?: readonly string[];
  readonly borrow: (deadline: Deadline) => Promise<RunnerLoan>;
}

export class Transaction {
  readonly id: TransactionId;
  readonly history = new History();
  readonly #db: GatewayDatabase;
  readonly #options: TransactionOptions;
  /** Where it is registered, or the first range it touched. */
  #home: GroupId | undefined;
  readonly #light: LightParts;
  #point: ReadPoint | undefined;
  #moving = false;
  readonly #begun = new Set<GroupId>();
  #localReads: RangeRead[] = [];
  #loan: RunnerLoan | undefined;
  #workspace: Workspace | undefined;
  /** It has gone on in a workspace: what it does goes on in one, and in another where that one is lost. */
  #moved = false;
  #pinned: PinnedReads | undefined;

  constructor(db: GatewayDatabase, options: TransactionOptions) {
    this.#db = db;
    this.#options = options;
    this.id = options.id;
    this.#light = new LightParts(db, options.id);
  }

  /** Committed or rolled back, or past the point where it could go on. */
  ended = false;

  /** It runs in a workspace of its own. */
  get moved(): boolean {
    return this.#moved;
  }

  /** It changed the schema, or the session's TEMP objects: only its workspace knows what there is now. */
  get knowsSchema(): boolean {
    return this.#workspace?.knowsSchema === true;
  }

  get readOnly(): boolean {
    return this.#options.mode === "read only";
  }

  /** Registers at the leader, waiting for its turn when it reserves. Statements do this by themselves. */
  async begin(deadline: Deadline): Promise<ReadPoint> {
    if (this.#point !== undefined) return this.#point;
    const { age } = this.#options;
    const reserve = this.#options.reserve ?? (this.#moving ? this.#options.reserveMoved : undefined);
    this.#point = await this.#db.persist(deadline, async () => {
      // Whoever reserves at several leaders does so in one global order.
      const ranges = reserve === undefined ? [this.#home ?? this.#db.first.range] : this.#reserving(reserve);
      this.#home ??= ranges[0]!;
      let point: ReadPoint | undefined;
      for (const range of ranges) {
        if (deadline.stopped) throw deadline.reason();
        // Before it is asked: whoever gives up while it waits for its turn tells the leader so.
        this.#begun.add(range);
        const begun = await this.#db.client(range).begin(this.id, { reserve, age });
        point ??= begun;
      }
      return point!;
    });
    return this.#point;
  }

  /** Where what is reserved lies, in the order of keys. */
  #reserving(spans: readonly Span[]): readonly GroupId[] {
    const ranges = this.#db.rangesOf(spans).map(({ range }) => range);
    // Every range takes part in a change of the schema, and so one of them is enough to line up at.
    const { range: first } = this.#db.first;
    if (ranges[0] !== first && spans.some((span) => span.table === SCHEMA.table)) ranges.unshift(first);
    return ranges.length === 0 ? [this.#home ?? first] : ranges;
  }

  analyse(sql: string): Analysis {
    return this.#workspace !== undefined
      ? this.#workspace.analyse(sql)
      : this.#db.ranges.schema().analyse(sql);
  }

  /** The workspace or snapshot that session-level questions (pragmas, TEMP) are answered from; opened on demand. */
  async scratch(deadline: Deadline): Promise<Runner> {
    if (this.readOnly) return (await this.#pin(deadline)).runner;
    return (await this.#move([], deadline)).runner;
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
    await this.#buryDeadWorkspace();
    if (
      !this.#moved &&
      !this.#options.needsCopy &&
      systemTables.length === 0 &&
      !analysis.touchesTemp &&
      analysis.class.kind !== "ddl"
    ) {
      const whole = this.#db.whole;
      const cheap =
        this.#isCheap(analysis, whole) &&
        !likesOtherwise(analysis, settings.flags, this.#db.ranges.schema().snapshot);
      const at =
        cheap && !analysis.rowChangesOnly ? this.#lightRange(statement, analysis, settings) : undefined;
      if (at !== undefined) {
        const answer = await this.#runLight(at, statement, analysis, settings, deadline);
        if (answer !== undefined) return answer;
      } else if (whole !== undefined && analysis.readonly && !cheap && !this.history.hasWrites()) {
        const answer = await this.#runLocally(whole, admitted, analysis, settings, deadline);
        if (answer !== undefined) return answer;
        // By the schema that it would have run on, which may read other tables, and in all ranges that there are by now.
        const anew = settings.compiled(this.analyse(statement.sql));
        return this.run(statement, anew, settings, deadline, systemTables);
      }
    }
    const before = this.#workspace;
    const workspace = await this.#move(rowsOf(analysis.footprint(statement.params)), deadline);
    // The first to run there: by the schema that the workspace has, which may be a newer one.
    if (workspace !== before && outdated(analysis, workspace.schemaVersion)) {
      const anew = settings.compiled(workspace.analyse(statement.sql));
      const again = { sql: anew.sql, params: statement.params };
      return this.#runInWorkspace(again, anew, settings, deadline, systemTables);
    }
    return this.#runInWorkspace(admitted, analysis, settings, deadline, systemTables);
  }

  /** Runs what is not analysed (pragmas, EXPLAIN) as the transaction sees the schema. */
  async introspect(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    const admitted = { ...analysis, sql: statement.sql };
    if (this.readOnly) return this.#runPinned(statement, admitted, settings, deadline, systemTables);
    await this.#move(analysis.footprint(statement.params).reads, deadline);
    return this.#runInWorkspace(statement, admitted, settings, deadline, systemTables);
  }

  #isCheap(analysis: Analysis, whole: Replica | undefined): boolean {
    if (analysis.cost === "bounded") return true;
    return (
      analysis.cost === "scan" &&
      whole !== undefined &&
      whole.store.size().databaseBytes <= this.#db.limits.scanBytes
    );
  }

  /** The one range that all that the statement touches lies in, if it can run at its leader. */
  #lightRange(statement: Statement, analysis: Analysis, settings: SessionSettings): GroupId | undefined {
    const { whole } = this.#db;
    const touched =
      whole === undefined ? this.#db.touched(analysis.footprint(statement.params)) : [{ range: whole.range }];
    if (touched.length > 1) return undefined;
    const range = touched[0]?.range ?? this.#light.first ?? this.#home ?? this.#db.first.range;
    // What was read on a replica is validated with what ran at that range's leader alone.
    if (this.#localReads.some((read) => read.range !== range)) return undefined;
    if (!this.#light.mayRunAt(range, settings.flags, this.history)) return undefined;
    this.#home ??= range;
    return range;
  }

  #bound(statement: Statement): void {
    const { maxTransactionBytes } = this.#db.limits;
    if (this.history.bytes + statementBytes(statement.sql, statement.params) > maxTransactionBytes) {
      throw new UserError(
        "OSTRAKA_TOO_LARGE",
        `a transaction may hold ${maxTransactionBytes} bytes of statements and parameters`,
      );
    }
  }

  /** Undefined when the leader will not run it in its worker. */
  async #runLight(
    range: GroupId,
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
  ): Promise<ExecuteResult | undefined> {
    const { reserve, lost, age } = this.#options;
    if (reserve !== undefined) await this.begin(deadline);
    const { flags, lastInsertRowid } = settings;
    const fresh = this.#localReads.length === 0;
    const reserveAgeMs = lost && reserve === undefined ? age : undefined;
    // Whoever gives up while it runs tells the leader so.
    this.#begun.add(range);
    const request = { statement, flags, lastInsertRowid, reserveAgeMs };
    const answer = await this.#light.run(range, request, deadline, fresh);
    if (answer.kind === "move") return undefined;
    this.#db.counts.single++;
    if (answer.stamped !== undefined)
      this.history.wrote(answer.stamped, answer.outcome, this.#light.ordinal - 1);
    if (!answer.rolledBack) await this.#light.recheck(range, deadline);
    const outcome = outcomeOf(answer);
    if (!analysis.readonly) settings.wrote(outcome);
    return { kind: "outcome", outcome };
  }

  /** Undefined when it is not known what it has read. */
  async #runLocally(
    replica: Replica,
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
  ): Promise<ExecuteResult | undefined> {
    const point = await this.begin(deadline);
    await reach(replica, point.index, deadline);
    const stamped = this.#stamped(statement, analysis, settings, point);
    const spans = [SCHEMA, ...analysis.footprint(statement.params).reads];
    const read = (index: LogIndex): number =>
      this.#localReads.push({ range: replica.range, index, term: point.term, spans });
    let pinned: Awaited<ReturnType<typeof runOnPin>>;
    try {
      pinned = await runOnPin(replica, this.#db.space, stamped, deadline, []);
    } catch (error) {
      if (!isOwnError(error)) throw error;
      // Which state it was on is not known: not before the point, and not after what is applied by now.
      await reachReadPoint(replica, deadline);
      if (!isStillWhole(replica)) return undefined;
      read(point.index);
      throw error;
    }
    const { stream, index } = pinned;
    await reachOrClose(replica, index, stream, deadline);
    if (outdated(analysis, replica.schema.version) || !isStillWhole(replica)) {
      await stream.close();
      return undefined;
    }
    this.#db.counts.single++;
    read(index);
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
      stamp: stampAt(this.#db, point, settings.lastInsertRowid),
      told: undefined,
    };
  }

  async #pin(deadline: Deadline): Promise<PinnedReads> {
    if (this.#pinned !== undefined) return this.#pinned;
    const runner = await this.#process(deadline);
    this.#pinned = await PinnedReads.open(this.#db, runner, deadline, this.#options.temp ?? []);
    return this.#pinned;
  }

  /** A process that works: whoever could not open anything in one may have taken it with them. */
  async #process(deadline: Deadline): Promise<Runner> {
    if (this.#loan?.runner.dead === true) await this.#returnLoan();
    this.#loan ??= await this.#options.borrow(deadline);
    return this.#loan.runner;
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
    const pinned = await this.#pin(deadline);
    const stamped = this.#stamped(statement, analysis, settings, pinned);
    const stream = await pinned.run(stamped, analysis, deadline, systemTables);
    if (analysis.class.kind !== "write") return { kind: "stream", stream };
    const outcome = await collect(stream, this.#db.limits.maxTransactionBytes);
    settings.wrote(outcome);
    return { kind: "outcome", outcome };
  }

  /** Opens the workspace; `spans` are those of the statement that needs it. */
  async #move(spans: readonly Span[], deadline: Deadline): Promise<Workspace> {
    await this.#buryDeadWorkspace();
    if (this.#workspace !== undefined) return this.#workspace;
    const whole = this.#db.whole;
    if (whole !== undefined && this.#hasBeenAt(whole.range)) {
      await this.begin(deadline);
      const runner = await this.#process(deadline);
      this.#workspace = await PrivateCopy.open(whole, runner, this.history, deadline);
    } else {
      const runner = await this.#process(deadline);
      // Reserves everywhere first, once, if it reserves at all.
      this.#moving = true;
      if ((this.#options.reserve ?? this.#options.reserveMoved) !== undefined) await this.begin(deadline);
      const transaction = { ...this.#options, begun: this.#begun };
      this.#workspace = await WideWorkspace.open(
        this.#db,
        runner,
        transaction,
        this.history,
        spans,
        deadline,
      );
    }
    this.#moved = true;
    return this.#workspace;
  }

  /** And nowhere else: what was read of a range that has been merged into it since is not for its leader to validate. */
  #hasBeenAt(range: GroupId): boolean {
    const read = this.#localReads.map((local) => local.range);
    const touched = [...this.#light.ran.keys(), ...read];
    if (touched.length === 0 && this.#home !== undefined) touched.push(this.#home);
    return touched.every((other) => other === range);
  }

  /**
   * A statement that was stopped took the process and the workspace with it. The transaction goes on in another one,
   * doing again what it had done; what it had read there still has to hold.
   */
  async #buryDeadWorkspace(): Promise<void> {
    const workspace = this.#workspace;
    if (workspace === undefined || !workspace.runner.dead) return;
    this.#localReads.push(...workspace.reads());
    this.history.forgetTemp();
    await workspace.rollback();
    await this.#returnLoan();
  }

  /** What ends or marks the transaction needs the workspace as a statement does. */
  async #revive(deadline: Deadline): Promise<void> {
    if (this.#moved) await this.#move([], deadline);
  }

  async #runInWorkspace(
    statement: Statement,
    analysis: Analysis,
    settings: SessionSettings,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<ExecuteResult> {
    const workspace = this.#workspace!;
    if (workspace instanceof PrivateCopy) this.#db.counts.single++;
    const stamped = this.#stamped(statement, analysis, settings, workspace);
    if (analysis.readonly)
      return { kind: "stream", stream: await workspace.stream(stamped, analysis, deadline, systemTables) };
    let outcome: StatementOutcome;
    try {
      outcome = await workspace.run(stamped, analysis, deadline, systemTables);
    } catch (error) {
      // What stopped it may have come too late: only a workspace where it has not run is without what it did.
      if (!isOwnError(error)) workspace.runner.kill();
      if (!(error instanceof UserError) || workspace.runner.dead) throw error;
      if (workspace.runner.rolledBack) throw new RolledBack(error);
      this.#did(stamped, analysis, toWireError(error));
      throw error;
    }
    this.#did(stamped, analysis, outcome);
    settings.wrote(outcome);
    return { kind: "outcome", outcome };
  }

  #did(stamped: StampedStatement, analysis: Analysis, told: StatementOutcome | WireError): void {
    // What only touches the session's TEMP objects is nothing to replicate. A write that finds no key to look for is one.
    const ofTemp = analysis.touchesTemp && !changesDatabase(analysis, stamped.params);
    const kind = ofTemp ? "temp" : "write";
    this.history.wrote({ ...stamped, told: toldDigest(told) }, told, this.#light.ordinal, kind);
  }

  /** Whether a statement that failed in the workspace has left changes behind (OR FAIL, RAISE(FAIL)). */
  async leftChanges(): Promise<boolean> {
    const runner = this.#workspace?.runner;
    if (runner === undefined || runner.dead || !this.history.hasWrites()) return false;
    try {
      return (await runner.captured()).length > 0;
    } catch (error) {
      // Not captured, so it cannot be ruled out.
      if (error instanceof UserError) return true;
      throw error;
    }
  }

  async savepoint(name: string, deadline: Deadline): Promise<void> {
    await this.#mark(deadline);
    this.history.savepoint(name, this.#light.ordinal);
    await this.#control(`SAVEPOINT ${quoteName(name)}`, deadline);
  }

  async release(name: string, deadline: Deadline): Promise<void> {
    await this.#mark(deadline);
    this.history.release(name);
    await this.#control(`RELEASE ${quoteName(name)}`, deadline);
  }

  /** Whoever was cancelled before it came to them has marked nothing. */
  async #mark(deadline: Deadline): Promise<void> {
    await this.#revive(deadline);
    if (deadline.signal.aborted) throw deadline.reason();
  }

  /** The history has it: where it is not known whether the workspace has, the next one does as the history says. */
  async #control(sql: string, deadline: Deadline): Promise<void> {
    const workspace = this.#workspace;
    await workspace?.control(sql, deadline).catch((error: unknown) => {
      workspace.runner.kill();
      throw error;
    });
  }

  async rollbackTo(name: string, deadline: Deadline): Promise<void> {
    await this.#mark(deadline);
    const ordinal = this.history.rollbackTo(name);
    if (this.#workspace !== undefined) {
      await this.#control(`ROLLBACK TO ${quoteName(name)}`, deadline);
    } else if (ordinal < this.#light.ordinal) await this.#light.truncate(ordinal, deadline);
  }

  /** Commits, or says why not. A failed deferred constraint leaves the transaction open, as in SQLite. */
  async commit(key: IdempotencyKey, deadline: Deadline): Promise<CommandResult> {
    const { ran } = this.#light;
    const untouched = ran.size === 0 && this.#localReads.length === 0 && !this.#moved;
    if (this.readOnly || untouched) {
      await this.#end("commit");
      return { ok: true, outcomes: [], repeated: false };
    }
    await this.#revive(deadline);
    const workspace = this.#workspace;
    const { id, history } = this;
    const attempt =
      workspace === undefined
        ? this.#commitLight(key, deadline)
        : workspace.commit({ transaction: id, key, history, earlier: this.#localReads, ran, deadline });
    const result = await attempt.catch((error: unknown) => this.#resolve(error, deadline));
    // A constraint that only COMMIT checks: nothing was committed, the transaction goes on. A workspace cannot.
    const inOne = workspace === undefined && ran.size < 2;
    if (result.ok || !inOne || result.error[1] === "OSTRAKA_RETRY") await this.#giveBack();
    // Where it has reserved and then done nothing, or its part was not asked for, nobody has heard of its end.
    const left = this.#begun.size > 1 && [...this.#begun].some((range) => !ran.has(range));
    if (result.ok ? left : !inOne) void this.#close();
    return result;
  }

  #commitLight(key: IdempotencyKey, deadline: Deadline): Promise<CommandResult> {
    const { ran, first } = this.#light;
    if (ran.size > 1) return this.#light.commitAll(key, this.history, deadline);
    return this.#light.commitOne(first ?? this.#home ?? this.#db.first.range, key, this.#localReads);
  }

  async #close(): Promise<void> {
    const closed = new Set([...this.#begun, ...this.#light.ran.keys()]);
    const closing = [...closed].map((range) => this.#db.client(range).rollback(this.id));
    await Promise.allSettled(closing);
  }

  /** The answer to COMMIT got lost: asks what became of it (an unknown transaction is recorded as aborted first). */
  async #resolve(error: unknown, deadline: Deadline): Promise<CommandResult> {
    if (!(error instanceof AmbiguousError)) throw asRetry(error);
    const id = error.transactionId === undefined ? this.id : transactionId(error.transactionId);
    const outcome = await this.#db.outcome(id, deadline).catch(() => "unknown" as const);
    if (outcome === "committed") return { ok: true, outcomes: [], repeated: true };
    if (outcome === "aborted")
      throw new RetryError("OSTRAKA_RETRY", "leadership changed during COMMIT; nothing was committed");
    throw new AmbiguousError(
      `it is not known whether the transaction was committed: ${error.message}`,
      this.id,
    );
  }

  async rollback(): Promise<void> {
    await this.#end("rollback");
  }

  /** `how`: what becomes of TEMP objects that were written beside a snapshot. */
  async #end(how: "commit" | "rollback"): Promise<void> {
    await this.#close();
    await this.#workspace?.rollback();
    await this.#giveBack(how);
  }

  async #giveBack(how: "commit" | "rollback" = "rollback"): Promise<void> {
    this.ended = true;
    await this.#returnLoan(how);
  }

  async #returnLoan(how: "commit" | "rollback" = "rollback"): Promise<void> {
    const pinned = this.#pinned;
    this.#pinned = undefined;
    this.#workspace = undefined;
    await pinned?.close(how).catch(() => pinned.runner.kill());
    this.#loan?.giveBack();
    this.#loan = undefined;
  }
}
