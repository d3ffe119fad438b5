/**
 * The coordinator's rules: what becomes of transactions across ranges. A function of its commands, which come from the
 * coordinator group's log; it reads no clock: each entry brings the wall time that its proposer stamped it with.
 *
 *   registered ──decide──▶ committed | aborted ──all acknowledged──▶ outcome ──by age or number──▶ forgotten
 *
 * A decision writes one outbox row for every participant; the leader delivers them and brings acknowledgements.
 *
 * Invariants:
 * 1. A decision is final. It takes effect only on what is undecided, and a commit only on what is registered: deciding
 *    about an unknown transaction makes a tombstone ("aborted"), which defeats a later registration.
 * 2. Every participant ever named, also by a registration that came after the abort, has been given a row; a transaction
 *    with an undelivered row is never forgotten.
 * 3. What may have been forgotten began before `floorMs`, and nothing unknown that began before it is accepted: neither
 *    registered nor decided nor answered by a guess ("unknown"). The mark never sinks. Ids end in `@` and the wall time of
 *    their begin in base 36; one that does not counts as begun at 0.
 * 4. The state is bounded: open transactions by refusing registrations, outcomes and their answers by forgetting the
 *    oldest, tombstones of ids from the future (which must not lift the mark) by refusing more of them.
 * 5. Equal commands make equal states, in the same order; `image` and `fromImage` keep it.
 *
 * A participant that is in doubt and is told "unknown" may abort: had the transaction been committed, it would not have
 * been forgotten before that participant acknowledged.
 */
import { assert } from "../base/assert.js";
import type { GroupId, TransactionId } from "../base/ids.js";

export type Decision = "committed" | "aborted";

/** Part of what all replicas must have in common: a change needs all of them to change at one log index. */
export interface CoordinatorBounds {
  /** Outcomes are kept for so long after they were decided, */
  readonly outcomeAgeMs: number;
  /** and so many of them at most. */
  readonly maxOutcomes: number;
  /** An answer longer than this is not kept. */
  readonly maxAnswerBytes: number;
  /** Of all answers kept; the oldest go first. */
  readonly maxTotalAnswerBytes: number;
  /** Registered, or decided and not yet acknowledged by all. */
  readonly maxOpen: number;
  /** An id from further in the future than this is not registered: it would lift the mark beyond everybody else's. */
  readonly maxAheadMs: number;
  readonly maxAheadTombstones: number;
}

export const COORDINATOR_BOUNDS: CoordinatorBounds = {
  outcomeAgeMs: 24 * 60 * 60 * 1000,
  maxOutcomes: 50_000,
  maxAnswerBytes: 16 * 1024,
  maxTotalAnswerBytes: 8 * 1024 * 1024,
  maxOpen: 20_000,
  maxAheadMs: 60_000,
  maxAheadTombstones: 256,
};

export type CoordinatorCommand =
  | {
      readonly kind: "register";
      readonly transaction: TransactionId;
      readonly participants: readonly GroupId[];
    }
  | {
      readonly kind: "decide";
      readonly transaction: TransactionId;
      readonly decision: Decision;
      readonly answer: Uint8Array | undefined;
    }
  | { readonly kind: "acknowledge"; readonly rows: readonly number[] };

export type CoordinatorResult =
  | { readonly state: "registered"; readonly changed: boolean }
  /** `changed`: by this command. The answer is the one kept, and only told to those who did not bring it. */
  | { readonly state: Decision; readonly changed: boolean; readonly answer: Uint8Array | undefined }
  /** It began before what may have been forgotten. */
  | { readonly state: "unknown" }
  /** Nothing was done: its begin is too far in the future, or too many transactions are open. */
  | { readonly state: "ahead" | "full" }
  | { readonly state: "acknowledged"; readonly delivered: number };

/** An undelivered message, as ostraka_outbox shows it. */
export interface OutboxRow {
  readonly id: number;
  readonly transaction: TransactionId;
  readonly destination: GroupId;
  readonly decision: Decision;
  readonly createdMs: number;
}

/** A transaction as ostraka_transactions shows it. */
export interface CoordinatedTransaction {
  readonly transaction: TransactionId;
  readonly state: "registered" | Decision;
  readonly participants: readonly GroupId[];
  /** Those that have not acknowledged the decision. */
  readonly pending: readonly GroupId[];
  readonly registeredMs: number;
}

interface Open {
  state: "registered" | Decision;
  /** With the outbox row of each: from the decision until it is acknowledged. */
  readonly participants: Map<GroupId, OutboxRow | undefined>;
  readonly registeredMs: number;
  decidedMs: number;
  /** Rows that are not acknowledged. */
  waiting: number;
}

interface Outcome {
  readonly decision: Decision;
  readonly decidedMs: number;
}

/** The whole state as plain values, each list in its own order. */
export interface CoordinatorImage {
  readonly wallMs: number;
  readonly floorMs: number;
  readonly nextRow: number;
  readonly open: readonly {
    readonly transaction: TransactionId;
    readonly state: "registered" | Decision;
    readonly registeredMs: number;
    readonly decidedMs: number;
    readonly participants: readonly (readonly [range: GroupId, row: OutboxRow | undefined])[];
  }[];
  readonly outcomes: readonly (Outcome & { readonly transaction: TransactionId })[];
  readonly answers: readonly (readonly [transaction: TransactionId, answer: Uint8Array])[];
}

export class CoordinatorState {
  readonly #bounds: CoordinatorBounds;
  /** The latest stamp of any entry. */
  #wallMs = 0;
  #floorMs = 0;
  #nextRow = 1;
  #registered = 0;
  readonly #open = new Map<TransactionId, Open>();
  /** Decided, and acknowledged by all; in the order of becoming so. */
  readonly #outcomes = new Map<TransactionId, Outcome>();
  /** Of commits, in the order of deciding. */
  readonly #answers = new Map<TransactionId, Uint8Array>();
  #answerBytes = 0;
  readonly #outbox = new Map<number, OutboxRow>();
  /** Tombstones whose ids were from the future when they were made; those that still are count. */
  readonly #ahead = new Set<TransactionId>();
  /** Rows written since they were last taken. */
  #fresh: OutboxRow[] = [];

  constructor(bounds: CoordinatorBounds = COORDINATOR_BOUNDS) {
    this.#bounds = bounds;
  }

  // --- what is ------------------------------------------------------------------------------------------------------

  /** Registered and not decided. */
  get registered(): number {
    return this.#registered;
  }

  /** Registered, or decided and not acknowledged by all. */
  get open(): number {
    return this.#open.size;
  }

  /** Outcomes kept of what is over. */
  get outcomes(): number {
    return this.#outcomes.size;
  }

  get undelivered(): number {
    return this.#outbox.size;
  }

  /** Nothing unknown that began before this is accepted. */
  get floorMs(): number {
    return this.#floorMs;
  }

  /** The decision and the answer kept with it; undefined for what is undecided or not known. */
  decided(
    transaction: TransactionId,
  ): { readonly decision: Decision; readonly answer: Uint8Array | undefined } | undefined {
    const state = this.#open.get(transaction)?.state ?? this.#outcomes.get(transaction)?.decision;
    if (state === undefined || state === "registered") return undefined;
    return { decision: state, answer: this.#answers.get(transaction) };
  }

  isUndecided(transaction: TransactionId): boolean {
    return this.#open.get(transaction)?.state === "registered";
  }

  /** Ids of what is registered and not decided. */
  *undecided(): Generator<TransactionId> {
    for (const [transaction, { state }] of this.#open) if (state === "registered") yield transaction;
  }

  /** What is not over. */
  transactions(): CoordinatedTransaction[] {
    return [...this.#open].map(([transaction, { state, participants, registeredMs }]) => ({
      transaction,
      state,
      participants: [...participants.keys()],
      pending: [...participants].filter(([, row]) => row !== undefined).map(([range]) => range),
      registeredMs,
    }));
  }

  /** Undelivered rows, oldest first. */
  rows(): OutboxRow[] {
    return [...this.#outbox.values()];
  }

  /** Rows written since this was last called. */
  takeFreshRows(): readonly OutboxRow[] {
    const rows = this.#fresh;
    if (rows.length > 0) this.#fresh = [];
    return rows;
  }

  // --- commands -----------------------------------------------------------------------------------------------------

  /** An entry of the log: its stamp, then its commands; one result for each. */
  apply(wallMs: number, commands: readonly CoordinatorCommand[]): CoordinatorResult[] {
    this.#wallMs = Math.max(this.#wallMs, wallMs);
    const results = commands.map((command) => this.#execute(command));
    this.#forget();
    return results;
  }

  #execute(command: CoordinatorCommand): CoordinatorResult {
    switch (command.kind) {
      case "register":
        return this.#register(command.transaction, command.participants);
      case "decide":
        return this.#decide(command.transaction, command.decision, command.answer);
      case "acknowledge":
        return this.#acknowledge(command.rows);
    }
  }

  #register(transaction: TransactionId, participants: readonly GroupId[]): CoordinatorResult {
    const known = this.#open.get(transaction) ?? this.#reopened(transaction, participants);
    if (known !== undefined) {
      // A commit's participants have all voted; whoever is named later has no part in it.
      if (known.state !== "committed") this.#join(transaction, known, participants);
      if (known.state === "registered") return { state: "registered", changed: false };
      return this.#answered(transaction, known.state);
    }
    const outcome = this.#outcomes.get(transaction);
    if (outcome !== undefined) return this.#answered(transaction, outcome.decision);
    const began = beganMs(transaction);
    if (began < this.#floorMs) return { state: "unknown" };
    if (this.#isAhead(began)) return { state: "ahead" };
    if (this.#open.size >= this.#bounds.maxOpen) return { state: "full" };
    const registeredMs = this.#wallMs;
    const open: Open = {
      state: "registered",
      participants: new Map(),
      registeredMs,
      decidedMs: 0,
      waiting: 0,
    };
    this.#open.set(transaction, open);
    this.#registered++;
    this.#join(transaction, open, participants);
    return { state: "registered", changed: true };
  }

  /** A tombstone whose participants become known only now: they have to be told, for they may have prepared. */
  #reopened(transaction: TransactionId, participants: readonly GroupId[]): Open | undefined {
    const outcome = this.#outcomes.get(transaction);
    if (outcome?.decision !== "aborted" || participants.length === 0) return undefined;
    // Those that cannot be told for now ask when they are in doubt.
    if (this.#open.size >= this.#bounds.maxOpen || this.#isAhead(beganMs(transaction))) return undefined;
    this.#outcomes.delete(transaction);
    const { decidedMs } = outcome;
    const open: Open = {
      state: "aborted",
      participants: new Map(),
      registeredMs: this.#wallMs,
      decidedMs,
      waiting: 0,
    };
    this.#open.set(transaction, open);
    return open;
  }

  /** More participants; what is decided is told to them too. */
  #join(transaction: TransactionId, open: Open, participants: readonly GroupId[]): void {
    for (const range of participants) {
      if (open.participants.has(range)) continue;
      open.participants.set(range, undefined);
      if (open.state !== "registered") this.#tell(transaction, open, open.state, range);
    }
  }

  #tell(transaction: TransactionId, open: Open, decision: Decision, destination: GroupId): void {
    const row: OutboxRow = {
      id: this.#nextRow++,
      transaction,
      destination,
      decision,
      createdMs: this.#wallMs,
    };
    this.#outbox.set(row.id, row);
    open.participants.set(destination, row);
    open.waiting++;
    this.#fresh.push(row);
  }

  #decide(transaction: TransactionId, decision: Decision, answer: Uint8Array | undefined): CoordinatorResult {
    const open = this.#open.get(transaction);
    if (open?.state === "registered") {
      open.state = decision;
      open.decidedMs = this.#wallMs;
      this.#registered--;
      if (decision === "committed" && answer !== undefined) this.#keep(transaction, answer);
      for (const range of open.participants.keys()) this.#tell(transaction, open, decision, range);
      if (open.waiting === 0) this.#settle(transaction, open);
      return { state: decision, changed: true, answer: undefined };
    }
    if (open !== undefined) return this.#answered(transaction, open.state);
    const outcome = this.#outcomes.get(transaction);
    if (outcome !== undefined) return this.#answered(transaction, outcome.decision);
    return this.#tombstone(transaction);
  }

  #tombstone(transaction: TransactionId): CoordinatorResult {
    const began = beganMs(transaction);
    if (began < this.#floorMs) return { state: "unknown" };
    if (this.#isAhead(began)) {
      for (const id of this.#ahead) if (!this.#isAhead(beganMs(id))) this.#ahead.delete(id);
      if (this.#ahead.size >= this.#bounds.maxAheadTombstones) return { state: "ahead" };
      this.#ahead.add(transaction);
    }
    this.#outcomes.set(transaction, { decision: "aborted", decidedMs: this.#wallMs });
    return { state: "aborted", changed: true, answer: undefined };
  }

  #answered(transaction: TransactionId, decision: Decision): CoordinatorResult {
    return { state: decision, changed: false, answer: this.#answers.get(transaction) };
  }

  #acknowledge(rows: readonly number[]): CoordinatorResult {
    let delivered = 0;
    for (const id of rows) {
      const row = this.#outbox.get(id);
      if (row === undefined) continue;
      this.#outbox.delete(id);
      delivered++;
      const open = this.#open.get(row.transaction);
      assert(open !== undefined, `outbox row ${id} of a transaction that is over`);
      open.participants.set(row.destination, undefined);
      if (--open.waiting === 0) this.#settle(row.transaction, open);
    }
    return { state: "acknowledged", delivered };
  }

  // --- forgetting ---------------------------------------------------------------------------------------------------

  /** Everybody knows: only the outcome is kept. */
  #settle(transaction: TransactionId, { state, decidedMs }: Open): void {
    assert(state !== "registered", `transaction ${transaction} is over and not decided`);
    this.#open.delete(transaction);
    this.#outcomes.set(transaction, { decision: state, decidedMs });
  }

  #keep(transaction: TransactionId, answer: Uint8Array): void {
    if (answer.length > this.#bounds.maxAnswerBytes) return;
    this.#answers.set(transaction, answer);
    this.#answerBytes += answer.length;
    for (const oldest of this.#answers.keys()) {
      if (this.#answerBytes <= this.#bounds.maxTotalAnswerBytes) return;
      this.#dropAnswer(oldest);
    }
  }

  #dropAnswer(transaction: TransactionId): void {
    const answer = this.#answers.get(transaction);
    if (answer === undefined) return;
    this.#answers.delete(transaction);
    this.#answerBytes -= answer.length;
  }

  #forget(): void {
    const oldestMs = this.#wallMs - this.#bounds.outcomeAgeMs;
    for (const [transaction, { decidedMs }] of this.#outcomes) {
      if (decidedMs >= oldestMs && this.#outcomes.size <= this.#bounds.maxOutcomes) return;
      const began = beganMs(transaction);
      if (this.#isAhead(began)) continue;
      this.#outcomes.delete(transaction);
      this.#dropAnswer(transaction);
      this.#floorMs = Math.max(this.#floorMs, began + 1);
    }
  }

  #isAhead(began: number): boolean {
    return began > this.#wallMs + this.#bounds.maxAheadMs;
  }

  // --- as a whole ---------------------------------------------------------------------------------------------------

  image(): CoordinatorImage {
    return {
      wallMs: this.#wallMs,
      floorMs: this.#floorMs,
      nextRow: this.#nextRow,
      open: [...this.#open].map(([transaction, { state, participants, registeredMs, decidedMs }]) => ({
        transaction,
        state,
        registeredMs,
        decidedMs,
        participants: [...participants],
      })),
      outcomes: [...this.#outcomes].map(([transaction, outcome]) => ({ transaction, ...outcome })),
      answers: [...this.#answers],
    };
  }

  static fromImage(
    image: CoordinatorImage,
    bounds: CoordinatorBounds = COORDINATOR_BOUNDS,
  ): CoordinatorState {
    const made = new CoordinatorState(bounds);
    made.#wallMs = image.wallMs;
    made.#floorMs = image.floorMs;
    made.#nextRow = image.nextRow;
    const rows: OutboxRow[] = [];
    for (const { transaction, participants, ...open } of image.open) {
      const told = participants.flatMap(([, row]) => (row === undefined ? [] : [row]));
      rows.push(...told);
      made.#open.set(transaction, { ...open, participants: new Map(participants), waiting: told.length });
      if (open.state === "registered") made.#registered++;
    }
    for (const row of rows.sort((a, b) => a.id - b.id)) made.#outbox.set(row.id, row);
    for (const { transaction, decision, decidedMs } of image.outcomes) {
      made.#outcomes.set(transaction, { decision, decidedMs });
      if (made.#isAhead(beganMs(transaction))) made.#ahead.add(transaction);
    }
    for (const [transaction, answer] of image.answers) {
      made.#answers.set(transaction, answer);
      made.#answerBytes += answer.length;
    }
    return made;
  }
}

/** When the transaction began by its gateway's clock, as its id tells; 0 for an id that does not. */
export function beganMs(transaction: TransactionId): number {
  const at = transaction.lastIndexOf("@");
  if (at < 0) return 0;
  const began = Number.parseInt(transaction.slice(at + 1), 36);
  return began >= 0 ? Math.min(began, Number.MAX_SAFE_INTEGER - 1) : 0;
}
