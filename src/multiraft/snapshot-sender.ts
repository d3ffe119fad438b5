/**
 * Streams snapshots to peers that have fallen behind the log: at most one at a time to a peer and a few in all.
 * What travels is the state's bytes followed by their SHA-256, computed as they are read.
 *
 * Invariants:
 * 1. Every request ends in exactly one `reportSnapshot`, or the group is gone.
 * 2. What failed is told late, and later with every time, so that a peer that cannot take it does not have a copy of the
 *    whole state made at every heartbeat. Nothing waits here for what only more disk space can bring.
 * 3. While a snapshot is made and sent, the log behind it is kept (within compaction's hard bound), so that the
 *    peer can go on from it.
 */
import { createHash, type Hash } from "node:crypto";
import { FatalError, RetryError } from "../base/errors.js";
import type { LogIndex, NodeId } from "../base/ids.js";
import { isDiskFull } from "../log/writer.js";
import type { HostLogger } from "./options.js";
import type { Replica } from "./replica.js";
import type { MachineSnapshot, PeerTransport, SnapshotHeader } from "./types.js";

export const TRAILER_BYTES = 32;
const CATCH_UP_BYTES = 1024 * 1024;
/** After the first failure, and at most after many. */
const AGAIN_MS = 500;
const MAX_AGAIN_MS = 10_000;

/** A snapshot with its hash at the end. Meant to be read in order; anything else only costs a second read. */
export class HashedSnapshot implements MachineSnapshot {
  readonly #inner: MachineSnapshot;
  readonly #hash: Hash = createHash("sha256");
  #hashedBytes = 0;
  #trailer: Uint8Array | undefined;
  /** Why the state could not be read. */
  failure: unknown;

  constructor(inner: MachineSnapshot) {
    this.#inner = inner;
  }

  get appliedIndex(): LogIndex {
    return this.#inner.appliedIndex;
  }

  get bytes(): number {
    return this.#inner.bytes + TRAILER_BYTES;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    try {
      return await this.#read(offset, length);
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    const body = this.#inner.bytes;
    const end = Math.min(offset + length, this.bytes);
    const parts: Uint8Array[] = [];
    if (offset < body) {
      const chunk = await this.#inner.read(offset, Math.min(end, body) - offset);
      if (chunk.length !== Math.min(end, body) - offset)
        throw new FatalError("OSTRAKA_IO", `a snapshot of ${body} bytes ends at ${offset + chunk.length}`);
      if (offset === this.#hashedBytes) this.#update(chunk);
      parts.push(chunk);
    }
    if (end > body) {
      const trailer = await this.#finish();
      parts.push(trailer.subarray(Math.max(offset, body) - body, end - body));
    }
    return parts.length === 1 ? (parts[0] as Uint8Array) : concat(parts);
  }

  release(): Promise<void> {
    return this.#inner.release();
  }

  #update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#hashedBytes += chunk.length;
  }

  async #finish(): Promise<Uint8Array> {
    while (this.#hashedBytes < this.#inner.bytes) {
      const rest = this.#inner.bytes - this.#hashedBytes;
      this.#update(await this.#inner.read(this.#hashedBytes, Math.min(rest, CATCH_UP_BYTES)));
    }
    this.#trailer ??= new Uint8Array(this.#hash.digest());
    return this.#trailer;
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

interface Request {
  readonly replica: Replica;
  readonly to: NodeId;
}

export interface SnapshotSenderHost {
  readonly transport: PeerTransport;
  readonly logger: HostLogger;
  readonly maxSending: number;
  markDirty(replica: Replica): void;
  fail(error: unknown): void;
  later(delayMs: number, run: () => void): void;
}

export class SnapshotSender {
  readonly #host: SnapshotSenderHost;
  #waiting: Request[] = [];
  readonly #busyPeers = new Set<NodeId>();
  /** How often in a row it has failed. */
  readonly #failures = new WeakMap<Replica, Map<NodeId, number>>();
  sent = 0;

  constructor(host: SnapshotSenderHost) {
    this.#host = host;
  }

  request(replica: Replica, to: NodeId): void {
    if (this.#waiting.some((waiting) => waiting.replica === replica && waiting.to === to)) return;
    this.#waiting.push({ replica, to });
    this.#pump();
  }

  #pump(): void {
    while (this.#busyPeers.size < this.#host.maxSending) {
      const at = this.#waiting.findIndex(({ to }) => !this.#busyPeers.has(to));
      if (at < 0) return;
      const [request] = this.#waiting.splice(at, 1) as [Request];
      this.#busyPeers.add(request.to);
      void this.#run(request);
    }
  }

  async #run(request: Request): Promise<void> {
    const { replica, to } = request;
    let ok = false;
    try {
      ok = await this.#send(request);
      if (ok) this.sent++;
    } catch (error) {
      if (error instanceof FatalError && !isDiskFull(error) && !replica.closed) this.#host.fail(error);
      this.#host.logger.warn({ group: replica.group, to, err: error }, "a snapshot was not delivered");
    }
    this.#busyPeers.delete(to);
    this.#report(request, ok);
    this.#pump();
  }

  #report({ replica, to }: Request, ok: boolean): void {
    const { term } = replica.node;
    const report = (): void => {
      // Another leadership has asked, or will ask, for one of its own.
      if (replica.closed || replica.node.term !== term) return;
      replica.node.reportSnapshot(to, ok);
      this.#host.markDirty(replica);
    };
    if (ok || replica.node.role !== "leader") {
      this.#failures.get(replica)?.delete(to);
      report();
      return;
    }
    const failures = this.#failures.get(replica) ?? new Map<NodeId, number>();
    this.#failures.set(replica, failures);
    const times = failures.get(to) ?? 0;
    failures.set(to, times + 1);
    this.#host.later(Math.min(MAX_AGAIN_MS, AGAIN_MS * 2 ** times), report);
  }

  async #send({ replica, to }: Request): Promise<boolean> {
    if (replica.closed || replica.node.role !== "leader") return false;
    const floor = replica.applier.appliedIndex;
    const release = replica.keepLogFrom(floor);
    try {
      const source = await replica.machine.snapshot();
      try {
        // The copy may have what the machine applied but this thread has not heard of.
        await replica.waitApplied(source.appliedIndex, true);
        const term = replica.log.term(source.appliedIndex);
        // The machine may have been replaced by another snapshot, or the node deposed, while the copy was made.
        if (replica.closed || replica.node.role !== "leader" || term === undefined) return false;
        const hashed = new HashedSnapshot(source);
        const conf = replica.node.confAt(source.appliedIndex);
        const header: SnapshotHeader = {
          group: replica.group,
          term: replica.node.term,
          meta: { index: source.appliedIndex, term, conf },
          bytes: hashed.bytes,
        };
        await this.#host.transport.sendSnapshot(to, header, hashed).catch((error: unknown) => {
          // What is fatal to the receiver is nothing of this node's.
          throw hashed.failure ?? new RetryError("OSTRAKA_UNAVAILABLE", String(error), { cause: error });
        });
        return true;
      } finally {
        await source.release();
      }
    } finally {
      release();
    }
  }
}
