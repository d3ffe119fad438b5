/** Two ends of a pipe within one process: the client protocol without a socket, for the embedded library. */
import type { FramePipe, PipeFailure, PipeHandler } from "./pipe.js";

/** Frames given and not yet taken beyond which `write` says that the pipe is full. */
const WINDOW_FRAMES = 16;

class End implements FramePipe {
  readonly #other: () => End;
  #handler: PipeHandler | undefined;
  #inbox: Uint8Array[] = [];
  #paused = false;
  #delivering = false;
  #writerWaits = false;
  #closed = false;

  constructor(other: () => End) {
    this.#other = other;
  }

  attach(handler: PipeHandler): void {
    this.#handler = handler;
    this.#deliverSoon();
  }

  write(body: Uint8Array): boolean {
    if (this.#closed) return true;
    return this.#other().take(body);
  }

  take(body: Uint8Array): boolean {
    if (this.#closed) return true;
    this.#inbox.push(body);
    this.#deliverSoon();
    this.#writerWaits = this.#inbox.length >= WINDOW_FRAMES;
    return !this.#writerWaits;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#deliverSoon();
  }

  end(failure?: PipeFailure): void {
    this.close(failure?.reason ?? "ended");
    this.#other().close(failure?.reason ?? "the other side ended the stream");
  }

  close(reason: string): void {
    if (this.#closed) return;
    // What was said before the end is still heard.
    this.#paused = false;
    this.#deliver();
    this.#closed = true;
    this.#handler?.onClose(reason);
  }

  #deliverSoon(): void {
    if (this.#delivering || this.#paused || this.#handler === undefined || this.#inbox.length === 0) return;
    this.#delivering = true;
    setImmediate(() => {
      this.#delivering = false;
      if (!this.#closed) this.#deliver();
    });
  }

  #deliver(): void {
    while (!this.#paused && this.#handler !== undefined && this.#inbox.length > 0) {
      this.#handler.onFrame(this.#inbox.shift()!);
    }
    if (this.#writerWaits && this.#inbox.length < WINDOW_FRAMES) {
      this.#writerWaits = false;
      this.#other().drained();
    }
  }

  drained(): void {
    if (!this.#closed) this.#handler?.onDrain();
  }
}

export interface LocalPipe {
  /** `attach` gives an end its reader; frames wait until then. */
  readonly client: FramePipe & { attach(handler: PipeHandler): void };
  readonly server: FramePipe & { attach(handler: PipeHandler): void };
}

export function createLocalPipe(): LocalPipe {
  const client: End = new End(() => server);
  const server: End = new End(() => client);
  return { client, server };
}
