/** What the node that leads meta makes of what it hears. */
import { afterEach, describe, expect, it } from "vitest";
import {
  COORDINATOR_GROUP,
  type GroupId,
  groupId,
  META_GROUP,
  type NodeId,
  nodeId,
} from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import {
  DEFAULT_SETTINGS,
  encodeMetaCommand,
  type MetaCommand,
  MetaMachine,
} from "../../../src/machines/meta/meta.js";
import type { GroupHandle } from "../../../src/multiraft/types.js";
import type { Changes } from "../../../src/node/placement/changes.js";
import { PlacementDriver } from "../../../src/node/placement/driver.js";
import type { GroupFacts, NodeFactsKeeper } from "../../../src/node/placement/facts.js";
import type { PlacementAction } from "../../../src/placement/view.js";
import { ManualClock } from "../../sim/manual-clock.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };
const SELF = nodeId(1);
const ids = (nodes: readonly number[]): NodeId[] => nodes.map(nodeId);
const KEYS = ["", ...Array.from({ length: 40 }, (_, i) => encodeKey(1, [BigInt(i)])), ""];

function leads(group: GroupId, voters: readonly number[], more: Partial<GroupFacts> = {}): GroupFacts {
  return {
    group,
    term: 5,
    voters: ids(voters),
    learners: [],
    joint: false,
    caughtUp: [],
    behind: [],
    changing: false,
    frozenInto: undefined,
    ...more,
  };
}

/** Meta and what the nodes say, with this node at meta's head. */
class Cluster {
  readonly clock = new ManualClock();
  readonly meta = new MetaMachine();
  readonly asked: PlacementAction[] = [];
  readonly said = new Map<NodeId, GroupFacts[]>();
  onAct: (action: PlacementAction) => void = () => {};
  readonly #driver: PlacementDriver;
  #index = 0;
  #stamps = 0;

  constructor(nodes: number, ranges: number) {
    this.run({
      kind: "found",
      clusterId: "c",
      settings: DEFAULT_SETTINGS,
      firstFreeNodeId: nodes + 1,
      ranges: Array.from({ length: ranges }, (_, i) => ({
        range: groupId(3 + i),
        start: KEYS[i]!,
        end: i === ranges - 1 ? "" : KEYS[i + 1]!,
        generation: 1,
        replicas: ids([1, 2, 3]),
      })),
    });
    for (let id = 1; id <= nodes; id++) {
      this.run({ kind: "register", node: { id, address: `h${id}:1`, http: "off", incarnation: `i${id}` } });
      this.said.set(nodeId(id), []);
    }
    const everywhere = { learners: ids(Array.from({ length: Math.max(0, nodes - 3) }, (_, i) => i + 4)) };
    this.said.set(SELF, [leads(META_GROUP, [1, 2, 3], everywhere), leads(COORDINATOR_GROUP, [1, 2, 3])]);
    this.#driver = new PlacementDriver({
      self: SELF,
      clock: this.clock,
      logger: QUIET,
      handle: { status: () => ({ leaderReady: true }), onChange() {} } as unknown as GroupHandle,
      meta: this.meta,
      metaClient: {
        command: async (command) => {
          this.run(command);
          return { ok: true, nodeId: 0, clusterId: "c" };
        },
      },
      calls: {
        serve() {},
        call: async (node, method, [action]) => {
          if (method === "placement.act") return void this.asked.push(action as PlacementAction);
          const facts = this.said.get(node);
          if (facts === undefined) throw new Error("silent");
          return { stamp: String(++this.#stamps), full: false, leads: facts };
        },
      },
      facts: {
        facts: () => ({ stamp: String(++this.#stamps), full: false, leads: this.said.get(SELF) }),
      } as unknown as NodeFactsKeeper,
      changes: {
        act: async (action: PlacementAction) => {
          this.asked.push(action);
          this.onAct(action);
        },
      } as unknown as Changes,
      silentMs: 2_000,
    });
    this.#driver.start();
  }

  run(command: MetaCommand): void {
    this.meta.apply([{ index: ++this.#index, data: encodeMetaCommand(command) }]);
  }

  say(node: number, ...facts: readonly GroupFacts[]): void {
    this.said.get(nodeId(node))!.push(...facts);
  }

  groupsAsked(): number[] {
    return this.asked.map(({ group }) => group);
  }

  stop(): void {
    this.#driver.stop();
  }
}

let cluster: Cluster;
afterEach(() => cluster.stop());

describe("placement", () => {
  it("does not take a node for empty while meta is yet to hear of a range", async () => {
    cluster = new Cluster(4, 2);
    cluster.run({ kind: "node", id: 4, state: "removing" });
    cluster.said.set(SELF, [leads(META_GROUP, [1, 2, 3]), leads(COORDINATOR_GROUP, [1, 2, 3])]);
    cluster.say(1, leads(groupId(3), [1, 2, 3]), leads(groupId(4), [1, 2, 3]));
    // Range 4 has been split; its child, of which node 4 is a member still, is not told of.
    cluster.run({
      kind: "report",
      ranges: [
        { range: groupId(4), start: KEYS[1]!, end: KEYS[2]!, generation: 2, replicas: ids([1, 2, 3]) },
      ],
    });
    await cluster.clock.advance(3_000);
    expect(cluster.meta.node(4)?.state).toBe("removing");
    cluster.run({
      kind: "report",
      ranges: [{ range: groupId(5), start: KEYS[2]!, end: "", generation: 2, replicas: ids([1, 2, 3]) }],
    });
    cluster.say(1, leads(groupId(5), [1, 2, 3]));
    await cluster.clock.advance(3_000);
    expect(cluster.meta.node(4)?.state).toBe("removed");
  });

  it("does not go by what a node said that has been removed since", async () => {
    cluster = new Cluster(4, 1);
    const meta = leads(META_GROUP, [1, 3, 4]);
    cluster.said.set(SELF, [meta, leads(groupId(3), [1, 3])]);
    cluster.say(2, leads(COORDINATOR_GROUP, [1, 2, 3]));
    await cluster.clock.advance(1_000);
    // It dies, another one leads, and node 4 comes in its place.
    cluster.said.delete(nodeId(2));
    cluster.say(3, leads(COORDINATOR_GROUP, [1, 3, 4], { term: 6 }));
    await cluster.clock.advance(1_000);
    cluster.run({ kind: "node", id: 2, state: "removed" });
    cluster.run({
      kind: "report",
      ranges: [{ ...cluster.meta.directory.get(groupId(3))!, replicas: ids([1, 3]) }],
    });
    cluster.run({ kind: "node", id: 4, state: "removing" });
    cluster.said.set(SELF, [leads(META_GROUP, [1, 3]), leads(groupId(3), [1, 3])]);
    await cluster.clock.advance(1_000);
    expect(cluster.meta.node(4)?.state).toBe("removing");
    // While the coordinator goes from one leader to the next, nobody leads it.
    cluster.said.set(nodeId(3), []);
    await cluster.clock.advance(1_000);
    expect(cluster.meta.node(4)?.state).toBe("removing");
  });

  it("leaves the range alone that is about to take in another, though a replica is missing", async () => {
    cluster = new Cluster(4, 3);
    const frozen = { frozenInto: groupId(4) };
    cluster.say(
      1,
      leads(groupId(3), [1, 2, 3]),
      leads(groupId(4), [1, 2]),
      leads(groupId(5), [1, 2], frozen),
    );
    await cluster.clock.advance(3_000);
    expect(cluster.groupsAsked()).not.toContain(4);
    cluster.said.get(SELF)!.splice(-1, 1, leads(groupId(5), [1, 2]));
    await cluster.clock.advance(600);
    expect(cluster.groupsAsked()).toContain(4);
  });

  it("leaves a group alone whose leader is at work on its members", async () => {
    cluster = new Cluster(4, 1);
    cluster.say(1, leads(groupId(3), [1, 2], { changing: true }));
    await cluster.clock.advance(3_000);
    expect(cluster.groupsAsked()).not.toContain(3);
  });

  it("knows where ranges are that wait for a leader after a move", async () => {
    cluster = new Cluster(2, 8);
    cluster.run({ kind: "configure", settings: { replicas: 1 } });
    const ranges = Array.from({ length: 8 }, (_, i) => groupId(3 + i));
    cluster.said.set(SELF, [leads(META_GROUP, [1], { learners: ids([2]) }), leads(COORDINATOR_GROUP, [2])]);
    cluster.say(1, ...ranges.map((range) => leads(range, [1])));
    for (const range of ranges)
      cluster.run({
        kind: "report",
        ranges: [{ ...cluster.meta.directory.get(range)!, replicas: ids([1]) }],
      });
    const moved = new Set<GroupId>();
    cluster.onAct = (action) => {
      const said = cluster.said.get(SELF)!;
      const at = said.findIndex(({ group }) => group === action.group);
      if (action.kind !== "change" || at < 0) return;
      const [{ kind, node }] = action.changes as [(typeof action.changes)[number]];
      if (kind === "learner") said[at] = leads(action.group, [1], { learners: [node], caughtUp: [node] });
      else {
        // The one that led is gone, and the other has yet to be elected.
        said.splice(at, 1);
        moved.add(action.group);
      }
    };
    await cluster.clock.advance(5_000);
    expect(moved.size).toBe(3);
    for (const range of moved) cluster.say(2, leads(range, [2], { term: 6 }));
    await cluster.clock.advance(5_000);
    expect(moved.size).toBe(3);
  });

  it("does not balance by a part of what there is, as when a node has not answered yet", async () => {
    cluster = new Cluster(4, 30);
    // Of the replicas that node 4 seems to lack it has those of ranges that it leads, and it has not been heard.
    cluster.said.delete(nodeId(4));
    for (let i = 0; i < 30; i++) {
      const range = groupId(3 + i);
      if (i >= 15)
        cluster.run({
          kind: "report",
          ranges: [{ ...cluster.meta.directory.get(range)!, replicas: ids([4]) }],
        });
      else cluster.say(1 + (i % 3), leads(range, [1, 2, 3]));
    }
    await cluster.clock.advance(1_900);
    expect(cluster.asked).toEqual([]);
  });
});
