/**
 * Clusters of real processes for tests: nodes on loopback that can be killed, stopped, continued, wiped and started
 * again with any flags, each by its process id.
 *
 * Invariants
 * 1. Nothing outlives a test: `Cluster.dispose` kills every process it started and removes its directory; so does the
 *    end of the test process (children also end with their standard input: --exit-with-parent).
 * 2. Ports are such (src/cli/free-ports.ts) that one of a node that was killed is not taken before it comes back.
 * 3. Nothing sleeps for a fixed time: tests wait for conditions (`until`), with generous deadlines.
 *
 * The product is built once, when dist/ is missing or older than a source file.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePorts } from "../../src/cli/free-ports.js";
import { type ConnectOptions, connect, type Database } from "../../src/driver/index.js";
import { Links } from "./links.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const MAIN: string = join(ROOT, "dist", "cli", "main.js");
const READY_MS = 60_000;
const READY = /^ready node=(\d+) grpc=(\S+) http=(\S+)$/;
/** The group that has the rows. */
export const RANGE_GROUP = 3;

let built = false;

function newestSource(directory: string): number {
  let newest = 0;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestSource(path));
    else if (entry.name.endsWith(".ts")) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}

/** Compiles src/ if dist/ is missing or older. */
export function build(): void {
  if (built) return;
  built = true;
  if (existsSync(MAIN) && statSync(MAIN).mtimeMs >= newestSource(join(ROOT, "src"))) return;
  execFileSync(
    process.execPath,
    [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json"],
    {
      cwd: ROOT,
      stdio: "inherit",
    },
  );
}

/** Ends `until` at once: waiting longer cannot help. */
class Hopeless extends Error {}

/** Asks again until the answer is not undefined or false; says what it waited for when time is up. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = READY_MS,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      last = answer;
    } catch (error) {
      if (error instanceof Hopeless) throw error;
      last = error;
    }
    if (performance.now() > deadline)
      throw new Error(`waited ${timeoutMs} ms in vain until ${what}; last: ${String(last)}`);
    await delay(25);
  }
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface NodeSettings {
  readonly id: number;
  readonly port: number;
  /** Where its peers reach it, when that is not where it listens. */
  readonly peerPort: number;
  readonly httpPort: number;
  readonly directory: string;
  readonly logFile: string;
}

export class ClusterNode {
  readonly id: number;
  readonly port: number;
  readonly peerPort: number;
  readonly httpPort: number;
  readonly logFile: string;
  directory: string;
  /** Those of the last start. */
  flags: readonly string[] = [];
  #child: ChildProcess | undefined;
  #exit: Promise<Exit> = Promise.resolve({ code: null, signal: null });
  #ready: Promise<void> = Promise.resolve();

  constructor(settings: NodeSettings) {
    this.id = settings.id;
    this.port = settings.port;
    this.peerPort = settings.peerPort;
    this.httpPort = settings.httpPort;
    this.directory = settings.directory;
    this.logFile = settings.logFile;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get peerAddress(): string {
    return `127.0.0.1:${this.peerPort}`;
  }

  get url(): string {
    return `ostraka://${this.address}`;
  }

  get pid(): number {
    return this.#child!.pid!;
  }

  get running(): boolean {
    const child = this.#child;
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** The end of the process started last. */
  get exit(): Promise<Exit> {
    return this.#exit;
  }

  /** What the node has logged, over all its starts. */
  get log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, "utf8") : "";
  }

  /** Starts the process with these flags (those of the last start when left out) and does not wait. */
  spawn(flags: readonly string[] = this.flags): void {
    if (this.running) throw new Error(`node ${this.id} runs already`);
    this.flags = flags;
    const child = spawn(process.execPath, [MAIN, "start", ...flags, "--exit-with-parent"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    // Through a pipe: what is done to the process's files must not silence it.
    child.stderr!.on("data", (chunk: Uint8Array) => appendFileSync(this.logFile, chunk));
    child.stdin!.on("error", () => undefined);
    this.#child = child;
    // What it has said last is read too, unless a process of its own that outlives it for a moment holds the pipe.
    const closed = once(child, "close");
    this.#exit = once(child, "exit").then(async ([code, signal]) => {
      await Promise.race([closed, delay(1000, undefined, { ref: false })]);
      return { code, signal } as Exit;
    });
    this.#ready = this.#untilReady(child);
    this.#ready.catch(() => undefined);
  }

  #untilReady(child: ChildProcess): Promise<void> {
    return new Promise((resolve, reject) => {
      const lines = createInterface({ input: child.stdout! });
      const timer = setTimeout(() => reject(this.#trouble("did not get ready in time")), READY_MS);
      lines.on("line", (line) => {
        if (!READY.test(line)) return;
        clearTimeout(timer);
        resolve();
      });
      child.once("close", (code, signal) => {
        clearTimeout(timer);
        reject(this.#trouble(`ended before it was ready (${signal ?? `exit code ${code}`})`));
      });
    });
  }

  #trouble(what: string): Error {
    return new Error(`node ${this.id} ${what}; its log ends:\n${this.log.split("\n").slice(-12).join("\n")}`);
  }

  ready(): Promise<void> {
    return this.#ready;
  }

  async start(flags?: readonly string[]): Promise<void> {
    this.spawn(flags);
    await this.ready();
  }

  /** SIGKILL; resolves once the process is gone. */
  async kill(): Promise<void> {
    if (!this.running) return;
    this.#child!.kill("SIGKILL");
    await this.#exit;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child!.kill(signal);
  }

  /** Removes its data; the process must not run. */
  wipe(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A metric's value, or undefined where the node does not answer. */
  async metric(name: string, group?: number): Promise<number | undefined> {
    const { text } = await this.get("/metrics");
    const label = group === undefined ? "" : `{group="${group}"}`;
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${name}${label} `));
    return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(" ")));
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<{ status: number; text: string }> {
    const response = await fetch(`http://127.0.0.1:${this.httpPort}${path}`, {
      headers,
      signal: AbortSignal.timeout(10_000),
    });
    return { status: response.status, text: await response.text() };
  }
}

export interface ClusterOptions {
  readonly nodes?: number;
  readonly electionTimeoutMs?: number;
  /** More flags for every node. */
  readonly flags?: readonly string[];
  /** False: the nodes are made and not started. */
  readonly start?: boolean;
  readonly connect?: ConnectOptions;
  /** Nodes reach one another over wires that can be cut. */
  readonly links?: boolean;
}

export class Cluster {
  readonly directory: string;
  readonly nodes: ClusterNode[] = [];
  readonly electionTimeoutMs: number;
  /** With the option of that name. */
  readonly links: Links | undefined;
  readonly #flags: readonly string[];
  readonly #connect: ConnectOptions;
  readonly #databases: Database[] = [];
  readonly #onExit = (): void => {
    for (const node of this.nodes) if (node.running) process.kill(node.pid, "SIGKILL");
  };

  private constructor(options: ClusterOptions) {
    build();
    this.directory = mkdtempSync(join(tmpdir(), "ostraka-cluster-"));
    this.electionTimeoutMs = options.electionTimeoutMs ?? 500;
    this.#flags = options.flags ?? [];
    this.#connect = options.connect ?? {};
    this.links = options.links === true ? new Links(() => this.nodes) : undefined;
    process.on("exit", this.#onExit);
  }

  static async create(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(options);
    try {
      for (let id = 1; id <= (options.nodes ?? 3); id++) await cluster.addNode(id);
      if (options.start !== false) await cluster.startAll();
      return cluster;
    } catch (error) {
      await cluster.dispose();
      throw error;
    }
  }

  /** A node that is not started. */
  async addNode(id: number): Promise<ClusterNode> {
    const [port, httpPort, ofLinks] = (await freePorts(3)) as [number, number, number];
    const peerPort = this.links === undefined ? port : ofLinks;
    await this.links?.forward(id, port, peerPort);
    const node = new ClusterNode({
      id,
      port,
      peerPort,
      httpPort,
      directory: join(this.directory, `node-${id}`),
      logFile: join(this.directory, `node-${id}.log`),
    });
    this.nodes.push(node);
    return node;
  }

  async startAll(): Promise<void> {
    for (const node of this.nodes) node.spawn(this.foundingFlags(node));
    await Promise.all(this.nodes.map((node) => node.ready()));
  }

  /** What a founding node is started with. */
  foundingFlags(node: ClusterNode): readonly string[] {
    const members = this.nodes.map(({ id, peerAddress }) => `${id}=${peerAddress}`).join(",");
    return ["--node-id", String(node.id), "--initial-cluster", members, ...this.commonFlags(node)];
  }

  /** What any node of the cluster is started with, whoever it is. */
  commonFlags(node: ClusterNode): readonly string[] {
    return [
      ...["--data", node.directory, "--listen", node.address, "--http", `127.0.0.1:${node.httpPort}`],
      ...["--election-timeout-ms", String(this.electionTimeoutMs), "--log-level", "info"],
      ...this.#flags,
    ];
  }

  node(id: number): ClusterNode {
    return this.nodes.find((node) => node.id === id)!;
  }

  others(node: ClusterNode): ClusterNode[] {
    return this.nodes.filter((other) => other !== node);
  }

  urlOf(nodes: readonly ClusterNode[]): string {
    return `ostraka://${nodes.map(({ address }) => address).join(",")}`;
  }

  get url(): string {
    return this.urlOf(this.nodes);
  }

  /** A client of these nodes (all when left out), closed with the cluster. */
  async connect(nodes: readonly ClusterNode[] = this.nodes, options: ConnectOptions = {}): Promise<Database> {
    const database = await connect(this.urlOf(nodes), { timeoutMs: 60_000, ...this.#connect, ...options });
    this.#databases.push(database);
    return database;
  }

  /** The node that leads a group, as it says itself; waits until exactly one of those that answer does. */
  leader(group = RANGE_GROUP): Promise<ClusterNode> {
    return until(`group ${group} has a leader`, async () => {
      const roles = await Promise.all(
        this.nodes
          .filter((node) => node.running)
          .map(async (node) => {
            const leads = await node.metric("ostraka_raft_is_leader", group).catch(() => undefined);
            const term = leads === 1 ? await node.metric("ostraka_raft_term", group).catch(() => 0) : 0;
            return { node, leads: leads === 1, term: term ?? 0 };
          }),
      );
      const leaders = roles.filter(({ leads }) => leads).sort((a, b) => b.term - a.term);
      return leaders[0]?.node;
    });
  }

  async term(group = RANGE_GROUP): Promise<number> {
    const leader = await this.leader(group);
    return (await leader.metric("ostraka_raft_term", group))!;
  }

  /** Every replica has the same state; throws with the report when they have not. */
  async checkDigests(database: Database): Promise<void> {
    interface Report {
      readonly equal: boolean;
      readonly groups: readonly {
        readonly equal: boolean;
        readonly replicas: readonly { error?: string }[];
      }[];
    }
    await until("the replicas' digests are equal", async () => {
      const report = (await database.admin("check", {})) as Report;
      if (report.equal) return true;
      // A replica that could not be asked is waited for; one that answered something else is the end.
      const differs = report.groups.some(
        ({ equal, replicas }) => !equal && replicas.every(({ error }) => error === undefined),
      );
      if (differs) throw new Hopeless(JSON.stringify(report, null, 1));
      throw new Error(JSON.stringify(report));
    });
  }

  async dispose(): Promise<void> {
    await Promise.all(this.#databases.map((database) => database.close()));
    for (const node of this.nodes) await node.kill();
    await this.links?.close();
    process.off("exit", this.#onExit);
    if (process.env.OSTRAKA_TEST_KEEP === undefined) rmSync(this.directory, { recursive: true, force: true });
  }
}
