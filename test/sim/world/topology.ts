/**
 * What operators do to a database of many ranges while everything else goes wrong: splits, merges, leaders and replicas
 * that go elsewhere, nodes that are drained. Each is asked of some node as `ostraka range` and `ostraka node` do; which
 * ranges there are is looked up in what the nodes know.
 */
import { OstrakaError } from "../../../src/base/errors.js";
import { COORDINATOR_GROUP, type GroupId, nodeId } from "../../../src/base/ids.js";
import type { NodeState } from "../../../src/machines/meta/meta.js";
import type { RangeDirectory } from "../../../src/placement/directory.js";
import type { SimRandom } from "../sim-random.js";
import { Lost, NotSent, SimClient } from "./client.js";
import type { Fault, Strike, Weights } from "./faults.js";
import { check, Violation } from "./invariants.js";
import type { SplittableTable } from "./workloads/workload.js";
import type { World } from "./world.js";

export type TopologyKind =
  | "split"
  | "split beside"
  | "merge"
  | "transfer range"
  | "bounce range"
  | "transfer coordinator"
  | "move replica"
  | "drain";

export const TOPOLOGY_WEIGHTS: Weights = [
  ["split", 12],
  ["split beside", 4],
  ["merge", 6],
  ["transfer range", 6],
  ["bounce range", 4],
  ["transfer coordinator", 5],
  ["move replica", 5],
  ["drain", 1],
];

const AGAIN_MS = 300;
/** What an operator may be told: that there is nothing to be done, or not now. */
const TOLD = /^(OSTRAKA_(UNSUPPORTED|REFUSED|NO_SUCH_RANGE|NO_SUCH_NODE|UNAVAILABLE)|SQLITE_ERROR)$/;

type Verb = (operator: Operator, fault: Fault) => Promise<void>;

export const TOPOLOGY: Readonly<Record<TopologyKind, Strike>> = {
  split: by((operator, fault) => operator.split(fault.a, fault.b)),
  "split beside": by((operator, fault) => operator.splitBeside(fault.a, fault.b)),
  merge: by((operator, fault) => operator.merge(fault.a)),
  "transfer range": by((operator, { node, a }) => operator.transfer(operator.rangeAt(a), node)),
  "bounce range": by(async (operator, { node, a, b, forMs }) => {
    const range = operator.rangeAt(a);
    const before = operator.world.leader(range)?.id ?? node;
    await operator.transfer(range, node);
    await operator.pause(forMs * b * b * 0.1);
    await operator.transfer(range, before);
  }),
  "transfer coordinator": by((operator, { node }) => operator.transfer(COORDINATOR_GROUP, node)),
  "move replica": by((operator, { node, a, b }) => operator.move(operator.rangeAt(a), b, node)),
  drain: by((operator, { node, forMs }) => operator.drain(node, forMs)),
};

function by(verb: Verb): Strike {
  return (world, fault) => {
    verb(world.operator, fault).catch((error: unknown) => world.fail(error));
  };
}

export class Operator {
  readonly world: World;
  readonly #client: SimClient;
  readonly #random: SimRandom;
  readonly #tables: readonly SplittableTable[];
  /** What is to be undone before the end. */
  readonly #draining = new Set<number>();
  #healed = false;

  constructor(world: World, id: number, random: SimRandom, tables: readonly SplittableTable[]) {
    this.world = world;
    this.#random = random;
    this.#tables = tables;
    this.#client = new SimClient(world, id, random.stream("operator"));
  }

  pause(ms: number): Promise<void> {
    return this.#client.pause(ms);
  }

  // --- what there is ----------------------------------------------------------------------------------------------

  /** The newest that any node knows. */
  get directory(): RangeDirectory | undefined {
    let newest: RangeDirectory | undefined;
    const age = (directory: RangeDirectory): number =>
      directory.ranges.reduce((sum, { generation }) => sum + generation, 0);
    for (const { process } of this.world.machines) {
      const directory = process?.hosting?.view.directory();
      if (directory !== undefined && (newest === undefined || age(directory) > age(newest)))
        newest = directory;
    }
    return newest;
  }

  rangeAt(a: number): GroupId {
    const ranges = this.directory?.ranges ?? [];
    return ranges[Math.floor(a * ranges.length)]?.range ?? (3 as GroupId);
  }

  // --- what is done -----------------------------------------------------------------------------------------------

  /** True when it was done; false when it was refused, or nobody knows. */
  async #ask(verb: string, args: Readonly<Record<string, unknown>>): Promise<boolean> {
    const process = this.world.process(this.#random.pick(this.world.machines).id);
    if (process?.network.gateway === undefined) return false;
    try {
      await this.#client.request(process, (gateway) => gateway.admin(verb, args));
      this.world.note(`done: ${verb}`);
      return true;
    } catch (error) {
      if (error instanceof Lost || error instanceof NotSent) return false;
      if (!(error instanceof OstrakaError)) throw error;
      this.world.note(`not done: ${verb} (${error.code})`);
      const { family, code } = error;
      if (family === "user" && TOLD.test(code)) return false;
      if (family === "retry" || family === "ambiguous") return false;
      if (family === "fatal" && (this.world.excused || !/INVARIANT|INTERNAL|CORRUPT/.test(code)))
        return false;
      throw new Violation(
        `an operator was told ${code} "${error.message}" for ${verb} ${JSON.stringify(args)}`,
      );
    }
  }

  async split(a: number, b: number): Promise<void> {
    const table = this.#tables[Math.floor(a * this.#tables.length)];
    if (table === undefined) return;
    const key = table.low + Math.floor(b * (table.high - table.low));
    await this.#ask("range.split", { table: table.table, at: table.word?.(key) ?? String(key) });
  }

  /** Twice in a row in one table: a child splits as soon as it is born. */
  async splitBeside(a: number, b: number): Promise<void> {
    await Promise.all([this.split(a, b), this.split(a, (b + 1) / 2)]);
  }

  async merge(a: number): Promise<void> {
    const range = this.rangeAt(a);
    if (await this.#ask("range.merge", { range })) return;
    // One that was cut short leaves its right range frozen: whoever began it goes on until it is done.
    await this.thaw(20);
  }

  async transfer(range: GroupId, to: number): Promise<void> {
    await this.#ask("range.transfer", { range, to });
  }

  async move(range: GroupId, from: number, to: number): Promise<void> {
    const replicas = this.directory?.get(range)?.replicas ?? [];
    const source = replicas[Math.floor(from * replicas.length)];
    if (source !== undefined) await this.#ask("range.move", { range, from: source, to });
  }

  async drain(node: number, forMs: number): Promise<void> {
    if (this.#healed || this.#draining.size > 0) return;
    this.#draining.add(node);
    await this.#ask("node.drain", { node, wait: false });
    await this.pause(forMs);
    await this.#undrain(node);
  }

  async remove(node: number): Promise<void> {
    await this.#ask("node.remove", { node, wait: false });
  }

  /** What the cluster has a node for, as the nodes know it that are up and have heard of it. */
  standings(node: number): NodeState[] {
    const known = this.world.machines.map(({ process }) => process?.network.meta?.node(nodeId(node))?.state);
    return known.filter((state) => state !== undefined);
  }

  async #undrain(node: number): Promise<void> {
    for (let tries = 0; tries < 100 && this.#draining.has(node); tries++) {
      if (this.standings(node).includes("removed")) this.#draining.delete(node);
      else if (await this.#ask("node.drain", { node, undo: true, wait: false })) this.#draining.delete(node);
      else await this.pause(AGAIN_MS);
    }
  }

  // --- in the end -------------------------------------------------------------------------------------------------

  /** Finishes what was begun, once nothing fails any more. */
  async finish(): Promise<void> {
    this.#healed = true;
    await Promise.all([...this.#draining].map((node) => this.#undrain(node)));
    await this.thaw(200);
    check(this.#frozen().length === 0, () => "a range stays frozen");
  }

  /** Start keys of ranges that wait to be taken in. */
  #frozen(): string[] {
    const { directory } = this;
    const starts = new Set<string>();
    for (const { process } of this.world.machines)
      for (const { store, leadsHere } of process?.hosting?.ranges.all.values() ?? []) {
        if (!leadsHere || store.state().frozenInto === undefined) continue;
        const { start, generation } = store.state().descriptor;
        // Otherwise it was taken in already.
        if ((directory?.at(start)?.generation ?? 0) <= generation) starts.add(start);
      }
    return [...starts];
  }

  async thaw(tries: number): Promise<void> {
    for (let nth = 0; nth < tries; nth++) {
      const [start] = this.#frozen();
      if (start === undefined) return;
      const left = this.directory?.ranges.find((range) => range.end === start);
      if (left !== undefined) await this.#ask("range.merge", { range: left.range });
      await this.pause(AGAIN_MS);
    }
  }
}
