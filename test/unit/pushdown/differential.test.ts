/** Random queries over random rows: what ranges answer together is what plain SQLite answers. */
import { expect, test } from "vitest";
import { SessionFlag } from "../../../src/sql/types.js";
import { Dice, QueryMaker, randomDatabase } from "./random-queries.js";
import { SplitDatabase, type Told } from "./split-database.js";

const QUERIES = Number(process.env.PUSHDOWN_QUERIES ?? 5000);
const PER_DATABASE = 100;
/** Rows that are there already hide that others were left out. */
const PER_SCRATCH = 2;
/** Errors of expressions, which may be evaluated for rows that SQLite does not come to. All others are of our texts. */
const WHILE_RUNNING = /ESCAPE expression must be a single character|integer overflow|malformed JSON/;
const SEED = Number(process.env.SEED ?? 1);

test("ranges answer as plain SQLite does", { timeout: 900_000 }, async () => {
  const counts = new Map<string, number>();
  for (let made = 0, seed = SEED; made < QUERIES; made += PER_DATABASE, seed++) await compare(seed, counts);
  process.stdout.write(`pushdown: seeds from ${SEED}, ${JSON.stringify(Object.fromEntries(counts))}\n`);
  for (const how of ["merge", "first", "aggregate", "filter", "gather"])
    expect(counts.get(how) ?? 0, how).toBeGreaterThan(QUERIES / 50);
});

async function compare(seed: number, counts: Map<string, number>): Promise<void> {
  const dice = new Dice(seed);
  const { tables, others } = randomDatabase(dice);
  const database = new SplitDatabase(tables, others, () => dice.chance(20));
  const maker = new QueryMaker(dice);
  // LIKE is another function for good once a connection has been asked for a case sensitive one.
  const flags = dice.chance(10) ? SessionFlag.CaseSensitiveLike : 0;
  try {
    for (let i = 0; i < PER_DATABASE; i++) {
      const { sql, params } = maker.make();
      const stamp = { wallMs: 1_700_000_000_000, seed, lastInsertRowid: 7n };
      const statement = { sql, params, flags, stamp, told: undefined };
      const expected = database.ask(statement);
      const { told, how, failure } = await database.askRanges(statement);
      counts.set(how, (counts.get(how) ?? 0) + 1);
      if (i % PER_SCRATCH === 0) await database.renew();
      const which = `SEED=${seed}, query ${i} (${how}, ${database.ranges} ranges): ${sql} ${JSON.stringify(params, plain)}`;
      if (failure !== undefined && expected.error === undefined)
        expect(failure, which).toMatch(WHILE_RUNNING);
      if (mayDiffer(expected, told, how)) continue;
      expect(told, which).toEqual(expected);
    }
  } finally {
    await database.close();
  }
}

/**
 * Which rows an expression that fails is evaluated for, if any, depends on the plan, and plans depend on what the
 * connection has run before. Pushing down may keep an error from happening; it never makes one.
 */
function mayDiffer(expected: Told, told: Told, how: string): boolean {
  const fails = ({ error }: Told): boolean => error !== undefined && how !== "error";
  return fails(expected)
    ? told.error === undefined || told.error === expected.error
    : fails(told) && how === "gather";
}

function plain(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? `${value}n` : value;
}
