/**
 * Linearizable reads without writing to the log (thesis, section 6.4). Reads that came in since the last ready share
 * a round: a number sent with a heartbeat to everybody and echoed. Once a quorum has echoed a round, this node still
 * led when the round began, so its commit index then covers every write acknowledged before the reads came in.
 *
 * Invariants: a read's round begins after the read (83), and only once an entry of the leader's own term is committed
 * (82), before which its commit index may lag behind what its predecessor acknowledged. Rounds are never reused.
 */
import type { LogIndex } from "../base/ids.js";

export interface ReadState {
  readonly context: number;
  readonly index: LogIndex;
}

export class ReadQueue {
  #waiting: number[] = [];
  #rounds: { readonly round: number; readonly index: LogIndex; readonly contexts: readonly number[] }[] = [];
  #round = 0;

  /** The newest round begun. */
  get round(): number {
    return this.#round;
  }

  get waiting(): boolean {
    return this.#waiting.length > 0;
  }

  get empty(): boolean {
    return this.#waiting.length === 0 && this.#rounds.length === 0;
  }

  add(context: number): void {
    this.#waiting.push(context);
  }

  /** Begins a round for all that wait. */
  begin(commit: LogIndex): void {
    this.#round++;
    this.#rounds.push({ round: this.#round, index: commit, contexts: this.#waiting });
    this.#waiting = [];
  }

  /** Takes the reads of all rounds up to `round`, which a quorum has answered. */
  confirm(round: number): ReadState[] {
    const done: ReadState[] = [];
    while (this.#rounds.length > 0 && this.#rounds[0]!.round <= round) {
      const { index, contexts } = this.#rounds.shift()!;
      for (const context of contexts) done.push({ context, index });
    }
    return done;
  }

  /** Leadership is lost: answers the reads that will not complete. */
  drop(): number[] {
    const contexts = [...this.#rounds.flatMap((round) => round.contexts), ...this.#waiting];
    this.#rounds = [];
    this.#waiting = [];
    return contexts;
  }
}
