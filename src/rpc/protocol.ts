/**
 * The client protocol: a bidirectional stream of frames; a frame is a msgpack array of messages, all that one turn of
 * the event loop gathered. Messages are positional arrays whose first element is the op. Requests carry an id chosen
 * by the client; every answer starts with that id. Unknown ops and malformed messages answer an error and leave the
 * stream usable; oversized frames and bytes that are no frame end the stream with a status that says why.
 *
 * Values travel as src/base/values.ts vectors. Errors as WireError. Versions are checked by the first message.
 */

export const PROTOCOL_VERSION = 1;
/** Hard limit of a frame either way, above the largest statement. */
export const MAX_FRAME_BYTES = 32 * 1024 * 1024;

export const ClientOp = {
  /** [op, version] — first message of a stream. Answer: Welcome, with id 0. */
  Hello: 1,
  /** [op, id, session, counts?] — the client chooses `session` (> 0), unique in its stream. Session 0 is the autocommit pool. counts: those that its last Summary had at the node where the session was before; may be left out. */
  OpenSession: 2,
  /** [op, id, session] — open transactions roll back. No answer awaited but given. */
  CloseSession: 3,
  /** [op, id, session, sql, params, key, timeoutMs, want, retry?] — params: Uint8Array vector, or [names, vector] when named (names in the vector's order). key: [client, sequence, lowestUnanswered, issuedMs, sentUnder?] or null. want: credits (chunks) for rows, 0: all rows in as many chunks as they take. retry, with BEGIN only: [attempt, ageMs]; may be left out. */
  Execute: 4,
  /** [op, id, session, [[sql, params], …], key, timeoutMs] — all or nothing. Answers Batch. */
  Batch: 5,
  /** [op, id, credits] — more chunks for the cursor opened by request `id`. */
  Fetch: 6,
  /** [op, id] — stop request `id` whatever it is doing; it answers with OSTRAKA_TIMEOUT/interrupted or what it had become. */
  Cancel: 7,
  /** [op, id, transactionId] → Json "committed" | "aborted" | "unknown". */
  Outcome: 8,
  /** [op, id, verb, args] — operations (node list, check, …); args and answer are plain objects. */
  Admin: 9,
  /** [op, id] — the reader of cursor `id` has had enough; nothing more is sent for it, and nothing answers this. */
  CloseCursor: 10,
} as const;

export const ServerOp = {
  /** [op, id, version, clusterId, nodeId, sqliteVersion, wallMs, schemaVersion | null] — the node's clock, and the schema that it knows. */
  Welcome: 1,
  /** [op, id, columns, columnTypes, rows | null, rowCount, more, summary | null] — head of a result; `more`: chunks follow. */
  Result: 2,
  /** [op, id, rows, rowCount, more, summary | null] */
  Rows: 3,
  /** [op, id, wireError, state] */
  Error: 4,
  /** [op, id, [[columns, columnTypes, rows, rowCount, summary], …]] */
  Batch: 5,
  /** [op, id, value] */
  Json: 6,
  /** [op, id] */
  Done: 7,
  /** [op, 0, nodeId] — answers nothing: most of what this stream writes is passed on to that node, which leads it; new work is better asked there. */
  Prefer: 8,
  /** [op, 0, wallMs, schemaVersion | null] — answers nothing: the last two of Welcome as they are now, whenever the schema has changed, and now and then. */
  Present: 9,
} as const;

/**
 * What a finished statement leaves behind: [changes, totalChanges, lastInsertRowid, state]. Where a transaction is open
 * and its id is known, that follows. lastInsertRowid is the session's, so it says nothing when `changes` is 0. Of a
 * session that has changed something, what its counting functions answer comes last.
 */
export type Summary = [
  changes: number,
  totalChanges: number,
  lastInsertRowid: bigint | number,
  state: SessionState,
  transactionId?: string | null,
  counts?: WireCounts,
];

/** What changes(), total_changes() and last_insert_rowid() answer. */
export type WireCounts = readonly [changes: number, totalChanges: number, lastInsertRowid: bigint | number];

/** Whether a transaction is open in the session: "idle", "open", or "failed" (only ROLLBACK passes). */
export type SessionState = 0 | 1 | 2;

/**
 * issuedMs: by the clock of the node that said welcome. sentUnder: only when it is sent again, the version of the schema
 * that was told last when it was first sent.
 */
export type WireKey = [
  client: string,
  sequence: number,
  lowestUnanswered: number,
  issuedMs: number,
  sentUnder?: number,
];
