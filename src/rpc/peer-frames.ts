/**
 * The agreement engine's frames in bytes: positional, varints, entries' data as they are. Peers of another protocol
 * version were refused before anything is read.
 */
import { groupId, logIndex, type NodeId, nodeId, term } from "../base/ids.js";
import type { GroupMessage, PeerFrame } from "../multiraft/types.js";
import {
  type ConfState,
  type Entry,
  type EntryKind,
  type Message,
  MessageType,
  type SnapshotMeta,
} from "../raft/types.js";
import { ByteReader, ByteWriter } from "./bytes.js";

const FrameFlag = { Alive: 1, DiskFull: 2 } as const;
const Flag = { Reject: 1, Snapshot: 2 } as const;

const writer = new ByteWriter(64 * 1024);

export function encodePeerFrame(frame: PeerFrame): Uint8Array {
  writer.byte((frame.alive ? FrameFlag.Alive : 0) | (frame.diskFull ? FrameFlag.DiskFull : 0));
  writer.double(frame.incarnation);
  writer.double(frame.wallMs);
  writeColumn(frame.heartbeats);
  writeColumn(frame.quiesced);
  writer.varint(frame.messages.length);
  for (const message of frame.messages) writeMessage(message);
  return writer.take();
}

function writeColumn(numbers: readonly number[]): void {
  writer.varint(numbers.length);
  for (const number of numbers) writer.signed(number);
}

function writeMessage({ group, message }: GroupMessage): void {
  writer.varint(group);
  writer.byte(message.type);
  writer.byte((message.reject ? Flag.Reject : 0) | (message.snapshot === undefined ? 0 : Flag.Snapshot));
  writer.varint(message.from);
  writer.varint(message.to);
  writer.varint(message.term);
  writer.varint(message.index);
  writer.varint(message.logTerm);
  writer.varint(message.commit);
  writer.varint(message.rejectHint);
  writer.signed(message.context);
  writer.varint(message.entries.length);
  for (const entry of message.entries) {
    writer.varint(entry.term);
    writer.varint(entry.index);
    writer.byte(entry.kind);
    writer.bytes(entry.data);
  }
  if (message.snapshot !== undefined) writeSnapshotMeta(writer, message.snapshot);
}

export function writeSnapshotMeta(into: ByteWriter, meta: SnapshotMeta): void {
  into.varint(meta.index);
  into.varint(meta.term);
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = meta.conf;
  for (const nodes of [voters, votersOutgoing, learners, learnersNext]) {
    into.varint(nodes.length);
    for (const node of nodes) into.varint(node);
  }
  into.byte(autoLeave ? 1 : 0);
}

/** Throws RangeError on malformed bytes. Entries' data share memory with `bytes`. */
export function decodePeerFrame(bytes: Uint8Array): PeerFrame {
  const reader = new ByteReader(bytes);
  const flags = reader.byte();
  const alive = (flags & FrameFlag.Alive) !== 0;
  const diskFull = (flags & FrameFlag.DiskFull) !== 0;
  const incarnation = reader.double();
  const wallMs = reader.double();
  const heartbeats = readColumn(reader);
  const quiesced = readColumn(reader);
  const count = reader.count();
  const messages: GroupMessage[] = [];
  for (let i = 0; i < count; i++) messages.push(readMessage(reader));
  if (!reader.done) throw new RangeError("a frame goes on after its end");
  return { messages, heartbeats, quiesced, incarnation, wallMs, alive, diskFull };
}

function readColumn(reader: ByteReader): number[] {
  const count = reader.count();
  const numbers: number[] = new Array(count);
  for (let i = 0; i < count; i++) numbers[i] = reader.signed();
  return numbers;
}

function readMessage(reader: ByteReader): GroupMessage {
  const group = groupId(reader.varint());
  const type = reader.byte() as MessageType;
  if (type < MessageType.PreVote || type > MessageType.TimeoutNow)
    throw new RangeError(`message type ${type}`);
  const flags = reader.byte();
  const from = nodeId(reader.varint());
  const to = nodeId(reader.varint());
  const messageTerm = term(reader.varint());
  const index = logIndex(reader.varint());
  const logTerm = term(reader.varint());
  const commit = logIndex(reader.varint());
  const rejectHint = logIndex(reader.varint());
  const context = reader.signed();
  const entries = readEntries(reader);
  const snapshot = (flags & Flag.Snapshot) === 0 ? undefined : readSnapshotMeta(reader);
  const reject = (flags & Flag.Reject) !== 0;
  const message: Message = {
    type,
    from,
    to,
    term: messageTerm,
    index,
    logTerm,
    entries,
    commit,
    reject,
    rejectHint,
    context,
    snapshot,
  };
  return { group, message };
}

const NO_ENTRIES: readonly Entry[] = [];

function readEntries(reader: ByteReader): readonly Entry[] {
  const count = reader.count();
  if (count === 0) return NO_ENTRIES;
  const entries: Entry[] = new Array(count);
  for (let i = 0; i < count; i++) {
    const entryTerm = term(reader.varint());
    const index = logIndex(reader.varint());
    const kind = reader.byte();
    if (kind > 1) throw new RangeError(`entry kind ${kind}`);
    entries[i] = { term: entryTerm, index, kind: kind as EntryKind, data: reader.bytes() };
  }
  return entries;
}

export function readSnapshotMeta(reader: ByteReader): SnapshotMeta {
  const index = logIndex(reader.varint());
  const metaTerm = term(reader.varint());
  const nodes = (): NodeId[] => Array.from({ length: reader.count() }, () => nodeId(reader.varint()));
  const conf: ConfState = {
    voters: nodes(),
    votersOutgoing: nodes(),
    learners: nodes(),
    learnersNext: nodes(),
    autoLeave: reader.byte() === 1,
  };
  return { index, term: metaTerm, conf };
}
