/**
 * The outside world as seen by everything below src/node: injected, so that the whole node also runs under a
 * simulated clock, disk and network. Nothing else in the tree may touch Date, timers, node:fs or sockets, except
 * the real implementations of these interfaces and the processes that own SQLite files.
 */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds, monotonic, arbitrary origin. */
  monotonicMs(): number;
  /** Milliseconds since the Unix epoch; may jump. Used for stamps only, never for ordering. */
  wallMs(): number;
  setTimer(delayMs: number, fire: () => void): Timer;
}

export interface Random {
  /** Uniform integer in [0, 2^32). */
  uint32(): number;
  /** Uniform in [0, 1). */
  float(): number;
  bytes(length: number): Uint8Array;
}

/**
 * A file open for reading and writing at explicit offsets. Writes are not durable before `sync` (unless opened
 * with `dsync`). Errors are FatalErrors, but for "OSTRAKA_DISK_FULL" (ENOSPC, EDQUOT), from which a caller may recover.
 */
export interface DiskFile {
  readonly path: string;
  size(): number;
  write(offset: number, chunks: readonly Uint8Array[]): Promise<void>;
  /** fdatasync. A failure is final: the caller must stop the node, never call it again. */
  sync(): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Short reads at the end of the file give fewer bytes. Blocks the thread: for rare, small reads. */
  readSync(offset: number, length: number): Uint8Array;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

export interface Disk {
  open(path: string, options: { create: boolean; dsync?: boolean }): Promise<DiskFile>;
  /** Names in a directory, sorted; empty when it does not exist. */
  list(directory: string): Promise<string[]>;
  exists(path: string): Promise<boolean>;
  readFile(path: string): Promise<Uint8Array>;
  /** Atomic and durable: temporary file, fsync, rename, fsync of the directory. */
  writeFile(path: string, bytes: Uint8Array): Promise<void>;
  /** Durable once it returns (directories are synced). */
  rename(from: string, to: string): Promise<void>;
  /** No error when the file is absent. */
  remove(path: string): Promise<void>;
  makeDirectory(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
}
