/**
 * The layout of a segment file: a header, then batches, then zeros. A batch is what one write carries: a header and
 * whole records, perhaps of many groups.
 *
 *   segment header (32 bytes): magic u32 | crc u32 of what follows | format u32 | segment sequence u32 | zeros
 *   batch header   (32 bytes): magic u32 | crc u32 of what follows | batch sequence u64 | body bytes u32 |
 *                              record count u32 | segment sequence u32 | zero u32
 *
 * Batch sequences rise by one over the whole log. That is what tells a torn tail (nothing of a later batch exists:
 * the write was never acknowledged) from damage (a later batch exists, so this one was once whole).
 */
import { crc32 } from "node:zlib";

export const HEADER_BYTES = 32;
const SEGMENT_MAGIC = 0x474c534f;
const BATCH_MAGIC = 0x5442534f;
const FORMAT = 1;

export interface BatchHeader {
  readonly sequence: number;
  readonly bodyBytes: number;
  readonly records: number;
}

function sealed(magic: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic, true);
  fill(view);
  view.setUint32(4, crc32(bytes.subarray(8)), true);
  return bytes;
}

function opened(bytes: Uint8Array, at: number, magic: number): DataView | undefined {
  if (at + HEADER_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEADER_BYTES);
  if (view.getUint32(0, true) !== magic) return undefined;
  if (crc32(bytes.subarray(at + 8, at + HEADER_BYTES)) !== view.getUint32(4, true)) return undefined;
  return view;
}

export function encodeSegmentHeader(segment: number): Uint8Array {
  return sealed(SEGMENT_MAGIC, (view) => {
    view.setUint32(8, FORMAT, true);
    view.setUint32(12, segment, true);
  });
}

/** The format and sequence a segment's header states; undefined if it is damaged. */
export function decodeSegmentHeader(bytes: Uint8Array): { format: number; segment: number } | undefined {
  const view = opened(bytes, 0, SEGMENT_MAGIC);
  return view && { format: view.getUint32(8, true), segment: view.getUint32(12, true) };
}

export const SUPPORTED_FORMAT = FORMAT;

export function encodeBatchHeader(segment: number, header: BatchHeader): Uint8Array {
  return sealed(BATCH_MAGIC, (view) => {
    view.setBigUint64(8, BigInt(header.sequence), true);
    view.setUint32(16, header.bodyBytes, true);
    view.setUint32(20, header.records, true);
    view.setUint32(24, segment, true);
  });
}

/** The batch header at `at`, if there is a valid one of this segment. */
export function decodeBatchHeader(bytes: Uint8Array, at: number, segment: number): BatchHeader | undefined {
  const view = opened(bytes, at, BATCH_MAGIC);
  if (view === undefined || view.getUint32(24, true) !== segment) return undefined;
  return {
    sequence: Number(view.getBigUint64(8, true)),
    bodyBytes: view.getUint32(16, true),
    records: view.getUint32(20, true),
  };
}

const magicBytes = ((): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, BATCH_MAGIC, true);
  return bytes;
})();

/** The first valid batch header at or after `from` with a sequence that `wanted` accepts, at any byte. */
export function findBatchHeader(
  bytes: Uint8Array,
  from: number,
  segment: number,
  wanted: (sequence: number) => boolean,
): { offset: number; header: BatchHeader } | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = buffer.indexOf(magicBytes, from); at !== -1; at = buffer.indexOf(magicBytes, at + 1)) {
    const header = decodeBatchHeader(bytes, at, segment);
    if (header !== undefined && wanted(header.sequence)) return { offset: at, header };
  }
  return undefined;
}

const ZEROS = new Uint8Array(65536);

/** The offset just after the last byte that is not zero, at least `from`. */
export function endOfContent(bytes: Uint8Array, from: number): number {
  let end = bytes.length;
  while (end - from >= ZEROS.length) {
    const block = bytes.subarray(end - ZEROS.length, end);
    if (Buffer.compare(block, ZEROS) !== 0) break;
    end -= ZEROS.length;
  }
  while (end > from && bytes[end - 1] === 0) end--;
  return end;
}
