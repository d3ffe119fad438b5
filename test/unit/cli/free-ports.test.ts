import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { promisify } from "node:util";
import { beforeEach, expect, test, vi } from "vitest";
import { freePorts } from "../../../src/cli/free-ports.js";

/** What the next ports to be looked at are; any others once they are used up. */
const drawn = vi.hoisted(() => [] as number[]);

vi.mock("node:crypto", async (original) => {
  const crypto = await original<typeof import("node:crypto")>();
  return {
    ...crypto,
    randomInt: (first: number, end: number) => drawn.shift() ?? crypto.randomInt(first, end),
  };
});

beforeEach(() => {
  drawn.length = 0;
});

test("ports lie below those of outgoing connections", async () => {
  const ports = await freePorts(5);
  expect(new Set(ports).size).toBe(5);
  for (const port of ports) expect(port >= 1024 && port < 32_768).toBe(true);
});

test("a port is answered once", async () => {
  const [first] = (await freePorts(1)) as [number];
  const [second] = (await freePorts(1)) as [number];
  drawn.push(first, second);
  const [third] = await freePorts(1);
  expect([first, second]).not.toContain(third);
});

test("a port that somebody listens at is passed over", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  drawn.push(port);
  const [free] = await freePorts(1);
  expect(free).not.toBe(port);
  await once(server.close(), "close");
});

test("another process cannot claim the same port", async () => {
  const [port] = (await freePorts(1)) as [number];
  const claim = `
    const socket = require("node:dgram").createSocket("udp4");
    socket.once("error", (error) => console.log(error.code));
    socket.bind({ address: "127.0.0.1", port: ${port}, exclusive: true }, () => socket.close());`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", claim]);
  expect(stdout.trim()).toBe("EADDRINUSE");
});

test("a claim does not keep a process alive", async () => {
  const sockets = process.getActiveResourcesInfo().filter((kind) => kind.includes("UDP"));
  await freePorts(1);
  expect(process.getActiveResourcesInfo().filter((kind) => kind.includes("UDP"))).toEqual(sockets);
});
