/**
 * Five real nodes and a database of many ranges, broken in every way at random: nodes are killed, paused and drained,
 * links are cut in both directions or one, while an operator splits, merges and moves ranges and transactions cross
 * them. Then everything heals: what clients were told is strictly serializable, nothing acknowledged is lost, nothing
 * stays in doubt.
 *
 * OSTRAKA_TEST_MINUTES repeats it, each time with a new cluster, for so long; SEED draws the same faults again.
 */
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { type Database, OstrakaError } from "../../src/driver/index.js";
import { SeededRandom } from "../sim/seeded-random.js";
import { Cluster, type ClusterNode } from "./harness.js";
import { CAN_CUT } from "./links.js";
import { judgeWide, severalRanges } from "./wide-verdict.js";
import { WideWorkload } from "./wide-workload.js";
import { Workload } from "./workload.js";

const MINUTES = Number(process.env.OSTRAKA_TEST_MINUTES ?? 0);
const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);
const NODES = 5;
const ROUNDS = MINUTES > 0 ? 12 : 4;
const WRITER_PAUSE_MS = 50;
/** What is asked of a side that cannot answer is given up after so long. */
const IMPATIENT_MS = 3_000;
const TABLES = ["account", "safe", "list", "tokens", "transfer"];

let cluster: Cluster;
afterEach(() => cluster?.dispose());

/** Reshapes the database at random; what it is told of its attempts does not matter. */
class Operator {
  readonly #database: Database;
  readonly #random: SeededRandom;
  readonly #work: Promise<void>;
  readonly done: Record<string, number> = {};
  #stopped = false;
  #failure: unknown;

  constructor(database: Database, random: SeededRandom) {
    this.#database = database;
    this.#random = random;
    this.#work = this.#run().catch((error: unknown) => {
      this.#failure = error;
    });
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await delay(500 + (this.#random.uint32() % 1500));
      try {
        await this.#reshape();
      } catch (error) {
        if (!(error instanceof OstrakaError) || /INVARIANT|INTERNAL|CORRUPT/.test(error.code)) throw error;
      }
    }
  }

  async #reshape(): Promise<void> {
    const pick = <T>(of: readonly T[]): T => of[this.#random.uint32() % of.length]!;
    const ranges = (await this.#database.admin("range.list", {})) as {
      range_id: number;
      replicas: number[];
    }[];
    const { range_id: range, replicas } = pick(ranges);
    const verb = pick(["range.split", "range.merge", "range.move", "range.transfer"]);
    const elsewhere = cluster.nodes.map(({ id }) => id).filter((id) => !replicas.includes(id));
    const args: Record<string, Record<string, unknown>> = {
      "range.split": { table: pick(TABLES), at: [String(1 + (this.#random.uint32() % 24))] },
      "range.merge": { range },
      "range.move": { range, from: pick(replicas), to: pick(elsewhere) },
      "range.transfer": { range, to: pick(replicas) },
    };
    await this.#database.admin(verb, args[verb]!);
    this.done[verb] = (this.done[verb] ?? 0) + 1;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
    if (this.#failure !== undefined) throw this.#failure;
  }
}

type Fault = (node: ClusterNode, others: readonly ClusterNode[]) => Promise<() => Promise<void> | void>;

/** Each breaks something and answers what mends it. */
const FAULTS: Readonly<Record<string, Fault>> = {
  kill: async (node) => {
    await node.kill();
    return () => node.start();
  },
  "kill two": async (node, [other]) => {
    await Promise.all([node.kill(), other!.kill()]);
    return async () => {
      await Promise.all([node.start(), other!.start()]);
    };
  },
  pause: async (node) => {
    node.signal("SIGSTOP");
    return () => node.signal("SIGCONT");
  },
  drain: async (node) => {
    node.signal("SIGTERM");
    await node.exit;
    return () => node.start();
  },
  isolate: async (node, others) => {
    for (const other of others) cluster.links!.sever(node.id, other.id);
    return () => cluster.links!.heal();
  },
  "split the net": async (node, [friend, ...rest]) => {
    for (const side of [node, friend!]) for (const other of rest) cluster.links!.sever(side.id, other.id);
    return () => cluster.links!.heal();
  },
  mute: async (node, others) => {
    for (const other of others) cluster.links!.cut(node.id, other.id);
    return () => cluster.links!.heal();
  },
  deafen: async (node, others) => {
    for (const other of others) cluster.links!.cut(other.id, node.id);
    return () => cluster.links!.heal();
  },
};

async function episode(seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  cluster = await Cluster.create({
    nodes: NODES,
    links: true,
    electionTimeoutMs: 500,
    flags: ["--range-max-rows", "16", "--replicas", "3"],
  });
  const database = await cluster.connect();
  await Workload.prepare(database);
  await WideWorkload.prepare(database);
  await severalRanges(database, 3);
  const narrow = new Workload({ pauseMs: WRITER_PAUSE_MS, timeoutMs: IMPATIENT_MS });
  const wide = new WideWorkload(random, { pauseMs: WRITER_PAUSE_MS });
  for (const node of cluster.nodes) {
    const client = await cluster.connect([node, ...cluster.others(node)], { timeoutMs: IMPATIENT_MS });
    narrow.start(client, 1);
    wide.start(client, `client of ${node.id}`);
  }
  const operator = new Operator(await cluster.connect(cluster.nodes, { timeoutMs: 10_000 }), random);
  const struck: string[] = [];
  const names = Object.keys(FAULTS);
  for (let round = 0; round < ROUNDS; round++) {
    await Promise.all([narrow.progress(5), wide.progress(1)]);
    const [node, ...others] = shuffled(cluster.nodes, random) as [ClusterNode, ...ClusterNode[]];
    const name = names[random.uint32() % names.length]!;
    struck.push(`${name} ${node.id}`);
    const mend = await FAULTS[name]!(node, others);
    // Some are over before anybody notices, some outlast elections.
    await delay(random.uint32() % 4000);
    await mend();
  }
  await Promise.all([narrow.progress(5), wide.progress(1)]);
  await operator.stop();
  const told = await judgeWide(cluster, database, narrow, wide);
  process.stderr.write(
    `mixed (seed ${seed}): ${struck.join(", ")}; ${JSON.stringify(operator.done)}; ${told}\n`,
  );
  await cluster.dispose();
}

function shuffled<T>(of: readonly T[], random: SeededRandom): T[] {
  const all = [...of];
  for (let i = all.length - 1; i > 0; i--) {
    const j = random.uint32() % (i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return all;
}

describe.skipIf(!CAN_CUT)("five nodes, everything at once", () => {
  it(`agree on one history (seed ${SEED})`, { timeout: 600_000 + MINUTES * 90_000 }, async () => {
    const startMs = performance.now();
    let seed = SEED;
    do await episode(seed++);
    while (performance.now() - startMs < MINUTES * 60_000);
    expect(seed).toBeGreaterThan(SEED);
  });
});
