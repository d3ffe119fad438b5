/**
 * SQL values as they travel between threads, nodes and clients. Storage classes are exact: INTEGER is a bigint and
 * REAL a number, everywhere but in the driver's public interface, which converts.
 *
 * A vector is: count (varint), then each value as a tag byte and its payload. Rows are encoded once, where SQLite
 * produced them, and carried as bytes to the client.
 */
export type SqlValue = null | bigint | number | string | Uint8Array;

enum Tag {
  Null = 0,
  /** Zigzag varint; used where it fits 53 bits. */
  Integer = 1,
  /** Eight bytes, little-endian, two's complement. */
  Integer64 = 2,
  Real = 3,
  Text = 4,
  Blob = 5,
  /** Tags from here on are the integers 0, 1, 2, ... themselves. */
  SmallInteger = 64,
}

const SMALL_LIMIT = 255 - Tag.SmallInteger;
/** Up to here texts are encoded without the encoder; the length fits one byte. */
const SHORT_TEXT = 127;
/** A writer's buffer shrinks to this when it is emptied. */
const KEPT_BYTES = 1024 * 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** Appends encoded values to a growing buffer. */
export class ValueWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(initialBytes = 1024) {
    this.#bytes = new Uint8Array(initialBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get length(): number {
    return this.#length;
  }

  /** Forgets what was written. */
  reset(): void {
    this.#length = 0;
  }

  /** The bytes written so far, copied; the writer is empty afterwards and may be used again. */
  take(): Uint8Array {
    const out = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    // What one large value took is not kept for ever.
    if (this.#bytes.length > KEPT_BYTES) this.#replace(KEPT_BYTES);
    return out;
  }

  vector(values: readonly SqlValue[]): void {
    this.#varint(values.length);
    for (let i = 0; i < values.length; i++) this.value(values[i]!);
  }

  // What surrounds values in formats built on this one; each has its counterpart in ValueReader.

  byte(byte: number): void {
    this.#byte(byte);
  }

  /** A whole number from 0 to 2^53. */
  uint(value: number): void {
    this.#varint(value);
  }

  /** A whole number of at most 52 bits and a sign. */
  int(value: number): void {
    this.#varint(value < 0 ? -2 * value - 1 : 2 * value);
  }

  string(text: string): void {
    this.#string(text);
  }

  bytes(bytes: Uint8Array): void {
    this.#varint(bytes.length);
    this.raw(bytes);
  }

  /** What was encoded elsewhere. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  value(value: SqlValue): void {
    if (value === null) this.#byte(Tag.Null);
    else if (typeof value === "bigint") this.#integer(value);
    else if (typeof value === "string") {
      this.#byte(Tag.Text);
      this.#string(value);
    } else if (typeof value === "number") {
      this.#reserve(9);
      this.#bytes[this.#length] = Tag.Real;
      this.#view.setFloat64(this.#length + 1, value, true);
      this.#length += 9;
    } else {
      this.#byte(Tag.Blob);
      this.#varint(value.length);
      this.#reserve(value.length);
      this.#bytes.set(value, this.#length);
      this.#length += value.length;
    }
  }

  #integer(value: bigint): void {
    if (value >= 0n && value <= SMALL_LIMIT) {
      this.#byte(Tag.SmallInteger + Number(value));
    } else if (value >= -4503599627370495n && value <= 4503599627370495n) {
      const n = Number(value);
      this.#byte(Tag.Integer);
      this.#varint(n < 0 ? -2 * n - 1 : 2 * n);
    } else {
      this.#reserve(9);
      this.#bytes[this.#length] = Tag.Integer64;
      this.#view.setBigInt64(this.#length + 1, value, true);
      this.#length += 9;
    }
  }

  #string(value: string): void {
    if (value.length <= SHORT_TEXT && this.#shortAscii(value)) return;
    const room = value.length * 3;
    // The length is written first, so encode behind the longest length it can have, then close the gap.
    this.#reserve(room + 9);
    const start = this.#length + 9;
    const { written } = encoder.encodeInto(value, this.#bytes.subarray(start, start + room));
    this.#varint(written);
    this.#bytes.copyWithin(this.#length, start, start + written);
    this.#length += written;
  }

  /** Most texts; the encoder costs more than they do. False, and nothing written, when the text is not ASCII. */
  #shortAscii(value: string): boolean {
    const { length } = value;
    this.#reserve(length + 1);
    const bytes = this.#bytes;
    const start = this.#length + 1;
    for (let i = 0; i < length; i++) {
      const unit = value.charCodeAt(i);
      if (unit > 127) return false;
      bytes[start + i] = unit;
    }
    bytes[start - 1] = length;
    this.#length = start + length;
    return true;
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = byte;
  }

  #varint(value: number): void {
    this.#reserve(9);
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  #reserve(more: number): void {
    const needed = this.#length + more;
    if (needed <= this.#bytes.length) return;
    this.#replace(Math.max(needed, this.#bytes.length * 2));
  }

  #replace(capacity: number): void {
    const bytes = new Uint8Array(capacity);
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}

/** Reads vectors one after the other until `done`. Throws RangeError on truncated or malformed bytes. */
export class ValueReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  vector(): SqlValue[] {
    const count = this.#varint();
    if (count > this.#bytes.length - this.#at) throw new RangeError("a vector longer than its bytes");
    const values: SqlValue[] = new Array(count);
    for (let i = 0; i < count; i++) values[i] = this.value();
    return values;
  }

  byte(): number {
    return this.#byte();
  }

  uint(): number {
    return this.#varint();
  }

  int(): number {
    const n = this.#varint();
    return n % 2 === 0 ? n / 2 : -(n + 1) / 2;
  }

  string(): string {
    return this.#string();
  }

  /** A view, not a copy. */
  bytes(): Uint8Array {
    const length = this.#varint();
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  value(): SqlValue {
    const tag = this.#byte();
    if (tag >= Tag.SmallInteger) return BigInt(tag - Tag.SmallInteger);
    switch (tag) {
      case Tag.Null:
        return null;
      case Tag.Integer: {
        const n = this.#varint();
        return BigInt(n % 2 === 0 ? n / 2 : -(n + 1) / 2);
      }
      case Tag.Integer64: {
        const at = this.#take(8);
        return this.#view.getBigInt64(at, true);
      }
      case Tag.Real: {
        const at = this.#take(8);
        return this.#view.getFloat64(at, true);
      }
      case Tag.Text:
        return this.#string();
      case Tag.Blob: {
        const length = this.#varint();
        const at = this.#take(length);
        // A Buffer's slice would share the memory.
        return new Uint8Array(this.#bytes.subarray(at, at + length));
      }
      default:
        throw new RangeError(`unknown value tag ${tag}`);
    }
  }

  #string(): string {
    const length = this.#varint();
    const at = this.#take(length);
    return decoder.decode(this.#bytes.subarray(at, at + length));
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw new RangeError("values end early");
    this.#at++;
    return byte;
  }

  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw new RangeError("values end early");
    this.#at = at + length;
    return at;
  }

  #varint(): number {
    let scale = 1;
    let value = 0;
    for (let i = 0; i < 8; i++) {
      const byte = this.#byte();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
    throw new RangeError("a varint of more than 53 bits");
  }
}

const vectorWriter = new ValueWriter(256);

export function encodeVector(values: readonly SqlValue[]): Uint8Array {
  vectorWriter.vector(values);
  return vectorWriter.take();
}

export function decodeVector(bytes: Uint8Array): SqlValue[] {
  return new ValueReader(bytes).vector();
}

/** All vectors in `bytes`, in order. */
export function decodeRows(bytes: Uint8Array): SqlValue[][] {
  const reader = new ValueReader(bytes);
  const rows: SqlValue[][] = [];
  while (!reader.done) rows.push(reader.vector());
  return rows;
}
