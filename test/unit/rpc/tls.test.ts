/** TLS on the one port: clients by token, peers by certificate. The keys beside this file serve no other purpose. */
import { readFileSync } from "node:fs";
import { ChannelCredentials, Client, Metadata, type StatusObject, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeId } from "../../../src/base/ids.js";
import { connect } from "../../../src/driver/index.js";
import { silentLogger } from "../../../src/rpc/logger.js";
import { PeerCalls } from "../../../src/rpc/peer-calls.js";
import { PeerChannels } from "../../../src/rpc/peer-channels.js";
import { RpcServer } from "../../../src/rpc/server.js";
import { systemClock, systemRandom } from "../../../src/rpc/system.js";
import { PEER_CALL } from "../../../src/rpc/wire.js";
import { LocalGateway } from "../../client/local-gateway.js";

const pem = (name: string): Buffer => readFileSync(new URL(`./tls/${name}`, import.meta.url));
const tls = { ca: pem("ca.pem"), cert: pem("node.pem"), key: pem("node.key") };
const strangerTls = { ca: pem("ca.pem"), cert: pem("stranger.pem"), key: pem("stranger.key") };

let gateway: LocalGateway;
let server: RpcServer;
let closing: (() => void)[];

beforeEach(async () => {
  gateway = new LocalGateway();
  closing = [];
  const calls = makeCalls(2, tls);
  calls.serve("hello", async () => "welcome");
  const refused = () => ({ onFrame: () => undefined, onDrain: () => undefined, onClose: () => undefined });
  server = new RpcServer({
    host: "127.0.0.1",
    port: 0,
    tls,
    authToken: "token",
    clock: systemClock,
    logger: silentLogger,
    client: { gateway, clusterId: "c", nodeId: 2, sqliteVersion: "3" },
    peer: {
      identity: { clusterId: "c", nodeId: 2, incarnation: "i", refuse: () => undefined },
      services: {
        raft: refused,
        snapshot: refused,
        stranger: refused,
        call: (stream) => calls.accept(stream),
      },
    },
  });
  await server.listen();
});

afterEach(async () => {
  for (const close of closing) close();
  await server.close();
  gateway.dispose();
});

function makeCalls(id: number, credentials: typeof tls): PeerCalls {
  const channels = new PeerChannels({
    clusterId: "c",
    nodeId: nodeId(id),
    incarnation: "i",
    address: () => `127.0.0.1:${server.port}`,
    tls: credentials,
  });
  const calls = new PeerCalls({ channels, clock: systemClock, random: systemRandom, logger: silentLogger });
  closing.push(() => {
    calls.close();
    channels.close();
  });
  return calls;
}

describe("TLS", () => {
  it("serves clients with a token and no certificate", async () => {
    const db = await connect(`ostrakas://127.0.0.1:${server.port}`, {
      tls: { ca: tls.ca },
      authToken: "token",
    });
    expect((await db.execute("select 1 as one")).rows[0]!.one).toBe(1);
    await db.close();
  });

  it.each<[string, string, Parameters<typeof connect>[1], string]>([
    ["no token", "ostrakas", { tls: { ca: tls.ca } }, "OSTRAKA_UNAUTHENTICATED"],
    ["a server it cannot trust", "ostrakas", { authToken: "token" }, "OSTRAKA_UNAVAILABLE"],
    ["another CA", "ostrakas", { authToken: "token", tls: { ca: pem("other.pem") } }, "OSTRAKA_UNAVAILABLE"],
    ["no TLS", "ostraka", { authToken: "token" }, "OSTRAKA_UNAVAILABLE"],
  ])("does not connect with %s", async (_, scheme, options, code) => {
    const url = `${scheme}://127.0.0.1:${server.port}`;
    await expect(connect(url, { ...options, timeoutMs: 700 })).rejects.toMatchObject({ code });
  });

  it("serves peers with a certificate of the cluster's CA", async () => {
    expect(await makeCalls(1, tls).call(nodeId(2), "hello", [])).toBe("welcome");
  });

  it("refuses peers with another CA's certificate, and clients' tokens", async () => {
    await expect(makeCalls(1, strangerTls).call(nodeId(2), "hello", [])).rejects.toThrow(
      /signed by the cluster's CA/,
    );
    const client = new Client(`127.0.0.1:${server.port}`, ChannelCredentials.createSsl(tls.ca));
    const metadata = new Metadata();
    for (const [key, value] of Object.entries({
      authorization: "Bearer token",
      "ostraka-cluster": "c",
      "ostraka-from": "1",
      "ostraka-to": "2",
      "ostraka-peer-protocol": "1",
      "ostraka-cluster-secret": "token",
    }))
      metadata.set(key, value);
    const stream = client.makeBidiStreamRequest<Buffer, Buffer>(
      PEER_CALL,
      (b) => b,
      (b) => b,
      metadata,
    );
    stream.on("error", () => undefined);
    stream.on("data", () => undefined);
    const ended = await new Promise<StatusObject>((resolve) => stream.on("status", resolve));
    expect(ended.code).toBe(status.UNAUTHENTICATED);
    client.close();
  });
});
