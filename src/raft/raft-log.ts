/**
 * A group's log as the core sees it: the stored part and the unstable tail as one, with the three positions that
 * only go forward: committed, handed out for applying, applied.
 *
 * Invariants: applied ≤ handed out ≤ committed ≤ last; nothing at or below the commit index is ever replaced; only
 * durable entries are handed out, and none while a snapshot is being installed.
 */
import { assert } from "../base/assert.js";
import { type LogIndex, logIndex, type Term, term } from "../base/ids.js";
import type { Append, Entry, LogReader, SnapshotMeta } from "./types.js";
import { UnstableLog } from "./unstable-log.js";

export class RaftLog {
  readonly #stored: LogReader;
  readonly #unstable: UnstableLog;
  #commit: LogIndex;
  #applied: LogIndex;
  #handedOut: LogIndex;

  constructor(stored: LogReader, commit: LogIndex, applied: LogIndex) {
    const base = stored.base().index;
    const last = stored.lastIndex();
    assert(last >= base, `a log that ends at ${last}, before its base ${base}`);
    assert(applied >= base, `applied ${applied} is before the log's base ${base}: the state between is lost`);
    assert(applied <= last, `applied ${applied} is behind the log's end ${last}: the log was lost`);
    assert(commit <= last, `committed ${commit} is behind the log's end ${last}: the log was lost`);
    this.#stored = stored;
    this.#unstable = new UnstableLog(last);
    // A commit index need not be written at once, so the state machine may know more.
    this.#commit = logIndex(Math.max(commit, applied));
    this.#applied = applied;
    this.#handedOut = applied;
  }

  get commit(): LogIndex {
    return this.#commit;
  }

  get applied(): LogIndex {
    return this.#applied;
  }

  get first(): LogIndex {
    return logIndex(this.base.index + 1);
  }

  get last(): LogIndex {
    return logIndex(this.#unstable.last);
  }

  get lastTerm(): Term {
    return this.term(this.last)!;
  }

  /** The last index known to be on this node's disk. */
  get durable(): LogIndex {
    return this.installing === undefined ? logIndex(this.#unstable.offset - 1) : this.#applied;
  }

  get base(): SnapshotMeta {
    return this.#unstable.snapshot ?? this.#stored.base();
  }

  /** Where the stored log begins, whatever is being installed over it. */
  get storedBase(): LogIndex {
    return this.#stored.base().index;
  }

  get installing(): SnapshotMeta | undefined {
    return this.#unstable.snapshot;
  }

  /** No append is on its way to disk. */
  get settled(): boolean {
    return this.#unstable.idle;
  }

  get hasUnwritten(): boolean {
    return this.#unstable.hasMore;
  }

  /** Undefined before the base and after the end. */
  term(index: number): Term | undefined {
    if (index >= this.#unstable.offset) return this.#unstable.at(index)?.term;
    const snapshot = this.#unstable.snapshot;
    if (snapshot !== undefined) return index === snapshot.index ? snapshot.term : undefined;
    const base = this.#stored.base();
    return index === base.index ? base.term : this.#stored.term(logIndex(index));
  }

  matches(index: number, entryTerm: Term): boolean {
    return this.term(index) === entryTerm;
  }

  /** Whether a log that ends in (index, term) is at least as good as this one (thesis, section 3.6.1). */
  isUpToDate(index: number, entryTerm: Term): boolean {
    const mine = this.lastTerm;
    return entryTerm > mine || (entryTerm === mine && index >= this.last);
  }

  /** Entries in [low, high): at least one if there are any, cut at `maxBytes`. Undefined if the first is compacted. */
  entries(low: number, high: number, maxBytes: number): Entry[] | undefined {
    if (low >= high) return [];
    assert(high <= this.last + 1, `entries up to ${high} were asked of a log that ends at ${this.last}`);
    if (low <= this.base.index) return undefined;
    const result: Entry[] = [];
    let bytes = 0;
    const border = Math.min(high, this.#unstable.offset);
    if (low < border) {
      for (const entry of this.#stored.entries(logIndex(low), logIndex(border), maxBytes)) {
        assert(entry.index === low + result.length, `the stored log gave ${entry.index} out of order`);
        result.push(entry);
        bytes += entry.data.length;
      }
      if (low + result.length < border) return result;
    }
    for (let index = Math.max(low, border); index < high; index++) {
      const entry = this.#unstable.at(index)!;
      bytes += entry.data.length;
      if (result.length > 0 && bytes > maxBytes) break;
      result.push(entry);
    }
    return result;
  }

  /**
   * The highest index up to `index` whose term is at most `maxTerm`: no entry between can match a log that has
   * `maxTerm` at `index`, so both sides skip whole terms while probing (43). Term 0 when it is compacted.
   */
  findConflictByTerm(index: number, maxTerm: Term): { readonly index: LogIndex; readonly term: Term } {
    for (let at = index; at > 0; at--) {
      const here = this.term(at);
      if (here === undefined) return { index: logIndex(at), term: term(0) };
      if (here <= maxTerm) return { index: logIndex(at), term: here };
    }
    return { index: logIndex(0), term: term(0) };
  }

  /** Adds a leader's own entries, at the end. */
  appendOwn(entries: readonly Entry[]): void {
    assert(entries[0] === undefined || entries[0].index === this.last + 1, "a leader never replaces entries");
    this.#unstable.append(entries);
  }

  /** Takes entries that follow a matching (index, term); what conflicts is replaced, what matches stays. */
  appendAfterMatch(entries: readonly Entry[]): void {
    const conflict = entries.findIndex((entry) => this.term(entry.index) !== entry.term);
    if (conflict < 0) return;
    const from = entries[conflict]!.index;
    assert(from > this.#commit, `a leader would replace entry ${from}, committed up to ${this.#commit} here`);
    this.#unstable.append(conflict === 0 ? entries : entries.slice(conflict));
  }

  /** False if that is known already. */
  commitTo(index: number): boolean {
    if (index <= this.#commit) return false;
    assert(
      index <= this.last,
      `committed ${index} is behind the end of the log ${this.last}: the log was lost`,
    );
    this.#commit = logIndex(index);
    return true;
  }

  restore(snapshot: SnapshotMeta): void {
    assert(snapshot.index > this.#commit, "a snapshot would take back committed entries");
    this.#unstable.restore(snapshot);
    this.#commit = snapshot.index;
    this.#handedOut = snapshot.index;
  }

  takeUnwritten(): { readonly entries: readonly Entry[]; readonly snapshot: SnapshotMeta | undefined } {
    return this.#unstable.takeNew();
  }

  handedToDisk(append: Append): void {
    this.#unstable.handedOut(append);
  }

  /** The host made `append` durable, a snapshot in it installed. */
  completed(append: Append): void {
    this.#unstable.completed(append);
    if (append.snapshot === undefined) return;
    const { index } = append.snapshot;
    const base = this.#stored.base().index;
    assert(base >= index, `a snapshot at ${index} is said to be installed, but the log begins at ${base}`);
    if (index > this.#applied) this.#applied = index;
  }

  get hasCommitted(): boolean {
    return this.installing === undefined && this.#handedOut < Math.min(this.#commit, this.durable);
  }

  /** The next page of entries to apply. */
  takeCommitted(maxBytes: number): readonly Entry[] {
    if (!this.hasCommitted) return [];
    const end = Math.min(this.#commit, this.durable) + 1;
    const page = this.entries(this.#handedOut + 1, end, maxBytes);
    assert(page !== undefined && page.length > 0, `committed entry ${this.#handedOut + 1} is gone`);
    this.#handedOut = page[page.length - 1]!.index;
    return page;
  }

  /** False if nothing is new: a snapshot may have overtaken what was being applied. */
  appliedTo(index: LogIndex): boolean {
    if (index <= this.#applied) return false;
    assert(index <= this.#handedOut, `applied ${index}, but only ${this.#handedOut} was handed out`);
    this.#applied = index;
    return true;
  }
}
