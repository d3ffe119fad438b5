/**
 * The one door into a range's log: who may go on now, who waits for held transactions (holds.ts) and fences (fences.ts),
 * and in which order. A step-style core: time comes in as values; whoever waits has a ticket, and `settle` tells whose
 * turn has come. Soft state of one leadership.
 *
 * Who waits for what
 * - *read*: until nothing held changes what it reads.
 * - *write* (autocommit, a commit on one range): until nothing held meets its reads and writes, and no fence keeps its
 *   writes out.
 * - *prepare*: a bounded time, for held transactions ("held" after it), for fences, and for statements that it has
 *   overtaken too often ("late"), so that nobody on different ranges can wait for one another for ever. Most of what is
 *   held is decided already and about to be let go. Transactions are in one order everywhere (`isLater`): for a later
 *   one it waits only briefly. In every circle of transactions that wait for one another across ranges somebody waits
 *   for a later one; it gives up soon, and the others go on.
 * - *fence*: for writers and PREPAREs that fences have overtaken too often, and for claims, a bounded time. It stands
 *   from when it passes; what is held on its spans then has to be waited for as a read.
 * - *drain*: until nothing is held at all.
 *
 * Invariants
 * 1. A PREPARE is held, and a fence stands, from the very step that lets it pass.
 * 2. Whoever passes acts in that step: `settle` tells one at a time, and judges the next one after it has acted.
 * 3. Nobody is overtaken for ever: whoever waits is passed by at most MAX_OVERTAKEN fresh PREPAREs or fences that are in
 *    its way; those that come later queue behind it.
 */
import type { TransactionId } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import { beganMs } from "./coordinator.js";
import { Fences } from "./fences.js";
import { Holds } from "./holds.js";
import { anyIntersect } from "./spans.js";

/** How often a waiting one is passed by fresh ones before they queue behind it. */
export const MAX_OVERTAKEN = 3;

export type Entrant =
  | { readonly kind: "read"; readonly reads: readonly Span[]; readonly untilMs?: number | undefined }
  | { readonly kind: "write"; readonly reads: readonly Span[]; readonly writes: readonly Span[] }
  | {
      readonly kind: "prepare";
      readonly id: TransactionId;
      readonly reads: readonly Span[];
      readonly writes: readonly Span[];
      readonly untilMs: number;
      /** For held transactions that are later than it. */
      readonly brieflyUntilMs: number;
    }
  | {
      readonly kind: "fence";
      readonly id: string;
      readonly spans: readonly Span[];
      readonly untilMs: number;
      /** How long it stands, unless it is extended. */
      readonly expiresMs: number;
    }
  | { readonly kind: "drain"; readonly untilMs: number };

/** "held": its time is over, and it still meets a held transaction. "late": its time is over. */
export type Passage = "go" | "held" | "late";

interface Waiting {
  readonly entrant: Entrant;
  overtaken: number;
}

export interface GateOptions {
  /** How long the claim of a PREPARE that gave up because of fences lasts. */
  readonly claimMs: number;
  /** MAX_OVERTAKEN, if not said otherwise. */
  readonly maxOvertaken?: number;
  /** How many fences that have ended are remembered, if not MAX_ENDED. */
  readonly maxEnded?: number;
}

export class Gate {
  readonly holds = new Holds();
  readonly fences: Fences;
  readonly #claimMs: number;
  readonly #maxOvertaken: number;
  /** By ticket, in the order of arrival. */
  readonly #waiting = new Map<number, Waiting>();
  #ticket = 0;
  /** Those among the waiting who have been overtaken often enough. */
  #impatient = 0;
  #closed: "to nobody" | "to prepares" | "to writers" = "to nobody";

  constructor(options: GateOptions) {
    this.#claimMs = options.claimMs;
    this.#maxOvertaken = options.maxOvertaken ?? MAX_OVERTAKEN;
    this.fences = new Fences(options.maxEnded);
  }

  /** Everybody may pass. */
  get clear(): boolean {
    return (
      this.holds.size === 0 &&
      this.fences.size === 0 &&
      this.#waiting.size === 0 &&
      this.#closed === "to nobody" &&
      this.fences.claims === 0
    );
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** The range is about to change: first no PREPARE is let in, then no writer and no fence. */
  close(to: "to prepares" | "to writers"): void {
    this.#closed = to;
  }

  open(): void {
    this.#closed = "to nobody";
  }

  /** Passes at once, or gets a ticket. */
  enter(entrant: Entrant, nowMs: number): Passage | number {
    this.fences.expire(nowMs);
    const passage = this.#judge(entrant, this.#ticket + 1, nowMs);
    if (passage !== undefined) return passage;
    this.#waiting.set(++this.#ticket, { entrant, overtaken: 0 });
    return this.#ticket;
  }

  /** Whose turn has come, in the order of arrival; each is to act before the next is asked for. */
  *settle(nowMs: number): Generator<{ readonly ticket: number; readonly passage: Passage }> {
    this.fences.expire(nowMs);
    for (const [ticket, waiting] of this.#waiting) {
      const passage = this.#judge(waiting.entrant, ticket, nowMs);
      if (passage === undefined) continue;
      this.#leave(ticket, waiting);
      yield { ticket, passage };
    }
  }

  /** Gives up a wait. */
  cancel(ticket: number): void {
    const waiting = this.#waiting.get(ticket);
    if (waiting !== undefined) this.#leave(ticket, waiting);
  }

  /** When `settle` may have something to do although nothing has happened; undefined when never. */
  nextMs(): number | undefined {
    if (this.#waiting.size === 0) return undefined;
    let next = this.fences.nextExpiryMs();
    for (const { entrant } of this.#waiting.values()) {
      const untilMs = this.waitsUntilMs(entrant);
      if (untilMs !== undefined && (next === undefined || untilMs < next)) next = untilMs;
    }
    return next;
  }

  /** When a wait for what is in the way now would be over; undefined when never. */
  waitsUntilMs(entrant: Entrant): number | undefined {
    if (entrant.kind === "write") return undefined;
    if (entrant.kind !== "prepare") return entrant.untilMs;
    const { id, reads, writes, untilMs, brieflyUntilMs } = entrant;
    if (brieflyUntilMs >= untilMs) return untilMs;
    return this.holds.some(reads, writes, (held) => isLater(held, id)) ? brieflyUntilMs : untilMs;
  }

  #leave(ticket: number, waiting: Waiting): void {
    this.#waiting.delete(ticket);
    if (waiting.overtaken >= this.#maxOvertaken) this.#impatient--;
  }

  /** Undefined: it has to wait. */
  #judge(entrant: Entrant, ticket: number, nowMs: number): Passage | undefined {
    switch (entrant.kind) {
      case "read":
        if (!this.holds.meets(entrant.reads, [])) return "go";
        break;
      case "write":
        if (this.#closed === "to writers") return undefined;
        if (this.holds.size > 0 && this.holds.meets(entrant.reads, entrant.writes)) return undefined;
        return this.fences.keepOut(entrant.writes) ? undefined : "go";
      case "prepare":
        return this.#judgePrepare(entrant, ticket, nowMs);
      case "fence":
        if (this.fences.ended(entrant.id)) return "late";
        if (this.#closed !== "to writers" && !this.#isBehind(entrant, ticket) && !this.#claimed(entrant)) {
          this.#overtake(entrant, ticket);
          this.fences.raise(entrant.id, entrant.spans, entrant.expiresMs);
          return "go";
        }
        break;
      default:
        if (this.holds.size === 0) return "go";
    }
    return entrant.untilMs !== undefined && entrant.untilMs <= nowMs ? "late" : undefined;
  }

  #judgePrepare(
    entrant: Extract<Entrant, { kind: "prepare" }>,
    ticket: number,
    nowMs: number,
  ): Passage | undefined {
    const { id, reads, writes, untilMs } = entrant;
    if (this.holds.meets(reads, writes, id))
      return (this.waitsUntilMs(entrant) ?? untilMs) <= nowMs ? "held" : undefined;
    const fenced = this.fences.keepOut(writes);
    if (!fenced && this.#closed === "to nobody" && !this.#isBehind(entrant, ticket)) {
      this.#overtake(entrant, ticket);
      this.fences.serve(writes);
      this.holds.hold(id, reads, writes);
      return "go";
    }
    if (untilMs > nowMs) return undefined;
    if (fenced) this.fences.claim(writes, nowMs + this.#claimMs);
    return "late";
  }

  #claimed(entrant: Extract<Entrant, { kind: "fence" }>): boolean {
    return this.fences.claims > 0 && this.fences.claimed(entrant.spans);
  }

  /** Somebody came before it, and will not be overtaken any more. */
  #isBehind(entrant: Entrant, ticket: number): boolean {
    if (this.#impatient === 0) return false;
    for (const [other, waiting] of this.#waiting) {
      if (other >= ticket) return false;
      if (waiting.overtaken >= this.#maxOvertaken && isInTheWay(entrant, waiting.entrant)) return true;
    }
    return false;
  }

  #overtake(entrant: Entrant, ticket: number): void {
    for (const [other, waiting] of this.#waiting) {
      if (other >= ticket) return;
      if (!isInTheWay(entrant, waiting.entrant)) continue;
      if (++waiting.overtaken === this.#maxOvertaken) this.#impatient++;
    }
  }
}

/** The order of transactions, the same at every range: by when they began, as their ids tell. */
function isLater(a: TransactionId, b: TransactionId): boolean {
  const [first, second] = [beganMs(a), beganMs(b)];
  return first === second ? a > b : first > second;
}

/** The passing of `fresh` keeps `waiting` waiting; what keeps a PREPARE waiting does so for a bounded time anyway. */
function isInTheWay(fresh: Entrant, waiting: Entrant): boolean {
  if (fresh.kind === "fence")
    return (
      (waiting.kind === "write" || waiting.kind === "prepare") && anyIntersect(fresh.spans, waiting.writes)
    );
  if (fresh.kind !== "prepare") return false;
  if (waiting.kind === "read") return anyIntersect(fresh.writes, waiting.reads);
  return (
    waiting.kind === "write" &&
    (anyIntersect(fresh.writes, waiting.reads) ||
      anyIntersect(fresh.writes, waiting.writes) ||
      anyIntersect(fresh.reads, waiting.writes))
  );
}
