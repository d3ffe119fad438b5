import { expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { groupId, logIndex, nodeId } from "../../../src/base/ids.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { mergeRight } from "../../../src/node/operations/merge.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";

it("a merge goes on when its left range is busy once keys wait for it", async () => {
  const clock = new ManualClock();
  const self = nodeId(1);
  const left = { range: groupId(3), start: "", end: "m", generation: 2, replicas: [self] };
  const right = { range: groupId(4), start: "m", end: "", generation: 2, replicas: [self] };
  const directory = new RangeDirectory([left, right]);
  const conf = { voters: [self], learners: [] };
  const status = { role: "leader", leader: self, term: 1, applied: 9, commit: 9, lastIndex: 9, conf };
  const handles = [left, right].map(({ range: group }) => ({ group, status: () => ({ ...status, group }) }));
  const store = {
    state: () => ({ frozenInto: left.range, untrimmed: false }),
    size: () => ({ databaseBytes: 1, liveBytes: 1, walBytes: 0 }),
    appliedIndex: () => logIndex(9),
    checkpoint: async () => logIndex(9),
  };
  let asked = 0;
  const client = {
    freeze: async () => ({ ...right, generation: 3 }),
    absorb: async () => {
      if (++asked < 3) throw new RetryError("OSTRAKA_RETRY", "a transaction does not come to its end");
      return { ...left, end: "", generation: 4 };
    },
  };
  const view = {
    self,
    clock,
    meta: {
      state: { clusterId: "c", nodes: [{ id: self, state: "live" }] },
      wish: () => undefined,
      isMerged: () => false,
    },
    metaClient: { command: async () => undefined },
    host: { groups: () => handles },
    hosting: {
      ranges: { get: () => ({ filled: true, store }) },
      view: { directory: () => directory, client: () => client, learn: () => undefined },
    },
  } as unknown as ClusterView;
  let ended = false;
  const merged = mergeRight(view, left).finally(() => {
    ended = true;
  });
  merged.catch(() => undefined);
  for (let i = 0; i < 100 && !ended; i++) await clock.advance(100);
  expect(await merged).toEqual({ range: left.range, merged: right.range, generation: 4 });
  expect(asked).toBe(3);
});
