/**
 * The contents of one simulated file twice over: as its users see it, and as it would be found after a power cut, with
 * the changes between the two, which a crash keeps in part.
 */
import type { SimRandom } from "./sim-random.js";

const SECTOR_BYTES = 512;

/** A growing array of bytes; what was never written reads as zero. */
class Contents {
  #bytes = new Uint8Array(0);
  length = 0;

  write(offset: number, bytes: Uint8Array): void {
    this.#reserve(offset + bytes.length);
    this.#bytes.set(bytes, offset);
    this.length = Math.max(this.length, offset + bytes.length);
  }

  truncate(length: number): void {
    if (length < this.length) this.#bytes.fill(0, length, this.length);
    else this.#reserve(length);
    this.length = length;
  }

  read(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, Math.max(offset, Math.min(this.length, offset + length)));
  }

  flip(offset: number, bit: number): void {
    if (offset < this.length) this.#bytes[offset] = this.#bytes[offset]! ^ (1 << bit);
  }

  copy(): Contents {
    const copy = new Contents();
    copy.write(0, this.read(0, this.length));
    return copy;
  }

  #reserve(length: number): void {
    if (length <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(length, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
  }
}

export type Change =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly length: number };

export class Inode {
  #seen = new Contents();
  #durable = new Contents();
  #unsynced: Change[] = [];

  get length(): number {
    return this.#seen.length;
  }

  read(offset: number, length: number): Uint8Array {
    return this.#seen.read(offset, length);
  }

  /** Visible at once, durable once synced. */
  change(change: Change): void {
    apply(this.#seen, change);
    this.#unsynced.push(change);
  }

  /** The changes that a sync beginning now has to make durable. */
  unsynced(): readonly Change[] {
    return [...this.#unsynced];
  }

  /** These changes are on the disk now, in the order they were made, over earlier ones to the same bytes. */
  synced(changes: readonly Change[]): void {
    const done = new Set(changes);
    for (const [i, change] of this.#unsynced.entries()) {
      const over = this.#unsynced.slice(i + 1).some((later) => done.has(later) && overlap(change, later));
      if (over) done.add(change);
      if (done.has(change)) apply(this.#durable, change);
    }
    this.#unsynced = this.#unsynced.filter((change) => !done.has(change));
  }

  /** A sync failed: the changes are still seen, but nothing will write them any more (and no later sync says so). */
  lost(changes: readonly Change[], random: SimRandom): void {
    const gone = new Set(changes);
    for (const change of this.#unsynced) {
      if (gone.has(change) && random.chance(0.3)) this.#persistPart(change, random);
    }
    this.#unsynced = this.#unsynced.filter((change) => !gone.has(change));
  }

  /** Power is cut: of what was not synced some part, in no order, is on the disk. */
  crash(keep: "none" | "all" | "some", random: SimRandom): void {
    const mode = keep === "some" ? random.pick(["none", "all", "prefix", "sectors"] as const) : keep;
    let left = mode === "prefix" ? random.below(this.#unsynced.length + 1) : this.#unsynced.length;
    for (const change of this.#unsynced) {
      if (mode === "none") break;
      if (mode === "sectors") this.#persistPart(change, random);
      else if (left > 0) apply(this.#durable, change);
      else {
        // The first change beyond the prefix is torn.
        if (left === 0 && mode === "prefix") this.#persistPart(change, random);
        break;
      }
      left--;
    }
    this.#unsynced = [];
    this.#seen = this.#durable.copy();
  }

  /** The medium decays: what is stored differs from what was written. */
  flip(offset: number, bit: number): void {
    this.#seen.flip(offset, bit);
    this.#durable.flip(offset, bit);
  }

  /** Writes some sectors of a change, now and then only the beginning of one. */
  #persistPart(change: Change, random: SimRandom): void {
    if (change.kind === "truncate") {
      if (random.chance(0.5)) apply(this.#durable, change);
      return;
    }
    const { offset, bytes } = change;
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
      if (random.chance(0.5)) {
        const cut = random.chance(0.1) ? at + random.below(end - at) : end;
        this.#durable.write(offset + at, bytes.subarray(at, cut));
      }
      at = end;
    }
  }
}

function overlap(a: Change, b: Change): boolean {
  if (a.kind === "truncate" || b.kind === "truncate") return true;
  return a.offset < b.offset + b.bytes.length && b.offset < a.offset + a.bytes.length;
}

function apply(contents: Contents, change: Change): void {
  if (change.kind === "write") contents.write(change.offset, change.bytes);
  else contents.truncate(change.length);
}
