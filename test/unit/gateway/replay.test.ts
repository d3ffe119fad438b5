/** What becomes of a transaction while what it has done is done again. */
import { expect, it } from "vitest";
import { toWireError, UserError, type WireError } from "../../../src/base/errors.js";
import { History } from "../../../src/gateway/history.js";
import { replay } from "../../../src/gateway/replay.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import { toldDigest } from "../../../src/machines/range/told.js";
import type { StatementOutcome } from "../../../src/machines/range/types.js";

const CONSTRAINT = new UserError("SQLITE_CONSTRAINT_UNIQUE", "UNIQUE constraint failed: t.v");

function historyOf(told: StatementOutcome | WireError): History {
  const history = new History();
  const stamp = { wallMs: 0, seed: 1, lastInsertRowid: 0n };
  history.wrote({ sql: "update t set v = 1", params: [], flags: 0, stamp, told: toldDigest(told) }, told, 0);
  return history;
}

const failing = (error: Error) => ({ run: () => Promise.reject(error), control: async () => {} });

it("is lost when something comes out otherwise", async () => {
  const lost = replay(historyOf(NO_OUTCOME), failing(CONSTRAINT));
  await expect(lost).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  await replay(historyOf(toWireError(CONSTRAINT)), failing(CONSTRAINT));
});

it("is not lost when that is stopped", async () => {
  const stopped = replay(historyOf(NO_OUTCOME), failing(new UserError("SQLITE_INTERRUPT", "interrupted")));
  await expect(stopped).rejects.toMatchObject({ code: "SQLITE_INTERRUPT" });
});
