import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";
import { COORDINATOR_GROUP, type LogIndex, logIndex, term, transactionId } from "../../../src/base/ids.js";
import type { SqlValue } from "../../../src/base/values.js";
import { decodeRows } from "../../../src/base/values.js";
import { decodeResults, encodeCommands } from "../../../src/machines/range/command.js";
import type { FileWork } from "../../../src/machines/range/files.js";
import { StoreCore } from "../../../src/machines/range/store-core.js";
import type {
  Command,
  CommandResult,
  PreparedTransaction,
  StampedStatement,
} from "../../../src/machines/range/types.js";
import { type Entry, EntryKind } from "../../../src/raft/types.js";
import type { Span } from "../../../src/sql/types.js";

export const WALL_MS = 1_700_000_000_000;

const directories: string[] = [];
const stores: StoreCore[] = [];

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close().catch(() => {});
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "ostraka-range-"));
  directories.push(directory);
  return directory;
}

export function newStore(path = join(temporaryDirectory(), "range.db"), files?: FileWork): StoreCore {
  const store = new StoreCore(path, {
    monotonicMs: () => 0,
    pause: () => new Promise((resolve) => setImmediate(resolve)),
    ...(files && { files }),
  });
  stores.push(store);
  return store;
}

export function openStore(path?: string): StoreCore {
  const store = newStore(path);
  store.open();
  return store;
}

let sequence = 0;

export function statement(
  sql: string,
  params: readonly SqlValue[] = [],
  more: Partial<StampedStatement> = {},
): StampedStatement {
  const stamp = { wallMs: WALL_MS, seed: ++sequence, lastInsertRowid: 0n };
  return { sql, params, flags: 0, stamp, told: undefined, ...more };
}

/** A key of a client that never repeats itself. */
export function freshKey(wallMs = WALL_MS): Command["key"] {
  sequence++;
  return { client: "test", sequence, lowestUnanswered: sequence, issuedMs: wallMs };
}

export function execute(
  sql: string,
  params: readonly SqlValue[] = [],
  more: Partial<StampedStatement> = {},
): Command {
  const made = statement(sql, params, more);
  return { kind: "execute", key: freshKey(made.stamp.wallMs), wallMs: made.stamp.wallMs, statement: made };
}

export function transaction(id: string, statements: readonly StampedStatement[], wallMs = WALL_MS): Command {
  return { kind: "transaction", key: freshKey(wallMs), wallMs, transaction: transactionId(id), statements };
}

export function entry(index: number, commands: readonly Command[], generation?: number): Entry {
  const data = encodeCommands(commands, generation);
  return { term: term(1), index: logIndex(index), kind: EntryKind.Normal, data };
}

export function span(table: string, low?: bigint, high?: bigint): Span {
  return { table, low, high };
}

export function prepare(
  store: StoreCore,
  id: string,
  body: PreparedTransaction["body"],
  more: Partial<PreparedTransaction> = {},
  key = freshKey(),
): Command {
  return {
    kind: "prepare",
    key,
    wallMs: WALL_MS,
    prepared: {
      transaction: transactionId(id),
      coordinator: COORDINATOR_GROUP,
      preparedMs: WALL_MS,
      reads: [],
      writes: [],
      schemaVersion: store.schemaVersion,
      body,
      ...more,
    },
  };
}

export function resolve(id: string, decision: "committed" | "aborted"): Command {
  return { kind: "resolve", key: freshKey(), wallMs: WALL_MS, transaction: transactionId(id), decision };
}

/** Applies commands as the next entry and answers their results. */
export function applyCommands(store: StoreCore, ...commands: Command[]): CommandResult[] {
  const index = store.appliedIndex + 1;
  const { results } = store.apply([entry(index, commands)], logIndex(index));
  return decodeResults(results[0]!);
}

/** Applies statements that must succeed. */
export function applySql(store: StoreCore, ...texts: string[]): void {
  for (const result of applyCommands(store, ...texts.map((sql) => execute(sql))))
    if (!result.ok) throw new Error(`${result.error[1]}: ${result.error[2]}`);
}

export function query(store: StoreCore, sql: string, params: readonly SqlValue[] = []): SqlValue[][] {
  return decodeRows(store.read({ statement: statement(sql, params), maxBytes: 1 << 24 }).rows);
}

export const at = (index: number): LogIndex => logIndex(index);
