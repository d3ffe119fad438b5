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

/** What an attempt comes to that begins anew after failures, on a deadline of 1,000 ms. */
async function stoppedWith(attempt: () => Promise<never>): Promise<unknown> {
  const clock = new ManualClock();
  const deadline = new Deadline(clock, 1_000, 10_000, { signal: undefined });
  const inner = () => deadline.persist(attempt);
  const persisted = deadline.persist(inner).catch((error: unknown) => error);
  await clock.advance(2_000);
  return persisted;
}

it("tells a lack of a quorum from slowness when the time is up", async () => {
  const lacking = await stoppedWith(() => Promise.reject(unavailable));
  expect(lacking).toMatchObject({
    code: "OSTRAKA_UNAVAILABLE",
    message: "no quorum answered within 1000 ms: no leader is known",
  });
  let first = true;
  const slow = await stoppedWith(() => {
    if (!first) return new Promise<never>(() => undefined);
    first = false;
    return Promise.reject(unavailable);
  });
  expect(slow).toMatchObject({ code: "OSTRAKA_TIMEOUT", message: "the statement was stopped after 1000 ms" });
});

it("is not in doubt about a write when it is stopped while it learns where to send it", async () => {
  const clock = new ManualClock();
  const deadline = new Deadline(clock, 1_000, 10_000, { signal: undefined });
  const inDoubt = { transaction: "t", repeatable: true };
  const learning: unknown[] = [];
  const persisted = deadline
    .persist(
      () => Promise.reject(unavailable),
      inDoubt,
      undefined,
      (tries, failure) => {
        learning.push(failure);
        return tries < 3 ? undefined : new Promise(() => undefined);
      },
    )
    .catch((error: unknown) => error);
  await clock.advance(2_000);
  expect(await persisted).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  expect(learning).toEqual([undefined, unavailable, unavailable, unavailable]);
  const asked = new Deadline(clock, 1_000, 10_000, { signal: undefined });
  const sent = asked.persist(() => new Promise(() => undefined), inDoubt).catch((error: unknown) => error);
  await clock.advance(2_000);
  expect(await sent).toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME", transactionId: "t" });
});
