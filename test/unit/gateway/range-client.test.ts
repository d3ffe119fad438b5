/**
 * The leader as other nodes see it. Calls to one that was replaced: answered by it within a grace, or given up for the
 * caller to try again. Read points: shared by those who asked before a round began, and by nobody else.
 */
import { beforeEach, expect, it } from "vitest";
import { AmbiguousError, RouteError } from "../../../src/base/errors.js";
import { FIRST_RANGE_GROUP, groupId, type NodeId, nodeId } from "../../../src/base/ids.js";
import { RangeClient } from "../../../src/gateway/range-client.js";
import type { GroupHandle, GroupStatus } from "../../../src/multiraft/types.js";
import type { RangeService, ReadPoint, WriteRequest } from "../../../src/range/types.js";
import { ManualClock } from "../../sim/manual-clock.js";

const GRACE_MS = 500;

let clock: ManualClock;
let client: RangeClient;
let leader: NodeId;
let listeners: ((status: GroupStatus) => void)[];
/** Answers outstanding, by the node asked. */
let asked: { readonly node: number; answer(point: ReadPoint): void }[];

beforeEach(() => {
  clock = new ManualClock();
  listeners = [];
  asked = [];
  leader = nodeId(2);
  const handle = {
    get leader() {
      return leader;
    },
    onChange: (listener: (status: GroupStatus) => void) => listeners.push(listener),
  } as unknown as GroupHandle;
  const remote = (node: NodeId) =>
    ({
      readPoint: () => new Promise<ReadPoint>((answer) => asked.push({ node, answer })),
    }) as unknown as RangeService;
  client = new RangeClient({
    range: FIRST_RANGE_GROUP,
    self: nodeId(1),
    clock,
    graceMs: GRACE_MS,
    hosted: { handle, service: { group: 3 } as unknown as RangeService },
    candidates: () => [],
    remote,
  });
});

function lead(node: number): void {
  leader = nodeId(node);
  for (const listener of listeners) listener({ leader } as GroupStatus);
}

async function settledBy<T>(promise: Promise<T>): Promise<T | Error | "waiting"> {
  const outcome = promise.catch((error: Error) => error);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return Promise.race([outcome, Promise.resolve("waiting" as const)]);
}

it("gives up a call to a leader that hangs, a grace after another one is known", async () => {
  const point = client.readPoint();
  point.catch(() => undefined);
  await settledBy(point);
  expect(asked.map(({ node }) => node)).toEqual([2]);
  lead(0);
  await clock.advance(10 * GRACE_MS);
  expect(await settledBy(point)).toBe("waiting");
  lead(3);
  await clock.advance(GRACE_MS - 1);
  expect(await settledBy(point)).toBe("waiting");
  await clock.advance(1);
  expect(await settledBy(point)).toBeInstanceOf(AmbiguousError);
  void client.readPoint().catch(() => undefined);
  await settledBy(point);
  expect(asked.map(({ node }) => node)).toEqual([2, 3]);
});

it("takes the answer of a replaced leader that is alive", async () => {
  const point = client.readPoint();
  await settledBy(point);
  lead(3);
  asked[0]!.answer({ index: 7 } as unknown as ReadPoint);
  expect(await settledBy(point)).toEqual({ index: 7 });
  await clock.advance(GRACE_MS);
});

it("finds the leader from a node without a replica, and goes straight to one that comes", async () => {
  const calls: string[] = [];
  const service = (node: number | "here", leads: boolean) =>
    ({
      readPoint: async () => {
        calls.push(`readPoint ${node}`);
        if (!leads) throw new RouteError("not the leader", undefined);
        return { index: 9 } as unknown as ReadPoint;
      },
      write: async () => {
        calls.push(`write ${node}`);
        return { ok: "move" };
      },
    }) as unknown as RangeService;
  const apart = new RangeClient({
    range: groupId(12),
    self: nodeId(4),
    clock,
    graceMs: GRACE_MS,
    hosted: undefined,
    candidates: () => [nodeId(1), nodeId(2)],
    remote: (node) => service(node, node === 2),
  });
  expect(apart.group).toBe(12);
  expect(await apart.readPoint()).toEqual({ index: 9 });
  await apart.write({} as WriteRequest);
  const handle = { leader: nodeId(4), onChange: () => () => undefined } as unknown as GroupHandle;
  apart.attach({ handle, service: service("here", true) });
  await apart.write({} as WriteRequest);
  await apart.readPoint();
  apart.detach();
  await apart.write({} as WriteRequest);
  expect(calls).toEqual(["readPoint 1", "readPoint 2", "write 2", "write here", "readPoint here", "write 2"]);
});

it("leaves calls to the new leader alone", async () => {
  leader = nodeId(3);
  const point = client.readPoint();
  point.catch(() => undefined);
  await settledBy(point);
  lead(3);
  await clock.advance(2 * GRACE_MS);
  expect(await settledBy(point)).toBe("waiting");
});

it("shares a round of read points with those who asked before it began, and with nobody later", async () => {
  const before = [client.readPoint(), client.readPoint()];
  await settledBy(before[0]!);
  expect(asked.length).toBe(1);
  // The round is under way: what is written from now on need not be in its answer.
  const later = [client.readPoint(), client.readPoint()];
  for (const point of later) expect(await settledBy(point)).toBe("waiting");
  expect(asked.length).toBe(1);
  asked[0]!.answer({ index: 7 } as unknown as ReadPoint);
  for (const point of before) expect(await settledBy(point)).toEqual({ index: 7 });
  for (const point of later) expect(await settledBy(point)).toBe("waiting");
  expect(asked.length).toBe(2);
  asked[1]!.answer({ index: 9 } as unknown as ReadPoint);
  for (const point of later) expect(await settledBy(point)).toEqual({ index: 9 });
});
