/**
 * The bytes of proto/ostraka.proto, made by hand: `Frame { bytes body = 1; }` and the two services. A test holds this
 * file and the .proto against each other. protobufjs is left out of the hot path: a frame is a tag, a length and its
 * body, and reading one is a slice.
 *
 * Bodies of the client protocol and of peer calls are msgpack arrays of messages, without records or shared
 * structures; integers beyond 32 bits travel as doubles, bigints as 64-bit integers, so that both come back as they
 * were.
 */
import type { ServiceDefinition, UntypedHandleCall } from "@grpc/grpc-js";
import { Packr, Unpackr } from "msgpackr";
import { MAX_FRAME_BYTES } from "./protocol.js";

const BODY_TAG = 0x0a;
const EMPTY = Buffer.alloc(0);

export class MalformedFrame extends Error {}

export function serializeFrame(body: Uint8Array): Buffer {
  const length = body.length;
  let header = 2;
  for (let rest = length; rest >= 128; rest >>>= 7) header++;
  const out = Buffer.allocUnsafe(header + length);
  out[0] = BODY_TAG;
  let at = 1;
  let rest = length;
  for (; rest >= 128; rest >>>= 7) out[at++] = (rest & 127) | 128;
  out[at++] = rest;
  out.set(body, at);
  return out;
}

/**
 * The last `body` of a serialized Frame; fields of later versions are skipped. Malformed bytes give undefined, not
 * an exception, which grpc-js would answer without our knowing.
 */
export function deserializeFrame(bytes: Buffer): Buffer | undefined {
  let body: Buffer = EMPTY;
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; at < bytes.length && scale < 2 ** 42; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return -1;
  };
  while (at < bytes.length) {
    const tag = varint();
    const wireType = tag & 7;
    if (tag < 8) return undefined;
    if (wireType === 2) {
      const length = varint();
      if (length < 0 || at + length > bytes.length) return undefined;
      if (tag === BODY_TAG) body = bytes.subarray(at, at + length);
      at += length;
    } else if (wireType === 0) {
      if (varint() < 0) return undefined;
    } else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else return undefined;
    if (at > bytes.length) return undefined;
  }
  return body;
}

function streaming(path: string) {
  return {
    path,
    requestStream: true,
    responseStream: true,
    requestSerialize: serializeFrame,
    requestDeserialize: deserializeFrame,
    responseSerialize: serializeFrame,
    responseDeserialize: deserializeFrame,
    originalName: path.slice(path.lastIndexOf("/") + 1),
  } as const;
}

export const CLIENT_CONNECT = "/ostraka.v1.Client/Connect";
export const PEER_RAFT = "/ostraka.v1.Peer/Raft";
export const PEER_SNAPSHOT = "/ostraka.v1.Peer/Snapshot";
export const PEER_CALL = "/ostraka.v1.Peer/Call";

export const clientService = { Connect: streaming(CLIENT_CONNECT) } satisfies ServiceDefinition<
  Record<string, UntypedHandleCall>
>;
export const peerService = {
  Raft: streaming(PEER_RAFT),
  Snapshot: streaming(PEER_SNAPSHOT),
  Call: streaming(PEER_CALL),
} satisfies ServiceDefinition<Record<string, UntypedHandleCall>>;

/** Channel and server settings both ends share. Pings find a peer that vanished without closing. */
export const CHANNEL_OPTIONS = {
  "grpc.max_receive_message_length": MAX_FRAME_BYTES + 64,
  "grpc.max_send_message_length": MAX_FRAME_BYTES + 64,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.enable_retries": 0,
  "grpc.service_config_disable_resolution": 1,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
  // The window of a stream: two frames of the usual size.
  "grpc-node.flow_control_window": 1024 * 1024,
} as const;

const packr = new Packr({ useRecords: false, moreTypes: false });
const unpackr = new Unpackr({ useRecords: false, moreTypes: false, int64AsType: "bigint" });

export function packMessages(messages: readonly unknown[]): Uint8Array {
  return packr.pack(messages);
}

/** Throws MalformedFrame when the bytes are not an array. */
export function unpackMessages(body: Uint8Array): unknown[] {
  let value: unknown;
  try {
    // A plain Uint8Array, so that bytes in it come out as such and not as Buffers, whose slice() shares memory.
    value = unpackr.unpack(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
  } catch (error) {
    throw new MalformedFrame(error instanceof Error ? error.message : String(error));
  }
  if (!Array.isArray(value)) throw new MalformedFrame("a frame must be an array of messages");
  return value;
}
