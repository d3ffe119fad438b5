import { expect, it } from "vitest";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { rangeOperations } from "../../../src/node/operations/ranges.js";
import { systemTables } from "../../../src/node/operations/system-tables.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";

const CHILD = groupId(9);
const range = (id: number, start: string, end: string): RangeDescriptor => ({
  range: groupId(id),
  start,
  end,
  generation: 2,
  replicas: [nodeId(1)],
});

it("a range is split although one half of another split is not known yet", async () => {
  const clock = new ManualClock();
  const middle = encodeKey(1, [100n]);
  const known = [range(3, "", middle)];
  const split = async (at: string, child: number) => range(child, at, "");
  const view = {
    clock,
    meta: { wish: () => undefined },
    metaClient: { allocate: async () => CHILD, command: async () => undefined },
    hosting: {
      view: {
        refreshSchema: async () => undefined,
        schema: () => ({
          snapshot: { tables: [{ name: "t", id: 1, shard: "rowid", keyColumns: ["rowid"] }] },
          oracle: () => undefined,
        }),
        directory: () => new RangeDirectory(known),
        refresh: async () => void known.push(range(4, middle, "")),
        learn: () => undefined,
        client: () => ({ split }),
      },
    },
  } as unknown as ClusterView;
  const done = rangeOperations(view)["range.split"]!({ table: "t", at: ["150"] });
  let ended = false;
  const ending = Promise.resolve(done).finally(() => {
    ended = true;
  });
  ending.catch(() => undefined);
  for (let i = 0; i < 100 && !ended; i++) await clock.advance(10);
  expect(await ending).toEqual({ table: "t", ranges: [{ range: CHILD, existed: false, at: "150" }] });
});

it("how long statements run is a whole number of milliseconds", async () => {
  const running = { list: () => [{ id: 7, kind: "read", sql: "select 1", runningMs: 12.4 }] };
  const view = { self: nodeId(1), running, meta: { state: { nodes: [{ id: 1, state: "live" }] } } };
  const table = systemTables(view as unknown as ClusterView).ostraka_statements!;
  expect((await table()).rows).toEqual([[1n, 7n, "read", "select 1", 12n]]);
});
