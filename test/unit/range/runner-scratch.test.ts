/** Scratch databases, on a session in this thread: rows of all shapes of tables, brought before and inside transactions. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, describe, expect, it } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { decodeRows, type SqlValue, ValueWriter } from "../../../src/base/values.js";
import { MAKE_SEQUENCE } from "../../../src/machines/range/oracle.js";
import { RunnerSession } from "../../../src/machines/range/runner/session.js";
import type {
  SchemaSnapshot,
  ScratchLoad,
  StampedStatement,
  SystemTable,
} from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import { loadsOf } from "./source-loads.js";

const WHOLE = { low: undefined, high: undefined };
const LIMIT = 1 << 30;

let folders: string[] = [];
let sessions: RunnerSession[] = [];
let files = 0;

afterEach(() => {
  for (const session of sessions) session.close();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  sessions = [];
  folders = [];
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "ostraka-scratch-"));
  folders.push(folder);
  return folder;
}

function newSession(): RunnerSession {
  const session = new RunnerSession();
  sessions.push(session);
  return session;
}

/** A range's file, as its storage leaves it. */
function rangeFile(sql: string, appliedIndex = 7): string {
  const path = join(newFolder(), `range-${files++}.db`);
  const database = new Database(path);
  database.pragma("journal_mode = WAL");
  database.exec(
    `CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (${appliedIndex});`,
  );
  database.exec(sql);
  database.close();
  return path;
}

function schemaOf(path: string, version = 1): SchemaSnapshot {
  const database = new Database(path, { readonly: true });
  const statements = database
    .prepare(
      `SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT GLOB '_ostraka_*'
       AND name NOT GLOB 'sqlite_*' ORDER BY rowid`,
    )
    .pluck()
    .all() as string[];
  const sequence = database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").get();
  database.close();
  return {
    version,
    statements: [...(sequence === undefined ? [] : MAKE_SEQUENCE), ...statements],
    appliedIndex: logIndex(7),
    tables: [],
  };
}

function statement(sql: string, params: readonly SqlValue[] = [], flags = 0): StampedStatement {
  return {
    sql,
    params,
    flags,
    stamp: { wallMs: 1_700_000_000_000, seed: 42, lastInsertRowid: 0n },
    told: undefined,
  };
}

function run(session: RunnerSession, sql: string, params: readonly SqlValue[] = [], flags = 0): SqlValue[][] {
  const cursor = session.start(statement(sql, params, flags), LIMIT, []);
  const rows: SqlValue[][] = [];
  for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next())
    rows.push(...decodeRows(chunk.rows));
  return rows;
}

function changesOf(session: RunnerSession): string[] {
  return [...session.captured()]
    .map(({ table, key, row }) => [table, ...key, "→", ...(row ?? ["gone"])].join(" "))
    .sort();
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "nothing was thrown";
}

function scan(session: RunnerSession, source: number, load: ScratchLoad): Uint8Array {
  const cursor = session.scan(loadsOf(source, load), LIMIT);
  const writer = new ValueWriter();
  for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next()) writer.raw(chunk.rows);
  return writer.take();
}

const rowid = (low: bigint | undefined, high: bigint | undefined) => ({
  low: low === undefined ? undefined : [low],
  high: high === undefined ? undefined : [high],
});

/** A session with a scratch database and one source on a file that `sql` makes. */
function scratchOn(sql: string): { readonly session: RunnerSession; readonly path: string } {
  const path = rangeFile(sql);
  const session = newSession();
  session.openScratch(schemaOf(path));
  expect(session.addSource(path)).toEqual({ source: 0, appliedIndex: 7 });
  return { session, path };
}

const SHAPES = `
  CREATE TABLE hidden(a INTEGER, b TEXT, g AS (a * 2), s AS (b || '!') STORED, c);
  CREATE TABLE alias(id INTEGER PRIMARY KEY, v);
  CREATE TABLE noalias(id INTEGER PRIMARY KEY DESC, v);
  CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
  CREATE TABLE only(id INTEGER PRIMARY KEY AUTOINCREMENT);
  CREATE TABLE named(rowid TEXT, _rowid_ REAL, v);
  CREATE TABLE taken(rowid, _rowid_, oid INTEGER PRIMARY KEY, v);
  CREATE TABLE "we""ird name"("a b" INTEGER, "select" TEXT);
  CREATE TABLE wr(k TEXT, n INTEGER, v, PRIMARY KEY(n, k)) WITHOUT ROWID;
  CREATE TABLE nocase(k TEXT COLLATE NOCASE, v, PRIMARY KEY(k COLLATE RTRIM DESC)) WITHOUT ROWID;
  CREATE TABLE strict(i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
  CREATE TABLE checked(a CHECK (a > 0), b UNIQUE);
  CREATE TABLE É(id INTEGER PRIMARY KEY, v);
  CREATE TABLE é(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
  INSERT INTO É VALUES (8, 'a rowid'), (9, 2);
  INSERT INTO é VALUES ('8', 'a key'), ('k', 3);
  INSERT INTO hidden(rowid, a, b, c) VALUES (10, 1, 'x', 1.5), (-5, 2, 'y', x'00ff'), (9223372036854775807, NULL, NULL, 'z'), (3, 9007199254740993, 'é' || char(0) || 'é', 2.0);
  INSERT INTO alias VALUES (1, 'one'), (-9223372036854775808, 'least');
  INSERT INTO noalias(rowid, id, v) VALUES (5, 1, 'a'), (2, 2, 'b'), (7, NULL, 'c');
  INSERT INTO auto VALUES (3, 'three'), (90, 'gone'); DELETE FROM auto WHERE id = 90;
  INSERT INTO only VALUES (4);
  INSERT INTO named(oid, rowid, _rowid_, v) VALUES (11, 'r', 2, 'v'), (12, NULL, 2.5, 1);
  INSERT INTO taken VALUES ('r', 1, 44, 'v');
  INSERT INTO "we""ird name"(rowid, "a b", "select") VALUES (8, 1, '1');
  INSERT INTO wr VALUES ('k', 1, 'v'), ('k', 2, 2.0), ('', -1, NULL);
  INSERT INTO nocase VALUES ('A', 1), ('b ', 2), ('a', 3);
  INSERT INTO strict(rowid, i, r, t, b, a) VALUES (6, 1, 2.0, '3', x'04', '5');
  PRAGMA ignore_check_constraints = ON;
  INSERT INTO checked(rowid, a, b) VALUES (2, -1, 'negative');`;
const SHAPED = [
  "hidden",
  "alias",
  "noalias",
  "auto",
  "only",
  "named",
  "taken",
  'we"ird name',
  "wr",
  "nocase",
  "strict",
  "checked",
  "É",
  "é",
];

function everything(database: { all(sql: string): SqlValue[][] }): Record<string, unknown> {
  const contents: Record<string, unknown> = {};
  for (const table of SHAPED) {
    const from = `"${table.replaceAll('"', '""')}"`;
    const row = ["wr", "nocase", "é"].includes(table) ? "" : ", oid";
    const columns = database.all(`SELECT name FROM pragma_table_xinfo('${table}') WHERE hidden <> 1`).flat();
    const types = columns.map((column) => `typeof("${String(column).replaceAll('"', '""')}")`).join(", ");
    contents[table] = database.all(
      `SELECT *, ${types}${row} FROM ${from} ORDER BY ${row === "" ? "1, 2" : "oid"}`,
    );
  }
  return contents;
}

function everythingIn(path: string): Record<string, unknown> {
  const database = new Database(path, { readonly: true });
  database.defaultSafeIntegers(true);
  try {
    const all = (sql: string) => database.prepare(sql).raw().all() as SqlValue[][];
    return JSON.parse(text(everything({ all })));
  } finally {
    database.close();
  }
}

function text(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(text).join(",")}]`;
  if (typeof value === "bigint") return `"${value}n"`;
  if (value instanceof Uint8Array) return `"x${Buffer.from(value).toString("hex")}"`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, part]) => `${JSON.stringify(key)}:${text(part)}`)
    .join(",")}}`;
}

describe("rows brought to a scratch database", () => {
  for (const how of ["load before", "load inside", "fill before", "fill inside"] as const) {
    it(`are exactly as they were: ${how}`, () => {
      const { session, path } = scratchOn(SHAPES);
      if (how.endsWith("inside")) run(session, "SELECT 1");
      for (const table of SHAPED) {
        if (how.startsWith("load")) session.load(loadsOf(0, { table, slice: WHOLE }), LIMIT);
        else session.fill(table, scan(session, 0, { table, slice: WHOLE }), LIMIT);
      }
      const found = everything({ all: (sql) => run(session, sql) });
      expect(JSON.parse(text(found))).toEqual(everythingIn(path));
      expect(run(session, "SELECT * FROM sqlite_sequence ORDER BY name")).toEqual([
        ["auto", 90n],
        ["only", 4n],
      ]);
      expect(run(session, "INSERT INTO auto(v) VALUES ('next') RETURNING id")).toEqual([[91n]]);
      expect(changesOf(session)).toEqual(["auto 91 → 91 next"]);
      expect(run(session, "PRAGMA integrity_check")).toEqual([["CHECK constraint failed in checked"]]);
    });
  }

  it("are those of the slice and of the condition", () => {
    const { session } = scratchOn(`${SHAPES}
      CREATE TABLE many(id INTEGER PRIMARY KEY, name TEXT, size);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
      INSERT INTO many SELECT i * 10, 'Name ' || i, i % 7 FROM n`);
    const load = (table: string, slice: ScratchLoad["slice"], where?: ScratchLoad["where"]) =>
      session.load(loadsOf(0, { table, slice, where }), LIMIT);
    expect(load("many", rowid(100n, 110n))).toBe(1);
    expect(load("many", rowid(100n, 121n))).toBe(2);
    expect(load("many", rowid(undefined, 1281n))).toBe(125);
    expect(load("many", rowid(5000n, 10_000n))).toBe(500);
    expect(load("many", rowid(19_990n, undefined))).toBe(2);
    expect(run(session, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM many")).toEqual([
      [630n, 630n, 10n, 20_000n],
    ]);
    const where = (sql: string, params: readonly SqlValue[] = [], more = {}) => ({ sql, params, ...more });
    expect(load("many", rowid(11_000n, 12_000n), where("size = ?2 -- no more", [99n, 3n, 88n]))).toBe(14);
    expect(
      load("many", rowid(11_000n, 11_100n), where("m.name LIKE :n", ["name 110%"], { alias: "m" })),
    ).toBe(8);
    const sensitive = { flags: SessionFlag.CaseSensitiveLike };
    expect(load("many", rowid(12_000n, 12_100n), where("name LIKE ?", ["name%"], sensitive))).toBe(0);
    expect(load("many", rowid(12_000n, 12_100n), where("name LIKE ?", ["name%"]))).toBe(10);
    expect(load("wr", { low: [1n], high: [2n] })).toBe(1);
    expect(load("wr", { low: [2n, "a"], high: [2n, "z"] })).toBe(1);
    expect(load("wr", { low: undefined, high: [1n, "k"] })).toBe(1);
    expect(
      session.load(loadsOf(0, { table: "many", slice: rowid(15_000n, 15_995n), last: true }), LIMIT),
    ).toBe(1);
    expect(run(session, "SELECT id FROM many WHERE id BETWEEN 12100 AND 19000")).toEqual([[15_990n]]);
    expect(codeOf(() => load("many", WHOLE, where("nothing = 1")))).toBe("SQLITE_ERROR");
    // After that nothing can be relied on.
    expect(codeOf(() => run(session, "SELECT 1"))).toBe("SQLITE_ERROR");
  });

  it("come from many sources, each as it was when it was added", () => {
    const sql =
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'old'), (2, 'old'), (3, 'old')";
    const paths = [rangeFile(sql, 1), rangeFile(sql, 2), rangeFile(sql, 3)];
    const session = newSession();
    for (const round of ["first", "second"]) {
      session.openScratch(schemaOf(paths[0]!));
      paths.forEach((path, i) => {
        expect(session.addSource(path)).toEqual({
          source: i,
          appliedIndex: i + (round === "first" ? 1 : 101),
        });
      });
      for (const [i, path] of paths.entries()) {
        const writer = new Database(path);
        writer.exec(`UPDATE t SET v = 'new' || id; UPDATE _ostraka_state SET applied_index = ${101 + i}`);
        if (round === "first")
          writer.exec("ALTER TABLE t ADD COLUMN later DEFAULT 5; ALTER TABLE t DROP COLUMN later");
        writer.close();
      }
      for (const i of [0, 1, 2])
        session.load(loadsOf(i, { table: "T", slice: rowid(BigInt(i + 1), BigInt(i + 2)) }), LIMIT);
      expect(run(session, "SELECT v FROM t ORDER BY id").flat()).toEqual(
        round === "first" ? ["old", "old", "old"] : ["new1", "new2", "new3"],
      );
      session.closeCopy("rollback");
      session.dropSources();
    }
  });

  it("of many sources come with one request, in its order", () => {
    const rows = [3n, 1n, 2n].map(
      (id) => `CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (${id})`,
    );
    const paths = rows.map((sql) => rangeFile(sql));
    const session = newSession();
    session.openScratch(schemaOf(paths[0]!));
    for (const path of paths) session.addSource(path);
    const loads = [2, 0, 1, 0].flatMap((source) => loadsOf(source, { table: "t", slice: WHOLE }));
    const cursor = session.scan(loads, LIMIT);
    const found: SqlValue[] = [];
    for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next())
      found.push(...decodeRows(chunk.rows).flat());
    expect(found).toEqual([2n, 3n, 1n, 3n]);
    expect(session.load(loads, LIMIT)).toBe(3);
    expect(run(session, "SELECT id FROM t ORDER BY id").flat()).toEqual([1n, 2n, 3n]);
  });

  it("are those behind a prefix of the key, where the slice says so", () => {
    const found = (slice: ScratchLoad["slice"]): unknown => {
      const { session } = scratchOn(`CREATE TABLE w(a TEXT, b INT, PRIMARY KEY(a, b)) WITHOUT ROWID;
        INSERT INTO w VALUES ('a', 1), ('a', 2), ('b', 1), ('b', 2), ('c', 1)`);
      session.load(loadsOf(0, { table: "w", slice }), LIMIT);
      return run(session, "SELECT a || b FROM w").flat();
    };
    expect(found({ low: ["a"], high: ["b"] })).toEqual(["a1", "a2"]);
    expect(found({ low: ["a"], lowAfter: true, high: ["b"], highAfter: true })).toEqual(["b1", "b2"]);
    expect(found({ low: ["a", 1n], lowAfter: true, high: ["b", 1n], highAfter: true })).toEqual(["a2", "b1"]);
    expect(found({ low: ["b"], lowAfter: true, high: undefined })).toEqual(["c1"]);
  });

  it("are refused beyond the limit", () => {
    const { session } = scratchOn(`CREATE TABLE t(id INTEGER PRIMARY KEY, b);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
      INSERT INTO t SELECT i, zeroblob(1000) FROM n`);
    expect(codeOf(() => session.load(loadsOf(0, { table: "t", slice: WHOLE }), 500_000))).toBe(
      "OSTRAKA_TOO_LARGE",
    );
    expect(codeOf(() => run(session, "SELECT 1"))).toBe("OSTRAKA_TOO_LARGE");
    session.closeCopy("rollback");
    session.openScratch({ version: 2, statements: [], appliedIndex: logIndex(0), tables: [] });
    expect(run(session, "SELECT count(*) FROM sqlite_schema")).toEqual([[0n]]);
  });

  it("bring the contents of virtual tables along", () => {
    const { session } = scratchOn(`
      CREATE VIRTUAL TABLE f USING fts5(title, body);
      CREATE VIRTUAL TABLE f_more USING fts5(x, prefix = '2 3');
      CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
      INSERT INTO f(rowid, title, body) VALUES (3, 'hello', 'big world'), (70, 'another', 'small world');
      INSERT INTO f(f, rank) VALUES ('pgsz', 64);
      INSERT INTO f_more VALUES ('abcdef');
      INSERT INTO box VALUES (1, 0, 10), (2, 5, 6)`);
    session.load(loadsOf(0, { table: "f", slice: WHOLE }, { table: "BOX", slice: WHOLE }), LIMIT);
    session.fill("f_more", scan(session, 0, { table: "f_more", slice: WHOLE }), LIMIT);
    expect(run(session, "SELECT rowid, title FROM f WHERE f MATCH 'world' ORDER BY rowid")).toEqual([
      [3n, "hello"],
      [70n, "another"],
    ]);
    expect(run(session, "SELECT x FROM f_more WHERE f_more MATCH 'abc*'")).toEqual([["abcdef"]]);
    expect(run(session, "SELECT id FROM box WHERE x0 > 1")).toEqual([[2n]]);
    run(session, "INSERT INTO f VALUES ('third', 'world')");
    expect(run(session, "SELECT count(*) FROM f WHERE f MATCH 'world'")).toEqual([[3n]]);
    expect(run(session, "SELECT count(*) FROM f_content")).toEqual([[3n]]);
    expect(changesOf(session).some((change) => change.startsWith("f_content 71 → 71 third"))).toBe(true);
  });
});

describe("statements on a scratch database", () => {
  const SHOP = `
    CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT UNIQUE, orders INT DEFAULT 0);
    CREATE TABLE ordering(id INTEGER PRIMARY KEY, customer INT NOT NULL REFERENCES customer ON DELETE CASCADE, total);
    CREATE TABLE note(m);
    CREATE INDEX by_customer ON ordering(customer);
    CREATE TRIGGER counts AFTER INSERT ON ordering BEGIN UPDATE customer SET orders = orders + 1 WHERE id = new.customer; END;
    CREATE TRIGGER one AFTER DELETE ON ordering BEGIN INSERT INTO note VALUES ('one ' || old.id); END;
    CREATE TRIGGER two AFTER DELETE ON ordering BEGIN INSERT INTO note VALUES ('two ' || old.id); END;
    INSERT INTO customer(id, name) VALUES (1, 'ann'), (2, 'bob'), (3, 'cid');
    INSERT INTO ordering VALUES (10, 1, 5), (11, 1, 6), (12, 2, 7);`;

  it("fire triggers and cascades, which rows that are brought do not", () => {
    for (const late of [false, true]) {
      const { session } = scratchOn(SHOP);
      const rows = [
        { table: "ordering", slice: WHOLE },
        { table: "customer", slice: WHOLE },
      ];
      run(
        session,
        late
          ? "SELECT 1"
          : "CREATE TEMP TRIGGER mine AFTER INSERT ON customer BEGIN INSERT INTO note VALUES ('mine'); END",
      );
      session.load(loadsOf(0, ...rows), LIMIT);
      expect(run(session, "SELECT id, orders FROM customer")).toEqual([
        [1n, 2n],
        [2n, 1n],
        [3n, 0n],
      ]);
      run(session, "DELETE FROM customer WHERE name = 'ann'");
      // The later trigger fires first, as it would have in the range.
      expect(run(session, "SELECT m FROM note").flat()).toEqual(["two 10", "one 10", "two 11", "one 11"]);
      run(session, "INSERT INTO ordering VALUES (13, 3, 8)");
      expect(codeOf(() => run(session, "INSERT INTO ordering VALUES (14, 1, 8)"))).toBe(
        "SQLITE_CONSTRAINT_FOREIGNKEY",
      );
      run(session, "INSERT INTO customer(id, name) VALUES (4, 'dan')");
      expect(changesOf(session)).toEqual([
        "customer 1 → gone",
        "customer 3 → 3 cid 1",
        "customer 4 → 4 dan 0",
        "note 1 → two 10",
        "note 2 → one 10",
        "note 3 → two 11",
        "note 4 → one 11",
        ...(late ? [] : ["note 5 → mine"]),
        "ordering 10 → gone",
        "ordering 11 → gone",
        "ordering 13 → 13 3 8",
        "ordering 14 → gone",
      ]);
      session.closeCopy("commit");
    }
  });

  it("leave alone what the transaction has written when more is brought", () => {
    const { session } = scratchOn(
      `CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v);
       CREATE TABLE w(a TEXT, b INT, v, PRIMARY KEY(a, b)) WITHOUT ROWID;
       INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4), (5, 'e', 5), (6, 'f', 6);
       INSERT INTO w VALUES ('x', 1, 1), ('x', 2, 2), ('y', 1, 3)`,
    );
    session.load(
      loadsOf(0, { table: "t", slice: rowid(1n, 5n) }, { table: "w", slice: { low: ["x"], high: ["y"] } }),
      LIMIT,
    );
    run(session, "DELETE FROM t WHERE id = 1");
    run(session, "UPDATE t SET v = 'changed' WHERE id = 2");
    run(session, "UPDATE t SET id = 30 WHERE id = 3");
    run(session, "REPLACE INTO t VALUES (40, 'd', 'replaced')");
    run(session, "DELETE FROM w WHERE b = 1");
    session.load(loadsOf(0, { table: "t", slice: WHOLE }, { table: "w", slice: WHOLE }), LIMIT);
    expect(run(session, "SELECT * FROM t ORDER BY id")).toEqual([
      [2n, "b", "changed"],
      [5n, "e", 5n],
      [6n, "f", 6n],
      [30n, "c", 3n],
      [40n, "d", "replaced"],
    ]);
    expect(run(session, "SELECT * FROM w")).toEqual([
      ["x", 2n, 2n],
      ["y", 1n, 3n],
    ]);
    run(session, "UPDATE t SET v = 0 WHERE id = 5");
    expect(changesOf(session)).toEqual([
      "t 1 → gone",
      "t 2 → 2 b changed",
      "t 3 → gone",
      "t 30 → 30 c 3",
      "t 4 → gone",
      "t 40 → 40 d replaced",
      "t 5 → 5 e 0",
      "w x 1 → gone",
    ]);
  });

  it("keep brought rows through ROLLBACK TO, and forget what was written since", () => {
    const { session, path } = scratchOn(
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    );
    session.load(loadsOf(0, { table: "t", slice: rowid(1n, 2n) }), LIMIT);
    run(session, "UPDATE t SET v = 'kept' WHERE id = 1");
    run(session, "SAVEPOINT one");
    session.load(loadsOf(0, { table: "t", slice: rowid(2n, 3n) }), LIMIT);
    run(session, "DELETE FROM t WHERE id = 2");
    run(session, "SAVEPOINT Two");
    session.addSource(path);
    session.fill("t", scan(session, 1, { table: "t", slice: rowid(3n, 4n) }), LIMIT);
    run(session, "DELETE FROM t");
    run(session, "CREATE INDEX i ON t(v)");
    run(session, "ROLLBACK TO two");
    expect(run(session, "SELECT v FROM t ORDER BY id").flat()).toEqual(["kept", 3n]);
    run(session, "RELEASE two");
    run(session, "ROLLBACK TO one");
    expect(run(session, "SELECT v FROM t ORDER BY id").flat()).toEqual(["kept", 2n, 3n]);
    expect(changesOf(session)).toEqual(["t 1 → 1 kept"]);
    session.load(loadsOf(0, { table: "t", slice: WHOLE }), LIMIT);
    run(session, "UPDATE t SET v = v + 1 WHERE id > 1");
    expect(run(session, "SELECT v FROM t ORDER BY id").flat()).toEqual(["kept", 3n, 4n, 5n]);
    run(session, "RELEASE one");
    expect(changesOf(session)).toEqual(["t 1 → 1 kept", "t 2 → 2 3", "t 3 → 3 4", "t 4 → 4 5"]);
    run(session, "SAVEPOINT three");
    session.dropSources();
    run(session, "ROLLBACK TO three");
    expect(run(session, "SELECT count(*) FROM t")).toEqual([[4n]]);
  });

  it("of virtual tables are told also after a savepoint has brought such a table back, or undone another", () => {
    const { session } = scratchOn(`CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('old');
      CREATE TABLE t(id INTEGER PRIMARY KEY)`);
    session.load(loadsOf(0, { table: "f", slice: WHOLE }), LIMIT);
    run(session, "INSERT INTO f VALUES ('new')");
    const told = changesOf(session);
    expect(told).toContain("f_content 2 → 2 new");
    run(session, "SAVEPOINT s");
    run(session, "DROP TABLE f");
    run(session, "ROLLBACK TO s");
    expect(changesOf(session)).toEqual(told);
    run(session, "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)");
    run(session, "INSERT INTO box VALUES (1, 2, 3)");
    run(session, "ROLLBACK TO s");
    run(session, "CREATE VIRTUAL TABLE g USING fts5(x)");
    run(session, "INSERT INTO g VALUES ('a'), ('b')");
    const made = changesOf(session).filter((change) => !told.includes(change));
    expect(made.map((change) => change.split(" ")[0])).toEqual([
      "g_content",
      "g_content",
      "g_data",
      "g_data",
      "g_data",
      "g_docsize",
      "g_docsize",
      "g_idx",
    ]);
  });

  it("judge deferred constraints by what they did, not by what was brought", () => {
    const schema = `
      CREATE TABLE p(id INTEGER PRIMARY KEY);
      CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p);
      CREATE TABLE d(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED);
      INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (1, 1), (2, 2), (3, 3); INSERT INTO d VALUES (1, 1), (2, 2), (3, 3)`;
    const commits = (flags: number, ...steps: (string | ScratchLoad)[]): string => {
      const { session } = scratchOn(schema);
      for (const step of steps)
        if (typeof step === "string") run(session, step, [], flags);
        else session.load(loadsOf(0, step), LIMIT);
      const code = codeOf(() => session.closeCopy("commit"));
      return code === "nothing was thrown" ? "committed" : code;
    };
    const FAILS = "SQLITE_CONSTRAINT_FOREIGNKEY";
    const all = (table: string) => ({ table, slice: WHOLE });
    const some = (table: string, id: bigint) => ({ table, slice: rowid(id, id + 1n) });
    for (const flags of [0, SessionFlag.DeferForeignKeys]) {
      expect(commits(flags, "SELECT 1", all("c"), all("d"))).toBe("committed");
      expect(commits(flags, "SELECT 1", all("d"), all("c"), all("p"))).toBe("committed");
      expect(commits(flags, all("d"), "SELECT 1", all("p"), all("c"))).toBe("committed");
      // The violation is there before, and is mended or not after, rows are brought.
      const orphan = "INSERT INTO d VALUES (9, 9)";
      expect(commits(flags, orphan, all("d"), all("c"))).toBe(FAILS);
      expect(commits(flags, orphan, all("d"), all("p"), all("c"))).toBe(FAILS);
      expect(commits(flags, orphan, all("d"), all("p"), "INSERT INTO p VALUES (9)")).toBe("committed");
      expect(commits(flags, orphan, all("d"), all("c"), "DELETE FROM d WHERE id = 9", all("p"))).toBe(
        "committed",
      );
      expect(
        commits(flags, some("p", 1n), some("d", 1n), "DELETE FROM p WHERE id = 1", all("d"), all("p")),
      ).toBe(FAILS);
    }
    const deferred = SessionFlag.DeferForeignKeys;
    const immediate = "INSERT INTO c VALUES (9, 9)";
    expect(commits(deferred, immediate, all("c"), all("d"), all("p"))).toBe(FAILS);
    expect(commits(deferred, immediate, all("c"), all("p"), "DELETE FROM c WHERE p = 9")).toBe("committed");
    expect(
      commits(deferred, immediate, "SAVEPOINT s", all("c"), "ROLLBACK TO s", "RELEASE s", all("p")),
    ).toBe(FAILS);
    expect(commits(SessionFlag.ForeignKeysOff, immediate, all("c"), all("p"))).toBe("committed");
    expect(commits(SessionFlag.ForeignKeysOff, all("c"), immediate)).toBe("committed");
  });

  it("mind no foreign key that names no key, but where it is written", () => {
    const { session } = scratchOn(`CREATE TABLE p(id INTEGER PRIMARY KEY, v);
      CREATE TABLE wrong(v REFERENCES p(v) DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE d(id INTEGER PRIMARY KEY, p REFERENCES q DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE q(id INTEGER PRIMARY KEY); INSERT INTO d VALUES (1, NULL)`);
    const all = (table: string) => session.load(loadsOf(0, { table, slice: WHOLE }), LIMIT);
    run(session, "INSERT INTO q VALUES (5)");
    run(session, "INSERT INTO d VALUES (9, 9)");
    all("d");
    expect(codeOf(() => run(session, "INSERT INTO wrong VALUES (1)"))).toBe("SQLITE_ERROR");
    expect(codeOf(() => session.closeCopy("commit"))).toBe("SQLITE_CONSTRAINT_FOREIGNKEY");
    run(session, "DELETE FROM d WHERE id = 9");
    session.closeCopy("commit");
  });

  it("carry TEMP objects there and back", () => {
    const { session, path } = scratchOn(SHOP);
    session.closeCopy("rollback");
    session.pin(path);
    run(session, "CREATE TEMP TABLE seen(id CHECK (id > 0))");
    run(session, "INSERT INTO seen VALUES (-1)", [], SessionFlag.IgnoreCheckConstraints);
    run(
      session,
      "CREATE TEMP TRIGGER mine AFTER UPDATE ON customer BEGIN INSERT INTO seen VALUES (new.id); END",
    );
    session.openScratch(schemaOf(path));
    session.load(loadsOf(0, { table: "customer", slice: WHOLE }), LIMIT);
    run(session, "UPDATE customer SET orders = 5 WHERE id = 2");
    run(session, "INSERT INTO note SELECT 'seen ' || id FROM seen WHERE id > 0");
    expect(changesOf(session)).toEqual(["customer 2 → 2 bob 5", "note 1 → seen 2"]);
    session.closeCopy("commit");
    session.pin(path);
    expect(run(session, "SELECT id FROM seen")).toEqual([[-1n], [2n]]);
    expect(codeOf(() => run(session, "INSERT INTO seen VALUES (-2)"))).toBe("SQLITE_CONSTRAINT_CHECK");
    expect(run(session, "SELECT orders FROM customer WHERE id = 2")).toEqual([[1n]]);
    expect(session.hasTemp).toBe(true);
  });

  it("do not show what watches them", () => {
    const { session } = scratchOn(SHOP);
    run(session, "SELECT 1");
    run(session, "INSERT INTO note VALUES ('x')");
    for (const view of ["_ostraka_temp_schema_view", "_ostraka_temp_schema_rowid_view"])
      expect(run(session, `SELECT name FROM temp.${view}`)).toEqual([]);
  });

  it("end with the whole transaction when one rolls it back", () => {
    const { session } = scratchOn(SHOP);
    session.load(loadsOf(0, { table: "customer", slice: WHOLE }), LIMIT);
    run(session, "UPDATE customer SET orders = 9");
    expect(codeOf(() => run(session, "INSERT OR ROLLBACK INTO customer VALUES (1, 'x', 0)"))).toBe(
      "SQLITE_CONSTRAINT_PRIMARYKEY",
    );
    expect(session.rolledBack).toBe(true);
    expect(codeOf(() => run(session, "SELECT 1"))).toBe("SQLITE_ERROR");
    expect(codeOf(() => session.load(loadsOf(0), LIMIT))).toBe("SQLITE_ERROR");
    session.closeCopy("rollback");
    expect(session.rolledBack).toBe(false);
  });

  it("keep of a statement that fails what SQLite keeps, and nothing of one whose rows are too many", () => {
    const { session } = scratchOn(
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (3, 'there')",
    );
    session.load(loadsOf(0, { table: "t", slice: WHOLE }), LIMIT);
    for (const [sql, kept] of [
      ["INSERT INTO t VALUES (1, 'x'), (3, 'x')", [3n]],
      ["INSERT OR FAIL INTO t VALUES (1, 'x'), (3, 'x'), (5, 'x')", [1n, 3n]],
      ["INSERT OR FAIL INTO t VALUES (2, 'x'), (3, 'x'), (5, 'x') RETURNING id", [1n, 2n, 3n]],
      ["INSERT INTO t VALUES (7, 'x'), (3, 'x') RETURNING id", [1n, 2n, 3n]],
    ] as const) {
      expect(codeOf(() => run(session, sql))).toBe("SQLITE_CONSTRAINT_PRIMARYKEY");
      expect(run(session, "SELECT id FROM t").flat()).toEqual(kept);
    }
    const large = statement("INSERT INTO t VALUES (8, hex(zeroblob(1000))) RETURNING v");
    expect(codeOf(() => session.start(large, 1_000, []).next())).toBe("OSTRAKA_TOO_LARGE");
    expect(run(session, "SELECT id FROM t").flat()).toEqual([1n, 2n, 3n]);
  });

  it("tell the session's last rowid, not that of a system table's rows", () => {
    const { session } = scratchOn("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    const last = (sql: string, systemTables: readonly SystemTable[]): bigint => {
      const stamp = { wallMs: 0, seed: 1, lastInsertRowid: 7n };
      const cursor = session.start({ ...statement(sql), stamp }, LIMIT, systemTables);
      cursor.next();
      return cursor.summary().lastInsertRowid;
    };
    const nodes = { name: "nodes", columns: ["id"], types: undefined, rows: [[1n], [2n], [3n]] };
    expect(last("INSERT INTO t VALUES (7, 1)", [])).toBe(7n);
    expect(last("INSERT INTO t SELECT id, id FROM nodes WHERE id > 5", [nodes])).toBe(7n);
    expect(last("UPDATE t SET v = last_insert_rowid()", [nodes])).toBe(7n);
    expect(run(session, "SELECT v FROM t").flat()).toEqual([7n]);
  });

  it("find nothing of an earlier one, whether or not it was made ahead", () => {
    const { session, path } = scratchOn(SHOP);
    const schema = schemaOf(path);
    for (const ahead of [true, false]) {
      session.load(loadsOf(0, { table: "customer", slice: WHOLE }), LIMIT);
      run(session, "INSERT INTO note VALUES ('x')");
      session.closeCopy("commit");
      session.dropSources();
      if (ahead) session.prepareScratch(schema);
      session.openScratch(schema);
      expect(run(session, "SELECT (SELECT count(*) FROM note), (SELECT count(*) FROM customer)")).toEqual([
        [0n, 0n],
      ]);
      expect(changesOf(session)).toEqual([]);
      expect(session.addSource(path).source).toBe(0);
    }
    session.closeCopy("rollback");
    session.prepareScratch(schema);
    session.openScratch({ ...schema, statements: schema.statements.slice(0, 1) });
    expect(run(session, "SELECT name FROM sqlite_schema WHERE type = 'table'")).toEqual([["customer"]]);
  });

  it("leave no file behind", () => {
    const folder = newFolder();
    const before = process.env.SQLITE_TMPDIR;
    process.env.SQLITE_TMPDIR = folder;
    try {
      const { session } = scratchOn(`CREATE TABLE t(id INTEGER PRIMARY KEY, b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
        INSERT INTO t SELECT i, hex(randomblob(500)) FROM n`);
      session.load(loadsOf(0, { table: "t", slice: WHOLE }), LIMIT);
      run(session, "UPDATE t SET b = b || 'x'");
      expect(run(session, "SELECT count(*), sum(length(b)) FROM t")).toEqual([[40_000n, 40_040_000n]]);
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      if (before === undefined) delete process.env.SQLITE_TMPDIR;
      else process.env.SQLITE_TMPDIR = before;
    }
  });
});
