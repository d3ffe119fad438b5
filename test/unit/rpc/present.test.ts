import { expect, it } from "vitest";
import type { Gateway } from "../../../src/rpc/gateway.js";
import { Present } from "../../../src/rpc/present.js";

it("tells the schema as soon as it has changed, and the clock now and then", () => {
  let nowMs = 0;
  let version: number | undefined;
  const clock = { monotonicMs: () => nowMs, wallMs: () => 1000 + nowMs };
  const gateway = { schemaVersion: () => version } as unknown as Gateway;
  const present = new Present(clock as ConstructorParameters<typeof Present>[0], gateway);
  const answers = (number: number): unknown[] =>
    Array.from({ length: number }, () => present.answered()).filter((told) => told !== undefined);

  expect(present.tell()).toEqual([1000, null]);
  expect(answers(1000)).toEqual([]);
  version = 5;
  expect(answers(1000)).toEqual([[1000, 5]]);
  nowMs = 9_999;
  expect(answers(1000)).toEqual([]);
  nowMs = 10_000;
  expect(answers(63)).toEqual([[11_000, 5]]);
  version = 6;
  expect(answers(1)).toEqual([[11_000, 6]]);
});
