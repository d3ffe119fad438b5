import { describe, expect, it } from "vitest";
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { AgreedClock } from "../../../src/multiraft/agreed-clock.js";
import { type Engine, openEngine } from "../../../src/node/engine.js";
import { EMPTY_CONF } from "../../../src/raft/index.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { MemoryDisk } from "../../sim/memory-disk.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };
const bytes = new TextEncoder().encode("x");

function open(disk: MemoryDisk): Promise<Engine> {
  return openEngine({
    self: nodeId(1),
    directory: "data",
    electionTimeoutMs: 1_000,
    clock: new AgreedClock(new ManualClock()),
    random: new SeededRandom(1),
    disk: disk.session(),
    logger: QUIET as never,
    transport: { send() {}, receive() {}, sendSnapshot: () => Promise.resolve() },
    defer: (run) => void setImmediate(run),
    onFatal: () => undefined,
  });
}

describe("the engine of a node", () => {
  it.each(["departed.json", "meta/0000000000000007.state", "ranges/4/range.db"])(
    "does not begin with an empty log where there is %s",
    async (path) => {
      const disk = new MemoryDisk();
      await disk.session().writeFile("data/identity.json", bytes);
      await (await open(disk)).closeLog();
      await disk.session().writeFile(`data/${path}`, bytes);
      await (await open(disk)).closeLog();
      for (const name of disk.paths("data/log/")) disk.files.delete(name);
      await expect(open(disk)).rejects.toMatchObject({ code: "OSTRAKA_LOG_CORRUPT" });
      expect(disk.files.has(`data/${path}`)).toBe(true);
    },
  );

  it("removes snapshots that were received for groups that are not here", async () => {
    const disk = new MemoryDisk();
    const engine = await open(disk);
    const conf = { ...EMPTY_CONF, voters: [nodeId(1)] };
    const snapshot = { index: logIndex(5), term: term(1), conf };
    await engine.log.append([{ group: groupId(7), hardState: undefined, entries: [], snapshot }]);
    await engine.closeLog();
    await disk.session().writeFile("data/snapshots/g7-i5-t1.snapshot", bytes);
    await disk.session().writeFile("data/snapshots/g71-i5-t1.snapshot", bytes);
    await disk.session().writeFile("data/snapshots/g8-i9-t1.snapshot.part", bytes);
    await (await open(disk)).closeLog();
    expect(disk.paths("data/snapshots/")).toEqual(["data/snapshots/g7-i5-t1.snapshot"]);
  });
});
