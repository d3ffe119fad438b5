/**
 * The one error class users of the driver see. `code` is the whole contract: SQLite's codes with SQLite's messages,
 * or one of the OSTRAKA_ codes (README, "Errors").
 */
import type { WireError } from "../base/errors.js";

export class OstrakaError extends Error {
  /** With OSTRAKA_UNKNOWN_OUTCOME: what to ask `db.outcome` about. With OSTRAKA_RETRY: what was surely not committed. */
  readonly transactionId: string | undefined;

  constructor(
    /** "SQLITE_CONSTRAINT_UNIQUE", "OSTRAKA_RETRY", ... */
    readonly code: string,
    message: string,
    options?: ErrorOptions & { readonly transactionId?: string | undefined },
  ) {
    super(message, options);
    this.name = "OstrakaError";
    this.transactionId = options?.transactionId;
  }
}

export function errorFromWire([family, code, message, extra]: WireError): OstrakaError {
  const named = (family === "ambiguous" || family === "retry") && typeof extra === "string";
  const transactionId = named ? extra : undefined;
  return new OstrakaError(code, message, { transactionId });
}

export function unavailable(message: string, cause?: unknown): OstrakaError {
  return new OstrakaError("OSTRAKA_UNAVAILABLE", message, { cause });
}

export function timedOut(message: string): OstrakaError {
  return new OstrakaError("OSTRAKA_TIMEOUT", message);
}

export function unknownOutcome(message: string, transactionId: string): OstrakaError {
  return new OstrakaError("OSTRAKA_UNKNOWN_OUTCOME", message, { transactionId });
}

export function isUnknownOutcome(error: unknown): boolean {
  return error instanceof OstrakaError && error.code === "OSTRAKA_UNKNOWN_OUTCOME";
}
