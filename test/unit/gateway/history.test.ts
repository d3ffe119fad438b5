/** What an open transaction has done, as its COMMIT needs it. */
import { describe, expect, it } from "vitest";
import { History, statementBytes } from "../../../src/gateway/history.js";
import { MAX_TOLD_OUTCOMES } from "../../../src/machines/range/told.js";
import type { StampedStatement, StatementOutcome } from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";

const outcome: StatementOutcome = {
  columns: [],
  columnTypes: [],
  rows: new Uint8Array(0),
  rowCount: 0,
  changes: 1,
  totalChanges: 1,
  lastInsertRowid: 1n,
};
const statement = (flags = 0): StampedStatement => ({
  sql: "insert into t values (?)",
  params: ["x"],
  flags,
  stamp: { wallMs: 1, seed: 2, lastInsertRowid: 0n },
  told: "1 1 1",
});

describe("a transaction's history", () => {
  it("goes back to what it was at a savepoint", () => {
    const history = new History();
    history.wrote(statement(), outcome, 0, "temp");
    history.savepoint("s", 1);
    history.wrote(statement(SessionFlag.DeferForeignKeys), outcome, 1);
    expect([history.hasWrites(), history.flags]).toEqual([true, SessionFlag.DeferForeignKeys]);
    expect(history.rollbackTo("S")).toBe(1);
    expect([history.hasWrites(), history.flags, history.writes.length]).toEqual([false, 0, 0]);
    expect(history.bytes).toBe(statementBytes(statement().sql, statement().params));
    expect(history.hasSavepoints()).toBe(true);
    history.forgetTemp();
    expect([history.bytes, history.hasSavepoints()]).toEqual([0, true]);
  });

  it("tells the answers of a long transaction once", () => {
    const history = new History();
    for (let i = 0; i < MAX_TOLD_OUTCOMES; i++) history.wrote(statement(), outcome, i);
    expect(history.outcomes).toHaveLength(MAX_TOLD_OUTCOMES);
    history.wrote(statement(), outcome, MAX_TOLD_OUTCOMES);
    expect(history.outcomes).toEqual([]);
    expect(history.writes).toHaveLength(MAX_TOLD_OUTCOMES + 1);
  });
});
