/** The sample databases load whole, as a user loads them, and answer their queries as plain SQLite does. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Target } from "../../scripts/conformance/replay.mjs";
import { parseSlt } from "../../src/cli/slt/parser.js";
import { runSlt } from "../../src/cli/slt/runner.js";
import { connect, type Database } from "../../src/driver/index.js";
import { oneNode, shared, WHOLE } from "./conformance-cluster.js";

const samples = shared("samples");

describe.skipIf(samples === undefined).each([
  { name: "chinook", files: ["chinook.sql"], triggers: undefined, rows: ["Track", 3503] },
  {
    name: "sakila",
    files: ["01-schema.sql", "02-data.sql"],
    triggers: "03-triggers.sql",
    rows: ["rental", 16044],
  },
] as const)("$name", ({ name, files, triggers, rows: [table, count] }) => {
  let node: Target & { readonly url: string };
  let db: Database;
  const read = (file: string): string => readFileSync(join(samples!, name, file), "utf8");
  beforeAll(async () => {
    node = await oneNode();
    db = await connect(node.url, { timeoutMs: 60_000 });
  }, 120_000);
  afterAll(async () => {
    await db.close();
    await node.close();
  });

  it("loads", { timeout: 300_000 }, async () => {
    const session = await db.session();
    for (const file of files) await session.exec(read(file));
    expect(Number((await db.execute(`select count(*) from ${table}`)).rows[0]![0])).toBe(count);
    expect((await db.execute("pragma foreign_key_check")).rows).toHaveLength(0);
    expect((await db.execute("pragma integrity_check")).rows[0]![0]).toBe("ok");
    await session.close();
  });

  const answersItsQueries = async (): Promise<void> => {
    const session = await db.session();
    const result = await runSlt(session, parseSlt(read("queries.test")), {
      excludes: () => false,
      timeoutMs: 60_000,
    });
    expect(result.failures).toEqual([]);
    expect(result.passed).toBeGreaterThan(20);
    await session.close();
  };

  it("answers its queries", { timeout: 300_000 }, answersItsQueries);

  it.skipIf(triggers === undefined)(
    "runs its triggers, which ask for the time",
    { timeout: 120_000 },
    async () => {
      const session = await db.session();
      await session.exec(read(triggers!));
      const before = new Date(Date.now() - 60_000).toISOString().replace("T", " ").slice(0, 19);
      await session.execute("update actor set first_name = 'ZOE' where actor_id = 1");
      await session.execute(
        "insert into category(category_id, name, last_update) values (99, 'New', '2000-01-01')",
      );
      const actor = await db.execute("select first_name, last_update from actor where actor_id = 1");
      expect(actor.rows[0]![0]).toBe("ZOE");
      const category = await db.execute("select last_update from category where category_id = 99");
      for (const at of [actor.rows[0]![1], category.rows[0]![0]]) {
        expect(at).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
        expect(String(at) > before).toBe(true);
      }
      await session.close();
    },
  );

  it.skipIf(name !== "chinook" && !WHOLE)(
    "answers its queries with every table in five ranges",
    { timeout: 600_000 },
    async () => {
      const tables = await db.execute(
        "select name from sqlite_schema where type = 'table' and name not like 'sqlite%'",
      );
      for (const [table] of tables.rows) await inFive(db, String(table));
      const ranges = await db.execute("select count(*) from ostraka_ranges");
      expect(Number(ranges.rows[0]![0])).toBeGreaterThan(4 * tables.rows.length);
      await answersItsQueries();
      expect((await db.execute("pragma foreign_key_check")).rows).toHaveLength(0);
    },
  );
});

/** Divides a table by its rows; what has fewer than five, also where there are none. */
async function inFive(db: Database, table: string): Promise<void> {
  const { rows } = await db.execute(`select rowid from "${table}" order by rowid`);
  const ids = rows.map(([id]) => Number(id));
  const last = ids.at(-1) ?? 0;
  const at = [1, 2, 3, 4].map((i) => (ids.length < 5 ? last + i : ids[Math.floor((i * ids.length) / 5)]!));
  await db.admin("range.split", { table, at: at.map(String) });
}
