/** Three nodes of etcd where it is installed (or where --etcd says). */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { cpuMicros } from "./proc-stat.mjs";
import { freePorts, run, start, startScript, stop, until } from "./processes.mjs";

/** The server's program; undefined when there is none. */
export function findEtcd(given) {
  const folders = given === undefined ? (process.env.PATH ?? "").split(delimiter) : [given];
  for (const folder of folders) {
    try {
      accessSync(join(folder, "etcd"), constants.X_OK);
      return join(folder, "etcd");
    } catch {
      // Not there.
    }
  }
  return undefined;
}

export class Etcd {
  #members;
  #endpoints;

  constructor(members, endpoints) {
    this.#members = members;
    this.#endpoints = endpoints;
  }

  static async start(program, directory, count) {
    const ports = await freePorts(2 * count);
    const client = (i) => `http://127.0.0.1:${ports[2 * i]}`;
    const peer = (i) => `http://127.0.0.1:${ports[2 * i + 1]}`;
    const everybody = Array.from({ length: count }, (_, i) => `m${i}=${peer(i)}`).join(",");
    const members = Array.from({ length: count }, (_, i) => {
      const flags = ["--name", `m${i}`, "--data-dir", join(directory, `etcd-${i}`), "--log-level", "error"];
      flags.push("--listen-client-urls", client(i), "--advertise-client-urls", client(i));
      flags.push("--listen-peer-urls", peer(i), "--initial-advertise-peer-urls", peer(i));
      flags.push("--initial-cluster", everybody, "--initial-cluster-state", "new");
      // As ours: a loaded machine is no reason to elect.
      flags.push("--heartbeat-interval", "200", "--election-timeout", "2000");
      const child = start(program, flags, { env: { ...process.env, ETCD_UNSUPPORTED_ARCH: process.arch } });
      child.stdout.resume();
      return child;
    });
    const endpoints = members.map((_, i) => client(i));
    for (const endpoint of endpoints) await until("etcd", () => healthy(endpoint));
    return new Etcd(members, endpoints);
  }

  client() {
    const script = startScript("etcd-client.mjs", { endpoints: this.#endpoints });
    return {
      ask: async (command, rest = {}) => {
        script.tell(JSON.stringify({ command, ...rest }));
        return script.answer();
      },
      stop: () => script.stop(),
    };
  }

  /** Processor time of all members so far; undefined where it is not told. */
  cpuMicros() {
    const used = this.#members.map(({ pid }) => cpuMicros(pid)?.all);
    return used.includes(undefined) ? undefined : used.reduce((sum, micros) => sum + micros, 0);
  }

  async stop() {
    await Promise.all(this.#members.map((member) => stop(member)));
  }
}

async function healthy(endpoint) {
  const response = await fetch(`${endpoint}/health`);
  return /"true"|true/.test((await response.json()).health) ? true : undefined;
}

export async function etcdVersion(program) {
  return /Version: (\S+)/.exec(await run(program, ["--version"]))?.[1] ?? "?";
}
