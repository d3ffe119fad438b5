/**
 * Reading ranges from a node that has no replica of them: pins on other nodes' replicas, held by a process there, and
 * their rows fetched in chunks. What one snapshot needs of a node is opened together and takes one process of it, so that
 * what a snapshot costs goes by the nodes that serve it and not by the ranges. The serving end is source-server.ts.
 *
 * What is opened is named by whoever opens it, and closed by them even when they do not know whether it was opened.
 * While it is open they say so again and again; the serving node closes what nobody has spoken of for a while.
 *
 * Invariants:
 * 1. Nodes are asked one after the other in the order of their ids, so that two snapshots which wait for a process never
 *    wait for each other; only where a node could not serve all that it was asked for does one go back.
 * 2. What was opened is closed when the last of its ranges is, and when the snapshot fails.
 */
import { fromWireError, RouteError } from "../base/errors.js";
import type { GroupId, LogIndex, NodeId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { ScratchLoad } from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { PeerCalls } from "../rpc/peer-calls.js";
import type { Deadline } from "./deadline.js";
import type { GatewayParts } from "./replica.js";
import {
  packLoad,
  type ScanAnswer,
  type SourceAnswer,
  type SourceChunk,
  type WantedSource,
} from "./source-wire.js";

/** A fence does not stand longer than about this: what is opened later is of no use. */
const OPEN_MS = 2_000;
const CLOSE_MS = 10_000;
const CALL_MS = 30_000;
const KEEP_MS = 4_000;
/** A node that did not answer is asked last for so long. */
const AVOID_MS = 5_000;

export interface Wanted {
  readonly descriptor: RangeDescriptor;
  /** What the pin must show at least. */
  readonly index: LogIndex;
}

export interface RemoteSource {
  readonly appliedIndex: LogIndex;
  /** Chunks of rows as `Runner.fill` takes them, or of a query's. */
  scan(load: ScratchLoad, deadline: Deadline): AsyncIterable<SourceChunk>;
  close(): void;
}

type Caller = Pick<PeerCalls, "call">;

export class RemoteSources {
  readonly #calls: Caller;
  readonly #self: NodeId;
  readonly #clock: Clock;
  /** Unique to this start of this node. */
  readonly #origin: string;
  /** Nodes that did not answer, and until when they are asked last. */
  readonly #avoided = new Map<NodeId, number>();
  #opened = 0;

  constructor(calls: Caller, self: NodeId, { clock, random }: Pick<GatewayParts, "clock" | "random">) {
    this.#calls = calls;
    this.#self = self;
    this.#clock = clock;
    this.#origin = Array.from(random.bytes(9), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Pins each of the ranges on some node that has it, has applied `index`, and is at that generation still. */
  async open(wanted: readonly Wanted[], deadline: Deadline): Promise<Map<GroupId, RemoteSource>> {
    const opened = new Map<GroupId, RemoteSource>();
    const refused = new Map<GroupId, Set<NodeId>>(
      wanted.map(({ descriptor: { range } }) => [range, new Set([this.#self])]),
    );
    let failure: unknown;
    try {
      for (let left = wanted; left.length > 0; ) {
        for (const [node, group] of this.#choose(left, refused, failure)) {
          for (const { descriptor } of group) refused.get(descriptor.range)!.add(node);
          try {
            const { sources, refusal } = await this.#open(node, group, deadline);
            for (const [range, source] of sources) opened.set(range, source);
            failure = refusal ?? failure;
          } catch (error) {
            if (deadline.stopped) throw error;
            this.#avoided.set(node, this.#clock.monotonicMs() + AVOID_MS);
            failure = error;
          }
        }
        left = left.filter(({ descriptor }) => !opened.has(descriptor.range));
      }
    } catch (error) {
      for (const source of opened.values()) source.close();
      throw error;
    }
    return opened;
  }

  /** Few nodes that have all of them together, each with what it is to serve. */
  #choose(
    wanted: readonly Wanted[],
    refused: ReadonlyMap<GroupId, ReadonlySet<NodeId>>,
    failure: unknown,
  ): readonly (readonly [NodeId, readonly Wanted[]])[] {
    const chosen: [NodeId, readonly Wanted[]][] = [];
    for (let left = wanted; left.length > 0; ) {
      const by = new Map<NodeId, Wanted[]>();
      for (const want of left) {
        const { range, replicas } = want.descriptor;
        const nodes = replicas.filter((node) => !refused.get(range)!.has(node));
        if (nodes.length === 0)
          throw failure ?? new RouteError(`no node is known to have range ${range}`, undefined);
        for (const node of nodes) by.set(node, [...(by.get(node) ?? []), want]);
      }
      const [best] = [...by].sort((a, b) => this.#compare(a, b));
      chosen.push(best!);
      left = left.filter((want) => !best![1].includes(want));
    }
    return chosen.sort(([a], [b]) => a - b);
  }

  /** Who answers comes first, then who serves most, then who is next to this node: not all ask the same one. */
  #compare([a, some]: [NodeId, readonly Wanted[]], [b, others]: [NodeId, readonly Wanted[]]): number {
    const avoided = (node: NodeId): number =>
      (this.#avoided.get(node) ?? 0) > this.#clock.monotonicMs() ? 1 : 0;
    const before = (node: NodeId): number => (node < this.#self ? 1 : 0);
    return avoided(a) - avoided(b) || others.length - some.length || before(a) - before(b) || a - b;
  }

  async #open(
    node: NodeId,
    group: readonly Wanted[],
    deadline: Deadline,
  ): Promise<{ readonly sources: ReadonlyMap<GroupId, RemoteSource>; readonly refusal: unknown }> {
    const id = `${this.#origin}-${++this.#opened}`;
    const call = (method: string, args: readonly unknown[], timeoutMs: number) =>
      this.#calls.call(node, `source.${method}`, [id, ...args], { timeoutMs });
    const close = (): void => void call("close", [], CLOSE_MS).catch(() => {});
    const wants = group.map(
      ({ descriptor: { range, generation }, index }): WantedSource => [range, generation, index],
    );
    let answers: readonly SourceAnswer[];
    try {
      answers = (await deadline.race(call("open", [wants], OPEN_MS))) as readonly SourceAnswer[];
    } catch (error) {
      close();
      throw error;
    }
    const open = new OpenSources(this.#clock, call, close);
    const sources = new Map<GroupId, RemoteSource>();
    let refusal: unknown;
    for (const [i, answer] of answers.entries()) {
      if (typeof answer === "number") sources.set(wants[i]![0], open.source(wants[i]![0], answer));
      else refusal = fromWireError(answer);
    }
    if (sources.size === 0) close();
    return { sources, refusal };
  }
}

type Call = (method: string, args: readonly unknown[], timeoutMs: number) => Promise<unknown>;

/** What was opened at one node for one snapshot. */
class OpenSources {
  readonly #clock: Clock;
  readonly #call: Call;
  readonly #close: () => void;
  readonly #open = new Set<GroupId>();
  #keeping: Timer | undefined;

  constructor(clock: Clock, call: Call, close: () => void) {
    this.#clock = clock;
    this.#call = call;
    this.#close = close;
  }

  source(range: GroupId, appliedIndex: LogIndex): RemoteSource {
    this.#open.add(range);
    if (this.#keeping === undefined) this.#keep();
    return {
      appliedIndex,
      scan: (load, deadline) => this.#scan(range, load, deadline),
      close: () => {
        if (!this.#open.delete(range) || this.#open.size > 0) return;
        this.#keeping?.cancel();
        this.#close();
      },
    };
  }

  #keep(): void {
    this.#keeping = this.#clock.setTimer(KEEP_MS, () => {
      this.#call("keep", [], KEEP_MS).catch(() => {});
      this.#keep();
    });
  }

  async *#scan(range: GroupId, load: ScratchLoad, deadline: Deadline): AsyncGenerator<SourceChunk> {
    let scan: number | undefined;
    for (;;) {
      const asked =
        scan === undefined
          ? this.#call("scan", [range, packLoad(load)], CALL_MS)
          : this.#call("next", [scan], CALL_MS);
      const answer = (await deadline.race(asked)) as ScanAnswer;
      if (answer.rows === undefined) return;
      scan = answer.scan;
      if (answer.count > 0) yield { rows: answer.rows, count: answer.count };
    }
  }
}
