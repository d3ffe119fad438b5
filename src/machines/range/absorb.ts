/**
 * Takes the rows, sequences, answers and outcomes of a frozen right neighbour into this range's file, reading the
 * neighbour's replica on the same node. A frozen range does not change, so every replica takes in the same. Whom it was
 * frozen for does not matter: whoever has it as its right neighbour when the command comes in its log takes it in, and
 * that is one range at any time.
 *
 * Called inside a batch with foreign keys and CHECK constraints off; an exception leaves its undoing to the caller.
 */
import { dirname, join } from "node:path";
import type Database from "better-sqlite3";
import { FatalError, type OstrakaError, RetryError } from "../../base/errors.js";
import type { GroupId } from "../../base/ids.js";
import { keyBytes } from "../../base/keys.js";
import type { SqlValue } from "../../base/values.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import { sliceCondition, sliceOf } from "../../placement/slice.js";
import { openConnection, type RangeConnection } from "./connection.js";
import type { ReshaperParts } from "./reshape.js";
import { shapeOf, withoutTriggers } from "./row-images.js";
import { readTables } from "./table-keys.js";

/** The file of another range's replica on the same node. */
export function siblingPath(path: string, range: number): string {
  return join(dirname(dirname(path)), String(range), "range.db");
}

/** This node's replica of the neighbour has not come as far as the log says: to be tried again. */
function tooEarly(message: string): FatalError {
  return new FatalError("OSTRAKA_TOO_EARLY", message);
}

/** What has to be known of the neighbour from then on. */
export interface TakenIn {
  readonly absorbed: readonly GroupId[];
  readonly rightNeighbour: GroupId | null;
}

/** Answers what the neighbour knew of others, or why it cannot be done, on any replica. */
export function absorbRange(
  parts: ReshaperParts,
  right: RangeDescriptor,
): TakenIn | { readonly error: OstrakaError } {
  const path = siblingPath(parts.connection.path, right.range);
  let source: RangeConnection;
  try {
    source = openConnection(path, { readonly: true, role: "read" });
  } catch {
    throw tooEarly(`there is no replica of range ${right.range} at ${path}`);
  }
  try {
    source.database.exec("BEGIN");
    checkFrozen(source.database, right);
    const version = source.database
      .prepare("SELECT schema_version FROM _ostraka_state")
      .pluck(true)
      .safeIntegers(false)
      .get() as number;
    if (version !== parts.state.schemaVersion)
      return { error: new RetryError("OSTRAKA_RETRY", "the schema is not yet the same in both ranges") };
    // What the last split left may be in the way of what comes back.
    parts.trimmer.trimAll();
    takeRows(parts, source.database, right);
    takeSequences(parts.connection.database, source.database);
    takeMemory(parts, source.database);
    parts.connection.disturbed();
    const [absorbed, rightNeighbour] = source.database
      .prepare("SELECT absorbed, right_neighbour FROM _ostraka_range")
      .raw(true)
      .safeIntegers(false)
      .get() as [string, GroupId | null];
    return { absorbed: JSON.parse(absorbed) as GroupId[], rightNeighbour };
  } finally {
    source.close();
  }
}

function checkFrozen(source: Database.Database, right: RangeDescriptor): void {
  // A file that is being made has no tables yet.
  const made = source.prepare("SELECT 1 FROM sqlite_schema WHERE name = '_ostraka_range'").get();
  if (made === undefined) throw tooEarly(`the replica of range ${right.range} on this node has no state`);
  const frozen = source
    .prepare(
      `SELECT 1 FROM _ostraka_range WHERE range_id = ? AND start_key = ? AND end_key = ? AND generation = ?
       AND frozen_into IS NOT NULL`,
    )
    .get(right.range, keyBytes(right.start), keyBytes(right.end), right.generation);
  if (frozen === undefined) throw tooEarly(`the replica of range ${right.range} on this node is not frozen`);
}

function takeRows(
  { connection, tables }: ReshaperParts,
  source: Database.Database,
  right: RangeDescriptor,
): void {
  for (const table of readTables(source)) {
    const slice = table.kind === "table" ? sliceOf(table, right) : undefined;
    if (slice === undefined) continue;
    const own = tables.table(table.name);
    if (own === undefined)
      throw new FatalError("OSTRAKA_INVARIANT", `table ${table.name} is not in both ranges' schema`);
    const { sql, params } = sliceCondition(table, slice);
    const shape = shapeOf(connection, own.actualName);
    const rows = source.prepare(`${shape.select} WHERE ${sql}`).raw(true).safeIntegers(true);
    withoutTriggers(connection, [own.actualName], () => {
      const insert = connection.internal(shape.insert);
      for (const row of rows.iterate(...params)) insert.run(row as SqlValue[]);
    });
  }
}

function takeSequences(database: Database.Database, source: Database.Database): void {
  const exists = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'";
  if (source.prepare(exists).get() === undefined || database.prepare(exists).get() === undefined) return;
  const update = database.prepare("UPDATE main.sqlite_sequence SET seq = max(seq, ?) WHERE name = ?");
  const insert = database.prepare("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?, ?)");
  const rows = source
    .prepare("SELECT name, seq FROM main.sqlite_sequence ORDER BY rowid")
    .raw(true)
    .safeIntegers(true)
    .all() as [string, bigint][];
  for (const [name, sequence] of rows)
    if (update.run(sequence, name).changes === 0) insert.run(name, sequence);
}

/** What was answered, and what became of transactions. */
function takeMemory({ state, answers, transactions }: ReshaperParts, source: Database.Database): void {
  const [wallMs, answerFloorMs, transactionFloorMs] = source
    .prepare("SELECT wall_ms, answer_floor_ms, transaction_floor_ms FROM _ostraka_state")
    .raw(true)
    .safeIntegers(false)
    .get() as [number, number, number];
  state.wallMs = Math.max(state.wallMs, wallMs);
  state.answerFloorMs = Math.max(state.answerFloorMs, answerFloorMs);
  state.transactionFloorMs = Math.max(state.transactionFloorMs, transactionFloorMs);
  answers.adopt(source);
  transactions.adopt(source);
}
