/**
 * A cluster on this machine: one child process a node, on free loopback ports, for `demo` and `slt --nodes`.
 *
 * Invariants
 * 1. No child outlives its parent: each holds a pipe whose end tells it that the parent is gone (--exit-with-parent),
 *    and on the way out those that still run are killed by their process id.
 * 2. Children are in a process group of their own, so that Ctrl-C at the terminal is the shell's alone.
 * 3. A directory that was used before keeps its addresses, which the nodes of its cluster know one another by.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { CommandFailure, EXIT } from "./exit.js";
import { freePorts } from "./free-ports.js";

export interface LocalClusterOptions {
  readonly nodes: number;
  readonly dataDirectory: string;
  readonly rangeMaxRows?: number | undefined;
  readonly logLevel?: string | undefined;
  /** More flags for `start`, for tests. */
  readonly extraFlags?: readonly string[] | undefined;
}

interface Plan {
  readonly ports: readonly number[];
}

interface LocalNode {
  readonly id: number;
  readonly child: ChildProcess;
  readonly logFile: string;
  http: string;
}

const READY = /^ready node=(\d+) grpc=(\S+) http=(\S+)$/;
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
const PLAN_FILE = "local-cluster.json";

export class LocalCluster {
  readonly url: string;
  readonly #nodes: readonly LocalNode[];
  #stopped = false;
  readonly #killOnExit = (): void => {
    for (const { child } of this.#nodes) if (isRunning(child)) child.kill("SIGKILL");
  };

  private constructor(url: string, nodes: readonly LocalNode[]) {
    this.url = url;
    this.#nodes = nodes;
    process.on("exit", this.#killOnExit);
  }

  /** Process ids by node, for tests that kill them. */
  get pids(): ReadonlyMap<number, number> {
    return new Map(this.#nodes.map(({ id, child }) => [id, child.pid!]));
  }

  /** HTTP address of the first node. */
  get http(): string {
    return this.#nodes[0]!.http;
  }

  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    mkdirSync(options.dataDirectory, { recursive: true });
    const plan = await makePlan(options);
    const url = `ostraka://${plan.ports.map((port) => `127.0.0.1:${port}`).join(",")}`;
    const nodes = plan.ports.map((_, i) => spawnNode(options, plan, i + 1));
    const cluster = new LocalCluster(url, nodes);
    try {
      await Promise.all(nodes.map(untilReady));
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** Asks every node to stop, and kills those that do not. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await Promise.all(this.#nodes.map(stopNode));
    process.off("exit", this.#killOnExit);
  }
}

async function makePlan({ dataDirectory, nodes }: LocalClusterOptions): Promise<Plan> {
  const file = join(dataDirectory, PLAN_FILE);
  if (existsSync(file)) {
    const plan = JSON.parse(readFileSync(file, "utf8")) as Plan;
    if (plan.ports.length !== nodes) {
      throw new CommandFailure(
        EXIT.failure,
        `${dataDirectory} holds a cluster of ${plan.ports.length} nodes, not ${nodes}: say --nodes ${plan.ports.length}`,
      );
    }
    return plan;
  }
  const plan = { ports: await freePorts(nodes) };
  writeFileSync(file, `${JSON.stringify(plan)}\n`);
  return plan;
}

function spawnNode(options: LocalClusterOptions, plan: Plan, id: number): LocalNode {
  const addresses = plan.ports.map((port, i) => `${i + 1}=127.0.0.1:${port}`).join(",");
  const logFile = join(options.dataDirectory, `node-${id}.log`);
  const log = openSync(logFile, "a", 0o600);
  const flags = [
    "start",
    ...["--node-id", String(id)],
    ...["--data", join(options.dataDirectory, `node-${id}`)],
    ...["--listen", `127.0.0.1:${plan.ports[id - 1]}`],
    ...["--http", "127.0.0.1:0"],
    ...["--initial-cluster", addresses],
    ...["--log-level", options.logLevel ?? "info"],
    ...(options.rangeMaxRows === undefined ? [] : ["--range-max-rows", String(options.rangeMaxRows)]),
    ...(options.extraFlags ?? []),
    "--exit-with-parent",
  ];
  const main = fileURLToPath(new URL("./main.js", import.meta.url));
  const child = spawn(process.execPath, [main, ...flags], {
    stdio: ["pipe", "pipe", log],
    detached: true,
  });
  closeSync(log);
  child.stdin!.on("error", () => undefined);
  return { id, child, logFile, http: "off" };
}

function untilReady(node: LocalNode): Promise<void> {
  const { child, id, logFile } = node;
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stdout! });
    const timer = setTimeout(
      () => finish(`did not get ready within ${READY_TIMEOUT_MS / 1000} s`),
      READY_TIMEOUT_MS,
    );
    const onExit = (code: number | null, signal: string | null): void =>
      finish(`ended before it was ready (${signal ?? `exit code ${code}`})`);
    const onError = (error: Error): void => finish(error.message);
    const finish = (failure: string | undefined): void => {
      clearTimeout(timer);
      child.off("exit", onExit).off("error", onError);
      lines.close();
      // What else it may print is of no interest, but must not fill the pipe.
      child.stdout!.resume();
      if (failure === undefined) resolve();
      else
        reject(
          new CommandFailure(EXIT.failure, `node ${id} ${failure}; its log: ${logFile}\n${tail(logFile)}`),
        );
    };
    lines.on("line", (line) => {
      const match = READY.exec(line);
      if (match === null) return;
      node.http = match[3]!;
      finish(undefined);
    });
    child.on("exit", onExit).on("error", onError);
  });
}

function tail(file: string): string {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n").slice(-5).join("\n");
  } catch {
    return "";
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

async function stopNode({ child }: LocalNode): Promise<void> {
  if (!isRunning(child)) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const abort = new AbortController();
  const timeout = delay(STOP_TIMEOUT_MS, "timeout" as const, { signal: abort.signal }).catch(() => undefined);
  if ((await Promise.race([ended, timeout])) === "timeout") {
    child.kill("SIGKILL");
    await ended;
  }
  abort.abort();
}
