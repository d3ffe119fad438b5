/**
 * The comparison with plain SQLite (scripts/fuzz) for a few fixed seeds, on ranges that split all the time. `npm run
 * fuzz` is the same for as long as one likes.
 */
import { expect, test } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { Cluster, until } from "../cluster/harness.js";

interface Comparison {
  readonly statements: number;
  readonly ranges: number;
  /** What was told differently; undefined when nothing was. */
  readonly difference: string | undefined;
}

const { compareWithSqlite } = (await import("../../scripts/fuzz/compare.mjs" as string)) as {
  compareWithSqlite(
    database: Database,
    seed: number,
    count: number,
    before: (statement: number) => Promise<void>,
    virtual: boolean,
  ): Promise<Comparison>;
};

const SEEDS = (process.env.SEED ?? "1,104,105,9").split(",").map(Number);
/** Of those, the ones that have virtual tables. */
const VIRTUAL_SEEDS = (process.env.SEED ?? "2,8").split(",").map(Number);
const STATEMENTS = 150;
const RANGE_MAX_ROWS = 8;
/** Before these statements all that is too big is given the time to split. */
const SETTLED: ReadonlySet<number> = new Set([50, 100, 140]);

function untilSplit(database: Database): Promise<true> {
  return until("no range is too big", async () => {
    const { rows } = await database.execute("select row_count from ostraka_ranges");
    const counts = rows.map(([count]) => Number(count));
    if (counts.some((count) => count > RANGE_MAX_ROWS)) throw new Error(`rows: ${counts.join(" ")}`);
    return true;
  });
}

test.each(SEEDS)("seed %i is answered as by SQLite", { timeout: 120_000 }, async (seed) => {
  const cluster = await Cluster.create({ nodes: 1, flags: ["--range-max-rows", String(RANGE_MAX_ROWS)] });
  try {
    const database = await cluster.connect(undefined, { intMode: "bigint" });
    const settle = async (statement: number): Promise<void> => {
      if (SETTLED.has(statement)) await untilSplit(database);
    };
    const { difference, statements, ranges } = await compareWithSqlite(
      database,
      seed,
      STATEMENTS,
      settle,
      false,
    );
    expect(difference, `at statement ${statements}`).toBeUndefined();
    expect(ranges).toBeGreaterThan(1);
  } finally {
    await cluster.dispose();
  }
});

test.each(VIRTUAL_SEEDS)("seed %i, with virtual tables", { timeout: 120_000 }, async (seed) => {
  const cluster = await Cluster.create({ nodes: 1, flags: ["--range-max-rows", String(RANGE_MAX_ROWS)] });
  try {
    const database = await cluster.connect(undefined, { intMode: "bigint" });
    // What stays whole in the first range may be too big for ever: nothing is waited for.
    const { difference, statements } = await compareWithSqlite(
      database,
      seed,
      STATEMENTS,
      async () => {},
      true,
    );
    expect(difference, `at statement ${statements}`).toBeUndefined();
  } finally {
    await cluster.dispose();
  }
});
