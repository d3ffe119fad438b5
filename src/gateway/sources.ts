/**
 * Reading a range from a node that has no replica of it: a pin on another node's replica, held by a process there, and
 * its rows fetched in chunks. Both ends.
 *
 * A source is closed by whoever opened it, or by the serving node once nobody has used it for a while.
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
/** A source that nobody has read from for so long belongs to a gateway that is gone. */
const IDLE_MS = 10 * 60_000;

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

  constructor(calls: Caller, self: NodeId) {
    this.#calls = calls;
    this.#self = self;
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
    const opened = (await deadline.race(call("open", [range, generation, index], OPEN_MS))) as {
      id: number;
      appliedIndex: LogIndex;
    };
    return {
      appliedIndex: opened.appliedIndex,
      async *scan(load, within) {
        let scan: number | undefined;
        for (;;) {
          const answer = (await within.race(
            scan === undefined
              ? call("scan", [opened.id, packLoad(load)], CALL_MS)
              : call("next", [opened.id, scan], CALL_MS),
          )) as { scan: number; rows: Uint8Array | undefined; count: number };
          if (answer.rows === undefined) return;
          scan = answer.scan;
          yield { rows: answer.rows, count: answer.count };
        }
      },
      close: () => void call("close", [opened.id], OPEN_MS).catch(() => {}),
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
  readonly #served = new Map<number, Served>();
  readonly #clock: Clock;
  #lastId = 0;

  constructor(parts: GatewayParts, local: (range: GroupId) => LocalRange | undefined) {
    this.#parts = parts;
    this.#local = local;
    this.#clock = parts.clock;
  }

  serve(calls: Server): void {
    calls.serve("source.open", ([range, generation, index]) =>
      this.#open(range as GroupId, generation as number, index as LogIndex),
    );
    calls.serve("source.scan", async ([id, load]) => {
      const served = this.#use(id as number);
      const stream = await served.runner.scan(served.source, unpackLoad(load as PackedLoad), this.#options());
      const scan = ++this.#lastId;
      served.scans.set(scan, stream);
      return this.#next(served, scan);
    });
    calls.serve("source.next", ([id, scan]) => this.#next(this.#use(id as number), scan as number));
    calls.serve("source.close", async ([id]) => this.#close(id as number));
  }

  close(): void {
    for (const id of [...this.#served.keys()]) this.#close(id);
  }

  async #open(range: GroupId, generation: number, index: LogIndex) {
    const local = this.#local(range);
    if (local === undefined) throw new RouteError(`no replica of range ${range} is here`, undefined);
    await local.handle.waitApplied(index);
    const runner = await this.#parts.heldRunners.acquire();
    try {
      const { source, appliedIndex } = await runner.addSource(local.store.path);
      await local.handle.waitApplied(appliedIndex);
      if (local.store.state().descriptor.generation !== generation)
        throw new RetryError("OSTRAKA_UNAVAILABLE", `range ${range} has changed`);
      const id = ++this.#lastId;
      this.#served.set(id, { runner, source, scans: new Map(), idle: undefined });
      this.#use(id);
      return { id, appliedIndex };
    } catch (error) {
      this.#parts.heldRunners.release(runner);
      throw error;
    }
  }

  #use(id: number): Served {
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

  #close(id: number): void {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    served.idle?.cancel();
    if (served.runner.dead) this.#parts.heldRunners.release(served.runner);
    else
      served.runner
        .dropSources()
        .catch(() => served.runner.kill())
        .finally(() => this.#parts.heldRunners.release(served.runner));
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
