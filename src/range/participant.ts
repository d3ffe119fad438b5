/**
 * A range's part in commits across ranges, for one leadership: it votes, holds what was prepared until it is told the
 * decision, and asks when it is not told.
 *
 * Invariants:
 * 1. A PREPARE is looked up among those waited for, in flight, held and refused before it is validated: a repetition gets
 *    the answer of the first.
 * 2. A refusal without an entry in the log is told only after a quorum has confirmed this leadership, with nothing of that
 *    transaction in flight; from then on this leadership never accepts it.
 * 3. For held transactions, fences and reservations a PREPARE waits a bounded time, and a short one where they may wait for
 *    it in turn: its other parts may be held, and in the way of whoever has the reservation. What has come too late already is
 *    refused at once; whatever waited is validated again in the step in which it passes, so that it is refused if what it
 *    has read was written by those that it waited for.
 * 4. What this leader has run of a transaction it remembers, and validates with the rest; a PREPARE that relies on more, or
 *    less, than that is refused. So it is under another leader.
 * 5. What a yes holds stays held until the decision's own entry is applied. Decisions are never kept waiting.
 * 6. Under one id only one run of a transaction is voted for: another's is no repetition. Of what was inherited nobody
 *    knows which run it was.
 */
import { assert } from "../base/assert.js";
import { AmbiguousError, fromWireError, RouteError, type WireError } from "../base/errors.js";
import type { GroupId, TransactionId } from "../base/ids.js";
import type { Timer } from "../base/io.js";
import { ANY_GENERATION } from "../machines/range/command.js";
import type { Command, CommandResult, PreparedTransaction } from "../machines/range/types.js";
import type { Span } from "../sql/types.js";
import type { Passage } from "../txn/gate.js";
import { SpanBag } from "../txn/span-bag.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";
import { type OpenTransaction, remembers, spansLookedAt, spansWritten } from "../txn/transactions.js";
import type { LeaderContext, Leadership, RunStatement } from "./leadership.js";
import { FORGOTTEN, type OpenTransactions } from "./open-transactions.js";
import type { PrepareRequest, Vote } from "./types.js";

type Open = OpenTransaction<RunStatement>;
type Decision = "committed" | "aborted";

/** Refusals and decisions that are remembered, at most. */
const MAX_REMEMBERED = 20_000;
/** The votes of many take their time: nobody is in doubt before the others can have voted. */
const MS_PER_PARTICIPANT = 10;
const NOTHING: readonly Span[] = [];
/** No run is decided before its last vote: whoever comes afterwards is another one. */
const COMMITTED: CommandResult = { ok: true, outcomes: [], repeated: true, decision: "committed" };

interface Voted {
  readonly coordinator: GroupId;
  readonly run: string | undefined;
  /** When to ask what became of it. */
  askMs: number;
}

export class Participant {
  readonly #context: LeaderContext;
  readonly #leadership: Leadership;
  readonly #open: OpenTransactions;
  /** Waiting, or in flight. */
  readonly #voting = new Map<
    TransactionId,
    { readonly run: string | undefined; readonly vote: Promise<Vote> }
  >();
  readonly #voted = new Map<TransactionId, Voted>();
  readonly #refused = new Set<TransactionId>();
  readonly #resolving = new Map<TransactionId, Promise<void>>();
  readonly #resolved = new Map<TransactionId, Decision>();
  #timer: Timer | undefined;

  constructor(context: LeaderContext, leadership: Leadership, open: OpenTransactions) {
    this.#context = context;
    this.#leadership = leadership;
    this.#open = open;
    const nowMs = context.deps.clock.monotonicMs();
    const { inDoubtMs } = context.deps.limits;
    for (const { transaction, coordinator, preparedMs } of leadership.inherited) {
      const ageMs = Math.max(0, context.wallMs() - preparedMs);
      this.#voted.set(transaction, {
        coordinator,
        run: undefined,
        askMs: nowMs + Math.max(0, inDoubtMs - ageMs),
      });
    }
    this.#watch();
  }

  /** Transactions whose decision is waited for. */
  get prepared(): number {
    return this.#voted.size;
  }

  /** It is voted on, or held: what it will be is not this range's to say. */
  knows(id: TransactionId): boolean {
    return this.#voting.has(id) || this.#voted.has(id);
  }

  end(): void {
    this.#timer?.cancel();
  }

  // --- votes ----------------------------------------------------------------------------------------------------

  prepare(request: PrepareRequest): Promise<Vote> {
    const { transaction: id, run } = request;
    const known = this.#voting.get(id) ?? this.#voted.get(id);
    if (known !== undefined && known.run !== run)
      return Promise.resolve({
        vote: "no",
        error: retry("another run of the same write is being committed"),
      });
    if (known !== undefined) return "vote" in known ? known.vote : Promise.resolve({ vote: "yes" });
    const decision = this.#resolved.get(id);
    if (decision === "committed") return Promise.resolve({ vote: "known", result: COMMITTED });
    if (this.#refused.has(id) || decision === "aborted")
      return this.#refuse(id, "the transaction was refused before");
    const vote = this.#vote(request).finally(() => this.#voting.delete(id));
    this.#voting.set(id, { run, vote });
    return vote;
  }

  async #vote(request: PrepareRequest): Promise<Vote> {
    const { transaction: id } = request;
    const { line, admission, transactions } = this.#leadership;
    const { clock, limits } = this.#context.deps;
    this.#checkGeneration(request);
    const open = transactions.get(id);
    const reads = new SpanBag([
      SCHEMA,
      ...(open === undefined ? [] : spansLookedAt(open)),
      ...request.reads.flatMap(({ spans }) => spans),
    ]).spans();
    const writes = this.#writes(request);
    const doomed = this.#conflict(request);
    if (doomed !== undefined) return this.#refuse(id, doomed);
    const nowMs = clock.monotonicMs();
    const untilMs = nowMs + limits.prepareWaitMs;
    const brieflyUntilMs = nowMs + limits.crossingWaitMs;
    if (!line.empty && !(await line.waitAtMost([...reads, ...writes], id, limits.crossingWaitMs)))
      return this.#refuse(id, "it is another transaction's turn");
    return admission.pass({ kind: "prepare", id, reads, writes, untilMs, brieflyUntilMs }, (passage) =>
      this.#passed(passage, request, reads, writes),
    );
  }

  #writes({ transaction, body, writes }: PrepareRequest): readonly Span[] {
    if (body.kind !== "own") return writes;
    const open = this.#leadership.transactions.get(transaction);
    return open === undefined ? NOTHING : spansWritten(open);
  }

  /** Validation and admission in one step: it is held from before this on. */
  #passed(
    passage: Passage,
    request: PrepareRequest,
    reads: readonly Span[],
    writes: readonly Span[],
  ): Promise<Vote> {
    const { transaction: id } = request;
    if (passage === "held")
      return this.#refuse(id, "another transaction is being committed on what it touches");
    if (passage === "late") return this.#refuse(id, "what it writes was kept still by readers for too long");
    let conflict: string | undefined;
    try {
      if (this.#context.current !== this.#leadership) throw this.#context.notLeading();
      this.#checkGeneration(request);
      conflict = this.#conflict(request);
    } catch (error) {
      this.#letGo(id);
      throw error;
    }
    if (conflict === undefined) return this.#propose(request, reads, writes);
    this.#letGo(id);
    return this.#refuse(id, conflict);
  }

  #checkGeneration({ generation, body }: PrepareRequest): void {
    this.#context.serving();
    if (body.kind !== "own") this.#context.checkGeneration(generation);
  }

  #conflict(request: PrepareRequest): string | undefined {
    const { transaction: id, reads, ran, body } = request;
    const { transactions, term, sliceSince } = this.#leadership;
    if (this.#refused.has(id) || this.#resolved.has(id)) return "the transaction was given up";
    const open = transactions.get(id);
    const own = body.kind === "own";
    if ((own || ran !== undefined) && !remembers(open, ran)) return FORGOTTEN;
    const schemaVersion = own ? this.#context.deps.schema.version : request.schemaVersion;
    if (schemaVersion !== this.#context.deps.schema.version || this.#context.schemaChanges > 0)
      return "the schema has changed since the transaction began";
    const read = reads.filter(({ spans }) => spans.length > 0);
    if (read.some((part) => part.term !== term)) return "leadership changed since the transaction began";
    const { slice } = this.#context;
    if (read.some(({ index, spans }) => index < sliceSince && !slice.containsReads(spans)))
      return "the range was split since the transaction began";
    if (read.some((part) => this.#leadership.mayHaveBeenAway(part)))
      return "ranges were merged since the transaction began";
    if (own && !this.#isInside(open)) return "the range was split since the transaction began";
    return transactions.conflictOfPart(open, read);
  }

  #isInside(open: Open | undefined): boolean {
    if (open === undefined) return false;
    return this.#context.isInside({
      reads: spansLookedAt(open),
      writes: spansWritten(open),
      checks: NOTHING,
    });
  }

  /** What is to be tried and kept. */
  #body({ transaction, body }: PrepareRequest): PreparedTransaction["body"] {
    if (body.kind !== "own") return body;
    const statements = this.#leadership.transactions
      .get(transaction)
      ?.writes.map(({ statement }) => statement.stamped);
    if (statements === undefined || statements.length === 0) return { kind: "nothing" };
    return { kind: "statements", statements };
  }

  async #propose(request: PrepareRequest, reads: readonly Span[], writes: readonly Span[]): Promise<Vote> {
    const { transaction: id, key, coordinator, run, participants = 1 } = request;
    const { clock, limits, schema } = this.#context.deps;
    const schemaVersion = request.body.kind === "own" ? schema.version : request.schemaVersion;
    const body = this.#body(request);
    const wallMs = this.#context.wallMs();
    const prepared = {
      transaction: id,
      coordinator,
      preparedMs: wallMs,
      reads,
      writes,
      schemaVersion,
      body,
    };
    const command: Command = { kind: "prepare", key, wallMs, prepared };
    try {
      const result = await this.#context.submit(
        command,
        this.#leadership,
        () => writes,
        changesSchema(writes),
      );
      this.#open.close(this.#leadership, id);
      if (result.ok && result.vote === "yes") {
        const patienceMs = limits.inDoubtMs + (participants - 1) * MS_PER_PARTICIPANT;
        return this.#votedYes(id, { coordinator, run, askMs: clock.monotonicMs() + patienceMs });
      }
      this.#letGo(id);
      if (result.ok) return { vote: "known", result };
      this.#remember(id);
      return { vote: "no", error: result.error };
    } catch (error) {
      // Whether it is in the log or not: this leadership is over with it, or it never got there.
      if (!(error instanceof AmbiguousError)) this.#letGo(id);
      throw error;
    }
  }

  #votedYes(id: TransactionId, voted: Voted): Vote {
    // Its decision was right behind it in the log.
    const decision = this.#resolved.get(id);
    if (decision === "aborted") return { vote: "no", error: retry("the transaction was given up") };
    if (decision === undefined) {
      this.#voted.set(id, voted);
      this.#watch();
    }
    return { vote: "yes" };
  }

  #letGo(id: TransactionId): void {
    const { admission } = this.#leadership;
    admission.gate.holds.release(id);
    admission.settle();
  }

  /** A refusal that is not in the log. */
  async #refuse(id: TransactionId, why: string): Promise<Vote> {
    this.#remember(id);
    await this.#context.deps.handle.readIndex();
    if (this.#context.current !== this.#leadership) throw new RouteError("leadership changed", undefined);
    this.#open.close(this.#leadership, id);
    return { vote: "no", error: retry(why) };
  }

  #remember(id: TransactionId): void {
    this.#refused.add(id);
    if (this.#refused.size > MAX_REMEMBERED) {
      const [oldest] = this.#refused;
      this.#refused.delete(oldest!);
    }
  }

  // --- decisions ------------------------------------------------------------------------------------------------

  async resolve(id: TransactionId, decision: Decision): Promise<void> {
    const known = this.#resolved.get(id);
    if (known !== undefined) return assert(known === decision, `transaction ${id} was ${known} before`);
    const under = this.#resolving.get(id);
    if (under !== undefined) return under;
    const resolved = this.#resolve(id, decision).finally(() => this.#resolving.delete(id));
    this.#resolving.set(id, resolved);
    return resolved;
  }

  async #resolve(id: TransactionId, decision: Decision): Promise<void> {
    const leadership = this.#leadership;
    // One that still waits must not pass any more.
    if (decision === "aborted") this.#remember(id);
    const writes = leadership.admission.gate.holds.get(id)?.writes.spans ?? NOTHING;
    const command: Command = {
      kind: "resolve",
      key: this.#context.ownKey(leadership.term),
      wallMs: this.#context.wallMs(),
      transaction: id,
      decision,
    };
    const committed = decision === "committed";
    const result = await this.#context.submit(
      command,
      leadership,
      () => (committed ? writes : NOTHING),
      committed && changesSchema(writes),
      ANY_GENERATION,
    );
    if (!result.ok) throw fromWireError(result.error);
    this.#resolved.set(id, decision);
    if (this.#resolved.size > MAX_REMEMBERED) {
      const [oldest] = this.#resolved.keys();
      this.#resolved.delete(oldest!);
    }
    this.#refused.delete(id);
    this.#voted.delete(id);
    this.#open.close(leadership, id);
    this.#letGo(id);
  }

  // --- in doubt -------------------------------------------------------------------------------------------------

  #watch(): void {
    if (this.#timer !== undefined || this.#voted.size === 0 || this.#leadership.ended) return;
    const { clock } = this.#context.deps;
    let nextMs = Infinity;
    for (const { askMs } of this.#voted.values()) nextMs = Math.min(nextMs, askMs);
    this.#timer = clock.setTimer(Math.max(1, nextMs - clock.monotonicMs()), () => {
      this.#timer = undefined;
      this.#askAround();
      this.#watch();
    });
  }

  #askAround(): void {
    const { clock, limits } = this.#context.deps;
    const nowMs = clock.monotonicMs();
    for (const [id, voted] of this.#voted) {
      if (voted.askMs > nowMs) continue;
      voted.askMs = nowMs + limits.inDoubtMs;
      // Whatever comes of it, it is asked again as long as it is held.
      this.#ask(id, voted.coordinator).catch(() => {});
    }
  }

  async #ask(id: TransactionId, coordinator: GroupId): Promise<void> {
    const { decision } = await this.#context.deps.inquire(coordinator, id);
    if (!this.#voted.has(id) || this.#leadership.ended) return;
    // Forgotten: a commit is not, before this range has acknowledged it.
    await this.resolve(id, decision === "unknown" ? "aborted" : decision);
  }
}

function changesSchema(writes: readonly Span[]): boolean {
  return writes.some(({ table }) => table === SCHEMA.table || table === EVERYTHING.table);
}

function retry(why: string): WireError {
  return ["retry", "OSTRAKA_RETRY", why, null];
}
