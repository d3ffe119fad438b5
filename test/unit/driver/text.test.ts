import { expect, test } from "vitest";
import { endsTransaction, firstWord } from "../../../src/driver/text.js";

test.each([
  ["select 1", "query"],
  [";; -- x\n/* y */ SELECT 1", "query"],
  ["with a as (select 1) select * from a", "query"],
  ["with a(x) as (values (1)), b as (select 2) /* insert */ values (3)", "query"],
  ["with a as (select 1) insert into t select * from a", "insert"],
  ["with a as (select 1) replace into t select * from a", "insert"],
  ["with a as (select 1) update t set n = (select 1)", "other"],
  ["with recursive a(n) as (select 1 union all select n + 1 from a) delete from t", "other"],
  ['with "select" as (select 1) delete from t', "other"],
  ["with", "other"],
  ["replace into t values (1)", "insert"],
  ["pragma user_version", "other"],
])("the first word of %s", (sql, word) => {
  expect(firstWord(sql)).toBe(word);
});

test.each([
  ["commit", "commit"],
  ["/* x */ end transaction", "commit"],
  ["rollback", "rollback"],
  ["-- x\nrollback transaction", "rollback"],
  ["rollback transaction a", "rollback"],
  [";rollback/**/to a", undefined],
  ["-- x\nROLLBACK TO SAVEPOINT a", undefined],
  ["rollback transaction to a", undefined],
  ['rollback transaction "a to b" to a', undefined],
  ['rollback transaction "to"', "rollback"],
  ["select 1", undefined],
])("how %s ends a transaction", (sql, how) => {
  expect(endsTransaction(sql)).toBe(how);
});
