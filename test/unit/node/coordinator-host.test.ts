/** The coordinator's replica on a node: what of it is on the disk, whatever strikes. */
import { expect, it } from "vitest";
import { CoordinatorHost, type CoordinatorHostOptions } from "../../../src/node/ranges/coordinator-host.js";
import { SimDisk } from "../../sim/sim-disk.js";
import { SimRandom } from "../../sim/sim-random.js";

it("a replica that begins anew finds nothing of one that was here before, though the power fails", async () => {
  const disk = new SimDisk({ random: new SimRandom(1) });
  const directory = "data/coordinator";
  await disk.makeDirectory(directory);
  await disk.writeFile(`${directory}/0000000000000063.state`, Uint8Array.of(1));
  const unlogged = new Error("the log has it");
  const host = new CoordinatorHost({
    disk,
    directory: "data",
    log: { groups: () => [] },
    departed: { get: () => undefined, back: async () => undefined, returning: () => ({}) },
    calls: { serve: () => undefined },
    host: {
      addGroup: async () => {
        throw unlogged;
      },
    },
  } as unknown as CoordinatorHostOptions);
  await host.open({});
  await expect(host.makeReplica()).rejects.toBe(unlogged);
  disk.crash("none");
  expect(await disk.list(directory)).toEqual([]);
});
