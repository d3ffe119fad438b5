/**
 * Rows as queries give them, in chunks that are pulled: of one query after the other, and of another node's.
 */
import type { SourceChunk } from "./source-wire.js";

export interface Chunks {
  next(): Promise<SourceChunk | undefined>;
  /** Stops the query. */
  close(): Promise<void>;
}

/** Each query (at least one) is started when the one before has given its last row. */
export class OneAfterTheOther implements Chunks {
  readonly #starts: readonly (() => Promise<Chunks>)[];
  #at = 0;
  #current: Chunks | undefined;
  #closed = false;

  private constructor(starts: readonly (() => Promise<Chunks>)[], first: Chunks) {
    this.#starts = starts;
    this.#current = first;
  }

  /** Starts the first one. */
  static async start(starts: readonly (() => Promise<Chunks>)[]): Promise<Chunks> {
    const first = await starts[0]!();
    return starts.length === 1 ? first : new OneAfterTheOther(starts, first);
  }

  async next(): Promise<SourceChunk | undefined> {
    while (this.#current !== undefined && !this.#closed) {
      const chunk = await this.#current.next();
      if (chunk !== undefined) return chunk;
      await this.#current.close();
      this.#current = await this.#starts[++this.#at]?.();
      // Nobody else will close what was started meanwhile.
      if (this.#closed) await this.close();
    }
    return undefined;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#current?.close();
    this.#current = undefined;
  }
}

export class PulledChunks implements Chunks {
  readonly #chunks: AsyncIterator<SourceChunk>;

  constructor(chunks: AsyncIterable<SourceChunk>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  async next(): Promise<SourceChunk | undefined> {
    const { done, value } = await this.#chunks.next();
    return done === true ? undefined : value;
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
