/**
 * How commands end. Exit codes are psql's: 0 done, 1 wrong usage or a failure of the command, 2 no connection,
 * 3 a statement failed while errors stop the script.
 */
import { OstrakaError as BaseError } from "../base/errors.js";
import { OstrakaError } from "../driver/errors.js";
import { printableKeepingLayout } from "./format/width.js";

export const EXIT = { ok: 0, failure: 1, noConnection: 2, statementFailed: 3 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Ends the command with this code. An empty message says that what there was to say has been said. */
export class CommandFailure extends Error {
  constructor(
    readonly exitCode: ExitCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "CommandFailure";
  }
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof OstrakaError || error instanceof BaseError ? error.code : undefined;
}

/** `message (CODE)`, safe to show on a terminal: messages quote data. */
export function describeError(error: unknown): string {
  const code = errorCode(error);
  const message = error instanceof Error ? error.message : String(error);
  return printableKeepingLayout(code === undefined ? message : `${message} (${code})`);
}

/** Commands of later versions say so, rather than doing half of it. */
export function notInThisVersion(what: string): CommandFailure {
  return new CommandFailure(EXIT.failure, `${what} is not in this version (OSTRAKA_UNSUPPORTED)`);
}
