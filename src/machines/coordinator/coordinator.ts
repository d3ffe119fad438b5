/**
 * The coordinator as a replicated machine: the rules of src/txn/coordinator.ts behind bytes. Like meta it lives in memory
 * and is hosted by MemoryMachine. On the leader's node the outbox driver listens to it.
 */
import {
  COORDINATOR_BOUNDS,
  type CoordinatorBounds,
  CoordinatorState,
  type OutboxRow,
} from "../../txn/coordinator.js";
import type { StateMachine } from "../state-machine.js";
import { decodeEntry, decodeImage, encodeImage, encodeResults } from "./codec.js";

export class CoordinatorMachine implements StateMachine {
  readonly #bounds: CoordinatorBounds;
  #state: CoordinatorState;
  readonly #listeners = new Set<(rows: readonly OutboxRow[]) => void>();

  constructor(bounds: CoordinatorBounds = COORDINATOR_BOUNDS) {
    this.#bounds = bounds;
    this.#state = new CoordinatorState(bounds);
  }

  /** As of what is applied here; to look at, never to change. */
  get state(): Omit<CoordinatorState, "apply" | "takeFreshRows"> {
    return this.#state;
  }

  /** Called with the outbox rows that an apply has written. */
  onRows(listener: (rows: readonly OutboxRow[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    const results = entries.map(({ data }) => {
      const { wallMs, commands } = decodeEntry(data);
      return encodeResults(this.#state.apply(wallMs, commands));
    });
    const rows = this.#state.takeFreshRows();
    if (rows.length > 0) for (const listener of this.#listeners) listener(rows);
    return results;
  }

  snapshot(): Uint8Array {
    return encodeImage(this.#state.image());
  }

  restore(snapshot: Uint8Array): void {
    this.#state = CoordinatorState.fromImage(decodeImage(snapshot), this.#bounds);
  }
}
