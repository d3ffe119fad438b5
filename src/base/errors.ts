/**
 * Every error that crosses a module boundary is an OstrakaError with a `code`, of one of five families, decided
 * where the error arises:
 *
 * - UserError: deterministic, the request is wrong (SQLite's codes, OSTRAKA_UNSUPPORTED, OSTRAKA_TOO_LARGE, ...).
 * - RetryError: nothing was committed, try again (OSTRAKA_RETRY, OSTRAKA_UNAVAILABLE, OSTRAKA_TIMEOUT).
 * - RouteError: wrong node or stale descriptor, carries the fresher hint; never reaches a user.
 * - AmbiguousError: the outcome is unknown; carries the transaction id to ask about.
 * - FatalError: I/O, corruption, a broken invariant; the node stops.
 */
import type { NodeId } from "./ids.js";

export type ErrorFamily = "user" | "retry" | "route" | "ambiguous" | "fatal";

export abstract class OstrakaError extends Error {
  abstract readonly family: ErrorFamily;
  constructor(
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "OstrakaError";
  }
}

export class UserError extends OstrakaError {
  readonly family = "user";
}

export type RetryCode = "OSTRAKA_RETRY" | "OSTRAKA_UNAVAILABLE" | "OSTRAKA_TIMEOUT";

export class RetryError extends OstrakaError {
  readonly family = "retry";
  declare readonly code: RetryCode;
  /** The write so named was not applied by any attempt, nor ever will be. */
  readonly givenUp: string | undefined;
  constructor(
    code: RetryCode,
    message: string,
    options?: ErrorOptions & { readonly givenUp?: string | undefined },
  ) {
    super(code, message, options);
    this.givenUp = options?.givenUp;
  }
}

/** The write is over: whoever sent it goes on under a new key. */
export function isGivenUp(error: unknown): error is RetryError {
  return error instanceof RetryError && error.givenUp !== undefined;
}

export class RouteError extends OstrakaError {
  readonly family = "route";
  constructor(
    message: string,
    /** The node believed to lead, if known. */
    readonly leader: NodeId | undefined,
    /** The keys are not in the range that was asked: the descriptors that it knows instead, as JSON. */
    readonly moved?: string | undefined,
  ) {
    super("OSTRAKA_ROUTE", message);
  }
}

export class AmbiguousError extends OstrakaError {
  readonly family = "ambiguous";
  constructor(
    message: string,
    readonly transactionId: string | undefined,
  ) {
    super("OSTRAKA_UNKNOWN_OUTCOME", message);
  }
}

export class FatalError extends OstrakaError {
  readonly family = "fatal";
}

/** What errors look like on the wire: [family, code, message, extra]. */
export type WireError = [family: ErrorFamily, code: string, message: string, extra: string | number | null];

/** Outcomes and errors travel in one place; errors are the arrays. */
export function isWireError(value: unknown): value is WireError {
  return Array.isArray(value);
}

export function toWireError(error: unknown): WireError {
  if (error instanceof AmbiguousError)
    return ["ambiguous", error.code, error.message, error.transactionId ?? null];
  if (error instanceof RouteError)
    return ["route", error.code, error.message, error.moved ?? error.leader ?? null];
  if (error instanceof RetryError) return ["retry", error.code, error.message, error.givenUp ?? null];
  if (error instanceof OstrakaError) return [error.family, error.code, error.message, null];
  return ["fatal", "OSTRAKA_INTERNAL", error instanceof Error ? error.message : String(error), null];
}

export function fromWireError([family, code, message, extra]: WireError): OstrakaError {
  switch (family) {
    case "user":
      return new UserError(code, message);
    case "retry":
      return new RetryError(code as RetryCode, message, {
        givenUp: typeof extra === "string" ? extra : undefined,
      });
    case "route":
      return new RouteError(
        message,
        typeof extra === "number" && extra > 0 ? (extra as NodeId) : undefined,
        typeof extra === "string" ? extra : undefined,
      );
    case "ambiguous":
      return new AmbiguousError(message, typeof extra === "string" ? extra : undefined);
    default:
      return new FatalError(code, message);
  }
}
