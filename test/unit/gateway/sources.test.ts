/** What a snapshot opens on other nodes: one process a node, wherever all its ranges can be had. */
import { beforeEach, expect, it } from "vitest";
import { RetryError, RouteError, UserError } from "../../../src/base/errors.js";
import { type GroupId, groupId, logIndex, type NodeId, nodeId } from "../../../src/base/ids.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import type { LocalRange } from "../../../src/gateway/ranges.js";
import { DEFAULT_LIMITS } from "../../../src/gateway/replica.js";
import { SourceServer } from "../../../src/gateway/source-server.js";
import { RemoteSources, type Wanted } from "../../../src/gateway/sources.js";
import type { Runner, RunnerPool, RunOptions, SourceLoad } from "../../../src/machines/range/types.js";
import type { PeerMethod } from "../../../src/rpc/peer-calls.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const SELF = nodeId(1);

let clock: ManualClock;
let nodes: Map<NodeId, Node>;
/** Calls as they were made: node and method. */
let called: string[];

/** A node with replicas, and as many processes as anybody wants. */
class Node {
  readonly methods = new Map<string, PeerMethod>();
  readonly replicas = new Map<GroupId, LocalRange>();
  /** Processes in use. */
  runners = 0;
  silent = false;
  /** How long a scan takes to find its first row. */
  scanMs = 0;
  /** Scans that look for it. */
  scanning = 0;
  readonly server: SourceServer;

  constructor(ranges: readonly number[], generation = 1) {
    for (const range of ranges)
      this.replicas.set(groupId(range), {
        store: { path: `range-${range}`, state: () => ({ descriptor: { generation } }) },
        handle: { waitApplied: async () => undefined },
      } as unknown as LocalRange);
    const pool = {
      acquire: async () => {
        this.runners++;
        return runner(this);
      },
      release: () => this.runners--,
    } as unknown as RunnerPool;
    this.server = new SourceServer({ clock, limits: DEFAULT_LIMITS }, pool, (range) =>
      this.replicas.get(range),
    );
    this.server.serve({ serve: (method, handler) => void this.methods.set(method, handler) });
  }
}

/** Its rows are the number of the source and the table. */
function runner(node: Node): Runner {
  let sources = 0;
  return {
    dead: false,
    addSource: async () => ({ source: sources++, appliedIndex: logIndex(7) }),
    dropSources: async () => undefined,
    scan: async ([{ source }]: [SourceLoad], { signal }: RunOptions) => {
      if (node.scanMs > 0) {
        node.scanning++;
        await new Promise<void>((resolve, reject) => {
          clock.setTimer(node.scanMs, resolve);
          signal?.addEventListener("abort", () => reject(new UserError("SQLITE_INTERRUPT", "interrupted")));
        }).finally(() => node.scanning--);
      }
      const chunks = [{ rows: Uint8Array.of(source), count: 1 }];
      return { next: async () => chunks.shift(), close: async () => undefined };
    },
  } as unknown as Runner;
}

function remote(): RemoteSources {
  const call = async (
    to: NodeId,
    method: string,
    args: readonly unknown[],
    { timeoutMs }: { timeoutMs?: number | undefined } = {},
  ): Promise<unknown> => {
    called.push(`${to} ${method}`);
    const node = nodes.get(to)!;
    return new Promise((resolve, reject) => {
      clock.setTimer(timeoutMs!, () => reject(new RetryError("OSTRAKA_UNAVAILABLE", "timed out")));
      if (node.silent) return;
      const { signal } = new AbortController();
      node.methods.get(method)!(structuredClone(args), { signal } as never).then(resolve, reject);
    });
  };
  return new RemoteSources({ call }, SELF, { clock, random: new SeededRandom(1) });
}

function wanted(range: number, replicas: readonly number[], generation = 1): Wanted {
  const descriptor = {
    range: groupId(range),
    start: "",
    end: "",
    generation,
    replicas: replicas.map(nodeId),
  };
  return { descriptor, index: logIndex(5) };
}

const deadline = () => new Deadline(clock, undefined, 1_000, { signal: undefined });
const opens = () => called.filter((call) => call.endsWith("source.open"));
const RANGES = Array.from({ length: 40 }, (_, i) => i + 3);

beforeEach(() => {
  clock = new ManualClock();
  nodes = new Map();
  called = [];
});

it("takes one process of another node, however many ranges that serves, until the last is closed", async () => {
  const node = new Node(RANGES);
  nodes.set(nodeId(2), node);
  const sources = await remote().open(
    RANGES.map((range) => wanted(range, [1, 2, 3])),
    deadline(),
  );
  expect([...sources.keys()]).toEqual(RANGES);
  expect(node.runners).toBe(1);
  const rows: number[] = [];
  for (const source of sources.values())
    for await (const chunk of source.scan(LOAD, deadline())) rows.push(chunk.rows[0]!);
  expect(rows).toEqual(RANGES.map((_, i) => i));
  const [last, ...others] = [...sources.values()];
  for (const other of others) {
    other.close();
    other.close();
  }
  await settle();
  expect(node.runners).toBe(1);
  last!.close();
  await settle();
  expect(node.runners).toBe(0);
});

const LOAD = { table: "t", slice: { low: undefined, high: undefined } };

it("waits for rows as long as they take to be found", async () => {
  const node = new Node([3]);
  node.scanMs = 100_000;
  nodes.set(nodeId(2), node);
  const sources = await remote().open([wanted(3, [2])], deadline());
  const rows = sources.get(groupId(3))!.scan(LOAD, deadline())[Symbol.asyncIterator]();
  const first = rows.next();
  for (let i = 0; i < 101; i++) await clock.advance(1_000);
  expect(await first).toEqual({ done: false, value: { rows: Uint8Array.of(0), count: 1 } });
  expect(await rows.next()).toEqual({ done: true, value: undefined });
});

it("stops what still looks for rows when nobody wants them any more", async () => {
  const node = new Node([3]);
  node.scanMs = 100_000;
  nodes.set(nodeId(2), node);
  const sources = await remote().open([wanted(3, [2])], deadline());
  const source = sources.get(groupId(3))!;
  const rows = source.scan(LOAD, deadline())[Symbol.asyncIterator]();
  rows.next().catch(() => undefined);
  await settle();
  expect(node.scanning).toBe(1);
  source.close();
  await settle();
  expect(node.scanning).toBe(0);
  expect(node.runners).toBe(0);
});

it("tells who still waits for rows that the snapshot was given up, when the node stops", async () => {
  const node = new Node([3]);
  node.scanMs = 100_000;
  nodes.set(nodeId(2), node);
  const sources = await remote().open([wanted(3, [2])], deadline());
  const first = sources.get(groupId(3))!.scan(LOAD, deadline())[Symbol.asyncIterator]().next();
  await settle();
  node.server.close();
  await expect(first).rejects.toMatchObject({ code: "OSTRAKA_RETRY", family: "retry" });
});

it("asks few nodes, in the order of their ids", async () => {
  nodes.set(nodeId(2), new Node([5]));
  nodes.set(nodeId(3), new Node([4]));
  nodes.set(nodeId(4), new Node([3, 4, 6]));
  const wants = [wanted(3, [4]), wanted(4, [3, 4]), wanted(5, [2]), wanted(6, [4])];
  expect((await remote().open(wants, deadline())).size).toBe(4);
  expect(opens()).toEqual(["2 source.open", "4 source.open"]);
});

it("finds elsewhere what a node does not have any more, and keeps the rest", async () => {
  nodes.set(nodeId(2), new Node([3]));
  nodes.set(nodeId(3), new Node([3, 4]));
  const sources = await remote().open([wanted(3, [2]), wanted(4, [2, 3])], deadline());
  expect([...sources.keys()].sort()).toEqual([3, 4]);
  expect(opens()).toEqual(["2 source.open", "3 source.open"]);
});

it("asks a node that did not answer last, for a while", async () => {
  nodes.set(nodeId(2), new Node([3]));
  nodes.set(nodeId(3), new Node([3]));
  nodes.get(nodeId(2))!.silent = true;
  const sources = remote();
  const first = sources.open([wanted(3, [2, 3])], deadline());
  await clock.advance(2_500);
  expect((await first).size).toBe(1);
  await sources.open([wanted(3, [2, 3])], deadline());
  expect(opens()).toEqual(["2 source.open", "3 source.open", "3 source.open"]);
  await clock.advance(6_000);
  void sources.open([wanted(3, [2, 3])], deadline());
  expect(opens().at(-1)).toBe("2 source.open");
});

it("closes what it has when something is nowhere to be had", async () => {
  nodes.set(nodeId(2), new Node([3]));
  nodes.set(nodeId(3), new Node([4], 9));
  const open = remote().open([wanted(3, [2]), wanted(4, [3])], deadline());
  await expect(open).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE", message: "the range has changed" });
  await settle();
  expect([nodes.get(nodeId(2))!.runners, nodes.get(nodeId(3))!.runners]).toEqual([0, 0]);
  await expect(remote().open([wanted(5, [1])], deadline())).rejects.toBeInstanceOf(RouteError);
});

it("does not wait for a replica that lags far behind", async () => {
  const node = new Node([3, 4]);
  const lagging = node.replicas.get(groupId(4))!;
  node.replicas.set(groupId(4), {
    ...lagging,
    handle: { waitApplied: () => new Promise<void>(() => undefined) },
  } as unknown as LocalRange);
  nodes.set(nodeId(2), node);
  nodes.set(nodeId(3), new Node([4]));
  const open = remote().open([wanted(3, [2]), wanted(4, [2, 3])], deadline());
  await clock.advance(1_500);
  expect([...(await open).keys()].sort()).toEqual([3, 4]);
});
