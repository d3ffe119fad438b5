/** Random UPDATEs and DELETEs: over the rows that conditions let through they do what they do over all rows. */
import { expect, test } from "vitest";
import type { SqlValue } from "../../../src/base/values.js";
import { Dice } from "./random-queries.js";
import { SplitDatabase, type TableDefinition } from "./split-database.js";

const WRITES = Number(process.env.PUSHDOWN_WRITES ?? 400);
const PER_DATABASE = 40;
const SEED = Number(process.env.SEED ?? 1);

test("writes change the same rows", { timeout: 600_000 }, async () => {
  const counts = new Map<string, number>();
  for (let made = 0, seed = SEED; made < WRITES; made += PER_DATABASE, seed++) await compare(seed, counts);
  process.stdout.write(
    `pushdown of writes: seeds from ${SEED}, ${JSON.stringify(Object.fromEntries(counts))}\n`,
  );
  expect(counts.get("filter") ?? 0).toBeGreaterThan(WRITES / 10);
  expect(counts.get("gather") ?? 0).toBeGreaterThan(WRITES / 10);
});

async function compare(seed: number, counts: Map<string, number>): Promise<void> {
  const dice = new Dice(seed);
  const database = new SplitDatabase(tablesOf(dice), others(dice), () => dice.chance(15));
  try {
    for (let i = 0; i < PER_DATABASE; i++) {
      const { sql, params } = write(dice);
      const stamp = { wallMs: 1_700_000_000_000, seed, lastInsertRowid: 0n };
      const statement = { sql, params, flags: 0, stamp, told: undefined };
      const expected = database.tryWrite(statement);
      const { written, how } = await database.tryWriteRanges(statement);
      counts.set(how, (counts.get(how) ?? 0) + 1);
      expect(written, `SEED=${seed}, write ${i} (${how}): ${sql} ${params.map(String).join()}`).toEqual(
        expected,
      );
    }
  } finally {
    await database.close();
  }
}

const TEXTS = ["a", "A", "b", "ab"];

function tablesOf(dice: Dice): TableDefinition[] {
  const ids = Array.from({ length: 25 }, (_, i) => BigInt(i * 3 - 20));
  const text = (): SqlValue => (dice.chance(15) ? null : dice.pick(TEXTS));
  const number = (): SqlValue => (dice.chance(15) ? null : BigInt(dice.below(6)));
  const cuts = () => Array.from({ length: 1 + dice.below(3) }, () => dice.below(ids.length));
  const rowid = { shard: "rowid", keyColumns: ["rowid"], autoincrement: false } as const;
  const action = dice.pick(["", " ON DELETE CASCADE", " ON DELETE SET NULL"]);
  return [
    {
      sql: `CREATE TABLE p(id INTEGER PRIMARY KEY, a INT, q INT${dice.chance(50) ? " UNIQUE" : ""}, r TEXT, up INT${dice.chance(40) ? ` REFERENCES p(id)${action}` : ""})`,
      key: { name: "p", ...rowid },
      rows: ids.map((id, i) => [id, number(), BigInt(i), text(), dice.chance(30) ? dice.pick(ids) : null]),
      columns: ["id", "a", "q", "r", "up"],
      keyAt: [0],
      cuts: cuts(),
    },
    {
      sql: `CREATE TABLE c(p INT REFERENCES p(id)${action}, x INT, y TEXT)`,
      key: { name: "c", ...rowid },
      rows: ids.map((id) => [id, dice.chance(60) ? dice.pick(ids) : null, number(), text()]),
      columns: ["rowid", "p", "x", "y"],
      keyAt: [0],
      cuts: cuts(),
    },
  ];
}

function others(dice: Dice): string[] {
  return [
    "CREATE INDEX p_a ON p(a)",
    "CREATE INDEX p_r ON p(r, a)",
    "CREATE INDEX c_p ON c(p)",
    "CREATE TRIGGER c_gone AFTER DELETE ON c BEGIN UPDATE c SET x = x + 1 WHERE y = old.y; END",
    "CREATE TRIGGER p_set AFTER UPDATE OF a ON p BEGIN UPDATE p SET r = 'set' WHERE a = new.a; END",
  ].filter(() => dice.chance(25));
}

function write(dice: Dice): { readonly sql: string; readonly params: readonly SqlValue[] } {
  const params: SqlValue[] = [];
  const value = (): string => {
    if (dice.chance(70)) return String(dice.below(6));
    params.push(BigInt(dice.below(6)));
    return "?";
  };
  const ofP = (): string =>
    dice.pick([
      () => `a = ${value()}`,
      () => `a > ${value()} AND r IS NOT NULL`,
      () => "r = 'a'",
      () => "r LIKE 'a%'",
      () => `id > ${value()}`,
      () => `q = ${value()}`,
      () => "up IS NOT NULL",
      () => `id IN (SELECT p FROM c WHERE x = ${value()})`,
      () => `a = ${value()} AND EXISTS (SELECT 1 FROM p AS z WHERE z.up = p.id)`,
    ])();
  const ofC = (): string =>
    dice.pick([
      () => `x = ${value()}`,
      () => "y = 'b'",
      () => `p > ${value()} AND x < 4`,
      () => `c.rowid < ${value()}`,
    ])();
  const set = (): string =>
    dice.pick([
      () => `a = a + ${value()}`,
      () => `r = 'new'`,
      () => `a = ${value()}, r = r || 'x'`,
      () => `q = q + ${dice.pick(["0", "100", "1"])}`,
      () => `id = id + 1000`,
      () => "a = (SELECT max(a) FROM p)",
      () => "up = NULL",
      () => "up = id",
    ])();
  const sql = dice.pick([
    () => `UPDATE p SET ${set()} WHERE ${ofP()}`,
    () => `UPDATE p AS p SET ${set()} WHERE ${ofP()} AND p.a < 5`,
    () => `UPDATE OR IGNORE p SET ${set()} WHERE ${ofP()}`,
    () => `DELETE FROM p WHERE ${ofP()}`,
    () => `UPDATE c SET x = ${value()}, y = y WHERE ${ofC()}`,
    () => `UPDATE c SET p = ${value()} WHERE ${ofC()}`,
    () => `DELETE FROM c WHERE ${ofC()}`,
    () => `UPDATE c SET x = p.a FROM p WHERE p.id = c.p AND ${ofC()}`,
    () => `UPDATE c SET x = 9 WHERE ${ofC()} RETURNING x, (SELECT count(*) FROM c)`,
  ])();
  return { sql, params };
}
