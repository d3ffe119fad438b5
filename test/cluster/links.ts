/**
 * The wires between nodes of a real cluster: each node is reached by its peers through a proxy of its own on loopback,
 * which knows who connects (by the process that owns the other end of the socket, as /proc tells) and holds what is
 * sent in a direction that is cut, as a network does that drops packets: connections stay, nothing arrives, and what is
 * under way arrives late once the cut is mended. Clients connect to the nodes themselves.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";

/** Without /proc nobody can tell whose connection it is. */
export const CAN_CUT = process.platform === "linux";

export interface LinkedNode {
  readonly id: number;
  /** Where it listens. */
  readonly port: number;
  readonly pid: number;
  readonly running: boolean;
}

interface Connection {
  readonly caller: number;
  readonly target: number;
  readonly inbound: Socket;
  readonly outbound: Socket;
}

export class Links {
  readonly #nodes: () => readonly LinkedNode[];
  readonly #servers: Server[] = [];
  readonly #connections = new Set<Connection>();
  readonly #cuts = new Set<string>();

  constructor(nodes: () => readonly LinkedNode[]) {
    this.#nodes = nodes;
  }

  /** Where peers reach a node that listens at `port`: forwards to it from now on. */
  async forward(target: number, port: number, proxyPort: number): Promise<void> {
    const server = createServer((inbound) => this.#accept(target, port, proxyPort, inbound));
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(proxyPort, "127.0.0.1", resolve);
    });
  }

  /** Nothing that `from` sends arrives at `to` any more. */
  cut(from: number, to: number): void {
    this.#cuts.add(`${from}>${to}`);
    this.#flow();
  }

  /** Neither hears the other. */
  sever(a: number, b: number): void {
    this.cut(a, b);
    this.cut(b, a);
  }

  /** Everything passes again, what was held first. */
  heal(): void {
    this.#cuts.clear();
    this.#flow();
  }

  async close(): Promise<void> {
    for (const { inbound, outbound } of this.#connections) {
      inbound.destroy();
      outbound.destroy();
    }
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
  }

  #accept(target: number, port: number, proxyPort: number, inbound: Socket): void {
    const outbound = connect(port, "127.0.0.1");
    const end = (): void => {
      inbound.destroy();
      outbound.destroy();
      this.#connections.delete(connection);
    };
    const connection: Connection = { caller: this.#callerOf(inbound, proxyPort), target, inbound, outbound };
    this.#connections.add(connection);
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      from.setNoDelay(true);
      from.on("error", end);
      from.on("close", end);
      from.pipe(to);
    }
    this.#flow();
  }

  /** Holds what is cut, and lets the rest pass. A socket that is not read keeps what its sender sent. */
  #flow(): void {
    for (const { caller, target, inbound, outbound } of this.#connections) {
      steer(inbound, outbound, this.#cuts.has(`${caller}>${target}`));
      steer(outbound, inbound, this.#cuts.has(`${target}>${caller}`));
    }
  }

  #callerOf({ remotePort }: Socket, proxyPort: number): number {
    const inode = inodeOf(remotePort ?? 0, proxyPort);
    const owner = this.#nodes().find(({ running, pid }) => running && owns(pid, inode));
    return owner?.id ?? 0;
  }
}

function steer(from: Socket, to: Socket, cut: boolean): void {
  if (cut) {
    from.unpipe(to);
    from.pause();
  } else if (from.isPaused()) from.pipe(to);
}

/** Of the socket whose own port is `port` and whose other end is `peerPort`. */
function inodeOf(port: number, peerPort: number): string | undefined {
  const hex = (number: number): string => number.toString(16).toUpperCase().padStart(4, "0");
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"])
    for (const line of readFileSync(table, "utf8").split("\n").slice(1)) {
      const [, local, remote, , , , , , , inode] = line.trim().split(/\s+/);
      if (local?.endsWith(`:${hex(port)}`) && remote?.endsWith(`:${hex(peerPort)}`)) return inode;
    }
  return undefined;
}

function owns(pid: number, inode: string | undefined): boolean {
  if (inode === undefined) return false;
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`;
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}
