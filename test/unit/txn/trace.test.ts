import { expect, it } from "vitest";
import { groupId, transactionId } from "../../../src/base/ids.js";
import { type Phase, TransactionTrace } from "../../../src/txn/trace.js";

it("remembers the last steps, oldest first, and tells how long phases took", () => {
  let nowMs = 10;
  const trace = new TransactionTrace({ wallMs: () => nowMs, monotonicMs: () => nowMs * 2 }, 3);
  const id = transactionId("t-1@0");
  expect(trace.steps()).toEqual([]);
  trace.note(id, "commit", "ranges 3, 4");
  nowMs = 11;
  trace.note(id, "prepare", "", groupId(3));
  expect(trace.steps()).toEqual([
    { transaction: id, atMs: 10, range: undefined, step: "commit", detail: "ranges 3, 4" },
    { transaction: id, atMs: 11, range: 3, step: "prepare", detail: "" },
  ]);
  trace.note(id, "vote", "yes", groupId(3));
  trace.note(id, "end", "committed");
  expect(trace.steps().map(({ step }) => step)).toEqual(["prepare", "vote", "end"]);
  const observed: [Phase, number][] = [];
  trace.phase("hold")();
  trace.observed = (phase, ms) => observed.push([phase, ms]);
  const end = trace.phase("decide");
  nowMs = 14;
  end();
  expect(observed).toEqual([["decide", 6]]);
});
