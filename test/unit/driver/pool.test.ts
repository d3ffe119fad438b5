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
