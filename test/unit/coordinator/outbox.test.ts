/** Delivery of outbox rows: at least once, bounded, patient with one range and never at the cost of another. */
import { beforeEach, expect, it } from "vitest";
import { RouteError } from "../../../src/base/errors.js";
import { type GroupId, groupId, transactionId } from "../../../src/base/ids.js";
import { Outbox } from "../../../src/coordinator/outbox.js";
import type { OutboxRow } from "../../../src/txn/coordinator.js";
import { ManualClock } from "../../sim/manual-clock.js";

const A = groupId(3);
const B = groupId(4);
const LIMITS = { window: 3, firstBackoffMs: 50, maxBackoffMs: 400, gatherMs: 10, proposeAgainMs: 200 };

interface Delivery {
  readonly range: GroupId;
  readonly transaction: string;
  readonly atMs: number;
  done(): void;
  fail(): void;
}

let clock: ManualClock;
let deliveries: Delivery[];
let acknowledged: (readonly number[])[];
let refuse: number;
let outbox: Outbox;

beforeEach(() => {
  clock = new ManualClock();
  deliveries = [];
  acknowledged = [];
  refuse = 0;
  outbox = new Outbox({
    clock,
    limits: LIMITS,
    resolve: (range, transaction) =>
      new Promise((done, reject) => {
        const fail = () => reject(new RouteError("not the leader", undefined));
        deliveries.push({ range, transaction, atMs: clock.monotonicMs(), done, fail });
      }),
    acknowledge: async (rows) => {
      if (refuse-- > 0) throw new RouteError("not the leader", undefined);
      acknowledged.push(rows);
    },
  });
});

const row = (id: number, destination: GroupId): OutboxRow => ({
  id,
  transaction: transactionId(`t${id}`),
  destination,
  decision: "committed",
  createdMs: 0,
});
const rows = (from: number, to: number, destination: GroupId): OutboxRow[] =>
  Array.from({ length: to - from + 1 }, (_, n) => row(from + n, destination));
const started = (range: GroupId): string[] =>
  deliveries.filter((delivery) => delivery.range === range).map(({ transaction }) => transaction);

it("delivers a bounded number at once to each range, and acknowledges what has gathered", async () => {
  outbox.add([...rows(1, 5, A), ...rows(6, 7, B)]);
  await clock.advance(0);
  expect([started(A), started(B)]).toEqual([
    ["t1", "t2", "t3"],
    ["t6", "t7"],
  ]);
  deliveries[1]!.done();
  deliveries[3]!.done();
  await clock.advance(9);
  expect(started(A)).toEqual(["t1", "t2", "t3", "t4"]);
  expect(acknowledged).toEqual([]);
  await clock.advance(1);
  expect(acknowledged).toEqual([[2, 6]]);
  for (const { done } of deliveries) done();
  await clock.advance(0);
  deliveries.at(-1)!.done();
  await clock.advance(100);
  expect(acknowledged.flat().sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

it("tries a range that fails again, one row at a time with growing pauses, and no other waits for it", async () => {
  outbox.add(rows(1, 4, A));
  await clock.advance(0);
  for (const delivery of deliveries.splice(0)) delivery.fail();
  await clock.advance(49);
  expect(deliveries).toHaveLength(0);
  outbox.add(rows(5, 5, B));
  await clock.advance(0);
  expect(started(B)).toEqual(["t5"]);
  const times: number[] = [];
  for (let n = 0; n < 6; n++) {
    await clock.advance(400);
    const tries = deliveries.filter(({ range }) => range === A);
    expect(tries).toHaveLength(1);
    times.push(tries[0]!.atMs);
    tries[0]!.fail();
    deliveries = deliveries.filter(({ range }) => range !== A);
  }
  const pauses = times.map((at, n) => at - (n === 0 ? 0 : 49 + 400 * n));
  expect(pauses).toEqual([50, 100, 200, 400, 400, 400]);
  await clock.advance(400);
  deliveries.find(({ range }) => range === A)!.done();
  await clock.advance(0);
  expect(deliveries.filter(({ range }) => range === A)).toHaveLength(1 + LIMITS.window);
});

it("tries a poisoned row for ever without keeping the others back", async () => {
  outbox.add(rows(1, 10, A));
  for (let n = 0; n < 200; n++) {
    for (const { transaction, done, fail } of deliveries.splice(0)) transaction === "t1" ? fail() : done();
    await clock.advance(50);
  }
  expect(acknowledged.flat().sort((a, b) => a - b)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

it("says again what could not be acknowledged", async () => {
  refuse = 2;
  outbox.add(rows(1, 2, A));
  await clock.advance(0);
  deliveries[0]!.done();
  await clock.advance(10);
  deliveries[1]!.done();
  await clock.advance(199);
  expect(acknowledged).toEqual([]);
  await clock.advance(201);
  expect(acknowledged.flat().sort()).toEqual([1, 2]);
});

it("does not say again what could not be acknowledged before it was stopped", async () => {
  let refused!: () => void;
  let times = 0;
  outbox = new Outbox({
    clock,
    limits: LIMITS,
    resolve: async () => undefined,
    acknowledge: () => {
      times++;
      return new Promise((_, reject) => {
        refused = () => reject(new RouteError("not the leader", undefined));
      });
    },
  });
  outbox.add(rows(1, 1, A));
  await clock.advance(LIMITS.gatherMs);
  outbox.stop();
  refused();
  await clock.advance(10_000);
  expect(times).toBe(1);
});

it("begins nothing and hears nothing once stopped", async () => {
  outbox.add([...rows(1, 4, A), ...rows(5, 5, B)]);
  await clock.advance(0);
  const [first, second] = deliveries;
  deliveries.find(({ range }) => range === B)!.fail();
  first!.done();
  await clock.advance(5);
  const before = deliveries.length;
  outbox.stop();
  second!.done();
  outbox.add(rows(6, 9, A));
  await clock.advance(10_000);
  expect(deliveries).toHaveLength(before);
  expect(acknowledged).toEqual([]);
});
