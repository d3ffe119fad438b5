/**
 * The bodies of commands other than plain statements: msgpack over positional arrays, without records or shared
 * structures, so that an entry can be read on its own, for ever. SQL values are vectors of src/base/values.ts.
 */
import { FatalError } from "../../base/errors.js";
import { type GroupId, type NodeId, transactionId } from "../../base/ids.js";
import { keyBytes, keyOf } from "../../base/keys.js";
import { decodeVector, encodeVector } from "../../base/values.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import type { ConfState } from "../../raft/types.js";
import type { Span } from "../../sql/types.js";
import { arrayHead, packr, plain } from "./packr.js";
import { encoded as encodedChanges, type PackedChanges, packChanges, unpackChanges } from "./row-changes.js";
import type {
  Command,
  IdempotencyKey,
  PreparedTransaction,
  StampedStatement,
  StatementOutcome,
} from "./types.js";

export const KIND = {
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
const DECISIONS = ["aborted", "committed"] as const;
export const NO_VALUES = new Uint8Array(0);

type PackedStatement = [
  sql: string,
  params: Uint8Array,
  flags: number,
  wallMs: number,
  seed: number,
  lastInsertRowid: number | bigint,
  told: string | null,
  appendsTo?: readonly string[],
];
export type PackedOutcome = [
  columns: readonly string[],
  types: readonly (string | null)[],
  rows: Uint8Array,
  rowCount: number,
  changes: number,
  totalChanges: number,
  lastInsertRowid: number | bigint,
];
/** A field of a span that is not there is null. */
type PackedSpan = unknown[];
type PackedConf = [
  voters: readonly NodeId[],
  votersOutgoing: readonly NodeId[],
  learners: readonly NodeId[],
  learnersNext: readonly NodeId[],
  autoLeave: boolean,
];
type PackedDescriptor = [
  range: number,
  start: Uint8Array,
  end: Uint8Array,
  generation: number,
  replicas: readonly NodeId[],
];

export type OtherCommand = Exclude<Command, { readonly kind: "execute" }>;

/** What was encoded before goes in as it is: a large transaction must not keep a leader from everything else. */
export function encodeBody(command: OtherCommand): Uint8Array {
  switch (command.kind) {
    case "transaction": {
      const { transaction, statements, encoded = statements.map(encodeStatement) } = command;
      return Buffer.concat([arrayHead(2), packr.pack(transaction), arrayHead(encoded.length), ...encoded]);
    }
    case "rows": {
      const outcomes = packr.pack(command.outcomes.map(packOutcome));
      const changes = encodedChanges(command.changes);
      return Buffer.concat([arrayHead(3), packr.pack(command.transaction), changes, outcomes]);
    }
    default:
      return packr.pack(packBody(command));
  }
}

/** As the body of a transaction holds it. */
export function encodeStatement(statement: StampedStatement): Uint8Array {
  return packr.pack(packStatement(statement));
}

function packBody(command: Exclude<OtherCommand, { readonly kind: "transaction" | "rows" }>): unknown[] {
  switch (command.kind) {
    case "tombstone":
      return [command.transaction];
    case "pragma":
      return [PRAGMAS.indexOf(command.name), command.value];
    case "prepare":
      return packPrepared(command.prepared);
    case "resolve":
      return [command.transaction, DECISIONS.indexOf(command.decision)];
    case "split":
      return [command.generation, keyBytes(command.at), command.child, packConf(command.conf)];
    case "trim":
      return [command.maxRows];
    case "freeze":
      return [command.generation, command.into];
    case "absorb":
      return [command.generation, packDescriptor(command.right)];
  }
}

export function unpackBody(kind: number, key: IdempotencyKey, wallMs: number, body: unknown[]): Command {
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
    case KIND.prepare:
      return { kind: "prepare", key, wallMs, prepared: unpackPrepared(body) };
    case KIND.resolve:
      return {
        kind: "resolve",
        key,
        wallMs,
        transaction: transactionId(body[0] as string),
        decision: DECISIONS[body[1] as number]!,
      };
    default:
      return unpackReshaping(kind, key, wallMs, body);
  }
}

function unpackReshaping(kind: number, key: IdempotencyKey, wallMs: number, body: unknown[]): Command {
  switch (kind) {
    case KIND.split:
      return {
        kind: "split",
        key,
        wallMs,
        generation: body[0] as number,
        at: keyOf(body[1] as Uint8Array),
        child: body[2] as GroupId,
        conf: unpackConf(body[3] as PackedConf),
      };
    case KIND.trim:
      return { kind: "trim", key, wallMs, maxRows: body[0] as number };
    case KIND.freeze:
      return { kind: "freeze", key, wallMs, generation: body[0] as number, into: body[1] as GroupId };
    case KIND.absorb:
      return {
        kind: "absorb",
        key,
        wallMs,
        generation: body[0] as number,
        right: unpackDescriptor(body[1] as PackedDescriptor),
      };
    default:
      throw new FatalError("OSTRAKA_FORMAT", `unknown command kind ${kind}`);
  }
}

const BODIES = ["nothing", "rows", "schema", "statements"] as const;

function packPrepared(prepared: PreparedTransaction): unknown[] {
  const { body } = prepared;
  const packed: unknown[] = [
    prepared.transaction,
    prepared.coordinator,
    prepared.preparedMs,
    prepared.reads.map(packSpan),
    prepared.writes.map(packSpan),
    prepared.schemaVersion,
    BODIES.indexOf(body.kind),
  ];
  if (body.kind === "statements") packed.push(body.statements.map(packStatement));
  else if (body.kind !== "nothing") packed.push(packChanges(body.changes));
  if (body.kind === "schema") packed.push(body.statements.map(packStatement));
  return packed;
}

function unpackPrepared(packed: unknown[]): PreparedTransaction {
  const kind = BODIES[packed[6] as number]!;
  return {
    transaction: transactionId(packed[0] as string),
    coordinator: packed[1] as GroupId,
    preparedMs: packed[2] as number,
    reads: (packed[3] as PackedSpan[]).map(unpackSpan),
    writes: (packed[4] as PackedSpan[]).map(unpackSpan),
    schemaVersion: packed[5] as number,
    body: unpackPreparedBody(kind, packed[7], packed[8]),
  };
}

function unpackPreparedBody(
  kind: (typeof BODIES)[number],
  first: unknown,
  second: unknown,
): PreparedTransaction["body"] {
  const statements = (list: unknown): StampedStatement[] => (list as PackedStatement[]).map(unpackStatement);
  switch (kind) {
    case "nothing":
      return { kind };
    case "statements":
      return { kind, statements: statements(first) };
    case "rows":
      return { kind, changes: unpackChanges(first as PackedChanges) };
    case "schema":
      return { kind, changes: unpackChanges(first as PackedChanges), statements: statements(second) };
  }
}

function packSpan({ table, low, high }: Span): PackedSpan {
  return [table, low ?? null, high ?? null];
}

function unpackSpan([table, low, high]: PackedSpan): Span {
  return { table, low: low ?? undefined, high: high ?? undefined } as Span;
}

function packConf(conf: ConfState): PackedConf {
  return [conf.voters, conf.votersOutgoing, conf.learners, conf.learnersNext, conf.autoLeave];
}

function unpackConf([voters, votersOutgoing, learners, learnersNext, autoLeave]: PackedConf): ConfState {
  return { voters, votersOutgoing, learners, learnersNext, autoLeave };
}

function packDescriptor({ range, start, end, generation, replicas }: RangeDescriptor): PackedDescriptor {
  return [range, keyBytes(start), keyBytes(end), generation, replicas];
}

function unpackDescriptor([range, start, end, generation, replicas]: PackedDescriptor): RangeDescriptor {
  return { range: range as GroupId, start: keyOf(start), end: keyOf(end), generation, replicas };
}

function packStatement(statement: StampedStatement): PackedStatement {
  const { stamp, params } = statement;
  const packed: PackedStatement = [
    statement.sql,
    params.length === 0 ? NO_VALUES : (statement.vector ?? encodeVector(params)),
    statement.flags,
    stamp.wallMs,
    stamp.seed,
    packInteger(stamp.lastInsertRowid),
    statement.told ?? null,
  ];
  if (statement.appendsTo !== undefined) packed.push(statement.appendsTo);
  return packed;
}

function unpackStatement(packed: PackedStatement): StampedStatement {
  const [sql, params, flags, wallMs, seed, lastInsertRowid, told, appendsTo] = packed;
  return {
    sql,
    params: params.length === 0 ? [] : decodeVector(plain(params)),
    flags,
    stamp: { wallMs, seed, lastInsertRowid: BigInt(lastInsertRowid) },
    told: told ?? undefined,
    ...(appendsTo === undefined ? {} : { appendsTo }),
  };
}

export function packOutcome(outcome: StatementOutcome): PackedOutcome {
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

export function unpackOutcome(packed: PackedOutcome): StatementOutcome {
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

/** Small integers as msgpack integers: shorter and faster than bigints. */
function packInteger(value: bigint): number | bigint {
  const n = Number(value);
  return Number.isSafeInteger(n) ? n : value;
}
