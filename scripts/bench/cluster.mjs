/** Nodes of ours, one process each, and the driver in another. */
import { mkdirSync } from "node:fs";
import { request } from "node:http";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { cpuBetween, cpuMicros } from "./proc-stat.mjs";
import { freePorts, start, startScript, stop } from "./processes.mjs";

export class Cluster {
  #nodes;
  #http;
  #stopping = false;

  constructor(nodes, http, url, driver) {
    this.#nodes = nodes;
    this.#http = http;
    this.url = url;
    this.driver = driver;
  }

  /** `nodeFlags` are Node's, `startFlags` those of `ostraka start`. */
  static async start(directory, count, dist, nodeFlags = [], startFlags = []) {
    const ports = await freePorts(count);
    const addresses = ports.map((port, i) => `${i + 1}=127.0.0.1:${port}`).join(",");
    const nodes = [];
    for (let id = 1; id <= count; id++) {
      const data = join(directory, `node-${id}`);
      mkdirSync(data, { recursive: true });
      const flags = ["start", "--node-id", String(id), "--data", data, "--http", "127.0.0.1:0"];
      flags.push("--listen", `127.0.0.1:${ports[id - 1]}`, "--initial-cluster", addresses);
      flags.push("--log-level", "warn", "--exit-with-parent", ...startFlags);
      nodes.push(start(process.execPath, [...nodeFlags, join(dist, "cli/main.js"), ...flags]));
    }
    const http = await Promise.all(nodes.map(ready));
    const url = `ostraka://${ports.map((port) => `127.0.0.1:${port}`).join(",")}`;
    const cluster = new Cluster(nodes, http, url, pathToFileURL(resolve(dist, "driver/index.js")).href);
    nodes.forEach((node, i) => {
      node.once("exit", (code, signal) => {
        if (!cluster.#stopping)
          process.stderr.write(`node ${i + 1} ended by itself (${code ?? signal}): ${node.lastWords}\n`);
      });
    });
    return cluster;
  }

  get pids() {
    return this.#nodes.map(({ pid }) => pid);
  }

  client() {
    const script = startScript("ostraka-client.mjs", { driver: this.driver, url: this.url });
    return {
      pid: script.pid,
      ask: async (command, rest = {}) => {
        script.tell(JSON.stringify({ command, ...rest }));
        return script.answer();
      },
      stop: () => script.stop(),
    };
  }

  /** Runs a command at the client, and says what it took of the processors. */
  async measure(client, command, rest) {
    const before = this.pids.map(cpuMicros);
    const answer = await client.ask(command, rest);
    const after = this.pids.map(cpuMicros);
    const nodes = after.map((at, i) => cpuBetween(before[i], at, answer.operations));
    return { ...answer, cpu: { nodes, client: answer.cpuMicros / answer.operations } };
  }

  /** A value of the first node's metrics, by name. */
  async metric(name) {
    const text = await get(`http://${this.#http[0]}/metrics`);
    const value = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(text)?.[1];
    return value === undefined ? undefined : Number(value);
  }

  async stop() {
    this.#stopping = true;
    await Promise.all(this.#nodes.map((node) => stop(node)));
  }
}

function ready(node) {
  return new Promise((found, failed) => {
    const lines = createInterface({ input: node.stdout });
    lines.on("line", (line) => {
      const http = /^ready node=\d+ grpc=\S+ http=(\S+)$/.exec(line)?.[1];
      if (http !== undefined) found(http);
    });
    node.once("exit", () => failed(new Error(`a node ended before it was ready: ${node.lastWords}`)));
  });
}

function get(url) {
  return new Promise((found, failed) => {
    request(url, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => {
        text += part;
      });
      response.on("end", () => found(text));
    })
      .on("error", failed)
      .end();
  });
}
