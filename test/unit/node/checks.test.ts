import { expect, it } from "vitest";
import { COORDINATOR_GROUP, groupId, META_GROUP, nodeId } from "../../../src/base/ids.js";
import { checkDigests } from "../../../src/node/operations/checks.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";

it("a range that was merged while its replicas were asked is not missed", async () => {
  const self = nodeId(1);
  const merged = groupId(4);
  const range = { range: groupId(3), start: "", end: "m", generation: 2, replicas: [self] };
  const directory = new RangeDirectory([range, { ...range, range: merged, start: "m", end: "" }]);
  const conf = { voters: [self], learners: [] };
  const status = { role: "leader", leader: self, term: 1, applied: 9, commit: 9, lastIndex: 9, conf };
  const groups = [META_GROUP, COORDINATOR_GROUP, range.range];
  const handles = groups.map((group) => ({
    group,
    status: () => ({ ...status, group }),
    digest: async () => ({ appliedIndex: 9, digest: "same" }),
  }));
  let refreshed = 0;
  const view = {
    self,
    clock: new ManualClock(),
    meta: {
      state: { clusterId: "c", nodes: [{ id: self, state: "live" }] },
      isMerged: (group: number) => group === merged && refreshed > 1,
    },
    host: { groups: () => handles, findGroup: (group: number) => handles.find((one) => one.group === group) },
    hosting: {
      ranges: { get: () => undefined },
      view: { directory: () => directory, refresh: async () => void refreshed++ },
    },
  } as unknown as ClusterView;
  const { equal, groups: checked } = await checkDigests(view);
  expect(checked.map(({ group }) => group)).toEqual(groups);
  expect(equal).toBe(true);
});
