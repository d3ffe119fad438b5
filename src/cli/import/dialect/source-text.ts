/**
 * A file, read forwards as text of one character a byte, with the line one is at. What has been passed is let go of.
 *
 * Invariant: memory is proportional to what `more` was asked to keep, and the time spent to the bytes read, however
 * often a caller starts again from `at`: each call brings as much again as there is left.
 */
import { type FileHandle, open } from "node:fs/promises";

const CHUNK_BYTES = 256 * 1024;
/** What one statement, or one row, may come to: far above what any of them may be in the database. */
const MAX_KEPT_BYTES = 256 * 1024 * 1024;

export class SourceText {
  /** What is at hand. */
  text = "";
  /** Up to where it has been read. */
  at = 0;
  /** The line at `at`, from 1. */
  line = 1;
  /** There is no more than `text`. */
  ended = false;
  #read = 0;
  /** The first line feed not yet counted, or where to look for it; a line may be longer than what is at hand. */
  #newline = -1;

  private constructor(
    readonly file: FileHandle,
    readonly chunkBytes: number,
    readonly signal: AbortSignal | undefined,
  ) {}

  static async open(path: string, signal?: AbortSignal, chunkBytes = CHUNK_BYTES): Promise<SourceText> {
    const source = new SourceText(await open(path), chunkBytes, signal);
    do await source.more();
    while (!source.ended && source.text.length < 3);
    // A byte order mark is no part of the text.
    if (source.text.startsWith("\u00ef\u00bb\u00bf")) source.at = 3;
    return source;
  }

  /** Bytes behind `at`. */
  get passed(): number {
    return this.#read - (this.text.length - this.at);
  }

  /** Goes on to `end`, counting lines. */
  advance(end: number): void {
    while (this.#newline < end) {
      if (this.#newline >= this.at) this.line++;
      const next = this.text.indexOf("\n", Math.max(this.#newline + 1, this.at));
      this.#newline = next < 0 ? Number.POSITIVE_INFINITY : next;
    }
    this.at = end;
  }

  /** Brings more text, after which `at` is 0. */
  async more(): Promise<void> {
    this.signal?.throwIfAborted();
    const kept = this.text.slice(this.at);
    if (kept.length > MAX_KEPT_BYTES) {
      throw new RangeError(`what begins here is longer than ${MAX_KEPT_BYTES >> 20} MiB: an unclosed quote?`);
    }
    const buffer = Buffer.allocUnsafe(Math.max(this.chunkBytes, kept.length));
    let filled = 0;
    while (filled < buffer.length) {
      const { bytesRead } = await this.file.read(buffer, filled, buffer.length - filled);
      if (bytesRead === 0) {
        this.ended = true;
        break;
      }
      filled += bytesRead;
    }
    this.#read += filled;
    this.text = kept + buffer.toString("latin1", 0, filled);
    this.at = 0;
    this.#newline = -1;
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}
