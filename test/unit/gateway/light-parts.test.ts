import { expect, it } from "vitest";
import { groupId, transactionId } from "../../../src/base/ids.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { LightParts } from "../../../src/gateway/light-parts.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import { ManualClock } from "../../sim/manual-clock.js";

it("loses the transaction where a statement is cancelled that has run already", async () => {
  const leader = {
    run: async () => ({ kind: "ran", outcome: NO_OUTCOME, stamped: undefined, rolledBack: false }),
    recheck: () => new Promise(() => undefined),
  };
  const db = {
    client: () => leader,
    persist: (deadline: Deadline, attempt: () => Promise<unknown>) => deadline.persist(attempt),
  } as unknown as GatewayDatabase;
  const parts = new LightParts(db, transactionId("t@1"));
  const cancel = new AbortController();
  const deadline = new Deadline(new ManualClock(), undefined, 1_000, cancel);
  const statement = { statement: { sql: "", params: [] }, flags: 0, lastInsertRowid: 0n } as never;
  for (const range of [groupId(3), groupId(4)]) await parts.run(range, statement, deadline, true);
  // Somebody listens to the client: it was tried before, perhaps.
  void deadline.signal;
  const asked = parts.recheck(groupId(4), deadline);
  cancel.abort();
  await expect(asked).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
});
