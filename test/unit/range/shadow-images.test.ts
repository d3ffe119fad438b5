/**
 * Virtual tables written in scratch databases: what changes in their shadow tables, applied to another copy of the same
 * rows by a connection that has used the virtual tables before, gives the same answers and sound indexes.
 */
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, describe, expect, it } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { openConnection, type RangeConnection } from "../../../src/machines/range/connection.js";
import { applyRowImages } from "../../../src/machines/range/row-images.js";
import { RunnerSession } from "../../../src/machines/range/runner/session.js";
import type { RowChange } from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import { SimRandom } from "../../sim/sim-random.js";
import { temporaryDirectory } from "./helpers.js";
import { loadsOf } from "./source-loads.js";

const SEED = Number(process.env.SEED ?? 5);
const ROUNDS = 12;
const WHOLE = { low: undefined, high: undefined };
const LIMIT = 1 << 30;
const TABLES = ["docs", "fed", "f", "kept", "ext", "f4", "box"];
const SCHEMA = [
  "CREATE TABLE docs(id INTEGER PRIMARY KEY, body)",
  "CREATE TABLE fed(a UNIQUE, b)",
  "CREATE VIRTUAL TABLE f USING fts5(title, body, prefix = '2')",
  "CREATE VIRTUAL TABLE kept USING fts5(x, content='', contentless_delete=1)",
  "CREATE VIRTUAL TABLE ext USING fts5(body, content='docs', content_rowid='id')",
  "CREATE VIRTUAL TABLE f4 USING fts4(x)",
  "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, +note)",
  "CREATE TRIGGER di AFTER INSERT ON docs BEGIN INSERT INTO ext(rowid, body) VALUES (new.id, new.body); END",
  "CREATE TRIGGER dd AFTER DELETE ON docs BEGIN INSERT INTO ext(ext, rowid, body) VALUES ('delete', old.id, old.body); END",
  `CREATE TRIGGER du AFTER UPDATE ON docs BEGIN
     INSERT INTO ext(ext, rowid, body) VALUES ('delete', old.id, old.body);
     INSERT INTO ext(rowid, body) VALUES (new.id, new.body); END`,
  "CREATE TRIGGER fe AFTER INSERT ON fed BEGIN INSERT INTO f VALUES (new.a, new.b); INSERT INTO f4 VALUES (new.b); END",
];
const CHECKS = ["f", "ext", "f4"].map((name) => `INSERT INTO ${name}(${name}) VALUES ('integrity-check')`);
const QUESTIONS = [
  "SELECT rowid, * FROM f ORDER BY rowid",
  "SELECT rowid FROM f WHERE f MATCH 'ash*' ORDER BY rowid",
  "SELECT rowid FROM kept WHERE kept MATCH 'elm OR oak' ORDER BY rowid",
  "SELECT rowid, bm25(ext) FROM ext WHERE ext MATCH 'oak' ORDER BY rowid",
  "SELECT docid, x FROM f4 ORDER BY docid",
  "SELECT docid FROM f4 WHERE f4 MATCH 'elm' ORDER BY docid",
  "SELECT * FROM box WHERE x0 > 5 ORDER BY id",
  "SELECT rtreecheck('box')",
  "SELECT * FROM docs ORDER BY id",
];

let open: { close(): void }[] = [];

afterEach(() => {
  for (const one of open) one.close();
  open = [];
});

function replica(name: string): RangeConnection {
  const connection = openConnection(join(temporaryDirectory(), name), { readonly: false, role: "apply" });
  open.push(connection);
  connection.database.exec(
    "CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (1)",
  );
  for (const sql of SCHEMA) connection.database.exec(sql);
  connection.schemaChanged();
  return connection;
}

function newSession(schema: readonly string[] = SCHEMA): RunnerSession {
  const session = new RunnerSession();
  open.push(session);
  session.openScratch({ version: 1, statements: schema, appliedIndex: logIndex(1), tables: [] });
  return session;
}

function run(session: RunnerSession, sql: string): SqlValue[][] {
  const stamp = { wallMs: 0, seed: 1, lastInsertRowid: 0n };
  const cursor = session.start({ sql, params: [], flags: 0, stamp, told: undefined }, LIMIT, []);
  const rows: SqlValue[][] = [];
  for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next())
    rows.push(...decodeRows(chunk.rows));
  return rows;
}

function apply(connection: RangeConnection, changes: readonly RowChange[]): void {
  connection.setFlags(SessionFlag.ForeignKeysOff | SessionFlag.IgnoreCheckConstraints);
  connection.database.exec("BEGIN");
  applyRowImages(connection, changes);
  connection.database.exec("COMMIT");
}

const ask = ({ database }: RangeConnection): unknown[] =>
  QUESTIONS.map((sql) => database.prepare(sql).raw().all());

function shadowsOf({ database }: RangeConnection): unknown[] {
  const names = database
    .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow' ORDER BY name")
    .pluck()
    .all() as string[];
  return names.map((name) => [name, database.prepare(`SELECT * FROM "${name}"`).raw().all()]);
}

function randomStatement(random: SimRandom): string {
  const words = ["ash", "birch", "elm", "oak", "yew"];
  const text = (): string =>
    `'${Array.from({ length: 1 + random.below(12) }, () => words[random.below(5)]! + random.below(4)).join(" ")} oak'`;
  const id = 1 + random.below(40);
  const statements = [
    () => `INSERT OR REPLACE INTO docs VALUES (${id}, ${text()}), (${id + 50}, ${text()})`,
    () => `UPDATE docs SET body = body || ' elm' WHERE id > ${id}`,
    () => `DELETE FROM docs WHERE id % 7 = ${id % 7}`,
    () => `INSERT OR IGNORE INTO fed VALUES (${text()}, ${text()})`,
    () => `INSERT OR REPLACE INTO f(rowid, title, body) VALUES (${id}, ${text()}, ${text()})`,
    () => `DELETE FROM f WHERE f MATCH 'ash${id % 4}'`,
    () => `INSERT OR REPLACE INTO kept(rowid, x) VALUES (${id}, ${text()})`,
    () => `DELETE FROM kept WHERE rowid = ${id}`,
    () => `INSERT INTO f4 SELECT body FROM docs WHERE id < ${id}`,
    () => `DELETE FROM f4 WHERE docid > ${id}`,
    () => `INSERT OR REPLACE INTO box SELECT id, id, id + 2, body FROM docs WHERE id > ${id}`,
    () => `UPDATE box SET x1 = x1 + 1 WHERE x0 < ${id}`,
    () => `DELETE FROM box WHERE id = ${id}`,
    () => ["INSERT INTO f(f) VALUES ('optimize')", "INSERT INTO ext(ext) VALUES ('rebuild')"][id % 2]!,
  ];
  return statements[random.below(statements.length)]!();
}

describe("changes of virtual tables in a scratch database", () => {
  it("are the same on whatever replica, with its virtual tables in use", () => {
    const random = new SimRandom(SEED, "shadows");
    const replicas = [replica("a.db"), replica("b.db")] as const;
    const [a, b] = replicas;
    for (let round = 0; round < ROUNDS; round++) {
      const session = newSession();
      session.addSource(a.path);
      const loads = TABLES.map((table) => ({ table, slice: WHOLE }));
      session.load(loadsOf(0, ...loads), LIMIT);
      for (let i = 0; i < 8; i++) {
        run(session, randomStatement(random));
        if (i === 3) run(session, "SAVEPOINT s");
        if (i === 5 && random.below(2) === 0) run(session, "ROLLBACK TO s");
      }
      const changes = [...session.captured()];
      const expected = QUESTIONS.map((sql) => run(session, sql));
      session.close();
      open = open.filter((one) => one !== session);
      for (const one of replicas) {
        apply(one, changes);
        expect(ask(one), `seed ${SEED}, round ${round}`).toEqual(expected);
        for (const check of CHECKS) one.database.exec(check);
        // What the module does itself goes on from there.
        one.database.exec("INSERT INTO f VALUES ('ash', 'by text')");
        one.database.exec("INSERT OR REPLACE INTO docs VALUES (7, 'oak by text')");
      }
      expect(shadowsOf(a), `seed ${SEED}, round ${round}`).toEqual(shadowsOf(b));
    }
  });

  it("are none where nothing was written, and only of what was", () => {
    const source = replica("a.db");
    source.database.exec("INSERT INTO f VALUES ('one', 'two'); INSERT INTO box VALUES (1, 2, 3, 'x')");
    const session = newSession();
    session.addSource(source.path);
    session.load(loadsOf(0, { table: "box", slice: WHOLE }), LIMIT);
    expect([...session.captured()]).toEqual([]);
    run(session, "DELETE FROM box WHERE id = 5");
    expect([...session.captured()]).toEqual([]);
    run(session, "UPDATE box SET note = 'y'");
    // Rows that come later are nobody's changes.
    session.load(loadsOf(0, { table: "f", slice: WHOLE }), LIMIT);
    expect(run(session, "SELECT title FROM f WHERE f MATCH 'two'")).toEqual([["one"]]);
    expect([...session.captured()].map(({ table, key }) => [table, key])).toEqual([["box_rowid", [1n]]]);
    run(session, "INSERT INTO f VALUES ('three', 'four')");
    run(session, "SAVEPOINT s");
    run(session, "DELETE FROM box");
    run(session, "ROLLBACK TO s");
    const tables = new Set([...session.captured()].map(({ table }) => table));
    expect([...tables].sort()).toEqual(["box_rowid", "f_content", "f_data", "f_docsize", "f_idx"]);
  });

  it("follow virtual tables that are made, renamed and dropped", () => {
    const source = replica("a.db");
    source.database.exec("INSERT INTO f VALUES ('one', 'two')");
    const texts = [
      "ALTER TABLE f RENAME TO g",
      "DROP TABLE box",
      "CREATE VIRTUAL TABLE box USING fts5(a)",
      "CREATE VIRTUAL TABLE late USING rtree(id, x0, x1)",
    ];
    const session = newSession();
    session.addSource(source.path);
    session.load(loadsOf(0, ...TABLES.map((table) => ({ table, slice: WHOLE }))), LIMIT);
    run(session, "INSERT INTO f VALUES ('three', 'four')");
    run(session, "INSERT INTO box VALUES (1, 2, 3, 'gone')");
    for (const text of texts) run(session, text);
    run(session, "INSERT INTO g VALUES ('five', 'six')");
    run(session, "INSERT INTO box VALUES ('seven')");
    run(session, "INSERT INTO late VALUES (1, 2, 3)");
    const changes = [...session.captured()];
    const target = new Database(source.path);
    // The trigger that feeds f is told of its new name by SQLite.
    for (const text of texts) target.exec(text);
    target.close();
    source.schemaChanged();
    apply(source, changes);
    const all = (sql: string): unknown => source.database.prepare(sql).pluck().all();
    expect(all("SELECT title FROM g WHERE g MATCH 'two OR four OR six' ORDER BY rowid")).toEqual([
      "one",
      "three",
      "five",
    ]);
    expect(all("SELECT a FROM box WHERE box MATCH 'seven'")).toEqual(["seven"]);
    expect(all("SELECT x1 FROM late")).toEqual([3]);
    source.database.exec("INSERT INTO g(g) VALUES ('integrity-check')");
    source.database.exec("INSERT INTO box(box) VALUES ('integrity-check')");
    expect(all("SELECT rtreecheck('late')")).toEqual(["ok"]);
  });
});
