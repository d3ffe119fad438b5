/**
 * Whole nodes in simulated worlds of many ranges whose nodes join, fail for good and are removed, all but one at once now
 * and then: a fixed set of seeds and, within a time budget, fresh ones. `SEED=n npm run sim -- --members` runs one again
 * with its trace.
 */
import { afterAll, describe, expect, it } from "vitest";
import { Seeds } from "./world/seeds.js";

/** Those that have found something, and a few that reach much in little time. */
const FIXED = [4, 6, 17, 26, 32, 37, 136, 202];
const FRESH_MS = 10_000;
/** What the fixed seeds reach; one that no longer does has lost its worth. */
const REACHED = [
  "a node was added",
  "a node failed for good",
  "a node is to be removed (serving)",
  "a node is to be removed (down)",
  "a node is to be removed (lost)",
  "a node that is to be gone is started again",
  "a node went down by itself: OSTRAKA_REMOVED",
  "recovered (coordinator there)",
  "recovered (coordinator lost)",
  "a recovery was cut short",
  "a snapshot was installed in a child",
  "a range's part of a transaction was committed",
];

const seeds = new Seeds({ members: true });

describe("worlds of nodes that come and go", () => {
  it.each(FIXED)("seed %i", async (seed) => {
    expect((await seeds.run(seed)).failure).toBeUndefined();
  });

  it("hold for fresh seeds", async () => {
    expect(await seeds.fresh(FRESH_MS)).toBeUndefined();
  });

  afterAll(() => {
    for (const what of REACHED) expect(seeds.reached(what), `"${what}" was never reached`).toBeGreaterThan(0);
  });
});
