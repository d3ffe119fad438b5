/**
 * One group's log as held in memory: where each live entry lies on disk, its term, and the newest entries themselves.
 *
 * Invariants:
 * 1. Entries are contiguous: base.index + 1 .. lastIndex. Terms never decrease along them.
 * 2. `hot` is a contiguous suffix of the entries. An entry whose place on disk is not known yet is in `hot`.
 * 3. Segments along the entries never decrease, so the first entry lies in the oldest segment any of them needs.
 *
 * Only the durable log and its recovery change it. Left out: reading cold entries (cold-reads.ts).
 */
import { assert } from "../base/assert.js";
import { FatalError } from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, NO_NODE, type Term, term } from "../base/ids.js";
import type { Entry, HardState, SnapshotMeta } from "../raft/types.js";
import type { DecodedRecord } from "./record.js";

/** Stands for "no segment holds it": not written yet, or nothing to hold. Greater than every sequence. */
export const NO_SEGMENT = 0xffffffff;

export const EMPTY_HARD_STATE: HardState = { term: term(0), vote: NO_NODE, commit: logIndex(0) };

export const EMPTY_BASE: SnapshotMeta = {
  index: logIndex(0),
  term: term(0),
  conf: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

/** A record on its way to the disk. */
export interface PendingRecord {
  readonly state: GroupState;
  readonly entries: readonly Entry[];
  /** Where the entries' data begins, from the start of the append this record belongs to. */
  readonly dataOffset: number;
  readonly hasHardState: boolean;
  readonly hasBase: boolean;
  /** Its entries serve reads from memory until evicted. */
  readonly cached: boolean;
  readonly dataBytes: number;
  durable: boolean;
}

/** Columns of a row: segment, offset of the data, 2 * length + kind, checksum of the data. */
const COLUMNS = 4;

export class GroupState {
  hardState: HardState = EMPTY_HARD_STATE;
  base: SnapshotMeta = EMPTY_BASE;
  /** Bytes of the live entries' data. */
  dataBytes = 0;
  #rows = new Uint32Array(COLUMNS * 8);
  /** Row of the first live entry. */
  #head = 0;
  #count = 0;
  /** Runs of equal terms: the index each begins at (the first may lie below the first entry) and its term. */
  #runs: { start: number; term: number }[] = [];
  #hot: Entry[] = [];
  #hotHead = 0;
  /** Index of the first row; base.index + 1 but for a moment during recovery. */
  #first = 1;
  #hardStateSegment = NO_SEGMENT;
  #baseSegment = NO_SEGMENT;
  /** The newest records queued with a hard state and with a base: older ones do not place them. */
  #hardStateRecord: PendingRecord | undefined;
  #baseRecord: PendingRecord | undefined;

  constructor(readonly id: GroupId) {}

  get firstIndex(): number {
    return this.#first;
  }

  get lastIndex(): number {
    return this.#first + this.#count - 1;
  }

  get entryCount(): number {
    return this.#count;
  }

  /** The oldest segment without which this group could not be read back, once all that is queued is written. */
  oldestSegment(): number {
    return Math.min(this.#hardStateSegment, this.#baseSegment, this.oldestEntrySegment());
  }

  oldestEntrySegment(): number {
    return this.#count > 0 ? this.#rows[this.#head * COLUMNS]! : NO_SEGMENT;
  }

  term(index: LogIndex): Term | undefined {
    if (index === this.base.index) return this.base.term;
    if (index < this.#first || index > this.lastIndex) return undefined;
    let low = 0;
    let high = this.#runs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#runs[middle]!.start <= index) low = middle;
      else high = middle - 1;
    }
    return term(this.#runs[low]!.term);
  }

  /** The entry itself, if it is in memory. */
  hotEntry(index: number): Entry | undefined {
    const first = this.lastIndex - (this.#hot.length - this.#hotHead) + 1;
    return index < first ? undefined : this.#hot[this.#hotHead + index - first];
  }

  location(index: number): { segment: number; offset: number; size: number; checksum: number } {
    const at = this.#rowAt(index);
    return {
      segment: this.#rows[at]!,
      offset: this.#rows[at + 1]!,
      size: this.#rows[at + 2]!,
      checksum: this.#rows[at + 3]!,
    };
  }

  dataLength(index: number): number {
    return this.#rows[this.#rowAt(index) + 2]! >>> 1;
  }

  #rowAt(index: number): number {
    assert(index >= this.#first && index <= this.lastIndex, `group ${this.id}: no entry ${index} in its log`);
    return (this.#head + index - this.#first) * COLUMNS;
  }

  /** Refuses what would leave a hole or go below the base, before anything is changed. */
  checkAppend(entries: readonly Entry[], snapshot: SnapshotMeta | undefined): void {
    const first = entries[0];
    if (first === undefined) return;
    const base = snapshot ? snapshot.index : this.base.index;
    const last = snapshot ? snapshot.index : this.lastIndex;
    const group = this.id;
    assert(first.index <= last + 1, `group ${group}: entry ${first.index} leaves a hole after ${last}`);
    assert(first.index > base, `group ${group}: entry ${first.index} is not after the log's base ${base}`);
    let index = first.index - 1;
    for (const entry of entries) {
      assert(entry.index === index + 1, `group ${group}: entry ${entry.index} does not follow ${index}`);
      index++;
    }
  }

  /** Makes an append visible. `record` is the queued form of the same; its entries become the hot tail. */
  append(
    record: PendingRecord,
    content: { hardState: HardState | undefined; base: SnapshotMeta | undefined },
    checksums: readonly number[],
  ): void {
    if (content.base) {
      this.#reset(content.base);
      this.#expectBase(record);
    }
    if (content.hardState) {
      this.hardState = content.hardState;
      this.#expectHardState(record);
    }
    const first = record.entries[0];
    if (first === undefined) return;
    this.#truncateFrom(first.index);
    for (let i = 0; i < record.entries.length; i++) {
      const entry = record.entries[i]!;
      this.#push(entry.term, NO_SEGMENT, 0, entry.data.length * 2 + entry.kind, checksums[i]!);
      this.#hot.push(entry);
    }
  }

  /** Entries up to the new base are gone. Its record is queued separately. */
  compact(base: SnapshotMeta, record: PendingRecord): void {
    this.#dropThrough(base.index);
    this.base = base;
    this.#expectBase(record);
  }

  /** A record that says the whole state again was queued; the state itself does not change. */
  restated(record: PendingRecord): void {
    if (record.hasHardState) this.#expectHardState(record);
    if (record.hasBase) this.#expectBase(record);
  }

  // The record now on disk holds nothing back any more: whoever drops its segment first waits for the queue.
  #expectHardState(record: PendingRecord): void {
    this.#hardStateRecord = record;
    this.#hardStateSegment = NO_SEGMENT;
  }

  #expectBase(record: PendingRecord): void {
    this.#baseRecord = record;
    this.#baseSegment = NO_SEGMENT;
  }

  /**
   * The append that holds the record lies in this segment from `offset` on. Called in the order of queueing: for a
   * record whose entries are hot when its write begins (an entry that was replaced since is placed wrongly for a
   * moment; its replacement, queued later, sets it right), for a restated one when it is durable.
   */
  place(record: PendingRecord, segment: number, offset: number): void {
    if (record === this.#hardStateRecord) this.#hardStateSegment = segment;
    if (record === this.#baseRecord) this.#baseSegment = segment;
    let at = offset + record.dataOffset;
    for (const entry of record.entries) {
      if (entry.index >= this.#first && entry.index <= this.lastIndex) {
        const row = this.#rowAt(entry.index);
        // A restated entry lay in an older segment, unless it was replaced meanwhile.
        if (record.cached || this.#rows[row]! < segment) {
          this.#rows[row] = segment;
          this.#rows[row + 1] = at;
        }
      }
      at += entry.data.length;
    }
  }

  /** Frees the record's entries from memory; they were written. */
  evict(record: PendingRecord): void {
    for (const entry of record.entries) {
      if (this.#hot[this.#hotHead] !== entry) continue;
      this.#hotHead++;
    }
    this.#tidyHot();
  }

  /** Replays a record found on disk. Before `finishRecovery` the log may begin later than its base says. */
  recover(record: DecodedRecord, segment: number, offset: number): void {
    if (record.hardState) {
      this.hardState = record.hardState;
      this.#hardStateSegment = segment;
    }
    if (record.base) {
      if (record.replace) this.#reset(record.base);
      else {
        this.#dropThrough(record.base.index);
        this.base = record.base;
      }
      this.#baseSegment = segment;
    }
    if (record.terms.length === 0) return;
    // What came before may lie in segments already dropped; a later base must then cover it.
    if (record.firstIndex > this.lastIndex + 1 || record.firstIndex < this.#first) {
      this.#dropThrough(this.lastIndex);
      this.#first = record.firstIndex;
    } else this.#truncateFrom(record.firstIndex);
    let at = offset + record.dataOffset;
    for (let i = 0; i < record.terms.length; i++) {
      const size = record.sizes[i]!;
      this.#push(record.terms[i]!, segment, at, size, record.checksums[i]!);
      at += size >>> 1;
    }
  }

  finishRecovery(): void {
    if (this.#first === this.base.index + 1) return;
    throw new FatalError(
      "OSTRAKA_LOG_CORRUPT",
      `the log of group ${this.id} begins at entry ${this.#first}, but its base is ${this.base.index}: segments are missing`,
    );
  }

  /** The last entry that lies in `segment` or an older one, if any does. */
  lastIndexThrough(segment: number): number | undefined {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#rows[(this.#head + middle) * COLUMNS]! <= segment) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : this.#first + low - 1;
  }

  #reset(base: SnapshotMeta): void {
    this.#truncateFrom(this.#first);
    this.#head = 0;
    this.#runs = [];
    this.base = base;
    this.#first = base.index + 1;
  }

  #push(entryTerm: number, segment: number, offset: number, size: number, checksum: number): void {
    const last = this.#runs.at(-1);
    const index = this.#first + this.#count;
    if (last === undefined || last.term !== entryTerm) {
      assert(
        last === undefined || last.term < entryTerm,
        `group ${this.id}: the term of entry ${index} is lower than its predecessor's`,
      );
      this.#runs.push({ start: index, term: entryTerm });
    }
    if ((this.#head + this.#count + 1) * COLUMNS > this.#rows.length) this.#makeRoom();
    const at = (this.#head + this.#count) * COLUMNS;
    this.#rows[at] = segment;
    this.#rows[at + 1] = offset;
    this.#rows[at + 2] = size;
    this.#rows[at + 3] = checksum;
    this.#count++;
    this.dataBytes += size >>> 1;
  }

  #makeRoom(): void {
    const live = this.#rows.subarray(this.#head * COLUMNS, (this.#head + this.#count) * COLUMNS);
    const moved = new Uint32Array(Math.max(8, this.#count * 2) * COLUMNS);
    moved.set(live);
    this.#rows = moved;
    this.#head = 0;
  }

  #truncateFrom(index: number): void {
    while (this.#count > 0 && this.lastIndex >= index) {
      this.dataBytes -= this.#rows[(this.#head + this.#count - 1) * COLUMNS + 2]! >>> 1;
      this.#count--;
      if (this.#hot.length > this.#hotHead) this.#hot.pop();
    }
    while (this.#runs.length > 0 && this.#runs.at(-1)!.start > this.lastIndex) this.#runs.pop();
    if (this.#count === 0) this.#runs = [];
    this.#tidyHot();
  }

  #dropThrough(index: number): void {
    const hotFirst = this.lastIndex - (this.#hot.length - this.#hotHead) + 1;
    if (index >= hotFirst) this.#hotHead = Math.min(this.#hot.length, this.#hotHead + index - hotFirst + 1);
    while (this.#count > 0 && this.#first <= index) {
      this.dataBytes -= this.#rows[this.#head * COLUMNS + 2]! >>> 1;
      this.#head++;
      this.#first++;
      this.#count--;
    }
    if (this.#count === 0) {
      this.#head = 0;
      this.#runs = [];
      if (this.#rows.length > COLUMNS * 1024) this.#rows = new Uint32Array(COLUMNS * 8);
      this.#first = Math.max(this.#first, index + 1);
    }
    let stale = 0;
    while (stale + 1 < this.#runs.length && this.#runs[stale + 1]!.start <= this.#first) stale++;
    if (stale > 0) this.#runs.splice(0, stale);
    this.#tidyHot();
  }

  #tidyHot(): void {
    if (this.#hotHead === 0 || this.#hotHead * 2 < this.#hot.length) return;
    this.#hot = this.#hot.slice(this.#hotHead);
    this.#hotHead = 0;
  }
}
