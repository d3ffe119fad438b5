/**
 * The transactions that are open at a leader: what each has read (and at which index) and would write, and whether it
 * may still commit. Soft state of one leadership: a new leader has none, and refuses what was read before its term.
 *
 * The order for a commit is: wait for reservations, holds and fences that are in its way; then `conflict` and the
 * admission of its writes in one step, without a pause.
 */
import type { LogIndex, Term, TransactionId } from "../base/ids.js";
import type { Footprint, Span } from "../sql/types.js";
import { SpanBag } from "./span-bag.js";
import { WriteMemory, type WriteToken } from "./write-memory.js";

interface Read {
  readonly index: LogIndex;
  readonly spans: readonly Span[];
}

interface RunWrite<S> {
  /** The statement's position in its transaction, to be forgotten by ROLLBACK TO. */
  readonly ordinal: number;
  readonly index: LogIndex;
  readonly spans: readonly Span[];
  readonly checks: readonly Span[];
  readonly statement: S;
}

/** A transaction as its leader knows it; `S` is what the leader keeps of each write statement. */
export interface OpenTransaction<S> {
  readonly id: TransactionId;
  readonly openedMs: number;
  /** Index that the memory of writes reaches back to for it. */
  readonly since: LogIndex;
  /** Statements run so far. */
  ordinal: number;
  /** What was read, at the earliest index that it was read at. */
  readonly reads: Read[];
  writes: RunWrite<S>[];
  /** All of `reads`. */
  readonly seen: SpanBag;
  /** The latest index of `reads`. */
  seenUpTo: number;
  /** What `writes` write, and what they looked at to check constraints; undefined when it is to be gathered anew. */
  touched: { readonly written: SpanBag; readonly checked: SpanBag } | undefined;
  lastUsedMs: number;
}

export class TransactionTable<S> {
  readonly term: Term;
  readonly #maxKeys: number;
  readonly #open = new Map<TransactionId, OpenTransaction<S>>();
  #memory: WriteMemory | undefined;

  constructor(term: Term, maxKeys: number) {
    this.term = term;
    this.#maxKeys = maxKeys;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Writes have to be admitted to the memory. */
  get remembering(): boolean {
    return this.#memory !== undefined;
  }

  get(id: TransactionId): OpenTransaction<S> | undefined {
    return this.#open.get(id);
  }

  all(): readonly OpenTransaction<S>[] {
    return [...this.#open.values()];
  }

  /**
   * Opens a transaction whose reads will be at `index` or later. When it is the first, the caller must admit what is
   * on its way into the log (`remembering` turns true) before it does anything else.
   */
  open(id: TransactionId, index: LogIndex, nowMs: number): OpenTransaction<S> {
    const known = this.#open.get(id);
    if (known !== undefined) return known;
    this.#memory ??= new WriteMemory(index, this.#maxKeys);
    const transaction: OpenTransaction<S> = {
      id,
      openedMs: nowMs,
      since: index,
      ordinal: 0,
      reads: [],
      writes: [],
      seen: new SpanBag(),
      seenUpTo: 0,
      touched: { written: new SpanBag(), checked: new SpanBag() },
      lastUsedMs: nowMs,
    };
    this.#open.set(id, transaction);
    return transaction;
  }

  close(id: TransactionId): void {
    this.#open.delete(id);
    if (this.#open.size === 0) this.#memory = undefined;
  }

  /** Closes what nobody has used since `beforeMs`; answers the ids. */
  expire(beforeMs: number): TransactionId[] {
    const expired = [...this.#open.values()]
      .filter((transaction) => transaction.lastUsedMs < beforeMs)
      .map(({ id }) => id);
    for (const id of expired) this.close(id);
    return expired;
  }

  admit(spans: readonly Span[]): WriteToken | undefined {
    return this.#memory?.admit(spans);
  }

  settle(token: WriteToken, index: LogIndex): void {
    this.#memory?.settle(token, index);
  }

  drop(token: WriteToken): void {
    this.#memory?.drop(token);
  }

  /** Records a statement that ran on the state at `index`; `statement` undefined for one that need not run again. */
  ran(
    transaction: OpenTransaction<S>,
    footprint: Footprint,
    index: LogIndex,
    statement: S | undefined,
  ): void {
    const ordinal = transaction.ordinal++;
    const { reads, writes, checks } = footprint;
    // What was read before, at an earlier index, is validated as of then.
    const before = index >= transaction.seenUpTo;
    const news = reads.filter((span) => transaction.seen.add(span) || !before);
    if (news.length > 0) transaction.reads.push({ index, spans: news });
    transaction.seenUpTo = Math.max(transaction.seenUpTo, index);
    if (statement === undefined) return;
    transaction.writes.push({ ordinal, index, spans: writes, checks, statement });
    transaction.touched?.written.addAll(writes);
    transaction.touched?.checked.addAll(checks);
  }

  /**
   * ROLLBACK TO: forgets what was written from `ordinal` on. What was read was told, and stays; so was what a write
   * that will not run again found when it checked constraints, which nothing else compares at the commit.
   */
  truncate(transaction: OpenTransaction<S>, ordinal: number): void {
    for (const { index, checks, ordinal: dropped } of transaction.writes) {
      if (dropped >= ordinal && checks.length > 0) transaction.reads.push({ index, spans: checks });
    }
    transaction.writes = transaction.writes.filter((write) => write.ordinal < ordinal);
    transaction.touched = undefined;
    transaction.ordinal = ordinal;
  }

  /** Why the transaction cannot commit any more, or undefined. */
  conflict(transaction: OpenTransaction<S>, elsewhere: readonly Read[] = []): string | undefined {
    return this.#conflict([...transaction.reads, ...elsewhere]);
  }

  /**
   * The same for a part of a commit across ranges: nothing of it runs again, so what its writes looked at to check
   * constraints counts as read. `transaction` is undefined when nothing of it ran at this leader.
   */
  conflictOfPart(
    transaction: OpenTransaction<S> | undefined,
    elsewhere: readonly Read[],
  ): string | undefined {
    return this.#conflict([...(transaction === undefined ? [] : allReads(transaction)), ...elsewhere]);
  }

  #conflict(reads: readonly Read[]): string | undefined {
    const memory = this.#memory;
    for (const { index, spans } of reads) {
      if (spans.length === 0) continue;
      if (memory === undefined) return "the leader does not know the transaction";
      if (index < memory.floor) return "too much was written since the transaction began";
      if (memory.touchedSince(spans, index))
        return "what the transaction has read was changed by another one";
    }
    return undefined;
  }
}

/** Whether just so many statements have run here, of which any would have read something (the schema). */
export function remembers<S>(transaction: OpenTransaction<S> | undefined, ran: number | undefined): boolean {
  return transaction !== undefined && transaction.ordinal === ran && transaction.reads.length > 0;
}

/** What a transaction has read, with what its writes looked at to check constraints. */
function allReads<S>(transaction: OpenTransaction<S>): Read[] {
  return [...transaction.reads, ...transaction.writes.map(({ index, checks }) => ({ index, spans: checks }))];
}

/** The spans of what a transaction has read, with those that its writes looked at to check constraints. */
export function spansLookedAt<S>(transaction: OpenTransaction<S>): Span[] {
  return [...transaction.reads.flatMap(({ spans }) => spans), ...touched(transaction).checked.spans()];
}

export function spansWritten<S>(transaction: OpenTransaction<S>): Span[] {
  return touched(transaction).written.spans();
}

function touched<S>(transaction: OpenTransaction<S>): NonNullable<OpenTransaction<S>["touched"]> {
  const { writes } = transaction;
  transaction.touched ??= {
    written: new SpanBag(writes.flatMap(({ spans }) => spans)),
    checked: new SpanBag(writes.flatMap(({ checks }) => checks)),
  };
  return transaction.touched;
}
