/**
 * What a leader remembers of recent writes: which spans, at which log index, while anybody has a transaction open.
 * A transaction passes validation if nothing it read was written after the index it read at.
 *
 * Invariants:
 * 1. A write counts from the moment it is admitted: until its index is known it is later than every read.
 * 2. Nothing at or above `floor` is forgotten; what was read below it cannot be validated.
 * 3. Memory is bounded: beyond `maxKeys` the floor rises to the newest settled write.
 *
 * Point writes are kept per key, all others in a list a table; whole-table reads look at one number.
 */
import type { LogIndex } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import { intersects, isPoint, isWholeTable } from "./spans.js";

/** The newest write of something: settled at `index`, and how many are still on their way into the log. */
interface Mark {
  index: number;
  pending: number;
}

interface RangeMark extends Mark {
  readonly span: Span;
}

class TableMarks {
  readonly newest: Mark = { index: 0, pending: 0 };
  readonly points = new Map<bigint, Mark>();
  readonly ranges: RangeMark[] = [];
}

/** One admitted write, to be settled once its index is known. */
export interface WriteToken {
  readonly marks: readonly Mark[];
}

export class WriteMemory {
  readonly #maxKeys: number;
  #tables = new Map<string, TableMarks>();
  readonly #any: Mark = { index: 0, pending: 0 };
  #keys = 0;
  #floor: number;

  /** Reads at or above `floor` can be judged: there is nothing older that this memory would have to know. */
  constructor(floor: LogIndex, maxKeys: number) {
    this.#floor = floor;
    this.#maxKeys = maxKeys;
  }

  get floor(): number {
    return this.#floor;
  }

  /** Admits a write; it conflicts with every read until it is settled. */
  admit(spans: readonly Span[]): WriteToken {
    const marks: Mark[] = [this.#any];
    for (const span of spans) this.#markSpan(span, marks);
    for (const mark of marks) mark.pending++;
    if (this.#keys > this.#maxKeys) this.#forget();
    return { marks };
  }

  /** The write is in the log at `index`. */
  settle(token: WriteToken, index: LogIndex): void {
    for (const mark of token.marks) {
      mark.pending--;
      if (index > mark.index) mark.index = index;
    }
  }

  /** The write never entered the log. */
  drop(token: WriteToken): void {
    for (const mark of token.marks) mark.pending--;
  }

  #markSpan(span: Span, marks: Mark[]): void {
    let table = this.#tables.get(span.table);
    if (table === undefined) {
      table = new TableMarks();
      this.#tables.set(span.table, table);
    }
    marks.push(table.newest);
    if (isPoint(span)) {
      let mark = table.points.get(span.low);
      if (mark === undefined) {
        mark = { index: 0, pending: 0 };
        table.points.set(span.low, mark);
        this.#keys++;
      }
      marks.push(mark);
      return;
    }
    const last = table.ranges.at(-1);
    if (last !== undefined && last.span.low === span.low && last.span.high === span.high) {
      marks.push(last);
      return;
    }
    const mark = { span, index: 0, pending: 0 };
    table.ranges.push(mark);
    this.#keys++;
    marks.push(mark);
  }

  /** Whether anything in `spans` was, or is being, written after `index`. */
  touchedSince(spans: readonly Span[], index: LogIndex): boolean {
    if (!isLater(this.#any, index)) return false;
    const everything = this.#tables.get("*");
    if (everything !== undefined && isLater(everything.newest, index)) return spans.length > 0;
    return spans.some((span) => this.#touched(span, index));
  }

  #touched(span: Span, index: LogIndex): boolean {
    if (span.table === "*") return true;
    const table = this.#tables.get(span.table);
    if (table === undefined || !isLater(table.newest, index)) return false;
    if (isWholeTable(span)) return true;
    if (table.ranges.some((mark) => isLater(mark, index) && intersects(mark.span, span))) return true;
    if (isPoint(span)) {
      const mark = table.points.get(span.low);
      return mark !== undefined && isLater(mark, index);
    }
    for (const [key, mark] of table.points) {
      if (
        isLater(mark, index) &&
        (span.low === undefined || key >= span.low) &&
        (span.high === undefined || key <= span.high)
      )
        return true;
    }
    return false;
  }

  /** Raises the floor to the newest settled write, keeping only what is still on its way. */
  #forget(): void {
    this.#floor = Math.max(this.#floor, this.#any.index);
    this.#keys = 0;
    for (const [name, table] of this.#tables) {
      for (const [key, mark] of table.points) if (mark.pending === 0) table.points.delete(key);
      const ranges = table.ranges.filter((mark) => mark.pending > 0);
      table.ranges.splice(0, table.ranges.length, ...ranges);
      this.#keys += table.points.size + ranges.length;
      if (table.newest.pending === 0) this.#tables.delete(name);
    }
  }
}

function isLater(mark: Mark, index: LogIndex): boolean {
  return mark.pending > 0 || mark.index > index;
}
