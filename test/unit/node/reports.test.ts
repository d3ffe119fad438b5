import { expect, it } from "vitest";
import { type GroupId, groupId, nodeId } from "../../../src/base/ids.js";
import { encodeMetaCommand, type MetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import type { HostedRange } from "../../../src/node/ranges/hosted-range.js";
import type { Ranges } from "../../../src/node/ranges/ranges.js";
import { RangeReports } from "../../../src/node/ranges/reports.js";
import { ManualClock } from "../../sim/manual-clock.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };
const SETTINGS = { replicas: 1, rangeMaxBytes: 1 << 26, rangeMaxRows: 0, nodeDeadMs: 1000 };

it("a frozen range that meta has never heard of is told of, so that its merge can be gone on with", async () => {
  const clock = new ManualClock();
  const meta = new MetaMachine();
  let index = 0;
  const apply = (command: MetaCommand): void => {
    meta.apply([{ index: ++index, data: encodeMetaCommand(command) }]);
  };
  const replicas = [nodeId(1)];
  const left = { range: groupId(3), start: "", end: "m", generation: 2, replicas };
  const right = { range: groupId(7), start: "m", end: "", generation: 3, replicas };
  const ranges = [{ ...left, end: "", generation: 1 }];
  apply({ kind: "found", clusterId: "c", settings: SETTINGS, ranges, firstFreeNodeId: 2 } as never);
  const hosted = (descriptor: typeof left, frozenInto: GroupId | undefined): HostedRange =>
    ({
      range: descriptor.range,
      filled: true,
      leadsHere: true,
      descriptor: () => descriptor,
      store: { state: () => ({ frozenInto, absorbed: [] }) },
    }) as unknown as HostedRange;
  // Both were lost: that it was split off, and what became of whoever froze it.
  const all = new Map([
    [left.range, hosted(left, undefined)],
    [right.range, hosted(right, left.range)],
  ]);
  const here = { all, get: (range: GroupId) => all.get(range), listen: () => undefined };
  let told = 0;
  const client = {
    command: async (command: MetaCommand) => {
      told++;
      apply(command);
      return 0;
    },
  };
  const reports = new RangeReports(clock, here as unknown as Ranges, meta, client as never, QUIET);
  reports.start();
  await clock.advance(5_000);
  expect(meta.directory.complete).toBe(true);
  expect(meta.directory.get(right.range)).toEqual(right);
  const once = told;
  await clock.advance(60_000);
  expect(told).toBe(once);
  reports.stop();
});
