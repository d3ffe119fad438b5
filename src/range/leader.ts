/**
 * The leader of a range: admits statements, stamps them (time, seed), validates transactions and proposes commands.
 * Every node has one of these for its replica; it refuses (RouteError) unless that replica leads and has applied an
 * entry of its own term, and so every inherited one.
 *
 * Invariants:
 * 1. Waiting (for reservations) comes first; validation and admission to the log's queue then happen in one step.
 * 2. What was validated in a term is proposed in that term or dropped.
 * 3. Only statements of bounded cost are run in the storage worker or proposed without having run elsewhere before.
 * 4. All soft state (open transactions, memory of writes, reservations) belongs to one term and ends with it.
 */
import {
  AmbiguousError,
  isWireError,
  RetryError,
  RouteError,
  toWireError,
  UserError,
} from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, type Term, type TransactionId } from "../base/ids.js";
import type { Clock, Random } from "../base/io.js";
import { toldDigest } from "../machines/range/told.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  RangeStore,
  Stamp,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { Analysis, Footprint, SessionFlags, Span, Statement } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";
import { type OpenTransaction, TransactionTable } from "../txn/transactions.js";
import type { WriteToken } from "../txn/write-memory.js";
import { type Proposal, Proposer } from "./proposer.js";
import { ReservationLine } from "./reservation-line.js";
import type { Schema } from "./schema.js";
import type {
  CopyCommit,
  LocalRead,
  RangeService,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
  WriteRequest,
} from "./types.js";

export interface LeaderLimits {
  /** Databases up to this size may be scanned in the storage worker. */
  readonly scanBytes: number;
  readonly maxResultBytes: number;
  /** Keys that the memory of writes holds at most. */
  readonly maxRememberedKeys: number;
  /** A transaction nobody has used for so long is forgotten. */
  readonly idleTransactionMs: number;
  /** A reservation whose holder does nothing for so long is let go. */
  readonly reservationMs: number;
  /** A replay that takes longer than this (and than copying the database would) moves the transaction to a copy. */
  readonly maxReplayMs: number;
}

export const DEFAULT_LEADER_LIMITS: LeaderLimits = {
  scanBytes: 1024 * 1024,
  maxResultBytes: 1024 * 1024,
  maxRememberedKeys: 200_000,
  idleTransactionMs: 2 * 60 * 60 * 1000,
  reservationMs: 1_000,
  maxReplayMs: 4,
};

/** Bytes a millisecond at which a database file is copied, about; for deciding between replay and copy. */
const COPY_BYTES_PER_MS = 1024 * 1024;
/** What it takes to run a bounded statement again, about. */
const REPLAY_MS = 0.02;
const EXPIRE_EVERY = 256;
/** Reads beyond which a statement only checks its own at once; commit checks all. */
const MAX_EARLY_CHECKS = 64;

interface LeaderDependencies {
  readonly handle: GroupHandle;
  readonly store: RangeStore;
  readonly schema: Schema;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: LeaderLimits;
}

/** A command on its way through the log, as the memory of writes has to know it. */
class WriteProposal implements Proposal {
  token: WriteToken | undefined;

  constructor(
    readonly command: Command,
    readonly writes: () => readonly Span[],
    readonly transactions: TransactionTable<StampedStatement>,
    readonly onSettled: (() => void) | undefined,
  ) {}

  settled(index: LogIndex | undefined, result: CommandResult | undefined): void {
    this.onSettled?.();
    if (this.token === undefined) return;
    // A transaction that was refused at apply has written nothing, and may go on (a deferred constraint failed);
    // an autocommit statement that failed may have (OR FAIL).
    const refused = result?.ok === false && this.command.kind !== "execute";
    if (index === undefined || refused) this.transactions.drop(this.token);
    else this.transactions.settle(this.token, index);
  }
}

type Move = { readonly ok: "move" };
const MOVE: Move = { ok: "move" };

export class RangeLeader implements RangeService {
  readonly group: GroupId;
  readonly #deps: LeaderDependencies;
  readonly #proposer: Proposer<WriteProposal>;
  #transactions: TransactionTable<StampedStatement> | undefined;
  #line: ReservationLine;
  #schemaChangesOnTheirWay = 0;
  #lastWallMs = 0;
  #opened = 0;

  constructor(deps: LeaderDependencies) {
    this.#deps = deps;
    this.group = deps.handle.group;
    this.#proposer = new Proposer(deps.handle);
    this.#line = new ReservationLine(deps.clock, deps.limits.reservationMs);
    const follow = ({ leaderReady, term }: { readonly leaderReady: boolean; readonly term: Term }): void => {
      if (leaderReady && this.#transactions?.term === term) return;
      this.#transactions = leaderReady
        ? new TransactionTable(term, deps.limits.maxRememberedKeys)
        : undefined;
      this.#line.clear();
      this.#line = new ReservationLine(deps.clock, deps.limits.reservationMs);
    };
    deps.handle.onChange(follow);
    follow(deps.handle.status());
  }

  #leading(): TransactionTable<StampedStatement> {
    const transactions = this.#transactions;
    if (transactions !== undefined) return transactions;
    throw this.#notLeading();
  }

  #notLeading(): RouteError {
    const { leader, role } = this.#deps.handle.status();
    return new RouteError(
      "this node does not lead the range",
      leader === 0 || role === "leader" ? undefined : leader,
    );
  }

  #wallMs(): number {
    this.#lastWallMs = Math.max(this.#lastWallMs, this.#deps.clock.wallMs(), this.#deps.store.lastWallMs());
    return this.#lastWallMs;
  }

  #stamp(lastInsertRowid: bigint): Stamp {
    const { random } = this.#deps;
    return {
      wallMs: this.#wallMs(),
      seed: (random.uint32() & 0x1fffff) * 2 ** 32 + random.uint32(),
      lastInsertRowid,
    };
  }

  #runsInWorker(analysis: Analysis): boolean {
    if (analysis.rowChangesOnly || analysis.touchesTemp || analysis.systemTables.length > 0) return false;
    if (analysis.cost === "bounded") return true;
    return analysis.cost === "scan" && this.#deps.store.size().databaseBytes <= this.#deps.limits.scanBytes;
  }

  // --- reads and autocommit -------------------------------------------------------------------------------------

  async readPoint(): Promise<ReadPoint> {
    const { term } = this.#leading();
    const index = await this.#deps.handle.readIndex();
    return { index, term, wallMs: this.#wallMs() };
  }

  /** A repetition of a write that is on its way is proposed too: apply answers it from memory. */
  write(request: WriteRequest): Promise<CommandResult | Move> {
    const transactions = this.#transactions;
    if (transactions === undefined) return Promise.reject(this.#notLeading());
    const { statement, flags, lastInsertRowid } = request;
    const analysis = this.#deps.schema.analyse(statement.sql);
    if (!this.#runsInWorker(analysis)) return Promise.resolve(MOVE);
    const { params, vector } = statement;
    const stamp = this.#stamp(lastInsertRowid);
    // The parameters go into the log as they came; whatever is kept longer must not hold on to the message.
    const stamped: StampedStatement = { sql: analysis.sql, params, vector, flags, stamp, told: undefined };
    const command: Command = {
      kind: "execute",
      key: request.key,
      wallMs: stamped.stamp.wallMs,
      statement: stamped,
    };
    const writes = (): readonly Span[] => analysis.footprint(params).writes;
    const { term } = transactions;
    const changesSchema = analysis.class.kind === "ddl";
    if (this.#line.empty) return this.#submit(command, term, writes, changesSchema);
    const turn = this.#line.waitFor(spansOf(analysis.footprint(params)), undefined);
    return turn.then(() => this.#submit(command, term, writes, changesSchema));
  }

  #stamped(
    analysis: Analysis,
    params: Statement["params"],
    flags: SessionFlags,
    lastInsertRowid: bigint,
  ): StampedStatement {
    return { sql: analysis.sql, params, flags, stamp: this.#stamp(lastInsertRowid), told: undefined };
  }

  /** Validated and waited for: from here to the log without a pause. */
  #submit(
    command: Command,
    term: Term,
    writes: () => readonly Span[],
    changesSchema: boolean,
  ): Promise<CommandResult> {
    const transactions = this.#transactions;
    if (transactions?.term !== term) return Promise.reject(new RouteError("leadership changed", undefined));
    // What is analysed against a schema that is about to change might write more than it says.
    const spans = this.#schemaChangesOnTheirWay > 0 ? everything : writes;
    if (changesSchema) this.#schemaChangesOnTheirWay++;
    const onSettled = changesSchema ? () => this.#schemaChangesOnTheirWay-- : undefined;
    const proposal = new WriteProposal(command, spans, transactions, onSettled);
    if (transactions.remembering) proposal.token = transactions.admit(spans());
    return this.#proposer.submit(proposal, term);
  }

  async batch(request: Parameters<RangeService["batch"]>[0]): Promise<CommandResult | Move> {
    const { term } = this.#leading();
    const statements: StampedStatement[] = [];
    const footprints: Footprint[] = [];
    for (const { statement, flags, lastInsertRowid } of request.statements) {
      const analysis = this.#deps.schema.analyse(statement.sql);
      if (!this.#runsInWorker(analysis) || analysis.class.kind === "ddl") return MOVE;
      statements.push(this.#stamped(analysis, statement.params, flags, lastInsertRowid));
      footprints.push(analysis.footprint(statement.params));
    }
    const command: Command = {
      kind: "transaction",
      key: request.key,
      wallMs: this.#wallMs(),
      transaction: request.transaction,
      statements,
    };
    const submit = () => this.#submit(command, term, () => footprints.flatMap(({ writes }) => writes), false);
    if (this.#line.empty) return submit();
    return this.#line.waitFor(footprints.flatMap(spansOf), undefined).then(submit);
  }

  // --- transactions ---------------------------------------------------------------------------------------------

  async begin(
    id: TransactionId,
    options: { readonly reserve: readonly Span[] | undefined; readonly age: number },
  ): Promise<ReadPoint> {
    const { term } = this.#leading();
    if (options.reserve !== undefined) await this.#line.reserve(id, options.reserve, options.age);
    const point = await this.readPoint();
    // What is applied by now has left the line and may be remembered by nobody: the transaction reads after it.
    const index = logIndex(Math.max(point.index, this.#deps.store.appliedIndex()));
    this.#open(id, index, term);
    return { ...point, index };
  }

  #open(id: TransactionId, index: LogIndex, term: Term): OpenTransaction<StampedStatement> {
    const transactions = this.#leading();
    if (transactions.term !== term) throw new RouteError("leadership changed", undefined);
    const nowMs = this.#deps.clock.monotonicMs();
    if (++this.#opened % EXPIRE_EVERY === 0) transactions.expire(nowMs - this.#deps.limits.idleTransactionMs);
    const remembered = transactions.remembering;
    const transaction = transactions.open(id, index, nowMs);
    if (!remembered)
      for (const proposal of this.#proposer.onTheirWay())
        proposal.token = transactions.admit(proposal.writes());
    return transaction;
  }

  #known(id: TransactionId, ordinal: number): OpenTransaction<StampedStatement> {
    const transaction = this.#leading().get(id);
    if (transaction === undefined || transaction.ordinal !== ordinal) {
      throw new RetryError(
        "OSTRAKA_RETRY",
        "the range's leader does not remember the transaction; run it again",
      );
    }
    transaction.lastUsedMs = this.#deps.clock.monotonicMs();
    this.#line.renew(id);
    return transaction;
  }

  async run(request: TransactionStatement): Promise<TransactionStatementAnswer> {
    const transactions = this.#leading();
    const { statement, ordinal, transaction: id } = request;
    const analysis = this.#deps.schema.analyse(statement.sql);
    if (!this.#runsInWorker(analysis) || analysis.class.kind === "ddl") return { kind: "move" };
    if (ordinal === 0 && transactions.get(id) === undefined) {
      // The memory has to reach back to before the first read; everything applied here and on its way is known.
      this.#open(id, this.#deps.store.appliedIndex(), transactions.term);
    }
    const transaction = this.#known(id, ordinal);
    const stamped = this.#stamped(analysis, statement.params, request.flags, request.lastInsertRowid);
    if (analysis.readonly && transaction.writes.length === 0)
      return this.#readInTransaction(transaction, analysis, stamped);
    return this.#speculate(transaction, analysis, stamped);
  }

  /** Doing again what the transaction has done would cost more than a copy on which it need not. */
  #outgrown(transaction: OpenTransaction<StampedStatement>): boolean {
    const { maxReplayMs } = this.#deps.limits;
    const copyMs = maxReplayMs + this.#deps.store.size().databaseBytes / COPY_BYTES_PER_MS;
    return transaction.writes.length * REPLAY_MS > copyMs;
  }

  async #readInTransaction(
    transaction: OpenTransaction<StampedStatement>,
    analysis: Analysis,
    stamped: StampedStatement,
  ): Promise<TransactionStatementAnswer> {
    const transactions = this.#leading();
    try {
      const { appliedIndex, outcome } = await this.#deps.store.read({
        statement: stamped,
        maxBytes: this.#deps.limits.maxResultBytes,
      });
      this.#record(
        transactions,
        transaction,
        analysis.footprint(stamped.params, outcome),
        appliedIndex,
        undefined,
      );
      return { kind: "ran", outcome, stamped: undefined, rolledBack: false };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      if (error.code === "OSTRAKA_TOO_LARGE") return { kind: "move" };
      const { reads, checks } = analysis.footprint(stamped.params);
      this.#record(
        transactions,
        transaction,
        { reads: [...reads, ...checks], writes: [], checks: [] },
        transaction.since,
        undefined,
      );
      return { kind: "ran", outcome: toWireError(error), stamped: undefined, rolledBack: false };
    }
  }

  async #speculate(
    transaction: OpenTransaction<StampedStatement>,
    analysis: Analysis,
    stamped: StampedStatement,
  ): Promise<TransactionStatementAnswer> {
    const transactions = this.#leading();
    const { id, writes } = transaction;
    const maxBytes = this.#deps.limits.maxResultBytes;
    const request = { transaction: id, position: writes.length, statement: stamped, maxBytes };
    let answer = await this.#deps.store.speculate({
      ...request,
      earlier: writes.length === 0 ? [] : undefined,
    });
    if (answer.kind === "lost") {
      if (this.#outgrown(transaction)) return { kind: "move" };
      const earlier = writes.map((write) => write.statement);
      answer = await this.#deps.store.speculate({ ...request, earlier });
    }
    if (answer.kind === "lost") throw this.#lost(id, "the transaction's speculation was lost");
    if (answer.kind === "changed")
      throw this.#lost(transaction.id, "what the transaction has done would not come out the same any more");
    const failed = isWireError(answer.outcome);
    if (isWireError(answer.outcome) && answer.outcome[1] === "OSTRAKA_TOO_LARGE") return { kind: "move" };
    if (answer.rolledBack) {
      this.#close(transaction.id);
      return { kind: "ran", outcome: answer.outcome, stamped: undefined, rolledBack: true };
    }
    const footprint = analysis.footprint(
      stamped.params,
      failed ? undefined : (answer.outcome as StatementOutcome),
    );
    const reads = failed ? [...footprint.reads, ...footprint.checks] : footprint.reads;
    // A failed write can have had effects (OR FAIL) and its error was told: it runs again with the others.
    const again = analysis.readonly ? undefined : { ...stamped, told: toldDigest(answer.outcome) };
    this.#record(transactions, transaction, { ...footprint, reads }, answer.appliedIndex, again);
    return { kind: "ran", outcome: answer.outcome, stamped: again, rolledBack: false };
  }

  /** Records what a statement read and wrote, unless what was read before has changed meanwhile. */
  #record(
    transactions: TransactionTable<StampedStatement>,
    transaction: OpenTransaction<StampedStatement>,
    footprint: Footprint,
    index: LogIndex,
    again: StampedStatement | undefined,
  ): void {
    // The schema is read by every statement; the first reading is the strictest.
    const reads = transaction.ordinal === 0 ? [SCHEMA, ...footprint.reads] : footprint.reads;
    transactions.ran(transaction, { ...footprint, reads }, index, again);
    if (transaction.reads.length > MAX_EARLY_CHECKS) return;
    const conflict = transactions.conflict(transaction);
    if (conflict !== undefined) throw this.#lost(transaction.id, conflict);
  }

  #lost(id: TransactionId, why: string): RetryError {
    this.#close(id);
    return new RetryError("OSTRAKA_RETRY", why);
  }

  #close(id: TransactionId): void {
    this.#transactions?.close(id);
    this.#line.release(id);
    this.#deps.store.forget(id);
  }

  async truncate(id: TransactionId, ordinal: number): Promise<void> {
    const transactions = this.#leading();
    const transaction = transactions.get(id);
    if (transaction === undefined)
      throw new RetryError(
        "OSTRAKA_RETRY",
        "the range's leader does not remember the transaction; run it again",
      );
    this.#deps.store.forget(id);
    transactions.truncate(transaction, ordinal);
  }

  async commit(id: TransactionId, key: IdempotencyKey, reads: readonly LocalRead[]): Promise<CommandResult> {
    const transactions = this.#leading();
    const transaction = transactions.get(id);
    if (transaction === undefined)
      return refused("the range's leader does not remember the transaction; run it again");
    const writes = transaction.writes.flatMap((write) => write.spans);
    const readSpans = [
      ...transaction.reads.flatMap((read) => read.spans),
      ...reads.flatMap((read) => read.spans),
    ];
    await this.#line.waitFor([...readSpans, ...writes], id);
    return this.#validated(transactions, transaction, reads, async (term) => {
      const statements = transaction.writes.map((write) => write.statement);
      if (statements.length === 0) {
        // Nothing to write: what was read is current, and a quorum confirms that nobody else decides that.
        await this.#deps.handle.readIndex();
        return { ok: true, outcomes: [], repeated: false };
      }
      const command: Command = {
        kind: "transaction",
        key,
        wallMs: this.#wallMs(),
        transaction: id,
        statements,
      };
      return this.#submit(command, term, () => writes, false);
    });
  }

  async commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult> {
    const transactions = this.#leading();
    const transaction = transactions.get(commit.transaction);
    if (transaction === undefined || commit.readTerm !== transactions.term) {
      return refused("the range's leader does not remember the transaction; run it again");
    }
    await this.#line.waitFor([...commit.reads, ...commit.writes], commit.transaction);
    const copied: LocalRead = {
      index: commit.readAt,
      term: commit.readTerm,
      spans: [SCHEMA, ...commit.reads],
    };
    return this.#validated(transactions, transaction, [...reads, copied], async (term) => {
      const { transaction: id, key, body } = commit;
      const wallMs = this.#wallMs();
      if (body.kind === "statements" && body.statements.length === 0) {
        await this.#deps.handle.readIndex();
        return { ok: true, outcomes: [], repeated: false };
      }
      const command: Command =
        body.kind === "statements"
          ? { kind: "transaction", key, wallMs, transaction: id, statements: body.statements }
          : { kind: "rows", key, wallMs, transaction: id, changes: body.changes, outcomes: body.outcomes };
      const changesSchema = commit.writes.some((span) => span.table === SCHEMA.table);
      return this.#submit(command, term, () => commit.writes, changesSchema);
    });
  }

  /** Validation and admission in one step; what becomes of the transaction afterwards follows from the result. */
  async #validated(
    transactions: TransactionTable<StampedStatement>,
    transaction: OpenTransaction<StampedStatement>,
    elsewhere: readonly LocalRead[],
    propose: (term: Term) => Promise<CommandResult>,
  ): Promise<CommandResult> {
    if (this.#transactions !== transactions) throw new RouteError("leadership changed", undefined);
    const stale = elsewhere.some((read) => read.term !== transactions.term);
    const conflict = stale
      ? "leadership changed since the transaction began"
      : transactions.conflict(transaction, elsewhere);
    if (conflict !== undefined) {
      this.#close(transaction.id);
      return refused(conflict);
    }
    const proposed = propose(transactions.term);
    try {
      const result = await proposed;
      // A constraint that only COMMIT checks failed: nothing was committed, and the transaction stays open.
      if (result.ok || result.error[1] === "OSTRAKA_RETRY") this.#close(transaction.id);
      return result;
    } catch (error) {
      this.#close(transaction.id);
      if (error instanceof AmbiguousError) throw new AmbiguousError(error.message, transaction.id);
      throw error;
    }
  }

  async rollback(id: TransactionId): Promise<void> {
    this.#close(id);
  }

  async outcome(id: TransactionId): Promise<"committed" | "aborted" | "unknown"> {
    const { term } = this.#leading();
    // Whatever is on its way under this id comes before the tombstone in the log.
    const wallMs = this.#wallMs();
    const named = /^(.+):(\d+)(?:@[0-9a-z]+)?$/.exec(id);
    const issuedMs = beganMs(id) ?? wallMs;
    // Autocommit writes are named by their key; the answer recorded under it is their outcome.
    const key: IdempotencyKey =
      named === null
        ? { client: `outcome-${id}`, sequence: 0, lowestUnanswered: 0, issuedMs }
        : { client: named[1]!, sequence: Number(named[2]), lowestUnanswered: 0, issuedMs };
    const result = await this.#submit(
      { kind: "tombstone", wallMs, key, transaction: id },
      term,
      () => [],
      false,
    );
    if (named === null) return (result.ok ? result.decision : undefined) ?? "unknown";
    if (result.ok) return "committed";
    return result.error[1] === "OSTRAKA_UNKNOWN_OUTCOME" ? "unknown" : "aborted";
  }

  setPragma(
    name: "user_version" | "application_id",
    value: number,
    key: IdempotencyKey,
  ): Promise<CommandResult> {
    const { term } = this.#leading();
    return this.#submit(
      { kind: "pragma", key, wallMs: this.#wallMs(), name, value },
      term,
      () => [SCHEMA],
      true,
    );
  }

  read = notBuilt;
  awaitHolds = notBuilt;
  prepare = notBuilt;
  resolve = notBuilt;
  fence = notBuilt;
  release = notBuilt;
  split = notBuilt;
  freeze = notBuilt;
  absorb = notBuilt;
  describe = notBuilt;
  schema = notBuilt;
}

function notBuilt(): never {
  throw new Error("not built yet");
}

function everything(): readonly Span[] {
  return [EVERYTHING];
}

function spansOf(footprint: Footprint): readonly Span[] {
  return [...footprint.reads, ...footprint.writes];
}

/** Transaction ids end in the time they were made at: an outcome that old may have been forgotten. */
function beganMs(id: TransactionId): number | undefined {
  const match = /@([0-9a-z]+)$/.exec(id);
  return match === null ? undefined : Number.parseInt(match[1]!, 36);
}

function refused(why: string): CommandResult {
  return { ok: false, error: ["retry", "OSTRAKA_RETRY", why, null], statement: 0 };
}
