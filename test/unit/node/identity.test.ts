import { describe, expect, it } from "vitest";
import { readIdentity, writeIdentity } from "../../../src/node/identity.js";
import { MemoryDisk } from "../../sim/memory-disk.js";

const IDENTITY = {
  nodeId: 2,
  clusterId: "c0ffee",
  incarnation: "0123456789abcdef",
  founders: { 1: "a:1", 2: "b:1" },
};

describe("a node's identity", () => {
  it("is read back as it was written", async () => {
    const disk = new MemoryDisk().session();
    expect(await readIdentity(disk, "data")).toBeUndefined();
    const written = await writeIdentity(disk, "data", IDENTITY);
    expect(await readIdentity(disk, "data")).toEqual(written);
    const recovered = { ...IDENTITY, recoveredFrom: { clusterId: "old", lost: [1] }, seeds: { 1: "a:1" } };
    await writeIdentity(disk, "data", recovered);
    expect(await readIdentity(disk, "data")).toEqual({ ...recovered, format: 1 });
  });

  it.each([
    "",
    "null",
    "[]",
    '{"format": 1}',
    JSON.stringify({ ...IDENTITY, format: 1, nodeId: 0 }),
    JSON.stringify({ ...IDENTITY, format: 1, nodeId: "2" }),
    JSON.stringify({ ...IDENTITY, format: 1, clusterId: "" }),
    JSON.stringify({ ...IDENTITY, format: 1, incarnation: undefined }),
    JSON.stringify({ ...IDENTITY, format: 1, founders: null }),
    JSON.stringify({ ...IDENTITY, format: 1, founders: undefined }),
    JSON.stringify({ ...IDENTITY, format: 2 }),
    JSON.stringify({ ...IDENTITY, format: 1 }).slice(0, -2),
  ])("that is damaged is refused as such: %s", async (text) => {
    const disk = new MemoryDisk().session();
    await disk.writeFile("data/identity.json", new TextEncoder().encode(text));
    await expect(readIdentity(disk, "data")).rejects.toMatchObject({ code: "OSTRAKA_IDENTITY" });
  });
});
