import { describe, expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { groupId } from "../../../src/base/ids.js";
import { encodeMetaCommand, type MetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { markMerging, mergeRight } from "../../../src/node/operations/merge.js";
import { MergeKeeper } from "../../../src/node/operations/merge-keeper.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };
const RANGE = groupId(4);

function cluster() {
  const clock = new ManualClock();
  const meta = new MetaMachine();
  let index = 0;
  const metaClient = {
    command: async (command: MetaCommand) => {
      meta.apply([{ index: ++index, data: encodeMetaCommand(command) }]);
    },
  };
  const leading = { leaderReady: true };
  const host = { group: () => ({ status: () => leading }) };
  const hosting = { frozenRanges: () => new Set() };
  const view = { clock, meta, metaClient, host, hosting } as unknown as ClusterView;
  return { clock, meta, metaClient, leading, view, keeper: new MergeKeeper(view, QUIET) };
}

describe("the mark of a merge", () => {
  it("leaves what was wished meanwhile as it is", async () => {
    const { meta, metaClient, view } = cluster();
    await markMerging(view, RANGE, true);
    expect(meta.wish(RANGE)).toMatchObject({ merging: true, placed: false });
    const wish = { ...meta.wish(RANGE)!, leader: 2 as never };
    await metaClient.command({ kind: "wish", wish });
    await markMerging(view, RANGE, false);
    expect(meta.wish(RANGE)).toMatchObject({ merging: false, leader: 2 });
    await metaClient.command({ kind: "wish", wish: { ...wish, leader: undefined, merging: false } });
    expect(meta.wish(RANGE)).toBeUndefined();
  });

  it("goes where a merge ends before it has begun", async () => {
    const { meta, metaClient, view } = cluster();
    const ranges = [
      { range: RANGE, start: "", end: "m", generation: 2, replicas: [] },
      { range: groupId(5), start: "m", end: "", generation: 2, replicas: [] },
    ];
    const directory = new RangeDirectory(ranges);
    (view.hosting as { view?: unknown }).view = { directory: () => directory };
    const { command } = metaClient;
    let commands = 0;
    metaClient.command = async (asked) => {
      if (++commands === 2) throw new RetryError("OSTRAKA_UNAVAILABLE", "meta does not answer");
      await command(asked);
    };
    await expect(mergeRight(view, ranges[0]!)).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    expect(meta.wish(RANGE)).toBeUndefined();
  });

  it("goes when the node that made it has died", async () => {
    const { clock, meta, view, keeper, leading } = cluster();
    await markMerging(view, RANGE, true);
    keeper.start();
    await clock.advance(10 * 60_000);
    expect(meta.wish(RANGE)?.merging).toBe(true);
    // Another leader of meta begins to count anew.
    leading.leaderReady = false;
    await clock.advance(10_000);
    leading.leaderReady = true;
    await clock.advance(15 * 60_000);
    expect(meta.wish(RANGE)?.merging).toBe(true);
    await clock.advance(10 * 60_000);
    expect(meta.wish(RANGE)).toBeUndefined();
    keeper.stop();
  });
});
