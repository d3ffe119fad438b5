/**
 * The files of a range: durable copies of the database file while its writer goes on, and replacing it.
 *
 * A copy is consistent because nothing writes to the database file but checkpoints, and none runs while one is made.
 * What the write-ahead log holds at that moment is either in the file already (the checkpoint before the copy was
 * complete), or the log's bytes are copied too, as far as they are committed (log-extent.ts), and folded in afterwards:
 * of a log that is not in the file whole, what is committed stays, unless there is a checkpoint.
 *
 * A database is replaced in two steps that survive a crash at any point: `X.restore` is complete and durable under
 * that name before X is touched; whoever opens X and finds `X.restore` finishes the replacement first.
 */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from "node:fs";
import { copyFile, open, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import Database from "better-sqlite3";
import { FatalError } from "../../base/errors.js";
import { isDiskFull } from "./sqlite-errors.js";

/** The file work that takes time and goes on beside everything else; simulation brings one that takes its own. */
export interface FileWork {
  copy(from: string, to: string): Promise<void>;
  /** The first bytes of a file that may be growing. */
  copyPrefix(from: string, to: string, bytes: number): Promise<void>;
  sync(path: string): Promise<void>;
  /** No error when it is absent. */
  remove(path: string): Promise<void>;
  openForReading(path: string): Promise<OpenedFile>;
}

export interface OpenedFile {
  readonly bytes: number;
  /** Fewer bytes than asked for only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export const SYSTEM_FILES: FileWork = {
  copy: (from, to) => copyFile(from, to, constants.COPYFILE_FICLONE),
  copyPrefix,
  sync: syncFile,
  remove: (path) => rm(path, { force: true }),
  openForReading,
};

/**
 * Copies a database without what its log holds beyond it; with `walBytes` those bytes of the log are folded in. Nothing
 * of a copy that fails is left: it would keep what may be lacking, room on the disk.
 */
export async function copyDatabase(
  from: string,
  to: string,
  walBytes: number,
  files: FileWork,
): Promise<void> {
  try {
    // Opened before anything is awaited elsewhere: a replaced file does not change under the copy.
    await files.copy(from, to);
    if (walBytes > 0) {
      await files.copyPrefix(`${from}-wal`, `${to}-wal`, walBytes);
      foldLog(to);
    }
    await files.sync(to);
    syncDirectory(dirname(to));
  } catch (error) {
    await removeDatabase(to, files).catch(() => {});
    throw diskTrouble(error);
  }
}

export function syncFileNow(path: string): void {
  const file = openSync(path, "r+");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Gives a complete file its name, unless there is one of that name. */
export function placeFile(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code !== "EEXIST" && !existsSync(to)) {
      // There are file systems without links.
      renameSync(from, to);
      return;
    }
  }
  rmSync(from, { force: true });
}

async function syncFile(path: string, flags: "r" | "r+" = "r+"): Promise<void> {
  const file = await open(path, flags);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

export function syncDirectory(path: string): void {
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

export async function removeDatabase(path: string, files: FileWork): Promise<void> {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) await files.remove(`${path}${suffix}`);
}

/** The folder of a range that is no longer here: for good, or a new replica might begin with what was there. */
export async function removeFolder(path: string): Promise<void> {
  const folder = dirname(path);
  try {
    await rm(folder, { recursive: true, force: true });
    if (existsSync(dirname(folder))) await syncFile(dirname(folder), "r");
  } catch (error) {
    throw diskTrouble(error);
  }
}

async function openForReading(path: string): Promise<OpenedFile> {
  const file = await open(path, "r");
  const { size } = await file.stat();
  return {
    bytes: size,
    read: async (offset, length) => {
      const buffer = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
      let filled = 0;
      while (filled < buffer.length) {
        const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return buffer.subarray(0, filled);
    },
    close: () => file.close(),
  };
}

/** Copies and half-made replacements that an earlier process left behind. */
export function removeLeftovers(path: string): void {
  const name = basename(path);
  for (const entry of readdirSync(dirname(path)))
    if (
      entry.startsWith(`${name}.copy-`) ||
      entry.startsWith(`${name}.restore-partial`) ||
      entry.startsWith(`${name}.partial`)
    )
      rmSync(join(dirname(path), entry), { force: true });
}

/** Makes `file` ready to replace the database at `path`; `finishRestore` does it. */
export async function prepareRestore(file: string, path: string, files: FileWork): Promise<void> {
  const partial = `${path}.restore-partial`;
  await copyDatabase(file, partial, 0, files);
  renameSync(partial, `${path}.restore`);
  syncDirectory(dirname(path));
}

/** Puts a prepared replacement in place; nothing to do without one. No connection of ours may be open. */
export function finishRestore(path: string): void {
  const prepared = `${path}.restore`;
  if (!existsSync(prepared)) return;
  try {
    // A log left beside a file that it does not belong to would be replayed into it.
    rmSync(`${path}-wal`, { force: true });
    rmSync(`${path}-shm`, { force: true });
    syncDirectory(dirname(path));
    renameSync(prepared, path);
    syncDirectory(dirname(path));
  } catch (error) {
    throw diskTrouble(error);
  }
}

async function copyPrefix(from: string, to: string, bytes: number): Promise<void> {
  const source = await open(from, "r");
  const target = await open(to, "w");
  try {
    const buffer = Buffer.allocUnsafe(Math.min(bytes, 1 << 20));
    for (let at = 0; at < bytes; ) {
      const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, bytes - at), at);
      if (bytesRead === 0)
        throw new FatalError("OSTRAKA_INVARIANT", `${from} became shorter while it was copied`);
      // Where there is hardly any room less may be written than is asked for.
      for (let written = 0; written < bytesRead; )
        written += (await target.write(buffer, written, bytesRead - written, at + written)).bytesWritten;
      at += bytesRead;
    }
  } finally {
    await source.close();
    await target.close();
  }
}

/** Moves a copied log into its copied database. */
function foldLog(path: string): void {
  const database = new Database(path);
  try {
    database.pragma("wal_checkpoint(TRUNCATE)");
  } finally {
    database.close();
  }
  rmSync(`${path}-wal`, { force: true });
  rmSync(`${path}-shm`, { force: true });
}

export function isFull(error: unknown): boolean {
  return error instanceof FatalError && error.code === "OSTRAKA_DISK_FULL";
}

export function diskTrouble(error: unknown): unknown {
  if (error instanceof FatalError || !(error instanceof Error)) return error;
  const code = (error as { code?: unknown }).code;
  if (code === "ENOSPC" || code === "EDQUOT" || isDiskFull(error))
    return new FatalError("OSTRAKA_DISK_FULL", error.message, { cause: error });
  return new FatalError(typeof code === "string" ? `OSTRAKA_${code}` : "OSTRAKA_IO", error.message, {
    cause: error,
  });
}
