/**
 * Serves other nodes' gateways (sources.ts) what they need of this node's replicas: for each of their snapshots one
 * process that holds pins of all the ranges asked for together.
 *
 * Invariants:
 * 1. Whoever waits here for a process holds none of this pool, and nobody who has one waits for another here: what is
 *    served always comes to an end, and its process is free again.
 * 2. What nobody has spoken of for a while belongs to a gateway that is gone, and is closed.
 * 3. What runs for a snapshot ends with it, however long it would have taken.
 */
import { RetryError, RouteError, toWireError } from "../base/errors.js";
import type { GroupId, LogIndex } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { RowStream, Runner, RunnerPool } from "../machines/range/types.js";
import type { PeerCalls } from "../rpc/peer-calls.js";
import type { LocalRange } from "./ranges.js";
import type { GatewayParts } from "./replica.js";
import {
  type PackedLoad,
  type ScanAnswer,
  type SourceAnswer,
  type SourceChunk,
  unpackLoad,
  type WantedSource,
} from "./source-wire.js";

const IDLE_MS = 15_000;
/** A replica that lags by more would be pinned when the fence is gone. */
const REACH_MS = 1_000;
/** Whoever asks for rows hears so much later, at the latest, that there are none yet: a call must not be given up. */
const ANSWER_MS = 5_000;

interface Served {
  readonly runner: Runner;
  /** The runner's number of each range that is pinned. */
  readonly sources: ReadonlyMap<GroupId, number>;
  readonly scans: Map<number, Scan>;
  /** Ends with it. */
  readonly ending: AbortController;
  idle: Timer | undefined;
}

interface Scan {
  readonly stream: Promise<RowStream>;
  /** Asked for, and not answered yet. */
  next: Promise<SourceChunk | undefined> | undefined;
}

const NOTHING_YET: SourceChunk = { rows: new Uint8Array(0), count: 0 };

export class SourceServer {
  readonly #parts: Pick<GatewayParts, "clock" | "limits">;
  readonly #runners: RunnerPool;
  readonly #local: (range: GroupId) => LocalRange | undefined;
  readonly #served = new Map<string, Served>();
  /** On their way; false once they were closed before they were open. */
  readonly #opening = new Map<string, boolean>();
  readonly #clock: Clock;
  #lastScan = 0;

  /** `runners` are for this alone: whoever opens sources elsewhere holds a process of another pool meanwhile. */
  constructor(
    parts: Pick<GatewayParts, "clock" | "limits">,
    runners: RunnerPool,
    local: (range: GroupId) => LocalRange | undefined,
  ) {
    this.#parts = parts;
    this.#runners = runners;
    this.#local = local;
    this.#clock = parts.clock;
  }

  serve(calls: Pick<PeerCalls, "serve">): void {
    calls.serve("source.open", ([id, wanted], { signal }) =>
      this.#open(id as string, wanted as readonly WantedSource[], signal),
    );
    calls.serve("source.keep", async ([id]) => void this.#use(id as string));
    calls.serve("source.scan", ([id, range, load]) =>
      this.#scan(this.#use(id as string), range as GroupId, load as PackedLoad),
    );
    calls.serve("source.next", ([id, scan]) => this.#next(this.#use(id as string), scan as number));
    calls.serve("source.close", async ([id]) => this.#close(id as string));
  }

  close(): void {
    for (const id of [...this.#served.keys()]) this.#close(id);
  }

  async #open(
    id: string,
    wanted: readonly WantedSource[],
    signal: AbortSignal,
  ): Promise<readonly SourceAnswer[]> {
    this.#opening.set(id, true);
    try {
      // Before a process is taken: a replica may lag.
      const reached = await Promise.allSettled(wanted.map((want) => this.#reach(want)));
      if (reached.every(({ status }) => status === "rejected")) return reached.map(refusalOf);
      const runner = await this.#runners.acquire(signal);
      try {
        return await this.#pinAll(id, runner, wanted, reached);
      } catch (error) {
        this.#letGo(runner);
        throw error;
      }
    } finally {
      this.#opening.delete(id);
    }
  }

  async #reach([range, , index]: WantedSource): Promise<LocalRange> {
    const local = this.#local(range);
    if (local === undefined) throw new RouteError(`no replica of range ${range} is here`, undefined);
    await new Promise<void>((resolve, reject) => {
      const lags = new RetryError("OSTRAKA_UNAVAILABLE", `the replica of range ${range} lags behind`);
      const timer = this.#clock.setTimer(REACH_MS, () => reject(lags));
      local.handle
        .waitApplied(index)
        .then(resolve, reject)
        .finally(() => timer.cancel());
    });
    return local;
  }

  async #pinAll(
    id: string,
    runner: Runner,
    wanted: readonly WantedSource[],
    reached: readonly PromiseSettledResult<LocalRange>[],
  ): Promise<readonly SourceAnswer[]> {
    const sources = new Map<GroupId, number>();
    const answers = await Promise.all(
      wanted.map(async ([range, generation], i): Promise<SourceAnswer> => {
        const there = reached[i]!;
        if (there.status === "rejected") return refusalOf(there);
        try {
          const { source, appliedIndex } = await this.#pin(runner, there.value, generation);
          sources.set(range, source);
          return appliedIndex;
        } catch (error) {
          return toWireError(error);
        }
      }),
    );
    if (this.#opening.get(id) !== true) throw givenUp();
    if (sources.size === 0) this.#letGo(runner);
    else {
      const ending = new AbortController();
      this.#served.set(id, { runner, sources, scans: new Map(), ending, idle: undefined });
      this.#use(id);
    }
    return answers;
  }

  async #pin(
    runner: Runner,
    { handle, store }: LocalRange,
    generation: number,
  ): Promise<{ readonly source: number; readonly appliedIndex: LogIndex }> {
    const pinned = await runner.addSource(store.path);
    await handle.waitApplied(pinned.appliedIndex);
    if (store.state().descriptor.generation !== generation)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the range has changed");
    return pinned;
  }

  /** Without its sources. */
  #letGo(runner: Runner): void {
    if (runner.dead) this.#runners.release(runner);
    else
      runner
        .dropSources()
        .catch(() => runner.kill())
        .finally(() => this.#runners.release(runner));
  }

  #use(id: string): Served {
    const served = this.#served.get(id);
    if (served === undefined) throw givenUp();
    served.idle?.cancel();
    served.idle = this.#clock.setTimer(IDLE_MS, () => this.#close(id));
    return served;
  }

  async #scan(served: Served, range: GroupId, load: PackedLoad): Promise<ScanAnswer> {
    const source = served.sources.get(range);
    if (source === undefined) throw givenUp();
    const { maxResultBytes, maxRunnerBytes } = this.#parts.limits;
    const stream = served.runner.scan([{ source, load: unpackLoad(load) }], {
      systemTables: [],
      timeoutMs: undefined,
      maxResultBytes,
      maxMemoryBytes: maxRunnerBytes,
      signal: served.ending.signal,
    });
    const scan = ++this.#lastScan;
    served.scans.set(scan, { stream, next: undefined });
    return this.#next(served, scan);
  }

  async #next({ scans, ending }: Served, id: number): Promise<ScanAnswer> {
    const scan = scans.get(id);
    if (scan === undefined) return { scan: id, rows: undefined, count: 0 };
    scan.next ??= scan.stream.then((stream) => stream.next());
    const chunk = await this.#inTime(scan.next).catch((error: unknown) => {
      // Whoever still waits has stopped nothing.
      throw ending.signal.aborted ? givenUp() : error;
    });
    if (chunk === NOTHING_YET) return { scan: id, ...chunk };
    scan.next = undefined;
    if (chunk !== undefined) return { scan: id, ...chunk };
    scans.delete(id);
    await (await scan.stream).close();
    return { scan: id, rows: undefined, count: 0 };
  }

  #inTime(next: Promise<SourceChunk | undefined>): Promise<SourceChunk | undefined> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(ANSWER_MS, () => resolve(NOTHING_YET));
      next.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  #close(id: string): void {
    if (this.#opening.has(id)) this.#opening.set(id, false);
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    served.idle?.cancel();
    served.ending.abort();
    this.#letGo(served.runner);
  }
}

function refusalOf(there: PromiseSettledResult<LocalRange>): SourceAnswer {
  return toWireError((there as PromiseRejectedResult).reason);
}

function givenUp(): RetryError {
  return new RetryError("OSTRAKA_RETRY", "the snapshot on another node was given up");
}
