/**
 * The protocol of transactions and reads across ranges against abstract logs: random short histories over a handful of
 * keys in two or three ranges, with entries on their way, leaders that are deposed and do not know it, messages that get
 * lost and repeated, gateways that die, and snapshots of several ranges. Everything a client was told must be strictly
 * serializable with real time, and everything must come to its end. Then the same with one rule left out at a time: the
 * violation must be found, or the model proves nothing.
 */
import { describe, expect, it } from "vitest";
import { RULES, type Rule } from "./protocol/rules.js";
import { World } from "./protocol/world.js";

const SEED = Number(process.env.SEED ?? 1);
const RUNS = Number(process.env.RUNS ?? 20_000);
const TIMEOUT_MS = Math.max(120_000, RUNS * 20);

/** Rare paths that have to be reached. */
const SOMETIMES = [
  "wide: committed",
  "wide: unknown",
  "one: committed",
  "one: aborted",
  "snapshot: committed",
  "snapshot: aborted",
  "read: committed",
  "read: prepared since",
  "prepare: held",
  "prepare: late",
  "prepare: waited for a held one",
  "prepare: waited in vain",
  "fence: late",
  "release: failed",
  "in doubt",
  "decision came too late",
  "waited: prepare",
  "waited: fence",
  "waited: read",
  "waited: write",
];

function explore(
  without: ReadonlySet<Rule>,
  runs: number,
): { readonly found: string | undefined; readonly counts: ReadonlyMap<string, number> } {
  const counts = new Map<string, number>();
  for (let seed = SEED; seed < SEED + runs; seed++) {
    const found = new World(seed, without, counts).run();
    if (found !== undefined) return { found: `SEED=${seed} RUNS=1: ${found}`, counts };
  }
  return { found: undefined, counts };
}

describe(`transactions over several ranges (SEED=${SEED})`, () => {
  it(
    `are strictly serializable over ${RUNS} histories, and come to their end`,
    () => {
      const { found, counts } = explore(new Set(), RUNS);
      expect(found).toBeUndefined();
      for (const what of SOMETIMES) expect(counts.get(what) ?? 0, what).toBeGreaterThan(RUNS / 1000);
    },
    TIMEOUT_MS,
  );

  it.each(RULES)(
    "need the rule: %s",
    (rule) => {
      const { found } = explore(new Set([rule]), 40_000);
      if (process.env.VERBOSE) process.stdout.write(`${rule}: ${found}\n`);
      expect(found, `without "${rule}" nothing went wrong`).toBeDefined();
    },
    120_000,
  );
});
