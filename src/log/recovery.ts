/**
 * Reads the log back at start: every segment, every batch, every record; and tells a torn tail from damage.
 *
 * Where the bytes at hand are not the next whole batch:
 * - only zeros follow, and no later segment has content: the log ends here;
 * - something follows, but nothing of a later batch: this is the last write, torn by a crash before it was
 *   acknowledged. It is cut whole, and zeroed so that none of it can be taken for content after the next write;
 * - a later batch follows, here or in a later segment: this one was once whole and acknowledged. That is damage, and
 *   fatal: going on would forget what was promised.
 *
 * A batch counts only whole. What of a torn one is intact was never acknowledged either.
 */
import { FatalError } from "../base/errors.js";
import type { GroupId } from "../base/ids.js";
import type { Disk, DiskFile } from "../base/io.js";
import {
  type BatchHeader,
  decodeBatchHeader,
  decodeSegmentHeader,
  endOfContent,
  findBatchHeader,
  HEADER_BYTES,
  SUPPORTED_FORMAT,
} from "./batch.js";
import { GroupState } from "./group-state.js";
import { type DecodedRecord, decodeRecord } from "./record.js";
import { listSegments, type Segment, segmentName, segmentPath } from "./segment.js";

export interface Recovered {
  readonly groups: Map<GroupId, GroupState>;
  /** In order; the last one is where the log goes on, at `headOffset`. Empty in a new directory. */
  readonly segments: Segment[];
  readonly headOffset: number;
  readonly nextBatch: number;
  /** A segment prepared by an earlier run and not used yet. */
  readonly ready: Segment | undefined;
}

export function corrupt(segment: number, offset: number, reason: string): FatalError {
  return new FatalError(
    "OSTRAKA_LOG_CORRUPT",
    `log segment ${segmentName(segment)} is damaged at offset ${offset}: ${reason}`,
  );
}

interface Scan {
  readonly groups: Map<GroupId, GroupState>;
  /** Undefined until the first batch is seen. */
  nextBatch: number | undefined;
}

/** Where a segment's batches end, and up to where torn bytes have to be zeroed. */
interface SegmentEnd {
  readonly offset: number;
  readonly tornThrough: number;
  readonly problem: string | undefined;
}

export async function recover(disk: Disk, directory: string): Promise<Recovered> {
  await disk.makeDirectory(directory);
  const sequences = await listSegments(disk, directory);
  checkNoGap(sequences);
  const opened: Segment[] = [];
  try {
    for (const sequence of sequences) {
      const file = await disk.open(segmentPath(directory, sequence), { create: false, dsync: true });
      opened.push({ sequence, file });
    }
    return await recoverSegments(disk, directory, opened);
  } catch (error) {
    for (const segment of opened) await segment.file.close().catch(() => undefined);
    throw error;
  }
}

function checkNoGap(sequences: readonly number[]): void {
  for (let i = 1; i < sequences.length; i++) {
    const previous = sequences[i - 1]!;
    if (sequences[i] === previous + 1) continue;
    throw new FatalError("OSTRAKA_LOG_CORRUPT", `log segment ${segmentName(previous + 1)} is missing`);
  }
}

async function recoverSegments(
  disk: Disk,
  directory: string,
  opened: readonly Segment[],
): Promise<Recovered> {
  const scan: Scan = { groups: new Map(), nextBatch: undefined };
  let head = opened[0];
  let headOffset = HEADER_BYTES;
  let tail: { segment: Segment; end: SegmentEnd } | undefined;
  for (const segment of opened) {
    const bytes = await segment.file.read(0, segment.file.size());
    checkSegmentHeader(segment.sequence, bytes);
    const used = endOfContent(bytes, HEADER_BYTES) > HEADER_BYTES;
    if (!used) continue;
    if (tail?.end.problem !== undefined) {
      throw corrupt(
        tail.segment.sequence,
        tail.end.offset,
        `${tail.end.problem}, but segment ${segmentName(segment.sequence)} was written after it`,
      );
    }
    const end = scanSegment(scan, segment.sequence, bytes);
    tail = { segment, end };
    if (end.offset > HEADER_BYTES) {
      head = segment;
      headOffset = end.offset;
    }
  }
  if (tail && tail.end.problem !== undefined) await zero(tail.segment.file, tail.end);
  for (const state of scan.groups.values()) state.finishRecovery();

  const last = head === undefined ? -1 : opened.indexOf(head);
  const unused = opened.slice(last + 1);
  await dropSurplus(disk, directory, unused.slice(1));
  return {
    groups: scan.groups,
    segments: opened.slice(0, last + 1),
    headOffset,
    nextBatch: scan.nextBatch ?? 1,
    ready: unused[0],
  };
}

function checkSegmentHeader(sequence: number, bytes: Uint8Array): void {
  const header = decodeSegmentHeader(bytes);
  if (header === undefined) throw corrupt(sequence, 0, "its header is not valid");
  if (header.format !== SUPPORTED_FORMAT) {
    throw new FatalError(
      "OSTRAKA_LOG_FORMAT",
      `log segment ${segmentName(sequence)} has format ${header.format}; this version reads ${SUPPORTED_FORMAT}`,
    );
  }
  if (header.segment !== sequence) {
    throw corrupt(sequence, 0, `its header says it is segment ${segmentName(header.segment)}`);
  }
}

function scanSegment(scan: Scan, segment: number, bytes: Uint8Array): SegmentEnd {
  const end = endOfContent(bytes, HEADER_BYTES);
  let at = HEADER_BYTES;
  for (;;) {
    // A batch may end in zeros (its data does), so the end of content may lie a little before its end.
    if (at >= end) return { offset: at, tornThrough: at, problem: undefined };
    const header = decodeBatchHeader(bytes, at, segment);
    if (header !== undefined) checkSequence(scan, segment, at, header);
    const records = header && decodeBatch(bytes, at, header);
    if (header === undefined || records === undefined) {
      const problem = header ? `batch ${header.sequence} is not whole` : "there is no valid batch";
      const expected = header?.sequence ?? scan.nextBatch;
      const later = findBatchHeader(
        bytes,
        at + 1,
        segment,
        (found) => expected === undefined || found > expected,
      );
      if (later === undefined) return { offset: at, tornThrough: end, problem };
      throw corrupt(
        segment,
        at,
        `${problem}, but batch ${later.header.sequence}, written after it, follows at offset ${later.offset}`,
      );
    }
    let offset = at + HEADER_BYTES;
    for (const record of records) {
      replay(scan.groups, record, segment, offset);
      offset += record.bytes;
    }
    scan.nextBatch = header.sequence + 1;
    at = offset;
  }
}

function checkSequence(scan: Scan, segment: number, at: number, header: BatchHeader): void {
  if (scan.nextBatch === undefined || header.sequence === scan.nextBatch) return;
  throw corrupt(segment, at, `batch ${header.sequence} stands where batch ${scan.nextBatch} is due`);
}

/** The records of a batch, or undefined if it is not whole and valid to the last byte. */
function decodeBatch(bytes: Uint8Array, at: number, header: BatchHeader): DecodedRecord[] | undefined {
  const end = at + HEADER_BYTES + header.bodyBytes;
  if (end > bytes.length) return undefined;
  const records: DecodedRecord[] = [];
  let offset = at + HEADER_BYTES;
  for (let i = 0; i < header.records; i++) {
    const record = decodeRecord(bytes.subarray(offset, end));
    if (record === undefined) return undefined;
    records.push(record);
    offset += record.bytes;
  }
  return offset === end ? records : undefined;
}

function replay(
  groups: Map<GroupId, GroupState>,
  record: DecodedRecord,
  segment: number,
  offset: number,
): void {
  if (record.remove) {
    groups.delete(record.group);
    return;
  }
  let state = groups.get(record.group);
  if (state === undefined) {
    state = new GroupState(record.group);
    groups.set(record.group, state);
  }
  state.recover(record, segment, offset);
}

/** Overwrites a torn write with zeros, so that the log ends where its last whole batch does. */
async function zero(file: DiskFile, end: SegmentEnd): Promise<void> {
  const piece = new Uint8Array(Math.min(1024 * 1024, end.tornThrough - end.offset));
  for (let at = end.offset; at < end.tornThrough; at += piece.length) {
    await file.write(at, [piece.subarray(0, end.tornThrough - at)]);
  }
}

/** Rotation prepares one segment at a time; more unused ones can only be left by a cut. The last goes first. */
async function dropSurplus(disk: Disk, directory: string, surplus: readonly Segment[]): Promise<void> {
  for (const segment of surplus.toReversed()) {
    await segment.file.close();
    await disk.remove(segmentPath(directory, segment.sequence));
    await disk.syncDirectory(directory);
  }
}
