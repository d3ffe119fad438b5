/**
 * A statement's time: how long it may run (`timeoutMs`, by default for ever), how long the gateway looks for a quorum
 * on its behalf, and whether the client cancelled it.
 *
 * The hot path makes one of these a statement, so it costs little until somebody has to wait: the client's signal is
 * looked at only by what can be stopped (`signal`) or is tried again (`persist`).
 */
import { AmbiguousError, RetryError, RouteError, UserError } from "../base/errors.js";
import type { Clock, Timer } from "../base/io.js";
import { pause } from "../base/waits.js";

/** Whoever may cancel; the signal may be made on first access. */
export interface Cancellable {
  readonly signal: AbortSignal | undefined;
}

export interface InDoubt {
  readonly transaction: string;
  /** The attempt carries an idempotency key, so that trying again cannot apply twice. */
  readonly repeatable: boolean;
}

export class Deadline {
  readonly #clock: Clock;
  readonly #client: Cancellable;
  readonly #startedMs: number;
  readonly #timer: Timer | undefined;
  #attached = false;
  #stopped: "timeout" | "cancelled" | undefined;
  #listeners: Set<() => void> | undefined;
  #controller: AbortController | undefined;
  #ended: (() => void)[] | undefined;
  /** What an attempt failed for want of, while the next one has not begun. */
  #lacking: unknown;
  readonly #onClientAbort = () => this.#stop("cancelled");

  constructor(
    clock: Clock,
    readonly timeoutMs: number | undefined,
    /** How long to look for a leader before OSTRAKA_UNAVAILABLE. */
    readonly availabilityMs: number,
    client: Cancellable,
  ) {
    this.#clock = clock;
    this.#client = client;
    this.#startedMs = clock.monotonicMs();
    if (timeoutMs !== undefined) this.#timer = clock.setTimer(timeoutMs, () => this.#stop("timeout"));
  }

  #stop(why: "timeout" | "cancelled"): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = why;
    this.#controller?.abort();
    for (const listener of this.#listeners ?? []) listener();
  }

  #attach(): void {
    if (this.#attached) return;
    this.#attached = true;
    const { signal } = this.#client;
    if (signal?.aborted) this.#stop("cancelled");
    else signal?.addEventListener("abort", this.#onClientAbort, { once: true });
  }

  /** Fires on timeout and on the client's cancel. */
  get signal(): AbortSignal {
    this.#attach();
    this.#controller ??= new AbortController();
    if (this.#stopped !== undefined) this.#controller.abort();
    return this.#controller.signal;
  }

  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  remainingMs(): number | undefined {
    if (this.timeoutMs === undefined) return undefined;
    return Math.max(0, this.timeoutMs - (this.#clock.monotonicMs() - this.#startedMs));
  }

  /** Time left to find a quorum. */
  availableMs(): number {
    return Math.max(0, this.availabilityMs - (this.#clock.monotonicMs() - this.#startedMs));
  }

  /** Why the statement was stopped, as the client is told; only true while nothing can have been committed. */
  reason(): RetryError | UserError {
    if (this.#stopped !== "timeout") return new UserError("SQLITE_INTERRUPT", "interrupted");
    // Whoever waits for a quorum until the end was not slow.
    if (this.#lacking !== undefined) return unavailable(this.#lacking, this.timeoutMs!);
    return new RetryError("OSTRAKA_TIMEOUT", `the statement was stopped after ${this.timeoutMs} ms`);
  }

  /** Called when the statement is over, whatever came of it. */
  onEnd(listener: () => void): void {
    this.#ended ??= [];
    this.#ended.push(listener);
  }

  dispose(): void {
    this.#timer?.cancel();
    for (const listener of this.#ended ?? []) listener();
    if (this.#attached) this.#client.signal?.removeEventListener("abort", this.#onClientAbort);
  }

  /**
   * Rejects with `reason()` when stopped before `work` settles; `work` itself goes on. What it comes to is given to
   * `unwanted`, which must not throw: what has to be closed would be lost otherwise.
   */
  race<T>(work: Promise<T>, unwanted?: (value: T) => void): Promise<T> {
    if (this.#timer === undefined && !this.#attached) return work;
    return new Promise<T>((resolve, reject) => {
      let late = false;
      const stop = () => {
        late = true;
        reject(this.reason());
      };
      this.#listeners ??= new Set();
      this.#listeners.add(stop);
      const settle = (value: T): void => {
        if (late) unwanted?.(value);
        else resolve(value);
      };
      work.then(settle, reject).finally(() => this.#listeners?.delete(stop));
      if (this.#stopped !== undefined) stop();
    });
  }

  /**
   * Tries until it passes: RouteError (another node leads) and OSTRAKA_UNAVAILABLE are tried again with a growing
   * pause until the time for finding a quorum is over. `inDoubt` names the transaction when an attempt may commit it:
   * then being stopped in the middle of an attempt is an unknown outcome. `unwanted` as for `race`. `before` an attempt
   * is learned what it needs, also of the failure of the last one; that commits nothing.
   */
  async persist<T>(
    attempt: (tries: number) => Promise<T>,
    inDoubt?: InDoubt,
    unwanted?: (value: T) => void,
    before?: (tries: number, failure: unknown) => Promise<void> | undefined,
  ): Promise<T> {
    let ambiguous: AmbiguousError | undefined;
    let failure: unknown;
    for (let tries = 0; ; tries++) {
      if (this.#stopped !== undefined) throw ambiguous ?? this.reason();
      let begun = false;
      try {
        const learned = before?.(tries, failure);
        if (learned !== undefined) await this.race(learned);
        this.#lacking = undefined;
        begun = true;
        return await this.race(attempt(tries), unwanted);
      } catch (error) {
        failure = error;
      }
      if (this.#stopped !== undefined && !isOutcome(failure)) {
        if (inDoubt === undefined || !begun) throw ambiguous ?? this.reason();
        throw ambiguous ?? new AmbiguousError("stopped before the answer arrived", inDoubt.transaction);
      }
      if (failure instanceof AmbiguousError) {
        if (inDoubt !== undefined)
          ambiguous = new AmbiguousError(failure.message, failure.transactionId ?? inDoubt.transaction);
        if (inDoubt !== undefined && !inDoubt.repeatable) throw ambiguous;
      } else if (!isPassing(failure)) {
        // That this attempt lost says nothing of the one before.
        throw failure instanceof RetryError ? (ambiguous ?? failure) : failure;
      }
      this.#attach();
      const pauseMs = Math.min(10 * 2 ** Math.min(tries, 5), 200);
      if (this.availableMs() <= pauseMs) throw ambiguous ?? unavailable(failure, this.availabilityMs);
      this.#lacking = failure;
      await this.pause(pauseMs).catch((stopped: unknown) => {
        throw ambiguous ?? stopped;
      });
    }
  }

  pause(ms: number): Promise<void> {
    return this.race(pause(this.#clock, ms));
  }
}

/** The attempt itself answered, so being stopped at the same moment says nothing new. */
function isOutcome(error: unknown): boolean {
  return error instanceof UserError && error.code !== "SQLITE_INTERRUPT";
}

function isPassing(error: unknown): boolean {
  return error instanceof RouteError || (error instanceof RetryError && error.code === "OSTRAKA_UNAVAILABLE");
}

function unavailable(cause: unknown, waitedMs: number): RetryError {
  const detail = cause instanceof Error ? `: ${cause.message}` : "";
  const message = `no quorum answered within ${Math.round(waitedMs)} ms${detail}`;
  return new RetryError("OSTRAKA_UNAVAILABLE", message, { cause });
}
