/**
 * The leader of a range: admits statements, stamps them (time, seed), validates transactions and proposes commands.
 * Every node has one of these for each of its replicas; it refuses (RouteError) unless that replica leads, has applied an
 * entry of its own term, and so every inherited one, and knows again what those have prepared.
 *
 * Invariants:
 * 1. Waiting (for reservations, held transactions, fences) comes first; validation and admission to the log's queue then
 *    happen in one step.
 * 2. What was validated in a term is proposed in that term or dropped.
 * 3. Only statements of bounded cost are run in the storage worker or proposed without having run elsewhere before.
 * 4. All soft state belongs to one term and ends with it (leadership.ts).
 * 5. What is run or proposed lies wholly in the range's slice, as of the state it meets.
 *
 * Its parts: open-transactions.ts (transactions that run here), participant.ts (its part in commits across ranges),
 * fencing.ts (reads across ranges), reshaping.ts (splits, merges), admission.ts (who may go on).
 */

import { fromWireError, UserError } from "../base/errors.js";
import type { GroupId, NodeId, Term, TransactionId } from "../base/ids.js";
import type { Key } from "../base/keys.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  SchemaSnapshot,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { GroupStatus } from "../multiraft/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { Analysis, Footprint, Span, Statement } from "../sql/types.js";
import { SCHEMA } from "../txn/spans.js";
import { Fencing } from "./fencing.js";
import { LeaderContext, type LeaderDependencies, Leadership, MOVE_CODE } from "./leadership.js";
import { OpenTransactions } from "./open-transactions.js";
import { Participant } from "./participant.js";
import { Reshaping } from "./reshaping.js";
import type {
  CopyCommit,
  LocalRead,
  PinPoint,
  PrepareRequest,
  RangeService,
  RangeStatus,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
  Vote,
  WriteRequest,
} from "./types.js";

export { DEFAULT_LEADER_LIMITS, type LeaderLimits } from "./leadership.js";

type Move = { readonly ok: "move" };
const MOVE: Move = { ok: "move" };

/** After what is prepared could not be read. */
const PREPARED_AGAIN_MS = 500;

/** What lives as long as a leadership. */
interface Parts {
  readonly participant: Participant;
  readonly fencing: Fencing;
  readonly reshaping: Reshaping;
}

export class RangeLeader implements RangeService {
  readonly group: GroupId;
  readonly #deps: LeaderDependencies;
  readonly #context: LeaderContext;
  readonly #open: OpenTransactions;
  #parts: Parts | undefined;
  /** Ends the measuring of how long a transaction is held. */
  readonly #holding = new Map<TransactionId, () => void>();
  /** The term in which this replica is, or is becoming, the one that serves. */
  #taking: Term | undefined;
  #closed = false;

  constructor(deps: LeaderDependencies) {
    this.#deps = deps;
    this.group = deps.handle.group;
    this.#context = new LeaderContext(deps);
    this.#open = new OpenTransactions(this.#context);
    deps.handle.onChange((status) => this.#follow(status));
    deps.store.onState(() => this.#parts?.reshaping.trimSoon());
    this.#follow(deps.handle.status());
  }

  // --- leadership -----------------------------------------------------------------------------------------------

  #follow({ leaderReady, term }: Pick<GroupStatus, "leaderReady" | "term">): void {
    if (this.#closed || (leaderReady && this.#taking === term)) return;
    this.#taking = leaderReady ? term : undefined;
    this.#end();
    if (leaderReady) this.#learnPrepared(term);
  }

  /** Again and again while the range's file cannot be read: nobody else is going to serve in this term. */
  #learnPrepared(term: Term): void {
    this.#deps.store.prepared().then(
      (prepared) => {
        if (this.#taking === term) this.#take(term, prepared);
      },
      () => {
        if (this.#taking !== term) return;
        this.#deps.clock.setTimer(PREPARED_AGAIN_MS, () => {
          if (this.#taking === term) this.#learnPrepared(term);
        });
      },
    );
  }

  #take(term: Term, prepared: readonly PreparedTransaction[]): void {
    const context = this.#context;
    const leadership = new Leadership(term, prepared, this.#deps);
    context.current = leadership;
    this.#parts = {
      participant: new Participant(context, leadership, this.#open),
      fencing: new Fencing(context, leadership),
      reshaping: new Reshaping(context, leadership, this.#open),
    };
  }

  #end(): void {
    const { current } = this.#context;
    this.#context.current = undefined;
    this.#parts?.participant.end();
    this.#parts?.reshaping.end();
    this.#parts = undefined;
    this.#holding.clear();
    current?.end();
  }

  /** Ends what runs by itself; calls are refused from then on. */
  close(): void {
    this.#closed = true;
    this.#taking = undefined;
    this.#end();
  }

  #serving(): Parts {
    this.#context.serving();
    return this.#parts!;
  }

  // --- reads and autocommit -------------------------------------------------------------------------------------

  async readPoint(): Promise<ReadPoint> {
    const { term, admission } = this.#context.serving();
    const { holds } = admission.gate;
    // What is let go meanwhile was decided, and perhaps told, before: its entry may be behind the index.
    const before = holds.writes();
    const index = await this.#deps.handle.readIndex();
    const wallMs = this.#context.wallMs();
    const after = holds.writes();
    const held = before === undefined || before === after ? after : [...before, ...(after ?? [])];
    return held === undefined ? { index, term, wallMs } : { index, term, wallMs, held };
  }

  /** A repetition of a write that is on its way is proposed too: apply answers it from memory. */
  write(request: WriteRequest): Promise<CommandResult | Move> {
    const leadership = this.#context.current;
    if (leadership === undefined) return Promise.reject(this.#context.notLeading());
    const { statement, flags, lastInsertRowid } = request;
    let analysis: Analysis;
    try {
      analysis = this.#deps.schema.analyse(statement.sql);
    } catch (error) {
      return this.#context.schemaSettled(leadership, error).then(() => this.write(request));
    }
    if (!this.#context.runsInWorker(analysis) || !this.#isWanted(request)) return Promise.resolve(MOVE);
    // The parameters go into the log as they came; whatever is kept longer must not hold on to the message.
    const { params, vector } = statement;
    const writes = (): readonly Span[] => analysis.footprint(params).writes;
    const stamped: StampedStatement = {
      sql: analysis.sql,
      params,
      vector,
      flags,
      stamp: this.#context.stamp(lastInsertRowid),
      told: undefined,
      appendsTo: this.#context.appendsTo(writes),
    };
    const command: Command = {
      kind: "execute",
      key: request.key,
      wallMs: stamped.stamp.wallMs,
      statement: stamped,
    };
    const changesSchema = analysis.class.kind === "ddl";
    if (leadership.clear && !this.#context.restricted)
      return this.#context.submit(command, leadership, writes, changesSchema);
    return this.#inTurn(
      leadership,
      [analysis.footprint(params)],
      () => this.#context.submit(command, leadership, writes, changesSchema),
      () => this.write(request),
    );
  }

  #isWanted({ schemaVersion }: Pick<WriteRequest, "schemaVersion">): boolean {
    return schemaVersion === undefined || schemaVersion === this.#deps.schema.version;
  }

  async batch(request: Parameters<RangeService["batch"]>[0]): Promise<CommandResult | Move> {
    const leadership = this.#context.serving();
    const statements: StampedStatement[] = [];
    const footprints: Footprint[] = [];
    const { version } = this.#deps.schema;
    if (!this.#isWanted(request)) return MOVE;
    for (const { statement, flags, lastInsertRowid } of request.statements) {
      const analysis = await this.#context.analyse(leadership, statement.sql);
      if (!this.#context.runsInWorker(analysis) || analysis.class.kind === "ddl") return MOVE;
      statements.push(this.#context.stamped(analysis, statement.params, flags, lastInsertRowid));
      footprints.push(analysis.footprint(statement.params));
    }
    // What was looked at first may touch more by now.
    if (this.#deps.schema.version !== version) return this.batch(request);
    const command: Command = {
      kind: "transaction",
      key: request.key,
      wallMs: this.#context.wallMs(),
      transaction: request.transaction,
      statements,
    };
    const writes = (): readonly Span[] => footprints.flatMap((footprint) => footprint.writes);
    const submit = () => this.#context.submit(command, leadership, writes, false);
    if (leadership.clear && !this.#context.restricted) return submit();
    return this.#inTurn(leadership, footprints, submit, () => this.batch(request));
  }

  /** Waits for what is in the way. `again`: what was analysed against a schema that has changed meanwhile. */
  async #inTurn(
    leadership: Leadership,
    footprints: readonly Footprint[],
    submit: () => Promise<CommandResult>,
    again: () => Promise<CommandResult | Move>,
  ): Promise<CommandResult | Move> {
    const { line, admission } = leadership;
    const { version } = this.#deps.schema;
    const reads = footprints.flatMap((footprint) => [...footprint.reads, ...footprint.checks]);
    const writes = footprints.flatMap((footprint) => footprint.writes);
    this.#context.admit(reads, writes);
    if (!line.empty) await line.waitFor([...reads, ...writes], undefined);
    const result = await admission.pass<CommandResult | Move>({ kind: "write", reads, writes }, () => {
      if (this.#deps.schema.version !== version) return again();
      this.#context.admit(reads, writes);
      return submit();
    });
    return result.ok === false && result.error[1] === MOVE_CODE ? MOVE : result;
  }

  // --- transactions ---------------------------------------------------------------------------------------------

  begin(id: TransactionId, options: Parameters<RangeService["begin"]>[1]): Promise<PinPoint> {
    return this.#open.begin(id, options, () => this.readPoint());
  }

  run(request: TransactionStatement): Promise<TransactionStatementAnswer> {
    return this.#open.run(request);
  }

  recheck(id: TransactionId, ordinal: number): Promise<void> {
    return this.#open.recheck(id, ordinal);
  }

  truncate(id: TransactionId, ordinal: number): Promise<void> {
    return this.#open.truncate(id, ordinal);
  }

  commit(
    id: TransactionId,
    key: IdempotencyKey,
    reads: readonly LocalRead[],
    ran?: number,
  ): Promise<CommandResult> {
    return this.#open.commit(id, key, reads, ran);
  }

  commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult> {
    return this.#open.commitCopy(commit, reads);
  }

  rollback(id: TransactionId): Promise<void> {
    return this.#open.rollback(id);
  }

  async outcome(id: TransactionId, generation: number): Promise<"committed" | "aborted" | "unknown"> {
    const leadership = this.#context.leading();
    this.#context.checkGeneration(generation);
    // Its coordinator decides that.
    if (this.#parts!.participant.knows(id)) return "unknown";
    // Whatever is on its way under this id comes before the tombstone in the log.
    const wallMs = this.#context.wallMs();
    const named = /^(.+):(\d+)(?:@[0-9a-z]+)?$/.exec(id);
    // Of one that does not tell its age all that is not known may have been forgotten.
    const issuedMs = beganMs(id) ?? 0;
    // Autocommit writes are named by their key; the answer recorded under it is their outcome.
    const key: IdempotencyKey =
      named === null
        ? { client: `outcome-${id}`, sequence: 0, lowestUnanswered: 0, issuedMs }
        : { client: named[1]!, sequence: Number(named[2]), lowestUnanswered: 0, issuedMs };
    const result = await this.#context.submit(
      { kind: "tombstone", wallMs, key, transaction: id },
      leadership,
      () => [],
      false,
      generation,
    );
    if (named === null) return (result.ok ? result.decision : undefined) ?? "unknown";
    if (result.ok) return "committed";
    const [, code] = result.error;
    // From the future: nothing was recorded.
    return code === "OSTRAKA_UNKNOWN_OUTCOME" || code === "OSTRAKA_UNAVAILABLE" ? "unknown" : "aborted";
  }

  async answered(key: IdempotencyKey, generation: number): Promise<CommandResult | undefined> {
    const leadership = this.#context.leading();
    this.#context.checkGeneration(generation);
    await this.#deps.handle.readIndex();
    const answered = await this.#deps.store.answered(key);
    // Of the generation that was asked for, or the answers of another range would be missing.
    this.#context.checkGeneration(generation);
    if (this.#context.current !== leadership) throw this.#context.notLeading();
    return answered;
  }

  async setPragma(
    name: "user_version" | "application_id",
    value: number,
    key: IdempotencyKey,
  ): Promise<CommandResult> {
    const leadership = this.#context.serving();
    const writes = [SCHEMA];
    return leadership.admission.pass({ kind: "write", reads: [], writes }, () => {
      // The first range's is the database's.
      if (this.#context.state.descriptor.start !== "") throw this.#context.movedError();
      const command: Command = { kind: "pragma", key, wallMs: this.#context.wallMs(), name, value };
      return this.#context.submit(command, leadership, () => writes, true);
    });
  }

  // --- several ranges -------------------------------------------------------------------------------------------

  async read(
    request: Parameters<RangeService["read"]>[0],
  ): Promise<{ readonly outcome: StatementOutcome; readonly wallMs: number }> {
    const leadership = this.#context.serving();
    await this.#deps.handle.readIndex();
    const { holds } = leadership.admission.gate;
    for (;;) {
      const analysis = await this.#context.analyse(leadership, request.statement.sql);
      const spans = this.#readable(analysis, request.statement);
      await leadership.admission.pass({ kind: "read", reads: spans }, () => undefined);
      if (this.#context.serving() !== leadership) throw this.#context.notLeading();
      const watch = holds.watch(spans);
      try {
        const { outcome } = await this.#deps.store.read(request);
        this.#context.admit(spans, []);
        // What was prepared while it ran may have been in the state that it read, and told as committed already.
        if (!watch.met) return { outcome, wallMs: this.#context.wallMs() };
      } finally {
        holds.unwatch(watch);
      }
    }
  }

  #readable(analysis: Analysis, { params }: Pick<Statement, "params">): readonly Span[] {
    if (!analysis.readonly || !this.#context.runsInWorker(analysis))
      throw new UserError("OSTRAKA_TOO_LARGE", "the statement is not for the leader's worker");
    const { reads, checks } = analysis.footprint(params);
    const spans = [...reads, ...checks];
    this.#context.admit(spans, []);
    return spans;
  }

  async awaitHolds(spans: readonly Span[]): Promise<void> {
    await this.#context.serving().admission.pass({ kind: "read", reads: spans }, () => undefined);
  }

  async prepare(request: PrepareRequest): Promise<Vote> {
    const { participant } = this.#serving();
    const { trace } = this.#deps;
    if (trace === undefined) return participant.prepare(request);
    const { transaction } = request;
    trace.note(transaction, "prepare", "", this.group);
    const vote = await participant.prepare(request);
    trace.note(
      transaction,
      "vote",
      vote.vote === "no" ? `no: ${fromWireError(vote.error).message}` : vote.vote,
      this.group,
    );
    if (vote.vote === "yes") this.#holding.set(transaction, trace.phase("hold"));
    return vote;
  }

  async resolve(id: TransactionId, decision: "committed" | "aborted"): Promise<void> {
    this.#context.leading();
    await this.#parts!.participant.resolve(id, decision);
    const { trace } = this.#deps;
    if (trace === undefined) return;
    trace.note(id, "resolved", decision, this.group);
    this.#holding.get(id)?.();
    this.#holding.delete(id);
  }

  async fence(id: string, spans: readonly Span[], generation: number, standMs: number): Promise<PinPoint> {
    return this.#serving().fencing.fence(id, spans, generation, standMs);
  }

  async release(id: string, term: Term): Promise<boolean> {
    this.#context.leading();
    return this.#parts!.fencing.release(id, term);
  }

  async split(at: Key | undefined, child: GroupId): Promise<RangeDescriptor> {
    return this.#serving().reshaping.split(at, child);
  }

  async freeze(into: GroupId): Promise<RangeDescriptor> {
    this.#context.leading();
    return this.#parts!.reshaping.freeze(into);
  }

  async absorb(right: RangeDescriptor, ready: readonly NodeId[]): Promise<RangeDescriptor> {
    return this.#serving().reshaping.absorb(right, ready);
  }

  async describe(): Promise<RangeStatus> {
    const { term } = this.#context.leading();
    const { store, handle } = this.#deps;
    const counts = await store.rowCounts();
    return {
      descriptor: this.#context.descriptor(),
      leader: handle.leader,
      term,
      applied: store.appliedIndex(),
      rows: [...counts.values()].reduce((sum, rows) => sum + rows, 0),
      bytes: store.size().databaseBytes,
      prepared: this.#parts?.participant.prepared ?? 0,
    };
  }

  async schema(): Promise<SchemaSnapshot> {
    this.#context.leading();
    return this.#deps.store.schema();
  }
}

/** Transaction ids end in the time they were made at: an outcome that old may have been forgotten. */
function beganMs(id: TransactionId): number | undefined {
  const match = /@([0-9a-z]+)$/.exec(id);
  return match === null ? undefined : Number.parseInt(match[1]!, 36);
}
