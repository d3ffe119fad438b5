/**
 * Linearizable reads of one group, and whoever else waits for an index to be applied.
 *
 * All reads that come in one turn share a quorum round, known by a context number. Invariants:
 * 1. A round's context is given to the core after every read in it was asked for.
 * 2. A read is answered only once its round is confirmed and the round's index is applied here.
 */
import { RouteError } from "../base/errors.js";
import type { LogIndex, NodeId } from "../base/ids.js";

export interface Waiter {
  resolve(index: LogIndex): void;
  reject(error: Error): void;
  /** It does not wait while nothing can be applied. */
  readonly hasty?: boolean;
}

/** Those who wait for an index; settled in one sweep per apply, whose cost is the number of distinct indexes. */
export class AppliedWaiters {
  readonly #byIndex = new Map<LogIndex, Waiter[]>();
  #count = 0;

  get none(): boolean {
    return this.#count === 0;
  }

  get count(): number {
    return this.#count;
  }

  add(index: LogIndex, waiter: Waiter): void {
    this.#count++;
    const list = this.#byIndex.get(index);
    if (list === undefined) this.#byIndex.set(index, [waiter]);
    else list.push(waiter);
  }

  applied(upTo: LogIndex): void {
    for (const [index, list] of this.#byIndex) {
      if (index > upTo) continue;
      this.#byIndex.delete(index);
      this.#count -= list.length;
      for (const waiter of list) waiter.resolve(index);
    }
  }

  rejectHasty(error: Error): void {
    for (const [index, list] of this.#byIndex) {
      const hasty = list.filter((waiter) => waiter.hasty === true);
      if (hasty.length === 0) continue;
      const patient = list.filter((waiter) => waiter.hasty !== true);
      if (patient.length === 0) this.#byIndex.delete(index);
      else this.#byIndex.set(index, patient);
      this.#count -= hasty.length;
      for (const waiter of hasty) waiter.reject(error);
    }
  }

  rejectAll(error: Error): void {
    const lists = [...this.#byIndex.values()];
    this.#byIndex.clear();
    this.#count = 0;
    for (const list of lists) for (const waiter of list) waiter.reject(error);
  }
}

export class Reads {
  #queued: Waiter[] = [];
  readonly #rounds = new Map<number, Waiter[]>();
  #nextContext = 1;
  #count = 0;

  /** Reads not yet confirmed. */
  get count(): number {
    return this.#count;
  }

  add(waiter: Waiter): void {
    this.#queued.push(waiter);
    this.#count++;
  }

  /** Starts a round for what has gathered; `begin` answers whether the core took it. */
  startRound(begin: (context: number) => boolean, leader: NodeId | undefined): void {
    if (this.#queued.length === 0) return;
    const readers = this.#queued;
    this.#queued = [];
    const context = this.#nextContext++;
    if (begin(context)) this.#rounds.set(context, readers);
    else this.#reject(readers, new RouteError("this node does not lead the group", leader));
  }

  /** The round is confirmed: its readers go on to wait for `index`. */
  confirmed(context: number, index: LogIndex, waiters: AppliedWaiters, applied: LogIndex): void {
    const readers = this.#takeRound(context);
    if (readers === undefined) return;
    this.#count -= readers.length;
    for (const reader of readers) {
      if (index <= applied) reader.resolve(index);
      else waiters.add(index, reader);
    }
  }

  dropped(context: number, leader: NodeId | undefined): void {
    const readers = this.#takeRound(context);
    if (readers !== undefined) this.#reject(readers, new RouteError("leadership was lost", leader));
  }

  rejectAll(error: Error): void {
    const all = [this.#queued, ...this.#rounds.values()];
    this.#queued = [];
    this.#rounds.clear();
    for (const readers of all) this.#reject(readers, error);
  }

  #takeRound(context: number): Waiter[] | undefined {
    const readers = this.#rounds.get(context);
    this.#rounds.delete(context);
    return readers;
  }

  #reject(readers: Waiter[], error: Error): void {
    this.#count -= readers.length;
    for (const reader of readers) reader.reject(error);
  }
}
