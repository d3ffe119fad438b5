/**
 * Loopback ports for nodes that are about to be started.
 *
 * They lie below the range from which systems take the ports of outgoing connections (32768 on, on Linux), so that a
 * node's port is not taken before it listens, nor while it is down. Against other processes that look for ports in the
 * same way, each is claimed by a UDP socket of the same number, which this process holds as long as it lives.
 */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

const FIRST_PORT = 15_000;
const LAST_PORT = 32_000;
const LOOPBACK = "127.0.0.1";

/** So many ports that nobody listens at now. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(FIRST_PORT, LAST_PORT);
    if ((await claim(port)) && (await isFree(port))) ports.push(port);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listening = new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, LOOPBACK, () => resolve(true));
  });
  if (!(await listening)) return false;
  await once(server.close(), "close");
  return true;
}

/** False when another process has it, or this one already. */
async function claim(port: number): Promise<boolean> {
  const socket = createSocket("udp4").unref();
  return new Promise((resolve) => {
    socket.once("error", () => {
      socket.close();
      resolve(false);
    });
    socket.bind({ address: LOOPBACK, port, exclusive: true }, () => resolve(true));
  });
}
