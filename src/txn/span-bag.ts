/**
 * Spans that come one after the other, kept short without becoming wider: what is covered already is left out, and long
 * runs of neighbouring keys become one interval. A load of consecutive rows is one span, whatever it writes.
 *
 * Short runs stay keys: whoever asks finds a key by looking it up, and an interval only by looking through all of them.
 */
import { END_OF_TABLE, type Span } from "../sql/types.js";
import { covers, isPoint } from "./spans.js";

/** Neighbouring keys that become an interval. */
const LONG_RUN = 64n;
/** Of a table's intervals, how many a new span is compared with. */
const COMPARED = 8;

class TableBag {
  readonly points = new Map<bigint, Span>();
  readonly intervals: Span[] = [];
  /** The run of neighbouring keys that came last: from `low` to `high`; none while `high` is less. */
  #low = 0n;
  #high = -1n;

  add(span: Span): boolean {
    if (!isPoint(span)) return this.#addInterval(span);
    const { low: key } = span;
    if (key >= this.#low && key <= this.#high) return false;
    if (this.points.has(key) || this.#covered(span)) return false;
    this.points.set(key, span);
    // It is no key that has neighbours.
    if (key === END_OF_TABLE) return true;
    if (key === this.#high + 1n && this.#high >= this.#low) this.#high = key;
    else {
      this.#closeRun(span.table);
      this.#low = this.#high = key;
    }
    if (this.#high - this.#low === LONG_RUN)
      for (let of = this.#low; of <= this.#high; of++) this.points.delete(of);
    else if (this.#high - this.#low > LONG_RUN) this.points.delete(key);
    return true;
  }

  #addInterval(span: Span): boolean {
    if (this.#covered(span)) return false;
    this.intervals.push(span);
    return true;
  }

  #covered(span: Span): boolean {
    for (let i = this.intervals.length - 1; i >= 0 && i >= this.intervals.length - COMPARED; i--)
      if (covers(this.intervals[i]!, span)) return true;
    return false;
  }

  #closeRun(table: string): void {
    const run = this.#run(table);
    if (run !== undefined) this.intervals.push(run);
    this.#low = 0n;
    this.#high = -1n;
  }

  /** The run that came last, if it has become an interval. */
  #run(table: string): Span | undefined {
    return this.#high - this.#low >= LONG_RUN ? { table, low: this.#low, high: this.#high } : undefined;
  }

  *spans(table: string): Generator<Span> {
    yield* this.points.values();
    yield* this.intervals;
    const run = this.#run(table);
    if (run !== undefined) yield run;
  }
}

export class SpanBag {
  readonly #tables = new Map<string, TableBag>();

  constructor(spans: readonly Span[] = []) {
    this.addAll(spans);
  }

  /** False when it was covered already, as far as that is found at little cost. */
  add(span: Span): boolean {
    let table = this.#tables.get(span.table);
    if (table === undefined) {
      table = new TableBag();
      this.#tables.set(span.table, table);
    }
    return table.add(span);
  }

  addAll(spans: readonly Span[]): void {
    for (const span of spans) this.add(span);
  }

  /** All that was added, and no more. */
  spans(): Span[] {
    const spans: Span[] = [];
    for (const [name, table] of this.#tables) for (const span of table.spans(name)) spans.push(span);
    return spans;
  }
}
