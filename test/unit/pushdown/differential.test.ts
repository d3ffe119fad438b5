/** Random queries over random rows: what ranges answer together is what plain SQLite answers. */
import { describe, expect, test } from "vitest";
import { Dice, QueryMaker, randomDatabase } from "./random-queries.js";
import { SplitDatabase } from "./split-database.js";

const QUERIES = Number(process.env["PUSHDOWN_QUERIES"] ?? 5000);
const PER_DATABASE = 100;
const PER_SCRATCH = 12;
const SEED = Number(process.env["SEED"] ?? 1);

describe("pushdown", () => {
  test(
    "answers as plain SQLite does",
    async () => {
      const counts = new Map<string, number>();
      for (let made = 0, seed = SEED; made < QUERIES; made += PER_DATABASE, seed++)
        await compare(seed, counts);
      console.info(`seeds from ${SEED}: ${JSON.stringify(Object.fromEntries(counts))}`);
      for (const how of ["merge", "first", "aggregate", "filter", "gather"])
        expect(counts.get(how) ?? 0, how).toBeGreaterThan(QUERIES / 60);
    },
    180_000,
  );
});

async function compare(seed: number, counts: Map<string, number>): Promise<void> {
  const dice = new Dice(seed);
  const { tables, others } = randomDatabase(dice);
  const database = new SplitDatabase(tables, others, () => dice.chance(20));
  const maker = new QueryMaker(dice);
  try {
    for (let i = 0; i < PER_DATABASE; i++) {
      const { sql, params } = maker.make();
      const stamp = { wallMs: 1_700_000_000_000, seed, lastInsertRowid: 7n };
      const statement = { sql, params, flags: dice.chance(10) ? 8 : 0, stamp, told: undefined };
      const expected = database.ask(statement);
      const { told, how } = await database.askRanges(statement);
      counts.set(how, (counts.get(how) ?? 0) + 1);
      expect(told, `SEED=${seed}, query ${i} (${how}, ${database.ranges} ranges): ${sql} ${JSON.stringify(params, plain)}`).toEqual(
        expected,
      );
      if (i % PER_SCRATCH === 0) await database.renew();
    }
  } finally {
    await database.close();
  }
}

function plain(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? `${value}n` : value;
}
