/** Two nodes' transports and calls over real gRPC on loopback. */
import { afterEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, RouteError, UserError } from "../../../src/base/errors.js";
import { groupId, logIndex, type NodeId, nodeId, term } from "../../../src/base/ids.js";
import type { PeerFrame, PeerHandler, SnapshotHeader } from "../../../src/multiraft/types.js";
import { type Entry, type Message, MessageType } from "../../../src/raft/types.js";
import { PeerCalls } from "../../../src/rpc/peer-calls.js";
import { PeerChannels } from "../../../src/rpc/peer-channels.js";
import { decodePeerFrame, encodePeerFrame } from "../../../src/rpc/peer-frames.js";
import { GrpcPeerTransport } from "../../../src/rpc/peer-transport.js";
import { RpcServer } from "../../../src/rpc/server.js";
import { systemClock, systemRandom } from "../../../src/rpc/system.js";

interface TestNode {
  readonly transport: GrpcPeerTransport;
  readonly calls: PeerCalls;
  readonly frames: { from: NodeId; frame: PeerFrame }[];
  readonly unreachable: NodeId[];
  readonly warnings: string[];
  onSnapshot: PeerHandler["onSnapshot"];
  close(): Promise<void>;
}

interface NodeOptions {
  readonly clusterId?: string;
  readonly server?: { readonly clusterSecret?: string; readonly authToken?: string };
  readonly clusterSecret?: string;
  readonly port?: number;
}

const addresses = new Map<number, string>();
const open: TestNode[] = [];

afterEach(async () => {
  for (const node of open.splice(0)) await node.close();
  addresses.clear();
});

async function startNode(id: number, options: NodeOptions = {}): Promise<TestNode> {
  const clusterId = options.clusterId ?? "cluster";
  const warnings: string[] = [];
  const log = (details: object, message: string) => warnings.push(`${message} ${JSON.stringify(details)}`);
  const logger = { info: () => undefined, warn: log };
  const channels = new PeerChannels({
    clusterId,
    nodeId: nodeId(id),
    incarnation: `i${id}`,
    address: (node) => addresses.get(node),
    clusterSecret: options.clusterSecret,
  });
  const common = { channels, clock: systemClock, random: systemRandom, logger };
  const transport = new GrpcPeerTransport(common);
  const calls = new PeerCalls(common);
  const server = new RpcServer({
    host: "127.0.0.1",
    port: options.port ?? 0,
    clock: systemClock,
    logger,
    ...options.server,
    peer: {
      identity: {
        clusterId,
        nodeId: id,
        incarnation: `i${id}`,
        refuse: (hello) => (hello.fromNode === 66 ? "node 66 was removed" : undefined),
      },
      services: {
        raft: (stream) => transport.acceptRaft(stream),
        snapshot: (stream) => transport.acceptSnapshot(stream),
        call: (stream) => calls.accept(stream),
        stranger: (stream) => calls.accept(stream),
      },
    },
  });
  await server.listen();
  addresses.set(id, `127.0.0.1:${server.port}`);
  const node: TestNode = {
    transport,
    calls,
    frames: [],
    unreachable: [],
    warnings,
    onSnapshot: () => Promise.reject(new Error("no snapshots here")),
    close: async () => {
      transport.close();
      calls.close();
      channels.close();
      await server.close();
    },
  };
  transport.receive({
    onFrame: (from, frame) => node.frames.push({ from, frame }),
    onUnreachable: (peer) => node.unreachable.push(peer),
    onSnapshot: (from, header, chunks) => node.onSnapshot(from, header, chunks),
  });
  open.push(node);
  return node;
}

function message(type: MessageType, entries: readonly Entry[] = [], index = 0): Message {
  return {
    type,
    from: nodeId(1),
    to: nodeId(2),
    term: term(3),
    index: logIndex(index),
    logTerm: term(2),
    entries,
    commit: logIndex(2 ** 40),
    reject: index % 2 === 1,
    rejectHint: logIndex(5),
    context: -1,
    snapshot: undefined,
  };
}

function frame(messages: readonly Message[], alive = true): PeerFrame {
  const rows = messages.map((m) => ({ group: groupId(3), message: m }));
  return {
    messages: rows,
    heartbeats: [-3, 4, 2 ** 45, 0],
    quiesced: [7, 1, 2],
    incarnation: 2 ** 52 + 1,
    alive,
    wallMs: 1_700_000_000_000.5,
    diskFull: !alive,
  };
}

function entry(index: number, bytes: number): Entry {
  return { term: term(1), index: logIndex(index), kind: 0, data: new Uint8Array(bytes).fill(index % 251) };
}

describe("frames", () => {
  it("come back as they were", () => {
    const conf = {
      voters: [nodeId(1), nodeId(2)],
      votersOutgoing: [nodeId(1)],
      learners: [nodeId(9)],
      learnersNext: [],
      autoLeave: true,
    };
    const original = frame([
      message(MessageType.Append, [entry(1, 0), entry(2, 300)], 7),
      { ...message(MessageType.Snapshot), snapshot: { index: logIndex(9), term: term(2), conf } },
    ]);
    expect(decodePeerFrame(encodePeerFrame(original))).toEqual(original);
    expect(decodePeerFrame(encodePeerFrame(frame([], false)))).toEqual(frame([], false));
  });

  it("refuse what is cut or changed, and never read past the end", () => {
    const bytes = encodePeerFrame(frame([message(MessageType.Append, [entry(1, 40)])]));
    for (let length = 0; length < bytes.length; length++)
      expect(() => decodePeerFrame(bytes.subarray(0, length))).toThrow(RangeError);
    const seed = systemRandom.uint32();
    let state = seed;
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state;
    };
    for (let run = 0; run < 3000; run++) {
      const changed = bytes.slice();
      for (let i = 0; i < 1 + (next() % 4); i++) changed[next() % changed.length] = next() >>> 24;
      try {
        decodePeerFrame(changed);
      } catch (error) {
        expect(error, `seed ${seed}`).toBeInstanceOf(RangeError);
      }
    }
  });
});

describe("transport", () => {
  it("delivers frames in order, large ones whole, heartbeats ahead of them", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    one.transport.send(nodeId(2), frame([message(MessageType.Append, [entry(1, 10)], 1)]));
    await expect.poll(() => two.frames.length).toBe(1);
    two.frames.length = 0;
    one.transport.send(nodeId(2), frame([message(MessageType.Append, [entry(2, 20_000_000)], 2)]));
    one.transport.send(nodeId(2), frame([message(MessageType.Append, [entry(3, 10)], 3)]));
    one.transport.send(nodeId(2), frame([message(MessageType.Vote, [], 4)]));
    await expect.poll(() => two.frames.length, { timeout: 10_000 }).toBe(5);
    const kinds = two.frames.flatMap(({ frame: f }) => f.messages.map(({ message: m }) => Number(m.index)));
    // The vote overtook the large entry; the appends kept their order.
    expect(kinds).toEqual([4, 2, 3]);
    const large = two.frames.find(({ frame: f }) => f.messages[0]?.message.index === 2)!;
    const data = large.frame.messages[0]!.message.entries[0]!.data;
    expect(data.length).toBe(20_000_000);
    expect(data.every((byte) => byte === 2)).toBe(true);
    expect(two.frames.every(({ from }) => from === 1)).toBe(true);
  });

  it("says who cannot be reached, drops, and comes back by itself", async () => {
    const one = await startNode(1);
    const gone = await startNode(2);
    const port = Number(addresses.get(2)!.split(":")[1]);
    one.transport.send(nodeId(2), frame([]));
    await expect.poll(() => gone.frames.length).toBe(1);
    await gone.close();
    await expect.poll(() => one.unreachable).toContain(2);
    for (let i = 0; i < 5; i++) one.transport.send(nodeId(2), frame([]));
    const back = await startNode(2, { port });
    await expect
      .poll(
        () => {
          one.transport.send(nodeId(2), frame([]));
          return back.frames.length;
        },
        { timeout: 10_000 },
      )
      .toBeGreaterThan(0);
  });

  it.each<[string, NodeOptions, NodeOptions, RegExp]>([
    ["another cluster", { clusterId: "x" }, {}, /belongs to cluster/],
    ["no secret", {}, { server: { clusterSecret: "s3cret" } }, /must show the cluster secret/],
    [
      "a wrong secret",
      { clusterSecret: "guess" },
      { server: { clusterSecret: "s3cret" } },
      /secret is wrong/,
    ],
    ["no secret, where clients need tokens", {}, { server: { authToken: "t" } }, /needs a cluster secret/],
  ])("refuses %s", async (_, mine, theirs, reason) => {
    const [one, two] = [await startNode(1, mine), await startNode(2, theirs)];
    one.transport.send(nodeId(2), frame([]));
    await expect.poll(() => one.unreachable).toContain(2);
    expect(two.frames).toEqual([]);
    expect(two.warnings.join()).toMatch(reason);
    expect(one.warnings.join()).toMatch(reason);
    expect(`${one.warnings}${two.warnings}`).not.toContain("s3cret");
    await expect(one.calls.call(nodeId(2), "echo", [])).rejects.toMatchObject({
      code: "OSTRAKA_UNAVAILABLE",
    });
  });

  it("refuses a wrong addressee and a removed node", async () => {
    const [one, removed, two] = [await startNode(1), await startNode(66), await startNode(2)];
    addresses.set(3, addresses.get(2)!);
    one.transport.send(nodeId(3), frame([]));
    removed.transport.send(nodeId(2), frame([]));
    await expect.poll(() => one.unreachable).toContain(3);
    await expect.poll(() => removed.unreachable).toContain(2);
    expect(two.warnings.join()).toMatch(/address is out of date/);
    expect(two.warnings.join()).toMatch(/node 66 was removed/);
    expect(two.frames).toEqual([]);
  });
});

describe("snapshots", () => {
  const header = (bytes: number): SnapshotHeader => ({
    group: groupId(3),
    term: term(4),
    meta: {
      index: logIndex(10),
      term: term(4),
      conf: { voters: [nodeId(1)], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
    },
    bytes,
  });
  const source = (bytes: number, fail = false) => ({
    appliedIndex: logIndex(10),
    bytes,
    read: async (offset: number, length: number) => {
      if (fail && offset > 2_000_000) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        throw new Error("disk trouble");
      }
      return new Uint8Array(length).map((_, i) => (offset + i) % 253);
    },
    release: async () => undefined,
  });

  it("arrive whole, at the receiver's pace", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    let total = 0;
    let sound = true;
    two.onSnapshot = async (from, got, chunks) => {
      expect([from, got]).toEqual([1, header(5_000_000)]);
      for await (const chunk of chunks) {
        sound &&= chunk[0] === total % 253;
        total += chunk.length;
        if (total < 1_000_000) await new Promise((resolve) => setTimeout(resolve, 2));
      }
    };
    await one.transport.sendSnapshot(nodeId(2), header(5_000_000), source(5_000_000));
    expect([total, sound]).toEqual([5_000_000, true]);
  });

  it("tell the sender of a refusal, and the receiver of a cut", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    two.onSnapshot = () => Promise.reject(new UserError("OSTRAKA_NO", "not now"));
    await expect(
      one.transport.sendSnapshot(nodeId(2), header(9_000_000), source(9_000_000)),
    ).rejects.toMatchObject({
      code: "OSTRAKA_NO",
    });
    let cut: unknown;
    two.onSnapshot = async (_, __, chunks) => {
      try {
        for await (const _chunk of chunks);
      } catch (error) {
        cut = error;
        throw error;
      }
    };
    await expect(
      one.transport.sendSnapshot(nodeId(2), header(5_000_000), source(5_000_000, true)),
    ).rejects.toThrow("disk trouble");
    await expect.poll(() => cut).toMatchObject({ message: expect.stringMatching(/cut short/) });
    await expect(one.transport.sendSnapshot(nodeId(9), header(1), source(1))).rejects.toMatchObject({
      code: "OSTRAKA_UNAVAILABLE",
    });
  });
});

describe("calls", () => {
  it("carry values as they are", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    two.calls.serve("echo", async (args) => args[0]);
    const value = {
      big: 5n,
      negative: -(2n ** 63n),
      number: 5,
      real: 1.5,
      large: 2 ** 50,
      bytes: new Uint8Array([1, 2]),
      none: undefined,
      nil: null,
      list: [1n, "x", [true]],
    };
    const back = (await one.calls.call(nodeId(2), "echo", [value])) as typeof value;
    expect(back).toEqual(value);
    expect(Buffer.isBuffer(back.bytes)).toBe(false);
    const many = await Promise.all(
      Array.from({ length: 500 }, (_, i) => one.calls.call(nodeId(2), "echo", [i])),
    );
    expect(many).toEqual(Array.from({ length: 500 }, (_, i) => i));
  });

  it("carry errors of their family", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    two.calls.serve("user", () => Promise.reject(new UserError("SQLITE_ERROR", "no")));
    two.calls.serve("route", () => {
      throw new RouteError("elsewhere", nodeId(3));
    });
    await expect(one.calls.call(nodeId(2), "user", [])).rejects.toEqual(new UserError("SQLITE_ERROR", "no"));
    await expect(one.calls.call(nodeId(2), "route", [])).rejects.toMatchObject({ leader: 3 });
    await expect(one.calls.call(nodeId(2), "none", [])).rejects.toThrow(/does not serve none/);
  });

  it("time out, are cancelled, and tell lost from never sent", async () => {
    const [one, two] = [await startNode(1), await startNode(2)];
    const aborted: string[] = [];
    two.calls.serve("hang", (args, context) => {
      context.signal.addEventListener("abort", () => aborted.push(String(args[0])));
      return new Promise(() => undefined);
    });
    await expect(one.calls.call(nodeId(2), "hang", ["late"], { timeoutMs: 60 })).rejects.toBeInstanceOf(
      AmbiguousError,
    );
    const controller = new AbortController();
    const call = one.calls.call(nodeId(2), "hang", ["abort"], { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 20);
    await expect(call).rejects.toThrow("enough");
    await expect.poll(() => aborted).toEqual(["late", "abort"]);
    const lost = one.calls.call(nodeId(2), "hang", ["lost"]);
    lost.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await two.close();
    await expect(lost).rejects.toBeInstanceOf(AmbiguousError);
    await expect(one.calls.call(nodeId(2), "hang", [])).rejects.toBeInstanceOf(RetryError);
    await expect(one.calls.call(nodeId(8), "hang", [])).rejects.toBeInstanceOf(RetryError);
  });

  it("are as large as they like, alone and together, and keep their order", async () => {
    const one = await startNode(1);
    const two = await startNode(2);
    const came: number[] = [];
    two.calls.serve("echo", async ([number, bytes]) => {
      came.push(number as number);
      return { bytes };
    });
    const sizes = [40, 0, 8, 8, 8, 8, 8, 0, 40].map((mebibytes) => mebibytes * 1024 * 1024);
    const answers = await Promise.all(
      sizes.map((size, i) => one.calls.call(nodeId(2), "echo", [i, new Uint8Array(size).fill(i)])),
    );
    expect(came).toEqual(sizes.map((_, i) => i));
    for (const [i, answer] of answers.entries()) {
      const { bytes } = answer as { readonly bytes: Uint8Array };
      expect(bytes.length).toBe(sizes[i]);
      expect(Buffer.from(bytes).equals(Buffer.alloc(sizes[i]!, i))).toBe(true);
    }
    expect(two.warnings).toEqual([]);
  });
});
