/**
 * Reads entries that are no longer in memory. Neighbours that lie together in a segment are read at once. Blocks the
 * thread, as the agreement core reads synchronously; what followers and applying need is nearly always hot.
 */
import { crc32 } from "node:zlib";
import { logIndex } from "../base/ids.js";
import type { DiskFile } from "../base/io.js";
import type { Entry, EntryKind } from "../raft/types.js";
import type { GroupState } from "./group-state.js";
import { corrupt } from "./recovery.js";

/** Bytes of other groups' records worth reading over rather than asking the disk again. */
const MAX_GAP_BYTES = 16 * 1024;
const MAX_READ_BYTES = 1024 * 1024;

/** Entries `first` to `last`, each verified by its checksum. */
export function readCold(
  state: GroupState,
  first: number,
  last: number,
  fileOf: (segment: number) => DiskFile,
): Entry[] {
  const entries: Entry[] = [];
  while (first + entries.length <= last) readRun(state, first + entries.length, last, fileOf, entries);
  return entries;
}

function readRun(
  state: GroupState,
  first: number,
  last: number,
  fileOf: (segment: number) => DiskFile,
  into: Entry[],
): void {
  const start = state.location(first);
  let end = start.offset + (start.size >>> 1);
  let count = 1;
  while (first + count <= last) {
    const next = state.location(first + count);
    const nextEnd = next.offset + (next.size >>> 1);
    if (next.segment !== start.segment || next.offset < end || next.offset > end + MAX_GAP_BYTES) break;
    if (nextEnd - start.offset > MAX_READ_BYTES) break;
    end = nextEnd;
    count++;
  }
  const bytes = fileOf(start.segment).readSync(start.offset, end - start.offset);
  for (let index = first; index < first + count; index++) {
    const { offset, size, checksum } = state.location(index);
    const from = offset - start.offset;
    const data = bytes.subarray(from, from + (size >>> 1));
    if (data.length !== size >>> 1 || crc32(data) !== checksum) {
      throw corrupt(start.segment, offset, `entry ${index} of group ${state.id} fails its checksum`);
    }
    into.push({
      term: state.term(logIndex(index))!,
      index: logIndex(index),
      kind: (size & 1) as EntryKind,
      data,
    });
  }
}
