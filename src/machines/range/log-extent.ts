/**
 * How much of a database's write-ahead log belongs to what is committed. The file may be longer: pages of a transaction
 * that did not fit into memory are there before it commits, and stay there when it is rolled back, until what is
 * committed next is written over them.
 *
 * SQLite's own rule ("The WAL File Format" in its documentation): frames count as far as their salts are those of the
 * header and their checksums, each of which is over all frames before it too, are right; and of those as far as the last
 * that commits. To be asked by whoever is the only one to write, between two transactions or within one. What was
 * found is not read again, as long as the log has not started over.
 */
import { closeSync, openSync, readSync } from "node:fs";

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC = 0x377f0682;
const READ_BYTES = 1 << 20;

interface Sum {
  readonly a: number;
  readonly b: number;
}

/** What the header says of all frames. */
interface Log {
  readonly salts: readonly [number, number];
  readonly pageBytes: number;
  readonly littleEndian: boolean;
  readonly sum: Sum;
}

export class LogExtent {
  readonly #path: string;
  #log: Log | undefined;
  /** Up to where all is committed, and the checksum there. */
  #bytes = 0;
  #sum: Sum = { a: 0, b: 0 };

  /** `path`: of the database. */
  constructor(path: string) {
    this.#path = `${path}-wal`;
  }

  /** Bytes of the log up to the end of what is committed; 0 when nothing in it is. */
  committed(): number {
    const file = open(this.#path);
    if (file === undefined) return 0;
    try {
      const log = readHeader(file);
      if (log === undefined) return 0;
      const known = this.#log;
      if (known?.salts[0] !== log.salts[0] || known.salts[1] !== log.salts[1]) {
        this.#log = log;
        this.#bytes = 0;
        this.#sum = log.sum;
      }
      this.#follow(file, log);
      return this.#bytes;
    } finally {
      closeSync(file);
    }
  }

  #follow(file: number, log: Log): void {
    const frameBytes = FRAME_HEADER_BYTES + log.pageBytes;
    const frames = Math.max(1, Math.floor(READ_BYTES / frameBytes));
    const buffer = new Uint8Array(frames * frameBytes);
    let sum = this.#sum;
    let offset = Math.max(HEADER_BYTES, this.#bytes);
    for (;;) {
      const whole = Math.floor(fill(file, buffer, offset) / frameBytes);
      for (let i = 0; i < whole; i++) {
        const frame = new DataView(buffer.buffer, i * frameBytes, frameBytes);
        const next = checked(frame, log, sum);
        if (next === undefined) return;
        sum = next;
        offset += frameBytes;
        // How many pages the database then has; 0 in the middle of a transaction.
        if (frame.getUint32(4) === 0) continue;
        this.#bytes = offset;
        this.#sum = sum;
      }
      if (whole < frames) return;
    }
  }
}

function open(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Undefined when it is not the header of a log. */
function readHeader(file: number): Log | undefined {
  const bytes = new Uint8Array(HEADER_BYTES);
  if (fill(file, bytes, 0) < HEADER_BYTES) return undefined;
  const header = new DataView(bytes.buffer);
  const magic = header.getUint32(0);
  if (magic >>> 1 !== MAGIC >>> 1) return undefined;
  const littleEndian = magic === MAGIC;
  const sum = added({ a: 0, b: 0 }, header, 0, 24, littleEndian);
  if (!isAt(header, 24, sum)) return undefined;
  const salts = [header.getUint32(16), header.getUint32(20)] as const;
  return { salts, pageBytes: header.getUint32(8), littleEndian, sum };
}

/** The checksum up to this frame; undefined when it is not the one that follows. */
function checked(frame: DataView, { salts, littleEndian }: Log, before: Sum): Sum | undefined {
  if (frame.getUint32(8) !== salts[0] || frame.getUint32(12) !== salts[1]) return undefined;
  const head = added(before, frame, 0, 8, littleEndian);
  const sum = added(head, frame, FRAME_HEADER_BYTES, frame.byteLength, littleEndian);
  return isAt(frame, 16, sum) ? sum : undefined;
}

function isAt(view: DataView, at: number, { a, b }: Sum): boolean {
  return view.getInt32(at) === a && view.getInt32(at + 4) === b;
}

function added(sum: Sum, view: DataView, from: number, to: number, littleEndian: boolean): Sum {
  let { a, b } = sum;
  for (let at = from; at < to; at += 8) {
    a = (a + view.getInt32(at, littleEndian) + b) | 0;
    b = (b + view.getInt32(at + 4, littleEndian) + a) | 0;
  }
  return { a, b };
}

/** Answers how many bytes there were. */
function fill(file: number, buffer: Uint8Array, offset: number): number {
  let filled = 0;
  while (filled < buffer.length) {
    const read = readSync(file, buffer, filled, buffer.length - filled, offset + filled);
    if (read === 0) break;
    filled += read;
  }
  return filled;
}
