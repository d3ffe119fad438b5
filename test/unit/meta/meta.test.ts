import { describe, expect, it } from "vitest";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import {
  DEFAULT_SETTINGS,
  decodeMetaResult,
  encodeMetaCommand,
  type MetaCommand,
  MetaMachine,
  type MetaResult,
} from "../../../src/machines/meta/meta.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";

const MIDDLE = encodeKey(1, ["m\u0000\u00ff", Uint8Array.of(0, 255, 128)]);

function range(id: number, start: string, end: string, generation: number, replicas = [1, 2, 3]) {
  const descriptor: RangeDescriptor = {
    range: groupId(id),
    start,
    end,
    generation,
    replicas: replicas.map(nodeId),
  };
  return descriptor;
}

class Meta {
  readonly machine = new MetaMachine();
  #index = 0;

  run(command: MetaCommand): MetaResult {
    const [result] = this.machine.apply([{ index: ++this.#index, data: encodeMetaCommand(command) }]);
    return decodeMetaResult(result!);
  }

  static founded(): Meta {
    const meta = new Meta();
    meta.run({
      kind: "found",
      clusterId: "c",
      settings: { ...DEFAULT_SETTINGS, rangeMaxRows: 100 },
      firstFreeNodeId: 4,
      ranges: [range(3, "", "", 1)],
    });
    for (const id of [1, 2, 3]) meta.register(id);
    return meta;
  }

  register(id: number, incarnation = `i${id}`): MetaResult {
    return this.run({
      kind: "register",
      node: { id, address: `h${id}:1`, http: "off", incarnation },
    });
  }
}

const reasonOf = (result: MetaResult): string => (result.ok ? "" : result.reason);

describe("ranges", () => {
  it("gives ids that nobody had, and takes the newer of two descriptors", () => {
    const meta = Meta.founded();
    expect(meta.run({ kind: "allocate" })).toMatchObject({ range: 4 });
    expect(meta.run({ kind: "allocate" })).toMatchObject({ range: 5 });
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2), range(4, MIDDLE, "", 2)] });
    expect(meta.machine.directory.complete).toBe(true);
    expect(meta.machine.directory.at(MIDDLE)?.range).toBe(4);
    // A leader that was deposed before the split still tells what it knew.
    meta.run({ kind: "report", ranges: [range(3, "", "", 1, [1, 2])] });
    expect(meta.machine.directory.ranges).toHaveLength(2);
    meta.run({ kind: "report", ranges: [range(4, MIDDLE, "", 2, [2, 3, 4])] });
    expect(meta.machine.directory.get(groupId(4))?.replicas).toEqual([2, 3, 4]);
  });

  it("takes no range for merged whose child is told of first", () => {
    const meta = Meta.founded();
    meta.run({ kind: "report", ranges: [range(4, MIDDLE, "", 2)] });
    expect(meta.machine.directory.complete).toBe(false);
    expect(meta.machine.isMerged(groupId(3))).toBe(false);
    // A replica that has not applied the split yet changes nothing.
    meta.run({ kind: "report", ranges: [range(3, "", "", 1)] });
    expect(meta.machine.directory.complete).toBe(false);
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2)] });
    expect(meta.machine.directory.complete).toBe(true);
    // All of it in one report, in whatever order.
    const other = Meta.founded();
    other.run({ kind: "report", ranges: [range(4, MIDDLE, "", 2), range(3, "", MIDDLE, 2)] });
    expect(other.machine.state).toMatchObject({ merged: [], ranges: [{ range: 3 }, { range: 4 }] });
  });

  it("forgets a range that was merged away, and what was wished of it", () => {
    const meta = Meta.founded();
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2), range(4, MIDDLE, "", 2)] });
    meta.run({ kind: "wish", wish: { range: groupId(4), leader: nodeId(2), placed: false, apart: false } });
    expect(meta.machine.wish(groupId(4))?.leader).toBe(2);
    meta.run({ kind: "report", ranges: [range(3, "", "", 4)] });
    expect(meta.machine.state.ranges.map(({ range: id }) => id)).toEqual([3]);
    expect(meta.machine.state.wishes).toEqual([]);
    expect(meta.machine.isMerged(groupId(4))).toBe(true);
    const copy = new MetaMachine();
    copy.restore(meta.machine.snapshot());
    expect([3, 4].map((id) => copy.isMerged(groupId(id)))).toEqual([false, true]);
    // Its last leader does not bring it back.
    meta.run({ kind: "report", ranges: [range(4, MIDDLE, "", 3)] });
    expect(meta.machine.state.ranges.map(({ range: id }) => id)).toEqual([3]);
  });

  it("changes of what was wished of a range only what is named", () => {
    const meta = Meta.founded();
    const here = groupId(3);
    meta.run({ kind: "amend", range: here, wish: { merging: true } });
    meta.run({ kind: "amend", range: here, wish: { placed: true } });
    meta.run({ kind: "amend", range: here, wish: { merging: false } });
    expect(meta.machine.wish(here)).toMatchObject({ placed: true, merging: false, apart: false });
    meta.run({ kind: "amend", range: here, wish: { leader: nodeId(2) } });
    meta.run({ kind: "amend", range: here, wish: { placed: false } });
    expect(meta.machine.wish(here)).toMatchObject({ leader: 2, placed: false });
    meta.run({ kind: "wish", wish: { range: here, leader: undefined, placed: false, apart: false } });
    expect(meta.machine.wish(here)).toBeUndefined();
    // One that was merged away meanwhile.
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2), range(4, MIDDLE, "", 2)] });
    meta.run({ kind: "report", ranges: [range(3, "", "", 4)] });
    meta.run({ kind: "amend", range: groupId(4), wish: { merging: true } });
    expect(meta.machine.state.wishes).toEqual([]);
  });

  it("keeps a range whose child was told of first", () => {
    const meta = Meta.founded();
    meta.run({ kind: "report", ranges: [range(4, MIDDLE, "", 2)] });
    expect(meta.machine.isMerged(groupId(3))).toBe(false);
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2)] });
    expect(meta.machine.directory.complete).toBe(true);
  });

  it("makes an equal machine of a snapshot, binary keys included", () => {
    const meta = Meta.founded();
    meta.run({ kind: "report", ranges: [range(3, "", MIDDLE, 2), range(4, MIDDLE, "", 2)] });
    meta.run({ kind: "heard", wallMs: 77, down: [2], up: [] });
    const copy = new MetaMachine();
    copy.restore(meta.machine.snapshot());
    expect(copy.state).toEqual(meta.machine.state);
    expect(copy.directory.at(MIDDLE)?.start).toBe(MIDDLE);
    expect(Buffer.from(copy.snapshot())).toEqual(Buffer.from(meta.machine.snapshot()));
  });
});

describe("nodes", () => {
  it("keeps an id with one incarnation, also once it was removed", () => {
    const meta = Meta.founded();
    expect(reasonOf(meta.register(2, "other"))).toMatch(/is known with other data/);
    expect(meta.run({ kind: "node", id: 2, state: "removing" })).toMatchObject({ ok: true });
    expect(reasonOf(meta.run({ kind: "node", id: 2, state: "live" }))).toMatch(/being removed/);
    meta.run({ kind: "node", id: 2, state: "removed" });
    expect(reasonOf(meta.register(2))).toMatch(/removed from the cluster/);
    const node = { id: 2, address: "a:1", http: "off", incarnation: "new" };
    expect(reasonOf(meta.run({ kind: "join", node }))).toMatch(/removed from the cluster/);
    expect(meta.run({ kind: "join", node: { ...node, id: 0 } })).toMatchObject({ nodeId: 4 });
  });

  it("does not drain the last node, and keeps what is known of one that registers again", () => {
    const meta = Meta.founded();
    meta.run({ kind: "node", id: 1, state: "draining" });
    meta.run({ kind: "node", id: 2, state: "draining" });
    expect(reasonOf(meta.run({ kind: "node", id: 3, state: "draining" }))).toMatch(/the last one/);
    meta.run({ kind: "heard", wallMs: 5, down: [1], up: [] });
    meta.register(1);
    expect(meta.machine.node(1)).toMatchObject({ state: "draining", downSinceMs: 5 });
    meta.run({ kind: "heard", wallMs: 9, down: [1], up: [] });
    expect(meta.machine.node(1)?.downSinceMs).toBe(5);
    meta.run({ kind: "heard", wallMs: 10, down: [], up: [1] });
    meta.run({ kind: "node", id: 1, state: "live" });
    expect(meta.machine.node(1)).toMatchObject({ state: "live", downSinceMs: undefined });
  });

  it("gives no id again after a recovery that some of those that were lost may have had", () => {
    const meta = Meta.founded();
    const node = { id: 2, address: "h2:1", http: "off", incarnation: "new" };
    meta.run({ kind: "recover", clusterId: "d", node, firstFreeNodeId: 6, firstFreeRangeId: 1_010 });
    expect(meta.run({ kind: "allocate" })).toMatchObject({ range: 1_010 });
    const joins = (id: number) =>
      meta.run({ kind: "join", node: { id, address: "h:1", http: "off", incarnation: `j${id}` } });
    // Node 5 had joined, and this meta had not heard of it.
    expect(reasonOf(joins(5))).toContain("lost");
    expect(joins(0)).toMatchObject({ nodeId: 6 });
    expect(joins(9)).toMatchObject({ nodeId: 9 });
  });

  it("fixes the settings with the first start, until they are changed", () => {
    const meta = Meta.founded();
    meta.run({ kind: "found", clusterId: "d", settings: DEFAULT_SETTINGS, firstFreeNodeId: 9, ranges: [] });
    expect(meta.machine.state).toMatchObject({ clusterId: "c", settings: { rangeMaxRows: 100 } });
    meta.run({ kind: "configure", settings: { rangeMaxRows: 5 } });
    expect(meta.machine.state.settings).toEqual({ ...DEFAULT_SETTINGS, rangeMaxRows: 5 });
  });
});
