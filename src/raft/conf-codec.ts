/**
 * The bytes of a membership change in an entry: version (1 byte), count (varint), then per change its kind (1 byte)
 * and node (varint). No count but zero means leaving the joint configuration. Entries are read back years later, so
 * the version comes first and unknown ones stop the node instead of being guessed at.
 */
import { FatalError } from "../base/errors.js";
import { type NodeId, nodeId } from "../base/ids.js";
import type { ConfChange } from "./types.js";

const VERSION = 1;
const KINDS = ["voter", "learner", "remove"] as const;

export function encodeConfChange(change: ConfChange): Uint8Array {
  const bytes: number[] = [VERSION];
  pushVarint(bytes, change.changes.length);
  for (const { kind, node } of change.changes) {
    bytes.push(KINDS.indexOf(kind));
    pushVarint(bytes, node);
  }
  return Uint8Array.from(bytes);
}

export function decodeConfChange(bytes: Uint8Array): ConfChange {
  const reader = { bytes, at: 0 };
  const version = readByte(reader);
  if (version !== VERSION) throw malformed(`unknown version ${version}`);
  const count = readVarint(reader);
  if (count > bytes.length) throw malformed("more changes than bytes");
  const changes: { kind: (typeof KINDS)[number]; node: NodeId }[] = [];
  for (let i = 0; i < count; i++) {
    const kind = KINDS[readByte(reader)];
    if (kind === undefined) throw malformed("unknown kind of change");
    changes.push({ kind, node: nodeId(readVarint(reader)) });
  }
  if (reader.at !== bytes.length) throw malformed("bytes left over");
  return { changes };
}

function pushVarint(bytes: number[], value: number): void {
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}

interface Reader {
  readonly bytes: Uint8Array;
  at: number;
}

function readByte(reader: Reader): number {
  const byte = reader.bytes[reader.at++];
  if (byte === undefined) throw malformed("it ends early");
  return byte;
}

function readVarint(reader: Reader): number {
  let scale = 1;
  let value = 0;
  for (let i = 0; i < 8; i++) {
    const byte = readByte(reader);
    value += (byte & 127) * scale;
    if (byte < 128) return value;
    scale *= 128;
  }
  throw malformed("a number of more than 53 bits");
}

function malformed(reason: string): FatalError {
  return new FatalError("OSTRAKA_CORRUPT", `a membership change in the log cannot be read: ${reason}`);
}
