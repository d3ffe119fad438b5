import { expect, test } from "vitest";
import { Pool, type PooledCall } from "../../../src/driver/pool.js";
import type { PipeHandler } from "../../../src/rpc/pipe.js";
import { PROTOCOL_VERSION, ServerOp } from "../../../src/rpc/protocol.js";
import { systemClock, systemRandom } from "../../../src/rpc/system.js";
import { packMessages } from "../../../src/rpc/wire.js";

function makeCall(): PooledCall {
  return {
    id: 0,
    place: -1,
    bytes: 0,
    deadlineMs: 0,
    message: () => [],
    receive: () => true,
    lost: () => undefined,
    expire: () => true,
    abandon: () => undefined,
  };
}

test("while no host answers, calls that gave up are not kept", async () => {
  let handler: PipeHandler | undefined;
  const pool = new Pool({
    hosts: ["nobody:1"],
    dial: () => (given) => {
      handler = given;
      return { write: () => true, pause: () => undefined, resume: () => undefined, end: () => undefined };
    },
    clock: systemClock,
    random: systemRandom,
  });
  const taken: string[] = [];
  const [gone, patient] = [makeCall(), { ...makeCall(), deadlineMs: Number.POSITIVE_INFINITY }];
  for (const [name, call] of [
    ["gone", gone],
    ["patient", patient],
  ] as const) {
    pool.begin(call);
    pool.withLink(call, () => taken.push(name));
  }
  await expect.poll(() => gone.place).toBe(-1);
  await new Promise((resolve) => setTimeout(resolve, 100));
  handler!.onFrame(packMessages([[ServerOp.Welcome, 0, PROTOCOL_VERSION, "cluster", 1, "3"]]));
  expect(taken).toEqual(["patient"]);
  pool.close();
});

test("keys are issued by the nodes' clock", () => {
  let [wallMs, monotonicMs] = [5_000_000, 0];
  let handler: PipeHandler | undefined;
  const clock = { ...systemClock, wallMs: () => wallMs, monotonicMs: () => monotonicMs };
  const pool = new Pool({
    hosts: ["nobody:1"],
    dial: () => (given) => {
      handler = given;
      return { write: () => true, pause: () => undefined, resume: () => undefined, end: () => undefined };
    },
    clock,
    random: systemRandom,
  });
  expect(pool.issueMs()).toBe(5_000_000);
  const call = { ...makeCall(), deadlineMs: Number.POSITIVE_INFINITY };
  pool.begin(call);
  pool.withLink(call, () => undefined);
  handler!.onFrame(packMessages([[ServerOp.Welcome, 0, PROTOCOL_VERSION, "cluster", 1, "3", 1_000, 4]]));
  expect([pool.issueMs(), pool.current?.schemaVersion]).toEqual([1_000, 4]);
  // This machine's clock is set, the node's goes on.
  [wallMs, monotonicMs] = [9_000_000, 250.5];
  expect(pool.issueMs()).toBe(1_250);
  handler!.onFrame(packMessages([[ServerOp.Present, 0, 2_000, 5]]));
  expect([pool.issueMs(), pool.current?.schemaVersion]).toEqual([2_000, 5]);
  expect(pool.key(3, 2_000)).toEqual([pool.clientName, 3, 3, 2_000]);
  expect(pool.key(3, 2_000, 4)).toEqual([pool.clientName, 3, 3, 2_000, 4]);
  pool.close();
});

test.each([
  [
    "No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ",
    "connect ECONNREFUSED 127.0.0.1:1",
  ],
  [
    "No connection established. Last error: Error: 809C63C6A17F0000:error:0A00010B:SSL routines:ssl3_get_record:" +
      "wrong version number:../deps/openssl/openssl/ssl/record/ssl3_record.c:350:\n. Resolution note: ",
    "the port does not speak TLS",
  ],
  ["Name resolution failed for target dns:nosuch:1", "Name resolution failed for target dns:nosuch:1"],
  ["two\n lines\n", "two lines"],
])("why there is no connection is told in one line: %j", (reason, told) => {
  const pool = new Pool({
    hosts: ["nobody:1"],
    dial: () => (handler) => {
      queueMicrotask(() => handler.onClose(reason));
      return { write: () => true, pause: () => undefined, resume: () => undefined, end: () => undefined };
    },
    clock: systemClock,
    random: systemRandom,
  });
  const call = { ...makeCall(), deadlineMs: Number.POSITIVE_INFINITY };
  pool.begin(call);
  pool.withLink(call, () => undefined);
  return expect
    .poll(() => pool.lastFailure)
    .toBe(`nobody:1: ${told}`)
    .finally(() => pool.close());
});
