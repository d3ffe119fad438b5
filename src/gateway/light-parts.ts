/**
 * What a transaction runs at the leaders of the ranges it touches, each of which keeps its part: what it has read there
 * and when, and the writes, run speculatively. Nothing of it is replicated before COMMIT.
 *
 * Invariants:
 * 1. The leader of each range has run just the statements that are counted here for it, in this order; one that has lost
 *    some refuses whatever comes next, COMMIT included.
 * 2. An answer is told only if there was a moment, while its statement ran, at which it and all earlier answers of the
 *    transaction were the state of the database. At its own range the leader sees to that; the leaders of the others are
 *    asked afterwards whether what was read there has stayed as it was. A part that another transaction has prepared
 *    a change of counts as changed: that change may be what was read at the other range. So the code of a transaction
 *    that is going to lose sees no state that never was. Only a leader that was deposed and does not know it can say
 *    otherwise; what is committed never depends on that.
 * 3. COMMIT of several parts prepares each at its leader, which validates all that was read there as of that moment.
 *    From the last vote on all parts are held, so there is a moment at which the whole transaction happened.
 * 4. A transaction that has written nothing needs no votes: each leader validates what was read there, after COMMIT was
 *    called, and a quorum confirms the leader afterwards, so all of it was the state when COMMIT was called.
 * 5. What waits for COMMIT (constraints, merges of FTS3 and FTS4) cannot be tried in parts: where there is anything of the
 *    kind, the transaction has one part.
 *
 * Statements that touch several ranges, or whose work is not bounded, are none of these: transaction.ts moves.
 */
import {
  AmbiguousError,
  fromWireError,
  isWireError,
  RetryError,
  RouteError,
  UserError,
} from "../base/errors.js";
import type { GroupId, TransactionId } from "../base/ids.js";
import type {
  CommandResult,
  IdempotencyKey,
  SchemaSnapshot,
  StatementOutcome,
} from "../machines/range/types.js";
import type { TransactionStatement, TransactionStatementAnswer } from "../range/types.js";
import { SessionFlag } from "../sql/types.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import type { History } from "./history.js";
import { commitWide } from "./wide-commit.js";
import type { RangeRead } from "./workspace.js";

const DEFERS = SessionFlag.ForeignKeysOff | SessionFlag.DeferForeignKeys;
const WAITS_FOR_COMMIT = /deferr|^\s*create\s+virtual\s+table[\s\S]*\busing\s+fts[34]\b/i;
const deferring = new WeakMap<SchemaSnapshot, boolean>();

export class LightParts {
  readonly #db: GatewayDatabase;
  readonly #id: TransactionId;
  /** Statements that each range's leader has run. */
  readonly #ran = new Map<GroupId, number>();
  /** Where each statement ran, in order. */
  #places: GroupId[] = [];

  constructor(db: GatewayDatabase, id: TransactionId) {
    this.#db = db;
    this.#id = id;
  }

  /** Statements run so far. */
  get ordinal(): number {
    return this.#places.length;
  }

  /** Statements that each range's leader has run, of the ranges touched. */
  get ran(): ReadonlyMap<GroupId, number> {
    return this.#ran;
  }

  /** The range touched first. */
  get first(): GroupId | undefined {
    return this.#ran.keys().next().value;
  }

  /** Whether a statement with these flags may run at this range's leader, given what has run elsewhere. */
  mayRunAt(range: GroupId, flags: number, history: History): boolean {
    // Where all that ran was rolled back it has still read: a leader that has not run it would not know.
    if (this.#ran.get(range) === 0) return false;
    if (this.#ran.size === 0 || (this.#ran.size === 1 && this.#ran.has(range))) return true;
    if (this.#db.whole !== undefined || (flags & DEFERS) !== 0 || this.#defers()) return false;
    return (history.flags & DEFERS) === 0;
  }

  /** Some foreign key of the schema is checked only at COMMIT, or some virtual table does more then than before. */
  #defers(): boolean {
    const { snapshot } = this.#db.ranges.schema();
    let known = deferring.get(snapshot);
    if (known === undefined) {
      known = snapshot.statements.some((text) => WAITS_FOR_COMMIT.test(text));
      deferring.set(snapshot, known);
    }
    return known;
  }

  /** Runs a statement at a range's leader. `fresh`: nothing was read elsewhere yet. */
  async run(
    range: GroupId,
    statement: Omit<TransactionStatement, "transaction" | "ordinal">,
    deadline: Deadline,
    fresh: boolean,
  ): Promise<TransactionStatementAnswer> {
    const ordinal = this.#ran.get(range) ?? 0;
    const request = { ...statement, transaction: this.#id, ordinal };
    const attempt = () =>
      this.#db
        .client(range)
        .run(request)
        .catch(async (error: unknown): Promise<TransactionStatementAnswer> => {
          if (!(error instanceof RouteError) || error.moved === undefined) throw error;
          // Its keys are elsewhere by now: it goes on in a workspace.
          await this.#db.learnFrom(error);
          return { kind: "move" };
        });
    const first = fresh && this.#ran.size === 0;
    // Its first statement there may come to another leader.
    const again = fresh && !this.#ran.has(range);
    const answer = await (again ? this.#db.persist(deadline, attempt) : deadline.race(attempt())).catch(
      (error: unknown) => {
        throw first ? error : asRetry(error);
      },
    );
    if (answer.kind === "move") return answer;
    this.#ran.set(range, ordinal + 1);
    this.#places.push(range);
    return answer;
  }

  /** Whether what was read at other leaders still holds, now that a statement has run at this one. */
  async recheck(range: GroupId, deadline: Deadline): Promise<void> {
    if (this.#ran.size < 2) return;
    const others = [...this.#ran].filter(([other]) => other !== range);
    const rechecks = others.map(([other, ran]) => this.#db.client(other).recheck(this.#id, ran));
    await deadline.race(Promise.all(rechecks)).catch((error: unknown) => {
      // The statement has run, and its answer cannot be told. Nor may it stay when its client hears that it was cancelled.
      if (error instanceof UserError || (error instanceof RetryError && error.code !== "OSTRAKA_RETRY"))
        throw new RetryError("OSTRAKA_RETRY", error.message, { cause: error });
      throw asRetry(error);
    });
  }

  /** Forgets the statements from `ordinal` on. */
  async truncate(ordinal: number, deadline: Deadline): Promise<void> {
    const dropped = new Map<GroupId, number>();
    for (const range of this.#places.slice(ordinal)) dropped.set(range, (dropped.get(range) ?? 0) + 1);
    this.#places = this.#places.slice(0, ordinal);
    const truncated: Promise<void>[] = [];
    for (const [range, count] of dropped) {
      const left = this.#ran.get(range)! - count;
      // One that is left with none has still read there.
      this.#ran.set(range, left);
      truncated.push(this.#db.client(range).truncate(this.#id, left));
    }
    await deadline.race(Promise.all(truncated)).catch((error: unknown) => {
      throw asRetry(error);
    });
  }

  /** Commits what runs at one leader, with what was read on a replica of that range. */
  commitOne(range: GroupId, key: IdempotencyKey, reads: readonly RangeRead[]): Promise<CommandResult> {
    return this.#db.client(range).commit(this.#id, key, reads, this.#ran.get(range));
  }

  /** Commits several parts. */
  async commitAll(key: IdempotencyKey, history: History, deadline: Deadline): Promise<CommandResult> {
    if (!history.hasWrites()) return this.#commitReads(key);
    const directory = this.#db.ranges.directory();
    const participants = [...this.#ran].map(([range, ran]) => {
      const descriptor = directory.get(range);
      if (descriptor === undefined) throw new RetryError("OSTRAKA_RETRY", "a range has gone meanwhile");
      return { descriptor, reads: [], writes: [], changes: [], ran, own: true };
    });
    return commitWide(this.#db, {
      transaction: this.#id,
      key,
      participants,
      schemaTexts: [],
      schemaVersion: this.#db.ranges.schema().snapshot.version,
      outcomes: history.outcomes,
      deadline,
    });
  }

  async #commitReads(key: IdempotencyKey): Promise<CommandResult> {
    const results = await Promise.all(
      [...this.#ran].map(([range, ran]) => this.#db.client(range).commit(this.#id, key, [], ran)),
    );
    return results.find(({ ok }) => !ok) ?? results[0]!;
  }
}

/** What a leader's answer means to the session; a statement's own error is thrown. */
export function outcomeOf(answer: Extract<TransactionStatementAnswer, { kind: "ran" }>): StatementOutcome {
  if (answer.rolledBack) throw new RolledBack(fromWireError(answer.outcome as never));
  if (isWireError(answer.outcome)) throw fromWireError(answer.outcome);
  return answer.outcome;
}

/** A statement's error that ended the transaction (OR ROLLBACK, RAISE(ROLLBACK)). */
export class RolledBack extends UserError {
  constructor(cause: { readonly code: string; readonly message: string }) {
    super(cause.code, cause.message);
  }
}

/** A transaction that has read at a leader cannot go on at another. */
export function asRetry(error: unknown): unknown {
  if (error instanceof AmbiguousError)
    return new RetryError("OSTRAKA_RETRY", "the range's leader was lost; run the transaction again", {
      cause: error,
    });
  if (error instanceof RouteError)
    return new RetryError("OSTRAKA_RETRY", "leadership changed; run the transaction again", { cause: error });
  if (error instanceof RetryError && error.code === "OSTRAKA_UNAVAILABLE")
    return new RetryError("OSTRAKA_RETRY", error.message, { cause: error });
  return error;
}
