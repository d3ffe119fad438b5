/** Long INSERTs of dumps: the same rows, in statements that may be sent. */
import { expect, test } from "vitest";
import { bindLongLiterals } from "../../../src/cli/long-literals.js";
import { SqliteSession } from "./sqlite-session.js";

const BLOB = "aB00".repeat(2_500_000);
const TEXT = "it''s".repeat(1_000_000);

test("long literals behind VALUES become parameters", async () => {
  const sql = `INSERT INTO 'values'(a, "values") VALUES(1,X'${BLOB}'),(/* '${TEXT}' */ 2,replace('${TEXT}','\\r',char(13)))`;
  const bound = bindLongLiterals(sql);
  if (typeof bound === "string") throw new Error("nothing was bound");
  expect((bound.args as unknown[]).map((value) => typeof value)).toEqual(["object", "string"]);
  expect(bound.sql.length).toBeLessThan(6_000_000);
  const rows: unknown[] = [];
  for (const statement of [sql, bound]) {
    const session = new SqliteSession();
    session.sqlite.exec('create table "values"(a, "values")');
    if (typeof statement === "string") session.sqlite.exec(statement);
    else session.sqlite.prepare(statement.sql).run(...(statement.args as unknown[]));
    const told = 'select group_concat(a || typeof("values") || hex("values")) from "values"';
    rows.push(session.sqlite.prepare(told).pluck().get());
  }
  expect(rows[1] === rows[0]).toBe(true);
});

test.each([
  "insert into t values('short')",
  `update t set a = X'${BLOB}'`,
  `insert into t values(?1, X'${BLOB}')`,
])("%.30s… is left as it is", (sql) => {
  expect(bindLongLiterals(sql)).toBe(sql);
});
