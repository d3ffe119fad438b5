/**
 * Messages of peer calls in frames, whatever their size. Each is measured, so that those of a turn do not make a frame
 * that gRPC refuses, which would end the stream and leave all its calls in doubt; what is large goes in pieces, one right
 * after the other: [3, bytes]…, [4, bytes] are the packed message.
 */
import { type FramePipe, FrameWriter } from "./pipe.js";
import { MalformedFrame, packMessages, unpackMessages } from "./wire.js";

type Message = readonly unknown[];

const Part = { Piece: 3, LastPiece: 4 } as const;
const PIECE_BYTES = 256 * 1024;

export class MessageWriter {
  readonly #frames: FrameWriter;

  constructor(pipe: FramePipe) {
    this.#frames = new FrameWriter(pipe);
  }

  push(message: Message): void {
    const bytes = payloadBytes(message);
    if (bytes <= PIECE_BYTES) {
      this.#frames.push(message, bytes);
      return;
    }
    const packed = packMessages(message);
    for (let at = 0; at < packed.length; at += PIECE_BYTES) {
      const piece = packed.subarray(at, at + PIECE_BYTES);
      const kind = at + PIECE_BYTES < packed.length ? Part.Piece : Part.LastPiece;
      this.#frames.push([kind, piece], piece.length);
    }
  }

  drained(): void {
    this.#frames.drained();
  }

  close(): void {
    this.#frames.close();
  }
}

/** The messages of a stream, in order. */
export class MessageReader {
  #pieces: Uint8Array[] = [];

  /** Throws MalformedFrame. */
  *read(frame: Uint8Array): Generator<Message> {
    for (const message of unpackMessages(frame)) {
      if (!Array.isArray(message)) throw new MalformedFrame("not a message");
      const [kind, piece] = message as Message;
      if (kind !== Part.Piece && kind !== Part.LastPiece) {
        yield message;
        continue;
      }
      if (!(piece instanceof Uint8Array)) throw new MalformedFrame("not a piece");
      this.#pieces.push(piece);
      if (kind === Part.Piece) continue;
      const whole = Buffer.concat(this.#pieces);
      this.#pieces = [];
      yield unpackMessages(whole);
    }
  }
}

/** Roughly: decides what goes into one frame. */
function payloadBytes(value: unknown): number {
  if (value instanceof Uint8Array || typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 8;
  let bytes = 8;
  for (const part of Array.isArray(value) ? value : Object.values(value)) bytes += payloadBytes(part);
  return bytes;
}
