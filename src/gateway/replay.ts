/**
 * Does again what a transaction has done, in a fresh workspace. Everything must come out as the session was told, errors
 * included; else what the transaction has read has changed.
 */
import { RetryError, toWireError, type WireError } from "../base/errors.js";
import { toldDigest } from "../machines/range/told.js";
import type { StampedStatement, StatementOutcome } from "../machines/range/types.js";
import type { History } from "./history.js";
import { isOwnError } from "./pushed-reads.js";

export interface Replayed {
  run(statement: StampedStatement): Promise<StatementOutcome>;
  control(sql: string): Promise<void>;
}

export async function replay(history: History, { run, control }: Replayed): Promise<void> {
  for (const event of history.events) {
    if (event.kind === "savepoint") {
      await control(`SAVEPOINT "${event.name.replaceAll('"', '""')}"`);
      continue;
    }
    const told = await run({ ...event.stamped, told: undefined }).catch(asTold);
    if (toldDigest(told) !== event.stamped.told)
      throw new RetryError("OSTRAKA_RETRY", "what the transaction has read was changed by another one");
  }
}

/** A statement's own error was an answer; that it was stopped here tells nothing of it. */
function asTold(error: unknown): WireError {
  if (isOwnError(error)) return toWireError(error);
  throw error;
}
