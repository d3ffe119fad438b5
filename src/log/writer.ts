/**
 * The one writer of the log: takes what is queued, batch by batch, to the head segment.
 *
 * Invariants:
 * 1. One write at a time, in the order of queueing; all that is queued during a write goes into the next (group
 *    commit). An append is never split over two batches, and a batch never over two segments.
 * 2. Promises resolve in order, each after its bytes are durable (the segments are opened for synchronous writes).
 * 3. A full disk delays and reorders nothing: the same batch is written again, whole, until it passes.
 * 4. After any other error nothing is written any more; everything pending and everything later is refused with it,
 *    and it is told at once, since there may be nothing pending and, with a full disk, nothing later.
 */
import { FatalError } from "../base/errors.js";
import type { Clock, Timer } from "../base/io.js";
import { encodeBatchHeader, HEADER_BYTES } from "./batch.js";
import { Fifo } from "./fifo.js";
import type { PendingRecord } from "./group-state.js";
import type { Segment, SegmentPreparer } from "./segment.js";

const MAX_BATCH_BYTES = 4 * 1024 * 1024;
const RETRY_MS = 500;

/** One append on its way: records of one or several groups that become durable together. */
export interface QueuedAppend {
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
  readonly records: readonly PendingRecord[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export interface WriterEvents {
  onDurable(records: readonly PendingRecord[]): void;
  onRotated(): void;
  onDiskFull(reason: string | undefined): void;
  /** Once, unless the log is being closed. */
  onFailure(error: FatalError): void;
}

export function isDiskFull(error: unknown): error is FatalError {
  return error instanceof FatalError && error.code === "OSTRAKA_DISK_FULL";
}

function ignore(): void {}

export class LogWriter {
  readonly #clock: Clock;
  readonly #preparer: SegmentPreparer;
  readonly #segmentBytes: number;
  readonly #events: WriterEvents;
  readonly #queue = new Fifo<QueuedAppend>();
  #head: Segment;
  #offset: number;
  #nextBatch: number;
  #running: Promise<void> | undefined;
  #failure: FatalError | undefined;
  #closing = false;
  /** What is delayed by a full disk: the writer itself, the preparation of the next segment. */
  #writeFull: string | undefined;
  #prepareFull: string | undefined;
  #announced = false;
  #preparing = false;
  #prepareRetry: Timer | undefined;
  #wakeWait: (() => void) | undefined;

  constructor(
    clock: Clock,
    preparer: SegmentPreparer,
    segmentBytes: number,
    start: { head: Segment; offset: number; nextBatch: number },
    events: WriterEvents,
  ) {
    this.#clock = clock;
    this.#preparer = preparer;
    this.#segmentBytes = segmentBytes;
    this.#events = events;
    this.#head = start.head;
    this.#offset = start.offset;
    this.#nextBatch = start.nextBatch;
  }

  get failure(): FatalError | undefined {
    return this.#failure;
  }

  get head(): Segment {
    return this.#head;
  }

  /** Without `wake` it waits for the next append that does. */
  enqueue(append: QueuedAppend, wake: boolean): void {
    if (this.#failure) {
      append.reject(this.#failure);
      return;
    }
    this.#queue.push(append);
    if (wake) this.#wake();
  }

  /** Resolves once everything queued until now is durable. */
  barrier(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.enqueue({ chunks: [], bytes: 0, records: [], resolve, reject }, true);
    });
  }

  /** Space was given back: what waits for some may try again. */
  spaceFreed(): void {
    this.#wakeWait?.();
    if (this.#prepareFull !== undefined) this.#retryPrepare();
  }

  fail(error: unknown): void {
    if (this.#failure) return;
    this.#failure =
      error instanceof FatalError
        ? error
        : new FatalError("OSTRAKA_INTERNAL", `the log's writer failed: ${String(error)}`, { cause: error });
    this.#prepareRetry?.cancel();
    for (const append of this.#queue.takeAll()) append.reject(this.#failure);
    this.#wakeWait?.();
    if (!this.#closing) this.#events.onFailure(this.#failure);
  }

  /** Writes what is queued, then a mark, so that damage to the last write is not taken for a torn tail. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#writeFull !== undefined) this.#refusePending();
    else if (!this.#failure) await this.barrier().catch(ignore);
    await this.#running?.catch(ignore);
    this.#prepareRetry?.cancel();
    if (!this.#failure && this.#offset > HEADER_BYTES) await this.#writeMark();
    this.#failure ??= new FatalError("OSTRAKA_LOG_CLOSED", "the log is closed");
  }

  /** May lie beyond the segment's end: the next start goes on in a new one then. Not worth failing for. */
  async #writeMark(): Promise<void> {
    const header = { sequence: this.#nextBatch, bodyBytes: 0, records: 0 };
    try {
      await this.#head.file.write(this.#offset, [encodeBatchHeader(this.#head.sequence, header)]);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    }
  }

  #refusePending(): void {
    this.fail(new FatalError("OSTRAKA_LOG_CLOSED", "the log was closed while the disk was full"));
  }

  #wake(): void {
    // Deferred by a microtask, so that appends of one turn of the event loop share a write.
    this.#running ??= Promise.resolve()
      .then(() => this.#run())
      .catch((error: unknown) => this.fail(error))
      .finally(() => {
        this.#running = undefined;
        // Something came in between the loop's end and here.
        if (this.#queue.length > 0) this.#wake();
      });
  }

  async #run(): Promise<void> {
    for (let first = this.#queue.peek(); first !== undefined; first = this.#queue.peek()) {
      if (this.#failure) return;
      if (first.bytes > 0) await this.#ensureRoom(first.bytes);
      if (this.#failure) return;
      const batch = this.#gather();
      try {
        await this.#write(batch);
      } catch (error) {
        this.fail(error);
        for (const append of batch) append.reject(this.#failure!);
        return;
      }
      this.#complete(batch);
      this.#prepareNext();
    }
  }

  async #ensureRoom(bytes: number): Promise<void> {
    if (this.#offset === HEADER_BYTES || this.#offset + HEADER_BYTES + bytes <= this.#segmentBytes) return;
    await this.#untilSpace(async () => {
      this.#head = await this.#preparer.take();
      this.#offset = HEADER_BYTES;
    });
    if (this.#failure) return;
    this.#setFull("prepare", undefined);
    this.#events.onRotated();
  }

  /** As many appends as fit this segment and a batch, but at least one. */
  #gather(): QueuedAppend[] {
    const limit = Math.min(MAX_BATCH_BYTES, this.#segmentBytes - this.#offset - HEADER_BYTES);
    const batch: QueuedAppend[] = [];
    let bytes = 0;
    for (let next = this.#queue.peek(); next !== undefined; next = this.#queue.peek()) {
      if (batch.length > 0 && next.bytes > 0 && bytes + next.bytes > limit) break;
      batch.push(next);
      bytes += next.bytes;
      this.#queue.shift();
    }
    return batch;
  }

  async #write(batch: readonly QueuedAppend[]): Promise<void> {
    let records = 0;
    let bytes = 0;
    const chunks: Uint8Array[] = [];
    for (const append of batch) {
      this.#place(append, this.#offset + HEADER_BYTES + bytes, false);
      for (const chunk of append.chunks) pushChunk(chunks, chunk);
      records += append.records.length;
      bytes += append.bytes;
    }
    if (records === 0) return;
    const segment = this.#head.sequence;
    chunks.unshift(encodeBatchHeader(segment, { sequence: this.#nextBatch, bodyBytes: bytes, records }));
    await this.#untilSpace(() => this.#head.file.write(this.#offset, chunks));
    if (this.#failure) throw this.#failure;
    let at = this.#offset + HEADER_BYTES;
    for (const append of batch) {
      this.#place(append, at, true);
      at += append.bytes;
    }
    this.#offset = at;
    this.#nextBatch++;
  }

  /** New entries get their place as the write begins, restated ones, which are read from the old place, after it. */
  #place(append: QueuedAppend, offset: number, written: boolean): void {
    for (const record of append.records) {
      if (record.cached !== written) record.state.place(record, this.#head.sequence, offset);
      if (written) record.durable = true;
    }
  }

  #complete(batch: readonly QueuedAppend[]): void {
    for (const append of batch) {
      this.#events.onDurable(append.records);
      append.resolve();
    }
  }

  /** Tries until it passes, for as long as the disk is full; gives up only when the log fails or is closed. */
  async #untilSpace(attempt: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await attempt();
        this.#setFull("write", undefined);
        return;
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        this.#setFull("write", error.message);
        if (this.#closing) this.#refusePending();
      }
      if (this.#failure) return;
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimer(RETRY_MS, resolve);
        this.#wakeWait = () => {
          timer.cancel();
          resolve();
        };
      });
      this.#wakeWait = undefined;
      if (this.#failure) return;
    }
  }

  /** Keeps the next segment ahead of this one; see segment.ts. */
  #prepareNext(): void {
    if (this.#preparing || this.#prepareRetry || this.#failure || this.#closing) return;
    const target = 2 * (this.#offset - this.#segmentBytes / 16);
    if (target <= 0) return;
    this.#preparing = true;
    this.#preparer.prepare(target).then(
      () => {
        this.#preparing = false;
        this.#setFull("prepare", undefined);
      },
      (error: unknown) => {
        this.#preparing = false;
        if (!isDiskFull(error)) return this.fail(error);
        this.#prepareRetry = this.#clock.setTimer(RETRY_MS, () => this.#retryPrepare());
        this.#setFull("prepare", error.message);
      },
    );
  }

  #retryPrepare(): void {
    this.#prepareRetry?.cancel();
    this.#prepareRetry = undefined;
    this.#prepareNext();
  }

  #setFull(what: "write" | "prepare", reason: string | undefined): void {
    if (what === "write") this.#writeFull = reason;
    else this.#prepareFull = reason;
    const current = this.#writeFull ?? this.#prepareFull;
    if ((current !== undefined) === this.#announced) return;
    this.#announced = current !== undefined;
    this.#events.onDiskFull(current);
  }
}

/** Appends a chunk, as one with the last if it lies right behind it in memory. */
function pushChunk(chunks: Uint8Array[], chunk: Uint8Array): void {
  const last = chunks.at(-1);
  if (
    last !== undefined &&
    last.buffer === chunk.buffer &&
    last.byteOffset + last.length === chunk.byteOffset
  ) {
    chunks[chunks.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + chunk.length);
  } else chunks.push(chunk);
}
