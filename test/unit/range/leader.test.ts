/** What a leader promises of transactions: where they begin, and that they end with its term. */
import { expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import {
  FIRST_RANGE_GROUP,
  type LogIndex,
  logIndex,
  nodeId,
  term,
  transactionId,
} from "../../../src/base/ids.js";
import type { RangeState, RangeStore } from "../../../src/machines/range/types.js";
import type { GroupHandle, GroupStatus } from "../../../src/multiraft/types.js";
import { DEFAULT_LEADER_LIMITS, RangeLeader } from "../../../src/range/leader.js";
import type { Schema } from "../../../src/range/schema.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const WHOLE: RangeState = {
  descriptor: { range: FIRST_RANGE_GROUP, start: "", end: "", generation: 1 },
  frozenInto: undefined,
  untrimmed: false,
  absorbed: [],
  absorbedAt: logIndex(0),
  rightNeighbour: undefined,
};

it("begins no transaction before what has left the line and is remembered by nobody", async () => {
  let applied = logIndex(5);
  const status = { leader: nodeId(1), role: "leader", term: term(3), leaderReady: true } as GroupStatus;
  const handle = {
    group: FIRST_RANGE_GROUP,
    status: () => status,
    onChange: () => () => undefined,
    // One batch brought the read's index and two writes after it.
    readIndex: async (): Promise<LogIndex> => {
      applied = logIndex(7);
      return logIndex(5);
    },
  } as unknown as GroupHandle;
  const store = {
    appliedIndex: () => applied,
    lastWallMs: () => 0,
    state: () => WHOLE,
    onState: () => undefined,
    prepared: async () => [],
  } as unknown as RangeStore;
  const leader = new RangeLeader({
    handle,
    store,
    schema: {} as Schema,
    clock: new ManualClock(),
    random: new SeededRandom(1),
    limits: DEFAULT_LEADER_LIMITS,
    inquire: () => Promise.reject(new Error("nobody asks")),
  });
  await settle();
  const point = await leader.begin(transactionId("t"), { reserve: undefined, age: 0 });
  expect(point).toMatchObject({ index: 7, term: 3 });
});

it("asks again for what is prepared where the disk did not say", async () => {
  const status = { leader: nodeId(1), role: "leader", term: term(3), leaderReady: true } as GroupStatus;
  const handle = {
    group: FIRST_RANGE_GROUP,
    status: () => status,
    onChange: () => () => undefined,
    readIndex: async (): Promise<LogIndex> => logIndex(5),
  } as unknown as GroupHandle;
  let full = true;
  const store = {
    appliedIndex: () => logIndex(5),
    lastWallMs: () => 0,
    state: () => WHOLE,
    onState: () => undefined,
    prepared: async () => {
      if (full) throw new FatalError("OSTRAKA_DISK_FULL", "database or disk is full");
      return [];
    },
  } as unknown as RangeStore;
  const clock = new ManualClock();
  const leader = new RangeLeader({
    handle,
    store,
    schema: {} as Schema,
    clock,
    random: new SeededRandom(1),
    limits: DEFAULT_LEADER_LIMITS,
    inquire: () => Promise.reject(new Error("nobody asks")),
  });
  await settle();
  await clock.advance(2_000);
  await expect(leader.readPoint()).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
  full = false;
  await clock.advance(2_000);
  expect(await leader.readPoint()).toMatchObject({ index: 5, term: 3 });
});

it("forgets every transaction when it leads again in another term, even if nobody saw it follow", async () => {
  let status = { leader: nodeId(1), role: "leader", term: term(3), leaderReady: true } as GroupStatus;
  let tell: ((status: GroupStatus) => void) | undefined;
  const handle = {
    group: FIRST_RANGE_GROUP,
    status: () => status,
    onChange: (listener: (status: GroupStatus) => void) => {
      tell = listener;
    },
    readIndex: async (): Promise<LogIndex> => logIndex(5),
  } as unknown as GroupHandle;
  const store = {
    appliedIndex: () => logIndex(5),
    lastWallMs: () => 0,
    forget: () => undefined,
    prepared: async () => [],
    state: () => WHOLE,
    onState: () => undefined,
  } as unknown as RangeStore;
  const leader = new RangeLeader({
    handle,
    store,
    schema: {} as Schema,
    clock: new ManualClock(),
    random: new SeededRandom(1),
    limits: DEFAULT_LEADER_LIMITS,
    inquire: () => Promise.reject(new Error("nobody is asked")),
  });
  const key = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 0 };
  const kept = transactionId("kept");
  await prepared();
  await leader.begin(kept, { reserve: undefined, age: 0 });
  expect(await leader.commit(kept, key, [])).toMatchObject({ ok: true });
  const lost = transactionId("lost");
  await leader.begin(lost, { reserve: undefined, age: 0 });
  // What others wrote in the terms between is in nobody's memory here.
  status = { ...status, term: term(5) };
  tell!(status);
  await prepared();
  expect(await leader.commit(lost, key, [])).toMatchObject({
    ok: false,
    error: expect.arrayContaining(["OSTRAKA_RETRY"]),
  });
  const fresh = transactionId("new");
  expect(await leader.begin(fresh, { reserve: undefined, age: 0 })).toMatchObject({ term: 5 });
  // It comes from the leader before, where a statement has run: what that has read is in nobody's memory either.
  expect(await leader.commit(fresh, key, [], 1)).toMatchObject({
    ok: false,
    error: expect.arrayContaining(["OSTRAKA_RETRY"]),
  });
  expect(await leader.commit(fresh, key, [])).toMatchObject({ ok: true });
});

/** A leader serves once it knows what is prepared in its range. */
function prepared(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
