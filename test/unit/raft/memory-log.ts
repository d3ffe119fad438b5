/**
 * A log in memory that behaves as src/log does: reads see appends at once, `sync` makes them durable in order, a
 * crash takes back what was not. Entries are looked at on their way in.
 */
import { type LogIndex, logIndex, NO_NODE, type Term, term } from "../../../src/base/ids.js";
import type { Append, Entry, HardState, LogReader, SnapshotMeta } from "../../../src/raft/index.js";

interface Image {
  hard: HardState;
  base: SnapshotMeta;
  entries: Entry[];
}

export class MemoryLog implements LogReader {
  #view: Image;
  #durable: Image;
  readonly #queue: Append[] = [];

  constructor(base: SnapshotMeta, entries: readonly Entry[] = [], hard?: HardState) {
    const nothing = { term: base.term, vote: NO_NODE, commit: base.index };
    this.#view = { hard: hard ?? nothing, base, entries: [...entries] };
    this.#durable = copy(this.#view);
  }

  append(append: Append): void {
    write(this.#view, append);
    this.#queue.push(append);
  }

  get unsynced(): number {
    return this.#queue.length;
  }

  /** Makes the oldest append durable. */
  sync(): Append {
    const append = this.#queue.shift();
    if (append === undefined) throw new Error("nothing to sync");
    write(this.#durable, append);
    return append;
  }

  /** Forgets what is not durable. */
  crash(): void {
    this.#queue.length = 0;
    this.#view = copy(this.#durable);
  }

  compact(base: SnapshotMeta): void {
    drop(this.#view, base);
    // Appends that are queued still refer to the durable image as it is; dropping its head changes nothing for them.
    if (this.durableLast >= base.index) drop(this.#durable, base);
  }

  get durableLast(): number {
    return this.#durable.base.index + this.#durable.entries.length;
  }

  get durableHard(): HardState {
    return this.#durable.hard;
  }

  /** Whether (index, term) is on disk, in the log or under its base. */
  durablyHolds(index: number, entryTerm: number): boolean {
    const { base, entries } = this.#durable;
    return index <= base.index || entries[index - base.index - 1]?.term === entryTerm;
  }

  initialHardState(): HardState {
    return this.#view.hard;
  }

  base(): SnapshotMeta {
    return this.#view.base;
  }

  lastIndex(): LogIndex {
    return logIndex(this.#view.base.index + this.#view.entries.length);
  }

  term(index: LogIndex): Term | undefined {
    const { base, entries } = this.#view;
    return index === base.index ? base.term : entries[index - base.index - 1]?.term;
  }

  entries(low: LogIndex, high: LogIndex, maxBytes: number): Entry[] {
    const { base, entries } = this.#view;
    if (low <= base.index) throw new Error(`entry ${low} is compacted`);
    const page: Entry[] = [];
    let bytes = 0;
    for (let i = low - base.index - 1; i < Math.min(entries.length, high - base.index - 1); i++) {
      bytes += entries[i]!.data.length;
      if (page.length > 0 && bytes > maxBytes) break;
      page.push(entries[i]!);
    }
    return page;
  }
}

function copy(image: Image): Image {
  return { ...image, entries: [...image.entries] };
}

function write(image: Image, append: Append): void {
  if (append.snapshot !== undefined) {
    image.base = append.snapshot;
    image.entries = [];
  }
  const first = append.entries[0]?.index;
  if (first !== undefined) {
    const at = first - image.base.index - 1;
    if (at < 0 || at > image.entries.length) throw new Error(`an append at ${first} leaves a gap`);
    image.entries.length = at;
    image.entries.push(...append.entries);
  }
  if (append.hardState !== undefined) {
    if (append.hardState.term < image.hard.term) throw new Error("the durable term went back");
    if (append.hardState.commit < image.hard.commit) throw new Error("the durable commit index went back");
    image.hard = append.hardState;
  }
}

function drop(image: Image, base: SnapshotMeta): void {
  if (base.index <= image.base.index) return;
  image.entries = image.entries.slice(base.index - image.base.index);
  image.base = base;
}

/** The log of a node that was never anything: term 0, no entries, no membership. */
export const BLANK: SnapshotMeta = {
  index: logIndex(0),
  term: term(0),
  conf: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};
