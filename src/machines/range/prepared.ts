/**
 * Transactions between their vote and the decision, as part of the range's state (`_ostraka_prepared`): the command
 * that prepared each, whole, so that what is applied at the decision is what was tried.
 *
 * Invariant: what is in memory is a function of the rows (`load`).
 */
import type Database from "better-sqlite3";
import { assert } from "../../base/assert.js";
import { type TransactionId, transactionId } from "../../base/ids.js";
import type { Span } from "../../sql/types.js";
import { SpanSet } from "../../txn/spans.js";
import { decodeCommands, encodeCommands } from "./command.js";
import type { Command, IdempotencyKey, PreparedTransaction } from "./types.js";

export const PREPARED_SCHEMA = `
CREATE TABLE IF NOT EXISTS _ostraka_prepared(
  ordinal INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  client TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  body TEXT NOT NULL,
  command BLOB NOT NULL
);`;

export type PrepareCommand = Extract<Command, { kind: "prepare" }>;

/** Pairs of spans beyond which overlaps are left to the leader, who looks for them first. */
const MAX_COMPARED = 1_000_000;

interface Held {
  readonly client: string;
  readonly sequence: number;
  readonly body: PreparedTransaction["body"]["kind"];
  spans: HeldSpans | undefined;
}

interface HeldSpans {
  readonly reads: SpanSet;
  readonly writes: SpanSet;
}

const spansOf = ({ reads, writes }: Pick<PreparedTransaction, "reads" | "writes">): HeldSpans => ({
  reads: new SpanSet(reads),
  writes: new SpanSet(writes),
});

export class PreparedTransactions {
  readonly #held = new Map<TransactionId, Held>();
  readonly #insert: Database.Statement;
  readonly #delete: Database.Statement;
  readonly #select: Database.Statement;
  readonly #selectAll: Database.Statement;

  constructor(database: Database.Database) {
    this.#insert = database.prepare(
      "INSERT INTO _ostraka_prepared(id, client, sequence, body, command) VALUES (?, ?, ?, ?, ?)",
    );
    this.#delete = database.prepare("DELETE FROM _ostraka_prepared WHERE id = ?");
    this.#select = database.prepare("SELECT command FROM _ostraka_prepared WHERE id = ?").pluck(true);
    this.#selectAll = database
      .prepare("SELECT id, client, sequence, body FROM _ostraka_prepared ORDER BY ordinal")
      .raw(true)
      .safeIntegers(false);
    this.load();
  }

  get size(): number {
    return this.#held.size;
  }

  /** Back to what is in the file. */
  load(): void {
    this.#held.clear();
    const rows = this.#selectAll.all() as [string, string, number, Held["body"]][];
    for (const [id, client, sequence, body] of rows)
      this.#held.set(transactionId(id), { client, sequence, body, spans: undefined });
  }

  has(transaction: TransactionId): boolean {
    return this.#held.has(transaction);
  }

  /** What is to be done at the decision; undefined when it is not prepared. */
  bodyKind(transaction: TransactionId): Held["body"] | undefined {
    return this.#held.get(transaction)?.body;
  }

  /** The transaction that a client's write is part of. */
  withKey({ client, sequence }: IdempotencyKey): TransactionId | undefined {
    if (this.#held.size === 0) return undefined;
    for (const [id, held] of this.#held) if (held.sequence === sequence && held.client === client) return id;
    return undefined;
  }

  /** A transaction that may not be between vote and decision together with this one. */
  conflicting({ reads, writes }: PreparedTransaction): TransactionId | undefined {
    for (const [id, held] of this.#held) {
      held.spans ??= spansOf(this.get(id).prepared);
      const { reads: heldReads, writes: heldWrites } = held.spans;
      const compared =
        (reads.length + writes.length) * heldWrites.spans.length + writes.length * heldReads.spans.length;
      if (compared > MAX_COMPARED) continue;
      if (heldWrites.meets(writes) || heldWrites.meets(reads) || heldReads.meets(writes)) return id;
    }
    return undefined;
  }

  add(command: PrepareCommand): void {
    const { key, prepared } = command;
    const { transaction, body } = prepared;
    this.#insert.run(
      transaction,
      key.client,
      BigInt(key.sequence),
      body.kind,
      encodeCommands([{ ...command, kind: "prepare" }]),
    );
    this.#held.set(transaction, {
      client: key.client,
      sequence: key.sequence,
      body: body.kind,
      spans: spansOf(prepared),
    });
  }

  get(transaction: TransactionId): PrepareCommand {
    const bytes = this.#select.get(transaction) as Uint8Array | undefined;
    assert(bytes !== undefined, `transaction ${transaction} is not prepared`);
    const [command] = decodeCommands(bytes).commands;
    assert(command?.kind === "prepare", `transaction ${transaction} was not prepared by a prepare`);
    return command;
  }

  /** What may yet be changed by decisions; undefined when nothing is prepared. */
  writes(): readonly Span[] | undefined {
    if (this.#held.size === 0) return undefined;
    return [...this.#held].flatMap(([id, held]) => {
      held.spans ??= spansOf(this.get(id).prepared);
      return held.spans.writes.spans;
    });
  }

  remove(transaction: TransactionId): void {
    this.#delete.run(transaction);
    this.#held.delete(transaction);
  }

  all(): PreparedTransaction[] {
    return [...this.#held.keys()].map((id) => this.get(id).prepared);
  }
}
