import { describe, expect, it } from "vitest";
import { groupId, type NodeId, nodeId } from "../../../src/base/ids.js";
import type { MultiRaft } from "../../../src/multiraft/host.js";
import type { GroupHandle } from "../../../src/multiraft/types.js";
import { NodeFactsKeeper } from "../../../src/node/placement/facts.js";
import type { CoordinatorHost } from "../../../src/node/ranges/coordinator-host.js";
import type { HostedRange } from "../../../src/node/ranges/hosted-range.js";
import type { Ranges } from "../../../src/node/ranges/ranges.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const SELF = nodeId(1);
const RANGE = groupId(3);

describe("what a node says of the groups that it leads", () => {
  const match = new Map<NodeId, number>([1, 2, 3].map((id) => [nodeId(id), 1_000]));
  const conf = { voters: [1, 2, 3].map(nodeId), votersOutgoing: [], learners: [], learnersNext: [] };
  const handle = {
    leader: SELF,
    status: () => ({ leaderReady: true, conf, term: 5, group: RANGE, match, lastIndex: 1_000 }),
  } as unknown as GroupHandle;
  const host = {
    nodeId: SELF,
    diskFull: undefined as string | undefined,
    group: () => ({ onChange() {} }),
    findGroup: () => undefined,
  };
  const hosted = { handle, store: { state: () => ({ frozenInto: undefined }) } } as unknown as HostedRange;
  const busy = new Set<number>();
  const keeper = new NodeFactsKeeper(
    host as unknown as MultiRaft,
    { listen() {}, all: new Map([[RANGE, hosted]]) } as unknown as Ranges,
    { handle: undefined } as unknown as CoordinatorHost,
    new SeededRandom(1),
    (group) => busy.has(group),
  );

  it("is not said again while it is the same", () => {
    const first = keeper.facts(undefined);
    expect(first.leads).toMatchObject([{ group: RANGE, behind: [], changing: false }]);
    expect(keeper.facts(first.stamp)).toEqual({ stamp: first.stamp, full: false, leads: undefined });
    expect(keeper.facts("another start's").leads).toBeDefined();
  });

  it("names voters that have fallen behind, and says when they have caught up", () => {
    const before = keeper.facts(undefined).stamp;
    match.set(nodeId(3), 500);
    const fallen = keeper.facts(before);
    expect(fallen.leads).toMatchObject([{ behind: [3] }]);
    expect(keeper.facts(fallen.stamp).leads).toBeUndefined();
    match.set(nodeId(3), 900);
    expect(keeper.facts(fallen.stamp).leads).toMatchObject([{ behind: [] }]);
    // One that has never answered its leader may have nothing.
    match.set(nodeId(2), 0);
    expect(keeper.facts(fallen.stamp).leads).toMatchObject([{ behind: [2] }]);
    match.set(nodeId(2), 1_000);
  });

  it("tells of a disk without space, and of members that are being changed", () => {
    host.diskFull = "no space";
    expect(keeper.facts(undefined).full).toBe(true);
    busy.add(RANGE);
    keeper.changed();
    const { stamp, leads } = keeper.facts(undefined);
    expect(leads).toMatchObject([{ changing: true }]);
    busy.clear();
    keeper.changed();
    expect(keeper.facts(stamp).leads).toMatchObject([{ changing: false }]);
  });
});
