import { describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { logIndex, term } from "../../../src/base/ids.js";
import { MemoryMachine } from "../../../src/machines/memory-machine.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import { type Entry, EntryKind } from "../../../src/raft/types.js";
import { MemoryDisk } from "../../sim/memory-disk.js";

const put = (index: number, key: string, value: string): Entry => ({
  index: logIndex(index),
  term: term(1),
  kind: EntryKind.Normal,
  data: encodeKvCommand(["PUT", key, value]),
});

async function open(disk: MemoryDisk): Promise<{ kv: KvMachine; machine: MemoryMachine; applied: number }> {
  const kv = new KvMachine();
  const machine = new MemoryMachine({ machine: kv, disk: disk.session(), directory: "state" });
  return { kv, machine, applied: await machine.open() };
}

describe("a machine in memory", () => {
  it("starts at its last checkpoint, which is the only file it keeps", async () => {
    const disk = new MemoryDisk();
    const { machine } = await open(disk);
    await machine.apply([put(2, "a", "1")], logIndex(2));
    expect(await machine.checkpoint()).toBe(2);
    await machine.apply([put(3, "a", "2")], logIndex(4));
    expect(await machine.checkpoint()).toBe(4);
    await machine.apply([put(5, "a", "3")], logIndex(5));
    disk.crash();
    const again = await open(disk);
    expect(again.applied).toBe(4);
    expect(again.kv.get("a")).toBe("2");
    expect(disk.paths("state/")).toEqual(["state/0000000000000004.state"]);
  });

  it("hands its state to another, with the same digest, and keeps it through a crash", async () => {
    const disk = new MemoryDisk();
    const from = await open(new MemoryDisk());
    await from.machine.apply([put(7, "b", "x"), put(8, "a", "y")], logIndex(9));
    const snapshot = await from.machine.snapshot();
    await from.machine.apply([put(10, "c", "later")], logIndex(10));
    const bytes = await snapshot.read(0, snapshot.bytes);
    const to = await open(disk);
    await disk.session().writeFile("received", bytes);
    const machine = new MemoryMachine({ machine: to.kv, disk: disk.session(), directory: "state" });
    await machine.open();
    expect(await machine.restore("received")).toBe(9);
    expect(await machine.restore("received")).toBe(9);
    expect([to.kv.get("a"), to.kv.get("c")]).toEqual(["y", null]);
    disk.crash();
    const again = await open(disk);
    expect(again.applied).toBe(9);
    await again.machine.apply([put(10, "c", "later")], logIndex(10));
    expect(await again.machine.digest()).toEqual(await from.machine.digest());
  });

  it("refuses entries it has applied, and files that are not its own", async () => {
    const disk = new MemoryDisk();
    const { machine } = await open(disk);
    await machine.apply([put(2, "a", "1")], logIndex(2));
    await expect(machine.apply([put(2, "a", "1")], logIndex(2))).rejects.toThrow(FatalError);
    const session = disk.session();
    await session.writeFile("state/0000000000000009.state", new Uint8Array(40));
    await expect(open(disk)).rejects.toThrow(/state file/);
  });
});
