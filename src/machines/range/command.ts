/**
 * The bytes of a range's log entries and of their results. One entry carries a batch of commands, all that a leader
 * gathered in one turn; its result carries one result for each.
 *
 * The first byte is the format's version. Then come, in an entry, the generation of the range that its commands were
 * admitted under and the commands, in the encoding of src/base/values.ts, with the texts that they name (clients,
 * statements) written where they first occur: most are one bounded statement, and those are written and read without
 * anything in between. The bodies of the others are msgpack (command-body.ts). Likewise results: an autocommit write
 * without rows is three numbers.
 *
 * What encoding would alter (a lone surrogate in a text) is altered here, before the log: the leader applies the
 * decoded bytes like everybody else.
 */
import { FatalError, type WireError } from "../../base/errors.js";
import { ValueReader, ValueWriter } from "../../base/values.js";
import {
  encodeBody,
  KIND,
  NO_VALUES,
  type PackedOutcome,
  packOutcome,
  unpackBody,
  unpackOutcome,
} from "./command-body.js";
import { packr } from "./packr.js";
import { readStatement, TextReader, TextWriter, writeStatement } from "./statement-codec.js";
import type { Command, CommandResult, IdempotencyKey, TransactionDecision } from "./types.js";

const FORMAT = 3;
/** For what is written in one go, without calling anything that may use it too. */
const writer = new ValueWriter(64 * 1024);

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
  else writer.bytes(encodeBody(command));
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

export function packResult(result: CommandResult): unknown[] {
  return result.ok
    ? [
        result.repeated ? 2 : 1,
        result.outcomes.map(packOutcome),
        result.decision ?? null,
        ...(result.vote === undefined ? [] : [result.vote]),
      ]
    : [0, result.error, result.statement];
}

export function unpackResult(packed: unknown[]): CommandResult {
  const [ok, body, last, vote] = packed;
  if (ok === 0) return { ok: false, error: body as WireError, statement: last as number };
  return {
    ok: true,
    outcomes: (body as PackedOutcome[]).map(unpackOutcome),
    repeated: ok === 2,
    ...(last === null ? {} : { decision: last as TransactionDecision }),
    ...(vote === undefined ? {} : { vote: vote as "yes" }),
  };
}
