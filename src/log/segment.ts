/**
 * Segment files: how they are named, and how the next one is made ready before it is needed.
 *
 * A segment is filled with zeros under a temporary name, gets its header, and only then, durable as a whole, its
 * name. So a file with a segment's name always has the header that goes with the name; a crash in the middle leaves
 * a temporary file, which the next start removes.
 *
 * The zeros are written piece by piece as the current segment fills, always ahead of it: an idle log keeps one
 * segment, a busy one finds the next ready when it rotates. When the disk is full this is where it shows first, with
 * the rest of the current segment still in hand.
 */
import type { Disk, DiskFile } from "../base/io.js";
import { encodeSegmentHeader } from "./batch.js";

const NAME = /^(\d{10})\.log$/;
const TEMPORARY = "next.tmp";
const LARGEST_PIECE = 1024 * 1024;
const ZEROS = new Uint8Array(LARGEST_PIECE);

export interface Segment {
  readonly sequence: number;
  readonly file: DiskFile;
}

export function segmentName(sequence: number): string {
  return `${String(sequence).padStart(10, "0")}.log`;
}

export function isSegmentName(name: string): boolean {
  return NAME.test(name);
}

export function segmentPath(directory: string, sequence: number): string {
  return `${directory}/${segmentName(sequence)}`;
}

/** The sequences of the segments in a directory, ascending; also removes what an unfinished preparation left. */
export async function listSegments(disk: Disk, directory: string): Promise<number[]> {
  const sequences: number[] = [];
  for (const name of await disk.list(directory)) {
    const match = NAME.exec(name);
    if (match) sequences.push(Number(match[1]));
    else if (name === TEMPORARY) await disk.remove(`${directory}/${name}`);
  }
  return sequences.sort((a, b) => a - b);
}

export class SegmentPreparer {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #bytes: number;
  readonly #pieceBytes: number;
  #sequence: number;
  #file: DiskFile | undefined;
  #filled = 0;
  #target = 0;
  #ready: Segment | undefined;
  #running: Promise<void> | undefined;

  /** `sequence` is that of the next segment, `ready` the segment itself if an earlier run prepared it. */
  constructor(
    disk: Disk,
    directory: string,
    segmentBytes: number,
    sequence: number,
    ready: Segment | undefined,
  ) {
    this.#disk = disk;
    this.#directory = directory;
    this.#bytes = segmentBytes;
    this.#pieceBytes = Math.min(LARGEST_PIECE, Math.max(4096, Math.ceil(segmentBytes / 16)));
    this.#sequence = sequence;
    this.#ready = ready;
  }

  /** Bytes on disk that belong to no segment in use yet. */
  get preparedBytes(): number {
    return this.#ready ? this.#ready.file.size() : this.#filled;
  }

  /** Fills up to `bytes` of the next segment. A full disk rejects; what was filled is given back first. */
  prepare(bytes: number): Promise<void> {
    this.#target = Math.max(this.#target, Math.min(bytes, this.#bytes));
    if (this.#ready !== undefined || (this.#running === undefined && this.#filled >= this.#target)) {
      return Promise.resolve();
    }
    this.#running ??= this.#fill().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** The next segment, finished now if it is not yet. */
  async take(): Promise<Segment> {
    while (this.#ready === undefined) await this.prepare(this.#bytes);
    const taken = this.#ready;
    this.#ready = undefined;
    this.#sequence++;
    this.#target = 0;
    return taken;
  }

  async close(): Promise<void> {
    await this.#running?.catch(() => undefined);
    await this.#ready?.file.close();
    await this.#file?.close();
  }

  async #fill(): Promise<void> {
    const path = `${this.#directory}/${TEMPORARY}`;
    try {
      if (this.#file === undefined) {
        await this.#disk.remove(path);
        this.#file = await this.#disk.open(path, { create: true, dsync: true });
        this.#filled = 0;
      }
      while (this.#filled < this.#target) {
        const piece = Math.min(this.#pieceBytes, this.#bytes - this.#filled);
        await this.#file.write(this.#filled, [ZEROS.subarray(0, piece)]);
        this.#filled += piece;
      }
      if (this.#filled < this.#bytes) return;
      await this.#file.write(0, [encodeSegmentHeader(this.#sequence)]);
      await this.#disk.rename(path, segmentPath(this.#directory, this.#sequence));
    } catch (error) {
      await this.#abandon(path);
      throw error;
    }
    this.#ready = { sequence: this.#sequence, file: this.#file };
    this.#file = undefined;
    this.#filled = 0;
  }

  /** After an error nothing of the file can be relied on: what a failed write left may never reach the disk. */
  async #abandon(path: string): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#filled = 0;
    try {
      await file?.close();
      await this.#disk.remove(path);
    } catch {
      // The error that led here is the one to report.
    }
  }
}
