/**
 * Exactly once: the answers a range has given, by (client, sequence), and the outcomes of transactions.
 *
 * `_ostraka_answers` has one row a log entry with the answers of all its commands, because a row a command would
 * cost as much as the command. In memory there is only which entry answered which command.
 *
 * Invariants:
 * 1. What is in memory is a function of the rows: `load` gives the same as having applied the entries.
 * 2. A row goes when every command in it is below its client's low-water mark, or by age and number, oldest first;
 *    which rows go depends on the log alone, never on batches or restarts.
 * 3. A command whose answer may have gone is refused (OSTRAKA_UNKNOWN_OUTCOME), never executed again.
 * 4. No command that was recorded of a client was issued later than its newest row's age says. So the ages of rows that went
 *    tell what may have gone, and where clocks jump nobody's commands seem old because of that.
 */
import type Database from "better-sqlite3";
import { AmbiguousError, RetryError, toWireError } from "../../base/errors.js";
import type { TransactionId } from "../../base/ids.js";
import { ValueReader, ValueWriter } from "../../base/values.js";
import { readResult, writeResult } from "./command.js";
import {
  ANSWER_AGE_MS,
  MAX_ANSWER_ROWS,
  MAX_ISSUE_SKEW_MS,
  MAX_KEPT_ANSWER_BYTES,
  MAX_TRANSACTION_ROWS,
  type RangeState,
  TRANSACTION_AGE_MS,
} from "./state.js";
import type { CommandResult, IdempotencyKey } from "./types.js";

interface Answer {
  readonly client: string;
  readonly sequence: number;
  readonly lowestUnanswered: number;
  /** Undefined when it was too long to keep. */
  readonly result: CommandResult | undefined;
}

interface Client {
  floor: number;
  /** The age of the newest row of its own. */
  ageMs: number;
  /** Sequence to the log index of the entry that answered it. */
  readonly answered: Map<number, number>;
}

interface Row {
  live: number;
  readonly ageMs: number;
}

const writer = new ValueWriter(16 * 1024);

export class Answers {
  readonly #state: RangeState;
  readonly #clients = new Map<string, Client>();
  /** In log order. */
  readonly #rows = new Map<number, Row>();
  /** Rows with nothing left to answer, to be deleted at the end of the entry. */
  #dead: number[] = [];
  /** The entry being applied. */
  #pending: { readonly index: number; readonly answers: Answer[]; ageMs: number } | undefined;
  readonly #insert: Database.Statement;
  readonly #update: Database.Statement;
  readonly #age: Database.Statement;
  readonly #delete: Database.Statement;
  readonly #select: Database.Statement;
  readonly #selectAll: Database.Statement;

  constructor(database: Database.Database, state: RangeState) {
    this.#state = state;
    this.#insert = database.prepare("INSERT OR REPLACE INTO _ostraka_answers VALUES (?, ?, ?)");
    this.#update = database.prepare("UPDATE _ostraka_answers SET answers = ? WHERE log_index = ?");
    this.#age = database.prepare("UPDATE _ostraka_answers SET age_ms = ? WHERE log_index = ?");
    this.#delete = database.prepare("DELETE FROM _ostraka_answers WHERE log_index = ?");
    this.#select = database.prepare("SELECT answers FROM _ostraka_answers WHERE log_index = ?").pluck(true);
    this.#selectAll = database
      .prepare("SELECT log_index, age_ms, answers FROM _ostraka_answers ORDER BY log_index")
      .raw(true)
      .safeIntegers(false);
    this.load();
  }

  /** Back to what is in the file. */
  load(): void {
    this.#clients.clear();
    this.#rows.clear();
    this.#dead = [];
    this.#pending = undefined;
    for (const [index, ageMs, bytes] of this.#selectAll.iterate() as IterableIterator<
      [number, number, Uint8Array]
    >) {
      const answers = decodeAnswers(bytes);
      this.#rows.set(index, { live: 0, ageMs });
      for (const answer of answers) this.#remember(index, answer);
      if (index > this.#state.appliedIndex) this.#pending = { index, answers, ageMs };
    }
  }

  /** Takes in what another range has answered, as older than everything here, inside an entry. */
  adopt(source: Database.Database): void {
    this.flush();
    const rows = source
      .prepare("SELECT age_ms, answers FROM _ostraka_answers ORDER BY log_index DESC")
      .raw(true)
      .safeIntegers(true);
    let index = Math.min(0, ...[...this.#rows.keys()].slice(0, 1));
    for (const [ageMs, answers] of rows.iterate() as IterableIterator<[bigint, Uint8Array]>) {
      this.#insert.run(BigInt(--index), ageMs, answers);
      for (const answer of decodeAnswers(answers)) if (isDone(answer)) this.#correct(answer);
    }
    this.load();
    for (const client of this.#clients.values()) this.#keepAge(client);
  }

  /** Of rows that go, as another has told that they may, the newest may be one of them. */
  #keepAge({ ageMs, answered }: Client): void {
    let index = Number.NEGATIVE_INFINITY;
    for (const at of answered.values()) index = Math.max(index, at);
    const row = this.#rows.get(index)!;
    if (row.ageMs >= ageMs) return;
    this.#rows.set(index, { live: row.live, ageMs });
    this.#age.run(BigInt(ageMs), BigInt(index));
  }

  /** What was done elsewhere is told instead of what was answered here, where it was only asked about. */
  #correct(done: Answer): void {
    const { client, sequence, result } = done;
    const index = this.#clients.get(client)?.answered.get(sequence);
    if (index === undefined) return;
    const answers = this.#read(index);
    const at = answers.findIndex((answer) => answer.client === client && answer.sequence === sequence);
    const own = answers[at];
    if (own === undefined || isDone(own)) return;
    answers[at] = { ...own, result };
    this.#update.run(encodeAnswers(answers), BigInt(index));
  }

  /** The answer already given, or why the command cannot be executed; undefined to execute it. */
  admit(key: IdempotencyKey, wallMs: number): CommandResult | undefined {
    const client = this.#clients.get(key.client);
    const index = client?.answered.get(key.sequence);
    if (index !== undefined) return this.#repeat(index, key);
    if ((client !== undefined && key.sequence < client.floor) || key.issuedMs < this.#state.answerFloorMs)
      return failed(
        new AmbiguousError("the command may have been applied; its answer is no longer kept", undefined),
      );
    return this.ahead(key, wallMs);
  }

  /** Why nothing can be said of a command from the future: its age could not be judged. */
  ahead(key: IdempotencyKey, wallMs: number): CommandResult | undefined {
    if (key.issuedMs <= wallMs + MAX_ISSUE_SKEW_MS) return undefined;
    return failed(
      new RetryError("OSTRAKA_UNAVAILABLE", "the clock of the node that sent the command is far ahead"),
    );
  }

  /** As admit, for whoever asks only what became of the command: that is known where its answer was not kept, too. */
  outcome(key: IdempotencyKey, wallMs: number): CommandResult | undefined {
    const index = this.#clients.get(key.client)?.answered.get(key.sequence);
    const answer = index === undefined ? undefined : this.#answer(index, key.client, key.sequence);
    if (answer !== undefined && answer.result === undefined)
      return { ok: true, outcomes: [], repeated: true };
    return this.admit(key, wallMs);
  }

  record(index: number, key: IdempotencyKey, wallMs: number, result: CommandResult): void {
    const { floor: before, ageMs: newestMs } = this.#clients.get(key.client) ?? { floor: 0, ageMs: 0 };
    // The client has its answer from elsewhere (a transaction's coordinator) and will not ask.
    if (key.sequence < before) return;
    // The mark never sinks, so that the newest row that is left carries it.
    const floor = Math.max(key.lowestUnanswered, before);
    const answer: Answer = {
      client: key.client,
      sequence: key.sequence,
      lowestUnanswered: Math.min(floor, key.sequence),
      result: rowBytes(result) <= MAX_KEPT_ANSWER_BYTES ? result : undefined,
    };
    if (this.#pending?.index !== index) {
      this.#pending = { index, answers: [], ageMs: 0 };
      this.#rows.set(index, { live: 0, ageMs: 0 });
    }
    this.#pending.answers.push(answer);
    this.#pending.ageMs = Math.max(this.#pending.ageMs, wallMs, key.issuedMs, newestMs);
    this.#remember(index, answer);
  }

  /** Writes what is pending, because the batch ends inside the entry. */
  flush(): void {
    if (this.#pending === undefined) return;
    const { index, answers, ageMs } = this.#pending;
    this.#insert.run(BigInt(index), BigInt(ageMs), encodeAnswers(answers));
  }

  /** At the end of each entry: its row goes in, rows that nobody can ask for go out. */
  endEntry(): void {
    if (this.#pending !== undefined) {
      const { index, ageMs, answers } = this.#pending;
      const row = this.#rows.get(index)!;
      this.#rows.set(index, { live: row.live, ageMs });
      for (const { client } of answers) this.#grow(client, ageMs);
      this.flush();
      this.#pending = undefined;
    }
    for (const index of this.#dead) this.#drop(index);
    this.#dead = [];
    const oldest = this.#state.wallMs - ANSWER_AGE_MS;
    for (const [index, row] of this.#rows) {
      if (row.ageMs >= oldest && this.#rows.size <= MAX_ANSWER_ROWS) break;
      this.#state.answerFloorMs = Math.max(this.#state.answerFloorMs, row.ageMs + 1);
      this.#forget(index);
    }
  }

  #grow(name: string, ageMs: number): void {
    const client = this.#clients.get(name);
    if (client !== undefined) client.ageMs = Math.max(client.ageMs, ageMs);
  }

  #remember(index: number, { client: name, sequence, lowestUnanswered: lowest }: Answer): void {
    let client = this.#clients.get(name);
    if (client === undefined) {
      client = { floor: 0, ageMs: 0, answered: new Map() };
      this.#clients.set(name, client);
    }
    client.ageMs = Math.max(client.ageMs, this.#rows.get(index)!.ageMs);
    if (sequence < client.floor) {
      // Nobody can ask for it. What else its entry answered is still to come.
      this.#dead.push(index);
      return;
    }
    // Two ranges that were one have both kept what was answered before.
    const before = client.answered.get(sequence);
    if (before !== undefined) this.#release(before);
    client.answered.set(sequence, index);
    this.#rows.get(index)!.live++;
    if (lowest <= client.floor) return;
    client.floor = lowest;
    for (const [answered, at] of client.answered) {
      if (answered >= lowest) continue;
      client.answered.delete(answered);
      this.#release(at);
    }
  }

  #release(index: number): void {
    const row = this.#rows.get(index)!;
    if (--row.live === 0) this.#dead.push(index);
  }

  #drop(index: number): void {
    if (this.#rows.get(index)?.live !== 0) return;
    this.#rows.delete(index);
    this.#delete.run(BigInt(index));
  }

  /** Removes a row that is still answering. */
  #forget(index: number): void {
    for (const { client: name, sequence } of this.#read(index)) {
      const client = this.#clients.get(name);
      if (client === undefined || client.answered.get(sequence) !== index) continue;
      client.answered.delete(sequence);
      if (client.answered.size === 0) this.#clients.delete(name);
    }
    this.#rows.delete(index);
    this.#delete.run(BigInt(index));
  }

  #answer(index: number, name: string, sequence: number): Answer | undefined {
    const answers = this.#pending?.index === index ? this.#pending.answers : this.#read(index);
    return answers.find((answer) => answer.client === name && answer.sequence === sequence);
  }

  #repeat(index: number, { client, sequence }: IdempotencyKey): CommandResult {
    const result = this.#answer(index, client, sequence)?.result;
    if (result === undefined)
      return failed(
        new AmbiguousError("the command was applied; its answer was too long to be kept", undefined),
      );
    return result.ok ? { ...result, repeated: true } : result;
  }

  #read(index: number): Answer[] {
    return decodeAnswers(this.#select.get(BigInt(index)) as Uint8Array);
  }
}

/** Outcomes of transactions: committed ones, and tombstones of those that never will be. */
export class Transactions {
  readonly #state: RangeState;
  readonly #select: Database.Statement;
  readonly #insert: Database.Statement;
  readonly #correct: Database.Statement;
  readonly #oldest: Database.Statement;
  readonly #deleteOldest: Database.Statement;

  constructor(database: Database.Database, state: RangeState) {
    this.#state = state;
    this.#select = database.prepare("SELECT committed FROM _ostraka_transactions WHERE id = ?").pluck(true);
    this.#insert = database.prepare(
      "INSERT INTO _ostraka_transactions(id, committed, wall_ms) VALUES (?, ?, ?)",
    );
    this.#correct = database.prepare("UPDATE _ostraka_transactions SET committed = 1 WHERE id = ?");
    // Ordinals have no gaps: rows are added at one end and removed at the other.
    this.#oldest = database
      .prepare(
        `SELECT ordinal, wall_ms, (SELECT max(ordinal) FROM _ostraka_transactions)
         FROM _ostraka_transactions ORDER BY ordinal LIMIT 1`,
      )
      .raw(true)
      .safeIntegers(false);
    this.#deleteOldest = database.prepare("DELETE FROM _ostraka_transactions WHERE ordinal = ?");
  }

  /** Takes in what another range knows. A tombstone says no more than that its own range has not committed. */
  adopt(source: Database.Database): void {
    const rows = source
      .prepare("SELECT id, committed, wall_ms FROM _ostraka_transactions ORDER BY ordinal")
      .raw(true)
      .safeIntegers(true);
    for (const [id, committed, wallMs] of rows.iterate() as IterableIterator<[string, bigint, bigint]>) {
      const known = this.#select.get(id) as bigint | undefined;
      if (known === undefined) this.#insert.run(id, committed, wallMs);
      else if (known === 0n && committed === 1n) this.#correct.run(id);
    }
  }

  outcome(transaction: TransactionId): "committed" | "aborted" | undefined {
    const committed = this.#select.get(transaction) as bigint | undefined;
    if (committed === undefined) return undefined;
    return committed === 1n ? "committed" : "aborted";
  }

  record(transaction: TransactionId, outcome: "committed" | "aborted", wallMs: number): void {
    this.#insert.run(transaction, outcome === "committed" ? 1n : 0n, BigInt(wallMs));
    // Two at most each time, so that the table shrinks again but no command pays for many.
    for (let i = 0; i < 2; i++) {
      const [ordinal, age, newest] = this.#oldest.get() as [number, number, number];
      const expired = age < this.#state.wallMs - TRANSACTION_AGE_MS;
      if (ordinal === newest || (!expired && newest - ordinal < MAX_TRANSACTION_ROWS)) return;
      this.#deleteOldest.run(BigInt(ordinal));
      this.#state.transactionFloorMs = Math.max(this.#state.transactionFloorMs, age + 1);
    }
  }
}

/** Clients by number, each named where it first occurs: count | client, sequence, lowest, whether kept, result ... */
function encodeAnswers(answers: readonly Answer[]): Uint8Array {
  const clients = new Map<string, number>();
  writer.reset();
  writer.uint(answers.length);
  for (const { client, sequence, lowestUnanswered, result } of answers) {
    const known = clients.get(client);
    writer.uint(known ?? clients.size);
    if (known === undefined) {
      clients.set(client, clients.size);
      writer.string(client);
    }
    writer.uint(sequence);
    writer.uint(lowestUnanswered);
    writer.byte(result === undefined ? 0 : 1);
    if (result !== undefined) writeResult(writer, result);
  }
  return writer.take();
}

function decodeAnswers(bytes: Uint8Array): Answer[] {
  const reader = new ValueReader(bytes);
  const clients: string[] = [];
  const answers: Answer[] = [];
  for (let left = reader.uint(); left > 0; left--) {
    const number = reader.uint();
    if (number === clients.length) clients.push(reader.string());
    const sequence = reader.uint();
    const lowestUnanswered = reader.uint();
    const kept = reader.byte() === 1;
    answers.push({
      client: clients[number]!,
      sequence,
      lowestUnanswered,
      result: kept ? readResult(reader) : undefined,
    });
  }
  return answers;
}

function rowBytes(result: CommandResult): number {
  return result.ok ? result.outcomes.reduce((sum, { rows }) => sum + rows.length, 0) : 0;
}

/** Whether it says that something was done. What was too long to keep says so, too. */
function isDone({ result }: Answer): boolean {
  if (result === undefined) return true;
  return result.ok && result.decision !== "aborted" && result.decision !== "unknown";
}

function failed(error: unknown): CommandResult {
  return { ok: false, error: toWireError(error), statement: 0 };
}
