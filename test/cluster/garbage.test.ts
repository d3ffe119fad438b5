/** What strangers throw at the ports: the node stays up, serves others, and holds on to nothing. */
import { randomBytes } from "node:crypto";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import { Cluster, type ClusterNode, until } from "./harness.js";

let cluster: Cluster;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await cluster?.dispose();
});

async function open(port: number): Promise<Socket> {
  const socket = connectTcp({ port, host: "127.0.0.1" });
  sockets.push(socket);
  socket.on("error", () => undefined);
  await new Promise((resolve) => socket.once("connect", resolve).once("close", resolve));
  return socket;
}

async function throwAt(port: number, bytes: Uint8Array): Promise<void> {
  const socket = await open(port);
  socket.resume();
  await new Promise<void>((resolve) => {
    socket.once("close", () => resolve());
    socket.end(bytes, () => resolve());
  });
}

/** One request on a gRPC path, with the body given, and what it came to. */
function request(
  port: number,
  path: string,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<string> {
  return new Promise((resolve) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const finish = (what: string): void => {
      session.destroy();
      resolve(what);
    };
    session.on("error", (error) => finish(`session: ${error.message}`));
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    stream.on("error", (error) => finish(`stream: ${error.message}`));
    let status = "no trailers";
    stream.on("response", (got) => {
      status = String(got["grpc-status"] ?? status);
    });
    stream.on("trailers", (got) => {
      status = String(got["grpc-status"]);
    });
    stream.on("close", () => finish(`grpc-status ${status}`));
    stream.resume();
    stream.end(body);
  });
}

function frame(length: number, body: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, body]);
}

const PATHS = ["Client/Connect", "Peer/Raft", "Peer/Snapshot", "Peer/Call", "Nothing/There"];

async function attack(node: ClusterNode): Promise<void> {
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  for (const port of [node.port, node.httpPort]) {
    await throwAt(port, randomBytes(64 * 1024));
    await throwAt(port, Buffer.concat([preface, randomBytes(64 * 1024)]));
    await throwAt(port, Buffer.from(`GET /${"a".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`));
    await throwAt(port, Buffer.from("POST /health HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"));
    await throwAt(port, Buffer.alloc(1024 * 1024));
  }
  for (const service of PATHS) {
    const path = `/ostraka.v1.${service}`;
    await request(node.port, path, randomBytes(1000));
    // A length far beyond any limit, followed by less; an empty frame; a frame of noise; many megabytes of noise.
    await request(node.port, path, frame(0xffff_fff0, randomBytes(1000)));
    await request(node.port, path, frame(0, new Uint8Array(0)));
    await request(node.port, path, frame(1000, randomBytes(1000)));
    await request(node.port, path, frame(8 * 1024 * 1024, randomBytes(8 * 1024 * 1024)));
    await request(node.port, path, frame(1000, randomBytes(1000)), {
      "ostraka-cluster": "0".repeat(32),
      "ostraka-from": "99999999999999999999",
      "ostraka-to": "-1",
      "ostraka-incarnation": "x".repeat(4000),
      "ostraka-peer-protocol": "NaN",
    });
  }
}

it("stays up, serves others and lets go", async () => {
  cluster = await Cluster.create({ nodes: 1 });
  const node = cluster.node(1);
  const { pid } = node;
  const database = await cluster.connect();
  await database.exec("create table t (id integer primary key, n); insert into t values (1, 0)");
  const term = await cluster.term();
  // Half-open: connections that say nothing, or stop in the middle.
  for (let i = 0; i < 50; i++) {
    await open(node.port);
    (await open(node.port)).write("PRI * HT");
    (await open(node.httpPort)).write("GET /health HTTP/1.1\r\nHo");
  }
  let stopped = false;
  let served = 0;
  const client = (async () => {
    for (; !stopped; served++) await database.execute("update t set n = n + 1 where id = 1");
  })();
  await attack(node);
  const { port } = node;
  const refused = await request(port, "/ostraka.v1.Client/Connect", frame(1000, randomBytes(1000)));
  expect(refused).not.toBe("grpc-status 0");
  stopped = true;
  await client;
  expect(served).toBeGreaterThan(0);
  expect((await database.execute("select n from t where id = 1")).rows[0]!.n).toBe(served);
  expect(node.running && node.pid === pid).toBe(true);
  expect(await cluster.term()).toBe(term);
  expect((await node.get("/health")).status).toBe(200);
  expect(node.log).not.toMatch(/"level":(50|60)/);
  // Only the one client is left of all that came.
  await until("the node has let go of strangers", async () => (await node.metric("ostraka_clients")) === 1);
});
