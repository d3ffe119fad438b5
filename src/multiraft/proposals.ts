/**
 * Proposals of one group that were appended here and wait for their fate. An entry is known by (index, term): once
 * an entry of that index is applied, a proposal of the same term succeeded and one of another term never will.
 *
 * Invariants:
 * 1. Every pending proposal is settled exactly once.
 * 2. While this node leads in the proposal's term nothing but apply settles it. Afterwards it has until a deadline
 *    (in ticks) to be found applied or overwritten; then its outcome is unknown.
 * 3. Count and bytes are bounded by the host, which asks `count` and `bytes` first.
 */
import { AmbiguousError, RouteError } from "../base/errors.js";
import type { LogIndex, NodeId, Term } from "../base/ids.js";
import type { Committed } from "./types.js";

export interface PendingProposal {
  readonly bytes: number;
  resolve(committed: Committed): void;
  reject(error: Error): void;
}

interface Slot {
  readonly term: Term;
  readonly proposal: PendingProposal;
}

export class Proposals {
  readonly #slots = new Map<LogIndex, Slot>();
  #bytes = 0;

  get count(): number {
    return this.#slots.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(index: LogIndex, term: Term, proposal: PendingProposal, leader: NodeId | undefined): void {
    // A later term may reuse the index of an entry that was truncated before it could be applied.
    const old = this.#take(index);
    if (old !== undefined) old.proposal.reject(overwritten(leader));
    this.#slots.set(index, { term, proposal });
    this.#bytes += proposal.bytes;
  }

  /** An entry was applied here. */
  applied(index: LogIndex, term: Term, result: Uint8Array, leader: NodeId | undefined): void {
    const slot = this.#take(index);
    if (slot === undefined) return;
    if (slot.term === term) slot.proposal.resolve({ index, term, result });
    else slot.proposal.reject(overwritten(leader));
  }

  /** A snapshot replaced the state up to `index`: what became of the entries below cannot be told any more. */
  skipped(index: LogIndex): void {
    for (const [at, slot] of this.#slots) {
      if (at > index) continue;
      this.#take(at);
      slot.proposal.reject(unknown("a snapshot replaced this replica's log"));
    }
  }

  /** Gives up on proposals that a former term of this node appended. */
  abandon(currentTerm: Term, reason: string): void {
    for (const [at, slot] of this.#slots) {
      if (slot.term === currentTerm) continue;
      this.#take(at);
      slot.proposal.reject(unknown(reason));
    }
  }

  abandonAll(reason: string): void {
    for (const [at, slot] of this.#slots) {
      this.#take(at);
      slot.proposal.reject(unknown(reason));
    }
  }

  /** Whether any was appended in a term before `currentTerm`, or at all when this node no longer leads. */
  anyStale(leading: boolean, currentTerm: Term): boolean {
    if (this.#slots.size === 0) return false;
    if (!leading) return true;
    // Slots are kept in the order of appending, so the first has the oldest term.
    for (const slot of this.#slots.values()) return slot.term !== currentTerm;
    return false;
  }

  #take(index: LogIndex): Slot | undefined {
    const slot = this.#slots.get(index);
    if (slot === undefined) return undefined;
    this.#slots.delete(index);
    this.#bytes -= slot.proposal.bytes;
    return slot;
  }
}

function overwritten(leader: NodeId | undefined): RouteError {
  return new RouteError("the entry was overwritten by a new leader and will never commit", leader);
}

function unknown(reason: string): AmbiguousError {
  return new AmbiguousError(`the outcome is unknown: ${reason}`, undefined);
}
