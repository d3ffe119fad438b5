/**
 * The part of a log that is not known to be durable: entries from `offset` on, perhaps behind a snapshot that is
 * being installed, and the appends that are on their way to disk.
 *
 * Invariants:
 * 1. Entries below `offset` are durable (or inside the pending snapshot); the stored log is read only there.
 * 2. Appends complete in the order they were handed out.
 * 3. Replacing a tail takes the replaced indexes out of every append still on its way, so a late completion never
 *    marks a newer tail durable, even if an entry of the same index and term has come back meanwhile.
 */
import { assert } from "../base/assert.js";
import type { Append, Entry, SnapshotMeta } from "./types.js";

interface AppendOnItsWay {
  readonly append: Append;
  /** What becomes durable with it; lowered as tails are replaced, 0 once a snapshot replaced the log. */
  last: number;
}

export class UnstableLog {
  #offset: number;
  #entries: Entry[] = [];
  /** The first entry not handed out yet. */
  #handOut: number;
  #snapshot: SnapshotMeta | undefined;
  #snapshotHandedOut = false;
  readonly #onTheWay: AppendOnItsWay[] = [];

  constructor(durableLast: number) {
    this.#offset = durableLast + 1;
    this.#handOut = this.#offset;
  }

  get offset(): number {
    return this.#offset;
  }

  get last(): number {
    return this.#offset + this.#entries.length - 1;
  }

  /** The snapshot being installed. */
  get snapshot(): SnapshotMeta | undefined {
    return this.#snapshot;
  }

  get idle(): boolean {
    return this.#onTheWay.length === 0;
  }

  get hasMore(): boolean {
    return this.#handOut <= this.last || (this.#snapshot !== undefined && !this.#snapshotHandedOut);
  }

  at(index: number): Entry | undefined {
    return index < this.#offset ? undefined : this.#entries[index - this.#offset];
  }

  /** Adds entries, replacing what is there from the first one's index on. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    assert(first.index <= this.last + 1, `a gap in the log before ${first.index}`);
    assert(this.#snapshot === undefined || first.index > this.#snapshot.index, "an entry inside a snapshot");
    if (first.index <= this.last || first.index < this.#offset) this.#cut(first.index);
    for (const entry of entries) this.#entries.push(entry);
  }

  #cut(from: number): void {
    if (from < this.#offset) {
      this.#offset = from;
      this.#entries = [];
    } else {
      this.#entries.length = from - this.#offset;
    }
    this.#handOut = Math.min(this.#handOut, from);
    for (const record of this.#onTheWay) record.last = Math.min(record.last, from - 1);
  }

  /** A snapshot replaces everything. */
  restore(snapshot: SnapshotMeta): void {
    this.#offset = snapshot.index + 1;
    this.#handOut = this.#offset;
    this.#entries = [];
    this.#snapshot = snapshot;
    this.#snapshotHandedOut = false;
    for (const record of this.#onTheWay) record.last = 0;
  }

  /** What has to become durable and was not handed out yet. */
  takeNew(): { readonly entries: readonly Entry[]; readonly snapshot: SnapshotMeta | undefined } {
    const entries = this.#entries.slice(this.#handOut - this.#offset);
    this.#handOut = this.last + 1;
    const snapshot = this.#snapshotHandedOut ? undefined : this.#snapshot;
    this.#snapshotHandedOut = this.#snapshot !== undefined;
    return { entries, snapshot };
  }

  /** Notes an append that is handed to the host. */
  handedOut(append: Append): void {
    this.#onTheWay.push({ append, last: this.last });
  }

  /** The host made `append` durable. */
  completed(append: Append): void {
    const record = this.#onTheWay.shift();
    assert(record?.append === append, "appends must complete in the order they were handed out");
    if (append.snapshot !== undefined && append.snapshot === this.#snapshot) {
      this.#snapshot = undefined;
      this.#snapshotHandedOut = false;
    }
    if (record.last >= this.#offset) {
      this.#entries = this.#entries.slice(record.last + 1 - this.#offset);
      this.#offset = record.last + 1;
    }
  }
}
