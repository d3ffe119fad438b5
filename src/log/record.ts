/**
 * The layout of one record: what one append says of one group. All integers little-endian.
 *
 *   crc u32 over the rest of the meta part | metaBytes u32 | dataBytes u32 | flags u8 |
 *   group | hard state: term vote commit | base: index term voters outgoing learners learnersNext autoLeave |
 *   entries: count, first index, then each: term - previous term, 2 * data length + kind, crc u32 of its data
 *   ... then the data of all entries, one after the other.
 *
 * Numbers without a size are varints (seven bits a byte, low first). Parts are present as the flags say.
 *
 * Invariants:
 * 1. Hard state and entries of one append of one group are in one record, so they are valid together or not at all.
 * 2. Each entry's data has its own checksum, so that one entry read back later is verified without its neighbours.
 * 3. Entry data is copied exactly once, into the buffer that goes to the disk (and serves reads until evicted).
 */
import { crc32 } from "node:zlib";
import { assert } from "../base/assert.js";
import { type GroupId, groupId, logIndex, type NodeId, nodeId, term } from "../base/ids.js";
import type { ConfState, Entry, HardState, SnapshotMeta } from "../raft/types.js";

export const RecordFlag = {
  HardState: 1,
  /** A base is given; without `Replace` it only says that entries up to it are no longer needed. */
  Base: 2,
  /** The group's log is what this record says and nothing else. */
  Replace: 4,
  Entries: 8,
  /** The group is forgotten. */
  Remove: 16,
} as const;

const ALL_FLAGS = 31;
const FIXED_BYTES = 13;

export interface RecordContent {
  readonly group: GroupId;
  readonly hardState: HardState | undefined;
  readonly base: SnapshotMeta | undefined;
  readonly replace: boolean;
  readonly entries: readonly Entry[];
  readonly remove: boolean;
}

/** A record read back; the entries' data stays where it is. */
export interface DecodedRecord {
  readonly group: GroupId;
  readonly hardState: HardState | undefined;
  readonly base: SnapshotMeta | undefined;
  readonly replace: boolean;
  readonly remove: boolean;
  readonly firstIndex: number;
  readonly terms: readonly number[];
  /** 2 * length + kind, as in the layout. */
  readonly sizes: readonly number[];
  readonly checksums: readonly number[];
  /** Where the data begins, from the start of the record. */
  readonly dataOffset: number;
  readonly bytes: number;
}

/** Writes meta parts into one buffer that is used again and again. */
class MetaWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  reset(length: number): void {
    this.#length = length;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  get view(): DataView {
    return this.#view;
  }

  varint(value: number): void {
    this.#reserve(8);
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  uint32(value: number): void {
    this.#reserve(4);
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = new Uint8Array(this.#bytes.length * 2);
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

const meta = new MetaWriter();

function writeNodes(nodes: readonly NodeId[]): void {
  meta.varint(nodes.length);
  for (const node of nodes) meta.varint(node);
}

function writeBase(base: SnapshotMeta): void {
  meta.varint(base.index);
  meta.varint(base.term);
  writeNodes(base.conf.voters);
  writeNodes(base.conf.votersOutgoing);
  writeNodes(base.conf.learners);
  writeNodes(base.conf.learnersNext);
  meta.varint(base.conf.autoLeave ? 1 : 0);
}

function flagsOf(record: RecordContent): number {
  let flags = 0;
  if (record.hardState) flags |= RecordFlag.HardState;
  if (record.base) flags |= RecordFlag.Base;
  if (record.replace) flags |= RecordFlag.Replace;
  if (record.entries.length > 0) flags |= RecordFlag.Entries;
  if (record.remove) flags |= RecordFlag.Remove;
  return flags;
}

function dataBytesOf(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.length;
  return bytes;
}

export interface EncodedRecord {
  readonly bytes: Uint8Array;
  readonly dataOffset: number;
  /** The record's entries, their data now lying in `bytes`. */
  readonly entries: readonly Entry[];
  readonly checksums: readonly number[];
}

/** Encodes a record into memory that `allocate` hands out. */
export function encodeRecord(record: RecordContent, allocate: (bytes: number) => Uint8Array): EncodedRecord {
  const dataBytes = dataBytesOf(record.entries);
  const checksums: number[] = new Array(record.entries.length);
  meta.reset(FIXED_BYTES);
  meta.varint(record.group);
  if (record.hardState) {
    meta.varint(record.hardState.term);
    meta.varint(record.hardState.vote);
    meta.varint(record.hardState.commit);
  }
  if (record.base) writeBase(record.base);
  if (record.entries.length > 0) writeEntries(record.entries, checksums);
  const dataOffset = meta.bytes.length;
  assert(dataBytes + dataOffset < 2 ** 31, "a log record of more than two gigabytes");
  meta.view.setUint32(4, dataOffset, true);
  meta.view.setUint32(8, dataBytes, true);
  meta.view.setUint8(12, flagsOf(record));
  meta.view.setUint32(0, crc32(meta.bytes.subarray(4)), true);

  const bytes = allocate(dataOffset + dataBytes);
  bytes.set(meta.bytes, 0);
  const entries: Entry[] = new Array(record.entries.length);
  let at = dataOffset;
  for (let i = 0; i < entries.length; i++) {
    const entry = record.entries[i]!;
    bytes.set(entry.data, at);
    const data = bytes.subarray(at, at + entry.data.length);
    entries[i] = { term: entry.term, index: entry.index, kind: entry.kind, data };
    at += entry.data.length;
  }
  return { bytes, dataOffset, entries, checksums };
}

function writeEntries(entries: readonly Entry[], checksums: number[]): void {
  meta.varint(entries.length);
  meta.varint(entries[0]!.index);
  let previous = 0;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    assert(entry.term >= previous, "terms in a log never decrease");
    const checksum = crc32(entry.data);
    checksums[i] = checksum;
    meta.varint(entry.term - previous);
    meta.varint(entry.data.length * 2 + entry.kind);
    meta.uint32(checksum);
    previous = entry.term;
  }
}

class MetaReader {
  readonly #view: DataView;
  #at: number;

  constructor(
    readonly bytes: Uint8Array,
    at: number,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = at;
  }

  get done(): boolean {
    return this.#at === this.bytes.length;
  }

  varint(): number {
    let scale = 1;
    let value = 0;
    for (let i = 0; i < 8; i++) {
      const byte = this.bytes[this.#at++];
      if (byte === undefined) throw new RangeError("a record's meta part ends early");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
    throw new RangeError("a varint of more than 53 bits");
  }

  uint32(): number {
    const value = this.#view.getUint32(this.#at, true);
    this.#at += 4;
    return value;
  }

  nodes(): NodeId[] {
    const nodes: NodeId[] = [];
    for (let count = this.varint(); count > 0; count--) nodes.push(nodeId(this.varint()));
    return nodes;
  }

  base(): SnapshotMeta {
    const index = logIndex(this.varint());
    const baseTerm = term(this.varint());
    const conf: ConfState = {
      voters: this.nodes(),
      votersOutgoing: this.nodes(),
      learners: this.nodes(),
      learnersNext: this.nodes(),
      autoLeave: this.varint() === 1,
    };
    return { index, term: baseTerm, conf };
  }
}

/**
 * Reads and verifies the record at the start of `bytes`, which may hold more; undefined if it is not a whole, valid
 * record. With the checksums right, malformed contents are a defect of ours and throw.
 */
export function decodeRecord(bytes: Uint8Array): DecodedRecord | undefined {
  if (bytes.length < FIXED_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const metaBytes = view.getUint32(4, true);
  const dataBytes = view.getUint32(8, true);
  if (metaBytes < FIXED_BYTES || metaBytes + dataBytes > bytes.length) return undefined;
  if (crc32(bytes.subarray(4, metaBytes)) !== view.getUint32(0, true)) return undefined;

  const flags = view.getUint8(12);
  assert((flags & ~ALL_FLAGS) === 0, `a log record with unknown flags ${flags}`);
  const reader = new MetaReader(bytes.subarray(0, metaBytes), FIXED_BYTES);
  const group = groupId(reader.varint());
  const hardState =
    flags & RecordFlag.HardState
      ? { term: term(reader.varint()), vote: nodeId(reader.varint()), commit: logIndex(reader.varint()) }
      : undefined;
  const base = flags & RecordFlag.Base ? reader.base() : undefined;
  const decoded = {
    group,
    hardState,
    base,
    replace: (flags & RecordFlag.Replace) !== 0,
    remove: (flags & RecordFlag.Remove) !== 0,
    firstIndex: 0,
    terms: [] as number[],
    sizes: [] as number[],
    checksums: [] as number[],
    dataOffset: metaBytes,
    bytes: metaBytes + dataBytes,
  };
  if (flags & RecordFlag.Entries && !readEntries(reader, bytes, decoded)) return undefined;
  assert(reader.done, "a log record's meta part is longer than its contents");
  return decoded;
}

function readEntries(
  reader: MetaReader,
  bytes: Uint8Array,
  into: {
    firstIndex: number;
    terms: number[];
    sizes: number[];
    checksums: number[];
    dataOffset: number;
    bytes: number;
  },
): boolean {
  const count = reader.varint();
  into.firstIndex = reader.varint();
  let entryTerm = 0;
  let at = into.dataOffset;
  for (let i = 0; i < count; i++) {
    entryTerm += reader.varint();
    const size = reader.varint();
    const checksum = reader.uint32();
    const length = Math.floor(size / 2);
    if (at + length > into.bytes || crc32(bytes.subarray(at, at + length)) !== checksum) return false;
    at += length;
    into.terms.push(entryTerm);
    into.sizes.push(size);
    into.checksums.push(checksum);
  }
  return at === into.bytes;
}
