/**
 * What a follower puts off applying, while nobody waits for it: small entries that the machine says may wait, so that a
 * few of them share a call of `apply`.
 *
 * Invariants:
 * 1. Nothing is put off at a leader, nor while somebody waits for an index here, nor for longer than `lazyTicks`.
 * 2. Whoever begins to wait ends the waiting of what is here; of what the leader alone knows to be committed, by asking it.
 */
import type { LogIndex } from "../base/ids.js";
import type { RaftNode } from "../raft/node.js";
import { type Entry, EntryKind } from "../raft/types.js";
import type { Applier } from "./applier.js";
import type { AppliedWaiters } from "./reads.js";
import type { GroupMachine } from "./types.js";

export interface PatienceParts {
  readonly node: RaftNode;
  readonly applier: Applier;
  readonly machine: GroupMachine;
  readonly waiters: AppliedWaiters;
  /** 0: nothing is put off. */
  readonly lazyTicks: number;
}

export class Patience {
  readonly #parts: PatienceParts;
  #ticks = 0;
  #asks = false;

  constructor(parts: PatienceParts) {
    this.#parts = parts;
  }

  /** The host has taken these from a ready. */
  committed(entries: readonly Entry[]): void {
    const { node, applier, waiters, lazyTicks } = this.#parts;
    const mayWait =
      lazyTicks > 0 &&
      node.role !== "leader" &&
      waiters.none &&
      entries.every((entry) => this.#mayWait(entry));
    applier.push(entries, mayWait);
  }

  #mayWait({ kind, data }: Entry): boolean {
    return kind === EntryKind.Normal && data.length > 0 && this.#parts.machine.mayWait?.(data) === true;
  }

  /** The leader has proposed this: what may not wait to be applied, followers are told of at once. */
  proposed(data: Uint8Array): void {
    const { machine, node, lazyTicks } = this.#parts;
    if (lazyTicks > 0 && machine.mayWait?.(data) !== true) node.hurry();
  }

  /** Somebody waits for this index. True when the leader has to be asked (`ask`). */
  hurry(index: LogIndex): boolean {
    const { applier, node } = this.#parts;
    applier.hurry();
    if (this.#asks || index <= node.commitIndex) return false;
    this.#asks = true;
    return true;
  }

  /** In the group's part of a turn. */
  ask(): void {
    if (!this.#asks) return;
    this.#asks = false;
    this.#parts.node.askCommit();
  }

  tick(): void {
    const { applier, lazyTicks } = this.#parts;
    if (!applier.putOff) this.#ticks = 0;
    else if (++this.#ticks >= lazyTicks) {
      this.#ticks = 0;
      applier.hurry();
    }
  }
}
