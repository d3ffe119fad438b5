/** Several ranges in one data directory. */
import { join } from "node:path";
import { groupId, nodeId } from "../../../src/base/ids.js";
import type { Key } from "../../../src/base/keys.js";
import type { FileWork } from "../../../src/machines/range/files.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command, SplitChild } from "../../../src/machines/range/types.js";
import { freshKey, newStore, WALL_MS } from "./helpers.js";

export const CONF = {
  voters: [nodeId(1), nodeId(2)],
  votersOutgoing: [],
  learners: [nodeId(3)],
  learnersNext: [],
  autoLeave: false,
};

export const rangePath = (root: string, range: number): string =>
  join(root, "ranges", String(range), "range.db");

export function openRange(root: string, range = 3, files?: FileWork): StoreCore {
  const store = newStore(rangePath(root, range), files);
  store.open();
  return store;
}

export function split(key: Key, child: number, generation = 1): Command {
  return {
    kind: "split",
    key: freshKey(),
    wallMs: WALL_MS,
    generation,
    at: key,
    child: groupId(child),
    conf: CONF,
  };
}

export const trim = (maxRows: number): Command => ({
  kind: "trim",
  key: freshKey(),
  wallMs: WALL_MS,
  maxRows,
});

/** A child that has not come by then does not come. */
const CHILD_MS = 8_000;

export async function childrenOf(store: StoreCore, count: number): Promise<SplitChild[]> {
  const children: SplitChild[] = [];
  for (const startedMs = performance.now(); ; ) {
    children.push(...store.takeChildren());
    if (children.length >= count) return children;
    if (performance.now() - startedMs > CHILD_MS) throw new Error("no child has come");
    await new Promise((done) => setImmediate(done));
  }
}

export async function childOf(store: StoreCore): Promise<SplitChild> {
  return (await childrenOf(store, 1))[0]!;
}
