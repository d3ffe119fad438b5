/**
 * The client service under clients that are broken, hostile or slow: it says why it refuses, stays up, and the others
 * do not notice. In memory where the protocol is meant, over gRPC where the wire is.
 */
import { Client, credentials, Metadata, type StatusObject, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodeVector } from "../../../src/base/values.js";
import { connect } from "../../../src/driver/index.js";
import { ClientConnection, type ClientLimits } from "../../../src/rpc/client-service.js";
import type { Gateway, Session, SessionCounts } from "../../../src/rpc/gateway.js";
import type { FramePipe, PipeFailure } from "../../../src/rpc/pipe.js";
import { ClientOp, PROTOCOL_VERSION, ServerOp } from "../../../src/rpc/protocol.js";
import { systemClock } from "../../../src/rpc/system.js";
import {
  CLIENT_CONNECT,
  clientService,
  deserializeFrame,
  packMessages,
  peerService,
  serializeFrame,
  unpackMessages,
} from "../../../src/rpc/wire.js";
import { type LocalServer, startLocalServer } from "../../client/local-gateway.js";

class TestPipe implements FramePipe {
  readonly sent: (readonly unknown[])[] = [];
  failure: PipeFailure | undefined;
  paused = false;
  full = false;
  frames = 0;

  write(body: Uint8Array): boolean {
    this.frames++;
    this.sent.push(...(unpackMessages(body) as unknown[][]));
    return !this.full;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  end(failure?: PipeFailure): void {
    this.failure = failure;
  }
}

const outcome = {
  columns: ["a"],
  columnTypes: [null],
  rows: encodeVector([1n]),
  rowCount: 1,
  changes: 0,
  totalChanges: 0,
  lastInsertRowid: 0n,
};

/** Statements named "wait" wait for `release`; "stream" gives an endless stream. */
class TestGateway implements Gateway {
  readonly waiting: (() => void)[] = [];
  opened = 0;
  closed = 0;
  aborted = 0;
  streams = 0;
  started = 0;
  state: ReturnType<Session["state"]> = "idle";
  counts: SessionCounts | undefined;

  openSession(_kind: string, counts?: SessionCounts): Session {
    this.opened++;
    this.counts = counts;
    return {
      execute: async (request) => {
        this.started++;
        if (request.sql === "fail") throw new Error("a bug");
        if (request.sql === "wait") {
          request.signal?.addEventListener("abort", () => this.aborted++);
          await new Promise<void>((resolve) => this.waiting.push(resolve));
        }
        if (request.sql !== "stream") return { kind: "outcome", outcome };
        this.streams++;
        const next = async () => ({ rows: encodeVector([7n]), count: 1 });
        const close = async () => {
          this.streams--;
        };
        return { kind: "stream", stream: { ...outcome, next, close, summary: () => outcome } };
      },
      batch: async () => [outcome],
      state: () => this.state,
      counts: () => counts,
      close: async () => {
        this.closed++;
      },
    };
  }
  async outcome(): Promise<"unknown"> {
    return "unknown";
  }
  async admin(): Promise<unknown> {
    return { big: 2n ** 80n };
  }
}

/** Timers may come before what the turn before left to be sent at its end; what they leave for theirs comes after it. */
const turn = () => new Promise<void>((resolve) => setTimeout(() => setImmediate(resolve), 2));

function connection(limits: Partial<ClientLimits> = {}) {
  const gateway = new TestGateway();
  const pipe = new TestPipe();
  const warnings: string[] = [];
  const logger = {
    info: () => undefined,
    warn: (d: object, m: string) => warnings.push(m + JSON.stringify(d)),
  };
  const options = {
    gateway,
    clusterId: "c",
    nodeId: 1,
    sqliteVersion: "3",
    clock: systemClock,
    logger,
    limits,
  };
  const served = new ClientConnection(options, pipe, "peer");
  const say = (...messages: unknown[]) => served.onFrame(packMessages(messages));
  return { gateway, pipe, warnings, served, say };
}

const HELLO = [ClientOp.Hello, PROTOCOL_VERSION];
const execute = (id: number, sql: string, want = 0, session = 0) => [
  ClientOp.Execute,
  id,
  session,
  sql,
  null,
  null,
  1000,
  want,
];

describe("the wire", () => {
  it("is what the .proto says", () => {
    const definition = loadSync(new URL("../../../proto/ostraka.proto", import.meta.url).pathname);
    const client = definition["ostraka.v1.Client"] as unknown as typeof clientService;
    const peer = definition["ostraka.v1.Peer"] as unknown as typeof peerService;
    for (const [mine, theirs] of [
      [clientService, client],
      [peerService, peer],
    ] as const) {
      expect(Object.keys(mine)).toEqual(Object.keys(theirs));
      for (const [name, method] of Object.entries(mine)) {
        const other = (theirs as unknown as Record<string, typeof clientService.Connect>)[name]!;
        expect([method.path, method.requestStream, method.responseStream]).toEqual([
          other.path,
          other.requestStream,
          other.responseStream,
        ]);
        for (const length of [0, 1, 127, 128, 20_000, 3_000_000]) {
          const body = new Uint8Array(length).fill(9);
          const theirBytes = other.requestSerialize({ body } as never);
          if (length > 0) expect(serializeFrame(body).equals(theirBytes)).toBe(true);
          const read = other.requestDeserialize(serializeFrame(body)) as unknown as { body: Uint8Array };
          expect(Buffer.from(read.body).equals(body)).toBe(true);
          expect(deserializeFrame(theirBytes)?.equals(body)).toBe(true);
        }
      }
    }
    // Fields of later versions are skipped; what is no message is refused.
    const unknownField = Buffer.concat([
      Buffer.from([0x10, 0x05, 0x1a, 0x01, 0x00]),
      serializeFrame(new Uint8Array([1])),
    ]);
    expect([...deserializeFrame(unknownField)!]).toEqual([1]);
    expect(deserializeFrame(Buffer.from([0x0a, 0x05, 0x01]))).toBeUndefined();
    expect(deserializeFrame(Buffer.from([0xff]))).toBeUndefined();
  });
});

describe("messages", () => {
  it("answers a turn's requests in one frame", async () => {
    const { pipe, say } = connection();
    say(HELLO, ...Array.from({ length: 100 }, (_, i) => execute(i + 1, "one")));
    await turn();
    expect(pipe.sent.length).toBe(101);
    expect(pipe.frames).toBe(1);
    expect(pipe.sent[0]!.slice(0, 3)).toEqual([ServerOp.Welcome, 0, PROTOCOL_VERSION]);
  });

  it("answers malformed messages and goes on", async () => {
    const { pipe, say, warnings } = connection();
    const bad: unknown[] = [
      7,
      null,
      "x",
      {},
      [],
      [99, 1],
      [ClientOp.Execute, 2],
      [ClientOp.Execute, -1, 0, "x", null, null, 1, 0],
      [ClientOp.Execute, 3, 5, "no session", null, null, 1, 0],
      [ClientOp.Execute, 4, 0, 5, null, null, 1, 0],
      [ClientOp.Execute, 5, 0, "x", new Uint8Array([200, 1]), null, 1, 0],
      [ClientOp.Execute, 6, 0, "x", [["a", "b"], encodeVector([1n])], null, 1, 0],
      [ClientOp.Execute, 7, 0, "x", null, ["c", "1", 2, 3], 1, 0],
      [ClientOp.Execute, 8, 0, "x", null, ["c".repeat(65), 1, 2, 3], 1, 0],
      [ClientOp.Execute, 9, 0, "x", null, null, "soon", 0],
      [ClientOp.Execute, 10, 0, "x", null, null, 1, 1.5],
      [ClientOp.Batch, 11, 0, "x", null, 1],
      [ClientOp.Batch, 12, 0, [1], null, 1],
      [ClientOp.Outcome, 13, 5],
      [ClientOp.Admin, 14, "x", []],
      [ClientOp.CloseSession, 15, 0],
      [ClientOp.OpenSession, 16, 0],
      [ClientOp.OpenSession, 17, 1, 5],
      [ClientOp.OpenSession, 18, 1, [1, 1]],
      [ClientOp.OpenSession, 19, 1, [1, -1, 1]],
      [ClientOp.OpenSession, 20, 1, [1, 1, 2n ** 63n]],
      [ClientOp.OpenSession, 21, 1, [1, 1, 0.5]],
    ];
    say(HELLO, ...bad, execute(100, "one"));
    await turn();
    const errors = pipe.sent.filter(([op]) => op === ServerOp.Error);
    expect(errors.length).toBe(bad.length);
    expect(pipe.failure).toBeUndefined();
    expect(pipe.sent.at(-1)!.slice(0, 2)).toEqual([ServerOp.Result, 100]);
    // One line, not one a message.
    expect(warnings.length).toBe(1);
  });

  it.each<[string, (c: ReturnType<typeof connection>) => void, RegExp]>([
    ["bytes that are no frame", ({ served }) => served.onFrame(new Uint8Array([0xc1, 1, 2])), /not a frame/],
    ["a frame that is no array", ({ served }) => served.onFrame(new Uint8Array([0x05])), /must be an array/],
    [
      "an array longer than its bytes",
      ({ served }) => served.onFrame(new Uint8Array([0xdd, 255, 255, 255, 255])),
      /not a frame/,
    ],
    ["endless nesting", ({ served }) => served.onFrame(new Uint8Array(1_000_000).fill(0x91)), /not a frame/],
    ["another version", ({ say }) => say([ClientOp.Hello, 99]), /protocol 1, not 99/],
    ["a flood of nonsense", ({ say }) => say(HELLO, ...new Array(500).fill([77, 1])), /too many malformed/],
  ])("ends the stream on %s, and says why", (_, act, reason) => {
    const c = connection();
    act(c);
    expect(c.pipe.failure?.reason).toMatch(reason);
    expect(c.warnings.join()).toMatch(reason);
  });

  it("ends a stream that never says hello", async () => {
    const { pipe } = connection({ helloMs: 20 });
    await expect.poll(() => pipe.failure?.reason).toMatch(/no hello/);
  });

  it("survives a gateway's bugs, and answers that cannot be packed", async () => {
    const { pipe, say, warnings } = connection();
    say(HELLO, execute(1, "fail"), [ClientOp.Admin, 2, "x", {}]);
    await turn();
    const codes = pipe.sent.filter(([op]) => op === ServerOp.Error).map((m) => (m[2] as string[])[1]);
    expect(codes).toEqual(["OSTRAKA_INTERNAL", "OSTRAKA_INTERNAL"]);
    expect(warnings.join()).toMatch(/a bug/);
  });
});

describe("the state that a session's errors tell", () => {
  it.each<[string, unknown[], string]>([
    ["a cursor that is cancelled", [ClientOp.Cancel, 1], "interrupted"],
    ["what is cancelled before it began", [ClientOp.Cancel, 3], "cancelled before it began"],
    [
      "a message that is refused",
      [ClientOp.Execute, 4, 9, 5, null, null, 1, 0],
      "the statement must be a string",
    ],
  ])("is the session's after %s", async (_, message, why) => {
    const { pipe, say, gateway } = connection({ maxRequests: message[1] === 3 ? 2 : 9 });
    gateway.state = "open";
    // The first comes to wait for credits, the next two run, and the last waits for room where there is for two.
    say(
      HELLO,
      [ClientOp.OpenSession, 50, 9],
      execute(1, "stream", 1, 9),
      execute(2, "wait"),
      execute(5, "wait"),
      execute(3, "wait", 0, 9),
    );
    await turn();
    say(message);
    await turn();
    const errors = pipe.sent.filter(([op]) => op === ServerOp.Error);
    expect(errors.map(([, id, wire, state]) => [id, (wire as string[])[2], state])).toEqual([
      [message[1], why, 1],
    ]);
  });
});

it("goes on with what a session counted elsewhere, and tells it with every answer", async () => {
  const { pipe, say, gateway } = connection();
  say(HELLO, [ClientOp.OpenSession, 1, 7, [2, 30, -(2n ** 63n)]], execute(2, "one", 0, 7));
  await turn();
  expect(gateway.counts).toEqual({ changes: 2, totalChanges: 30, lastInsertRowid: -(2n ** 63n) });
  expect(pipe.sent.at(-1)!.at(-1)).toEqual([0, 0, 0n, 0, null, [2, 30, -(2n ** 63n)]]);
});

describe("bounds", () => {
  it("stops reading at the bound of requests, and goes on below it", async () => {
    const { pipe, say, gateway } = connection({ maxRequests: 10 });
    say(HELLO, ...Array.from({ length: 50 }, (_, i) => execute(i + 1, "wait")));
    await turn();
    expect([gateway.started, pipe.paused]).toEqual([10, true]);
    while (gateway.waiting.length > 0) {
      for (const release of gateway.waiting.splice(0)) release();
      await turn();
      expect(gateway.waiting.length).toBeLessThanOrEqual(10);
    }
    expect([gateway.started, pipe.paused]).toEqual([50, false]);
    expect(pipe.sent.filter(([op]) => op === ServerOp.Result).length).toBe(50);
  });

  it("bounds the bytes of running requests", async () => {
    const { pipe, say, gateway } = connection({ maxRequestBytes: 1000 });
    const big = (id: number) => [
      ClientOp.Execute,
      id,
      0,
      "wait",
      encodeVector(["x".repeat(600)]),
      null,
      1,
      0,
    ];
    say(HELLO, big(1), big(2), big(3));
    await turn();
    expect([gateway.started, pipe.paused]).toEqual([2, true]);
  });

  it("refuses sessions and parked cursors beyond theirs", async () => {
    const { pipe, say, gateway } = connection({ maxSessions: 2, maxCursors: 2 });
    say(HELLO, [ClientOp.OpenSession, 1, 1], [ClientOp.OpenSession, 2, 2], [ClientOp.OpenSession, 3, 3]);
    for (let id = 10; id < 13; id++) say(execute(id, "stream", 1));
    await turn();
    const errors = pipe.sent.filter(([op]) => op === ServerOp.Error);
    const told = errors.map(([, id, wire]) => [id, (wire as string[])[1]]);
    expect(told).toEqual([3, 12].map((id) => [id, "OSTRAKA_UNAVAILABLE"]));
    expect(gateway.streams).toBe(2);
  });

  it("tells the statements of a refused session why, and opens it for them once there is room", async () => {
    const { pipe, say, gateway } = connection({ maxSessions: 2 });
    for (let name = 1; name <= 5; name++)
      say(...(name === 1 ? [HELLO] : []), [ClientOp.OpenSession, name, name, [0, 40 + name, 1]]);
    for (let name = 3; name <= 5; name++) say(execute(10 + name, "one", 0, name));
    say([ClientOp.CloseSession, 20, 1], [ClientOp.CloseSession, 21, 3], execute(22, "one", 0, 4));
    await turn();
    const answered = (id: number) => pipe.sent.find((message) => message[1] === id)!;
    for (const id of [3, 4, 5, 13, 14, 15])
      expect([id, answered(id)[0], (answered(id)[2] as string[])[1]]).toEqual([
        id,
        ServerOp.Error,
        "OSTRAKA_UNAVAILABLE",
      ]);
    expect([20, 21, 22].map((id) => answered(id)[0])).toEqual([
      ServerOp.Done,
      ServerOp.Done,
      ServerOp.Result,
    ]);
    expect([gateway.opened, gateway.counts?.totalChanges]).toEqual([3, 44]);
  });

  it("sends a cursor's chunks as credits come, and frees it", async () => {
    const { pipe, say, gateway } = connection();
    say(HELLO, execute(1, "stream", 2));
    await turn();
    const chunks = () => pipe.sent.filter((m) => m[1] === 1).length;
    expect(chunks()).toBe(2);
    say([ClientOp.Fetch, 1, 3]);
    await turn();
    expect(chunks()).toBe(5);
    say([ClientOp.CloseCursor, 1], [ClientOp.Fetch, 1, 3]);
    await turn();
    expect([chunks(), gateway.streams]).toEqual([5, 0]);
  });

  it("stops producing for a reader who does not read, and ends it at last", async () => {
    const { pipe, say, served, warnings } = connection({ stallMs: 40 });
    pipe.full = true;
    say(HELLO, execute(1, "stream"));
    await turn();
    const sent = pipe.sent.length;
    await turn();
    expect(pipe.sent.length).toBe(sent);
    expect(pipe.paused).toBe(true);
    pipe.full = false;
    served.onDrain();
    await turn();
    expect(pipe.sent.length).toBeGreaterThan(sent);
    pipe.full = true;
    await expect.poll(() => pipe.failure?.kind).toBe("too-slow");
    expect(warnings.join()).toMatch(/nothing was read/);
  });

  it("cancels requests, and everything when the client goes", async () => {
    const { pipe, say, gateway, served } = connection({ maxRequests: 3 });
    say(
      HELLO,
      [ClientOp.OpenSession, 50, 1],
      execute(1, "wait"),
      execute(2, "wait"),
      execute(3, "stream", 1, 1),
    );
    await turn();
    say([ClientOp.Cancel, 1]);
    expect(gateway.aborted).toBe(1);
    served.onClose("gone");
    await turn();
    expect([gateway.aborted, gateway.streams, gateway.opened, gateway.closed]).toEqual([2, 0, 2, 2]);
    const sent = pipe.sent.length;
    for (const release of gateway.waiting) release();
    await turn();
    expect(pipe.sent.length).toBe(sent);
  });
});

describe("over gRPC", () => {
  let server: LocalServer;
  const warnings: string[] = [];

  beforeEach(async () => {
    warnings.length = 0;
    const warn = (details: object, message: string) => warnings.push(message + JSON.stringify(details));
    server = await startLocalServer({ logger: { info: () => undefined, warn } });
  });
  afterEach(() => server.close());

  /** A stream whose messages are given raw; answers with how it ended. */
  function raw(messages: readonly Buffer[]): Promise<StatusObject> {
    const options = { "grpc.max_send_message_length": -1 };
    const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure(), options);
    const stream = client.makeBidiStreamRequest<Buffer, Buffer>(
      CLIENT_CONNECT,
      (b) => b,
      (b) => b,
      new Metadata(),
    );
    stream.on("data", () => undefined);
    stream.on("error", () => undefined);
    for (const message of messages) stream.write(message);
    return new Promise((resolve) => {
      stream.on("status", (ended: StatusObject) => {
        client.close();
        resolve(ended);
      });
    });
  }

  it("refuses garbage and oversized frames one by one, while others work", async () => {
    const db = await connect(server.url);
    const garbage = await raw([Buffer.from([0xff, 0xff, 0xff])]);
    expect([garbage.code, garbage.details]).toEqual([status.INVALID_ARGUMENT, "not a Frame message"]);
    const noFrame = await raw([serializeFrame(new Uint8Array([0xc1]))]);
    expect(noFrame.code).toBe(status.INVALID_ARGUMENT);
    const oversized = await raw([Buffer.alloc(33 * 1024 * 1024, 1)]);
    expect(oversized.code).toBe(status.RESOURCE_EXHAUSTED);
    expect((await db.execute("select 1 as one")).rows[0]!.one).toBe(1);
    await db.close();
    await expect.poll(() => server.server.clientCount).toBe(0);
  });

  it("withstands random frames", async () => {
    const seed = Date.now() % 2 ** 31;
    let state = seed;
    const next = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const value = (depth: number): unknown => {
      const pick = next(depth > 0 ? 11 : 8);
      if (pick === 0) return null;
      if (pick === 1) return next(12);
      if (pick === 2) return -next(2 ** 31) * 2 ** 20;
      if (pick === 3) return BigInt(next(2 ** 31)) ** 2n;
      if (pick === 4) return "select 1".slice(0, next(9));
      if (pick === 5) return new Uint8Array(next(20)).map(() => next(256));
      if (pick === 6) return next(2) === 0;
      if (pick === 7) return encodeVector([1n, "x"]);
      if (pick === 8) return { a: value(depth - 1) };
      return Array.from({ length: next(9) }, () => value(depth - 1));
    };
    const message = (): unknown => [
      next(12),
      next(40),
      next(3),
      ...Array.from({ length: next(7) }, () => value(2)),
    ];
    const db = await connect(server.url);
    for (let run = 0; run < 40; run++) {
      const messages: unknown[] = [
        HELLO,
        ...Array.from({ length: next(60) }, () => (next(9) === 0 ? value(3) : message())),
      ];
      const body = packMessages(messages).slice();
      if (next(3) === 0) for (let i = 0; i < 3; i++) body[next(body.length)] = next(256);
      const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure());
      const stream = client.makeBidiStreamRequest<Buffer, Buffer>(
        CLIENT_CONNECT,
        (b) => b,
        (b) => b,
        new Metadata(),
      );
      stream.on("error", () => undefined);
      stream.on("data", () => undefined);
      stream.write(serializeFrame(body));
      const answer = await db.execute("select ? as run", [run]);
      expect(answer.rows[0]!.run, `seed ${seed}`).toBe(run);
      stream.cancel();
      client.close();
    }
    await db.close();
    await expect.poll(() => server.server.clientCount, { message: `seed ${seed}`, timeout: 5000 }).toBe(0);
  });
});
