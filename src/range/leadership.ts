/**
 * What the parts of a range's leader share: the leadership of the current term, the slice that the range has, stamps,
 * and the way into the log.
 *
 * Invariants:
 * 1. All soft state (open transactions, memory of writes, reservations, holds, fences) belongs to one Leadership, which
 *    ends with its term.
 * 2. A Leadership begins only after the entries it inherited are applied and what they prepared is known again.
 * 3. A command is proposed in the term, and under the generation of the range, that it was admitted under, or refused.
 */

import { RouteError, UserError } from "../base/errors.js";
import type { GroupId, LogIndex, Term, TransactionId } from "../base/ids.js";
import type { Clock, Random } from "../base/io.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  RangeState,
  RangeStore,
  Stamp,
  StampedStatement,
} from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import { SliceCheck } from "../placement/route.js";
import type { Analysis, Footprint, SessionFlags, Span, Statement } from "../sql/types.js";
import { anyIntersect, EVERYTHING, SCHEMA } from "../txn/spans.js";
import type { TransactionTrace } from "../txn/trace.js";
import { TransactionTable } from "../txn/transactions.js";
import type { WriteToken } from "../txn/write-memory.js";
import { Admission } from "./admission.js";
import { type Proposal, Proposer } from "./proposer.js";
import { ReservationLine } from "./reservation-line.js";
import type { Schema } from "./schema.js";
import type { LocalRead } from "./types.js";

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
  /**
   * How long a PREPARE waits for fences and for held transactions before it is refused; and how long a statement of an
   * open transaction waits for reservations before it runs in spite of them.
   */
  readonly prepareWaitMs: number;
  /**
   * How long a PREPARE waits for who may be waiting for it: a held transaction that began later than its own, a
   * reservation.
   */
  readonly crossingWaitMs: number;
  /** How long new fences wait for the next try of a PREPARE that fences kept out. */
  readonly claimMs: number;
  /** How long a fence waits for what is held and in flight. */
  readonly fenceWaitMs: number;
  /** No fence stands for longer after it was answered, whatever was asked for. */
  readonly mostFenceMs: number;
  /** A transaction prepared for so long without a decision is asked about, and again after as long. */
  readonly inDoubtMs: number;
  /** How long a split or a merge waits for what is prepared. */
  readonly reshapeWaitMs: number;
  /** Rows that are another range's are deleted in commands of so many, with a pause between them. */
  readonly trimRows: number;
  readonly trimPauseMs: number;
}

export const DEFAULT_LEADER_LIMITS: LeaderLimits = {
  scanBytes: 1024 * 1024,
  maxResultBytes: 1024 * 1024,
  maxRememberedKeys: 200_000,
  idleTransactionMs: 2 * 60 * 60 * 1000,
  reservationMs: 1_000,
  maxReplayMs: 4,
  prepareWaitMs: 150,
  crossingWaitMs: 30,
  claimMs: 100,
  fenceWaitMs: 500,
  mostFenceMs: 10_000,
  inDoubtMs: 2_000,
  reshapeWaitMs: 2_000,
  trimRows: 500,
  trimPauseMs: 20,
};

/** What became of a transaction, from the group that coordinates it; what is undecided is decided as aborted. */
export type Inquire = (
  coordinator: GroupId,
  transaction: TransactionId,
) => Promise<{ readonly decision: "committed" | "aborted" | "unknown" }>;

export interface LeaderDependencies {
  readonly handle: GroupHandle;
  readonly store: RangeStore;
  readonly schema: Schema;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: LeaderLimits;
  readonly inquire: Inquire;
  readonly trace?: TransactionTrace;
}

/** A statement that ran here in an open transaction, also as its commit will hold it. */
export interface RunStatement {
  readonly stamped: StampedStatement;
  readonly encoded: Uint8Array;
}

export class Leadership {
  readonly term: Term;
  readonly transactions: TransactionTable<RunStatement>;
  readonly line: ReservationLine;
  readonly admission: Admission;
  /** What was prepared before this leadership began. */
  readonly inherited: readonly PreparedTransaction[];
  /** The slice has been what it is since the state at this index, as far as this leadership knows. */
  sliceSince = 0;
  /** The last range that was taken in is here since the state at this index. */
  tookInAt = 0;
  #ended = false;

  constructor(term: Term, inherited: readonly PreparedTransaction[], deps: LeaderDependencies) {
    const { clock, limits } = deps;
    this.term = term;
    this.inherited = inherited;
    this.transactions = new TransactionTable(term, limits.maxRememberedKeys);
    this.line = new ReservationLine(clock, limits.reservationMs);
    this.admission = new Admission(clock, limits);
    for (const { transaction, reads, writes } of inherited)
      this.admission.gate.holds.hold(transaction, reads, writes);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Nobody has to wait for anything. */
  get clear(): boolean {
    return this.line.empty && this.admission.clear;
  }

  /**
   * Rows that were read here before a range was taken in may have been split off and have come back with it: what was
   * written to them in between no memory of this range has.
   */
  mayHaveBeenAway({ index, spans }: LocalRead): boolean {
    return index < this.tookInAt && spans.some(({ table }) => table !== SCHEMA.table);
  }

  end(): void {
    this.#ended = true;
    this.line.clear();
    this.admission.end();
  }
}

/** A command on its way through the log, as the memory of writes has to know it. */
class WriteProposal implements Proposal {
  /** Whoever waits for it to be settled. */
  waiting: (() => void)[] | undefined;
  #transactions: TransactionTable<RunStatement> | undefined;
  #token: WriteToken | undefined;

  constructor(
    readonly command: Command,
    readonly writes: () => readonly Span[],
    readonly context: LeaderContext,
    readonly changesSchema: boolean,
  ) {}

  remember(transactions: TransactionTable<RunStatement>): void {
    this.#transactions = transactions;
    this.#token = transactions.admit(this.writes());
  }

  settled(index: LogIndex | undefined, result: CommandResult | undefined): void {
    if (this.changesSchema) this.context.schemaChanges--;
    if (this.waiting !== undefined) for (const settled of this.waiting) settled();
    if (this.#token === undefined) return;
    // A transaction that was refused at apply has written nothing, and may go on (a deferred constraint failed);
    // an autocommit statement that failed may have (OR FAIL).
    const refused = result?.ok === false && this.command.kind !== "execute";
    if (index === undefined || refused) this.#transactions?.drop(this.#token);
    else this.#transactions?.settle(this.#token, index);
  }

  answer(result: CommandResult): CommandResult {
    if (result.ok || result.error[0] !== "route" || result.error[1] === MOVE_CODE) return result;
    throw this.context.movedError(result.error[2]);
  }
}

/** The code with which a command is refused whose rowid SQLite would choose wrongly in a slice. */
export const MOVE_CODE = "OSTRAKA_MOVE";

export class LeaderContext {
  readonly deps: LeaderDependencies;
  readonly group: GroupId;
  current: Leadership | undefined;
  /** Ranges that this leader has split off, as they began. */
  readonly children: RangeDescriptor[] = [];
  /** Schema changes proposed and not settled. */
  schemaChanges = 0;
  /** What is admitted has to be looked at: the range has only a slice, or is frozen. */
  restricted = false;
  #state: RangeState;
  #slice: SliceCheck | undefined;
  readonly #proposer: Proposer<WriteProposal>;
  #lastWallMs = 0;
  #sequence = 0;

  constructor(deps: LeaderDependencies) {
    this.deps = deps;
    this.group = deps.handle.group;
    this.#proposer = new Proposer(deps.handle);
    this.#state = deps.store.state();
    this.#learn(this.#state);
    deps.store.onState((state) => this.#learn(state));
  }

  #learn(state: RangeState): void {
    this.#state = state;
    this.#slice = undefined;
    this.restricted =
      state.frozenInto !== undefined || state.descriptor.start !== "" || state.descriptor.end !== "";
  }

  // --- leadership -----------------------------------------------------------------------------------------------

  leading(): Leadership {
    if (this.current !== undefined) return this.current;
    throw this.notLeading();
  }

  /** Leads a range that takes statements. */
  serving(): Leadership {
    const leadership = this.leading();
    if (this.restricted && this.#state.frozenInto !== undefined)
      throw this.movedError(`the range is being taken in by ${this.#state.frozenInto}`);
    return leadership;
  }

  notLeading(): RouteError {
    const { leader, role } = this.deps.handle.status();
    return new RouteError(
      "this node does not lead the range",
      leader === 0 || role === "leader" ? undefined : leader,
    );
  }

  // --- the slice ------------------------------------------------------------------------------------------------

  get state(): RangeState {
    return this.#state;
  }

  get generation(): number {
    return this.#state.descriptor.generation;
  }

  /** Throws where the range has become another one since whoever asks has learned of it. */
  checkGeneration(generation: number): void {
    if (generation !== this.generation) throw this.movedError("the range has changed");
  }

  get slice(): SliceCheck {
    const { tables } = this.deps.schema.snapshot;
    if (this.#slice?.tables !== tables) this.#slice = new SliceCheck(this.#state.descriptor, tables);
    return this.#slice;
  }

  descriptor(): RangeDescriptor {
    const { voters, learners } = this.deps.handle.status().conf;
    return { ...this.#state.descriptor, replicas: [...voters, ...learners] };
  }

  movedError(why = "what is asked for does not lie in this range"): RouteError {
    return new RouteError(why, undefined, JSON.stringify([this.descriptor(), ...this.children]));
  }

  /** All that is touched lies in the slice; who writes the schema needs to have everything. */
  isInside(footprint: Footprint): boolean {
    if (!this.restricted) return true;
    const { slice } = this;
    return slice.whole || (slice.contains(footprint) && !footprint.writes.some(isSchema));
  }

  /** Throws unless it is inside of a range that takes statements. */
  admit(reads: readonly Span[], writes: readonly Span[]): void {
    if (!this.restricted) return;
    this.serving();
    if (!this.isInside({ reads, writes, checks: NOTHING })) throw this.movedError();
  }

  // --- the schema -----------------------------------------------------------------------------------------------

  /**
   * Throws UserError on what does not compile, also after every change of the schema that is decided, and perhaps told,
   * but not applied here.
   */
  async analyse(leadership: Leadership, sql: string): Promise<Analysis> {
    for (;;) {
      try {
        return this.deps.schema.analyse(sql);
      } catch (error) {
        await this.schemaSettled(leadership, error);
      }
    }
  }

  /** Resolves once a statement that did not compile is to be judged again; rejects with its error when it is not. */
  async schemaSettled({ admission }: Leadership, error: unknown): Promise<void> {
    const reads = [SCHEMA];
    if (!(error instanceof UserError) || !admission.gate.holds.meets(reads, [])) throw error;
    await admission.pass({ kind: "read", reads }, () => undefined);
    this.serving();
  }

  // --- stamps ---------------------------------------------------------------------------------------------------

  wallMs(): number {
    const { clock, store } = this.deps;
    this.#lastWallMs = Math.max(this.#lastWallMs, clock.wallMs(), store.lastWallMs());
    return this.#lastWallMs;
  }

  stamp(lastInsertRowid: bigint): Stamp {
    const { random } = this.deps;
    return {
      wallMs: this.wallMs(),
      seed: (random.uint32() & 0x1fffff) * 2 ** 32 + random.uint32(),
      lastInsertRowid,
    };
  }

  stamped(
    analysis: Analysis,
    params: Statement["params"],
    flags: SessionFlags,
    lastInsertRowid: bigint,
  ): StampedStatement {
    const stamp = this.stamp(lastInsertRowid);
    const appendsTo = this.appendsTo(() => analysis.footprint(params).writes);
    return { sql: analysis.sql, params, flags, stamp, told: undefined, appendsTo };
  }

  /** Tables that get rows under keys that SQLite chooses, where the range does not have the whole of them. */
  appendsTo(writes: () => readonly Span[]): readonly string[] | undefined {
    if (!this.restricted) return undefined;
    const tables = this.slice.appendsTo(writes());
    return tables.length === 0 ? undefined : tables.map(({ name }) => name);
  }

  runsInWorker(analysis: Analysis): boolean {
    if (analysis.rowChangesOnly || analysis.touchesTemp || analysis.systemTables.length > 0) return false;
    if (analysis.cost === "bounded") return true;
    return analysis.cost === "scan" && this.deps.store.size().databaseBytes <= this.deps.limits.scanBytes;
  }

  /** For commands of the leader's own; their answers may go at once. */
  ownKey(term: Term): IdempotencyKey {
    const sequence = ++this.#sequence;
    const client = `leader-${this.group}-${term}`;
    return { client, sequence, lowestUnanswered: sequence, issuedMs: this.wallMs() };
  }

  // --- the way into the log -------------------------------------------------------------------------------------

  /** Validated and waited for: from here to the log without a pause. */
  submit(
    command: Command,
    leadership: Leadership,
    writes: () => readonly Span[],
    changesSchema: boolean,
    generation = this.generation,
  ): Promise<CommandResult> {
    if (this.current !== leadership) return Promise.reject(new RouteError("leadership changed", undefined));
    // What is analysed against a schema that is about to change might write more than it says.
    const spans = this.schemaChanges > 0 ? everything : writes;
    if (changesSchema) this.schemaChanges++;
    const proposal = new WriteProposal(command, spans, this, changesSchema);
    const { transactions, term } = leadership;
    if (transactions.remembering) proposal.remember(transactions);
    return this.#proposer.submit(proposal, term, generation);
  }

  /** A command that changes the generation, in an entry of its own: after it others are admitted under another one. */
  async submitAlone(command: Command, leadership: Leadership): Promise<CommandResult> {
    this.#proposer.flush();
    const result = this.submit(command, leadership, nothing, false);
    this.#proposer.flush();
    return result;
  }

  /** Admits to the memory of writes what is on its way into the log. */
  rememberOnTheirWay(leadership: Leadership): void {
    for (const proposal of this.#proposer.onTheirWay()) proposal.remember(leadership.transactions);
  }

  /** Resolves once everything on its way that writes these spans has been applied, or never will be. */
  async settledOn(spans: readonly Span[]): Promise<void> {
    const settling: Promise<void>[] = [];
    for (const proposal of this.#proposer.onTheirWay()) {
      if (!anyIntersect(proposal.writes(), spans)) continue;
      settling.push(
        new Promise((resolve) => {
          proposal.waiting ??= [];
          proposal.waiting.push(resolve);
        }),
      );
    }
    await Promise.all(settling);
  }
}

function everything(): readonly Span[] {
  return [EVERYTHING];
}

const NOTHING: readonly Span[] = [];

function nothing(): readonly Span[] {
  return NOTHING;
}

function isSchema(span: Span): boolean {
  return span.table === SCHEMA.table || span.table === EVERYTHING.table;
}
