/**
 * A disk in memory that fails like a real one, and always the same way for the same seed.
 *
 * - What is written is seen at once and durable once synced (or written to a file opened with `dsync`). A crash keeps
 *   of the rest nothing, all, a prefix, or any sectors; a sector may be torn.
 * - Names (a file made, removed, renamed) are durable once their directory is synced, or the call promises it.
 * - A failed sync loses what it was to sync for good; a later one succeeds and says nothing of it.
 * - The disk fills up at `capacityBytes`; reads, writes and syncs fail when told to, or at the rates given; bits flip.
 *
 * With a clock every operation takes virtual time, in which a crash may strike. A process uses the disk through
 * `mount()`; what it began before a crash never settles after it, and what it begins later (a timer of the dead
 * process that fires) does nothing: no continuation of a dead process reaches the world.
 */
import { FatalError } from "../../src/base/errors.js";
import type { Clock, Disk, DiskFile } from "../../src/base/io.js";
import { type Change, Inode } from "./sim-inode.js";
import type { SimRandom } from "./sim-random.js";

export type DiskOperation = "open" | "read" | "write" | "sync" | "truncate" | "rename" | "remove" | "list";
export type DiskErrorCode = "EIO" | "ENOSPC";

export interface SimDiskFaults {
  /** Chance that an operation fails with EIO; a failed write may have been written in part. */
  readError: number;
  writeError: number;
  syncError: number;
}

export interface SimDiskOptions {
  readonly random: SimRandom;
  readonly clock?: Clock;
  /** Virtual milliseconds an operation takes, drawn uniformly from [0, 2 * mean); 0.2 if not given. */
  readonly meanLatencyMs?: number;
}

type NameChange =
  | { readonly kind: "link"; readonly path: string; readonly inode: Inode }
  | { readonly kind: "unlink"; readonly path: string }
  | { readonly kind: "rename"; readonly from: string; readonly to: string; readonly inode: Inode };

interface PlannedFault {
  readonly operation: DiskOperation;
  readonly code: DiskErrorCode;
  readonly path: RegExp;
}

/** A new one each time: whoever waits for a shared one is kept for ever. */
const never = (): Promise<never> => new Promise(() => undefined);

function directoryOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

function applyName(names: Map<string, Inode>, change: NameChange): void {
  if (change.kind === "link") names.set(change.path, change.inode);
  else if (change.kind === "unlink") names.delete(change.path);
  else {
    if (names.get(change.from) === change.inode) names.delete(change.from);
    names.set(change.to, change.inode);
  }
}

function errorOf(operation: string, path: string, code: DiskErrorCode): FatalError {
  return code === "ENOSPC"
    ? new FatalError("OSTRAKA_DISK_FULL", `${operation} ${path}: no space left (ENOSPC)`)
    : new FatalError("OSTRAKA_IO", `${operation} ${path}: ${code}`);
}

export class SimDisk implements Disk {
  readonly faults: SimDiskFaults = { readError: 0, writeError: 0, syncError: 0 };
  /** Bytes of all files together. */
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Multiplies every latency. */
  slowness = 1;
  /** Crashes so far; what was begun in an earlier epoch never settles. */
  epoch = 0;
  /** Operations by kind, for tests that count. */
  readonly counts = new Map<DiskOperation, number>();
  readonly #random: SimRandom;
  readonly #clock: Clock | undefined;
  readonly #meanLatencyMs: number;
  #seen = new Map<string, Inode>();
  #durable = new Map<string, Inode>();
  #directories = new Set<string>(["/"]);
  /** Name changes not yet durable, by directory, in order. */
  #unsynced = new Map<string, NameChange[]>();
  #planned: PlannedFault[] = [];
  #temporaries = 0;

  constructor(options: SimDiskOptions) {
    this.#random = options.random;
    this.#clock = options.clock;
    this.#meanLatencyMs = options.meanLatencyMs ?? 0.2;
  }

  // For tests and simulators

  /** The disk as one process sees it, until the next crash. */
  mount(): Disk {
    const { epoch } = this;
    const alive = <T>(run: () => Promise<T>): Promise<T> => (epoch === this.epoch ? run() : never());
    return {
      open: (path, options) => alive(() => this.open(path, options)),
      list: (directory) => alive(() => this.list(directory)),
      exists: (path) => alive(() => this.exists(path)),
      readFile: (path) => alive(() => this.readFile(path)),
      writeFile: (path, bytes) => alive(() => this.writeFile(path, bytes)),
      rename: (from, to) => alive(() => this.rename(from, to)),
      remove: (path) => alive(() => this.remove(path)),
      makeDirectory: (path) => alive(() => this.makeDirectory(path)),
      syncDirectory: (path) => alive(() => this.syncDirectory(path)),
    };
  }

  /** The next such operation on a path that matches fails. */
  failNext(operation: DiskOperation, code: DiskErrorCode, path = /./): void {
    this.#planned.push({ operation, code, path });
  }

  /** Cuts the power. Files opened before are dead; open them again. */
  crash(keep: "none" | "all" | "some" = "some"): void {
    this.epoch++;
    for (const changes of this.#unsynced.values()) this.#crashNames(changes, keep);
    this.#unsynced.clear();
    const inodes = new Set([...this.#seen.values(), ...this.#durable.values()]);
    for (const inode of inodes) inode.crash(keep, this.#random);
    this.#seen = new Map(this.#durable);
  }

  /** The disk is replaced by an empty one. */
  wipe(): void {
    this.epoch++;
    this.#seen.clear();
    this.#durable.clear();
    this.#unsynced.clear();
    this.#directories = new Set(["/"]);
  }

  flipBit(path: string, offset: number, bit = this.#random.below(8)): void {
    this.#inode("flip", path).flip(offset, bit);
  }

  /** All files, sorted. */
  paths(): string[] {
    return [...this.#seen.keys()].sort();
  }

  contents(path: string): Uint8Array {
    const inode = this.#inode("contents", path);
    return inode.read(0, inode.length);
  }

  /** Overwrites bytes, durably: damage more thorough than a flipped bit. */
  damage(path: string, offset: number, bytes: Uint8Array): void {
    const inode = this.#inode("damage", path);
    inode.change({ kind: "write", offset, bytes: bytes.slice() });
    inode.synced(inode.unsynced());
  }

  usedBytes(): number {
    let used = 0;
    for (const inode of new Set(this.#seen.values())) used += inode.length;
    return used;
  }

  // Disk

  async open(path: string, options: { create: boolean; dsync?: boolean }): Promise<DiskFile> {
    await this.#begin("open", path);
    let inode = this.#seen.get(path);
    if (inode === undefined) {
      if (!options.create || !this.#directories.has(directoryOf(path))) {
        throw new FatalError("OSTRAKA_IO", `open ${path}: ENOENT`);
      }
      inode = new Inode();
      this.#rename(directoryOf(path), { kind: "link", path, inode });
    }
    return new SimDiskFile(this, path, inode, options.dsync === true);
  }

  async list(directory: string): Promise<string[]> {
    await this.#begin("list", directory);
    const names: string[] = [];
    for (const path of [...this.#seen.keys(), ...this.#directories]) {
      if (path !== directory && directoryOf(path) === directory)
        names.push(path.slice(path.lastIndexOf("/") + 1));
    }
    return names.sort();
  }

  async exists(path: string): Promise<boolean> {
    await this.#begin("list", path);
    return this.#seen.has(path) || this.#directories.has(path);
  }

  async readFile(path: string): Promise<Uint8Array> {
    await this.#begin("read", path);
    const inode = this.#inode("read", path);
    return inode.read(0, inode.length);
  }

  async writeFile(path: string, bytes: Uint8Array): Promise<void> {
    this.#temporaries += 1;
    const temporary = `${path}.${this.#temporaries}.tmp`;
    const file = await this.open(temporary, { create: true });
    try {
      await file.write(0, [bytes]);
      await file.sync();
      await this.rename(temporary, path);
    } catch (error) {
      await this.remove(temporary);
      throw error;
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#begin("rename", from);
    const inode = this.#inode("rename", from);
    if (!this.#directories.has(directoryOf(to))) throw new FatalError("OSTRAKA_IO", `rename ${from}: ENOENT`);
    this.#rename(directoryOf(to), { kind: "rename", from, to, inode });
    await this.syncDirectory(directoryOf(to));
    if (directoryOf(from) !== directoryOf(to)) await this.syncDirectory(directoryOf(from));
  }

  async remove(path: string): Promise<void> {
    await this.#begin("remove", path);
    if (this.#seen.has(path)) this.#rename(directoryOf(path), { kind: "unlink", path });
  }

  /** Durable when it returns, as on a real disk. */
  async makeDirectory(path: string): Promise<void> {
    await this.#begin("open", path);
    for (let made = path; made !== "/" && made !== ""; made = directoryOf(made)) this.#directories.add(made);
  }

  async syncDirectory(path: string): Promise<void> {
    const changes = this.#unsynced.get(path) ?? [];
    const count = changes.length;
    await this.#begin("sync", path);
    for (const change of changes.splice(0, count)) applyName(this.#durable, change);
  }

  // For SimDiskFile

  /** Takes the operation's time, then fails if it is to fail. Never comes back if the power was cut meanwhile. */
  async take(operation: DiskOperation): Promise<void> {
    this.counts.set(operation, (this.counts.get(operation) ?? 0) + 1);
    const epoch = this.epoch;
    const clock = this.#clock;
    if (clock === undefined) await Promise.resolve();
    else {
      const delayMs = this.#random.float() * 2 * this.#meanLatencyMs * this.slowness;
      await new Promise<void>((resolve) => clock.setTimer(delayMs, resolve));
    }
    if (epoch !== this.epoch) await never();
  }

  fault(operation: DiskOperation, path: string): DiskErrorCode | undefined {
    const planned = this.#planned.findIndex(
      (fault) => fault.operation === operation && fault.path.test(path),
    );
    if (planned >= 0) return this.#planned.splice(planned, 1)[0]!.code;
    const rate =
      operation === "read"
        ? this.faults.readError
        : operation === "write"
          ? this.faults.writeError
          : operation === "sync"
            ? this.faults.syncError
            : 0;
    return rate > 0 && this.#random.chance(rate) ? "EIO" : undefined;
  }

  get random(): SimRandom {
    return this.#random;
  }

  async #begin(operation: DiskOperation, path: string): Promise<void> {
    await this.take(operation);
    const code = this.fault(operation, path);
    if (code) throw errorOf(operation, path, code);
  }

  #inode(operation: string, path: string): Inode {
    const inode = this.#seen.get(path);
    if (inode === undefined) throw new FatalError("OSTRAKA_IO", `${operation} ${path}: ENOENT`);
    return inode;
  }

  #rename(directory: string, change: NameChange): void {
    applyName(this.#seen, change);
    const changes = this.#unsynced.get(directory);
    if (changes) changes.push(change);
    else this.#unsynced.set(directory, [change]);
  }

  #crashNames(changes: readonly NameChange[], keep: "none" | "all" | "some"): void {
    const mode = keep === "some" ? this.#random.pick(["none", "all", "prefix", "any"] as const) : keep;
    const prefix = this.#random.below(changes.length + 1);
    for (const [i, change] of changes.entries()) {
      const kept =
        mode === "all" || (mode === "prefix" && i < prefix) || (mode === "any" && this.#random.chance(0.5));
      if (kept) applyName(this.#durable, change);
    }
  }
}

class SimDiskFile implements DiskFile {
  readonly #disk: SimDisk;
  readonly #inode: Inode;
  readonly #dsync: boolean;
  readonly #epoch: number;
  #closed = false;

  constructor(
    disk: SimDisk,
    readonly path: string,
    inode: Inode,
    dsync: boolean,
  ) {
    this.#disk = disk;
    this.#inode = inode;
    this.#dsync = dsync;
    this.#epoch = disk.epoch;
  }

  size(): number {
    return this.#inode.length;
  }

  async write(offset: number, chunks: readonly Uint8Array[]): Promise<void> {
    this.#checkOpen("write");
    if (this.#dead) return never();
    const bytes = Buffer.concat(chunks);
    const room = this.#disk.capacityBytes - this.#disk.usedBytes();
    const growth = Math.max(0, offset + bytes.length - this.#inode.length);
    const full = growth > 0 && growth > room;
    const code = this.#disk.fault("write", this.path) ?? (full ? "ENOSPC" : undefined);
    const most = full ? Math.max(0, bytes.length - (growth - Math.max(0, room))) : bytes.length;
    const written = code ? this.#disk.random.below(most + 1) : bytes.length;
    const change: Change = { kind: "write", offset, bytes: new Uint8Array(bytes.subarray(0, written)) };
    if (written > 0) this.#inode.change(change);
    await this.#disk.take("write");
    if (code) throw errorOf("write", this.path, code);
    if (!this.#dsync) return;
    const failed = this.#disk.fault("sync", this.path);
    if (failed) {
      this.#inode.lost([change], this.#disk.random);
      throw errorOf("write", this.path, failed);
    }
    this.#inode.synced([change]);
  }

  async sync(): Promise<void> {
    this.#checkOpen("sync");
    if (this.#dead) return never();
    const changes = this.#inode.unsynced();
    await this.#disk.take("sync");
    const code = this.#disk.fault("sync", this.path);
    if (code) {
      this.#inode.lost(changes, this.#disk.random);
      throw errorOf("sync", this.path, code);
    }
    this.#inode.synced(changes);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#checkOpen("read");
    if (this.#dead) return never();
    await this.#disk.take("read");
    return this.readSync(offset, length);
  }

  readSync(offset: number, length: number): Uint8Array {
    if (this.#closed || this.#dead) throw errorOf("read", this.path, "EIO");
    const code = this.#disk.fault("read", this.path);
    if (code) throw errorOf("read", this.path, code);
    return this.#inode.read(offset, length);
  }

  async truncate(length: number): Promise<void> {
    this.#checkOpen("truncate");
    if (this.#dead) return never();
    const change: Change = { kind: "truncate", length };
    this.#inode.change(change);
    await this.#disk.take("truncate");
    if (this.#dsync) this.#inode.synced([change]);
  }

  async close(): Promise<void> {
    this.#checkOpen("open");
    if (this.#dead) return never();
    this.#closed = true;
  }

  get #dead(): boolean {
    return this.#epoch !== this.#disk.epoch;
  }

  #checkOpen(operation: DiskOperation): void {
    if (this.#closed) throw new FatalError("OSTRAKA_IO", `${operation} ${this.path}: the file is closed`);
  }
}
