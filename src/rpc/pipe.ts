/**
 * What the protocols see of a stream: frames in, frames out, and back-pressure both ways; and the writer that gathers
 * all messages of one turn of the event loop into as few frames as their size allows.
 *
 * Invariants of FrameWriter
 * 1. Messages leave in the order they were pushed.
 * 2. While the pipe is full nothing is packed, and `blocked` tells producers to wait for `writable()`.
 */
import { packMessages } from "./wire.js";

export interface FramePipe {
  /** False when the pipe is full; the frame was taken all the same. `onDrain` follows. */
  write(body: Uint8Array): boolean;
  /** Stops and resumes the coming of frames. */
  pause(): void;
  resume(): void;
  /** Ends the pipe both ways; a reason makes it an error at the other end. */
  end(failure?: PipeFailure): void;
}

export type PipeFailure = {
  readonly kind: "malformed" | "too-slow" | "shutting-down" | "refused";
  readonly reason: string;
};

export interface PipeHandler {
  onFrame(body: Uint8Array): void;
  onDrain(): void;
  /** Once, whatever the cause; nothing comes after it. */
  /** `refused`: the credentials were; trying again is no use. */
  onClose(reason: string, refused?: boolean): void;
}

/** Frames are cut at about this. */
export const FRAME_TARGET_BYTES = 96 * 1024;
const MESSAGE_OVERHEAD_BYTES = 48;

export class FrameWriter {
  readonly #pipe: FramePipe;
  #messages: unknown[] = [];
  #sizes: number[] = [];
  #bytes = 0;
  #scheduled = false;
  #blocked = false;
  #closed = false;
  #waiters: (() => void)[] = [];
  readonly #flush = (): void => this.flush();

  /** `onBlocked` is called whenever the pipe has become full. */
  constructor(
    pipe: FramePipe,
    private readonly onBlocked: () => void = () => undefined,
  ) {
    this.#pipe = pipe;
  }

  get blocked(): boolean {
    return this.#blocked;
  }

  /** Bytes waiting here, roughly; what the pipe has taken is not counted. */
  get bufferedBytes(): number {
    return this.#bytes;
  }

  /** `bytes`: how much of the message is payload; decides where frames are cut. */
  push(message: readonly unknown[], bytes: number): void {
    if (this.#closed) return;
    this.#messages.push(message);
    this.#sizes.push(bytes + MESSAGE_OVERHEAD_BYTES);
    this.#bytes += bytes + MESSAGE_OVERHEAD_BYTES;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#flush);
    }
  }

  /** Resolves at once unless the pipe is full; also when it has closed. */
  writable(): Promise<void> {
    if (!this.#blocked || this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  flush(): void {
    this.#scheduled = false;
    if (this.#closed || this.#blocked || this.#messages.length === 0) return;
    if (this.#bytes <= FRAME_TARGET_BYTES) {
      const messages = this.#messages;
      this.#reset();
      this.#write(messages);
      return;
    }
    this.#flushInParts();
  }

  #flushInParts(): void {
    const messages = this.#messages;
    const sizes = this.#sizes;
    this.#reset();
    let from = 0;
    while (from < messages.length && !this.#blocked && !this.#closed) {
      let to = from;
      let bytes = 0;
      do bytes += sizes[to++]!;
      while (to < messages.length && bytes + sizes[to]! <= FRAME_TARGET_BYTES);
      this.#write(messages.slice(from, to));
      from = to;
    }
    if (from === messages.length || this.#closed) return;
    // Writing cannot call back into `push`, so what is left goes before whatever comes next.
    this.#messages = messages.slice(from);
    this.#sizes = sizes.slice(from);
    for (const size of this.#sizes) this.#bytes += size;
  }

  #write(messages: readonly unknown[]): void {
    if (this.#pipe.write(packMessages(messages))) return;
    this.#blocked = true;
    this.onBlocked();
  }

  #reset(): void {
    this.#messages = [];
    this.#sizes = [];
    this.#bytes = 0;
  }

  drained(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.flush();
    if (!this.#blocked) this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#reset();
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}
