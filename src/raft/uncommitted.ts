/**
 * Bytes a leader has appended and not yet committed (53). Counted by proposal, so a batch is freed when its last
 * entry commits. What was inherited from earlier leaders is not counted: it was let in once already.
 */
export class UncommittedBytes {
  readonly #limit: number;
  #queue: { readonly last: number; readonly bytes: number }[] = [];
  #head = 0;
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether `bytes` more may come in. With nothing uncommitted anything may, however large. */
  admits(bytes: number): boolean {
    return bytes === 0 || this.#bytes === 0 || this.#bytes + bytes <= this.#limit;
  }

  add(last: number, bytes: number): void {
    if (bytes === 0) return;
    this.#queue.push({ last, bytes });
    this.#bytes += bytes;
  }

  committedTo(index: number): void {
    while (this.#head < this.#queue.length && this.#queue[this.#head]!.last <= index) {
      this.#bytes -= this.#queue[this.#head]!.bytes;
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
