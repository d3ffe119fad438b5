/** Everything that happens in a world, as lines: their hash tells whether two runs were the same, their end is for people. */
const KEPT_LINES = 2_000;

export class Trace {
  #high = 0xdeadbeef;
  #low = 0x41c6ce57;
  readonly #kept: string[] = [];
  readonly #all: string[] | undefined;
  lines = 0;
  /** Puts the time before each line. */
  now: () => number = () => 0;

  constructor(keepAll: boolean) {
    this.#all = keepAll ? [] : undefined;
  }

  add(line: string): void {
    const whole = `${this.now().toFixed(3)} ${line}`;
    this.lines++;
    this.#mix(whole);
    if (this.#all !== undefined) this.#all.push(whole);
    this.#kept.push(whole);
    if (this.#kept.length > 2 * KEPT_LINES) this.#kept.splice(0, KEPT_LINES);
  }

  /** Counted in the hash only. */
  bytes(label: number, bytes: Uint8Array): void {
    let high = this.#high ^ label;
    let low = this.#low ^ bytes.length;
    for (let i = 0; i < bytes.length; i++) {
      high = Math.imul(high ^ bytes[i]!, 2654435761);
      low = Math.imul(low ^ bytes[i]!, 1597334677);
    }
    this.#high = high;
    this.#low = low;
  }

  get hash(): string {
    return (this.#high >>> 0).toString(16).padStart(8, "0") + (this.#low >>> 0).toString(16).padStart(8, "0");
  }

  last(count: number): readonly string[] {
    return (this.#all ?? this.#kept).slice(-count);
  }

  #mix(text: string): void {
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      this.#high = Math.imul(this.#high ^ code, 2654435761);
      this.#low = Math.imul(this.#low ^ code, 1597334677);
    }
    this.#high = Math.imul(this.#high ^ (this.#high >>> 16), 2246822507) ^ (this.#low >>> 13);
    this.#low = Math.imul(this.#low ^ (this.#low >>> 16), 3266489909) ^ (this.#high >>> 13);
  }
}
