/** How commands fail at apply: deterministically, as a result; or because of this node, as an exception. */
import {
  AmbiguousError,
  FatalError,
  OstrakaError,
  RetryError,
  RouteError,
  toWireError,
  UserError,
} from "../../base/errors.js";
import type { TransactionId } from "../../base/ids.js";
import { classifySqliteError, isOutOfMemory } from "./sqlite-errors.js";
import type { Command, CommandResult } from "./types.js";

/** The statement cannot run in this range alone: the gateway takes the way over several ranges. */
export class MoveError extends OstrakaError {
  readonly family = "route";
  constructor(message: string) {
    super("OSTRAKA_MOVE", message);
  }
}

/** Which statement of a command failed, on its way out of the savepoint. */
export class StatementFailed extends Error {
  override readonly cause: OstrakaError;
  constructor(
    cause: OstrakaError,
    readonly statement: number,
  ) {
    super(cause.message);
    this.cause = cause;
  }
}

/** Passes on the statement's own error; rethrows what is this node's trouble. */
export function userError(error: unknown): OstrakaError {
  const classified = classifySqliteError(error);
  if (isOutOfMemory(classified)) throw new FatalError("SQLITE_NOMEM", classified.message, { cause: error });
  if (classified instanceof UserError || classified instanceof RetryError) return classified;
  if (classified instanceof RouteError || classified instanceof MoveError) return classified;
  if (classified instanceof FatalError) throw classified;
  throw new FatalError("OSTRAKA_INTERNAL", classified.message, { cause: error });
}

export function failure(error: OstrakaError, statement = 0): CommandResult {
  return { ok: false, error: toWireError(error), statement };
}

/** Of a write that is part of a transaction across ranges which is not decided yet. */
export function inDoubt(transaction: TransactionId): CommandResult {
  return failure(new AmbiguousError("the write is part of a transaction that is being decided", transaction));
}

/** `write`: an autocommit write that no attempt gets past this, since it is what is answered under its key. */
export function givenUp(what: string, write?: TransactionId): CommandResult {
  const message = `${what} was given up before it arrived`;
  return failure(new RetryError("OSTRAKA_RETRY", message, { givenUp: write }));
}

/** Another row has the key, or a value that only one may have. */
export function isDuplicate(error: unknown): boolean {
  return /^SQLITE_CONSTRAINT_(UNIQUE|PRIMARYKEY|ROWID)$/.test(String((error as { code?: unknown }).code));
}

/**
 * Where to go instead is no answer to remember: the command may come again when it is right here. Nor is that a write lost
 * a race: whoever runs it again does so under the same key. A tombstone's refusal is what the write is to meet.
 */
export function isPassing({ kind }: Command, result: CommandResult): boolean {
  if (result.ok) return false;
  const [family, code] = result.error;
  return family === "route" || (code === "OSTRAKA_RETRY" && kind !== "tombstone");
}
