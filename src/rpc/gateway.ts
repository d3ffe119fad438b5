/** What the wire (src/rpc), the embedded library and the HTTP port ask of a gateway. */

import type { SqlValue } from "../base/values.js";
import type { IdempotencyKey, RowStream, StatementOutcome } from "../machines/range/types.js";

export type SessionState = "idle" | "open" | "failed";

/** Positional values, or values by name with or without the prefix character. */
export type Params = readonly SqlValue[] | ReadonlyMap<string, SqlValue>;

/** What changes(), total_changes() and last_insert_rowid() answer in a session. */
export interface SessionCounts {
  readonly changes: number;
  readonly totalChanges: number;
  readonly lastInsertRowid: bigint;
}

export interface ExecuteRequest {
  readonly sql: string;
  readonly params: Params;
  /** Positional `params` as they came, encoded; need not be there. */
  readonly vector?: Uint8Array | undefined;
  /** For writes; undefined lets the gateway make one (then a lost answer cannot be asked for again). */
  readonly key: IdempotencyKey | undefined;
  /** Where the write was sent before: the version of the schema that was known when it was first sent. */
  readonly sentUnder?: number | undefined;
  readonly timeoutMs: number | undefined;
  /** May be made on first access, so hold the request, not the signal, where nobody waits for it. */
  readonly signal: AbortSignal | undefined;
  /**
   * With BEGIN, when the caller runs a transaction again that lost before: how often it lost, and how long ago it
   * first began. The older reserves ahead of the younger.
   */
  readonly retry?: { readonly attempt: number; readonly ageMs: number } | undefined;
}

/** Either everything at once (small results, writes), or a stream. */
export type ExecuteResult =
  | { readonly kind: "outcome"; readonly outcome: StatementOutcome }
  | { readonly kind: "stream"; readonly stream: RowStream };

/** One ordered session: calls queue and run one after the other. */
export interface Session {
  /** One statement; more than one, or none, is a UserError. */
  execute(request: ExecuteRequest): Promise<ExecuteResult>;
  batch(
    statements: readonly { readonly sql: string; readonly params: Params }[],
    request: Omit<ExecuteRequest, "sql" | "params">,
  ): Promise<readonly StatementOutcome[]>;
  state(): SessionState;
  /**
   * The open transaction's id, once it has one; the client is told, so that it can ask for the outcome of a COMMIT
   * whose answer was lost. Without one, `client:sequence` of the COMMIT's key names it, as for autocommit writes.
   */
  transactionId?(): string | undefined;
  /** The client keeps them for when the session goes on at another node; undefined of the pool. */
  counts?(): SessionCounts | undefined;
  close(): Promise<void>;
}

export interface Gateway {
  /**
   * Sessions are cheap; `autocommit` refuses BEGIN, TEMP objects and session settings, and runs calls concurrently. `counts`: of
   * a session that was at another node before.
   */
  openSession(kind: "session" | "autocommit", counts?: SessionCounts): Session;
  outcome(transactionId: string): Promise<"committed" | "aborted" | "unknown">;
  /** Operations by name; rejects with UserError for unknown verbs and bad arguments. */
  admin(verb: string, args: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** The version of the schema as far as this node knows; undefined before it knows one. */
  schemaVersion?(): number | undefined;
  /** The node that leads most ranges as far as this one knows; undefined where none stands out, or without ranges. */
  mainLeader?(): number | undefined;
}
