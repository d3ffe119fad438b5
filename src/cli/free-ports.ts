/**
 * Loopback ports for nodes that are about to be started.
 *
 * They lie below the range from which systems take the ports of outgoing connections (32768 on, on Linux), so that a
 * node's port is not taken before it listens, nor while it is down.
 */
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

const FIRST_PORT = 15_000;
const LAST_PORT = 32_000;

/** Never answered again by this process. */
const taken = new Set<number>();

/** So many ports that nobody listens at now. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(FIRST_PORT, LAST_PORT);
    if (taken.has(port) || !(await isFree(port))) continue;
    taken.add(port);
    ports.push(port);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listening = new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  if (!(await listening)) return false;
  await once(server.close(), "close");
  return true;
}
