import { Gauge, Registry } from "prom-client";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type HttpServer, startHttp } from "../../../src/node/http.js";

let registry: Registry;
let server: HttpServer;

beforeEach(async () => {
  registry = new Registry();
  server = await startHttp({
    address: { host: "127.0.0.1", port: 0 },
    authToken: "secret",
    registry,
    unhealthy: async () => undefined,
    describe: () => ({ node: 1 }),
  });
});

afterEach(() => server.close());

const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`http://${server.address}${path}`, { headers });

test("metrics that cannot be read are an error and no empty answer", async () => {
  new Gauge({
    name: "broken",
    help: "throws",
    registers: [registry],
    collect() {
      throw new Error("not now");
    },
  });
  const response = await get("/metrics", { authorization: "Bearer secret" });
  expect(response.status).toBe(500);
  expect(await response.json()).toEqual({ error: "Error: not now" });
});

test("health needs no token, metrics do, and other origins get neither", async () => {
  expect((await get("/health")).status).toBe(200);
  expect((await get("/metrics")).status).toBe(401);
  expect((await get("/metrics", { authorization: "Bearer wrong" })).status).toBe(401);
  expect((await get("/metrics", { authorization: "bearer secret" })).status).toBe(200);
  expect((await get("/health", { origin: "http://elsewhere.example" })).status).toBe(403);
});
