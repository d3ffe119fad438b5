import { expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { nodeOperations } from "../../../src/node/operations/nodes.js";
import { rangeOperations } from "../../../src/node/operations/ranges.js";
import { systemTables } from "../../../src/node/operations/system-tables.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { MergeWorld } from "./merge-world.js";

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
  await expect(rangeOperations(view)["range.split"]!({ table: "t", at: [] })).rejects.toMatchObject({
    code: "OSTRAKA_CONFIG",
  });
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

/** A range is moved from the node that leads it to a fourth one. */
async function moved(world: MergeWorld): Promise<unknown> {
  const node = { id: 4, address: "a", http: "off", incarnation: "i4" };
  await world.command({ kind: "register", node });
  const move = rangeOperations(world.view)["range.move"]!({ range: 3, from: 1, to: 4 });
  let ended = false;
  const ending = Promise.resolve(move).finally(() => {
    ended = true;
  });
  ending.catch(() => undefined);
  for (let i = 0; i < 100 && !ended; i++) await world.clock.advance(100);
  return ending;
}

it.each([
  ["is down", (world: MergeWorld) => world.down.add(2), 3],
  ["has no disk space", (world: MergeWorld) => world.full.add(2), 3],
  ["is well", (world: MergeWorld) => world.down.add(3), 2],
] as const)(
  "a range that is moved is not led by a node that cannot: the second %s",
  async (_, make, leader) => {
    const world = new MergeWorld(2);
    make(world);
    await moved(world);
    expect(world.log.map((line) => line.slice(2))).toEqual([`hand over to ${leader}`, "replace 3 1 -> 4"]);
    expect(world.meta.wish(groupId(3))?.placed).toBe(true);
  },
);

it("a range is led by who has applied most once its leader is moved away", async () => {
  const world = new MergeWorld(2);
  world.behind = -1;
  await moved(world);
  expect(world.log[0]).toBe("0 hand over to 3");
});

it("a range that could not be moved does not count as placed by hand", async () => {
  const world = new MergeWorld(2);
  world.replace = async () => {
    throw new RetryError("OSTRAKA_TIMEOUT", "it has not caught up");
  };
  await expect(moved(world)).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
  expect(world.meta.wish(groupId(3))).toBeUndefined();
});

it("a node does not count as empty while a range has no leader, whoever leads one that was merged away", async () => {
  const world = new MergeWorld(2);
  for (const group of [3, 4, 99]) world.voters.set(group, [nodeId(1), nodeId(2)]);
  world.groups = () => [3, 99];
  let answer: unknown;
  void Promise.resolve(nodeOperations(world.view)["node.drain"]!({ node: 3 })).then((is) => {
    answer = is;
  });
  for (let i = 0; i < 20; i++) await world.clock.advance(100);
  expect(answer).toBeUndefined();
  world.groups = () => [3, 4];
  for (let i = 0; i < 20; i++) await world.clock.advance(100);
  expect(answer).toEqual({ node: 3, state: "draining", empty: true });
});
