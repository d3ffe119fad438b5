/**
 * The window of Appends sent to one peer and not yet acknowledged, bounded in messages and in bytes. A message is
 * known by the index of its last entry; an acknowledgement frees all messages up to its index.
 */
import { assert } from "../base/assert.js";

export class Inflights {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  #queue: { readonly last: number; readonly bytes: number }[] = [];
  #head = 0;
  #bytes = 0;

  constructor(maxMessages: number, maxBytes: number) {
    assert(maxMessages >= 1 && maxBytes >= 1, "an in-flight window must let something through");
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#queue.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The byte limit is checked before sending, so one message may exceed it. */
  get full(): boolean {
    return this.count >= this.#maxMessages || this.#bytes >= this.#maxBytes;
  }

  add(last: number, bytes: number): void {
    assert(!this.full, "a message was sent into a full window");
    this.#queue.push({ last, bytes });
    this.#bytes += bytes;
  }

  freeTo(index: number): void {
    while (this.#head < this.#queue.length) {
      const message = this.#queue[this.#head]!;
      if (message.last > index) break;
      this.#bytes -= message.bytes;
      this.#head++;
    }
    if (this.#head > 32 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  reset(): void {
    this.#queue = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}
