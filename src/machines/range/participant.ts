/**
 * A range's part in commits across ranges: prepare tries and holds, resolve applies or drops.
 *
 * Invariants:
 * 1. A transaction that was voted for can be applied: its changes were tried, and nobody else writes what it holds. What
 *    does on every range what it does on one is tried by the range where the keyspace begins, whose vote counts as theirs.
 *    Should it fail all the same, or do anything else than it was tried to do, this node stops. Texts hold all that they
 *    look at, also to check constraints, so they do at the commit what they did when they were tried. What is checked
 *    only when SQLite commits cannot be tried: no text is voted for while there is such a constraint.
 * 2. No vote for what is known to be decided. A decision that comes first leaves a tombstone, which a late prepare meets.
 * 3. Nothing is remembered under the client's key before the decision; at a commit it is remembered that the write was
 *    decided elsewhere, so that it is not executed again however it arrives.
 */
import { assert } from "../../base/assert.js";
import { FatalError, RetryError } from "../../base/errors.js";
import type { TransactionId } from "../../base/ids.js";
import { SessionFlag } from "../../sql/types.js";
import type { Answers, Transactions } from "./answers.js";
import { failure, givenUp, inDoubt, StatementFailed, userError } from "./apply-errors.js";
import type { RangeConnection } from "./connection.js";
import { AUTOCOMMIT } from "./naming.js";
import type { PrepareCommand, PreparedTransactions } from "./prepared.js";
import { isRowless } from "./rowless-change.js";
import type { SliceState } from "./slice-state.js";
import type { RangeState } from "./state.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  RowChange,
  StampedStatement,
} from "./types.js";

type ResolveCommand = Extract<Command, { kind: "resolve" }>;

/** Settings under which final rows are put in place. */
export const IMAGE_FLAGS = SessionFlag.ForeignKeysOff | SessionFlag.IgnoreCheckConstraints;

const yes = (repeated: boolean): CommandResult => ({ ok: true, outcomes: [], repeated, vote: "yes" });

export interface ParticipantParts {
  readonly connection: RangeConnection;
  readonly state: RangeState;
  readonly slice: SliceState;
  readonly answers: Answers;
  readonly transactions: Transactions;
  readonly prepared: PreparedTransactions;
  /**
   * Runs something and undoes what it did, whether it throws or not (unless it destroyed the batch). It answers whether
   * it changed the schema.
   */
  tried(run: () => boolean): void;
  /** Deletes rows that are not the range's: a schema change looks at all that are there. */
  trimAll(): void;
  /** Runs the texts of a schema change. Throws StatementFailed. */
  runSchema(statements: readonly StampedStatement[]): void;
  /** Runs texts and compares each with what was told. Throws StatementFailed. */
  runStatements(statements: readonly StampedStatement[]): void;
  /** Some constraint is checked only at COMMIT. */
  deferring(statements: readonly StampedStatement[]): boolean;
  /** Puts rows in place; throws as SQLite does. Answers whether that meant to make triggers again. */
  putRows(changes: readonly RowChange[]): boolean;
}

export class Participant {
  readonly #parts: ParticipantParts;

  constructor(parts: ParticipantParts) {
    this.#parts = parts;
  }

  /** The vote. May return with the batch destroyed (and then it is no). */
  prepare(command: PrepareCommand): CommandResult {
    const known = this.knownVote(command);
    if (known !== undefined) return known;
    const { connection, state, transactions, prepared } = this.#parts;
    const { transaction } = command.prepared;
    const other = prepared.withKey(command.key);
    if (other !== undefined) return inDoubt(other);
    if (command.key.issuedMs < state.transactionFloorMs) return givenUp(`transaction ${transaction}`);
    const refusal = this.#refusal(command.prepared);
    if (refusal !== undefined) {
      if (connection.inTransaction && transactions.outcome(transaction) === undefined)
        this.#record(command, "aborted");
      return refusal;
    }
    prepared.add(command);
    connection.disturbed();
    return yes(false);
  }

  /** The vote on what was voted on, decided or answered before. */
  knownVote({ prepared: { transaction }, key, wallMs }: PrepareCommand): CommandResult | undefined {
    const { answers, transactions, prepared } = this.#parts;
    if (prepared.has(transaction)) return yes(true);
    const answered = answers.admit(key, wallMs);
    if (answered !== undefined) return answered;
    const outcome = transactions.outcome(transaction);
    if (outcome === undefined) return undefined;
    if (outcome === "aborted") return givenUp(`transaction ${transaction}`);
    return { ok: true, outcomes: [], repeated: true, decision: outcome };
  }

  /** What was answered under the key, or may be soon; undefined when it was not executed here. */
  answered(key: IdempotencyKey): CommandResult | undefined {
    const { answers, prepared } = this.#parts;
    const answered = answers.outcome(key, key.issuedMs);
    if (answered !== undefined) return answered;
    const transaction = prepared.withKey(key);
    return transaction === undefined ? undefined : inDoubt(transaction);
  }

  /** Idempotent. `index`: of the entry that carries the decision. */
  resolve({ transaction, decision, wallMs }: ResolveCommand, index: number): CommandResult {
    const { state, answers, transactions, prepared } = this.#parts;
    const known = transactions.outcome(transaction);
    if (known === "committed" && decision === "aborted" && this.#committedAlone(transaction))
      return { ok: true, outcomes: [], repeated: true, decision };
    assert(
      known === undefined || known === decision,
      `transaction ${transaction} is ${decision} by its coordinator and ${known} here`,
    );
    if (prepared.has(transaction)) {
      const command = prepared.get(transaction);
      if (decision === "committed") {
        this.#commit(command.prepared);
        const answer: CommandResult = { ok: true, outcomes: [], repeated: false, decision };
        answers.record(index, command.key, Math.max(wallMs, state.wallMs), answer);
      }
      prepared.remove(transaction);
      this.#record({ prepared: command.prepared, wallMs }, decision);
    } else if (known === undefined && decision === "aborted")
      this.#record({ prepared: { transaction }, wallMs }, decision);
    // A commit of what is not prepared and not known was applied, and has been forgotten since.
    return { ok: true, outcomes: [], repeated: false, decision };
  }

  /**
   * An autocommit write, named by its key, that was sent to two gateways: one committed it in this range alone, the other
   * registered it and found that out by its vote. What was given up then had nothing prepared.
   */
  #committedAlone(transaction: TransactionId): boolean {
    return !this.#parts.prepared.has(transaction) && AUTOCOMMIT.test(transaction);
  }

  #refusal(prepared: PreparedTransaction): CommandResult | undefined {
    const { state } = this.#parts;
    if (prepared.schemaVersion !== state.schemaVersion)
      return failure(
        new RetryError("OSTRAKA_RETRY", "the schema has changed since the transaction's statements ran"),
      );
    const other = this.#parts.prepared.conflicting(prepared);
    if (other !== undefined)
      return failure(new RetryError("OSTRAKA_RETRY", `transaction ${other} is being decided`));
    const { body } = prepared;
    if (body.kind === "nothing") return undefined;
    if (body.kind === "statements" && this.#parts.deferring(body.statements))
      return failure(new RetryError("OSTRAKA_RETRY", "a constraint is checked only at the commit"));
    if (body.kind === "schema") this.#parts.trimAll();
    if (this.#isTriedElsewhere(body)) return undefined;
    try {
      this.#parts.tried(() => this.#perform(prepared));
      return undefined;
    } catch (error) {
      return error instanceof StatementFailed
        ? failure(error.cause, error.statement)
        : failure(userError(error));
    }
  }

  /** A change of the schema goes through all ranges, and is committed only if the first one has voted for it too. */
  #isTriedElsewhere(body: PreparedTransaction["body"]): boolean {
    if (body.kind !== "schema" || body.changes.length > 0) return false;
    const { connection, slice } = this.#parts;
    if (slice.state.descriptor.start === "" || connection.traits.virtualTables) return false;
    return body.statements.every(({ sql }) => isRowless(sql));
  }

  /** Answers whether it changed the schema. */
  #perform({ body }: PreparedTransaction): boolean {
    if (body.kind === "nothing") return false;
    if (body.kind === "statements") {
      this.#parts.runStatements(body.statements);
      return false;
    }
    if (body.kind === "schema") {
      this.#parts.runSchema(body.statements);
      this.#parts.connection.setFlags(IMAGE_FLAGS);
    }
    const triggers = body.changes.length > 0 && this.#parts.putRows(body.changes);
    return triggers || body.kind === "schema";
  }

  #commit(prepared: PreparedTransaction): void {
    try {
      this.#perform(prepared);
    } catch (error) {
      const cause = error instanceof StatementFailed ? error.cause : userError(error);
      throw new FatalError(
        "OSTRAKA_INVARIANT",
        `transaction ${prepared.transaction} was voted for and cannot be applied: ${cause.message}`,
        { cause },
      );
    }
  }

  #record(
    of: { readonly prepared: Pick<PreparedTransaction, "transaction">; readonly wallMs: number },
    outcome: "committed" | "aborted",
  ): void {
    const { connection, state, transactions } = this.#parts;
    state.wallMs = Math.max(state.wallMs, of.wallMs);
    transactions.record(of.prepared.transaction, outcome, of.wallMs);
    connection.disturbed();
  }
}
