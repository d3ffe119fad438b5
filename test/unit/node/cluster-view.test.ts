import { expect, it } from "vitest";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { type ClusterView, localReport } from "../../../src/node/operations/cluster-view.js";
import { ManualClock } from "../../sim/manual-clock.js";

it.each([
  ["once it is there", 100],
  ["or has taken too long", 60_000],
])("counts what is decided, and perhaps told, in a range %s", async (_, afterMs) => {
  const clock = new ManualClock();
  const [self, range] = [nodeId(1), groupId(3)];
  let rows = 1;
  const applied = new Promise<void>((resolve) => {
    clock.setTimer(afterMs, () => {
      rows = 2;
      resolve();
    });
  });
  const hosted = {
    leader: { awaitHolds: () => applied },
    store: { size: () => ({ databaseBytes: 1, liveBytes: 1 }), state: () => ({ untrimmed: false }) },
  };
  const status = { group: range, role: "leader", leader: self, leaderReady: true, term: 1, applied: 9 };
  const handle = { group: range, status: () => ({ ...status, conf: { voters: [self], learners: [] } }) };
  const view = {
    clock,
    self,
    meta: { state: { clusterId: "c" } },
    host: { diskFull: undefined, groups: () => [handle] },
    hosting: { ranges: { get: () => hosted }, rowCounts: { of: async () => rows } },
  } as unknown as ClusterView;
  const reported = localReport(view, { rows: true });
  await clock.advance(1_000);
  expect((await reported).groups).toMatchObject([{ rows: afterMs < 1_000 ? 2 : 1 }]);
});
