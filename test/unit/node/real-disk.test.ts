/** The real disk keeps the contract of Disk; the same on the simulated one, which has to behave alike. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { Disk } from "../../../src/base/io.js";
import { RealDisk } from "../../../src/node/real-io.js";
import { SimDisk } from "../../sim/sim-disk.js";
import { SimRandom } from "../../sim/sim-random.js";

const made: string[] = [];
afterEach(() => {
  for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function realDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "ostraka-disk-"));
  made.push(directory);
  return directory;
}

const disks: [string, () => { disk: Disk; root: string }][] = [
  ["real", () => ({ disk: new RealDisk(), root: realDirectory() })],
  ["simulated", () => ({ disk: new SimDisk({ random: new SimRandom(1) }), root: "/data" })],
];

describe.each(disks)("the %s disk", (_, create) => {
  for (const dsync of [false, true]) {
    test(`reads what was written in many pieces, at any offset${dsync ? ", with dsync" : ""}`, async () => {
      const { disk, root } = create();
      await disk.makeDirectory(`${root}/a/b`);
      const file = await disk.open(`${root}/a/b/f`, { create: true, dsync });
      const chunks = Array.from({ length: 2500 }, (_unused, i) => new Uint8Array([i & 255, i >> 8]));
      await file.write(10, [new Uint8Array(0), ...chunks]);
      await file.sync();
      expect(file.size()).toBe(5010);
      expect(Buffer.from(await file.read(10, 5000))).toEqual(Buffer.concat(chunks));
      expect([...file.readSync(8, 4)]).toEqual([0, 0, 0, 0]);
      expect([...file.readSync(5008, 100)]).toEqual([195, 9]);
      expect(await file.read(9000, 10)).toHaveLength(0);
      await file.truncate(12);
      expect([file.size(), file.readSync(0, 100).length]).toEqual([12, 12]);
      await file.close();
    });
  }

  test("lists, renames and removes; what is not there is no error where the contract says so", async () => {
    const { disk, root } = create();
    expect(await disk.list(`${root}/none`)).toEqual([]);
    await disk.makeDirectory(`${root}/d`);
    await disk.makeDirectory(`${root}/d`);
    await disk.writeFile(`${root}/d/b`, new Uint8Array([1]));
    await disk.writeFile(`${root}/d/a`, new Uint8Array([2]));
    await disk.writeFile(`${root}/d/b`, new Uint8Array([3, 4]));
    expect(await disk.list(`${root}/d`)).toEqual(["a", "b"]);
    await disk.rename(`${root}/d/b`, `${root}/d/a`);
    expect(await disk.list(`${root}/d`)).toEqual(["a"]);
    expect([...(await disk.readFile(`${root}/d/a`))]).toEqual([3, 4]);
    await disk.remove(`${root}/d/a`);
    await disk.remove(`${root}/d/a`);
    await disk.syncDirectory(`${root}/d`);
    expect(await disk.exists(`${root}/d/a`)).toBe(false);
    expect(await disk.exists(`${root}/d`)).toBe(true);
  });

  test("errors are fatal, and name path and cause", async () => {
    const { disk, root } = create();
    const expected = { family: "fatal", code: "OSTRAKA_IO", message: expect.stringMatching(/x: ENOENT/) };
    await expect(disk.open(`${root}/x`, { create: false })).rejects.toMatchObject(expected);
    await expect(disk.readFile(`${root}/x`)).rejects.toMatchObject(expected);
    await expect(disk.rename(`${root}/x`, `${root}/y`)).rejects.toMatchObject(expected);
  });
});

test.skipIf(process.platform !== "linux")("a full device is told apart from other errors", async () => {
  const file = await new RealDisk().open("/dev/full", { create: false });
  await expect(file.write(0, [new Uint8Array(10)])).rejects.toMatchObject({ code: "OSTRAKA_DISK_FULL" });
  await expect(file.write(0, [new Uint8Array(10), new Uint8Array(9)])).rejects.toMatchObject({
    family: "fatal",
    code: "OSTRAKA_DISK_FULL",
  });
  await file.close();
});

describe("the simulated disk in a crash", () => {
  const path = "/f";
  const old = new Uint8Array(4096).fill(1);
  const fresh = new Uint8Array(4096).fill(2);

  async function written(seed: number): Promise<SimDisk> {
    const disk = new SimDisk({ random: new SimRandom(seed) });
    const file = await disk.open(path, { create: true });
    await file.write(0, [old]);
    await file.sync();
    await disk.syncDirectory("/");
    await file.write(0, [fresh]);
    return disk;
  }

  test("keeps what was synced, loses or tears the rest, and does so alike for a seed", async () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 40; seed++) {
      const [one, two] = [await written(seed), await written(seed)];
      one.crash();
      two.crash();
      expect(one.contents(path)).toEqual(two.contents(path));
      const values = new Set(one.contents(path));
      expect([...values].every((value) => value === 1 || value === 2)).toBe(true);
      seen.add(values.size === 2 ? "torn" : values.has(1) ? "lost" : "kept");
    }
    expect([...seen].sort()).toEqual(["kept", "lost", "torn"]);
  });

  test("forgets a name whose directory was not synced, and nothing that was", async () => {
    const disk = new SimDisk({ random: new SimRandom(1) });
    await disk.writeFile("/h", old);
    const file = await disk.open("/g", { create: true });
    await file.write(0, [old]);
    await file.sync();
    disk.crash("none");
    expect(disk.paths()).toEqual(["/h"]);
    await disk.remove("/h");
    disk.crash("none");
    expect(disk.paths()).toEqual(["/h"]);
  });

  test("a failed sync loses for good what it was to make durable, and a later one says nothing", async () => {
    const disk = new SimDisk({ random: new SimRandom(3) });
    const file = await disk.open(path, { create: true });
    await disk.syncDirectory("/");
    await file.write(0, [fresh]);
    disk.failNext("sync", "EIO");
    await expect(file.sync()).rejects.toMatchObject({ code: "OSTRAKA_IO" });
    await file.sync();
    expect(file.readSync(0, 4096)).toEqual(fresh);
    disk.crash("all");
    expect(disk.contents(path)).not.toEqual(fresh);
  });

  test("a process from before it does nothing any more", async () => {
    const disk = new SimDisk({ random: new SimRandom(1) });
    const mounted = disk.mount();
    const file = await mounted.open(path, { create: true });
    await disk.syncDirectory("/");
    disk.crash("none");
    const settled: string[] = [];
    void mounted.writeFile("/z", old).then(() => settled.push("file"));
    void file.write(0, [old]).then(() => settled.push("write"));
    await new Promise((resolve) => setImmediate(resolve));
    expect(settled).toEqual([]);
    expect(() => file.readSync(0, 1)).toThrow();
    expect(disk.paths()).toEqual([path]);
    expect(disk.contents(path)).toHaveLength(0);
  });
});
