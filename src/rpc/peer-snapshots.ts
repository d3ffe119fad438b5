/**
 * One snapshot, one stream: a header, chunks at the receiver's pace, a checksum; answered once installed or refused.
 * Frames: [1, header], [2, chunk…], [3, CRC-32 of all chunks]; the answer [1] or [2, WireError].
 *
 * The host has a SHA-256 of its own inside the bytes; the checksum here finds what the wire or this file did wrong.
 */
import { crc32 } from "node:zlib";
import { FatalError, fromWireError, RetryError, toWireError, type WireError } from "../base/errors.js";
import { groupId, type NodeId, term } from "../base/ids.js";
import type { MachineSnapshot, SnapshotHeader } from "../multiraft/types.js";
import { ByteReader, ByteWriter } from "./bytes.js";
import type { GrpcCallerPipe } from "./client-pipe.js";
import type { RpcLogger } from "./logger.js";
import type { PeerChannels } from "./peer-channels.js";
import { readSnapshotMeta, writeSnapshotMeta } from "./peer-frames.js";
import type { FramePipe, PipeHandler } from "./pipe.js";
import { PEER_SNAPSHOT, packMessages, unpackMessages } from "./wire.js";

const Kind = { Header: 1, Chunk: 2, End: 3 } as const;
const CHUNK_BYTES = 128 * 1024;
/** Chunks received and not yet taken, beyond which the stream is not read. */
const MAX_QUEUED = 8;

function lost(reason: string): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", `the snapshot was cut short: ${reason}`);
}

function encodeHeader(header: SnapshotHeader): Uint8Array {
  const writer = new ByteWriter(128);
  writer.byte(Kind.Header);
  writer.varint(header.group);
  writer.varint(header.term);
  writer.varint(header.bytes);
  writeSnapshotMeta(writer, header.meta);
  return writer.take();
}

function decodeHeader(reader: ByteReader): SnapshotHeader {
  const group = groupId(reader.varint());
  const headerTerm = term(reader.varint());
  const bytes = reader.varint();
  return { group, term: headerTerm, bytes, meta: readSnapshotMeta(reader) };
}

export async function sendSnapshot(
  channels: PeerChannels,
  to: NodeId,
  header: SnapshotHeader,
  source: MachineSnapshot,
): Promise<void> {
  let settle: (error: unknown) => void = () => undefined;
  const answered = new Promise<void>((resolve, reject) => {
    settle = (error) => (error === undefined ? resolve() : reject(error));
  });
  // It may fail while chunks are still being read; whoever awaits it below hears of it all the same.
  answered.catch(() => undefined);
  let ended = false;
  const pipe = channels.open(to, PEER_SNAPSHOT, {
    onAccepted: () => undefined,
    onFrame: (body) => {
      ended = true;
      const [kind, error] = unpackMessages(body) as [number, WireError];
      settle(kind === 1 ? undefined : fromWireError(error));
    },
    onDrain: () => undefined,
    onClose: (reason) => {
      ended = true;
      settle(lost(reason));
    },
  });
  if (pipe === undefined) throw lost(`the address of node ${to} is not known`);
  try {
    await write(pipe, encodeHeader(header), answered);
    let checksum = 0;
    for (let offset = 0; offset < header.bytes && !ended; ) {
      const chunk = await source.read(offset, Math.min(CHUNK_BYTES, header.bytes - offset));
      if (chunk.length === 0)
        throw new FatalError("OSTRAKA_INVARIANT", "a snapshot is shorter than its header says");
      checksum = crc32(chunk, checksum);
      offset += chunk.length;
      const body = new Uint8Array(chunk.length + 1);
      body[0] = Kind.Chunk;
      body.set(chunk, 1);
      await write(pipe, body, answered);
    }
    const writer = new ByteWriter(16);
    writer.byte(Kind.End);
    writer.varint(checksum);
    await write(pipe, writer.take(), answered);
    await answered;
  } finally {
    pipe.end();
  }
}

/** Resolves once the bytes have left, or the stream has ended. */
function write(pipe: GrpcCallerPipe, body: Uint8Array, answered: Promise<void>): Promise<void> {
  const written = new Promise<void>((resolve) => pipe.writeThen(body, resolve));
  return Promise.race([written, answered]);
}

/** What has come and was not yet taken, as an iterable that the host reads at its pace. */
class ChunkQueue implements AsyncIterable<Uint8Array> {
  #chunks: Uint8Array[] = [];
  #wake: (() => void) | undefined;
  #end: { readonly error: Error | undefined } | undefined;

  constructor(private readonly pipe: FramePipe) {}

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    if (this.#chunks.length === MAX_QUEUED) this.pipe.pause();
    this.#notify();
  }

  end(error: Error | undefined): void {
    this.#end ??= { error };
    this.#notify();
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        if (this.#chunks.length === MAX_QUEUED - 1) this.pipe.resume();
        yield chunk;
      } else if (this.#end !== undefined) {
        if (this.#end.error !== undefined) throw this.#end.error;
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

export function receiveSnapshot(
  pipe: FramePipe,
  logger: RpcLogger,
  from: NodeId,
  install: (header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>) => Promise<void>,
): PipeHandler {
  const queue = new ChunkQueue(pipe);
  let header: SnapshotHeader | undefined;
  let received = 0;
  let checksum = 0;
  let complete = false;
  const begin = (reader: ByteReader): void => {
    if (header !== undefined) throw new RangeError("a second header");
    header = decodeHeader(reader);
    install(header, queue).then(
      () => pipe.write(packMessages([1])),
      (error: unknown) => {
        logger.warn({ from, group: header?.group, error: String(error) }, "a snapshot was not installed");
        pipe.write(packMessages([2, toWireError(error)]));
      },
    );
  };
  const onFrame = (body: Uint8Array): void => {
    const reader = new ByteReader(body.subarray(1));
    if (body[0] === Kind.Header) {
      begin(reader);
      return;
    }
    if (header === undefined || complete) throw new RangeError("a chunk outside its snapshot");
    if (body[0] === Kind.Chunk) {
      const chunk = new Uint8Array(body.buffer, body.byteOffset + 1, body.length - 1);
      checksum = crc32(chunk, checksum);
      received += chunk.length;
      if (received > header.bytes) throw new RangeError("more bytes than the header says");
      queue.push(chunk);
    } else if (body[0] === Kind.End) {
      if (received !== header.bytes) throw new RangeError("fewer bytes than the header says");
      if (reader.varint() !== checksum) throw new RangeError("the checksum does not match");
      complete = true;
      queue.end(undefined);
    } else throw new RangeError(`frame kind ${String(body[0])}`);
  };
  return {
    onFrame: (body) => {
      try {
        onFrame(body);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        logger.warn({ from, reason: error.message }, "malformed snapshot from a peer");
        queue.end(lost(error.message));
        pipe.end({ kind: "malformed", reason: error.message });
      }
    },
    onDrain: () => undefined,
    onClose: (reason) => queue.end(lost(reason)),
  };
}
