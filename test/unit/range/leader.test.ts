/** What a leader promises of a transaction's beginning, whatever is applied between its read point and its opening. */
import { expect, it } from "vitest";
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
