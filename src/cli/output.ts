/**
 * Where text goes: standard output, a file, a command, or a pager. Text is gathered into large writes, and `write`
 * answers a promise when the receiver is behind, so that a result of any size takes bounded memory.
 *
 * A reader that goes away (`ostraka sql … | head`) ends the output, not the program: `closed` turns true, what is
 * written afterwards is dropped, and no error is shown, as with other Unix tools.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import type { Writable } from "node:stream";

/** Thrown by `writeWhileRead` when nobody reads any more. */
export class ReaderGone extends Error {}

const GATHER_CHARACTERS = 32 * 1024;

export class Output {
  readonly #stream: Writable;
  readonly #ownsStream: boolean;
  readonly #child: ChildProcess | undefined;
  #gathered: string[] = [];
  #characters = 0;
  #error: Error | undefined;
  #readerGone = false;

  private constructor(stream: Writable, ownsStream: boolean, child?: ChildProcess) {
    this.#stream = stream;
    this.#ownsStream = ownsStream;
    this.#child = child;
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE" || error.code === "ERR_STREAM_DESTROYED") this.#readerGone = true;
      else this.#error ??= error;
    });
  }

  static toStream(stream: Writable): Output {
    return new Output(stream, false);
  }

  /** Opens the file first, so that a wrong name is an error here. */
  static async toFile(path: string, options?: { readonly mode: number }): Promise<Output> {
    const stream = createWriteStream(path, options);
    await once(stream, "open");
    return new Output(stream, true);
  }

  /** Pipes into a command, run by the shell. */
  static toCommand(command: string): Output {
    const child = spawn(command, { shell: true, stdio: ["pipe", "inherit", "inherit"] });
    return new Output(child.stdin!, true, child);
  }

  /** Nobody reads any more. */
  get closed(): boolean {
    return this.#readerGone;
  }

  write(text: string): void | Promise<void> {
    if (text === "") return;
    this.#gathered.push(text);
    this.#characters += text.length;
    if (this.#characters >= GATHER_CHARACTERS) return this.flush();
  }

  /** As `write`, for what would take long to write in vain. */
  writeWhileRead(text: string): void | Promise<void> {
    if (this.#readerGone) throw new ReaderGone("nobody reads any more");
    return this.write(text);
  }

  /** Hands over what is gathered; waits while the receiver is behind. Rejects when it failed. */
  async flush(): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    if (this.#gathered.length === 0) return;
    const text = this.#gathered.join("");
    this.#gathered = [];
    this.#characters = 0;
    if (this.#readerGone) return;
    if (!this.#stream.write(text)) await this.#drained();
    if (this.#error !== undefined) throw this.#error;
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#stream.off("drain", done).off("error", done).off("close", done);
        resolve();
      };
      this.#stream.on("drain", done).on("error", done).on("close", done);
    });
  }

  /** Flushes, and ends what this output opened. */
  async close(): Promise<void> {
    await this.flush();
    if (!this.#ownsStream) return;
    const ended = this.#child === undefined ? once(this.#stream, "close") : once(this.#child, "close");
    this.#stream.end();
    await ended.catch(() => undefined);
    if (this.#error !== undefined) throw this.#error;
  }
}
