import { expect, it } from "vitest";
import { AmbiguousError, RetryError, UserError } from "../../../src/base/errors.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { ManualClock } from "../../sim/manual-clock.js";

/** What a write comes to whose attempts fail so, one after the other. */
async function after(...failures: Error[]): Promise<unknown> {
  const clock = new ManualClock();
  const deadline = new Deadline(clock, undefined, 10_000, { signal: undefined });
  const inDoubt = { transaction: "t", repeatable: true };
  const persisted = deadline
    .persist(async (tries) => {
      if (failures[tries] !== undefined) throw failures[tries];
      return "done";
    }, inDoubt)
    .catch((error: unknown) => error);
  await clock.advance(5_000);
  return persisted;
}

const lost = new AmbiguousError("the leader was lost", undefined);
const unavailable = new RetryError("OSTRAKA_UNAVAILABLE", "no leader is known");
const race = new RetryError("OSTRAKA_RETRY", "another transaction was first");
const refused = new UserError("SQLITE_CONSTRAINT", "no");

it("tries again what may pass, also where an attempt may have been applied", async () => {
  expect(await after(unavailable, lost, unavailable)).toBe("done");
});

it("tells of a lost race only where no attempt before it may have been applied", async () => {
  expect(await after(unavailable, race)).toBe(race);
  expect(await after(lost, unavailable, race)).toMatchObject({
    code: "OSTRAKA_UNKNOWN_OUTCOME",
    transactionId: "t",
  });
  // The statement's own error is an answer: whoever asks makes sure that no attempt was committed.
  expect(await after(lost, refused)).toBe(refused);
});
