/**
 * The transactions that a range has prepared and not yet been told the decision of: what each has read and would write
 * there is held, from the moment its PREPARE is admitted to the log's queue until its COMMIT or ABORT is applied.
 *
 * Who meets a held transaction
 * 1. Whoever reads meets what is held as written: the decision may have been told to somebody already.
 * 2. Whoever writes meets what is held as written or read.
 * 3. A PREPARE that meets one waits for it a bounded time; what it holds at other ranges it holds meanwhile. gate.ts says
 *    why nobody waits in a circle for long.
 *
 * What waits for holds, and in which order, is gate.ts's business. That a PREPARE and a COMMIT also count as writes at
 * their log indexes is the memory of writes' (write-memory.ts).
 */
import type { TransactionId } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import { SpanSet } from "./spans.js";

export interface Hold {
  readonly id: TransactionId;
  readonly reads: SpanSet;
  readonly writes: SpanSet;
}

export class Holds {
  readonly #holds = new Map<TransactionId, Hold>();
  /** Held as written by any; made when asked for. */
  #writes: readonly Span[] | undefined;
  #watches: Set<HoldWatch> | undefined;

  get size(): number {
    return this.#holds.size;
  }

  get(id: TransactionId): Hold | undefined {
    return this.#holds.get(id);
  }

  ids(): IterableIterator<TransactionId> {
    return this.#holds.keys();
  }

  /** Spans that held transactions may yet change; undefined when there are none. */
  writes(): readonly Span[] | undefined {
    if (this.#holds.size === 0) return undefined;
    this.#writes ??= [...this.#holds.values()].flatMap(({ writes }) => writes.spans);
    return this.#writes.length === 0 ? undefined : this.#writes;
  }

  hold(id: TransactionId, reads: readonly Span[], writes: readonly Span[]): void {
    this.#holds.set(id, { id, reads: new SpanSet(reads), writes: new SpanSet(writes) });
    this.#writes = undefined;
    if (this.#watches === undefined) return;
    for (const watch of this.#watches) if (watch.spans.meets(writes)) watch.met = true;
  }

  release(id: TransactionId): Hold | undefined {
    const hold = this.#holds.get(id);
    this.#holds.delete(id);
    this.#writes = undefined;
    return hold;
  }

  /** Whether somebody who reads and writes these spans meets a held transaction (other than `except`). */
  meets(reads: readonly Span[], writes: readonly Span[], except?: TransactionId): boolean {
    return this.some(reads, writes, (id) => id !== except);
  }

  /** The same, for those held transactions that are meant. */
  some(reads: readonly Span[], writes: readonly Span[], meant: (id: TransactionId) => boolean): boolean {
    for (const [id, hold] of this.#holds) {
      if (!meant(id)) continue;
      if (hold.writes.meets(reads) || hold.writes.meets(writes) || hold.reads.meets(writes)) return true;
    }
    return false;
  }

  /**
   * Notes whether anything is held anew that changes these spans, until `unwatch`: a read that takes its time on a
   * state that moves on must find no hold on the state it was answered from.
   */
  watch(spans: readonly Span[]): HoldWatch {
    const watch: HoldWatch = { spans: new SpanSet(spans), met: false };
    this.#watches ??= new Set();
    this.#watches.add(watch);
    return watch;
  }

  unwatch(watch: HoldWatch): void {
    this.#watches?.delete(watch);
  }
}

export interface HoldWatch {
  readonly spans: SpanSet;
  met: boolean;
}
