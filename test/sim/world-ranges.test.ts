/**
 * Whole nodes in simulated worlds whose database is divided into ranges, and divided anew while it is used: a fixed set of
 * seeds and, within a time budget, fresh ones. `SEED=n npm run sim -- --ranges` runs one again with its trace.
 */
import { afterAll, describe, expect, it } from "vitest";
import { describeFault } from "./world/faults.js";
import { type RunReport, runSeed } from "./world/world.js";

/** Those that have found something, and a few that reach much in little time; in long worlds, and as the seed has it. */
const FIXED = [5, 34, 45, 103, 104, 141, 150, 169, 172, 706, 707, 904];
const FIXED_SHORT = [
  910048, 660000019, 3679063153, 3694582007, 540000084, 550000610, 740000030, 760000779, 840000070, 840001277,
  850002757,
];
const FRESH_MS = 10_000;
/** What the fixed seeds reach; one that no longer does has lost its worth. */
const REACHED = [
  "a range applied split",
  "a range applied absorb",
  "a child split in its turn",
  "a child was asked for a vote before it was there",
  "a snapshot was installed in a child",
  "a range's part of a transaction was committed",
  "a range's part of a transaction was aborted",
  "a resolve came twice",
  "a resolve came for what was never prepared (aborted)",
  "a vote was no at apply (OSTRAKA_RETRY)",
  "the coordinator gave a transaction up by itself, or when asked",
  "split while transactions are open",
  "split while something is prepared elsewhere",
  "rows of others were trimmed",
  "a range was asked where it is not",
  "done: range.merge",
  "done: range.transfer",
];

const sometimes = new Map<string, number>();

async function run(seed: number, long: boolean): Promise<RunReport> {
  const report = await runSeed({ seed, manyRanges: true, long });
  for (const [what, count] of report.sometimes) sometimes.set(what, (sometimes.get(what) ?? 0) + count);
  return report;
}

function failure({ seed, violation, faults }: RunReport, long = false): string | undefined {
  return violation === undefined
    ? undefined
    : `seed ${seed}: ${violation}\nfaults:\n  ${faults.map(describeFault).join("\n  ")}\nreplay: SEED=${seed} npm run sim -- --ranges${long ? " --long" : ""}`;
}

describe("worlds of many ranges", () => {
  const verdicts: string[] = [];
  let first: RunReport | undefined;

  it.each(FIXED)("seed %i", async (seed) => {
    const report = await run(seed, true);
    first ??= report;
    expect(failure(report, true)).toBeUndefined();
    for (const { verdict } of report.verdicts.values()) verdicts.push(verdict);
  });

  it.each(FIXED_SHORT)("seed %i, short", async (seed) => {
    expect(failure(await run(seed, false))).toBeUndefined();
  });

  it("are the same for the same seed", async () => {
    expect((await runSeed({ seed: FIXED[0]!, manyRanges: true, long: true })).hash).toBe(first?.hash);
  });

  it("hold for fresh seeds", async () => {
    const from = (Math.floor(Date.now() / 1000) % 4_000_000) * 1000;
    const until = performance.now() + FRESH_MS;
    for (let seed = from; performance.now() < until; seed++)
      expect(failure(await run(seed, false)), `seed ${seed}`).toBeUndefined();
  });

  afterAll(() => {
    // Histories that tell nothing are no pass.
    expect(verdicts.filter((verdict) => verdict === "valid").length).toBeGreaterThan(verdicts.length / 2);
    for (const what of REACHED)
      expect(sometimes.get(what) ?? 0, `"${what}" was never reached`).toBeGreaterThan(0);
  });
});
