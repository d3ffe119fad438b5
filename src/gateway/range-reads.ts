/**
 * What a transaction has read of ranges, each as of what was pinned of it: kept short, however many statements have read
 * the same.
 */
import type { GroupId, LogIndex, Term } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import { SpanBag } from "../txn/span-bag.js";
import type { RangeRead } from "./workspace.js";

export class RangeReads {
  readonly #reads = new Map<string, Omit<RangeRead, "spans"> & { readonly bag: SpanBag }>();

  add(range: GroupId, index: LogIndex, term: Term, spans: readonly Span[]): void {
    if (spans.length === 0) return;
    const key = `${range} ${index} ${term}`;
    let read = this.#reads.get(key);
    if (read === undefined) {
      read = { range, index, term, bag: new SpanBag() };
      this.#reads.set(key, read);
    }
    read.bag.addAll(spans);
  }

  /** Of each range what was pinned last comes last. */
  all(): readonly RangeRead[] {
    return Array.from(this.#reads.values(), ({ bag, ...read }) => ({ ...read, spans: bag.spans() }));
  }
}
