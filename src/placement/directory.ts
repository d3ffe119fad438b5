/**
 * A directory of ranges: which range has a key. Immutable; learning of newer descriptors makes another one.
 *
 * Invariant: the ranges of a complete directory follow one another without gaps from "" to "". A directory that has
 * learned of one half of a split and not yet of the other has a gap; `at` and `between` then leave the gap out, and
 * `complete` is false: whoever needs all of the keyspace asks meta again.
 */
import type { GroupId } from "../base/ids.js";
import type { Key } from "../base/keys.js";
import { isBefore, type KeySpan, overlaps, type RangeDescriptor } from "./descriptor.js";

export class RangeDirectory {
  /** In key order. */
  readonly ranges: readonly RangeDescriptor[];
  readonly complete: boolean;
  #byId: ReadonlyMap<GroupId, RangeDescriptor> | undefined;

  constructor(ranges: readonly RangeDescriptor[]) {
    this.ranges = [...ranges].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    this.complete =
      this.ranges.length > 0 &&
      this.ranges[0]!.start === "" &&
      this.ranges.at(-1)!.end === "" &&
      this.ranges.every((range, i) => i === 0 || this.ranges[i - 1]!.end === range.start);
  }

  get(range: GroupId): RangeDescriptor | undefined {
    this.#byId ??= new Map(this.ranges.map((descriptor) => [descriptor.range, descriptor]));
    return this.#byId.get(range);
  }

  /** The range that has `key`. */
  at(key: Key): RangeDescriptor | undefined {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.ranges[middle]!;
      if (key < range.start) high = middle - 1;
      else if (!isBefore(key, range.end)) low = middle + 1;
      else return range;
    }
    return undefined;
  }

  /** All ranges that have keys of the span, in key order. */
  between(span: KeySpan): readonly RangeDescriptor[] {
    if (this.ranges.length === 1) return overlaps(this.ranges[0]!, span) ? this.ranges : [];
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(span.start, this.ranges[middle]!.end)) high = middle;
      else low = middle + 1;
    }
    const first = low;
    while (low < this.ranges.length && isBefore(this.ranges[low]!.start, span.end)) low++;
    return this.ranges.slice(first, low);
  }

  /**
   * With these descriptors wherever they are newer: a newer one replaces what it overlaps of older generations, an
   * older one is ignored. Answers itself when nothing is new.
   */
  with(descriptors: readonly RangeDescriptor[]): RangeDirectory {
    let ranges = this.ranges;
    for (const descriptor of descriptors) {
      const known = ranges.find((other) => other.range === descriptor.range);
      if (known !== undefined && known.generation >= descriptor.generation) {
        if (known.generation > descriptor.generation || sameReplicas(known, descriptor)) continue;
        ranges = ranges.map((other) => (other === known ? descriptor : other));
        continue;
      }
      const rest = ranges.filter((other) => other !== known);
      if (rest.some((other) => overlaps(other, descriptor) && other.generation > descriptor.generation))
        continue;
      ranges = [...rest.filter((other) => !overlaps(other, descriptor)), descriptor];
    }
    return ranges === this.ranges ? this : new RangeDirectory(ranges);
  }
}

function sameReplicas(a: RangeDescriptor, b: RangeDescriptor): boolean {
  return a.replicas.length === b.replicas.length && a.replicas.every((node, i) => node === b.replicas[i]);
}
