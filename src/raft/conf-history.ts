/**
 * The memberships since the log's base: the one in force, which ones were in force at earlier applied indexes (a host
 * that compacts the log needs them), and the changes handed out for applying but not reported applied yet.
 */
import { assert } from "../base/assert.js";
import type { LogIndex } from "../base/ids.js";
import type { ConfChange, ConfState, SnapshotMeta } from "./types.js";

export class ConfHistory {
  /** Ascending; an element holds from its index until the next one's. */
  #past: { readonly index: LogIndex; readonly conf: ConfState }[];
  #restoring: SnapshotMeta | undefined;
  #pending: { readonly index: LogIndex; readonly change: ConfChange }[] = [];

  constructor(base: SnapshotMeta) {
    this.#past = [{ index: base.index, conf: base.conf }];
  }

  /** That of a snapshot counts from its arrival on, before it is installed. */
  get current(): ConfState {
    return this.#restoring?.conf ?? this.applied;
  }

  /** The membership in force at the applied index. */
  get applied(): ConfState {
    return this.#past[this.#past.length - 1]!.conf;
  }

  /** The membership in force at an applied index. */
  at(index: LogIndex): ConfState {
    for (let i = this.#past.length - 1; i >= 0; i--) {
      const { index: since, conf } = this.#past[i]!;
      if (since <= index) return conf;
    }
    assert(false, `the membership at ${index} is asked for, before the log's base`);
  }

  set(index: LogIndex, conf: ConfState): void {
    assert(index > this.#past[this.#past.length - 1]!.index, "memberships change in order");
    this.#past.push({ index, conf });
  }

  /** Forgets what lies before the log's base. */
  prune(base: LogIndex): void {
    let keep = 0;
    while (keep + 1 < this.#past.length && this.#past[keep + 1]!.index <= base) keep++;
    if (keep > 0) this.#past = this.#past.slice(keep);
  }

  handedOut(index: LogIndex, change: ConfChange): void {
    this.#pending.push({ index, change });
  }

  /** The oldest change that is applied with everything up to `applied`. */
  takeApplied(applied: LogIndex): { readonly index: LogIndex; readonly change: ConfChange } | undefined {
    const first = this.#pending[0];
    if (first === undefined || first.index > applied) return undefined;
    return this.#pending.shift();
  }

  /**
   * A snapshot is to take the place of the log. Until it is installed, what was handed out before may still be
   * applied, and the log compacted up to there, so the memberships of those indexes are kept right too.
   */
  restore(snapshot: SnapshotMeta): void {
    this.#restoring = snapshot;
  }

  installed(snapshot: SnapshotMeta): void {
    this.#pending = this.#pending.filter(({ index }) => index > snapshot.index);
    this.set(snapshot.index, snapshot.conf);
    if (this.#restoring === snapshot) this.#restoring = undefined;
  }
}
