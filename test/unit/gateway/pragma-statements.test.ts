/** Pragmas that are replicated, as writes whose outcome may be asked for. */
import { expect, it } from "vitest";
import { AmbiguousError, toWireError } from "../../../src/base/errors.js";
import { executePragma } from "../../../src/gateway/pragma-statements.js";
import { SessionSettings } from "../../../src/gateway/settings.js";

const KEY = { client: "c", sequence: 7, lowestUnanswered: 7, issuedMs: 36 };
const PRAGMA = { kind: "pragma", name: "user_version", argument: "5" };

type Args = Parameters<typeof executePragma>;

it.each([
  ["by the log", async () => ({ ok: false, error: toWireError(new AmbiguousError("lost", "c-9")) })],
  ["by nobody", () => Promise.reject(new AmbiguousError("lost", "c-9"))],
])("names a write whose outcome is not told %s by its key, with its time", async (_, setPragma) => {
  let named: unknown;
  const db = {
    first: { range: 1 },
    client: () => ({ setPragma }),
    persist: (_deadline: unknown, attempt: () => Promise<unknown>, doubt: { transaction: string }) => {
      named = doubt.transaction;
      return attempt();
    },
  };
  const request = { sql: "", params: [], key: KEY, timeoutMs: undefined, signal: undefined };
  const settings = new SessionSettings();
  const [session, context, pragma, deadline] = [{ settings }, { db }, PRAGMA, {}] as unknown as [
    Args[0],
    Args[1],
    Args[3],
    Args[5],
  ];
  const running = executePragma(session, context, "PRAGMA user_version = 5", pragma, request, deadline);
  await expect(running).rejects.toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME", transactionId: "c:7@10" });
  expect(named).toBe("c:7@10");
});
