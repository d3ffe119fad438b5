/**
 * Sends a result stream's rows at the client's pace: one chunk a credit, none while the pipe is full.
 *
 * Invariants
 * 1. Exactly one of: a last message with a summary, an Error, or nothing at all after `close`.
 * 2. The stream is closed once, whatever ends the cursor.
 */

import { UserError } from "../base/errors.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";
import { FRAME_TARGET_BYTES, type FrameWriter } from "./pipe.js";
import { MAX_FRAME_BYTES, ServerOp, type Summary } from "./protocol.js";

/** With what else is in its frame. */
export const LARGEST_CHUNK = MAX_FRAME_BYTES - 64 * 1024;

export interface CursorOwner {
  readonly writer: FrameWriter;
  summary(of: Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">): Summary;
  /** Finished; with an error the owner answers it. */
  ended(error: unknown): void;
  /** It waits for credits, or no longer does: a client that thinks costs no place among the running. */
  parked(parked: boolean): void;
}

export class ClientCursor {
  #credits: number;
  #running = false;
  #closed = false;
  #headSent = false;

  constructor(
    readonly id: number,
    private readonly stream: RowStream,
    /** 0: as many chunks as there are. */
    want: number,
    private readonly owner: CursorOwner,
  ) {
    this.#credits = want === 0 ? Number.POSITIVE_INFINITY : want;
  }

  fetch(credits: number): void {
    this.#credits += credits;
    void this.pump();
  }

  /** Sends until credits, rows or the pipe's room run out. */
  async pump(): Promise<void> {
    if (this.#running || this.#closed) return;
    this.#running = true;
    this.owner.parked(false);
    try {
      while (!this.#closed && this.#credits > 0) {
        const chunk = await this.stream.next();
        if (this.#closed) return;
        if (chunk === undefined) {
          this.#send(null, 0, this.owner.summary(this.stream.summary()));
          this.#end(undefined);
          return;
        }
        if (chunk.rows.length > LARGEST_CHUNK)
          throw new UserError(
            "OSTRAKA_TOO_LARGE",
            `a row of ${chunk.rows.length} bytes does not fit a frame`,
          );
        this.#credits--;
        this.#send(chunk.rows, chunk.count, null);
        await this.#makeRoom();
      }
      if (!this.#closed) this.owner.parked(true);
    } catch (error) {
      if (!this.#closed) this.#end(error);
    } finally {
      this.#running = false;
    }
  }

  /** Rows that come without pause must not keep the event loop from sending them, nor from anything else. */
  async #makeRoom(): Promise<void> {
    const { writer } = this.owner;
    if (writer.bufferedBytes >= FRAME_TARGET_BYTES) {
      writer.flush();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    if (writer.blocked) await writer.writable();
  }

  #send(rows: Uint8Array | null, count: number, summary: Summary | null): void {
    const bytes = rows === null ? 0 : rows.length;
    const more = summary === null;
    if (this.#headSent) {
      this.owner.writer.push([ServerOp.Rows, this.id, rows, count, more, summary], bytes);
      return;
    }
    this.#headSent = true;
    const { columns, columnTypes } = this.stream;
    this.owner.writer.push(
      [ServerOp.Result, this.id, columns, columnTypes, rows, count, more, summary],
      bytes + columns.length * 16,
    );
  }

  #end(error: unknown): void {
    this.close();
    this.owner.ended(error);
  }

  /** Frees the stream; says nothing to anybody. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.stream.close().catch(() => undefined);
  }
}
