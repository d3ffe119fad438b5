/**
 * Drains a query's rows from the process that produced them as fast as they come, so that the process is free again,
 * and hands them out at the client's pace. What does not fit in memory waits in a temporary file.
 */
import { FatalError, RetryError, UserError } from "../base/errors.js";
import type { Disk, DiskFile } from "../base/io.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";

const MEMORY_BYTES = 4 * 1024 * 1024;

type Chunk = { readonly rows: Uint8Array; readonly count: number };
type Spooled = Chunk | { readonly offset: number; readonly length: number; readonly count: number };

export interface SpoolSpace {
  readonly disk: Disk;
  /** A path for a temporary file nobody else uses. */
  temporaryPath(): string;
  readonly maxResultBytes: number;
}

export class SpooledRows implements RowStream {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  readonly #source: RowStream;
  readonly #space: SpoolSpace;
  #chunks: Spooled[] = [];
  #memoryBytes = 0;
  #fileBytes = 0;
  #file: DiskFile | undefined;
  #failure: unknown;
  #finished = false;
  #closed = false;
  #wake: (() => void) | undefined;
  readonly #drained: Promise<void>;

  /** Starts draining; `onDrained` runs once, when the source is no longer needed. */
  constructor(source: RowStream, space: SpoolSpace, onDrained: () => void) {
    this.#source = source;
    this.#space = space;
    this.columns = source.columns;
    this.columnTypes = source.columnTypes;
    this.#drained = this.#drain().finally(onDrained);
  }

  async #drain(): Promise<void> {
    try {
      for (;;) {
        const chunk = await this.#source.next();
        if (chunk === undefined || this.#closed) break;
        await this.#keep(chunk);
        this.#signal();
      }
    } catch (error) {
      // A temporary file is no part of the database.
      this.#failure =
        error instanceof FatalError
          ? new RetryError("OSTRAKA_UNAVAILABLE", `the rows of a query cannot be kept: ${error.message}`)
          : error;
    } finally {
      this.#finished = true;
      this.#signal();
      await this.#source.close().catch(() => {});
    }
  }

  async #keep(chunk: Chunk): Promise<void> {
    if (this.#memoryBytes + chunk.rows.length <= MEMORY_BYTES) {
      this.#memoryBytes += chunk.rows.length;
      this.#chunks.push(chunk);
      return;
    }
    const offset = this.#fileBytes;
    this.#fileBytes += chunk.rows.length;
    if (this.#fileBytes > this.#space.maxResultBytes)
      throw new UserError(
        "OSTRAKA_TOO_LARGE",
        `the result is larger than ${this.#space.maxResultBytes} bytes`,
      );
    this.#file ??= await this.#space.disk.open(this.#space.temporaryPath(), { create: true });
    await this.#file.write(offset, [chunk.rows]);
    this.#chunks.push({ offset, length: chunk.rows.length, count: chunk.count });
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  async next(): Promise<Chunk | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#finished) {
        await this.#drained;
        if (this.#failure !== undefined) throw this.#failure;
        await this.#removeFile();
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const chunk = this.#chunks.shift()!;
    if ("rows" in chunk) {
      this.#memoryBytes -= chunk.rows.length;
      return chunk;
    }
    return { rows: await this.#file!.read(chunk.offset, chunk.length), count: chunk.count };
  }

  summary(): Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid"> {
    return this.#source.summary();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#finished) await this.#source.close().catch(() => {});
    this.#signal();
    await this.#drained;
    this.#chunks = [];
    await this.#removeFile();
  }

  async #removeFile(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    await file.close();
    await this.#space.disk.remove(file.path);
  }
}
