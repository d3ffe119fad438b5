/**
 * Hands one group's committed entries to its machine, in order, a few calls ahead, and installs snapshots between.
 *
 * Invariants:
 * 1. Every committed index is applied exactly once and in order; a snapshot's restore waits until the calls before
 *    it are done, and nothing is handed over while it runs.
 * 2. Data bytes held here are bounded: beyond `maxApplyBytes` only the position is remembered, and the entries come
 *    back out of the log when their turn comes (the log keeps whatever is not applied).
 * 3. A machine that fails is fatal: what it did is unknown. Only a full disk (OSTRAKA_DISK_FULL) and another machine on
 *    this node that has to come further first (OSTRAKA_TOO_EARLY) are waited for, from a machine that refuses whatever
 *    follows the call that failed: once the calls under way have ended, everything from the first index not applied on
 *    is handed over again.
 */
import { assert } from "../base/assert.js";
import { FatalError } from "../base/errors.js";
import { type LogIndex, logIndex, type Term } from "../base/ids.js";
import { isDiskFull } from "../log/writer.js";
import { type Entry, EntryKind, type LogReader, type SnapshotMeta } from "../raft/types.js";
import type { GroupMachine } from "./types.js";

export interface ApplierHooks {
  /** `entries` are all entries up to `upTo`, the ones without a result too; `results` is keyed by index. */
  applied(entries: readonly Entry[], results: ReadonlyMap<LogIndex, Uint8Array>, upTo: LogIndex): void;
  restored(meta: SnapshotMeta): void;
  failed(error: unknown): void;
  /** The machine has no disk space, or has to wait for another one; to be called back after a while. */
  blocked(reason: string, retry: () => void, diskFull: boolean): void;
  /** It goes on. */
  unblocked(): void;
}

export interface ApplierLimits {
  readonly maxApplyBytes: number;
  readonly maxApplyCalls: number;
  readonly maxReadyBytes: number;
  readonly lazyEntries: number;
  readonly lazyBytes: number;
}

interface Restore {
  readonly meta: SnapshotMeta;
  readonly file: string;
}

export class Applier {
  readonly #machine: GroupMachine;
  readonly #log: LogReader;
  readonly #limits: ApplierLimits;
  readonly #hooks: ApplierHooks;
  /** Committed entries from `#next` on, as far as they are held in memory. */
  #held: Entry[] = [];
  #heldBytes = 0;
  /** The next index to hand to the machine, and the last one that may be. */
  #next: LogIndex;
  #committed: LogIndex;
  #applied: LogIndex;
  #appliedTerm: Term;
  #calls = 0;
  #callBytes = 0;
  #done: Promise<unknown> = Promise.resolve();
  #restore: Restore | undefined;
  #restoring = false;
  /** Why the machine has to wait; nothing is handed over until it is time to try again. */
  #blocked: string | undefined;
  #trying = true;
  #stopped = false;

  constructor(
    machine: GroupMachine,
    log: LogReader,
    applied: LogIndex,
    limits: ApplierLimits,
    hooks: ApplierHooks,
  ) {
    this.#machine = machine;
    this.#log = log;
    this.#limits = limits;
    this.#hooks = hooks;
    this.#applied = applied;
    this.#committed = applied;
    this.#next = logIndex(applied + 1);
    this.#appliedTerm = log.term(applied) ?? (0 as Term);
  }

  get appliedIndex(): LogIndex {
    return this.#applied;
  }

  /** Of the entry at the applied index. */
  get appliedTerm(): Term {
    return this.#appliedTerm;
  }

  get idle(): boolean {
    return this.#calls === 0 && this.#next > this.#committed && this.#restore === undefined;
  }

  /** Why the machine has to wait, if it has to. */
  get blocked(): string | undefined {
    return this.#blocked;
  }

  /** Entries wait for more of them. */
  get putOff(): boolean {
    return this.#calls === 0 && this.#held.length > 0 && this.#trying && !this.#restoring;
  }

  /**
   * More entries have committed; they follow on what was pushed before. Those that `mayWait` are handed over with later
   * ones, or by `hurry`, unless there are many already.
   */
  push(entries: readonly Entry[], mayWait = false): void {
    for (const entry of entries) {
      if (entry.index <= this.#committed) continue;
      assert(entry.index === this.#committed + 1, `committed entry ${entry.index} after ${this.#committed}`);
      const contiguous = this.#held.length === 0 ? this.#next === entry.index : this.#endsBefore(entry);
      this.#committed = entry.index;
      if (contiguous && this.#heldBytes < this.#limits.maxApplyBytes) {
        this.#held.push(entry);
        this.#heldBytes += entry.data.length;
      }
    }
    const { lazyEntries, lazyBytes } = this.#limits;
    if (mayWait && this.#held.length < lazyEntries && this.#heldBytes < lazyBytes) return;
    this.#pump();
  }

  /** What may have waited is handed over. */
  hurry(): void {
    this.#pump();
  }

  /** Replaces the machine's state; what was committed below the snapshot need not be applied any more. */
  restore(meta: SnapshotMeta, file: string): void {
    assert(meta.index > this.#applied, `a snapshot at ${meta.index} behind the applied ${this.#applied}`);
    this.#restore = { meta, file };
    this.#held = [];
    this.#heldBytes = 0;
    this.#committed = meta.index;
    this.#next = logIndex(meta.index + 1);
    this.#pump();
  }

  /** Hands nothing more to the machine; resolves once what it has is done. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  #endsBefore(entry: Entry): boolean {
    return (this.#held[this.#held.length - 1] as Entry).index + 1 === entry.index;
  }

  #pump(): void {
    if (this.#stopped || this.#restoring || !this.#trying) return;
    if (this.#restore !== undefined) {
      if (this.#calls === 0) this.#startRestore(this.#restore);
      return;
    }
    const { maxApplyCalls, maxApplyBytes } = this.#limits;
    while (
      this.#next <= this.#committed &&
      this.#calls < maxApplyCalls &&
      (this.#calls === 0 || this.#callBytes < maxApplyBytes)
    ) {
      this.#startApply(this.#takeBatch());
    }
  }

  #takeBatch(): Entry[] {
    let batch: Entry[];
    if (this.#held.length > 0) {
      let count = 0;
      for (let bytes = 0; count < this.#held.length; count++) {
        bytes += (this.#held[count] as Entry).data.length;
        if (count > 0 && bytes > this.#limits.maxReadyBytes) break;
      }
      batch = this.#held.splice(0, count);
      this.#heldBytes -= dataBytes(batch);
    } else {
      batch = this.#log.entries(this.#next, logIndex(this.#committed + 1), this.#limits.maxReadyBytes);
    }
    const first = batch[0];
    const last = batch[batch.length - 1];
    assert(first !== undefined && last !== undefined, "an empty batch to apply");
    assert(first.index === this.#next, `applying ${first.index}, expected ${this.#next}`);
    assert(last.index - first.index === batch.length - 1, "a gap in a batch to apply");
    this.#next = logIndex(last.index + 1);
    return batch;
  }

  #startApply(batch: readonly Entry[]): void {
    const bytes = dataBytes(batch);
    const last = batch[batch.length - 1] as Entry;
    const carried = batch.filter((entry) => entry.kind === EntryKind.Normal && entry.data.length > 0);
    this.#calls++;
    this.#callBytes += bytes;
    const call = this.#machine.apply(carried, last.index);
    // Completions are delivered in order whatever the machine does.
    this.#done = Promise.all([call, this.#done]).then(
      ([results]) => this.#finishApply(batch, carried, results, bytes),
      (error: unknown) => {
        this.#calls--;
        this.#callBytes -= bytes;
        this.#failOrWait(error);
      },
    );
  }

  #finishApply(
    batch: readonly Entry[],
    carried: readonly Entry[],
    results: readonly Uint8Array[],
    bytes: number,
  ): void {
    this.#calls--;
    this.#callBytes -= bytes;
    if (this.#stopped) return;
    try {
      assert(this.#trying, "a machine went on behind a call that failed");
      this.#unblock();
      assert(results.length === carried.length, `${results.length} results for ${carried.length} entries`);
      const byIndex = new Map<LogIndex, Uint8Array>();
      for (let i = 0; i < carried.length; i++)
        byIndex.set((carried[i] as Entry).index, results[i] as Uint8Array);
      const last = batch[batch.length - 1] as Entry;
      this.#applied = last.index;
      this.#appliedTerm = last.term;
      this.#hooks.applied(batch, byIndex, last.index);
      this.#pump();
    } catch (error) {
      this.#fail(error);
    }
  }

  #startRestore({ meta, file }: Restore): void {
    this.#restoring = true;
    this.#done = this.#machine.restore(file).then(
      (applied) => this.#finishRestore(meta, applied),
      (error: unknown) => {
        this.#restoring = false;
        this.#failOrWait(error);
      },
    );
  }

  #finishRestore(meta: SnapshotMeta, applied: LogIndex): void {
    this.#restoring = false;
    if (this.#stopped) return;
    try {
      this.#unblock();
      assert(applied === meta.index, `a snapshot at ${meta.index} restored the state of ${applied}`);
      this.#applied = meta.index;
      this.#appliedTerm = meta.term;
      // A newer snapshot may have come meanwhile.
      if (this.#restore?.meta === meta) this.#restore = undefined;
      this.#hooks.restored(meta);
      this.#pump();
    } catch (error) {
      this.#fail(error);
    }
  }

  #failOrWait(error: unknown): void {
    if (this.#stopped) return;
    if (!isDiskFull(error) && !isTooEarly(error)) {
      this.#fail(error);
      return;
    }
    this.#trying = false;
    this.#blocked = error.message;
    if (this.#calls > 0 || this.#restoring) return;
    this.#held = [];
    this.#heldBytes = 0;
    if (this.#restore === undefined) this.#next = logIndex(this.#applied + 1);
    const retry = (): void => {
      this.#trying = true;
      try {
        this.#pump();
      } catch (failure) {
        this.#fail(failure);
      }
    };
    this.#hooks.blocked(error.message, retry, isDiskFull(error));
  }

  #unblock(): void {
    if (this.#blocked === undefined) return;
    this.#blocked = undefined;
    this.#hooks.unblocked();
  }

  #fail(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#hooks.failed(error);
  }
}

function isTooEarly(error: unknown): error is FatalError {
  return error instanceof FatalError && error.code === "OSTRAKA_TOO_EARLY";
}

function dataBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.length;
  return bytes;
}
