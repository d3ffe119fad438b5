/**
 * A network in memory: frames are delayed, lost and cut by a seed; what arrives is a copy. In order per pair of nodes.
 * A node attaches once a start; detaching (a crash) cuts it off at once, and what its former self still sends or is
 * sent goes nowhere.
 */
import { pack, unpack } from "msgpackr";
import type { NodeId } from "../../src/base/ids.js";
import type { Clock, Random } from "../../src/base/io.js";
import type {
  MachineSnapshot,
  PeerFrame,
  PeerHandler,
  PeerTransport,
  SnapshotHeader,
} from "../../src/multiraft/types.js";

export interface NetworkOptions {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  /** Of frames, in [0, 1]. */
  readonly loss: number;
  readonly chunkBytes: number;
}

const DEFAULT_NETWORK: NetworkOptions = { minDelayMs: 1, maxDelayMs: 1, loss: 0, chunkBytes: 16 * 1024 };

export class MemoryNetwork {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #endpoints = new Map<NodeId, Endpoint>();
  readonly #cuts = new Set<string>();
  readonly #lastArrival = new Map<string, number>();
  options: NetworkOptions;
  frames = 0;
  /** Changes a snapshot's bytes on their way. */
  corruptSnapshots: ((chunk: Uint8Array, offset: number) => Uint8Array) | undefined;
  /** Called before each chunk of a snapshot is delivered. */
  onChunk: ((from: NodeId, to: NodeId, offset: number) => void) | undefined;
  /** Sees every frame before it is sent. */
  observe: ((from: NodeId, to: NodeId, frame: PeerFrame) => void) | undefined;

  constructor(clock: Clock, random: Random, options: Partial<NetworkOptions> = {}) {
    this.#clock = clock;
    this.#random = random;
    this.options = { ...DEFAULT_NETWORK, ...options };
  }

  /** `pausedMs`: for how long the node does not read its sockets; what arrives meanwhile waits in them. */
  attach(id: NodeId, pausedMs: () => number = () => 0): PeerTransport {
    const endpoint = new Endpoint(this, id, pausedMs);
    this.#endpoints.set(id, endpoint);
    return endpoint;
  }

  detach(id: NodeId): void {
    this.#endpoints.delete(id);
  }

  /** One way. */
  cut(from: NodeId, to: NodeId): void {
    this.#cuts.add(`${from}>${to}`);
  }

  isolate(id: NodeId, others: readonly NodeId[]): void {
    for (const other of others) {
      if (other === id) continue;
      this.cut(id, other);
      this.cut(other, id);
    }
  }

  heal(): void {
    this.#cuts.clear();
  }

  connected(from: Endpoint, to: NodeId): Endpoint | undefined {
    if (this.#endpoints.get(from.id) !== from || this.#cuts.has(`${from.id}>${to}`)) return undefined;
    return this.#endpoints.get(to);
  }

  deliver(from: Endpoint, to: NodeId, frame: PeerFrame): void {
    if (this.#endpoints.get(from.id) !== from) return;
    this.observe?.(from.id, to, frame);
    this.frames++;
    const bytes = pack(frame);
    if (this.#random.float() < this.options.loss) return;
    const arrive = (): void => {
      const target = this.connected(from, to);
      const wait = target?.pausedMs() ?? 0;
      if (wait > 0) this.#clock.setTimer(wait, arrive);
      else target?.handler?.onFrame(from.id, unpack(bytes) as PeerFrame);
    };
    this.#clock.setTimer(this.delay(from.id, to), arrive);
  }

  /** Milliseconds until something sent now arrives: never before what was sent earlier. */
  delay(from: NodeId, to: NodeId): number {
    const { minDelayMs, maxDelayMs } = this.options;
    const now = this.#clock.monotonicMs();
    const pair = `${from}>${to}`;
    const drawn = now + minDelayMs + this.#random.float() * (maxDelayMs - minDelayMs);
    const arrival = Math.max(drawn, this.#lastArrival.get(pair) ?? 0);
    this.#lastArrival.set(pair, arrival);
    return arrival - now;
  }

  /** Rejects when the two can no longer talk, as a connection that is found dead does. */
  untilBroken(from: Endpoint, to: Endpoint): { readonly promise: Promise<never>; stop(): void } {
    let stopped = false;
    const promise = new Promise<never>((_, reject) => {
      const look = (): void => {
        if (stopped) return;
        if (this.connected(from, to.id) !== to) reject(new Error("the connection was cut"));
        else this.#clock.setTimer(100, look);
      };
      look();
    });
    promise.catch(() => {});
    return {
      promise,
      stop: () => {
        stopped = true;
      },
    };
  }

  pause(from: NodeId, to: NodeId): Promise<void> {
    return new Promise((resolve) => this.#clock.setTimer(this.delay(from, to), resolve));
  }
}

class Endpoint implements PeerTransport {
  handler: PeerHandler | undefined;

  constructor(
    private readonly network: MemoryNetwork,
    readonly id: NodeId,
    readonly pausedMs: () => number,
  ) {}

  receive(handler: PeerHandler): void {
    this.handler = handler;
  }

  send(to: NodeId, frame: PeerFrame): void {
    this.network.deliver(this, to, frame);
  }

  async sendSnapshot(to: NodeId, header: SnapshotHeader, source: MachineSnapshot): Promise<void> {
    const target = this.network.connected(this, to);
    if (target?.handler === undefined) throw new Error(`node ${to} cannot be reached`);
    const copy = unpack(pack(header)) as SnapshotHeader;
    const broken = this.network.untilBroken(this, target);
    try {
      await Promise.race([
        target.handler.onSnapshot(this.id, copy, this.#chunks(target, source)),
        broken.promise,
      ]);
    } finally {
      broken.stop();
    }
  }

  async *#chunks(target: Endpoint, source: MachineSnapshot): AsyncIterable<Uint8Array> {
    const { chunkBytes } = this.network.options;
    for (let offset = 0; offset < source.bytes; offset += chunkBytes) {
      const chunk = await source.read(offset, Math.min(chunkBytes, source.bytes - offset));
      await this.network.pause(this.id, target.id);
      this.network.onChunk?.(this.id, target.id, offset);
      if (this.network.connected(this, target.id) !== target) throw new Error("the connection was cut");
      const copy = chunk.slice();
      yield this.network.corruptSnapshots?.(copy, offset) ?? copy;
    }
  }
}
