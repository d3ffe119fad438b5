/** The calling end of a gRPC stream as a pipe. */
import {
  type Client,
  type ClientDuplexStream,
  type Metadata,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import type { FramePipe, PipeHandler } from "./pipe.js";
import { deserializeFrame, serializeFrame } from "./wire.js";

export interface CallerHandler extends Omit<PipeHandler, "onClose"> {
  /** The other side took the stream and has said so; comes before its first frame. */
  onAccepted(): void;
  /** Once, whatever the cause; with gRPC's status where there is one. */
  onClose(reason: string, code?: status): void;
}

export class GrpcCallerPipe implements FramePipe {
  readonly #stream: ClientDuplexStream<Uint8Array, Buffer | undefined>;
  #handler: CallerHandler;
  #closed = false;

  constructor(client: Client, path: string, metadata: Metadata, handler: CallerHandler) {
    this.#handler = handler;
    this.#stream = client.makeBidiStreamRequest(
      path,
      serializeFrame as (body: Uint8Array) => Buffer,
      deserializeFrame,
      metadata,
    );
    this.#listen();
  }

  #listen(): void {
    const stream = this.#stream;
    stream.on("metadata", () => {
      if (!this.#closed) this.#handler.onAccepted();
    });
    stream.on("data", (body: Buffer | undefined) => {
      if (this.#closed) return;
      if (body !== undefined) this.#handler.onFrame(body);
      else {
        stream.cancel();
        this.#close("the other side sent what is not a Frame message", status.INTERNAL);
      }
    });
    stream.on("drain", () => {
      if (!this.#closed) this.#handler.onDrain();
    });
    // Both follow a failure; the status has the details.
    stream.on("error", (error: Error) => {
      const { code, details } = error as Error & Partial<StatusObject>;
      this.#close(details ?? error.message, code);
    });
    stream.on("status", (ended: StatusObject) =>
      this.#close(ended.details === "" ? "the other side ended the stream" : ended.details, ended.code),
    );
    stream.on("close", () => this.#close("closed", undefined));
  }

  #close(reason: string, code: status | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#handler.onClose(reason, code);
  }

  write(body: Uint8Array): boolean {
    if (this.#closed) return true;
    return this.#stream.write(body);
  }

  /** As `write`, and calls back once the bytes have left this process's queues. */
  writeThen(body: Uint8Array, done: () => void): void {
    if (this.#closed) return;
    this.#stream.write(body, done);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  end(): void {
    if (this.#closed) return;
    this.#stream.end();
    this.#stream.cancel();
    this.#close("ended here", status.CANCELLED);
  }
}
