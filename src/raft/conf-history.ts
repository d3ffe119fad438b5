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
  #pending: { readonly index: LogIndex; readonly change: ConfChange }[] = [];

  constructor(base: SnapshotMeta) {
    this.#past = [{ index: base.index, conf: base.conf }];
  }

  get current(): ConfState {
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

  /** A snapshot takes the place of the log, changes under way included. */
  restore(snapshot: SnapshotMeta): void {
    this.#pending = [];
    this.set(snapshot.index, snapshot.conf);
  }
}
