/**
 * Rows produced faster than they are fetched: in memory up to a bound, beyond it in a temporary file that has no name
 * any more, so that nothing is left behind however the process ends.
 *
 * Rows come out in the order in which they went in, small chunks of them together. Once something lies in the file,
 * everything newer goes there too until the file is empty, then memory is used again.
 */
import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert } from "../../../base/assert.js";

export interface SpooledChunk {
  readonly rows: Uint8Array;
  readonly count: number;
}

interface FilePiece {
  readonly offset: number;
  readonly length: number;
  readonly count: number;
}

/** Many queries of few rows each are not fetched one by one. */
const TOGETHER_BYTES = 64 * 1024;

let files = 0;

export class Spool {
  readonly #memoryBytes: number;
  #memory: SpooledChunk[] = [];
  #held = 0;
  #file: number | undefined;
  #pieces: FilePiece[] = [];
  #next = 0;
  #end = 0;

  constructor(memoryBytes: number) {
    this.#memoryBytes = memoryBytes;
  }

  get empty(): boolean {
    return this.#memory.length === 0 && this.#next === this.#pieces.length;
  }

  push(chunk: SpooledChunk): void {
    const fileInUse = this.#next < this.#pieces.length;
    if (!fileInUse && this.#held + chunk.rows.length <= this.#memoryBytes) {
      this.#memory.push(chunk);
      this.#held += chunk.rows.length;
      return;
    }
    this.#file ??= openUnnamed();
    writeAt(this.#file, chunk.rows, this.#end);
    this.#pieces.push({ offset: this.#end, length: chunk.rows.length, count: chunk.count });
    this.#end += chunk.rows.length;
  }

  /** The oldest rows; undefined when there are none now. */
  shift(): SpooledChunk | undefined {
    if (this.#memory.length > 0) {
      const chunk = joined(this.#memory.splice(0, this.#together()));
      this.#held -= chunk.rows.length;
      return chunk;
    }
    const piece = this.#pieces[this.#next];
    if (piece === undefined) return undefined;
    assert(this.#file !== undefined, "a spooled piece without its file");
    const rows = readAt(this.#file, piece.offset, piece.length);
    this.#next++;
    if (this.#next === this.#pieces.length) this.#rewind(this.#file);
    return { rows, count: piece.count };
  }

  /** How many of the oldest chunks are not too much together. */
  #together(): number {
    let count = 0;
    let bytes = 0;
    for (const { rows } of this.#memory) {
      bytes += rows.length;
      if (count > 0 && bytes > TOGETHER_BYTES) break;
      count++;
    }
    return count;
  }

  close(): void {
    this.#memory = [];
    this.#held = 0;
    this.#pieces = [];
    this.#next = 0;
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #rewind(file: number): void {
    ftruncateSync(file, 0);
    this.#pieces = [];
    this.#next = 0;
    this.#end = 0;
  }
}

function joined(chunks: readonly SpooledChunk[]): SpooledChunk {
  const [only, ...others] = chunks;
  if (others.length === 0) return only!;
  const rows = Buffer.concat(chunks.map((chunk) => chunk.rows));
  return { rows, count: chunks.reduce((sum, { count }) => sum + count, 0) };
}

/** A temporary file that is gone with its descriptor. */
export function openUnnamed(): number {
  const path = join(tmpdir(), `ostraka-spool-${process.pid}-${files++}`);
  const file = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return file;
}

export function writeAt(file: number, bytes: Uint8Array, offset: number): void {
  let written = 0;
  while (written < bytes.length)
    written += writeSync(file, bytes, written, bytes.length - written, offset + written);
}

export function readAt(file: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let read = 0;
  while (read < length) {
    const got = readSync(file, bytes, read, length - read, offset + read);
    assert(got > 0, "a temporary file is shorter than what was written to it");
    read += got;
  }
  return bytes;
}
