/**
 * Reads over several ranges, for one leadership: fences that keep the range still for an instant, and their release.
 *
 * Invariants:
 * 1. A fence is answered only when everything that was admitted before it on its spans is applied, and nothing is held
 *    there; it stands from before that until it is ended or expires.
 * 2. `release` is true only if the fence stood until the call, in the term in which it was made, and a quorum round begun
 *    after the call confirms that term.
 * 3. A fence that was ended never stands again under its id.
 */
import { RetryError } from "../base/errors.js";
import { logIndex, type Term } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import type { LeaderContext, Leadership } from "./leadership.js";
import type { PinPoint } from "./types.js";

/** Answers that are kept for repetitions before those of fences that are gone are dropped. */
const MAX_ANSWERS = 64;

export class Fencing {
  readonly #context: LeaderContext;
  readonly #leadership: Leadership;
  readonly #answers = new Map<string, Promise<PinPoint>>();
  /** Answered, and not released. */
  readonly #still = new Set<string>();

  constructor(context: LeaderContext, leadership: Leadership) {
    this.#context = context;
    this.#leadership = leadership;
  }

  fence(id: string, spans: readonly Span[], generation: number, standMs: number): Promise<PinPoint> {
    const known = this.#answers.get(id);
    if (known !== undefined) return known;
    const { fences } = this.#leadership.admission.gate;
    if (this.#answers.size >= MAX_ANSWERS)
      for (const other of this.#answers.keys()) if (fences.ended(other)) this.#forget(other);
    const forMs = Math.min(standMs, this.#context.deps.limits.mostFenceMs);
    const answer = this.#fence(id, spans, generation, forMs);
    this.#answers.set(id, answer);
    answer.catch(() => this.#forget(id));
    return answer;
  }

  async #fence(id: string, spans: readonly Span[], generation: number, standMs: number): Promise<PinPoint> {
    const { clock, limits } = this.#context.deps;
    const { admission } = this.#leadership;
    const { fences } = admission.gate;
    if (fences.ended(id)) throw gone();
    this.#checkGeneration(generation);
    const untilMs = clock.monotonicMs() + limits.fenceWaitMs;
    try {
      const raised = await admission.pass(
        { kind: "fence", id, spans, untilMs, expiresMs: untilMs + standMs },
        (passage) => passage,
      );
      if (raised !== "go") throw tooLong();
      const drained = await admission.pass({ kind: "read", reads: spans, untilMs }, (passage) => passage);
      if (drained !== "go") throw tooLong();
      await this.#context.settledOn(spans);
      this.#checkGeneration(generation);
      return this.#stands(id, standMs);
    } catch (error) {
      this.#end(id);
      throw error;
    }
  }

  /** The spans may reach beyond the range: what is kept still is the slice that goes by this generation. */
  #checkGeneration(generation: number): void {
    this.#context.checkGeneration(generation);
  }

  #stands(id: string, standMs: number): PinPoint {
    const { clock, store, schema } = this.#context.deps;
    const { admission, term } = this.#leadership;
    if (this.#context.serving() !== this.#leadership) throw this.#context.notLeading();
    const nowMs = clock.monotonicMs();
    admission.gate.fences.expire(nowMs);
    if (!admission.gate.fences.extend(id, nowMs + standMs)) throw gone();
    this.#still.add(id);
    return {
      index: logIndex(store.appliedIndex()),
      term,
      wallMs: this.#context.wallMs(),
      schemaVersion: schema.version,
    };
  }

  #forget(id: string): boolean {
    this.#answers.delete(id);
    return this.#still.delete(id);
  }

  #end(id: string): boolean {
    const { admission } = this.#leadership;
    admission.gate.fences.expire(this.#context.deps.clock.monotonicMs());
    const stood = admission.gate.fences.end(id);
    admission.settle();
    return stood;
  }

  async release(id: string, term: Term): Promise<boolean> {
    const answered = this.#forget(id);
    const stood = this.#end(id);
    if (!stood || !answered || term !== this.#leadership.term) return false;
    await this.#context.deps.handle.readIndex();
    return this.#context.current === this.#leadership;
  }
}

function tooLong(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "the range did not come to rest in time");
}

function gone(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "the fence is gone");
}
