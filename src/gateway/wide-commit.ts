/**
 * Commits a transaction that touched several ranges: prepare at every participant and register at the coordinator in
 * parallel, then the coordinator's decision, which is the commit. One participant alone needs none of that.
 *
 * Invariants:
 * 1. Everything that was read is validated by the leader of its range, as part of its vote.
 * 2. `committed` is told only once the coordinator has logged it. What is told as OSTRAKA_RETRY is decided as aborted,
 *    or was never registered and so cannot be committed.
 * 3. An autocommit write that is sent again is settled before it is run (attempts.ts). Should two gateways run it at once
 *    all the same, under one id, a participant votes for one run only, and what is told is what was committed.
 */
import {
  AmbiguousError,
  fromWireError,
  OstrakaError,
  RetryError,
  toWireError,
  UserError,
} from "../base/errors.js";
import { COORDINATOR_GROUP, type TransactionId } from "../base/ids.js";
import { packResult, unpackResult } from "../machines/range/command.js";
import { isNamedByKey } from "../machines/range/naming.js";
import type {
  CommandResult,
  IdempotencyKey,
  RowChange,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import { pack, unpack } from "../range/codec.js";
import type { LocalRead, PrepareRequest, Vote } from "../range/types.js";
import type { Span } from "../sql/types.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";

/** What one range has to do with a transaction. */
export interface Participation {
  readonly descriptor: RangeDescriptor;
  readonly reads: readonly LocalRead[];
  readonly writes: readonly Span[];
  readonly changes: readonly RowChange[];
  /** Statements that its leader has run for the transaction, which is to validate what was read by them. */
  readonly ran?: number | undefined;
  /** What these did is what is to be committed there. */
  readonly own?: boolean;
}

export interface WideCommit {
  readonly transaction: TransactionId;
  readonly key: IdempotencyKey;
  readonly participants: readonly Participation[];
  /** Texts of schema changes, run on every range before the row changes. */
  readonly schemaTexts: readonly StampedStatement[];
  readonly schemaVersion: number;
  readonly outcomes: readonly StatementOutcome[];
  readonly deadline: Deadline;
}

/** Answers longer than this are not kept for whoever asks again. */
const KEPT_ANSWER_BYTES = 16 * 1024;

export async function commitWide(db: GatewayDatabase, commit: WideCommit): Promise<CommandResult> {
  const { participants, schemaTexts } = commit;
  const only = participants.length === 1 ? participants[0]! : undefined;
  if (only !== undefined && schemaTexts.length === 0) return commitInOne(db, commit, only);
  const { transaction } = commit;
  const result = await commitInSeveral(db, commit);
  db.trace.note(transaction, "end", result.ok ? "committed" : fromWireError(result.error).message);
  return result;
}

async function commitInSeveral(db: GatewayDatabase, commit: WideCommit): Promise<CommandResult> {
  const { participants, transaction } = commit;
  const { trace, ranges } = db;
  const names = participants.map(({ descriptor }) => descriptor.range);
  trace.note(transaction, "commit", `ranges ${names.join(", ")}`);
  const prepared = trace.phase("prepare");
  // A coordinator that has just been founded, or has lost its leader, is waited for: nothing could be decided without it.
  const registered = db.persist(commit.deadline, () => ranges.coordinator.register(transaction, names), {
    transaction,
    repeatable: true,
  });
  const run = runOf(db, commit);
  const voting = participants.map((participant) => prepare(db, commit, participant, run));
  const [registration, votes] = await Promise.all([settled(registered), Promise.all(voting)]);
  prepared();
  trace.note(transaction, "votes", votes.map(({ vote }) => vote).join(", "));
  if (registration.ok && registration.value.state === "committed")
    return (registration.value.answer && keptAnswer(registration.value.answer)) ?? answered([], true);
  if (registration.ok && registration.value.state === "unknown") return tooOld(db, commit, run, votes);
  const refusal = refusalOf(registration, votes);
  // Whoever ran the same transaction before may have decided otherwise, and what is decided is what counts.
  const wanted = refusal === undefined ? "committed" : "aborted";
  const decided = trace.phase("decide");
  const { decision, answer } = await decide(db, commit, wanted);
  decided();
  if (decision === "committed")
    return (
      (answer && keptAnswer(answer)) ??
      (refusal === undefined ? answered(commit.outcomes, false) : answered([], true))
    );
  const doubt = votes.find((vote) => vote.vote === "no" && vote.error[0] === "ambiguous");
  // The same write is on its way under another name, and may yet be committed.
  if (doubt?.vote === "no") throw fromWireError(doubt.error);
  return (
    refusal ?? failed(new RetryError("OSTRAKA_RETRY", "the transaction was given up before it was decided"))
  );
}

/**
 * It began before what the coordinator remembers, who will never know of it. Who has voted for it is told so here; an
 * autocommit write may have been committed under this id when it was sent before, and forgotten.
 */
function tooOld(
  db: GatewayDatabase,
  { participants, transaction }: WideCommit,
  run: string | undefined,
  votes: readonly Vote[],
): CommandResult {
  participants.forEach(({ descriptor: { range } }, i) => {
    if (votes[i]?.vote === "yes")
      db.client(range)
        .resolve(transaction, "aborted")
        .catch(() => undefined);
  });
  const known = votes.find((vote) => vote.vote === "known");
  if (known !== undefined) return known.result;
  const why = "the transaction is older than what is remembered of transactions across ranges";
  if (run !== undefined) throw new AmbiguousError(why, transaction);
  return (
    refusalOf({ ok: true, value: { state: "registered" } }, votes) ??
    failed(new RetryError("OSTRAKA_RETRY", why))
  );
}

/**
 * As on one range: one entry, one round. A write that may have been sent before comes to the log also when it changes
 * nothing: the first one may be why, and its answer is the one to be told.
 */
async function commitInOne(
  db: GatewayDatabase,
  commit: WideCommit,
  { descriptor, reads, writes, changes, ran }: Participation,
): Promise<CommandResult> {
  const last = reads.at(-1);
  if (last === undefined && ran === undefined && changes.length === 0)
    return answered(commit.outcomes, false);
  const { transaction, key, outcomes, schemaVersion } = commit;
  const nothing = changes.length === 0 && !isNamedByKey(commit);
  const leader = db.client(descriptor.range);
  // The transaction is open there since its snapshot; what it reads is told as of each pin.
  const point = last ?? (await leader.readPoint());
  return leader.commitCopy(
    {
      transaction,
      key,
      readAt: point.index,
      readTerm: point.term,
      reads: [],
      writes,
      schemaVersion,
      ran,
      body: nothing ? { kind: "statements", statements: [] } : { kind: "rows", changes, outcomes },
    },
    reads,
  );
}

async function prepare(
  db: GatewayDatabase,
  { transaction, key, participants, schemaTexts, schemaVersion }: WideCommit,
  { descriptor, reads, writes, changes, ran, own }: Participation,
  run: string | undefined,
): Promise<Vote> {
  const body: PrepareRequest["body"] = own
    ? { kind: "own" }
    : schemaTexts.length > 0
      ? { kind: "schema", statements: schemaTexts, changes }
      : changes.length > 0
        ? { kind: "rows", changes }
        : { kind: "nothing" };
  const { range, generation } = descriptor;
  const of = { transaction, key, coordinator: COORDINATOR_GROUP, participants: participants.length };
  try {
    return await db
      .client(range)
      .prepare({ ...of, generation, schemaVersion, reads, writes, ran, run, body });
  } catch (error) {
    await db.learnFrom(error);
    return { vote: "no", error: toWireError(error) };
  }
}

function runOf(db: GatewayDatabase, commit: WideCommit): string | undefined {
  return isNamedByKey(commit) ? `${db.random.uint32()}.${db.random.uint32()}` : undefined;
}

type Settled<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown };

function settled<T>(promise: Promise<T>): Promise<Settled<T>> {
  return promise.then(
    (value) => ({ ok: true as const, value }),
    (error: unknown) => ({ ok: false as const, error }),
  );
}

/** Why the transaction cannot commit, as its client is told; undefined when it can. */
function refusalOf(
  registration: Settled<{ readonly state: string }>,
  votes: readonly Vote[],
): CommandResult | undefined {
  const before = votes.find((vote) => vote.vote === "known");
  if (before !== undefined) return before.result;
  const no = votes.find((vote) => vote.vote === "no");
  if (no !== undefined) {
    const error = fromWireError(no.error);
    // A statement's own error is final; whatever else stood in the way may be gone at the next try.
    if (error instanceof UserError) return { ok: false, error: no.error, statement: 0 };
    if (error instanceof RetryError && error.code === "OSTRAKA_RETRY")
      return { ok: false, error: no.error, statement: 0 };
    return failed(new RetryError("OSTRAKA_RETRY", `a range could not prepare: ${error.message}`));
  }
  if (registration.ok && registration.value.state === "registered") return undefined;
  const why =
    registration.ok || !(registration.error instanceof OstrakaError)
      ? "the transaction was given up"
      : `the coordinator could not be reached: ${registration.error.message}`;
  return failed(new RetryError("OSTRAKA_RETRY", why));
}

async function decide(db: GatewayDatabase, commit: WideCommit, decision: "committed" | "aborted") {
  const { transaction, outcomes, deadline } = commit;
  const answer = decision === "committed" ? answerOf(outcomes) : undefined;
  try {
    const attempt = () => db.ranges.coordinator.decide(transaction, decision, answer);
    return await db.persist(deadline, attempt, { transaction, repeatable: true });
  } catch (error) {
    // Nobody waits for it any longer: it is aborted unless it is decided, before its ranges are in doubt.
    if (deadline.stopped) db.ranges.coordinator.inquire(transaction).catch(() => undefined);
    // It may have been logged: whoever waits for this transaction asks the coordinator what became of it.
    throw new AmbiguousError(error instanceof Error ? error.message : String(error), transaction);
  }
}

function answerOf(outcomes: readonly StatementOutcome[]): Uint8Array | undefined {
  const bytes = pack(packResult({ ok: true, outcomes, repeated: true }));
  return bytes.length <= KEPT_ANSWER_BYTES ? bytes : undefined;
}

/** What `answerOf` kept with a decision. */
export function keptAnswer(answer: Uint8Array): CommandResult {
  return unpackResult(unpack(answer) as unknown[]);
}

function answered(outcomes: readonly StatementOutcome[], repeated: boolean): CommandResult {
  return { ok: true, outcomes, repeated };
}

function failed(error: RetryError): CommandResult {
  return { ok: false, error: toWireError(error), statement: 0 };
}
