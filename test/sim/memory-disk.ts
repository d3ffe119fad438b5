/**
 * A disk in memory that forgets, on a crash, whatever was not synced. Directory operations are durable when they
 * return, as the interface promises. Every start of a node works through a session; a crash ends it: its operations
 * never complete any more, so a dead node's continuations cannot reach the disk.
 */
import { FatalError } from "../../src/base/errors.js";
import type { Disk, DiskFile } from "../../src/base/io.js";

class Content {
  bytes = new Uint8Array(0);
  size = 0;
  /** What to put back on a crash, newest last. */
  undo: { readonly at: number; readonly old: Uint8Array; readonly size: number }[] = [];

  write(at: number, data: Uint8Array): void {
    const end = at + data.length;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2));
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.undo.push({ at, old: this.bytes.slice(at, end), size: this.size });
    this.bytes.set(data, at);
    this.size = Math.max(this.size, end);
  }

  truncate(length: number): void {
    this.undo.push({ at: length, old: this.bytes.slice(length, this.size), size: this.size });
    if (length < this.size) this.bytes.fill(0, length, this.size);
    else if (length > this.bytes.length) this.write(length, new Uint8Array(0));
    this.size = length;
  }

  revert(): void {
    for (const { at, old, size } of this.undo.reverse()) {
      this.bytes.set(old, at);
      this.size = size;
    }
    this.undo = [];
  }
}

export class MemoryDisk {
  readonly files = new Map<string, Content>();
  #session: MemorySession | undefined;
  /** Bytes beyond which writes fail as on a full disk. */
  capacity = Number.POSITIVE_INFINITY;
  /** Called before each operation that changes something; may throw, or crash the disk to cut the run short. */
  onOperation: ((operation: string, path: string) => void) | undefined;
  /** How long an operation takes before it has its effect; at once if not given. */
  delay: (() => Promise<void>) | undefined;

  session(): Disk {
    this.#session?.end();
    this.#session = new MemorySession(this);
    return this.#session;
  }

  /** Power off: unsynced writes are gone, and the session with them. */
  crash(): void {
    this.#session?.end();
    this.#session = undefined;
    for (const content of this.files.values()) content.revert();
  }

  used(): number {
    let bytes = 0;
    for (const content of this.files.values()) bytes += content.size;
    return bytes;
  }

  paths(prefix: string): string[] {
    return [...this.files.keys()].filter((path) => path.startsWith(prefix)).sort();
  }
}

class MemorySession implements Disk {
  #ended = false;

  constructor(private readonly disk: MemoryDisk) {}

  end(): void {
    this.#ended = true;
  }

  /** Runs an operation unless the session has ended, in which case the caller waits for ever. */
  async run<T>(operation: string, path: string, body: () => T): Promise<T> {
    await (this.disk.delay?.() ?? Promise.resolve());
    if (!this.#ended) this.disk.onOperation?.(operation, path);
    if (this.#ended) return new Promise<T>(() => {});
    const result = body();
    await Promise.resolve();
    return this.#ended ? new Promise<T>(() => {}) : result;
  }

  room(more: number): void {
    if (this.disk.used() + more > this.disk.capacity)
      throw new FatalError("OSTRAKA_DISK_FULL", "no space left");
  }

  open(path: string, options: { create: boolean; dsync?: boolean }): Promise<DiskFile> {
    return this.run("open", path, () => {
      let content = this.disk.files.get(path);
      if (content === undefined) {
        if (!options.create) throw new FatalError("OSTRAKA_IO", `no such file: ${path}`);
        content = new Content();
        this.disk.files.set(path, content);
      }
      return new MemoryFile(this, path, content, options.dsync ?? false);
    });
  }

  list(directory: string): Promise<string[]> {
    return this.run("list", directory, () => {
      const prefix = `${directory}/`;
      const names = new Set<string>();
      for (const path of this.disk.files.keys())
        if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split("/")[0] as string);
      return [...names].sort();
    });
  }

  exists(path: string): Promise<boolean> {
    return this.run("exists", path, () => this.disk.files.has(path));
  }

  readFile(path: string): Promise<Uint8Array> {
    return this.run("readFile", path, () => {
      const content = this.disk.files.get(path);
      if (content === undefined) throw new FatalError("OSTRAKA_IO", `no such file: ${path}`);
      return content.bytes.slice(0, content.size);
    });
  }

  writeFile(path: string, bytes: Uint8Array): Promise<void> {
    return this.run("writeFile", path, () => {
      this.room(bytes.length);
      const content = new Content();
      content.write(0, bytes);
      content.undo = [];
      this.disk.files.set(path, content);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.run("rename", to, () => {
      const content = this.disk.files.get(from);
      if (content === undefined) throw new FatalError("OSTRAKA_IO", `no such file: ${from}`);
      this.disk.files.delete(from);
      this.disk.files.set(to, content);
    });
  }

  remove(path: string): Promise<void> {
    return this.run("remove", path, () => void this.disk.files.delete(path));
  }

  makeDirectory(path: string): Promise<void> {
    return this.run("makeDirectory", path, () => {});
  }

  syncDirectory(path: string): Promise<void> {
    return this.run("syncDirectory", path, () => {});
  }
}

class MemoryFile implements DiskFile {
  constructor(
    private readonly session: MemorySession,
    readonly path: string,
    private readonly content: Content,
    private readonly dsync: boolean,
  ) {}

  size(): number {
    return this.content.size;
  }

  write(offset: number, chunks: readonly Uint8Array[]): Promise<void> {
    return this.session.run("write", this.path, () => {
      const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      this.session.room(Math.max(0, offset + length - this.content.size));
      let at = offset;
      for (const chunk of chunks) {
        this.content.write(at, chunk);
        at += chunk.length;
      }
      if (this.dsync) this.content.undo = [];
    });
  }

  sync(): Promise<void> {
    return this.session.run("sync", this.path, () => {
      this.content.undo = [];
    });
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.session.run("read", this.path, () => this.readSync(offset, length));
  }

  readSync(offset: number, length: number): Uint8Array {
    return this.content.bytes.slice(offset, Math.min(offset + length, this.content.size));
  }

  truncate(length: number): Promise<void> {
    return this.session.run("truncate", this.path, () => this.content.truncate(length));
  }

  close(): Promise<void> {
    return this.session.run("close", this.path, () => {});
  }
}
