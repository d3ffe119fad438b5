/**
 * Row changes captured on scratch databases whose rows come from several ranges, in pieces, before and between
 * statements: applied to the ranges' rows (after the texts of schema changes, in order) they must give what the same
 * statements give on one database that has all rows.
 */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, describe, expect, it } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { openConnection, type RangeConnection } from "../../../src/machines/range/connection.js";
import { applyRowImages } from "../../../src/machines/range/row-images.js";
import { RunnerSession } from "../../../src/machines/range/runner/session.js";
import type { RowChange, SchemaSnapshot, StampedStatement } from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import { loadsOf } from "./source-loads.js";

const WHOLE = { low: undefined, high: undefined };
const LIMIT = 1 << 30;

let folder = "";
let files = 0;
let open: { close(): void }[] = [];

afterEach(() => {
  for (const one of open) one.close();
  open = [];
  if (folder !== "") rmSync(folder, { recursive: true, force: true });
  folder = "";
});

function rangeFile(sql: string): string {
  if (folder === "") folder = mkdtempSync(join(tmpdir(), "ostraka-capture-"));
  const path = join(folder, `range-${files++}.db`);
  const database = new Database(path);
  database.pragma("journal_mode = WAL");
  database.pragma("foreign_keys = OFF");
  database.exec(
    "BEGIN; CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (1)",
  );
  database.exec(`${sql}; COMMIT`);
  database.close();
  return path;
}

function copyOf(range: string): string {
  const path = join(folder, `copy-${files++}.db`);
  copyFileSync(range, path);
  return path;
}

function snapshot(statements: readonly string[]): SchemaSnapshot {
  return { version: 1, statements, appliedIndex: logIndex(1), tables: [] };
}

function newSession(): RunnerSession {
  const session = new RunnerSession();
  open.push(session);
  return session;
}

function statement(sql: string, flags = 0): StampedStatement {
  return { sql, params: [], flags, stamp: { wallMs: 0, seed: 1, lastInsertRowid: 0n }, told: undefined };
}

/** What a session is told: rows and counts, or the error. */
function told(session: RunnerSession, sql: string, flags = 0): unknown {
  try {
    const cursor = session.start(statement(sql, flags), LIMIT, []);
    const rows: SqlValue[][] = [];
    for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next())
      rows.push(...decodeRows(chunk.rows));
    return { rows, ...cursor.summary() };
  } catch (error) {
    return `${(error as { code: string }).code}: ${(error as Error).message}`;
  }
}

function rowsOf(session: RunnerSession, sql: string, flags = 0): SqlValue[][] {
  const answer = told(session, sql, flags);
  if (typeof answer === "string") throw new Error(`${sql}: ${answer}`);
  return (answer as { rows: SqlValue[][] }).rows;
}

/** Every ordinary table's rows, rowids and storage classes. */
function dump(all: (sql: string) => SqlValue[][]): string[] {
  const tables = all(
    `SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
     AND name NOT GLOB 'sqlite_*' AND name NOT GLOB '_ostraka_*' ORDER BY name`,
  ) as [string, bigint][];
  return tables.flatMap(([name, wr]) => {
    const rowid = wr === 1n ? "" : "rowid, ";
    return all(`SELECT ${rowid}* FROM "${name}" ORDER BY 1, 2`).map((row) =>
      [
        name,
        ...row.map(
          (value) =>
            `${typeof value}:${value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value}`,
        ),
      ].join(" "),
    );
  });
}

function dumpOf({ database }: RangeConnection): string[] {
  return dump((sql) => database.prepare(sql).raw().all() as SqlValue[][]);
}

/** All rows in one database, with texts and then changes applied as a range does. */
function applied(
  schema: readonly string[],
  rows: string,
  texts: readonly string[],
  changes: readonly RowChange[],
): string[] {
  const connection = openConnection(":memory:", { readonly: false, role: "scratch" });
  try {
    const { database } = connection;
    database.pragma("foreign_keys = OFF");
    for (const sql of schema) database.exec(sql);
    database.exec(rows);
    for (const sql of texts) database.exec(sql);
    connection.schemaChanged();
    connection.setFlags(SessionFlag.ForeignKeysOff | SessionFlag.IgnoreCheckConstraints);
    database.exec("BEGIN");
    applyRowImages(connection, changes);
    database.exec("COMMIT");
    expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
    return dumpOf(connection);
  } finally {
    connection.close();
  }
}

/**
 * Runs a transaction on all rows; answers what it captured, after seeing that texts and changes give its state.
 */
function changesOf(
  schema: readonly string[],
  content: string,
  steps: readonly string[],
  texts: readonly string[] = [],
): string[] {
  const path = rangeFile(`${schema.join(";")}; ${content}`);
  const session = newSession();
  session.openScratch(snapshot(schema));
  session.addSource(path);
  const tables = schema.flatMap((sql) => /^CREATE TABLE (\w+)/.exec(sql)?.[1] ?? []);
  session.load(loadsOf(0, ...tables.map((table) => ({ table, slice: WHOLE }))), LIMIT);
  for (const sql of steps) rowsOf(session, sql);
  const changes = [...session.captured()];
  const found = dump((sql) => rowsOf(session, sql));
  session.closeCopy("rollback");
  expect(applied(schema, content, texts, changes)).toEqual(found);
  return changes.map(({ table, key, row }) => [table, ...key, "→", ...(row ?? ["gone"])].join(" ")).sort();
}

describe("row changes beside changes of the schema", () => {
  const SCHEMA = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT)",
    "CREATE TABLE p(id INTEGER PRIMARY KEY, v)",
    "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE)",
    "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
  ];
  const ROWS = `INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20), (3, 'three', 30), (4, 'four', 40);
    INSERT INTO p VALUES (1, 'x'), (2, 'y'); INSERT INTO c VALUES (5, 1), (6, 1), (7, 2);
    INSERT INTO w VALUES ('a', 1), ('b', 2)`;

  const check = (steps: readonly string[], texts: readonly string[]): string[] =>
    changesOf(SCHEMA, ROWS, steps, texts);

  it("are as of the last schema", () => {
    const add = "ALTER TABLE t ADD COLUMN c DEFAULT 'new'";
    const drop = "ALTER TABLE t DROP COLUMN b";
    expect(
      check(
        [
          "UPDATE t SET a = 'uno' WHERE id = 1",
          add,
          "UPDATE t SET c = 'set' WHERE id = 2",
          drop,
          "DELETE FROM t WHERE id = 3",
        ],
        [add, drop],
      ),
    ).toEqual(["t 1 → 1 uno new", "t 2 → 2 two set", "t 3 → gone"]);
    const column = "ALTER TABLE w RENAME COLUMN k TO key";
    expect(
      check(["DELETE FROM w WHERE k = 'a'", column, "UPDATE w SET key = 'z' WHERE key = 'b'"], [column]),
    ).toEqual(["w a → gone", "w b → gone", "w z → z 2"]);
  });

  it("follow tables that are renamed, and forget those that are dropped", () => {
    const rename = "ALTER TABLE t RENAME TO T2";
    const again = "ALTER TABLE t2 RENAME TO t3";
    const make = "CREATE TABLE t(x)";
    expect(
      check(
        [
          "UPDATE t SET b = 11 WHERE id = 1",
          rename,
          "DELETE FROM t2 WHERE id = 4",
          make,
          "INSERT INTO t VALUES ('mine')",
          again,
          "UPDATE t3 SET b = 12 WHERE id = 2",
        ],
        [rename, make, again],
      ),
    ).toEqual(["t 1 → mine", "t3 1 → 1 one 11", "t3 2 → 2 two 12", "t3 4 → gone"]);
    const dropped = "DROP TABLE w";
    const made = "CREATE TABLE w(k, v, x)";
    expect(
      check(["UPDATE w SET v = 5", dropped, made, "INSERT INTO w VALUES (1, 2, 3)"], [dropped, made]),
    ).toEqual(["w 1 → 1 2 3"]);
  });

  it("hold the rows of a table that came with rows, and of cascades of DROP TABLE", () => {
    const text = "CREATE TABLE made(id INT,a TEXT)";
    expect(
      check(
        ["CREATE TABLE made AS SELECT id, a FROM t WHERE id > 2", "UPDATE made SET a = 'x' WHERE id = 4"],
        [text],
      ),
    ).toEqual(["made 1 → 3 three", "made 2 → 4 x"]);
    const drop = "DROP TABLE p";
    const found = check(["UPDATE c SET p = 2 WHERE id = 5", drop], [drop]);
    expect(found).toEqual(["c 5 → gone", "c 6 → gone", "c 7 → gone"]);
  });

  it("go on after indexes and triggers have come and gone", () => {
    const index = "CREATE UNIQUE INDEX u ON t(b)";
    const trigger = "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO w VALUES (new.a, 0); END";
    const texts = [index, trigger, "DROP TRIGGER tr", "DROP INDEX u"];
    expect(
      check(
        [
          "INSERT INTO t VALUES (5, 'five', 50)",
          index,
          "REPLACE INTO t VALUES (6, 'six', 10)",
          trigger,
          "INSERT INTO t VALUES (7, 'seven', 70)",
          "DROP TRIGGER tr",
          "DROP INDEX u",
          "INSERT INTO t VALUES (8, 'eight', 70)",
        ],
        texts,
      ),
    ).toEqual([
      "t 1 → gone",
      "t 5 → 5 five 50",
      "t 6 → 6 six 10",
      "t 7 → 7 seven 70",
      "t 8 → 8 eight 70",
      "w seven → seven 0",
    ]);
  });

  it("are taken back with the schema by ROLLBACK TO", () => {
    const add = "ALTER TABLE t ADD COLUMN c";
    const steps = [
      "UPDATE t SET a = 'kept' WHERE id = 1",
      "SAVEPOINT s",
      "ALTER TABLE t RENAME TO u",
      "UPDATE u SET a = 'lost' WHERE id = 2",
      "DROP TABLE w",
      "CREATE TABLE z AS SELECT * FROM p",
      "ROLLBACK TO s",
      "UPDATE w SET v = 3 WHERE k = 'a'",
      add,
      "UPDATE t SET c = 1 WHERE id = 3",
      "RELEASE s",
      "UPDATE t SET c = 2 WHERE id = 4",
    ];
    expect(check(steps, [add])).toEqual([
      "t 1 → 1 kept 10 ",
      "t 3 → 3 three 30 1",
      "t 4 → 4 four 40 2",
      "w a → a 3",
    ]);
  });

  it("bring rows into tables that have been altered since", () => {
    const path = rangeFile(`${SCHEMA.join(";")}; ${ROWS}`);
    const session = newSession();
    session.openScratch(snapshot(SCHEMA));
    session.addSource(path);
    const slice = { low: [1n], high: [2n] };
    session.load(loadsOf(0, { table: "t", slice }), LIMIT);
    const texts = [
      "ALTER TABLE t RENAME TO u",
      "ALTER TABLE u RENAME COLUMN a TO z",
      "ALTER TABLE u ADD COLUMN n DEFAULT 9",
      "CREATE TABLE t(only)",
      "ALTER TABLE u DROP COLUMN b",
    ];
    for (const sql of ["DELETE FROM t WHERE id = 1", ...texts]) rowsOf(session, sql);
    expect(session.load(loadsOf(0, { table: "u", slice: WHOLE }, { table: "t", slice: WHOLE }), LIMIT)).toBe(
      3,
    );
    expect(rowsOf(session, "SELECT * FROM u")).toEqual([
      [2n, "two", 9n],
      [3n, "three", 9n],
      [4n, "four", 9n],
    ]);
    rowsOf(session, "UPDATE u SET n = id");
    const changes = [...session.captured()];
    expect(applied(SCHEMA, ROWS, texts, changes).filter((line) => line.startsWith("u "))).toEqual(
      dump((sql) => rowsOf(session, sql)).filter((line) => line.startsWith("u ")),
    );
  });

  it("bring what changes of the schema do not concern, and nothing of a dropped table", () => {
    const schema = [
      "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)",
      "CREATE TABLE gone(a)",
      "CREATE VIRTUAL TABLE f USING fts5(x)",
    ];
    const path = rangeFile(
      `${schema.join(";")}; INSERT INTO t VALUES (70); DELETE FROM t; INSERT INTO gone VALUES (1); INSERT INTO f VALUES ('found')`,
    );
    const session = newSession();
    session.openScratch(snapshot(schema));
    session.addSource(path);
    rowsOf(session, "DROP TABLE gone");
    const load = (table: string) => session.load(loadsOf(0, { table, slice: WHOLE }), LIMIT);
    expect(load("f")).toBeGreaterThan(0);
    load("sqlite_sequence");
    expect(load("gone")).toBe(0);
    rowsOf(session, "CREATE TABLE gone(b)");
    expect(load("gone")).toBe(0);
    expect(rowsOf(session, "SELECT count(*) FROM f WHERE f MATCH 'found'")).toEqual([[1n]]);
    expect(rowsOf(session, "INSERT INTO t VALUES (NULL) RETURNING id")).toEqual([[71n]]);
    expect(rowsOf(session, "SELECT * FROM gone")).toEqual([]);
  });

  it("tell of AUTOINCREMENT values that no row explains", () => {
    const session = newSession();
    const schema = [
      "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
      "CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT)",
    ];
    const path = rangeFile(`${schema.join(";")}; INSERT INTO a VALUES (7, 'x'); INSERT INTO b VALUES (3)`);
    session.openScratch(snapshot(schema));
    session.addSource(path);
    session.load(loadsOf(0, { table: "a", slice: WHOLE }, { table: "b", slice: WHOLE }), LIMIT);
    const changes = () =>
      [...session.captured()].map(({ table, key, row }) =>
        [table, ...key, "→", ...(row ?? ["gone"])].join(" "),
      );
    rowsOf(session, "INSERT INTO a(v) VALUES ('y')");
    expect(changes()).toEqual(["a 8 → 8 y"]);
    rowsOf(session, "DELETE FROM a WHERE id = 8");
    expect(changes()).toEqual(["a 8 → gone", "sqlite_sequence  → a 8"]);
    rowsOf(session, "DELETE FROM sqlite_sequence WHERE name = 'b'");
    expect(changes()).toEqual(["a 8 → gone", "sqlite_sequence  → a 8", "sqlite_sequence  → b 0"]);
  });
});

it("rows are told apart as their key does, whatever the collations of its columns", () => {
  const schema = [
    "CREATE TABLE w(k TEXT COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID",
    "CREATE TABLE n(k TEXT, v, PRIMARY KEY (k COLLATE NOCASE)) WITHOUT ROWID",
    "CREATE TABLE both(v, k TEXT, PRIMARY KEY (k COLLATE NOCASE, k COLLATE BINARY)) WITHOUT ROWID",
  ];
  const rows =
    "INSERT INTO w VALUES ('A', 1), ('a', 2), ('b', 3); INSERT INTO n VALUES ('A', 1), ('b', 2); INSERT INTO both VALUES (1, 'A'), (2, 'a')";
  expect(
    changesOf(schema, rows, [
      "UPDATE w SET v = v + 10 WHERE k = 'a' COLLATE BINARY",
      "UPDATE n SET k = lower(k)",
      "UPDATE both SET v = v + 10 WHERE v = 2",
      "DELETE FROM w WHERE k = 'b'",
    ]),
  ).toEqual(["both a a → 12 a", "n A → gone", "n a → a 1", "n b → b 2", "w a → a 12", "w b → gone"]);
});

describe("rows that REPLACE deletes", () => {
  it("are told where the value comes of a generated column", () => {
    for (const kind of ["VIRTUAL", "STORED"]) {
      const schema = [`CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a * 2) ${kind} UNIQUE)`];
      const rows = "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)";
      expect(changesOf(schema, rows, ["UPDATE OR REPLACE t SET a = 2 WHERE id = 3"])).toEqual([
        "t 2 → gone",
        "t 3 → 3 2",
      ]);
    }
  });

  it("are told where the value is a default in place of NULL", () => {
    const rows = "INSERT INTO t VALUES (1, 1, 'a'), (2, '5', 'b'), (3, 3, 'c')";
    for (const type of ["INTEGER", "TEXT COLLATE NOCASE", "BLOB"]) {
      const schema = [`CREATE TABLE t(id INTEGER PRIMARY KEY, u ${type} NOT NULL DEFAULT '5' UNIQUE, v)`];
      const five = type === "INTEGER" ? 5 : "5";
      expect(changesOf(schema, rows, ["INSERT OR REPLACE INTO t VALUES (9, NULL, 'new')"])).toEqual([
        "t 2 → gone",
        `t 9 → 9 ${five} new`,
      ]);
      expect(changesOf(schema, rows, ["UPDATE OR REPLACE t SET u = NULL WHERE id = 3"])).toEqual([
        "t 2 → gone",
        `t 3 → 3 ${five} c`,
      ]);
    }
    for (const [instead, value] of [
      ["five", "'five'"],
      ['"fi""v\'e"', `'fi"v''e'`],
      ["[a b]", "'a b'"],
      ["('a' || 'b')", "'ab'"],
      ["TRUE", "1"],
      ["CURRENT_DATE", "'1970-01-01'"],
      ["-5.0", "-5.0"],
      ["x'00'", "x'00'"],
    ]) {
      const schema = [`CREATE TABLE t(id INTEGER PRIMARY KEY, u NOT NULL DEFAULT ${instead} UNIQUE)`];
      const changes = changesOf(schema, `INSERT INTO t VALUES (1, ${value})`, [
        "INSERT OR REPLACE INTO t VALUES (9, NULL)",
      ]);
      expect(changes.map((change) => change.slice(0, 5))).toEqual(["t 1 →", "t 9 →"]);
    }
  });
});

/** sfc32 would do as well: small numbers, the same in every run of a seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe("transactions over several ranges", () => {
  const SCHEMA = [
    "CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT COLLATE NOCASE UNIQUE, balance, g AS (balance * 2))",
    "CREATE TABLE entry(id INTEGER PRIMARY KEY, account INT REFERENCES account ON DELETE CASCADE ON UPDATE CASCADE, amount)",
    "CREATE TABLE tag(k TEXT, n INT, account INT REFERENCES account ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY(k, n)) WITHOUT ROWID",
    "CREATE TABLE plain(a, b)",
    "CREATE TABLE audit(m)",
    "CREATE INDEX by_account ON entry(account)",
    "CREATE INDEX by_tag ON tag(account)",
    "CREATE TRIGGER opened AFTER INSERT ON account BEGIN INSERT INTO audit VALUES ('opened ' || new.id); END",
    "CREATE TRIGGER closed AFTER DELETE ON entry BEGIN UPDATE plain SET b = old.id WHERE a = old.account; INSERT INTO audit VALUES ('gone ' || old.id); END",
  ];
  const TABLES = ["account", "entry", "tag", "plain", "audit"];

  function rowsFor(random: (below: number) => number): string {
    const texts: string[] = [];
    for (let id = 1; id <= 30; id++) {
      if (random(4) > 0)
        texts.push(`INSERT INTO account(id, owner, balance) VALUES (${id}, 'Owner ${id}', ${random(100)})`);
      texts.push(`INSERT INTO plain(rowid, a, b) VALUES (${id * 3}, ${random(30)}, ${random(3)} / 2.0)`);
    }
    for (let id = 1; id <= 60; id++)
      texts.push(
        `INSERT INTO entry SELECT ${id}, id, ${random(50)} FROM account WHERE id >= ${random(30)} LIMIT 1`,
        `INSERT INTO tag SELECT 'k${random(9)}', ${id}, id FROM account WHERE id >= ${random(30)} LIMIT 1`,
      );
    return `${texts.join(";")}; DELETE FROM audit`;
  }

  function someStatement(random: (below: number) => number): string {
    const id = 1 + random(34);
    const other = 1 + random(34);
    const statements = [
      `INSERT INTO account(owner, balance) VALUES ('new ${random(1000)}', 1) RETURNING id, g`,
      `INSERT INTO account(id, owner, balance) VALUES (${id}, 'OWNER ${other}', 2) ON CONFLICT(id) DO UPDATE SET balance = balance + 1`,
      `REPLACE INTO account(id, owner, balance) VALUES (${id}, 'owner ${other}', 3)`,
      `UPDATE OR IGNORE account SET owner = 'owner ${other}' WHERE id BETWEEN ${id} AND ${id + 3}`,
      `UPDATE account SET id = ${other} WHERE id = ${id}`,
      `DELETE FROM account WHERE id = ${id}`,
      `UPDATE account SET balance = (SELECT sum(amount) FROM entry WHERE account = account.id) WHERE id > ${id}`,
      `INSERT INTO entry(account, amount) VALUES (${id}, ${other}), (${other}, NULL)`,
      `INSERT OR FAIL INTO entry VALUES (NULL, ${id}, 1), (${other}, ${id}, 2)`,
      `DELETE FROM entry WHERE id % ${2 + random(9)} = 0`,
      `INSERT OR REPLACE INTO tag VALUES ('k${random(9)}', ${id}, ${other})`,
      `UPDATE tag SET k = 'K' || k WHERE n = ${id}`,
      `DELETE FROM tag WHERE account = ${id}`,
      `UPDATE plain SET a = a + 1, b = b || 'x' WHERE rowid > ${id * 2} RETURNING rowid, *`,
      "DELETE FROM plain",
      `INSERT INTO plain SELECT balance, owner FROM account WHERE id < ${id}`,
      `SELECT * FROM account JOIN entry ON entry.account = account.id ORDER BY account.id, entry.id LIMIT ${id}`,
      "SELECT count(*), total(balance) FROM account LEFT JOIN tag ON tag.account = account.id",
    ];
    return statements[random(statements.length)]!;
  }

  function somePlainStatement(random: (below: number) => number): string {
    const id = random(90);
    const statements = [
      `UPDATE plain SET b = 'early' WHERE rowid > ${id}`,
      `DELETE FROM plain WHERE rowid BETWEEN ${id} AND ${id + 20}`,
      `INSERT INTO plain(rowid, a) VALUES (${id + 200}, 1) RETURNING rowid`,
      "SELECT * FROM plain",
    ];
    return statements[random(statements.length)]!;
  }

  /** The same statements on a private copy of everything and on a scratch database; `bring` decides when rows come. */
  function compare(seed: number): void {
    const random = randomOf(seed);
    const rows = rowsFor(random);
    const flags =
      random(4) === 0 ? SessionFlag.DeferForeignKeys : random(8) === 0 ? SessionFlag.ForeignKeysOff : 0;
    const recursive = random(4) === 0 ? SessionFlag.RecursiveTriggers : 0;
    const content = `${SCHEMA.filter((sql) => !/TRIGGER/.test(sql)).join(";")}; ${rows}; ${SCHEMA.filter((sql) => /TRIGGER/.test(sql)).join(";")}`;
    const range = rangeFile(content);
    const ranges = [range, copyOf(range), copyOf(range)];
    const copy = newSession();
    const copied = copyOf(range);
    const file = new Database(copied);
    file.pragma("journal_mode = DELETE");
    file.close();
    copy.openCopy(copied);
    copy.capture();
    const scratch = newSession();
    scratch.openScratch(snapshot(SCHEMA));
    for (const path of ranges) scratch.addSource(path);
    const cuts = [1 + random(20), 20 + random(20)].map(BigInt);
    const sliceOf = (table: string, i: number) => {
      const bound = (at: number) =>
        at < 0 || at > 1 ? undefined : table === "tag" ? [`k${cuts[at]! % 9n}`] : [cuts[at]!];
      return { low: bound(i - 1), high: bound(i) };
    };
    const bring = (tables: readonly string[]): void => {
      for (const table of random(2) === 0 ? tables : [...tables].reverse())
        for (const i of [0, 1, 2]) {
          if (table === "tag" && cuts[0]! % 9n > cuts[1]! % 9n) {
            if (i === 0) scratch.load(loadsOf(0, { table, slice: WHOLE }), LIMIT);
            continue;
          }
          scratch.load(loadsOf(i, { table, slice: sliceOf(table, i) }), LIMIT);
        }
    };
    const seen: string[] = [];
    const both = (sql: string): void => {
      seen.push(sql);
      const expected = told(copy, sql, flags | recursive);
      expect(told(scratch, sql, flags | recursive), `seed ${seed}:\n${seen.join(";\n")}`).toEqual(expected);
    };
    let depth = 0;
    const steps = (count: number, next: () => string): void => {
      for (let step = 0; step < count && !scratch.rolledBack; step++) {
        const what = random(10);
        // Bringing again what is there already must change nothing.
        if (what === 0) bring(TABLES);
        else if (what === 1) both(`SAVEPOINT s${depth++}`);
        else if (what === 2 && depth > 0) both(`ROLLBACK TO s${depth - 1}`);
        else if (what === 3 && depth > 0) both(`RELEASE s${--depth}`);
        else both(next());
      }
    };
    if (random(2) === 0) {
      bring(["plain"]);
      steps(5, () => somePlainStatement(random));
    }
    bring(TABLES);
    steps(12, () => someStatement(random));
    for (const table of TABLES)
      both(`SELECT * FROM ${table} ORDER BY 1, 2, 3`.replace(", 2, 3", table === "audit" ? "" : ", 2"));
    if (!copy.rolledBack) {
      const changes = [...scratch.captured()];
      expect(applied(SCHEMA, rows, [], changes), `seed ${seed}:\n${seen.join(";\n")}`).toEqual(
        dump((sql) => rowsOf(copy, sql, flags)),
      );
      const ending = (session: RunnerSession): string => {
        try {
          session.closeCopy("commit");
          return "committed";
        } catch (error) {
          return (error as { code: string }).code;
        }
      };
      expect(ending(scratch), `seed ${seed}:\n${seen.join(";\n")}`).toBe(ending(copy));
    }
    for (const session of [copy, scratch]) {
      session.close();
      open.splice(open.indexOf(session), 1);
    }
    rmSync(folder, { recursive: true, force: true });
    folder = "";
  }

  const SEEDS = Number(process.env.SEEDS ?? 40);
  const only = process.env.SEED;
  it("give what one database gives", () => {
    const first = only === undefined ? 1 : Number(only);
    for (let seed = first; seed < first + (only === undefined ? SEEDS : 1); seed++) compare(seed);
  });
});
