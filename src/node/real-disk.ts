/**
 * The Disk of a real node: node:fs, asynchronous through libuv's thread pool, so that no write or sync blocks the
 * event loop; only `readSync` does.
 *
 * Invariants:
 * 1. Every error is a FatalError; a full disk or quota is told apart by its code, OSTRAKA_DISK_FULL.
 * 2. A write resolves only when all its bytes are written (short writes are continued).
 * 3. What is promised durable (`writeFile`, `rename`, `makeDirectory`) has its directories synced.
 *
 * Left out: locks and concurrency control. Two overlapping writes to one file race as they do in the system.
 */

import * as fs from "node:fs";
import { constants } from "node:fs";
import { dirname, resolve } from "node:path";
import { FatalError } from "../base/errors.js";
import type { Disk, DiskFile } from "../base/io.js";

/** The most buffers one writev takes on every system we know. */
const MAX_VECTOR = 1024;

/** Absent on systems that cannot open a file so; there each write is followed by a sync. */
const O_DSYNC: number | undefined = constants.O_DSYNC;

function diskError(action: string, path: string, error: unknown): FatalError {
  const code = (error as NodeJS.ErrnoException).code ?? "unknown";
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new FatalError("OSTRAKA_DISK_FULL", `${action} ${path}: no space left (${code})`, {
      cause: error,
    });
  }
  return new FatalError("OSTRAKA_IO", `${action} ${path}: ${code}`, { cause: error });
}

async function guarded<T>(action: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw error instanceof FatalError ? error : diskError(action, path, error);
  }
}

async function syncDirectory(path: string): Promise<void> {
  // Directories cannot be opened on Windows, and need no sync there.
  if (process.platform === "win32") return;
  const handle = await fs.promises.open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

class RealDiskFile implements DiskFile {
  readonly #fd: number;
  /** The file was opened for dsync, but the system has no such flag. */
  readonly #syncEachWrite: boolean;
  #size: number;

  constructor(
    readonly path: string,
    fd: number,
    size: number,
    syncEachWrite: boolean,
  ) {
    this.#fd = fd;
    this.#size = size;
    this.#syncEachWrite = syncEachWrite;
  }

  size(): number {
    return this.#size;
  }

  async write(offset: number, chunks: readonly Uint8Array[]): Promise<void> {
    let at = offset;
    for (let first = 0; first < chunks.length; first += MAX_VECTOR) {
      at = await this.#writeVector(at, chunks.slice(first, first + MAX_VECTOR));
    }
    if (at > this.#size) this.#size = at;
    if (this.#syncEachWrite) await this.sync();
  }

  async #writeVector(offset: number, chunks: Uint8Array[]): Promise<number> {
    let rest = chunks.filter((chunk) => chunk.length > 0);
    let at = offset;
    while (rest.length > 0) {
      const written = await this.#writeSome(at, rest);
      if (written === 0) throw new FatalError("OSTRAKA_IO", `write ${this.path}: nothing was written`);
      at += written;
      rest = skip(rest, written);
    }
    return at;
  }

  #writeSome(offset: number, chunks: Uint8Array[]): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: NodeJS.ErrnoException | null, written: number): void => {
        if (error) reject(diskError("write", this.path, error));
        else resolve(written);
      };
      const only = chunks[0];
      if (chunks.length === 1 && only) fs.write(this.#fd, only, 0, only.length, offset, done);
      else fs.writev(this.#fd, chunks, offset, done);
    });
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#fd, (error) => (error ? reject(diskError("sync", this.path, error)) : resolve()));
    });
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const read = await this.#readSome(bytes, filled, offset + filled);
      if (read === 0) break;
      filled += read;
    }
    return filled === length ? bytes : bytes.subarray(0, filled);
  }

  #readSome(into: Uint8Array, at: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#fd, into, at, into.length - at, position, (error, read) =>
        error ? reject(diskError("read", this.path, error)) : resolve(read),
      );
    });
  }

  readSync(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let filled = 0;
    try {
      while (filled < length) {
        const read = fs.readSync(this.#fd, bytes, filled, length - filled, offset + filled);
        if (read === 0) break;
        filled += read;
      }
    } catch (error) {
      throw diskError("read", this.path, error);
    }
    return filled === length ? bytes : bytes.subarray(0, filled);
  }

  truncate(length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.ftruncate(this.#fd, length, (error) => {
        if (error) return reject(diskError("truncate", this.path, error));
        this.#size = length;
        resolve();
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.close(this.#fd, (error) => (error ? reject(diskError("close", this.path, error)) : resolve()));
    });
  }
}

/** `chunks` without their first `bytes` bytes. */
function skip(chunks: Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes;
  let i = 0;
  for (let chunk = chunks[0]; chunk !== undefined && left >= chunk.length; chunk = chunks[i]) {
    left -= chunk.length;
    i++;
  }
  const rest = chunks.slice(i);
  const partial = rest[0];
  if (partial !== undefined && left > 0) rest[0] = partial.subarray(left);
  return rest;
}

export class RealDisk implements Disk {
  #temporaries = 0;

  open(path: string, options: { create: boolean; dsync?: boolean }): Promise<DiskFile> {
    return guarded("open", path, async () => {
      let flags = constants.O_RDWR;
      if (options.create) flags |= constants.O_CREAT;
      if (options.dsync === true && O_DSYNC !== undefined) flags |= O_DSYNC;
      const fd = await new Promise<number>((resolve, reject) => {
        fs.open(path, flags, 0o644, (error, opened) => (error ? reject(error) : resolve(opened)));
      });
      const size = fs.fstatSync(fd).size;
      return new RealDiskFile(path, fd, size, options.dsync === true && O_DSYNC === undefined);
    });
  }

  list(directory: string): Promise<string[]> {
    return guarded("list", directory, async () => {
      try {
        return (await fs.promises.readdir(directory)).sort();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
        throw error;
      }
    });
  }

  exists(path: string): Promise<boolean> {
    return guarded("stat", path, async () => {
      try {
        await fs.promises.stat(path);
        return true;
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (code === "ENOENT" || code === "ENOTDIR") return false;
        throw error;
      }
    });
  }

  readFile(path: string): Promise<Uint8Array> {
    return guarded("read", path, async () => {
      const bytes = await fs.promises.readFile(path);
      return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    });
  }

  writeFile(path: string, bytes: Uint8Array): Promise<void> {
    return guarded("write", path, async () => {
      this.#temporaries += 1;
      const temporary = `${path}.${process.pid}-${this.#temporaries}.tmp`;
      try {
        const handle = await fs.promises.open(temporary, "w");
        try {
          await handle.writeFile(bytes);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await fs.promises.rename(temporary, path);
      } catch (error) {
        await fs.promises.rm(temporary, { force: true });
        throw error;
      }
      await syncDirectory(dirname(path));
    });
  }

  rename(from: string, to: string): Promise<void> {
    return guarded("rename", from, async () => {
      await fs.promises.rename(from, to);
      await syncDirectory(dirname(to));
      if (dirname(from) !== dirname(to)) await syncDirectory(dirname(from));
    });
  }

  remove(path: string): Promise<void> {
    return guarded("remove", path, () => fs.promises.rm(path, { force: true }));
  }

  makeDirectory(path: string): Promise<void> {
    return guarded("make directory", path, async () => {
      const first = await fs.promises.mkdir(path, { recursive: true });
      if (first === undefined) return;
      // Every directory made is an entry of its parent, up to the one that was there before.
      for (let made = resolve(path); ; made = dirname(made)) {
        await syncDirectory(dirname(made));
        if (made === resolve(first) || dirname(made) === made) return;
      }
    });
  }

  syncDirectory(path: string): Promise<void> {
    return guarded("sync directory", path, () => syncDirectory(path));
  }
}
