/**
 * Rows that come while they are read. The node sends as many chunks as it was given credits for; a credit goes back
 * for each chunk read, so the memory held is that of a few chunks, however large the result.
 *
 * In a session a stream holds up what comes after it. So that a statement run inside the loop over its session's own
 * stream does not wait for ever, the stream is then read to its end into memory, up to a limit (`drain`).
 */
import { ClientOp, ServerOp, type Summary } from "../rpc/protocol.js";
import {
  type CallTerms,
  type ErrorAnswer,
  type ResultMessage,
  RetriedCall,
  type RowsMessage,
} from "./calls.js";
import { errorFromWire, OstrakaError, timedOut, unavailable } from "./errors.js";
import type { Link } from "./link.js";
import { GRACE_MS, type Pool, type PooledCall } from "./pool.js";
import { RowDecoder } from "./rows.js";
import { type BoundStatement, executeMessage, statementBytes } from "./statements.js";
import type { IntMode, Row, RowIterator } from "./types.js";

/** Chunks under way or unread; a chunk is about 64 KiB. */
export const STREAM_CREDITS = 4;
const DRAIN_LIMIT_BYTES = 64 * 1024 * 1024;
const ALL_CREDITS = 1_000_000_000;

export interface StreamHead {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
}

/** What follows a stream's head. */
export class StreamTail implements PooledCall {
  id = 0;
  place = -1;
  readonly bytes = 0;
  deadlineMs = Number.POSITIVE_INFINITY;
  readonly head: StreamHead;
  /** Called once, when nothing more will come from the node; with the summary if all went well. */
  onEnd: (summary: Summary | undefined, error: ErrorAnswer | undefined) => void = () => undefined;
  readonly #pool: Pool;
  readonly #terms: CallTerms;
  readonly #link: Link;
  #chunks: Uint8Array[] = [];
  #bufferedBytes = 0;
  #draining = false;
  #ended = false;
  #error: unknown;
  #wake: (() => void) | undefined;
  #onAbort: (() => void) | undefined;

  constructor(pool: Pool, terms: CallTerms, link: Link, message: ResultMessage) {
    const [, , columns, columnTypes, rows, , , summary] = message;
    this.#pool = pool;
    this.#terms = terms;
    this.#link = link;
    this.head = { columns, columnTypes };
    this.#add(rows);
    if (summary !== null) this.#ended = true;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** To be called once it has taken the place of the call that brought the head. */
  begin(): void {
    this.#pool.begin(this);
    const { signal } = this.#terms;
    if (signal === undefined) return;
    this.#onAbort = () => {
      this.#link.cancel(this);
      this.#fail(signal.reason, undefined);
    };
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  message(): readonly unknown[] {
    throw new Error("a stream's tail is never sent");
  }

  receive(message: readonly unknown[]): boolean {
    if (this.#ended) return true;
    if (message[0] === ServerOp.Error) {
      const answer = message as unknown as ErrorAnswer;
      this.#fail(errorFromWire(answer[2]), answer);
      return true;
    }
    const [, , rows, , , summary] = message as unknown as RowsMessage;
    this.#add(rows);
    if (summary !== null) this.#end(summary, undefined);
    else if (this.#draining && this.#bufferedBytes > DRAIN_LIMIT_BYTES) {
      this.#stop();
      this.#fail(
        new OstrakaError(
          "OSTRAKA_TOO_LARGE",
          "a statement was run inside the loop over its session's own rows, which are too many to be kept meanwhile; " +
            "iterate on the database, or gather the rows first",
        ),
        undefined,
      );
    }
    this.#notify();
    return summary !== null;
  }

  lost(_link: Link, reason: string): void {
    this.#fail(unavailable(`the connection was lost while rows were read: ${reason}`), undefined);
  }

  expire(): boolean {
    this.#link.cancel(this);
    this.#fail(timedOut(`no rows within ${this.#terms.timeoutMs} ms`), undefined);
    return true;
  }

  abandon(error: OstrakaError): void {
    this.#fail(error, undefined);
  }

  /** The next rows, still encoded; undefined at the end. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return undefined;
      this.deadlineMs = this.#pool.clock.monotonicMs() + this.#terms.timeoutMs + GRACE_MS;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.deadlineMs = Number.POSITIVE_INFINITY;
    }
    const chunk = this.#chunks.shift()!;
    this.#bufferedBytes -= chunk.length;
    if (!this.#ended && !this.#draining) this.#link.tell([ClientOp.Fetch, this.id, 1]);
    return chunk;
  }

  /** Reads the rest into memory, so that the session can go on. */
  drain(): void {
    if (this.#ended || this.#draining) return;
    this.#draining = true;
    this.#link.tell([ClientOp.Fetch, this.id, ALL_CREDITS]);
  }

  /** Nobody wants the rest; `reason` is for who asks for it all the same, and must not take this for the end. */
  close(reason?: OstrakaError): void {
    this.#chunks = [];
    if (this.#ended) return;
    this.#error = reason;
    this.#stop();
    this.#end(undefined, undefined);
    this.#notify();
  }

  #stop(): void {
    this.#link.tell([ClientOp.CloseCursor, this.id]);
    this.#link.forget(this);
  }

  #add(rows: Uint8Array | null): void {
    if (rows === null || rows.length === 0) return;
    this.#chunks.push(rows);
    this.#bufferedBytes += rows.length;
  }

  #fail(error: unknown, answer: ErrorAnswer | undefined): void {
    if (this.#ended) return;
    this.#error = error;
    this.#link.forget(this);
    this.#end(undefined, answer);
    this.#notify();
  }

  #end(summary: Summary | undefined, error: ErrorAnswer | undefined): void {
    this.#ended = true;
    this.#pool.done(this);
    if (this.#onAbort !== undefined) this.#terms.signal?.removeEventListener("abort", this.#onAbort);
    this.onEnd(summary, error);
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** Makes the tail out of a head, and puts it in the place of the call that got it. */
export function succeed(
  pool: Pool,
  terms: CallTerms,
  link: Link,
  call: PooledCall,
  message: readonly unknown[],
): StreamTail {
  const tail = new StreamTail(pool, terms, link, message as unknown as ResultMessage);
  if (!tail.ended) {
    link.bequeath(call, tail);
    tail.begin();
  }
  return tail;
}

/** The first part of a stream on any node; may be sent again as long as no row was shown. */
export class StreamCall extends RetriedCall<StreamTail> {
  constructor(
    pool: Pool,
    terms: CallTerms,
    private readonly statement: BoundStatement,
  ) {
    super(pool, terms);
  }

  get bytes(): number {
    return statementBytes(this.statement);
  }

  message(id: number): readonly unknown[] {
    return executeMessage(id, 0, this.statement, this.key, this.remainingMs(), STREAM_CREDITS);
  }

  protected take(message: readonly unknown[]): StreamTail {
    return succeed(this.pool, this.terms, this.link!, this, message);
  }
}

/** The public face: starts when it is first asked for something. */
export class Rows implements RowIterator {
  #start: ((signal: AbortSignal) => Promise<StreamTail>) | undefined;
  #tail: Promise<StreamTail> | undefined;
  #arrived: StreamTail | undefined;
  /** Stops the statement: for the caller's signal, and when nobody wants rows that have not begun to come. */
  readonly #stopping = new AbortController();
  readonly #given: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#stopping.abort(this.#given?.reason);
  #returned = false;
  #rows: Row[] = [];
  #at = 0;
  #decoder: RowDecoder | undefined;
  #done = false;
  /** Calls of next() that overlap are answered one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #intMode: IntMode;

  /** `given`: the caller's signal; `start` takes the one that it is to heed. */
  constructor(
    start: (signal: AbortSignal) => Promise<StreamTail>,
    given: AbortSignal | undefined,
    intMode: IntMode,
  ) {
    this.#start = start;
    this.#given = given;
    this.#intMode = intMode;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #begin(): Promise<StreamTail> {
    if (this.#tail === undefined) {
      if (this.#given?.aborted === true) this.#onAbort();
      this.#given?.addEventListener("abort", this.#onAbort, { once: true });
      this.#tail = this.#start!(this.#stopping.signal).then((tail) => {
        this.#arrived = tail;
        return tail;
      });
      this.#start = undefined;
    }
    return this.#tail;
  }

  async head(): Promise<StreamHead> {
    return (await this.#begin()).head;
  }

  next(): Promise<IteratorResult<Row>> {
    const row = this.#rows[this.#at];
    if (row !== undefined) {
      this.#at++;
      return Promise.resolve({ done: false, value: row });
    }
    const next = this.#turn.then(() => this.#next());
    this.#turn = next.catch(() => undefined);
    return next;
  }

  async #next(): Promise<IteratorResult<Row>> {
    while (this.#at >= this.#rows.length) {
      if (this.#done) return { done: true, value: undefined };
      try {
        const tail = await this.#begin();
        this.#decoder ??= new RowDecoder(tail.head.columns, this.#intMode);
        const chunk = await tail.next();
        if (chunk === undefined) {
          this.#end();
          return { done: true, value: undefined };
        }
        const rows: Row[] = [];
        this.#decoder.decode(chunk, rows);
        this.#rows = rows;
        this.#at = 0;
      } catch (error) {
        if (this.#returned) return { done: true, value: undefined };
        await this.#stop();
        throw error;
      }
    }
    return { done: false, value: this.#rows[this.#at++]! };
  }

  async return(): Promise<IteratorResult<Row>> {
    this.#returned = true;
    await this.#stop();
    return { done: true, value: undefined };
  }

  #end(): void {
    this.#done = true;
    this.#given?.removeEventListener("abort", this.#onAbort);
  }

  async #stop(): Promise<void> {
    this.#end();
    this.#rows = [];
    this.#at = 0;
    if (this.#arrived !== undefined) this.#arrived.close();
    else this.#stopping.abort(new OstrakaError("OSTRAKA_CLOSED", "nobody wants the rows any more"));
    await this.#tail?.catch(() => undefined);
  }
}
