/**
 * Fences: reads over several ranges hold every range still for an instant. While a fence stands, nothing that writes its
 * spans is admitted, PREPAREs included; what was admitted before is let through. Soft state of one leadership.
 *
 * Rules
 * 1. Fences are shared: they exclude writers, not one another.
 * 2. A fence that is not ended expires. Whoever ends it learns whether it stood all the time.
 * 3. An id that was ended, or that expired, never stands again: a late repetition of a FENCE must not make a RELEASE
 *    true whose fence was gone in between.
 * 4. Decisions (COMMIT and ABORT) are never kept out.
 * 5. A PREPARE that gave up because of fences leaves a *claim* on what it wrote: until the transaction's next try has
 *    come, or the claim expires, new fences wait, so that readers cannot keep it out for ever.
 */
import type { Span } from "../sql/types.js";
import { SpanSet } from "./spans.js";

interface Fence {
  readonly spans: SpanSet;
  expiresMs: number;
}

interface Claim {
  readonly writes: SpanSet;
  readonly expiresMs: number;
}

/** Ids that are remembered as ended, at most. */
const MAX_ENDED = 100_000;

export class Fences {
  readonly #maxEnded: number;
  readonly #fences = new Map<string, Fence>();
  readonly #ended = new Set<string>();
  #claims: Claim[] = [];

  constructor(maxEnded = MAX_ENDED) {
    this.#maxEnded = maxEnded;
  }

  /** Fences that stand. */
  get size(): number {
    return this.#fences.size;
  }

  get claims(): number {
    return this.#claims.length;
  }

  standing(id: string): boolean {
    return this.#fences.has(id);
  }

  /** It stood here once, and does not any more. */
  ended(id: string): boolean {
    return this.#ended.has(id);
  }

  raise(id: string, spans: readonly Span[], expiresMs: number): void {
    this.#fences.set(id, { spans: new SpanSet(spans), expiresMs });
  }

  /** Lets it stand until then; false when it is gone. */
  extend(id: string, expiresMs: number): boolean {
    const fence = this.#fences.get(id);
    if (fence !== undefined) fence.expiresMs = expiresMs;
    return fence !== undefined;
  }

  /** Ends it, or sees to it that it never stands; true if it stood until now. */
  end(id: string): boolean {
    const stood = this.#fences.delete(id);
    this.#ended.add(id);
    if (this.#ended.size > this.#maxEnded) {
      const [oldest] = this.#ended;
      this.#ended.delete(oldest!);
    }
    return stood;
  }

  /** The range is not what it was any more: no fence stood. */
  endAll(): void {
    for (const id of [...this.#fences.keys()]) this.end(id);
  }

  /** Some fence keeps these writes out. */
  keepOut(writes: readonly Span[]): boolean {
    for (const { spans } of this.#fences.values()) if (spans.meets(writes)) return true;
    return false;
  }

  claim(writes: readonly Span[], expiresMs: number): void {
    this.#claims.push({ writes: new SpanSet(writes), expiresMs });
  }

  /** Some claim makes a fence on these spans wait. */
  claimed(spans: readonly Span[]): boolean {
    return this.#claims.some(({ writes }) => writes.meets(spans));
  }

  /** A PREPARE with these writes passed: the claims it may have come back for are served. */
  serve(writes: readonly Span[]): void {
    if (this.#claims.length > 0) this.#claims = this.#claims.filter((claim) => !claim.writes.meets(writes));
  }

  /** When `expire` has something to do next; undefined when nothing expires. */
  nextExpiryMs(): number | undefined {
    let next: number | undefined;
    for (const { expiresMs } of this.#fences.values())
      if (next === undefined || expiresMs < next) next = expiresMs;
    for (const { expiresMs } of this.#claims) if (next === undefined || expiresMs < next) next = expiresMs;
    return next;
  }

  expire(nowMs: number): void {
    for (const [id, { expiresMs }] of this.#fences) if (expiresMs <= nowMs) this.end(id);
    if (this.#claims.length > 0) this.#claims = this.#claims.filter(({ expiresMs }) => expiresMs > nowMs);
  }
}
