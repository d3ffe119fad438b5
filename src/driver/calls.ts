/**
 * Calls that any node may answer: autocommit statements, batches, outcomes, operations. Each is sent, and sent again
 * where that cannot apply twice, until it is answered or its deadline has passed.
 *
 * Invariants
 * 1. A call settles once. Afterwards it is in no link and not in the pool's care, and its sequence is released (unless
 *    its outcome is unknown: then once that is known, or after a while).
 * 2. A call that may have applied something is sent again only under the key it had, and never ends with an error that
 *    says it was not applied.
 */
import type { WireError } from "../base/errors.js";
import { ServerOp, type SessionState, type Summary, type WireKey } from "../rpc/protocol.js";
import {
  errorFromWire,
  isUnknownOutcome,
  OstrakaError,
  timedOut,
  unavailable,
  unknownOutcome,
} from "./errors.js";
import type { Link } from "./link.js";
import type { Pool, PooledCall } from "./pool.js";
import { WriteKey } from "./write-key.js";

/** What sending a call twice could do. */
export type Repeat =
  /** Nothing: it reads. */
  | "harmless"
  /** Nothing: the key tells the range that it is the same. */
  | "keyed"
  /** Who knows. */
  | "never";

export interface CallTerms {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly repeat: Repeat;
}

/** How long an answer may be on its way after the deadline of what is not a write. */
const ANSWER_MS = 100;

export abstract class RetriedCall<T> implements PooledCall {
  id = 0;
  place = -1;
  abstract readonly bytes: number;
  readonly deadlineMs: number;
  readonly #key: WriteKey | undefined;
  #link: Link | undefined;
  #attempt = 0;
  /** An attempt may have been applied. The server's name for it, where it gave one. */
  #maybe = false;
  #maybeId: string | undefined;
  #lastError: OstrakaError | undefined;
  #settled = false;
  #onAbort: (() => void) | undefined;
  #resolve!: (value: T) => void;
  #reject!: (error: unknown) => void;

  constructor(
    protected readonly pool: Pool,
    protected readonly terms: CallTerms,
  ) {
    this.deadlineMs = pool.clock.monotonicMs() + terms.timeoutMs;
    this.#key = terms.repeat === "keyed" ? new WriteKey(pool) : undefined;
  }

  abstract message(id: number): readonly unknown[];
  /** The value once complete, else undefined; throws what the call should reject with. */
  protected abstract take(message: readonly unknown[]): T | undefined;
  /** Forgets what an attempt that was cut off has brought. */
  protected restart(): void {}

  /** To be called once. */
  run(): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      const { signal } = this.terms;
      if (signal !== undefined) {
        if (signal.aborted) {
          this.#finish(false, signal.reason);
          return;
        }
        this.#onAbort = () => this.#abort(signal.reason);
        signal.addEventListener("abort", this.#onAbort, { once: true });
      }
      try {
        this.pool.begin(this);
      } catch (error) {
        this.#finish(false, error);
        return;
      }
      this.#send();
    });
  }

  /** The link that carries it at the moment. */
  protected get link(): Link | undefined {
    return this.#link;
  }

  protected remainingMs(): number {
    return Math.max(1, Math.ceil(this.deadlineMs - this.pool.clock.monotonicMs()));
  }

  /** Null without one. */
  protected get key(): WireKey | null {
    return this.#key?.wire(this.#maybe) ?? null;
  }

  #send(): void {
    const { current } = this.pool;
    if (current !== undefined) this.#sendOn(current);
    else this.pool.withLink(this, (link) => this.#sendOn(link));
  }

  #sendOn(link: Link): void {
    if (this.#settled) return;
    this.#link = link;
    this.#key?.issue(link);
    link.send(this);
  }

  receive(message: readonly unknown[]): boolean {
    if (message[0] === ServerOp.Error) {
      this.#failed(message[2] as WireError);
      return true;
    }
    let value: T | undefined;
    try {
      value = this.take(message);
    } catch (error) {
      this.#finish(false, error);
      return true;
    }
    if (value === undefined) return false;
    this.#finish(true, value);
    return true;
  }

  #failed(wire: WireError): void {
    const link = this.#link;
    this.#link = undefined;
    const error = errorFromWire(wire);
    switch (error.code) {
      case "OSTRAKA_UNAVAILABLE":
        if (link !== undefined) this.pool.avoid(link);
        if (!this.#maybe) this.#key?.renew();
        this.#again(error);
        break;
      case "OSTRAKA_RETRY":
        if (error.transactionId !== undefined && error.transactionId === this.#key?.name) this.#maybe = false;
        if (!this.#maybe) this.#key?.renew();
        this.#again(error);
        break;
      case "OSTRAKA_UNKNOWN_OUTCOME":
        this.#maybe = true;
        this.#maybeId = error.transactionId ?? this.#maybeId;
        this.#again(error);
        break;
      case "OSTRAKA_TIMEOUT":
        this.#finish(false, this.#final(error));
        break;
      default:
        this.#finish(false, error);
    }
  }

  lost(_link: Link, reason: string): void {
    this.#link = undefined;
    if (this.terms.repeat !== "harmless") this.#maybe = true;
    this.#again(unavailable(`the connection was lost: ${reason}`));
  }

  /** After a pause, where it may be sent again and there is time. */
  #again(error: OstrakaError): void {
    if (this.#settled) return;
    this.#lastError = error;
    const delayMs = this.pool.backoffMs(this.#attempt++);
    const late = this.pool.clock.monotonicMs() + delayMs >= this.deadlineMs;
    if (this.terms.repeat === "never" || late) {
      this.#finish(false, this.#final(error));
      return;
    }
    this.restart();
    this.pool.clock.setTimer(delayMs, () => {
      if (!this.#settled) this.#send();
    });
  }

  /** The error to end with, given what earlier attempts may have done. */
  #final(error: OstrakaError): OstrakaError {
    if (!this.#maybe) return error;
    if (this.#key !== undefined) {
      const id = this.#maybeId ?? this.#key.name;
      return unknownOutcome(`it is not known whether the statement was applied: ${error.message}`, id);
    }
    return new OstrakaError(error.code, `${error.message}; it may have been carried out`, { cause: error });
  }

  expire(overdue: boolean): boolean {
    if (this.#settled) return true;
    // The node keeps the same deadline, and knows better what became of a write and what a read waited for.
    const waitsMs = this.terms.repeat === "keyed" ? Number.POSITIVE_INFINITY : ANSWER_MS;
    const soon = this.pool.clock.monotonicMs() < this.deadlineMs + waitsMs;
    if (this.#link !== undefined && soon && !overdue) return false;
    this.#link?.cancel(this);
    return this.#giveUp();
  }

  #giveUp(): boolean {
    const seconds = `${this.terms.timeoutMs} ms`;
    if (this.#link !== undefined) {
      if (this.terms.repeat !== "harmless") this.#maybe = true;
      this.#finish(false, this.#final(timedOut(`no answer within ${seconds}`)));
    } else {
      const detail = this.#lastError?.message ?? this.pool.lastFailure;
      const code = this.#lastError?.code ?? "OSTRAKA_UNAVAILABLE";
      const error = new OstrakaError(code, `not possible within ${seconds}: ${detail}`);
      this.#finish(false, this.#final(error));
    }
    return true;
  }

  abandon(error: OstrakaError): void {
    if (this.#link !== undefined && this.terms.repeat !== "harmless") this.#maybe = true;
    this.#finish(false, this.#final(error));
  }

  #abort(reason: unknown): void {
    this.#link?.cancel(this);
    this.#finish(false, reason);
  }

  #finish(ok: boolean, outcome: unknown): void {
    if (this.#settled) return;
    this.#settled = true;
    const link = this.#link;
    this.#link = undefined;
    link?.forget(this);
    this.pool.done(this);
    this.#key?.release(!ok && isUnknownOutcome(outcome));
    if (this.#onAbort !== undefined) this.terms.signal?.removeEventListener("abort", this.#onAbort);
    if (ok) this.#resolve(outcome as T);
    else this.#reject(outcome);
  }
}

/** A value of the server's: an outcome, an operation's answer. */
export class JsonCall extends RetriedCall<{ readonly value: unknown }> {
  readonly bytes = 64;

  constructor(
    pool: Pool,
    terms: CallTerms,
    private readonly op: number,
    private readonly rest: readonly unknown[],
  ) {
    super(pool, terms);
  }

  message(id: number): readonly unknown[] {
    return [this.op, id, ...this.rest];
  }

  protected take(message: readonly unknown[]): { value: unknown } {
    return { value: message[2] };
  }
}

/** Wire shapes of answers, trusted: they come from a node, checked by version. */
export type ResultMessage = readonly [
  op: number,
  id: number,
  columns: string[],
  columnTypes: (string | null)[],
  rows: Uint8Array | null,
  rowCount: number,
  more: boolean,
  summary: Summary | null,
];
export type RowsMessage = readonly [
  op: number,
  id: number,
  rows: Uint8Array | null,
  rowCount: number,
  more: boolean,
  summary: Summary | null,
];
export type ErrorAnswer = readonly [op: number, id: number, error: WireError, state: SessionState];
