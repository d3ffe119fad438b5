/**
 * The bytes of a range's log entries and of their results. One entry carries a batch of commands, all that a leader
 * gathered in one turn; its result carries one result for each.
 *
 * The first byte is the format's version. Then come, in an entry, the generation of the range that its commands were
 * admitted under and the commands, in the encoding of src/base/values.ts, with the texts that they name (clients,
 * statements) written where they first occur: most are one bounded statement, and
 * those are written and read without anything in between. The bodies of the others are msgpack over positional arrays,
 * without records or shared structures: an entry can be read on its own, for ever. Likewise results: an autocommit
 * write without rows is three numbers.
 *
 * What encoding would alter (a lone surrogate in a text) is altered here, before the log: the leader applies the
 * decoded bytes like everybody else.
 */
import { Packr } from "msgpackr";
import { FatalError, type WireError } from "../../base/errors.js";
import { transactionId } from "../../base/ids.js";
import { decodeRows, decodeVector, encodeVector, ValueReader, ValueWriter } from "../../base/values.js";
import { readStatement, TextReader, TextWriter, writeStatement } from "./statement-codec.js";
import type {
  Command,
  CommandResult,
  IdempotencyKey,
  RowChange,
  StampedStatement,
  StatementOutcome,
  TransactionDecision,
} from "./types.js";

const FORMAT = 3;
const KIND = {
  execute: 0,
  transaction: 1,
  rows: 2,
  tombstone: 3,
  pragma: 4,
  prepare: 5,
  resolve: 6,
  split: 7,
  trim: 8,
  freeze: 9,
  absorb: 10,
} as const;
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
/** For what is written in one go, without calling anything that may use it too. */
const writer = new ValueWriter(64 * 1024);

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
type PackedChanges = [table: string, present: Uint8Array, values: Uint8Array][];

/** The generation of commands that hold whatever has become of the range. */
export const ANY_GENERATION = 0;

export interface DecodedEntry {
  readonly generation: number;
  readonly commands: readonly Command[];
}

/** `generation`: of the descriptor that the commands were admitted under; applied under another one they are refused. */
export function encodeCommands(
  commands: readonly Command[],
  generation: number = ANY_GENERATION,
): Uint8Array {
  const texts = new TextWriter(writer);
  writer.reset();
  writer.byte(FORMAT);
  writer.uint(generation);
  writer.uint(commands.length);
  for (const command of commands) writeCommand(command, texts);
  return writer.take();
}

export function decodeCommands(bytes: Uint8Array): DecodedEntry {
  const reader = readerOf(bytes);
  const generation = reader.uint();
  const texts = new TextReader(reader);
  const commands: Command[] = [];
  for (let left = reader.uint(); left > 0; left--) commands.push(readCommand(reader, texts));
  return { generation, commands };
}

export function encodeResults(results: readonly CommandResult[]): Uint8Array {
  writer.reset();
  writer.byte(FORMAT);
  writer.uint(results.length);
  for (const result of results) writeResult(writer, result);
  return writer.take();
}

export function decodeResults(bytes: Uint8Array): CommandResult[] {
  const reader = readerOf(bytes);
  const results: CommandResult[] = [];
  for (let left = reader.uint(); left > 0; left--) results.push(readResult(reader));
  return results;
}

/** Keys are read out of names that clients make up: any number may stand there. */
function count(value: number): number {
  return value >= 0 && value <= Number.MAX_SAFE_INTEGER ? value : Number.MAX_SAFE_INTEGER;
}

function readerOf(bytes: Uint8Array): ValueReader {
  const reader = new ValueReader(bytes);
  const format = reader.byte();
  if (format !== FORMAT)
    throw new FatalError("OSTRAKA_FORMAT", `a command of format ${format}; this version reads ${FORMAT}`);
  return reader;
}

/** kind | wall time | key: client, sequence, lowest unanswered, issue time | body */
function writeCommand(command: Command, texts: TextWriter): void {
  const { key, wallMs } = command;
  writer.byte(KIND[command.kind]);
  writer.uint(wallMs);
  texts.write(key.client);
  writer.uint(count(key.sequence));
  writer.uint(count(key.lowestUnanswered));
  writer.uint(count(key.issuedMs));
  if (command.kind === "execute") writeStatement(writer, command.statement, wallMs, texts);
  else writer.bytes(packr.pack(packBody(command)));
}

function readCommand(reader: ValueReader, texts: TextReader): Command {
  const kind = reader.byte();
  const wallMs = reader.uint();
  const client = texts.read();
  const sequence = reader.uint();
  const lowestUnanswered = reader.uint();
  const key: IdempotencyKey = { client, sequence, lowestUnanswered, issuedMs: reader.uint() };
  if (kind === KIND.execute)
    return { kind: "execute", key, wallMs, statement: readStatement(reader, wallMs, texts) };
  return unpackBody(kind, key, wallMs, packr.unpack(reader.bytes()) as unknown[]);
}

type OtherCommand = Exclude<Command, { readonly kind: "execute" }>;

function packBody(command: OtherCommand): unknown[] {
  switch (command.kind) {
    case "transaction":
      return [command.transaction, command.statements.map(packStatement)];
    case "rows":
      return [command.transaction, packChanges(command.changes), command.outcomes.map(packOutcome)];
    case "tombstone":
      return [command.transaction];
    case "pragma":
      return [PRAGMAS.indexOf(command.name), command.value];
    default:
      throw new Error("not built yet");
  }
}

function unpackBody(kind: number, key: IdempotencyKey, wallMs: number, body: unknown[]): Command {
  switch (kind) {
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

const RESULT = { packed: 0, write: 1, repeatedWrite: 2 } as const;
const NO_COLUMNS: readonly string[] = [];

/** kind | changes, total changes, last_insert_rowid(), or the packed result. */
export function writeResult(to: ValueWriter, result: CommandResult): void {
  const only = result.ok && result.outcomes.length === 1 ? result.outcomes[0]! : undefined;
  if (only === undefined || only.columns.length > 0 || (result.ok && result.decision !== undefined)) {
    to.byte(RESULT.packed);
    to.bytes(packr.pack(packResult(result)));
    return;
  }
  to.byte(result.ok && result.repeated ? RESULT.repeatedWrite : RESULT.write);
  to.uint(only.changes);
  to.uint(only.totalChanges);
  to.value(only.lastInsertRowid);
}

export function readResult(reader: ValueReader): CommandResult {
  const kind = reader.byte();
  if (kind === RESULT.packed) return unpackResult(packr.unpack(reader.bytes()) as unknown[]);
  const changes = reader.uint();
  const totalChanges = reader.uint();
  const lastInsertRowid = reader.value() as bigint;
  const outcome = {
    columns: NO_COLUMNS,
    columnTypes: NO_COLUMNS,
    rows: NO_VALUES,
    rowCount: 0,
    changes,
    totalChanges,
    lastInsertRowid,
  };
  return { ok: true, outcomes: [outcome], repeated: kind === RESULT.repeatedWrite };
}

function packStatement(statement: StampedStatement): PackedStatement {
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

function unpackStatement(packed: PackedStatement): StampedStatement {
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
