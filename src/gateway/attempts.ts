/**
 * Attempts of one autocommit write: how they are named, and what became of those that came before.
 *
 * A write is sent again under its key when its answer was lost. Where the key comes to the log with it, the answer kept
 * there is told. But what the first attempt did may be why the next one fails before it gets there (the column is there
 * already, the row too): such a failure says nothing, and before it is told it must be known that none was committed.
 *
 * Nor may two attempts be under way where what they touch is found out by running them: a rowid that SQLite chooses, a key
 * made of random bytes or of the time can lie in another range each time, and no range would hear of both.
 */
import { AmbiguousError, RetryError, UserError } from "../base/errors.js";
import { type TransactionId, transactionId } from "../base/ids.js";
import type { CommandResult, IdempotencyKey, StatementOutcome } from "../machines/range/types.js";
import type { RangeService } from "../range/types.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import { keptAnswer } from "./wide-commit.js";

/** How often a statement that lost a race is run again before its caller is told. */
export const ATTEMPTS = 12;
/** Those after the key's own name among which one that was committed surely is: each costs a look everywhere. */
const LIKELY_ATTEMPTS = 2;

/** Names the outcome of a write that has no transaction of its own. */
export function autocommitId(key: IdempotencyKey): string {
  return `${key.client}:${key.sequence}@${Math.floor(key.issuedMs).toString(36)}`;
}

/**
 * An attempt that was given up can never be committed under its id, so each has its own, from 1 on. What was given up
 * under the key's own name (0) cannot be committed by any attempt.
 */
export function attemptId(key: IdempotencyKey, attempt: number): TransactionId {
  const id = autocommitId(key);
  return transactionId(attempt === 0 ? id : id.replace("@", `~${attempt}@`));
}

/**
 * Whoever is in doubt asks by the key: that the attempt which it heard of last was not committed says nothing of those
 * before and after it.
 */
export function byKey(error: unknown, key: IdempotencyKey | undefined): unknown {
  if (key === undefined || !(error instanceof AmbiguousError)) return error;
  return new AmbiguousError(error.message, autocommitId(key));
}

/**
 * For a write that failed before it came to the log: what an attempt that was committed has answered, a statement each;
 * none when nobody has kept it. Throws `failure` when no attempt was committed, nor ever will be. Without a key nobody
 * can have sent it before.
 */
export async function committedBefore(
  db: GatewayDatabase,
  key: IdempotencyKey | undefined,
  failure: unknown,
  deadline: Deadline,
): Promise<readonly StatementOutcome[]> {
  if (key === undefined || deadline.stopped || !(failure instanceof UserError)) throw byKey(failure, key);
  for (let attempt = 0; attempt <= LIKELY_ATTEMPTS; attempt++) {
    const became = await db.outcome(attemptId(key, attempt), deadline);
    if (became === "committed") return keptOutcomes(db, key, deadline);
    if (became === "unknown")
      throw new AmbiguousError(
        `it is not known whether the write was committed before: ${failure.message}`,
        autocommitId(key),
      );
    if (db.whole !== undefined) break;
  }
  throw failure;
}

/**
 * Settles a write that was sent before, for whoever is about to run it: what it has answered if it was committed. Throws
 * OSTRAKA_RETRY if it was not: then no range will take anything under its key any more, and it goes by a new one.
 */
export async function settled(
  db: GatewayDatabase,
  key: IdempotencyKey,
  deadline: Deadline,
): Promise<readonly StatementOutcome[]> {
  const id = attemptId(key, 0);
  const became = await db.outcome(id, deadline);
  if (became === "committed") return keptOutcomes(db, key, deadline);
  if (became === "unknown") throw new AmbiguousError("the write, sent before, is being decided", id);
  throw new RetryError("OSTRAKA_RETRY", "the write was given up where it was sent before", { givenUp: id });
}

/** Told instead of an answer that nobody has kept; its outcome can be asked for. */
export function notKept(key: IdempotencyKey | undefined): AmbiguousError {
  const id = key && autocommitId(key);
  return new AmbiguousError("the write was committed when it was sent before; its answer was not kept", id);
}

/** As committedBefore, for a batch. */
export async function batchBefore(
  db: GatewayDatabase,
  statements: readonly unknown[],
  key: IdempotencyKey | undefined,
  failure: unknown,
  deadline: Deadline,
): Promise<readonly StatementOutcome[]> {
  return allOf(statements, await committedBefore(db, key, failure, deadline), key);
}

/** What was kept of a batch, if it is what all of its statements have answered. */
export function allOf(
  statements: readonly unknown[],
  outcomes: readonly StatementOutcome[],
  key: IdempotencyKey | undefined,
): readonly StatementOutcome[] {
  if (outcomes.length < statements.length) throw notKept(key);
  return outcomes;
}

/** What a write that is known to be committed has answered, a statement each; none when nobody has kept it. */
export async function keptOutcomes(
  db: GatewayDatabase,
  key: IdempotencyKey,
  deadline: Deadline,
): Promise<readonly StatementOutcome[]> {
  const id = attemptId(key, 0);
  const inDoubt = { transaction: id, repeatable: true };
  // Whoever knows the key answers with what it knows, and runs nothing.
  const empty = { key, transaction: id, statements: [] };
  const asked = (leader: () => RangeService): Promise<CommandResult | { readonly ok: "move" }> =>
    db.persist(deadline, () => leader().batch(empty), inDoubt);
  let result: CommandResult | { readonly ok: "move" } | undefined;
  if (db.whole !== undefined) result = await asked(() => db.whole?.leader ?? db.client(db.first.range));
  else {
    result = await coordinated(db, key, deadline);
    if (result === undefined) {
      const range = await db.committedIn(id, deadline);
      if (range !== undefined) result = await asked(() => db.client(range));
    }
  }
  return result?.ok === true ? result.outcomes : [];
}

/** What the coordinator keeps of a write that was committed across ranges, by the attempt that went through. */
async function coordinated(
  db: GatewayDatabase,
  key: IdempotencyKey,
  deadline: Deadline,
): Promise<CommandResult | undefined> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const id = attemptId(key, attempt);
    const { decision, answer } = await db.persist(deadline, () => db.ranges.coordinator.inquire(id));
    if (decision === "committed") return answer && keptAnswer(answer);
  }
  return undefined;
}
