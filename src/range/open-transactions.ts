/**
 * Transactions that run at the leader: their statements, speculatively and one after the other, and their commit on this
 * range alone (also of those that ran on a gateway's private copy).
 *
 * Invariants:
 * 1. Waiting (for reservations, holds, fences) comes first; validation and admission to the log's queue then happen in
 *    one step.
 * 2. A commit that is on its way is not validated again when it is asked for again: both get its answer.
 * 3. What a transaction has read and would write lies in the range's slice; when it does not any more, it gets
 *    OSTRAKA_RETRY.
 */
import { AmbiguousError, isWireError, RetryError, toWireError, UserError } from "../base/errors.js";
import { type LogIndex, logIndex, type TransactionId } from "../base/ids.js";
import { encodeKey } from "../base/keys.js";
import { decodeRows } from "../base/values.js";
import { encodeStatement } from "../machines/range/command-body.js";
import { toldDigest } from "../machines/range/told.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { TableKey } from "../placement/descriptor.js";
import { isOfChosenKeys } from "../placement/route.js";
import type { Analysis, Footprint, Span } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";
import { type OpenTransaction, remembers, spansLookedAt, spansWritten } from "../txn/transactions.js";
import { type LeaderContext, type Leadership, MOVE_CODE, type RunStatement } from "./leadership.js";
import type {
  CopyCommit,
  LocalRead,
  PinPoint,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
} from "./types.js";

/** Bytes a millisecond at which a database file is copied, about; for deciding between replay and copy. */
const COPY_BYTES_PER_MS = 1024 * 1024;
/** What it takes to run a bounded statement again, about. */
const REPLAY_MS = 0.02;
const EXPIRE_EVERY = 256;
/** Reads beyond which a statement only checks its own at once; commit checks all. */
const MAX_EARLY_CHECKS = 64;
export const FORGOTTEN = "the range's leader does not remember the transaction; run it again";

type Open = OpenTransaction<RunStatement>;

/** What a commit writes and proposes, decided before it waits. */
interface CommitPlan {
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
  /** What is looked at again when texts run again; no more is known of it than that it has to be at rest. */
  readonly checks?: readonly Span[];
  /** That rows are of, and what was read of them. */
  readonly schemaVersion?: number;
  /** Undefined when there is nothing to write. */
  readonly command: (() => Command) | undefined;
}

export class OpenTransactions {
  readonly #context: LeaderContext;
  readonly #committing = new Map<TransactionId, Promise<CommandResult>>();
  #opened = 0;

  constructor(context: LeaderContext) {
    this.#context = context;
  }

  async begin(
    id: TransactionId,
    options: { readonly reserve: readonly Span[] | undefined; readonly age: number },
    readPoint: () => Promise<ReadPoint>,
  ): Promise<PinPoint> {
    const leadership = this.#context.serving();
    const { admission } = leadership;
    // It could not commit with what it has read before a change of the schema that is decided.
    if (!admission.clear) await admission.pass({ kind: "read", reads: [SCHEMA] }, () => undefined);
    if (options.reserve !== undefined) await leadership.line.reserve(id, options.reserve, options.age);
    const point = await readPoint();
    // What is applied by now has left the line and may be remembered by nobody: the transaction reads after it.
    const { store, schema } = this.#context.deps;
    const index = logIndex(Math.max(point.index, store.appliedIndex()));
    this.#open(id, index, leadership);
    return { ...point, index, schemaVersion: schema.version };
  }

  #open(id: TransactionId, index: LogIndex, leadership: Leadership): Open {
    const { clock, limits } = this.#context.deps;
    if (this.#context.leading() !== leadership) throw this.#context.notLeading();
    const { transactions } = leadership;
    const nowMs = clock.monotonicMs();
    if (++this.#opened % EXPIRE_EVERY === 0) transactions.expire(nowMs - limits.idleTransactionMs);
    const remembered = transactions.remembering;
    const transaction = transactions.open(id, index, nowMs);
    if (!remembered) this.#context.rememberOnTheirWay(leadership);
    return transaction;
  }

  #known(leadership: Leadership, id: TransactionId, ordinal: number): Open {
    const transaction = leadership.transactions.get(id);
    if (transaction === undefined || transaction.ordinal !== ordinal)
      throw new RetryError("OSTRAKA_RETRY", FORGOTTEN);
    transaction.lastUsedMs = this.#context.deps.clock.monotonicMs();
    leadership.line.renew(id);
    return transaction;
  }

  // --- statements -----------------------------------------------------------------------------------------------

  async run(request: TransactionStatement): Promise<TransactionStatementAnswer> {
    const leadership = this.#context.serving();
    const { transactions } = leadership;
    const { store } = this.#context.deps;
    const { statement, ordinal, transaction: id } = request;
    const admitted = await this.#admitted(leadership, request);
    if (admitted === undefined) return { kind: "move" };
    const { analysis, version } = admitted;
    if (ordinal === 0 && transactions.get(id) === undefined) {
      // The memory has to reach back to before the first read; everything applied here and on its way is known.
      this.#open(id, store.appliedIndex(), leadership);
    }
    const transaction = this.#known(leadership, id, ordinal);
    const stamped = this.#context.stamped(analysis, statement.params, request.flags, request.lastInsertRowid);
    const answer =
      analysis.readonly && transaction.writes.length === 0
        ? await this.#readInTransaction(leadership, transaction, analysis, stamped)
        : await this.#speculate(leadership, transaction, analysis, stamped);
    // Changes are told before the answers that come after them: it may have touched anything else than it was taken for.
    if (this.#context.deps.schema.version !== version)
      throw this.#lost(leadership, id, "the schema has changed while the statement ran");
    return answer;
  }

  /** Undefined when it is not for this leader's worker. Waits for what held transactions may change of what it reads. */
  async #admitted(
    leadership: Leadership,
    request: TransactionStatement,
  ): Promise<{ readonly analysis: Analysis; readonly version: number } | undefined> {
    const { schema } = this.#context.deps;
    const { sql, params } = request.statement;
    for (let waited = false; ; waited = true) {
      const { version } = schema;
      const analysis = await this.#context.analyse(leadership, sql);
      if (schema.version !== version) continue;
      if (!this.#context.runsInWorker(analysis) || analysis.class.kind === "ddl") return undefined;
      if (!waited && (request.reserveAgeMs !== undefined || !leadership.line.empty)) {
        await this.#waitInLine(leadership, request, analysis.footprint(params));
        continue;
      }
      const { gate } = leadership.admission;
      const admitted = { analysis, version };
      if (gate.holds.size === 0 && !this.#context.restricted) return admitted;
      const { reads, writes, checks } = analysis.footprint(params);
      const looked = [...reads, ...checks];
      if (gate.holds.meets(looked, [])) {
        await leadership.admission.pass({ kind: "read", reads: looked }, () => undefined);
        if (this.#context.leading() !== leadership) throw this.#context.notLeading();
        if (schema.version !== version) continue;
      }
      this.#context.admit(looked, writes);
      return (await this.#appendsWrongly(writes)) ? undefined : admitted;
    }
  }

  /**
   * Whoever lost before has what it touches to itself, and others read it afterwards: they would read in vain. The wait is
   * bounded, and what comes of it is fairness only.
   */
  async #waitInLine(
    leadership: Leadership,
    { transaction, reserveAgeMs }: TransactionStatement,
    { reads, writes, checks }: Footprint,
  ): Promise<void> {
    const { line } = leadership;
    const { prepareWaitMs } = this.#context.deps.limits;
    // Everybody reads the schema, and whoever looks for a key what might come under a chosen one.
    const looked = [...reads, ...checks].filter(
      (span) => span.table !== SCHEMA.table && !isOfChosenKeys(span),
    );
    const spans = [...looked, ...writes];
    if (reserveAgeMs !== undefined) await line.more(transaction, spans, reserveAgeMs, prepareWaitMs);
    else await line.waitAtMost(spans, transaction, prepareWaitMs);
    if (this.#context.leading() !== leadership) throw this.#context.notLeading();
  }

  /**
   * A key that SQLite is to choose in a slice that is not the table's first comes after the greatest one in the slice,
   * and there is none: rows that lie before the slice are not here, or are left from before a split.
   */
  async #appendsWrongly(writes: readonly Span[]): Promise<boolean> {
    if (!this.#context.restricted) return false;
    for (const table of this.#context.slice.appendsTo(writes)) if (await this.#hasNoRow(table)) return true;
    return false;
  }

  async #hasNoRow(table: TableKey): Promise<boolean> {
    const { start } = this.#context.slice.slice;
    const rowid = `"${(table.keyColumns[0] ?? "rowid").replaceAll('"', '""')}"`;
    const sql = table.autoincrement
      ? `SELECT seq FROM sqlite_sequence WHERE name = '${table.name.replaceAll("'", "''")}' COLLATE NOCASE`
      : `SELECT max(${rowid}) FROM "${table.name.replaceAll('"', '""')}"`;
    const statement = { sql, params: [], flags: 0, stamp: this.#context.stamp(0n), told: undefined };
    const { outcome } = await this.#context.deps.store.read({ statement, maxBytes: 1024 });
    const greatest = decodeRows(outcome.rows)[0]?.[0];
    return typeof greatest !== "bigint" || encodeKey(table.id, [greatest]) < start;
  }

  /** Doing again what the transaction has done would cost more than a copy on which it need not. */
  #outgrown(transaction: Open): boolean {
    const { limits, store } = this.#context.deps;
    const copyMs = limits.maxReplayMs + store.size().databaseBytes / COPY_BYTES_PER_MS;
    return transaction.writes.length * REPLAY_MS > copyMs;
  }

  async #readInTransaction(
    leadership: Leadership,
    transaction: Open,
    analysis: Analysis,
    stamped: StampedStatement,
  ): Promise<TransactionStatementAnswer> {
    const { store, limits } = this.#context.deps;
    try {
      const { appliedIndex, outcome } = await store.read({
        statement: stamped,
        maxBytes: limits.maxResultBytes,
      });
      const footprint = analysis.footprint(stamped.params, outcome);
      this.#record(leadership, transaction, footprint, appliedIndex, undefined);
      return { kind: "ran", outcome, stamped: undefined, rolledBack: false };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      if (error.code === "OSTRAKA_TOO_LARGE") return { kind: "move" };
      const { reads, checks } = analysis.footprint(stamped.params);
      const looked = { reads: [...reads, ...checks], writes: [], checks: [] };
      this.#record(leadership, transaction, looked, transaction.since, undefined);
      return { kind: "ran", outcome: toWireError(error), stamped: undefined, rolledBack: false };
    }
  }

  async #speculate(
    leadership: Leadership,
    transaction: Open,
    analysis: Analysis,
    stamped: StampedStatement,
  ): Promise<TransactionStatementAnswer> {
    const { id, writes } = transaction;
    const { store, limits } = this.#context.deps;
    const maxBytes = limits.maxResultBytes;
    const request = { transaction: id, position: writes.length, statement: stamped, maxBytes };
    let answer = await store.speculate({ ...request, earlier: writes.length === 0 ? [] : undefined });
    if (answer.kind === "lost") {
      if (this.#outgrown(transaction)) return { kind: "move" };
      const earlier = writes.map(({ statement }) => statement.stamped);
      answer = await store.speculate({ ...request, earlier });
    }
    if (answer.kind === "lost") throw this.#lost(leadership, id, "the transaction's speculation was lost");
    if (answer.kind === "changed")
      throw this.#lost(leadership, id, "what the transaction has done would not come out the same any more");
    const failed = isWireError(answer.outcome);
    if (isWireError(answer.outcome) && answer.outcome[1] === "OSTRAKA_TOO_LARGE") return { kind: "move" };
    if (answer.rolledBack) {
      this.close(leadership, id);
      return { kind: "ran", outcome: answer.outcome, stamped: undefined, rolledBack: true };
    }
    const footprint = analysis.footprint(
      stamped.params,
      failed ? undefined : (answer.outcome as StatementOutcome),
    );
    const reads = failed ? [...footprint.reads, ...footprint.checks] : footprint.reads;
    // A failed write can have had effects (OR FAIL) and its error was told: it runs again with the others.
    const again = analysis.readonly ? undefined : { ...stamped, told: toldDigest(answer.outcome) };
    this.#record(leadership, transaction, { ...footprint, reads }, answer.appliedIndex, again);
    return { kind: "ran", outcome: answer.outcome, stamped: again, rolledBack: false };
  }

  /** Records what a statement read and wrote, unless what was read before has changed meanwhile. */
  #record(
    leadership: Leadership,
    transaction: Open,
    footprint: Footprint,
    index: LogIndex,
    again: StampedStatement | undefined,
  ): void {
    const { transactions } = leadership;
    // The schema is read by every statement; the first reading is the strictest.
    const reads = transaction.ordinal === 0 ? [SCHEMA, ...footprint.reads] : footprint.reads;
    if (!this.#context.isInside(footprint))
      throw this.#lost(leadership, transaction.id, "the range has been split");
    const statement = again && { stamped: again, encoded: encodeStatement(again) };
    transactions.ran(transaction, { ...footprint, reads }, index, statement);
    const { holds } = leadership.admission.gate;
    // Prepared since it was admitted: what was read may be without it, and what is read next elsewhere with it.
    if (holds.size > 0 && holds.meets([...footprint.reads, ...footprint.checks], []))
      throw this.#lost(
        leadership,
        transaction.id,
        "another transaction is being committed on what it has read",
      );
    if (transaction.reads.length > MAX_EARLY_CHECKS) return;
    const conflict = transactions.conflict(transaction);
    if (conflict !== undefined) throw this.#lost(leadership, transaction.id, conflict);
  }

  #lost(leadership: Leadership, id: TransactionId, why: string): RetryError {
    this.close(leadership, id);
    return new RetryError("OSTRAKA_RETRY", why);
  }

  close(leadership: Leadership, id: TransactionId): void {
    leadership.transactions.close(id);
    leadership.line.release(id);
    this.#context.deps.store.forget(id);
  }

  /** The slice has become smaller: what is not wholly in it any more cannot go on. */
  closeOutside(leadership: Leadership): void {
    for (const transaction of leadership.transactions.all()) {
      const reads = spansLookedAt(transaction);
      const writes = spansWritten(transaction);
      if (!this.#context.isInside({ reads, writes, checks: [] })) this.close(leadership, transaction.id);
    }
  }

  closeAll(leadership: Leadership): void {
    for (const { id } of leadership.transactions.all()) this.close(leadership, id);
  }

  async recheck(id: TransactionId, ordinal: number): Promise<void> {
    const leadership = this.#context.serving();
    const conflict = leadership.transactions.conflict(this.#known(leadership, id, ordinal));
    if (conflict !== undefined) throw this.#lost(leadership, id, conflict);
  }

  async truncate(id: TransactionId, ordinal: number): Promise<void> {
    const { transactions } = this.#context.leading();
    const transaction = transactions.get(id);
    if (transaction === undefined) throw new RetryError("OSTRAKA_RETRY", FORGOTTEN);
    this.#context.deps.store.forget(id);
    transactions.truncate(transaction, ordinal);
  }

  async rollback(id: TransactionId): Promise<void> {
    const { current } = this.#context;
    if (current !== undefined) this.close(current, id);
    else this.#context.deps.store.forget(id);
  }

  // --- commit ---------------------------------------------------------------------------------------------------

  async commit(
    id: TransactionId,
    key: IdempotencyKey,
    reads: readonly LocalRead[],
    ran?: number,
  ): Promise<CommandResult> {
    const under = this.#committing.get(id);
    if (under !== undefined) return under;
    const leadership = this.#context.serving();
    const transaction = leadership.transactions.get(id);
    if (transaction === undefined) return refused(FORGOTTEN);
    if (ran !== undefined && !remembers(transaction, ran)) return refused(FORGOTTEN);
    const statements = transaction.writes.map(({ statement }) => statement.stamped);
    const encoded = transaction.writes.map(({ statement }) => statement.encoded);
    const command = (): Command => ({
      kind: "transaction",
      key,
      wallMs: this.#context.wallMs(),
      transaction: id,
      statements,
      encoded,
    });
    const plan = {
      reads: spansLookedAt(transaction),
      writes: spansWritten(transaction),
      command: statements.length === 0 ? undefined : command,
    };
    return this.#commitOnce(leadership, transaction, reads, plan);
  }

  async commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult> {
    const { transaction: id, key, body, writes } = commit;
    const under = this.#committing.get(id);
    if (under !== undefined) return under.then(joined);
    const leadership = this.#context.serving();
    const transaction = leadership.transactions.get(id);
    if (transaction === undefined || commit.readTerm !== leadership.term) return refused(FORGOTTEN);
    if (commit.ran !== undefined && !remembers(transaction, commit.ran)) return refused(FORGOTTEN);
    const copied: LocalRead = {
      index: commit.readAt,
      term: commit.readTerm,
      spans: [SCHEMA, ...commit.reads],
    };
    const command = (): Command => {
      const wallMs = this.#context.wallMs();
      const appendsTo = this.#context.appendsTo(() => writes);
      return body.kind === "statements"
        ? {
            kind: "transaction",
            key,
            wallMs,
            transaction: id,
            statements:
              appendsTo === undefined
                ? body.statements
                : body.statements.map((statement) => ({ ...statement, appendsTo })),
          }
        : { kind: "rows", key, wallMs, transaction: id, changes: body.changes, outcomes: body.outcomes };
    };
    const nothing = body.kind === "statements" && body.statements.length === 0;
    // A text looks at constraints when it runs again: unless it is known where, it may be anywhere.
    const checks = body.kind === "rows" || nothing ? [] : (commit.checks ?? [EVERYTHING]);
    const plan = {
      reads: transaction.reads.flatMap((read) => read.spans),
      checks,
      writes,
      schemaVersion: commit.schemaVersion,
      command: nothing ? undefined : command,
    };
    return this.#commitOnce(leadership, transaction, [...reads, copied], plan);
  }

  #commitOnce(
    leadership: Leadership,
    transaction: Open,
    elsewhere: readonly LocalRead[],
    plan: CommitPlan,
  ): Promise<CommandResult> {
    const { id } = transaction;
    const committed = this.#commitInTurn(leadership, transaction, elsewhere, plan).finally(() =>
      this.#committing.delete(id),
    );
    this.#committing.set(id, committed);
    return committed;
  }

  async #commitInTurn(
    leadership: Leadership,
    transaction: Open,
    elsewhere: readonly LocalRead[],
    plan: CommitPlan,
  ): Promise<CommandResult> {
    const { line, admission } = leadership;
    const { writes } = plan;
    if (!leadership.clear) {
      const reads = [...plan.reads, ...(plan.checks ?? []), ...elsewhere.flatMap((read) => read.spans)];
      if (!line.empty) await line.waitFor([...reads, ...writes], transaction.id);
      if (!admission.clear)
        return admission.pass({ kind: "write", reads, writes }, () =>
          this.#validated(leadership, transaction, elsewhere, plan),
        );
    }
    return this.#validated(leadership, transaction, elsewhere, plan);
  }

  /** Validation and admission in one step; what becomes of the transaction afterwards follows from the result. */
  async #validated(
    leadership: Leadership,
    transaction: Open,
    elsewhere: readonly LocalRead[],
    plan: CommitPlan,
  ): Promise<CommandResult> {
    if (this.#context.leading() !== leadership) throw this.#context.notLeading();
    const conflict = this.#conflict(leadership, transaction, elsewhere, plan);
    if (conflict !== undefined) {
      this.close(leadership, transaction.id);
      return refused(conflict);
    }
    const proposed = this.#propose(leadership, plan);
    try {
      const result = await proposed;
      if (!result.ok && result.error[1] === MOVE_CODE) {
        this.close(leadership, transaction.id);
        return refused("the range has no rows left of a table that gets new ones");
      }
      // A constraint that only COMMIT checks failed: nothing was committed, and the transaction stays open.
      if (result.ok || result.error[1] === "OSTRAKA_RETRY") this.close(leadership, transaction.id);
      return result;
    } catch (error) {
      this.close(leadership, transaction.id);
      if (error instanceof AmbiguousError) throw new AmbiguousError(error.message, transaction.id);
      throw error;
    }
  }

  #conflict(
    leadership: Leadership,
    transaction: Open,
    elsewhere: readonly LocalRead[],
    plan: CommitPlan,
  ): string | undefined {
    if (elsewhere.some((read) => read.term !== leadership.term))
      return "leadership changed since the transaction began";
    const { schemaVersion = this.#context.deps.schema.version } = plan;
    if (schemaVersion !== this.#context.deps.schema.version)
      return "the schema has changed since the transaction began";
    if (elsewhere.some((read) => leadership.mayHaveBeenAway(read)))
      return "ranges were merged since the transaction began";
    if (this.#context.restricted) {
      this.#context.serving();
      const { reads, writes } = plan;
      const inside = this.#context.isInside({ reads, writes, checks: [] });
      if (!inside || !elsewhere.every(({ spans }) => this.#context.slice.containsReads(spans)))
        return "what the transaction has touched does not all lie in this range any more";
    }
    return leadership.transactions.conflict(transaction, elsewhere);
  }

  async #propose(leadership: Leadership, { command, writes }: CommitPlan): Promise<CommandResult> {
    if (command === undefined) {
      // Nothing to write: what was read is current, and a quorum confirms that nobody else decides that.
      await this.#context.deps.handle.readIndex();
      return { ok: true, outcomes: [], repeated: false };
    }
    const changesSchema = writes.some((span) => span.table === SCHEMA.table);
    return this.#context.submit(command(), leadership, () => writes, changesSchema);
  }
}

/** Another gateway may run the same write at the same time: what is committed is what the first one did. */
function joined(result: CommandResult): CommandResult {
  return result.ok ? { ...result, repeated: true } : result;
}

export function refused(why: string): CommandResult {
  return { ok: false, error: ["retry", "OSTRAKA_RETRY", why, null], statement: 0 };
}
