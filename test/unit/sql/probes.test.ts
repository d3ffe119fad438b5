/** Rows that a check cannot find may be left out: statements do the same without them. */
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import type { LogIndex } from "../../../src/base/ids.js";
import type { SqlValue } from "../../../src/base/values.js";
import { createOracle } from "../../../src/machines/range/oracle.js";
import { analyse } from "../../../src/sql/analyse.js";
import { SimRandom } from "../../sim/sim-random.js";

function analysed(schema: readonly string[], sql: string) {
  const oracle = createOracle({ version: 1, statements: schema, tables: [], appliedIndex: 1 as LogIndex });
  try {
    return analyse(sql, oracle);
  } finally {
    oracle.close();
  }
}

function probed(schema: string, sql: string, params: readonly SqlValue[] = []) {
  return analysed(schema.split(";"), sql).probed?.(params).get("t");
}

describe("what a check looks for", () => {
  const T =
    "create table t(id integer primary key, email text unique collate NOCASE, a, b real, unique(a, b))";

  it("is told by parameters and literals, of one row and of several", () => {
    expect(probed(T, "insert into t(email) values (?)", ["x"])).toEqual([
      { sql: '"email" COLLATE "NOCASE" = ?1', params: ["x"] },
    ]);
    expect(probed(T, "insert into t(email, a, b) values ('x', 5, ?), (?, 6, 2.5)", [1n, "y"])).toEqual([
      { sql: '"a" COLLATE "BINARY" IN (?1,?2)', params: [5n, 6n] },
      { sql: '"email" COLLATE "NOCASE" IN (?1,?2)', params: ["x", "y"] },
    ]);
    expect(probed(T, "update t set email = ?2 where id = ?1", [1n, "x"])).toEqual([
      { sql: '"email" COLLATE "NOCASE" = ?1', params: ["x"] },
    ]);
  });

  it("is nothing where it is NULL", () => {
    expect(probed(T, "insert into t(email) values (?)", [null])).toEqual([]);
  });

  it("is not told of what is computed, of a query's rows, of triggers", () => {
    expect(probed(T, "insert into t(email) values (lower(?))", ["x"])).toBeUndefined();
    expect(probed(T, "insert into t(email) select name from sqlite_schema")).toBeUndefined();
    expect(probed("create table t(a, b real unique)", "insert into t values (1, ?)", [1n])).toBeUndefined();
    expect(
      probed("create table t(a); create unique index i on t(abs(a))", "insert into t values (?)", [1n]),
    ).toBeUndefined();
    const fed = [
      "create table t(a unique)",
      "create table u(x)",
      "create trigger g after insert on u begin insert into t values (new.x); end",
    ];
    expect(analysed(fed, "insert into u values (1)").probed?.([]).get("t")).toBeUndefined();
  });

  it("is told of parents by another key than the primary one", () => {
    const child = `${T}; create table c(x references t(email))`;
    expect(probed(child, "insert into c values (?)", ["x"])).toEqual([
      { sql: '"email" COLLATE "NOCASE" = ?1', params: ["x"] },
    ]);
  });

  it("is told of parents by both keys, and of a row's own parent", () => {
    const child = `${T}; create table c(x references t(id), y references t(email))`;
    const both = [
      { sql: '"id" COLLATE "BINARY" = ?1', params: ["5"] },
      { sql: '"email" COLLATE "NOCASE" = ?1', params: ["x"] },
    ];
    expect(probed(child, "insert into c values (?, ?)", ["5", "x"])).toEqual(expect.arrayContaining(both));
    expect(probed(child, "insert into c values (?, ?)", ["5", null])).toEqual([both[0]]);
    const own = "create table t(email unique, rowid, id integer primary key, up references t)";
    expect(probed(own, "insert into t values ('x', 1, 2, 3)")).toEqual(
      expect.arrayContaining([{ sql: '"id" COLLATE "BINARY" = ?1', params: [3n] }]),
    );
  });
});

const VALUES: readonly SqlValue[] = [
  null,
  0n,
  1n,
  2n,
  -1n,
  9007199254740992n,
  9007199254740993n,
  1.0,
  1.5,
  9007199254740992.0,
  "",
  "1",
  "1.0",
  "a",
  "A",
  "a ",
  " 1",
  "é",
  "1e0",
  new Uint8Array([0x61]),
  new Uint8Array(0),
];
const TYPES = [
  "",
  "INTEGER",
  "TEXT",
  "NUMERIC",
  "REAL",
  "BLOB",
  "DOUBLE PRECISION",
  "VARCHAR(3)",
  "FLOATING POINT",
];
const STRICT_TYPES = ["ANY", "INTEGER", "TEXT", "REAL", "INT", "BLOB"];
const COLLATIONS = ["", "COLLATE NOCASE", "COLLATE RTRIM", "COLLATE BINARY"];
const COLUMNS = ["a", "b", "c"] as const;

function randomSchema(rng: SimRandom): string[] {
  const strict = rng.chance(0.3);
  const withoutRowid = rng.chance(0.25);
  const columns = COLUMNS.map(
    (name) => `${name} ${rng.pick(strict ? STRICT_TYPES : TYPES)} ${rng.pick(COLLATIONS)}`,
  );
  const key = withoutRowid
    ? `PRIMARY KEY (${rng.pick(["a", "b, a", "c COLLATE NOCASE, b"])})`
    : rng.pick(["UNIQUE (a)", "UNIQUE (a, b)", "UNIQUE (c COLLATE NOCASE)", "UNIQUE (b COLLATE RTRIM, c)"]);
  const options = [strict ? "STRICT" : "", withoutRowid ? "WITHOUT ROWID" : ""]
    .filter((o) => o !== "")
    .join();
  const id = withoutRowid ? "" : "id INTEGER PRIMARY KEY, ";
  const statements = [`CREATE TABLE t(${id}${columns.join()}, ${key}) ${options}`];
  if (rng.chance(0.5))
    statements.push(
      `CREATE UNIQUE INDEX i ON t(${rng.pick(["b", "c, a", "b COLLATE NOCASE", "abs(a)"])})${rng.chance(0.3) ? " WHERE c IS NOT NULL" : ""}`,
    );
  return statements;
}

function literal(value: SqlValue): string {
  if (value === null) return "NULL";
  if (typeof value === "string") return `'${value}'`;
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString("hex")}'`;
  return typeof value === "number" ? (Number.isInteger(value) ? `${value}.0` : String(value)) : String(value);
}

/** Some values as parameters, some in the text. */
function randomWrite(rng: SimRandom, withoutRowid: boolean): { sql: string; params: SqlValue[] } {
  const params: SqlValue[] = [];
  const value = (): string => {
    const chosen = rng.pick(VALUES);
    if (rng.chance(0.3)) return literal(chosen);
    params.push(chosen);
    return "?";
  };
  if (!withoutRowid && rng.chance(0.3))
    return { sql: `UPDATE t SET ${rng.pick(COLUMNS)} = ${value()} WHERE id = ${1 + rng.below(8)}`, params };
  const rows = Array.from({ length: rng.chance(0.3) ? 2 : 1 }, () => `(${COLUMNS.map(value).join()})`);
  return { sql: `INSERT INTO t(${COLUMNS.join()}) VALUES ${rows.join()}`, params };
}

function outcome(db: Database.Database, sql: string, params: readonly SqlValue[]): string {
  try {
    return `${db.prepare(sql).run(...params).changes} changes`;
  } catch (error) {
    return (error as Error).message;
  }
}

it("statements do the same without the rows that are left out", () => {
  const seed = Number(process.env.SEED ?? "20261126");
  let narrowed = 0;
  let refused = 0;
  for (let round = 0; round < 200; round++) {
    const rng = new SimRandom(seed + round);
    const schema = randomSchema(rng);
    const withoutRowid = schema[0]!.includes("WITHOUT ROWID");
    const whole = new Database(":memory:");
    whole.defaultSafeIntegers(true);
    for (const statement of schema) whole.exec(statement);
    for (let i = 0; i < 30; i++)
      outcome(
        whole,
        `INSERT INTO t(a, b, c) VALUES (?, ?, ?)`,
        COLUMNS.map(() => rng.pick(VALUES)),
      );
    for (let i = 0; i < 6; i++) {
      const { sql, params } = randomWrite(rng, withoutRowid);
      let analysis: ReturnType<typeof analysed>;
      try {
        analysis = analysed(schema, sql);
      } catch {
        continue;
      }
      const conditions = analysis.probed?.(params).get("t");
      if (conditions === undefined) continue;
      narrowed++;
      const part = new Database(whole.serialize());
      part.defaultSafeIntegers(true);
      const keep = conditions.map(
        (one) => `(${one.sql.replaceAll(/\?(\d+)/g, (_, n) => literal(one.params[Number(n) - 1]!))})`,
      );
      // Rows by key, and the last one, are brought for themselves.
      const own = withoutRowid ? [] : ["id <= 8", "id = (SELECT max(id) FROM t)"];
      part.exec(
        `DELETE FROM t WHERE NOT coalesce(${[...keep, ...own].map((c) => `coalesce(${c}, 0)`).join(" OR ") || "0"}, 0)`,
      );
      const here = outcome(part, sql, params);
      const there = outcome(whole, sql, params);
      expect(
        here,
        `SEED=${seed} round ${round}: ${schema.join("; ")}; ${sql} ${params.map(String).join()}`,
      ).toBe(there);
      if (!there.endsWith("changes")) refused++;
      part.close();
    }
    whole.close();
  }
  expect(narrowed).toBeGreaterThan(200);
  expect(refused).toBeGreaterThan(40);
});
