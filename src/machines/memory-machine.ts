/**
 * Hosts a StateMachine that lives in memory: the state is what the last snapshot file says and the entries applied
 * since. After a restart the log replays what came after the file.
 *
 * Invariants:
 * 1. The file's name has its applied index; it is written atomically, and older ones go only after the newer one is
 *    durable. So the last whole file is always one that the log reaches back to.
 * 2. Bytes are [magic, applied index, state]. The digest covers the state alone, so that it is equal on replicas at
 *    equal applied index whatever they have checkpointed.
 */
import { createHash } from "node:crypto";
import { assert } from "../base/assert.js";
import { FatalError } from "../base/errors.js";
import { type LogIndex, logIndex } from "../base/ids.js";
import type { Disk } from "../base/io.js";
import type { GroupMachine, MachineSnapshot } from "../multiraft/types.js";
import type { Entry } from "../raft/types.js";
import type { StateMachine } from "./state-machine.js";

const MAGIC = 0x4f4d5331; // "OMS1"
const HEADER_BYTES = 12;
const SUFFIX = ".state";

export interface MemoryMachineOptions {
  readonly machine: StateMachine;
  readonly disk: Disk;
  /** Of this machine alone. */
  readonly directory: string;
}

export class MemoryMachine implements GroupMachine {
  readonly #machine: StateMachine;
  readonly #disk: Disk;
  readonly #directory: string;
  #applied: LogIndex = logIndex(0);
  #durable: LogIndex = logIndex(0);
  #open = false;

  constructor({ machine, disk, directory }: MemoryMachineOptions) {
    this.#machine = machine;
    this.#disk = disk;
    this.#directory = directory;
  }

  async open(): Promise<LogIndex> {
    await this.#disk.makeDirectory(this.#directory);
    const files = await this.#files();
    const last = files[files.length - 1];
    if (last !== undefined) {
      this.#install(await this.#disk.readFile(this.#path(last)));
      this.#durable = this.#applied;
      if (this.#applied !== last)
        throw new FatalError("OSTRAKA_CORRUPT", `${this.#path(last)} has the state of ${this.#applied}`);
      await this.#removeOlder(files, last);
    }
    this.#open = true;
    return this.#applied;
  }

  async apply(entries: readonly Entry[], upTo: LogIndex): Promise<readonly Uint8Array[]> {
    assert(this.#open, "apply on a machine that is not open");
    const first = entries[0];
    assert(first === undefined || first.index > this.#applied, `entry ${first?.index} is applied already`);
    assert(upTo >= this.#applied, `applied index ${this.#applied} cannot go back to ${upTo}`);
    const results = entries.length > 0 ? this.#machine.apply(entries) : [];
    assert(results.length === entries.length, `${results.length} results for ${entries.length} entries`);
    this.#applied = upTo;
    return results;
  }

  async checkpoint(): Promise<LogIndex> {
    const at = this.#applied;
    if (at <= this.#durable) return this.#durable;
    await this.#write(at, this.#encode());
    return at;
  }

  async snapshot(): Promise<MachineSnapshot> {
    const bytes = this.#encode();
    return {
      appliedIndex: this.#applied,
      bytes: bytes.length,
      read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
      release: () => Promise.resolve(),
    };
  }

  async restore(file: string): Promise<LogIndex> {
    const bytes = await this.#disk.readFile(file);
    const index = appliedIndexOf(bytes);
    await this.#write(index, bytes);
    this.#install(bytes);
    return index;
  }

  async digest(): Promise<{ readonly appliedIndex: LogIndex; readonly digest: string }> {
    const digest = createHash("sha256").update(this.#machine.snapshot()).digest("hex");
    return { appliedIndex: this.#applied, digest };
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  #encode(): Uint8Array {
    const state = this.#machine.snapshot();
    const bytes = new Uint8Array(HEADER_BYTES + state.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, MAGIC);
    view.setBigUint64(4, BigInt(this.#applied));
    bytes.set(state, HEADER_BYTES);
    return bytes;
  }

  #install(bytes: Uint8Array): void {
    const index = appliedIndexOf(bytes);
    this.#machine.restore(bytes.subarray(HEADER_BYTES));
    this.#applied = index;
  }

  async #write(index: LogIndex, bytes: Uint8Array): Promise<void> {
    await this.#disk.writeFile(this.#path(index), bytes);
    if (index > this.#durable) this.#durable = index;
    await this.#removeOlder(await this.#files(), this.#durable);
  }

  async #removeOlder(files: readonly LogIndex[], than: LogIndex): Promise<void> {
    for (const index of files) if (index < than) await this.#disk.remove(this.#path(index));
  }

  async #files(): Promise<LogIndex[]> {
    const names = await this.#disk.list(this.#directory);
    return names
      .filter((name) => name.endsWith(SUFFIX) && /^\d{16}$/.test(name.slice(0, -SUFFIX.length)))
      .map((name) => logIndex(Number(name.slice(0, -SUFFIX.length))))
      .sort((a, b) => a - b);
  }

  #path(index: LogIndex): string {
    return `${this.#directory}/${String(index).padStart(16, "0")}${SUFFIX}`;
  }
}

function appliedIndexOf(bytes: Uint8Array): LogIndex {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || view.getUint32(0) !== MAGIC)
    throw new FatalError("OSTRAKA_CORRUPT", "a state file that is none");
  return logIndex(Number(view.getBigUint64(4)));
}
