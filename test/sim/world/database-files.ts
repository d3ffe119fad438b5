/**
 * The real SQLite files of one simulated machine, and what a crash leaves of them.
 *
 * Each life of a process has a folder of its own; the next one begins with an image of what was durable: the database
 * file as the last checkpoint left it (nothing else writes to it), and of the write-ahead log what was synced and
 * perhaps some of what came after, torn where it ends. A process that merely dies, on a machine that does not, loses
 * nothing. The dead process's connections are closed on files that nobody looks at any more.
 *
 * A file may be kept from growing, as on a full disk (SQLite itself then says SQLITE_FULL), and file work may fail.
 *
 * Slow file work takes virtual time, in pieces, so that whatever must not happen meanwhile gets its chance.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import Database from "better-sqlite3";
import type { Clock } from "../../../src/base/io.js";
import type { FileWork, OpenedFile } from "../../../src/machines/range/files.js";
import type { SimDisk } from "../sim-disk.js";
import type { SimRandom } from "../sim-random.js";

const PIECES = 3;
/** Of a WAL file's header: what changes when the log starts over. */
const SALT_OFFSET = 16;
const SALT_BYTES = 8;
const LOG_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const INDEX_HEADER_BYTES = 136;

/** The connection that writes to each replica's file, by path: only through it can SQLite be told how far it may grow. */
const writers = new Map<string, Database.Database>();
const { pragma } = Database.prototype;
Database.prototype.pragma = function (this: Database.Database, source, options) {
  if (source === "journal_mode = WAL") writers.set(this.name, this);
  return pragma.call(this, source, options);
};
const MOST_PAGES = 1_073_741_823;

export type CrashKind = "process" | "power";

export class DatabaseFiles {
  readonly #root: string;
  readonly #dataDirectory: string;
  readonly #disk: SimDisk;
  readonly #random: SimRandom;
  /** What of a WAL is durable, by its path: bytes, and the salt they belong to. */
  readonly #synced = new Map<string, { readonly bytes: number; readonly salt: string }>();
  #life = 0;
  /** What copies, syncs and reads of files fail with. */
  failure: "EIO" | "ENOSPC" | undefined;

  constructor(root: string, dataDirectory: string, disk: SimDisk, random: SimRandom) {
    this.#root = root;
    this.#dataDirectory = dataDirectory;
    this.#disk = disk;
    this.#random = random;
    mkdirSync(this.#folder, { recursive: true });
  }

  get #folder(): string {
    return join(this.#root, String(this.#life));
  }

  /** Where a path of the data directory really is in this life. */
  real(path: string): string {
    return path.startsWith(this.#dataDirectory)
      ? join(this.#folder, path.slice(this.#dataDirectory.length))
      : path;
  }

  /** Folders directly in a folder of the data directory. */
  folders(path: string): string[] {
    const folder = this.real(path);
    if (!existsSync(folder)) return [];
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
      .sort();
  }

  removeFolder(path: string): void {
    const folder = this.real(path);
    this.#forget(folder);
    rmSync(folder, { recursive: true, force: true });
  }

  /** No replica's file grows by more than so many pages; without a number all may again. */
  limitGrowth(pages?: number): void {
    for (const [path, writer] of writers) {
      if (!path.startsWith(`${this.#folder}/`) || !writer.open) continue;
      const used = Number(writer.pragma("page_count", { simple: true }));
      writer.pragma(`max_page_count = ${pages === undefined ? MOST_PAGES : used + pages}`);
    }
  }

  #forget(folder: string): void {
    for (const path of writers.keys()) if (path.startsWith(`${folder}/`)) writers.delete(path);
  }

  /** Makes the next life's files; `close` ends the dead process's connections. */
  crash(kind: CrashKind, close: () => void): void {
    const before = this.#folder;
    this.#life++;
    mkdirSync(this.#folder, { recursive: true });
    this.#image(before, this.#folder, kind);
    this.#inherit(this.#folder);
    this.#forget(before);
    close();
    rmSync(before, { recursive: true, force: true });
  }

  wipe(close: () => void): void {
    const before = this.#folder;
    this.#life++;
    mkdirSync(this.#folder, { recursive: true });
    this.#synced.clear();
    this.#forget(before);
    close();
    rmSync(before, { recursive: true, force: true });
  }

  remove(): void {
    this.#forget(this.#root);
    rmSync(this.#root, { recursive: true, force: true });
  }

  #image(from: string, to: string, kind: CrashKind): void {
    for (const entry of readdirSync(from, { withFileTypes: true })) {
      const source = join(from, entry.name);
      const target = join(to, entry.name);
      if (entry.isDirectory()) {
        mkdirSync(target, { recursive: true });
        this.#image(source, target, kind);
      } else if (entry.name.endsWith("-shm")) {
        // Shared memory does not survive its processes.
      } else if (entry.name.endsWith("-wal") && kind === "power") {
        this.#cutLog(source, target);
      } else copyFileSync(source, target);
    }
  }

  /** What a life begins with has survived one crash and will survive the next. */
  #inherit(folder: string): void {
    this.#synced.clear();
    for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
      if (!entry.name.endsWith("-wal")) continue;
      const path = join(entry.parentPath, entry.name);
      this.#synced.set(path, { bytes: statSync(path).size, salt: saltOf(path) });
    }
  }

  #cutLog(source: string, target: string): void {
    const { size } = statSync(source);
    const synced = this.#synced.get(source);
    const told = synced !== undefined && synced.salt === saltOf(source) ? synced.bytes : 0;
    const least = Math.min(size, Math.max(told, movedBytes(source)));
    const kept = this.#random.chance(0.4) ? least : least + this.#random.below(size - least + 1);
    if (kept === 0) return;
    copyFileSync(source, target);
    truncateSync(target, kept);
  }

  /** File work of one process, in the process's time. */
  work(clock: Clock): FileWork {
    const random = this.#random;
    const pause = async (): Promise<void> => {
      await new Promise<void>(
        (resolve) => void clock.setTimer(random.float() * 2 * this.#disk.slowness, resolve),
      );
      const code = this.failure;
      if (code !== undefined) throw Object.assign(new Error(`${code}: simulated`), { code });
    };
    const bytesOf = (path: string): Buffer =>
      existsSync(path) ? readFileSync(path) : Buffer.from(this.#disk.contents(path));
    const inPieces = async (from: string, to: string, bytes: number): Promise<void> => {
      mkdirSync(dirname(to), { recursive: true });
      if (!existsSync(from)) {
        writeFileSync(to, bytesOf(from));
        await pause();
        return;
      }
      const source = openSync(from, "r");
      const target = openSync(to, "w");
      try {
        for (let i = 0; i < PIECES; i++) {
          const low = Math.floor((bytes * i) / PIECES);
          const piece = Buffer.alloc(Math.floor((bytes * (i + 1)) / PIECES) - low);
          const read = readSync(source, piece, 0, piece.length, low);
          writeSync(target, piece, 0, read, low);
          await pause();
        }
      } finally {
        closeSync(source);
        closeSync(target);
      }
    };
    return {
      copy: (from, to) => inPieces(from, to, existsSync(from) ? statSync(from).size : 0),
      copyPrefix: inPieces,
      sync: async (path) => {
        const durable =
          existsSync(path) && path.endsWith("-wal")
            ? { bytes: statSync(path).size, salt: saltOf(path) }
            : undefined;
        await pause();
        if (durable !== undefined) this.#synced.set(path, durable);
      },
      remove: async (path) => rmSync(path, { force: true }),
      openForReading: async (path): Promise<OpenedFile> => {
        const contents = bytesOf(path);
        await pause();
        return {
          bytes: contents.length,
          read: async (offset, length) => {
            await pause();
            return new Uint8Array(contents.subarray(offset, offset + length));
          },
          close: async () => undefined,
        };
      },
    };
  }
}

/**
 * How much of the log checkpoints have moved, or begun to move, into the file: they sync the log first. From the log's
 * index in shared memory; see "WAL-Index Format" in SQLite's documentation of its file formats.
 */
function movedBytes(wal: string): number {
  const path = wal.replace(/-wal$/, "-shm");
  if (!existsSync(path)) return 0;
  const index = readFileSync(path);
  if (index.length < INDEX_HEADER_BYTES) return 0;
  const log = readFileSync(wal).subarray(0, LOG_HEADER_BYTES);
  // After it was started over in the index, the log still has its old header until the next write.
  if (log.length < LOG_HEADER_BYTES || !index.subarray(32, 40).equals(log.subarray(SALT_OFFSET, 24)))
    return 0;
  const frames = index.readUInt32LE(128);
  return frames === 0 ? 0 : LOG_HEADER_BYTES + frames * (log.readUInt32BE(8) + FRAME_HEADER_BYTES);
}

function saltOf(path: string): string {
  const bytes = readFileSync(path);
  return bytes.subarray(SALT_OFFSET, SALT_OFFSET + SALT_BYTES).toString("hex");
}
