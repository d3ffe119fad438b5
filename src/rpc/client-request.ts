/**
 * Reads and checks the client's messages: whatever bytes arrive, the outcome is a well-formed request or an error
 * that says what was wrong with it.
 */
import { UserError } from "../base/errors.js";
import { type SqlValue, ValueReader } from "../base/values.js";
import type { IdempotencyKey } from "../machines/range/types.js";
import type { ExecuteRequest, Params, SessionCounts } from "./gateway.js";

const MAX_CLIENT_NAME = 64;

export function protocolError(message: string): UserError {
  return new UserError("OSTRAKA_PROTOCOL", message);
}

export function readId(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw protocolError(`${what} must be a whole number`);
  return value;
}

export function readString(value: unknown, what: string): string {
  if (typeof value !== "string") throw protocolError(`${what} must be a string`);
  return value;
}

function readVector(bytes: unknown): SqlValue[] {
  if (!(bytes instanceof Uint8Array)) throw protocolError("parameters must be bytes");
  try {
    const reader = new ValueReader(bytes);
    const values = reader.vector();
    if (!reader.done) throw new RangeError("there are bytes after the last value");
    return values;
  } catch (error) {
    throw protocolError(`parameters: ${error instanceof Error ? error.message : String(error)}`);
  }
}

const NO_PARAMS: readonly SqlValue[] = [];

export function readParams(value: unknown): Params {
  if (value === null) return NO_PARAMS;
  if (!Array.isArray(value)) return readVector(value);
  const [names, vector] = value as unknown[];
  const values = readVector(vector);
  if (!Array.isArray(names) || names.length !== values.length)
    throw protocolError("named parameters need one name for each value");
  const params = new Map<string, SqlValue>();
  for (let i = 0; i < names.length; i++) params.set(readString(names[i], "a parameter's name"), values[i]!);
  return params;
}

export function readKey(value: unknown): IdempotencyKey | undefined {
  if (value === null || value === undefined) return undefined;
  if (!Array.isArray(value)) throw protocolError("an idempotency key must be an array");
  const [client, sequence, lowestUnanswered, issuedMs] = value as unknown[];
  const name = readString(client, "the client's name");
  if (name.length === 0 || name.length > MAX_CLIENT_NAME)
    throw protocolError("the client's name must have 1 to 64 characters");
  return {
    client: name,
    sequence: readId(sequence, "the sequence"),
    lowestUnanswered: readId(lowestUnanswered, "the lowest unanswered sequence"),
    issuedMs: readId(issuedMs, "the time of issue"),
  };
}

/** The last part of a key that was sent before. */
export function readSentUnder(key: unknown): number | undefined {
  const version = Array.isArray(key) ? (key as unknown[])[4] : undefined;
  return version === undefined ? undefined : readId(version, "the version of the schema");
}

export function readTimeout(value: unknown): number | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "number" || !(value >= 0)) throw protocolError("the timeout must be milliseconds");
  return value;
}

/** What a session that was elsewhere before goes on counting from. */
export function readCounts(value: unknown): SessionCounts | undefined {
  if (value === null || value === undefined) return undefined;
  if (!Array.isArray(value)) throw protocolError("counts must be [changes, totalChanges, lastInsertRowid]");
  const [changes, totalChanges, rowid] = value as unknown[];
  if (typeof rowid !== "bigint" && !Number.isSafeInteger(rowid))
    throw protocolError("the last rowid must be a whole number");
  const lastInsertRowid = BigInt(rowid as bigint | number);
  if (BigInt.asIntN(64, lastInsertRowid) !== lastInsertRowid)
    throw protocolError("the last rowid must fit 64 bits");
  return {
    changes: readId(changes, "the number of changes"),
    totalChanges: readId(totalChanges, "the number of all changes"),
    lastInsertRowid,
  };
}

export function readRetry(value: unknown): { attempt: number; ageMs: number } | undefined {
  if (value === null || value === undefined) return undefined;
  if (!Array.isArray(value)) throw protocolError("retry must be [attempt, ageMs]");
  return { attempt: readId(value[0], "the attempt"), ageMs: readId(value[1], "the age") };
}

/**
 * A request being served. The abort signal is made only when the gateway looks at it: most requests finish without
 * anybody asking, and an AbortController costs more than all the rest of this object.
 */
export class ServedRequest implements ExecuteRequest {
  #controller: AbortController | undefined;
  #aborted = false;

  constructor(
    readonly id: number,
    /** Counted against the stream's bound. */
    readonly bytes: number,
    readonly sql: string,
    readonly params: Params,
    readonly key: IdempotencyKey | undefined,
    readonly sentUnder: number | undefined,
    readonly timeoutMs: number | undefined,
    readonly retry: { attempt: number; ageMs: number } | undefined,
    readonly vector: Uint8Array | undefined,
  ) {}

  /** For what runs no statement. */
  static plain(id: number, bytes: number): ServedRequest {
    return new ServedRequest(id, bytes, "", NO_PARAMS, undefined, undefined, undefined, undefined, undefined);
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  abort(): void {
    this.#aborted = true;
    this.#controller?.abort();
  }
}
