import { afterEach, expect, it } from "vitest";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import type { MemoryDisk } from "../../sim/memory-disk.js";
import { type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const put = (node: SimNode, value: string): Promise<unknown> =>
  world.during(node.group().propose(encodeKvCommand(["PUT", "a", value])));

/** Copies what is on a disk; answers what puts it back. */
function copyOf({ files }: MemoryDisk): () => void {
  const copies = [...files].map(([path, content]) => {
    const copy = Object.assign(Object.create(Object.getPrototypeOf(content)), content);
    return [path, Object.assign(copy, { bytes: content.bytes.slice(), undo: [] })] as const;
  });
  return () => {
    files.clear();
    for (const [path, copy] of copies) files.set(path, copy);
  };
}

it.each([0, 5])(
  "a node with an older copy of its data stops as soon as its leader knows better (quiesceTicks %s)",
  async (quiesceTicks) => {
    world = await World.start({ machine: () => new KvMachine(), host: { quiesceTicks } });
    const leader = await world.leader();
    await put(leader, "before");
    await world.converge();
    const node = world.nodes.find((other) => other !== leader) as SimNode;
    const putBack = copyOf(node.disk);
    for (let i = 0; i < 10; i++) await put(leader, `${i}`);
    await world.converge();
    await world.run(5_000);
    world.crash(node);
    putBack();
    await world.restart(node);
    for (let ms = 0; node.fatal === undefined && ms < 5_000; ms += 10) await world.run(10);
    expect(String(node.fatal)).toMatch(/the log was lost/);
    expect(leader.fatal).toBeUndefined();
    await node.host.stop();
    world.crash(node);
    await put(leader, "after");
  },
);
