/** Placement as a function, and as a process: clusters that change at random come to rest where they should. */
import { describe, expect, it } from "vitest";
import { type GroupId, groupId, NO_NODE, type NodeId, nodeId } from "../../../src/base/ids.js";
import { decide, replicaLoads } from "../../../src/placement/decide.js";
import {
  DEFAULT_PLACEMENT_LIMITS,
  type PlacedGroup,
  type PlacedNode,
  type PlacementAction,
  type PlacementView,
} from "../../../src/placement/view.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const FIRST = groupId(3);
const ids = (nodes: readonly number[]): NodeId[] => nodes.map(nodeId);

function node(id: number, standing: PlacedNode["standing"] = "live", up = standing !== "dead"): PlacedNode {
  return { id: nodeId(id), standing, up, full: false };
}

function range(id: number, voters: readonly number[], more: Partial<PlacedGroup> = {}): PlacedGroup {
  return {
    group: groupId(id),
    spread: "range",
    leader: nodeId(voters[0]!),
    voters: ids(voters),
    learners: [],
    joint: false,
    caughtUp: [],
    behind: [],
    busy: false,
    wishedLeader: undefined,
    placed: false,
    ...more,
  };
}

function look(nodes: readonly PlacedNode[], groups: readonly PlacedGroup[], replicas = 3): PlacementView {
  return { nodes, groups, replicas, first: FIRST };
}

const changes = (actions: readonly PlacementAction[]): unknown[] =>
  actions.map((action) => (action.kind === "change" ? action.changes : { to: action.to }));

describe("replicas", () => {
  it("are as many as there are nodes, up to the setting", () => {
    expect(changes(decide(look([node(1), node(2)], [range(3, [1])])))).toEqual([
      [{ kind: "learner", node: 2 }],
    ]);
    const learning = range(3, [1], { learners: ids([2]) });
    expect(decide(look([node(1), node(2)], [learning]))).toEqual([]);
    const learned = { ...learning, caughtUp: ids([2]) };
    expect(changes(decide(look([node(1), node(2)], [learned])))).toEqual([[{ kind: "voter", node: 2 }]]);
  });

  it("keep a dead node's seat until another takes it", () => {
    const dead = node(3, "dead");
    expect(decide(look([node(1), node(2), dead], [range(3, [1, 2, 3])]))).toEqual([]);
    const nodes = [node(1), node(2), dead, node(4)];
    expect(changes(decide(look(nodes, [range(3, [1, 2, 3])])))).toEqual([[{ kind: "learner", node: 4 }]]);
    const learned = range(3, [1, 2, 3], { learners: ids([4]), caughtUp: ids([4]) });
    expect(changes(decide(look(nodes, [learned])))).toEqual([
      [
        { kind: "voter", node: 4 },
        { kind: "remove", node: 3 },
      ],
    ]);
  });

  it("stay where too few of the others are up", () => {
    const silent = node(1, "live", false);
    expect(decide(look([silent, node(2), node(3, "draining")], [range(3, [2, 1, 3])]))).toEqual([]);
  });

  it("leave a node that is drained, its leader first", () => {
    const nodes = [node(1, "draining"), node(2), node(3)];
    expect(changes(decide(look(nodes, [range(3, [1, 2, 3])])))).toEqual([{ to: 2 }]);
    expect(changes(decide(look(nodes, [range(3, [1, 2, 3], { leader: nodeId(2) })])))).toEqual([
      [{ kind: "remove", node: 1 }],
    ]);
  });

  it("leave a node that is down first, of those that are to go: the others need one another until then", () => {
    const nodes = [node(1, "removing"), node(2), node(3, "removing", false)];
    const lead = { leader: nodeId(2) };
    expect(changes(decide(look(nodes, [range(3, [1, 2, 3], lead)])))).toEqual([
      [{ kind: "remove", node: 3 }],
    ]);
    expect(changes(decide(look(nodes, [range(3, [1, 2], lead)])))).toEqual([[{ kind: "remove", node: 1 }]]);
  });

  it("are left alone where they were placed by hand, unless one is missing", () => {
    const nodes = [1, 2, 3, 4].map((id) => node(id));
    const groups = [3, 4, 5].map((id) => range(id, [1, 2, 3], { placed: true }));
    expect(decide(look(nodes, groups))).toEqual([]);
    expect(decide(look(nodes, [...groups.slice(1), range(3, [1, 2, 3])])).length).toBe(1);
    const short = [range(3, [1, 2], { placed: true })];
    expect(changes(decide(look(nodes, short)))).toEqual([[{ kind: "learner", node: 3 }]]);
  });

  it("that somebody began to move by hand, and gave up, go again", () => {
    const nodes = [1, 2, 3, 4].map((id) => node(id));
    const begun = range(3, [1, 2, 3], { placed: true, learners: ids([4]) });
    expect(changes(decide(look(nodes, [begun])))).toEqual([[{ kind: "remove", node: 4 }]]);
    // Whoever still is at it says so.
    expect(decide(look(nodes, [{ ...begun, busy: true }]))).toEqual([]);
  });

  it("are not made where there is no disk space, and those that wait for it are made elsewhere", () => {
    const full = { ...node(4), full: true };
    const nodes = [node(1), node(2), node(3, "dead"), full, node(5)];
    const busy = [6, 7].map((id) => range(id, [1, 2, 5]));
    expect(changes(decide(look(nodes, [range(3, [1, 2, 3]), ...busy])))).toEqual([
      [{ kind: "learner", node: 5 }],
    ]);
    const waiting = range(3, [1, 2, 3], { learners: ids([4]) });
    expect(changes(decide(look(nodes, [waiting])))).toEqual([[{ kind: "remove", node: 4 }]]);
    expect(decide(look(nodes.slice(0, 4), [waiting]))).toEqual([]);
    const many = [3, 6, 7, 8].map((id) => range(id, [1, 2, 5]));
    expect(decide(look([node(1), node(2), node(5), full], many))).toEqual([]);
  });

  it("count where they lie though nobody is known to lead them", () => {
    const nodes = [1, 2, 3, 4].map((id) => node(id));
    const led = [3, 4].map((id) => range(id, [1, 2, 3]));
    const unknown = [5, 6].map((id) => range(id, [4], { leader: NO_NODE }));
    expect(decide(look(nodes, [...led, ...unknown]))).toEqual([]);
    expect(decide(look(nodes, led)).length).toBe(1);
  });

  it("wait while nothing can be done", () => {
    const nodes = [node(1), node(2), node(3)];
    for (const stuck of [{ leader: NO_NODE }, { joint: true }, { busy: true }])
      expect(decide(look(nodes, [range(3, [1], stuck)]))).toEqual([]);
  });
});

describe("meta", () => {
  const meta = (voters: readonly number[], more: Partial<PlacedGroup> = {}): PlacedGroup =>
    range(1, voters, { spread: "everywhere", ...more });

  it("is on every node, with no more voters than replicas", () => {
    const nodes = [1, 2, 3, 4].map((id) => node(id));
    expect(changes(decide(look(nodes, [meta([1, 2, 3])])))).toEqual([[{ kind: "learner", node: 4 }]]);
    const learned = { learners: ids([4]), caughtUp: ids([4]) };
    expect(decide(look(nodes, [meta([1, 2, 3], learned)]))).toEqual([]);
    nodes[2] = node(3, "dead");
    expect(changes(decide(look(nodes, [meta([1, 2, 3], learned)])))).toEqual([
      [
        { kind: "voter", node: 4 },
        { kind: "learner", node: 3 },
      ],
    ]);
    nodes[2] = node(3, "removing");
    expect(changes(decide(look(nodes, [meta([1, 2, 4], { learners: ids([3]) })])))).toEqual([
      [{ kind: "remove", node: 3 }],
    ]);
  });
});

describe("leaders", () => {
  const nodes = [1, 2, 3].map((id) => node(id));

  it("of a small database are where the first range's is", () => {
    const groups = [range(3, [2, 1, 3]), range(4, [1, 2, 3]), range(5, [2, 1, 3])];
    expect(changes(decide(look(nodes, groups)))).toEqual([{ to: 2 }]);
  });

  it("stay where they were wished to be", () => {
    const groups = [range(3, [2, 1, 3]), range(4, [1, 2, 3], { wishedLeader: nodeId(1) })];
    expect(decide(look(nodes, groups))).toEqual([]);
    const elsewhere = [groups[0]!, range(4, [2, 1, 3], { wishedLeader: nodeId(3) })];
    expect(changes(decide(look(nodes, elsewhere)))).toEqual([{ to: 3 }]);
  });

  it("are nobody who could not lead at once", () => {
    const wished = { wishedLeader: nodeId(3) };
    const behind = { behind: ids([3]) };
    const groups = [range(3, [2, 1, 3]), range(4, [2, 1, 3], { ...wished, ...behind })];
    expect(decide(look(nodes, groups))).toEqual([]);
    const full = [node(1), node(2), { ...node(3), full: true }];
    expect(decide(look(full, [groups[0]!, range(4, [2, 1, 3], wished)]))).toEqual([]);
    expect(decide(look(nodes, [range(3, [2, 1, 3]), range(4, [1, 2, 3], { behind: ids([2]) })]))).toEqual([]);
    // Who goes hands over to another, and else waits.
    const leaving = [node(1, "draining"), node(2), node(3)];
    const heard = range(3, [1, 2, 3], { behind: ids([2]) });
    expect(changes(decide(look(leaving, [heard])))).toEqual([{ to: 3 }]);
    expect(decide(look(leaving, [range(3, [1, 2, 3], { behind: ids([2, 3]) })]))).toEqual([]);
  });

  it("of a small database stay where they are while nobody leads the first range", () => {
    const others = [4, 5, 6, 7].map((id) => range(id, [1, 2, 3]));
    expect(decide(look(nodes, [range(3, [1, 2, 3], { leader: NO_NODE }), ...others]))).toEqual([]);
  });
});

/** A cluster that does what is decided, more or less at once. */
class Cluster {
  readonly nodes = new Map<number, PlacedNode>();
  readonly groups = new Map<GroupId, PlacedGroup>();
  readonly #random: SeededRandom;
  #nextNode = 1;
  #nextRange = 3;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  below(bound: number): number {
    return Math.floor(this.#random.float() * bound);
  }

  addNode(): void {
    const id = this.#nextNode++;
    this.nodes.set(id, node(id));
  }

  addRange(voters: readonly number[]): void {
    const id = this.#nextRange++;
    this.groups.set(groupId(id), range(id, voters));
  }

  split(): void {
    const all = [...this.groups.values()].filter(({ joint, learners }) => !joint && learners.length === 0);
    const parent = all[this.below(all.length)];
    if (parent !== undefined)
      this.addRange([parent.leader, ...parent.voters.filter((voter) => voter !== parent.leader)]);
  }

  view(): PlacementView {
    return look([...this.nodes.values()], [...this.groups.values()]);
  }

  /** Something happens that placement has not asked for. */
  disturb(): void {
    const live = [...this.nodes.values()].filter(({ standing }) => standing === "live");
    const victim = live[this.below(live.length)]!;
    const what = this.below(6);
    if (what === 5) this.nodes.set(victim.id, { ...victim, full: true });
    else if (what === 0) this.addNode();
    else if (what === 1) for (let i = this.below(6); i > 0; i--) this.split();
    else if (live.length <= 3) this.addNode();
    else if (what === 2) this.nodes.set(victim.id, { ...victim, standing: "draining" });
    else if (what === 3) this.nodes.set(victim.id, { ...victim, standing: "removing" });
    else this.die(victim);
  }

  /** As long as no group loses its majority by it. */
  die(victim: PlacedNode): void {
    const up = (id: NodeId): boolean => id !== victim.id && this.nodes.get(id)?.up === true;
    for (const { voters } of this.groups.values()) if (voters.filter(up).length * 2 <= voters.length) return;
    this.nodes.set(victim.id, { ...victim, standing: "dead", up: false });
    for (const group of this.groups.values())
      if (group.leader === victim.id)
        this.groups.set(group.group, { ...group, leader: group.voters.find(up)! });
  }

  carryOut(action: PlacementAction): void {
    const group = this.groups.get(action.group)!;
    if (action.kind === "transfer") {
      expect(group.voters).toContain(action.to);
      expect(this.nodes.get(action.to)?.up).toBe(true);
      this.groups.set(group.group, { ...group, leader: action.to });
      return;
    }
    const voters = new Set(group.voters);
    const learners = new Set(group.learners);
    for (const { kind, node: id } of action.changes) {
      if (kind === "voter") expect(group.caughtUp).toContain(id);
      if (kind !== "learner") learners.delete(id);
      if (kind === "voter") voters.add(id);
      else voters.delete(id);
      if (kind === "learner") learners.add(id);
    }
    const majority = [...voters].filter((id) => this.nodes.get(id)?.up).length * 2 > voters.size;
    expect(majority, `${JSON.stringify(action)} leaves a majority`).toBe(true);
    expect(voters.has(group.leader), `${JSON.stringify(action)} keeps the leader`).toBe(true);
    this.groups.set(group.group, { ...group, voters: [...voters], learners: [...learners] });
  }

  canCatchUp(id: NodeId): boolean {
    const { up = false, full = false } = this.nodes.get(id) ?? {};
    return up && !full;
  }

  free(): void {
    for (const one of this.nodes.values()) this.nodes.set(one.id, { ...one, full: false });
  }

  /** Learners catch up in their own time. */
  catchUp(): void {
    for (const group of this.groups.values()) {
      const caughtUp = group.learners.filter(
        (id) => group.caughtUp.includes(id) || (this.canCatchUp(id) && this.#random.float() < 0.5),
      );
      this.groups.set(group.group, { ...group, caughtUp });
    }
  }

  /** Until nothing is decided any more, for several looks. */
  settle(): number {
    let quiet = 0;
    for (let step = 1; step < 2_000; step++) {
      const actions = decide(this.view());
      const targets = actions.map(({ group }) => group);
      expect(new Set(targets).size).toBe(targets.length);
      // Not all that is decided is done.
      for (const action of actions) if (this.#random.float() < 0.8) this.carryOut(action);
      this.catchUp();
      const waiting = [...this.groups.values()].some(({ learners }) =>
        learners.some((id) => this.canCatchUp(id)),
      );
      quiet = actions.length === 0 && !waiting ? quiet + 1 : 0;
      if (quiet === 5) return step;
    }
    throw new Error("it does not come to rest");
  }
}

describe("random clusters", () => {
  const seeds = process.env.PLACEMENT_SEED
    ? [Number(process.env.PLACEMENT_SEED)]
    : Array.from({ length: 150 }, (_, i) => i + 1);

  it.each(seeds)("come to rest where they should (PLACEMENT_SEED=%i)", (seed) => {
    const cluster = new Cluster(new SeededRandom(seed));
    const count = 1 + cluster.below(5);
    for (let i = 0; i < count; i++) cluster.addNode();
    cluster.addRange([1]);
    for (let round = 0; round < 12; round++) {
      cluster.settle();
      cluster.free();
      cluster.settle();
      const view = cluster.view();
      const live = view.nodes.filter(({ standing }) => standing === "live");
      for (const { voters, leader } of view.groups) {
        const good = voters.filter((id) => live.some((one) => one.id === id));
        expect(good.length).toBe(Math.min(3, live.length));
        // Dead ones may keep a seat that nobody can take.
        expect(voters.length).toBeLessThanOrEqual(3);
        expect(live.map(({ id }) => id)).toContain(leader);
      }
      const loads = live.map(({ id }) => replicaLoads(view).get(id)!);
      expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(1);
      const leaders = live.map(({ id }) => view.groups.filter(({ leader }) => leader === id).length);
      if (view.groups.length > DEFAULT_PLACEMENT_LIMITS.togetherRanges) {
        const mean = view.groups.length / live.length;
        expect(Math.max(...leaders) - Math.min(...leaders)).toBeLessThanOrEqual(Math.max(2, 0.4 * mean + 1));
      }
      cluster.disturb();
    }
  });
});
