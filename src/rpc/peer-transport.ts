/**
 * Carries the agreement engine's frames between nodes: one long-lived stream each way for each pair.
 *
 * Appends that are large go in pieces of 64 KiB, and between any two pieces everything else (heartbeats, votes,
 * answers) goes first; no more than a window of bytes is given to gRPC at once, so what overtakes
 * here does not wait there. Appends keep their order among themselves.
 *
 * Invariants
 * 1. `send` never blocks and keeps a bounded number of bytes; beyond it, and while a peer cannot be reached, frames
 *    are dropped, as the contract allows.
 * 2. A frame in pieces arrives whole or not at all.
 */

import type { NodeId } from "../base/ids.js";
import { nodeId } from "../base/ids.js";
import type { Clock, Random, Timer } from "../base/io.js";
import type {
  GroupMessage,
  MachineSnapshot,
  PeerFrame,
  PeerHandler,
  PeerTransport,
  SnapshotHeader,
} from "../multiraft/types.js";
import { MessageType } from "../raft/types.js";
import type { GrpcCallerPipe } from "./client-pipe.js";
import type { RpcLogger } from "./logger.js";
import type { PeerChannels } from "./peer-channels.js";
import { decodePeerFrame, encodePeerFrame } from "./peer-frames.js";
import { receiveSnapshot, sendSnapshot } from "./peer-snapshots.js";
import type { PipeHandler } from "./pipe.js";
import type { PeerStream } from "./server.js";
import { PEER_RAFT } from "./wire.js";

const Kind = { Whole: 1, Piece: 2, LastPiece: 3 } as const;

const PIECE_BYTES = 64 * 1024;
/** Given to gRPC and not yet on its way. */
const WINDOW_BYTES = 256 * 1024;
const MAX_BULK_BYTES = 64 * 1024 * 1024;
const MAX_URGENT_BYTES = 8 * 1024 * 1024;
const MAX_FRAME_BYTES = 128 * 1024 * 1024;
const ACCEPT_MS = 3_000;
const FIRST_BACKOFF_MS = 20;
const MAX_BACKOFF_MS = 1_000;

export interface PeerTransportOptions {
  readonly channels: PeerChannels;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: RpcLogger;
}

export class GrpcPeerTransport implements PeerTransport {
  readonly #options: PeerTransportOptions;
  readonly #peers = new Map<NodeId, PeerSender>();
  #handler: PeerHandler | undefined;
  #closed = false;

  constructor(options: PeerTransportOptions) {
    this.#options = options;
  }

  receive(handler: PeerHandler): void {
    this.#handler = handler;
  }

  send(to: NodeId, frame: PeerFrame): void {
    if (this.#closed) return;
    let peer = this.#peers.get(to);
    if (peer === undefined) {
      peer = new PeerSender(to, this.#options, () => this.#handler?.onUnreachable(to));
      this.#peers.set(to, peer);
    }
    peer.send(frame);
  }

  sendSnapshot(to: NodeId, header: SnapshotHeader, source: MachineSnapshot): Promise<void> {
    return sendSnapshot(this.#options.channels, to, header, source);
  }

  /** Serves a peer's Raft stream. */
  acceptRaft({ hello, pipe }: PeerStream): PipeHandler {
    const from = nodeId(hello.fromNode);
    let pieces: Uint8Array[] = [];
    let bytes = 0;
    const onFrame = (body: Uint8Array): void => {
      const kind = body[0];
      const rest = body.subarray(1);
      if (kind === Kind.Whole) {
        this.#deliver(from, rest);
        return;
      }
      if (kind !== Kind.Piece && kind !== Kind.LastPiece) throw new RangeError(`frame kind ${String(kind)}`);
      pieces.push(rest);
      bytes += rest.length;
      if (bytes > MAX_FRAME_BYTES) throw new RangeError("a frame of too many pieces");
      if (kind === Kind.Piece) return;
      const whole = join(pieces, bytes);
      pieces = [];
      bytes = 0;
      this.#deliver(from, whole);
    };
    return {
      onFrame: (body) => {
        try {
          onFrame(body);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
          this.#options.logger.warn({ from, reason: error.message }, "malformed frame from a peer");
          pipe.end({ kind: "malformed", reason: error.message });
        }
      },
      onDrain: () => undefined,
      onClose: (reason) => this.#options.logger.info({ from, reason }, "peer stream ended"),
    };
  }

  #deliver(from: NodeId, bytes: Uint8Array): void {
    const frame = decodePeerFrame(bytes);
    for (const { message } of frame.messages)
      if (message.from !== from) throw new RangeError(`node ${from} speaks for node ${message.from}`);
    if (!this.#closed) this.#handler?.onFrame(from, frame);
  }

  /** Serves a peer's Snapshot stream. */
  acceptSnapshot({ hello, pipe }: PeerStream): PipeHandler {
    const from = nodeId(hello.fromNode);
    return receiveSnapshot(pipe, this.#options.logger, from, (header, chunks) => {
      if (this.#handler === undefined || this.#closed)
        return Promise.reject(new Error("this node takes no snapshots now"));
      return this.#handler.onSnapshot(from, header, chunks);
    });
  }

  close(): void {
    this.#closed = true;
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }
}

function join(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** One direction of one pair. */
class PeerSender {
  readonly #to: NodeId;
  readonly #options: PeerTransportOptions;
  readonly #unreachable: () => void;
  #pipe: GrpcCallerPipe | undefined;
  #acceptTimer: Timer | undefined;
  #urgent: Uint8Array[] = [];
  #urgentBytes = 0;
  #bulk: Uint8Array[] = [];
  #bulkBytes = 0;
  /** How much of the first of `bulk` has left. */
  #bulkAt = 0;
  #inFlight = 0;
  #failures = 0;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(to: NodeId, options: PeerTransportOptions, unreachable: () => void) {
    this.#to = to;
    this.#options = options;
    this.#unreachable = unreachable;
  }

  send(frame: PeerFrame): void {
    if (!this.#connected()) return;
    // Appends without entries keep their place too: one that overtook the entries it follows would be rejected, and
    // the entries sent again.
    const appends = frame.messages.filter(({ message }) => message.type === MessageType.Append);
    const large = appends.length > 0 && (this.#bulk.length > 0 || entryBytes(appends) > PIECE_BYTES);
    if (!large) this.#addUrgent(encodePeerFrame(frame));
    else {
      const rest = frame.messages.filter(({ message }) => message.type !== MessageType.Append);
      this.#addUrgent(encodePeerFrame({ ...frame, messages: rest }));
      // Dropped before it is encoded when it would be dropped after.
      if (this.#bulkBytes < MAX_BULK_BYTES)
        this.#addBulk(encodePeerFrame({ ...frame, messages: appends, heartbeats: [], quiesced: [] }));
    }
    this.#pump();
  }

  #addUrgent(bytes: Uint8Array): void {
    if (this.#urgentBytes + bytes.length > MAX_URGENT_BYTES) return;
    this.#urgent.push(bytes);
    this.#urgentBytes += bytes.length;
  }

  #addBulk(bytes: Uint8Array): void {
    // The first may always go, however large.
    if (this.#bulk.length > 0 && this.#bulkBytes + bytes.length > MAX_BULK_BYTES) return;
    this.#bulk.push(bytes);
    this.#bulkBytes += bytes.length;
  }

  #pump(): void {
    while (this.#pipe !== undefined && this.#inFlight < WINDOW_BYTES) {
      const urgent = this.#urgent.shift();
      if (urgent !== undefined) {
        this.#urgentBytes -= urgent.length;
        this.#write(Kind.Whole, urgent);
        continue;
      }
      const bulk = this.#bulk[0];
      if (bulk === undefined) return;
      const end = Math.min(bulk.length, this.#bulkAt + PIECE_BYTES);
      const piece = bulk.subarray(this.#bulkAt, end);
      if (end === bulk.length) {
        this.#bulk.shift();
        this.#bulkBytes -= bulk.length;
        this.#bulkAt = 0;
      } else this.#bulkAt = end;
      this.#write(end === bulk.length ? Kind.LastPiece : Kind.Piece, piece);
    }
  }

  #write(kind: number, bytes: Uint8Array): void {
    const pipe = this.#pipe!;
    const body = new Uint8Array(bytes.length + 1);
    body[0] = kind;
    body.set(bytes, 1);
    this.#inFlight += body.length;
    pipe.writeThen(body, () => {
      if (this.#pipe !== pipe) return;
      this.#inFlight -= body.length;
      this.#pump();
    });
  }

  /** Opens the stream unless it is open, or failed a moment ago. */
  #connected(): boolean {
    if (this.#pipe !== undefined) return true;
    const { channels, clock } = this.#options;
    if (this.#closed || clock.monotonicMs() < this.#notBeforeMs) return false;
    const pipe = channels.open(this.#to, PEER_RAFT, {
      onAccepted: () => {
        this.#failures = 0;
        this.#acceptTimer?.cancel();
      },
      onFrame: () => undefined,
      onDrain: () => undefined,
      onClose: (reason) => this.#failed(reason),
    });
    if (pipe === undefined) {
      this.#failed("its address is not known");
      return false;
    }
    this.#pipe = pipe;
    this.#acceptTimer = clock.setTimer(ACCEPT_MS, () => pipe.end());
    return true;
  }

  #failed(reason: string): void {
    this.#reset();
    if (this.#closed) return;
    const { clock, random, logger } = this.#options;
    if (this.#failures === 0) logger.warn({ peer: this.#to, reason }, "a peer cannot be reached");
    const delay = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(this.#failures++, 10));
    this.#notBeforeMs = clock.monotonicMs() + delay * (0.5 + random.float());
    this.#unreachable();
  }

  #reset(): void {
    this.#pipe = undefined;
    this.#acceptTimer?.cancel();
    this.#acceptTimer = undefined;
    this.#urgent = [];
    this.#urgentBytes = 0;
    this.#bulk = [];
    this.#bulkBytes = 0;
    this.#bulkAt = 0;
    this.#inFlight = 0;
  }

  close(): void {
    this.#closed = true;
    this.#pipe?.end();
    this.#reset();
  }
}

function entryBytes(messages: readonly GroupMessage[]): number {
  let bytes = 0;
  for (const { message } of messages) for (const entry of message.entries) bytes += entry.data.length + 16;
  return bytes;
}
