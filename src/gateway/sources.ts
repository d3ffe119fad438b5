/**
 * Reading a range from a node that has no replica of it: a pin on another node's replica, held by a process there, and
 * its rows fetched in chunks. Both ends.
 *
 * A source is named by whoever opens it, and closed by them even when they do not know whether it was opened. While it is
 * open they say so again and again; the serving node closes what nobody has spoken of for a while: each takes a process.
 */
import { RetryError, RouteError } from "../base/errors.js";
import type { GroupId, LogIndex, NodeId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import { decodeVector, encodeVector, type SqlValue } from "../base/values.js";
import type { RowStream, Runner, ScratchCondition, ScratchLoad } from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { PeerCalls } from "../rpc/peer-calls.js";
import type { Deadline } from "./deadline.js";
import type { LocalRange } from "./ranges.js";
import type { GatewayParts } from "./replica.js";

const OPEN_MS = 10_000;
const CALL_MS = 30_000;
const KEEP_MS = 4_000;
/** A source that nobody has spoken of for so long belongs to a gateway that is gone. */
const IDLE_MS = 15_000;

export interface SourceChunk {
  readonly rows: Uint8Array;
  readonly count: number;
}

export interface RemoteSource {
  readonly appliedIndex: LogIndex;
  /** Chunks of rows as `Runner.fill` takes them, or of a query's. */
  scan(load: ScratchLoad, deadline: Deadline): AsyncIterable<SourceChunk>;
  close(): void;
}

type Caller = Pick<PeerCalls, "call">;
type Server = Pick<PeerCalls, "serve">;

export class RemoteSources {
  readonly #calls: Caller;
  readonly #self: NodeId;
  readonly #clock: Clock;
  /** Unique to this start of this node. */
  readonly #origin: string;
  #opened = 0;

  constructor(calls: Caller, self: NodeId, { clock, random }: Pick<GatewayParts, "clock" | "random">) {
    this.#calls = calls;
    this.#self = self;
    this.#clock = clock;
    this.#origin = Array.from(random.bytes(9), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Pins the range on some node that has it and has applied `index`, and there is at `generation` still. */
  async open(descriptor: RangeDescriptor, index: LogIndex, deadline: Deadline): Promise<RemoteSource> {
    let failure: unknown = new RouteError(`no node is known to have range ${descriptor.range}`, undefined);
    for (const node of descriptor.replicas) {
      if (node === this.#self) continue;
      try {
        return await this.#open(node, descriptor, index, deadline);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async #open(
    node: NodeId,
    { range, generation }: RangeDescriptor,
    index: LogIndex,
    deadline: Deadline,
  ): Promise<RemoteSource> {
    const call = (method: string, args: readonly unknown[], timeoutMs: number) =>
      this.#calls.call(node, `source.${method}`, args, { timeoutMs });
    const id = `${this.#origin}-${++this.#opened}`;
    const close = (): void => void call("close", [id], OPEN_MS).catch(() => {});
    let appliedIndex: LogIndex;
    try {
      const opened = call("open", [id, range, generation, index], OPEN_MS);
      appliedIndex = (await deadline.race(opened)) as LogIndex;
    } catch (error) {
      close();
      throw error;
    }
    let keeping: Timer | undefined;
    const keep = (): void => {
      keeping = this.#clock.setTimer(KEEP_MS, () => {
        call("keep", [id], KEEP_MS).catch(() => {});
        keep();
      });
    };
    keep();
    return {
      appliedIndex,
      async *scan(load, within) {
        let scan: number | undefined;
        for (;;) {
          const answer = (await within.race(
            scan === undefined
              ? call("scan", [id, packLoad(load)], CALL_MS)
              : call("next", [id, scan], CALL_MS),
          )) as { scan: number; rows: Uint8Array | undefined; count: number };
          if (answer.rows === undefined) return;
          scan = answer.scan;
          yield { rows: answer.rows, count: answer.count };
        }
      },
      close: () => {
        keeping?.cancel();
        close();
      },
    };
  }
}

interface Served {
  readonly runner: Runner;
  readonly source: number;
  readonly scans: Map<number, RowStream>;
  idle: Timer | undefined;
}

/** Answers other nodes' gateways. */
export class SourceServer {
  readonly #parts: GatewayParts;
  readonly #local: (range: GroupId) => LocalRange | undefined;
  readonly #served = new Map<string, Served>();
  /** On their way; false once they were closed before they were open. */
  readonly #opening = new Map<string, boolean>();
  readonly #clock: Clock;
  #lastScan = 0;

  constructor(parts: GatewayParts, local: (range: GroupId) => LocalRange | undefined) {
    this.#parts = parts;
    this.#local = local;
    this.#clock = parts.clock;
  }

  serve(calls: Server): void {
    calls.serve("source.open", ([id, range, generation, index]) =>
      this.#open(id as string, range as GroupId, generation as number, index as LogIndex),
    );
    calls.serve("source.keep", async ([id]) => void this.#use(id as string));
    calls.serve("source.scan", async ([id, load]) => {
      const served = this.#use(id as string);
      const stream = await served.runner.scan(served.source, unpackLoad(load as PackedLoad), this.#options());
      const scan = ++this.#lastScan;
      served.scans.set(scan, stream);
      return this.#next(served, scan);
    });
    calls.serve("source.next", ([id, scan]) => this.#next(this.#use(id as string), scan as number));
    calls.serve("source.close", async ([id]) => this.#close(id as string));
  }

  close(): void {
    for (const id of [...this.#served.keys()]) this.#close(id);
  }

  async #open(id: string, range: GroupId, generation: number, index: LogIndex): Promise<LogIndex> {
    const local = this.#local(range);
    if (local === undefined) throw new RouteError(`no replica of range ${range} is here`, undefined);
    this.#opening.set(id, true);
    try {
      await local.handle.waitApplied(index);
      return await this.#pin(id, local, generation);
    } finally {
      this.#opening.delete(id);
    }
  }

  async #pin(id: string, local: LocalRange, generation: number): Promise<LogIndex> {
    const runner = await this.#parts.heldRunners.acquire();
    try {
      const { source, appliedIndex } = await runner.addSource(local.store.path);
      await local.handle.waitApplied(appliedIndex);
      if (local.store.state().descriptor.generation !== generation)
        throw new RetryError("OSTRAKA_UNAVAILABLE", "the range has changed");
      if (this.#opening.get(id) !== true)
        throw new RetryError("OSTRAKA_RETRY", "the snapshot on another node was given up");
      this.#served.set(id, { runner, source, scans: new Map(), idle: undefined });
      this.#use(id);
      return appliedIndex;
    } catch (error) {
      this.#letGo(runner);
      throw error;
    }
  }

  /** Without its sources. */
  #letGo(runner: Runner): void {
    const { heldRunners } = this.#parts;
    if (runner.dead) heldRunners.release(runner);
    else
      runner
        .dropSources()
        .catch(() => runner.kill())
        .finally(() => heldRunners.release(runner));
  }

  #use(id: string): Served {
    const served = this.#served.get(id);
    if (served === undefined)
      throw new RetryError("OSTRAKA_RETRY", "the snapshot on another node was given up");
    served.idle?.cancel();
    served.idle = this.#clock.setTimer(IDLE_MS, () => this.#close(id));
    return served;
  }

  async #next(
    served: Served,
    scan: number,
  ): Promise<{ scan: number; rows: Uint8Array | undefined; count: number }> {
    const chunk = await served.scans.get(scan)?.next();
    if (chunk !== undefined) return { scan, ...chunk };
    await served.scans.get(scan)?.close();
    served.scans.delete(scan);
    return { scan, rows: undefined, count: 0 };
  }

  #close(id: string): void {
    if (this.#opening.has(id)) this.#opening.set(id, false);
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    served.idle?.cancel();
    this.#letGo(served.runner);
  }

  #options() {
    const { maxResultBytes, maxRunnerBytes } = this.#parts.limits;
    return {
      systemTables: [],
      timeoutMs: undefined,
      maxResultBytes,
      maxMemoryBytes: maxRunnerBytes,
      signal: undefined,
    };
  }
}

type PackedLoad = [
  load: Omit<ScratchLoad, "slice" | "where">,
  slice: { low: Uint8Array | null; high: Uint8Array | null; lowAfter: boolean; highAfter: boolean },
  where: (Omit<ScratchCondition, "params"> & { readonly params: Uint8Array }) | null,
];

function packLoad({ slice, where, ...load }: ScratchLoad): PackedLoad {
  const packed = (values: readonly SqlValue[] | undefined) =>
    values === undefined ? null : encodeVector(values);
  return [
    load,
    {
      low: packed(slice.low),
      high: packed(slice.high),
      lowAfter: slice.lowAfter === true,
      highAfter: slice.highAfter === true,
    },
    where === undefined ? null : { ...where, params: encodeVector(where.params) },
  ];
}

function unpackLoad([load, { low, high, lowAfter, highAfter }, where]: PackedLoad): ScratchLoad {
  return {
    ...load,
    slice: {
      low: low === null ? undefined : decodeVector(low),
      high: high === null ? undefined : decodeVector(high),
      lowAfter,
      highAfter,
    },
    where: where === null ? undefined : { ...where, params: decodeVector(where.params) },
  };
}
