/**
 * The memory entries are copied into on their way to the disk, and the bounded cache that this makes of it: the
 * newest entries of all groups stay readable until they are both durable and pushed out by newer ones.
 *
 * Invariant: what is not durable is never evicted, so the cache may exceed its bound by what is queued for the disk.
 */
import { Fifo } from "./fifo.js";
import type { PendingRecord } from "./group-state.js";

const ARENA_BYTES = 256 * 1024;

export class EntryCache {
  readonly #maxBytes: number;
  readonly #records = new Fifo<PendingRecord>();
  #bytes = 0;
  #arena = new Uint8Array(0);
  #used = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Memory for one record. Neighbours share an arena, so that a batch of small records goes out as few buffers; an
   * arena lives as long as any record in it, and records leave in the order they came, so little is kept in vain.
   */
  readonly allocate = (bytes: number): Uint8Array => {
    if (bytes > ARENA_BYTES / 4) return new Uint8Array(bytes);
    if (this.#used + bytes > this.#arena.length) {
      this.#arena = new Uint8Array(ARENA_BYTES);
      this.#used = 0;
    }
    const slice = this.#arena.subarray(this.#used, this.#used + bytes);
    this.#used += bytes;
    return slice;
  };

  add(record: PendingRecord): void {
    this.#records.push(record);
    this.#bytes += record.dataBytes;
  }

  /** Called when writes became durable. */
  trim(): void {
    while (this.#bytes > this.#maxBytes) {
      const oldest = this.#records.peek();
      if (oldest === undefined || !oldest.durable) return;
      this.#records.shift();
      this.#bytes -= oldest.dataBytes;
      oldest.state.evict(oldest);
    }
  }
}
