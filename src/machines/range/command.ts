/**
 * The bytes of a range's log entries and of their results. One entry carries a batch of commands, all that a leader
 * gathered in one turn; its result carries one result for each.
 *
 * msgpackr over positional arrays, no records and no shared structures: an entry can be read on its own, for ever.
 * The first element is the format's version. SQL values travel as vectors of src/base/values.ts, which keep the
 * storage classes exact. What msgpack would alter (a lone surrogate in a text) is altered here, before the log:
 * the leader applies the decoded bytes like everybody else.
 */
import { Packr } from "msgpackr";
import { unreachable } from "../../base/assert.js";
import { FatalError, type WireError } from "../../base/errors.js";
import { transactionId } from "../../base/ids.js";
import { decodeRows, decodeVector, encodeVector, ValueWriter } from "../../base/values.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  RowChange,
  StampedStatement,
  StatementOutcome,
  TransactionDecision,
} from "./types.js";

const FORMAT = 1;
const KIND = { execute: 0, transaction: 1, rows: 2, tombstone: 3, pragma: 4 } as const;
const PRAGMAS = ["user_version", "application_id"] as const;
const NO_VALUES = new Uint8Array(0);

// `useRecords: false` alone would give records for objects in Maps; arrays are all there is here.
const packr = new Packr({
  useRecords: false,
  moreTypes: false,
  int64AsType: "bigint",
  variableMapSize: true,
});
const rowWriter = new ValueWriter(4096);

type PackedKey = [client: string, sequence: number, lowestUnanswered: number, issuedMs: number];
type PackedStatement = [
  sql: string,
  params: Uint8Array,
  flags: number,
  wallMs: number,
  seed: number,
  lastInsertRowid: number | bigint,
  told: string | null,
];
type PackedOutcome = [
  columns: readonly string[],
  types: readonly (string | null)[],
  rows: Uint8Array,
  rowCount: number,
  changes: number,
  totalChanges: number,
  lastInsertRowid: number | bigint,
];
type PackedCommand = [kind: number, wallMs: number, key: PackedKey, ...body: unknown[]];
type PackedChanges = [table: string, present: Uint8Array, values: Uint8Array][];

export function encodeCommands(commands: readonly Command[]): Uint8Array {
  return packr.pack([FORMAT, commands.map(packCommand)]);
}

export function decodeCommands(bytes: Uint8Array): Command[] {
  return (unpack(bytes) as PackedCommand[]).map(unpackCommand);
}

export function encodeResults(results: readonly CommandResult[]): Uint8Array {
  return packr.pack([FORMAT, results.map(packResult)]);
}

export function decodeResults(bytes: Uint8Array): CommandResult[] {
  return (unpack(bytes) as unknown[][]).map(unpackResult);
}

function unpack(bytes: Uint8Array): unknown {
  const [format, body] = packr.unpack(bytes) as [number, unknown];
  if (format !== FORMAT)
    throw new FatalError("OSTRAKA_FORMAT", `a command of format ${format}; this version reads ${FORMAT}`);
  return body;
}

function packCommand(command: Command): PackedCommand {
  const { key, wallMs } = command;
  const packedKey: PackedKey = [key.client, key.sequence, key.lowestUnanswered, key.issuedMs];
  switch (command.kind) {
    case "execute":
      return [KIND.execute, wallMs, packedKey, packStatement(command.statement)];
    case "transaction":
      return [
        KIND.transaction,
        wallMs,
        packedKey,
        command.transaction,
        command.statements.map(packStatement),
      ];
    case "rows":
      return [
        KIND.rows,
        wallMs,
        packedKey,
        command.transaction,
        packChanges(command.changes),
        command.outcomes.map(packOutcome),
      ];
    case "tombstone":
      return [KIND.tombstone, wallMs, packedKey, command.transaction];
    case "pragma":
      return [KIND.pragma, wallMs, packedKey, PRAGMAS.indexOf(command.name), command.value];
    default:
      return unreachable(command);
  }
}

function unpackCommand([kind, wallMs, packedKey, ...body]: PackedCommand): Command {
  const [client, sequence, lowestUnanswered, issuedMs] = packedKey;
  const key: IdempotencyKey = { client, sequence, lowestUnanswered, issuedMs };
  switch (kind) {
    case KIND.execute:
      return { kind: "execute", key, wallMs, statement: unpackStatement(body[0] as PackedStatement) };
    case KIND.transaction:
      return {
        kind: "transaction",
        key,
        wallMs,
        transaction: transactionId(body[0] as string),
        statements: (body[1] as PackedStatement[]).map(unpackStatement),
      };
    case KIND.rows:
      return {
        kind: "rows",
        key,
        wallMs,
        transaction: transactionId(body[0] as string),
        changes: unpackChanges(body[1] as PackedChanges),
        outcomes: (body[2] as PackedOutcome[]).map(unpackOutcome),
      };
    case KIND.tombstone:
      return { kind: "tombstone", key, wallMs, transaction: transactionId(body[0] as string) };
    case KIND.pragma:
      return { kind: "pragma", key, wallMs, name: PRAGMAS[body[0] as number]!, value: body[1] as number };
    default:
      throw new FatalError("OSTRAKA_FORMAT", `unknown command kind ${kind}`);
  }
}

/** Exported for the messages between threads and processes, which carry single statements. */
export function packStatement(statement: StampedStatement): PackedStatement {
  const { stamp, params } = statement;
  return [
    statement.sql,
    params.length === 0 ? NO_VALUES : encodeVector(params),
    statement.flags,
    stamp.wallMs,
    stamp.seed,
    packInteger(stamp.lastInsertRowid),
    statement.told ?? null,
  ];
}

export function unpackStatement(packed: PackedStatement): StampedStatement {
  const [sql, params, flags, wallMs, seed, lastInsertRowid, told] = packed;
  return {
    sql,
    params: params.length === 0 ? [] : decodeVector(plain(params)),
    flags,
    stamp: { wallMs, seed, lastInsertRowid: BigInt(lastInsertRowid) },
    told: told ?? undefined,
  };
}

function packOutcome(outcome: StatementOutcome): PackedOutcome {
  return [
    outcome.columns,
    outcome.columnTypes,
    outcome.rows,
    outcome.rowCount,
    outcome.changes,
    outcome.totalChanges,
    packInteger(outcome.lastInsertRowid),
  ];
}

function unpackOutcome(packed: PackedOutcome): StatementOutcome {
  const [columns, columnTypes, rows, rowCount, changes, totalChanges, lastInsertRowid] = packed;
  return {
    columns,
    columnTypes,
    rows: plain(rows),
    rowCount,
    changes,
    totalChanges,
    lastInsertRowid: BigInt(lastInsertRowid),
  };
}

/** msgpackr answers Buffers, whose slices are views; everybody else works on plain arrays. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Small integers as msgpack integers: shorter and faster than bigints. */
function packInteger(value: bigint): number | bigint {
  const n = Number(value);
  return Number.isSafeInteger(n) ? n : value;
}

/** Runs of one table share one buffer of vectors: for each change its key and, unless it deletes, its row. */
function packChanges(changes: readonly RowChange[]): PackedChanges {
  const packed: PackedChanges = [];
  let present: number[] = [];
  const close = (table: string): void => {
    packed.push([table, Uint8Array.from(present), rowWriter.take()]);
    present = [];
  };
  for (const [i, change] of changes.entries()) {
    rowWriter.vector(change.key);
    if (change.row !== undefined) rowWriter.vector(change.row);
    present.push(change.row === undefined ? 0 : 1);
    if (changes[i + 1]?.table !== change.table) close(change.table);
  }
  return packed;
}

function unpackChanges(packed: PackedChanges): RowChange[] {
  const changes: RowChange[] = [];
  for (const [table, present, values] of packed) {
    const vectors = decodeRows(plain(values));
    let at = 0;
    for (const flag of present) {
      const key = vectors[at++]!;
      changes.push({ table, key, row: flag === 1 ? vectors[at++]! : undefined });
    }
  }
  return changes;
}

/** The form in which a result is kept for repetitions, inside other packed arrays. */
export function packResult(result: CommandResult): unknown[] {
  return result.ok
    ? [result.repeated ? 2 : 1, result.outcomes.map(packOutcome), result.decision ?? null]
    : [0, result.error, result.statement];
}

export function unpackResult(packed: unknown[]): CommandResult {
  const [ok, body, last] = packed;
  if (ok === 0) return { ok: false, error: body as WireError, statement: last as number };
  const outcomes = (body as PackedOutcome[]).map(unpackOutcome);
  const result = { ok: true as const, outcomes, repeated: ok === 2 };
  return last === null ? result : { ...result, decision: last as TransactionDecision };
}
