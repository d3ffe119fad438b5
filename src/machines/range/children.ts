/**
 * Makes the files of ranges that splits make: copies of the parent's file as of the split's entry, while the parent
 * goes on.
 *
 * A note (`range.db.split-<child>`) is durable before the split is committed. It is completed, before anything else is
 * committed, with how much of the write-ahead log belongs to the state to be copied; no checkpoint runs until the
 * child is durable, so the database file and that much of the log stay what they are, whatever is written meanwhile,
 * and a process that begins anew makes the child from them before it opens the parent.
 *
 * Invariants:
 * 1. From the split's commit on, either the child's file is complete, or the note and what it speaks of are there.
 * 2. A child's file appears whole under its final name, and is never replaced: whatever is there already stays.
 * 3. Whoever hosts ranges is told of a child until it can be taken to know: the note stays until the second checkpoint
 *    after the child was told of, and is told of again by whoever opens the parent meanwhile.
 * 4. Before anybody is told that a child is complete its note says so: a child that leaves is not made again, from a
 *    state that is another by then.
 *
 * A machine that loses power may lose the split with the end of the log; then the note speaks of a state that has yet to
 * come, and is forgotten: the split will be applied again. It never will where the file has gone on past it; the child's
 * state is lost then, and the range is not opened (invariant 1).
 */
import { copyFileSync, existsSync, mkdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { FatalError } from "../../base/errors.js";
import type { GroupId, LogIndex } from "../../base/ids.js";
import type { Timer } from "../../base/io.js";
import { siblingPath } from "./absorb.js";
import {
  diskTrouble,
  type FileWork,
  isFull,
  placeFile,
  removeDatabase,
  syncDirectory,
  syncFileNow,
} from "./files.js";
import { writeBeginning } from "./slice-state.js";
import { type Note, readNotes, removeNote, writeNote } from "./split-notes.js";
import { classifySqliteError } from "./sqlite-errors.js";
import { RangeState } from "./state.js";
import type { NewChild, SplitChild } from "./types.js";

const RETRY_MS = 1_000;

interface Pending {
  readonly child: NewChild;
  readonly walBytes: number;
  /** The note says how much of the log is the child's. */
  noted: boolean;
  making: Promise<void> | undefined;
}

export class Children {
  readonly #path: string;
  readonly #files: FileWork;
  readonly #track: (making: Promise<void>) => Promise<void>;
  readonly #later: ((delayMs: number, run: () => void) => Timer) | undefined;
  readonly #pending = new Set<Pending>();
  /** Complete, with the checkpoints since: their notes are still there. */
  readonly #noted = new Map<NewChild, number>();
  #complete: SplitChild[] = [];
  #retrying: Timer | undefined;
  /** What kept a child from being made, other than a disk that is full or does not work just now. */
  #trouble: unknown;
  #ended = false;
  /** Called when a child has become complete. */
  onComplete: () => void = () => {};

  /**
   * `track`: keeps checkpoints away while a copy is made. `later`: runs something later; without it, what a disk has
   * interrupted goes on with the next apply.
   */
  constructor(
    path: string,
    files: FileWork,
    track: (making: Promise<void>) => Promise<void>,
    later?: (delayMs: number, run: () => void) => Timer,
  ) {
    this.#path = path;
    this.#files = files;
    this.#track = track;
    this.#later = later;
  }

  /** The index of the earliest split whose child is not durable: until there is none, no checkpoint may run. */
  get pendingSince(): LogIndex | undefined {
    let earliest: LogIndex | undefined;
    for (const { child } of this.#pending)
      if (earliest === undefined || child.index < earliest) earliest = child.index;
    return earliest;
  }

  /** Children whose files are not complete, or not told of yet. */
  get making(): readonly GroupId[] {
    if (this.#pending.size === 0) return [];
    return [...this.#pending].map(({ child }) => child.descriptor.range);
  }

  /** Children that have become complete since the last call. */
  takeComplete(): SplitChild[] {
    const complete = this.#complete;
    if (complete.length > 0) this.#complete = [];
    return complete;
  }

  /** Before the parent is opened: makes what a process that ended was about to. */
  recover(): void {
    for (const note of readNotes(this.#path)) {
      const made = this.#exists(note) || (!note.made && existsSync(this.#path) && this.#makeNow(note));
      if (made) {
        if (!note.made) this.#noteMade(note);
        this.#tell(note);
      } else {
        if (!note.made && this.#isPast(note)) throw this.#lost(note);
        removeNote(this.#path, note);
      }
    }
  }

  /** The file has the split applied: it will not be applied again. */
  #isPast({ index }: Note): boolean {
    if (!existsSync(this.#path)) return false;
    try {
      const database = new Database(this.#path, { readonly: true });
      try {
        return RangeState.reached(database, index);
      } finally {
        database.close();
      }
    } catch (error) {
      throw classifySqliteError(error);
    }
  }

  #lost({ descriptor: { range }, index }: Note): FatalError {
    return new FatalError(
      "OSTRAKA_CORRUPT",
      `${this.#path} is past its entry ${index}, and what range ${range}, split off there, begins with is not to be found: if ` +
        `other replicas of that range have it, remove this one's note (.split-${range}), and it will be sent here`,
    );
  }

  /** Before the split is committed. */
  announce(child: NewChild): void {
    if (!this.#exists(child)) writeNote(this.#path, { ...child, walBytes: null });
  }

  /** Right after it is committed: the file, with so many bytes of its log, is the child's beginning. */
  begin(child: NewChild, walBytes: number): void {
    if (this.#exists(child)) {
      this.#tell(child);
      return;
    }
    this.#pending.add({ child, walBytes, noted: false, making: undefined });
    this.settle();
  }

  /** Before anything else is committed. Throws what must be got over first. */
  settle(): void {
    if (this.#trouble !== undefined) throw this.#trouble;
    for (const pending of this.#pending) {
      if (pending.noted) continue;
      writeNote(this.#path, { ...pending.child, walBytes: pending.walBytes });
      pending.noted = true;
      this.#start(pending);
    }
  }

  /** Goes on with what the disk has interrupted. Rejects when it still does. */
  async retry(): Promise<void> {
    this.settle();
    for (const pending of this.#pending) await (pending.making ?? this.#start(pending));
  }

  /** What is applied up to here is durable, and has been said to be. */
  checkpointed(upTo: LogIndex): void {
    for (const [child, checkpoints] of this.#noted) {
      if (child.index > upTo) continue;
      this.#noted.set(child, checkpoints + 1);
      if (checkpoints === 0) continue;
      this.#noted.delete(child);
      removeNote(this.#path, child);
    }
  }

  /** The parent's file is about to be another one: what was to be copied is gone. */
  drop(): void {
    for (const note of readNotes(this.#path)) if (note.made !== true) removeNote(this.#path, note);
    this.#pending.clear();
  }

  /** Nothing is finished any more, as if the process had died. */
  abandon(): void {
    this.#ended = true;
    this.#retrying?.cancel();
  }

  #start(pending: Pending): Promise<void> {
    const making = this.#track(this.#make(pending)).then(
      () => {
        if (this.#ended) return;
        this.#pending.delete(pending);
        this.#tell(pending.child);
      },
      (error: unknown) => {
        pending.making = undefined;
        if (!mayPass(error) && !this.#ended) this.#trouble = error;
        else this.#retryLater();
        throw error;
      },
    );
    // Whoever needs it to succeed asks again.
    making.catch(() => {});
    pending.making = making;
    return making;
  }

  /** A range in which nothing happens must not wait for its next entry. */
  #retryLater(): void {
    if (this.#ended) return;
    this.#retrying ??= this.#later?.(RETRY_MS, () => {
      this.#retrying = undefined;
      if (!this.#ended && this.#trouble === undefined) this.retry().catch(() => {});
    });
  }

  async #make({ child, walBytes }: Pending): Promise<void> {
    const partial = `${this.#finalPath(child)}.partial`;
    // All but the note may have been done before.
    if (this.#exists(child)) return this.#noteMade(child);
    mkdirSync(dirname(partial), { recursive: true });
    await removeDatabase(partial, this.#files);
    await this.#files.copy(this.#path, partial);
    if (walBytes > 0) await this.#files.copyPrefix(`${this.#path}-wal`, `${partial}-wal`, walBytes);
    if (this.#ended) return;
    if (!beginChild(partial, child))
      throw new Error(`the copy for range ${child.descriptor.range} is not of the split's entry`);
    await this.#files.sync(partial);
    if (this.#ended) return;
    this.#place(partial, child);
    this.#noteMade(child);
  }

  /** False when the state that the note speaks of is not there. */
  #makeNow(note: Note): boolean {
    const partial = `${this.#finalPath(note)}.partial`;
    try {
      mkdirSync(dirname(partial), { recursive: true });
      for (const suffix of ["", "-wal", "-shm", "-journal"]) rmSync(partial + suffix, { force: true });
      copyFileSync(this.#path, partial);
      const wal = `${this.#path}-wal`;
      const bytes = Math.min(
        note.walBytes ?? Number.MAX_SAFE_INTEGER,
        statSync(wal, { throwIfNoEntry: false })?.size ?? 0,
      );
      if (bytes > 0) {
        copyFileSync(wal, `${partial}-wal`);
        truncateSync(`${partial}-wal`, bytes);
      }
      const made = beginChild(partial, note);
      if (made) {
        syncFileNow(partial);
        this.#place(partial, note);
      }
      for (const suffix of ["", "-wal", "-shm"]) rmSync(partial + suffix, { force: true });
      return made;
    } catch (error) {
      throw diskTrouble(error);
    }
  }

  #place(partial: string, child: NewChild): void {
    const path = this.#finalPath(child);
    placeFile(partial, path);
    syncDirectory(dirname(path));
    syncDirectory(dirname(dirname(path)));
  }

  #finalPath({ descriptor }: NewChild): string {
    return siblingPath(this.#path, descriptor.range);
  }

  #exists(child: NewChild): boolean {
    return existsSync(this.#finalPath(child));
  }

  /** Invariant 4. */
  #noteMade(child: NewChild): void {
    writeNote(this.#path, { ...child, walBytes: null, made: true });
  }

  #tell(child: NewChild): void {
    const { descriptor, parent, index, term, conf } = child;
    this.#noted.set(child, 0);
    this.#complete.push({ descriptor, path: this.#finalPath(child), parent, index, term, conf });
    this.onComplete();
  }
}

function mayPass(error: unknown): boolean {
  return isFull(error) || (error instanceof FatalError && error.code === "OSTRAKA_EIO");
}

/** Turns the copy into the child's file, without a log of its own. False when it is of another state. */
function beginChild(path: string, child: NewChild): boolean {
  const database = new Database(path);
  try {
    database.pragma("synchronous = OFF");
    database.pragma("wal_autocheckpoint = 0");
    if (!RangeState.isAt(database, child.index)) return false;
    writeBeginning(database, child);
    database.pragma("wal_checkpoint(TRUNCATE)");
  } finally {
    database.close();
  }
  rmSync(`${path}-wal`, { force: true });
  rmSync(`${path}-shm`, { force: true });
  return true;
}
