/**
 * Takes in snapshots and installs them by a plan that a crash may cut anywhere:
 *
 *   1. the bytes are written to a file, checked against length and SHA-256, fsynced and renamed to a name that says
 *      group, index and term;
 *   2. the core accepts the snapshot, and the log records durably that it now begins there;
 *   3. the machine restores from the file, durably;
 *   4. the file goes.
 *
 * After a crash: a log that begins behind the machine's applied index was between 2 and 3, so the file must be there
 * and is installed (its absence is fatal); any other file was received for nothing and is removed. The membership
 * that comes with a snapshot is in the log's record, so the name is all the metadata that the file needs.
 *
 * One snapshot a group at a time. A sender that is cut short leaves nothing but a temporary file. It is answered after
 * the third step, or once that has to wait for disk space.
 */
import { createHash } from "node:crypto";
import { FatalError, RetryError } from "../base/errors.js";
import type { GroupId, LogIndex, NodeId, Term } from "../base/ids.js";
import type { Disk, DiskFile } from "../base/io.js";
import { isDiskFull } from "../log/writer.js";
import { type Message, MessageType, type SnapshotMeta } from "../raft/types.js";
import type { Replica } from "./replica.js";
import { TRAILER_BYTES } from "./snapshot-sender.js";
import type { SnapshotHeader } from "./types.js";

const WRITE_BYTES = 1024 * 1024;

export interface SnapshotReceiverHost {
  readonly disk: Disk;
  readonly directory: string;
  readonly maxReceiving: number;
  replica(group: GroupId): Replica | undefined;
  markDirty(replica: Replica): void;
  fail(error: unknown): void;
}

interface Received {
  readonly meta: SnapshotMeta;
  readonly file: string;
  /** Settles the sender's call: installed, found to be of no use, or waiting for disk space. */
  done(): void;
}

/** What was received of a group, as of this entry. */
export function snapshotPath(directory: string, group: GroupId, index: LogIndex, term: Term): string {
  return `${directory}/g${group}-i${index}-t${term}.snapshot`;
}

export class SnapshotReceiver {
  readonly #host: SnapshotReceiverHost;
  readonly #receiving = new Set<GroupId>();
  /** Whole and durable, and stepped; the core has not said yet whether it wants it. */
  readonly #offered = new Map<GroupId, Received>();
  /** Accepted by the core; kept until the machine has it. */
  readonly #accepted = new Map<GroupId, Received>();
  installed = 0;

  constructor(host: SnapshotReceiverHost) {
    this.#host = host;
  }

  async receive(from: NodeId, header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const replica = this.#host.replica(header.group);
    if (replica === undefined || replica.closed)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `group ${header.group} is not on this node`);
    try {
      await this.#receive(replica, from, header, chunks);
    } catch (error) {
      // Of a group that goes away the files go too, under whoever writes them.
      if (error instanceof FatalError && !isDiskFull(error) && !replica.closed) this.#host.fail(error);
      throw error;
    }
  }

  async #receive(
    replica: Replica,
    from: NodeId,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
  ): Promise<void> {
    const message = snapshotMessage(header, from, replica.node.id);
    // The core answers to a snapshot that tells it nothing new; its bytes need not travel.
    if (header.meta.index <= replica.node.commitIndex || header.term < replica.node.term) {
      replica.step(message);
      return;
    }
    if (this.#receiving.has(header.group) || this.#accepted.has(header.group))
      throw new RetryError("OSTRAKA_UNAVAILABLE", "another snapshot of the group is being received");
    if (this.#receiving.size >= this.#host.maxReceiving)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "too many snapshots are being received");
    this.#receiving.add(header.group);
    try {
      const file = await this.#store(header, delivered(chunks));
      if (replica.closed) {
        await this.#host.disk.remove(file);
        throw new RetryError("OSTRAKA_UNAVAILABLE", "the group went away");
      }
      await new Promise<void>((resolve) => {
        this.#offered.set(header.group, { meta: header.meta, file, done: resolve });
        replica.step(message);
      });
    } finally {
      this.#receiving.delete(header.group);
    }
  }

  /** The core took the snapshot: answers the file that has its bytes. */
  accept(replica: Replica, meta: SnapshotMeta): string {
    const offered = this.#offered.get(replica.group);
    if (offered === undefined || offered.meta.index !== meta.index || offered.meta.term !== meta.term)
      throw new FatalError("OSTRAKA_INVARIANT", `group ${replica.group} accepted a snapshot nobody sent`);
    this.#offered.delete(replica.group);
    this.#accepted.set(replica.group, offered);
    return offered.file;
  }

  /** After a turn in which the core did not take what it was offered, or the group closed. */
  dropOffered(group: GroupId): void {
    const offered = this.#offered.get(group);
    if (offered === undefined) return;
    this.#offered.delete(group);
    this.#remove(offered);
  }

  /** The machine has it. */
  restored(group: GroupId): void {
    const accepted = this.#accepted.get(group);
    if (accepted === undefined) return;
    this.#accepted.delete(group);
    this.installed++;
    this.#remove(accepted);
  }

  /**
   * What is received waits for disk space, of one group or of all: it is here, durably, and installed in time. Whoever
   * sent it has others to send to.
   */
  stalled(group?: GroupId): void {
    for (const [accepted, { done }] of this.#accepted) if (group === undefined || accepted === group) done();
  }

  /** The group goes away: senders are told so, files are left to `pending` or `discard`. */
  close(group: GroupId): void {
    this.dropOffered(group);
    this.#accepted.get(group)?.done();
    this.#accepted.delete(group);
  }

  /** At start: the file that must be installed before the group can open; fatal when it is missing. */
  async pending(group: GroupId, index: LogIndex, term: Term): Promise<string | undefined> {
    const file = this.#path(group, index, term);
    return (await this.#host.disk.exists(file)) ? file : undefined;
  }

  /** Removes whatever was received for a group. */
  async discard(group: GroupId): Promise<void> {
    const prefix = `g${group}-`;
    for (const name of await this.#host.disk.list(this.#host.directory))
      if (name.startsWith(prefix)) await this.#host.disk.remove(`${this.#host.directory}/${name}`);
  }

  async #store(header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<string> {
    const { disk } = this.#host;
    const path = this.#path(header.group, header.meta.index, header.meta.term);
    const temporary = `${path}.part`;
    await disk.remove(temporary);
    const file = await disk.open(temporary, { create: true });
    try {
      await writeChecked(file, header.bytes, chunks);
      await file.sync();
    } catch (error) {
      await file.close();
      await disk.remove(temporary);
      throw error;
    }
    await file.close();
    await disk.rename(temporary, path);
    return path;
  }

  #remove(received: Received): void {
    this.#host.disk.remove(received.file).then(received.done, (error: unknown) => this.#host.fail(error));
  }

  #path(group: GroupId, index: LogIndex, term: Term): string {
    return snapshotPath(this.#host.directory, group, index, term);
  }
}

/** At start: those of groups that are not here were left by a crash while the group was being removed. */
export async function removeStraySnapshots(
  disk: Disk,
  directory: string,
  here: readonly GroupId[],
): Promise<void> {
  const groups = new Set<number>(here);
  for (const name of await disk.list(directory)) {
    const group = /^g(\d+)-/.exec(name)?.[1];
    if (group !== undefined && !groups.has(Number(group))) await disk.remove(`${directory}/${name}`);
  }
}

/** Whatever ends the delivery early is nothing of this node's. */
async function* delivered(chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  try {
    yield* chunks;
  } catch (error) {
    throw new RetryError("OSTRAKA_UNAVAILABLE", `a snapshot was cut short: ${String(error)}`, {
      cause: error,
    });
  }
}

/** Writes all but the trailer, and checks length and hash; the memory it needs does not depend on the length. */
async function writeChecked(file: DiskFile, bytes: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const bodyBytes = bytes - TRAILER_BYTES;
  if (bodyBytes < 0) throw damaged(`it is announced with ${bytes} bytes`);
  const hash = createHash("sha256");
  const trailer = new Uint8Array(TRAILER_BYTES);
  let received = 0;
  let written = 0;
  let buffered: Uint8Array[] = [];
  let bufferedBytes = 0;
  const drain = async (): Promise<void> => {
    if (bufferedBytes > 0) await file.write(written, buffered);
    written += bufferedBytes;
    buffered = [];
    bufferedBytes = 0;
  };
  for await (const chunk of chunks) {
    if (received + chunk.length > bytes) throw damaged(`it is longer than ${bytes} bytes`);
    const body = chunk.subarray(0, Math.max(0, Math.min(chunk.length, bodyBytes - received)));
    if (body.length < chunk.length)
      trailer.set(chunk.subarray(body.length), received + body.length - bodyBytes);
    received += chunk.length;
    if (body.length > 0) {
      hash.update(body);
      buffered.push(body);
      bufferedBytes += body.length;
      if (bufferedBytes >= WRITE_BYTES) await drain();
    }
  }
  await drain();
  if (received !== bytes) throw damaged(`it ended after ${received} of ${bytes} bytes`);
  const digest = hash.digest();
  if (!trailer.every((byte, i) => byte === digest[i])) throw damaged("its hash does not match");
}

function damaged(what: string): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", `a snapshot arrived damaged: ${what}`);
}

function snapshotMessage(header: SnapshotHeader, from: NodeId, to: NodeId): Message {
  const { meta } = header;
  return {
    type: MessageType.Snapshot,
    from,
    to,
    term: header.term,
    index: meta.index,
    logTerm: meta.term,
    entries: [],
    commit: meta.index,
    reject: false,
    rejectHint: 0 as LogIndex,
    context: 0,
    snapshot: meta,
  };
}
