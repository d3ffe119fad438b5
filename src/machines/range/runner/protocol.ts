/**
 * What travels between the main thread and a runner: length-prefixed frames (four bytes, little-endian), each a
 * msgpackr array of fixed positions. Values and rows are opaque vectors (src/base/values.ts), encoded where SQLite
 * produced them and never looked at on the way.
 *
 * A request is [id, op, ...arguments]. An answer is [id, kind, state, ...]. A statement's rows belong to the id of the
 * request that started it. Answers to small queries carry everything: one frame each way.
 */
import { Packr, Unpackr } from "msgpackr";
import { assert } from "../../../base/assert.js";
import type { WireError } from "../../../base/errors.js";
import { decodeVector, encodeVector, type SqlValue, ValueReader, ValueWriter } from "../../../base/values.js";
import type {
  ScratchCondition,
  ScratchLoad,
  SourceLoad,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../types.js";
import type { TableNames } from "./table-history.js";
import type { UniqueKeysOf } from "./unique-keys.js";

export const Op = {
  Pin: 0,
  Unpin: 1,
  OpenCopy: 2,
  CloseCopy: 3,
  Run: 4,
  Pull: 5,
  /** Stops the statement if it still runs and frees its rows. Answered once it has stopped. */
  Close: 6,
  Capture: 7,
  Captured: 8,
  OpenScratch: 9,
  AddSource: 10,
  Load: 11,
  /** Started, pulled and closed like a statement. */
  Scan: 12,
  Fill: 13,
  DropSources: 14,
  TakeUniqueKeys: 15,
  TableNames: 16,
} as const;

export type Ending = "commit" | "rollback";

export type Request =
  | [id: number, op: typeof Op.Pin | typeof Op.OpenCopy, path: string]
  | [id: number, op: typeof Op.Unpin | typeof Op.CloseCopy, how: Ending]
  | [id: number, op: typeof Op.Run, run: WireRun]
  | [id: number, op: typeof Op.Pull | typeof Op.Close, stream: number]
  | [id: number, op: typeof Op.OpenScratch, version: number, statements: readonly string[]]
  | [id: number, op: typeof Op.AddSource, path: string]
  | [id: number, op: typeof Op.Load, loads: readonly WireSourceLoad[], maxBytes: number]
  | [id: number, op: typeof Op.Scan, loads: readonly WireSourceLoad[], maxResultBytes: number]
  | [id: number, op: typeof Op.Fill, table: string, rows: Uint8Array, maxBytes: number]
  | [
      id: number,
      op:
        | typeof Op.Capture
        | typeof Op.Captured
        | typeof Op.DropSources
        | typeof Op.TakeUniqueKeys
        | typeof Op.TableNames,
    ];

export type WireSourceLoad = [source: number, load: WireLoad];
/** Bounds and parameters as vectors. */
type WireLoad = [
  table: string,
  low: Uint8Array | null,
  high: Uint8Array | null,
  bits: number,
  where: WireCondition | null,
  which: Pick<ScratchLoad, "first" | "query"> | null,
];
type WireCondition = [
  sql: string,
  params: Uint8Array,
  alias: string | null,
  flags: number,
  stamp: readonly [wallMs: number, seed: number, lastInsertRowid: bigint] | null,
];

export type WireRun = [
  sql: string,
  params: Uint8Array,
  flags: number,
  wallMs: number,
  seed: number,
  lastInsertRowid: bigint,
  maxResultBytes: number,
  systemTables: readonly WireSystemTable[],
];
type WireSystemTable = [
  name: string,
  columns: readonly string[],
  rows: Uint8Array,
  types: readonly string[] | null,
];

export const Kind = {
  Ok: 0,
  Error: 1,
  /** A statement's columns and first rows; with an end when there are no more. */
  Started: 2,
  Chunk: 3,
  /** Unasked: the statement of this id has run to its end (or failed); its rows may still wait to be pulled. */
  Finished: 4,
} as const;

/** Bits told with every answer. */
export const State = {
  /** A statement ended the whole transaction. */
  RolledBack: 1,
  /** The TEMP schema holds something of the session's. */
  HasTemp: 2,
} as const;

export type End = readonly [changes: number, totalChanges: number, lastInsertRowid: bigint];

export type AnswerValue =
  | number
  | readonly [source: number, appliedIndex: number]
  | Uint8Array
  | { readonly uniqueKeys: UniqueKeysOf }
  | { readonly tableNames: TableNames }
  | null;

export type Answer =
  | [id: number, kind: typeof Kind.Ok, state: number, value: AnswerValue]
  | [id: number, kind: typeof Kind.Error, state: number, error: WireError]
  | [
      id: number,
      kind: typeof Kind.Started,
      state: number,
      columns: readonly string[],
      columnTypes: readonly (string | null)[],
      rows: Uint8Array | null,
      count: number,
      end: End | null,
    ]
  | [
      id: number,
      kind: typeof Kind.Chunk,
      state: number,
      rows: Uint8Array | null,
      count: number,
      end: End | null,
    ]
  | [id: number, kind: typeof Kind.Finished, state: number];

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false });
const HEADER_BYTES = 4;
const LARGEST_FRAME = 0x7fffffff;

export function encodeFrame(message: Request | Answer): Buffer {
  const body = packr.pack(message);
  assert(body.length <= LARGEST_FRAME, "a frame too large for its length field");
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame.set(body, HEADER_BYTES);
  return frame;
}

/** Cuts a byte stream into messages. */
export class FrameReader<T> {
  readonly #deliver: (message: T) => void;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  /** Bytes that the pending buffers must reach before there is anything to cut. */
  #wanted = HEADER_BYTES;

  constructor(deliver: (message: T) => void) {
    this.#deliver = deliver;
  }

  push(chunk: Buffer): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    if (this.#pendingBytes < this.#wanted) return;
    const bytes = this.#pending.length === 1 ? chunk : Buffer.concat(this.#pending, this.#pendingBytes);
    let at = 0;
    this.#wanted = HEADER_BYTES;
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt32LE(at);
      if (bytes.length - at - HEADER_BYTES < length) {
        this.#wanted = HEADER_BYTES + length;
        break;
      }
      const start = at + HEADER_BYTES;
      at = start + length;
      this.#deliver(unpackr.unpack(bytes.subarray(start, at)) as T);
    }
    this.#pending = at === bytes.length ? [] : [bytes.subarray(at)];
    this.#pendingBytes = bytes.length - at;
  }
}

export function toWireRun(
  statement: StampedStatement,
  maxResultBytes: number,
  systemTables: readonly SystemTable[],
): WireRun {
  const { stamp } = statement;
  return [
    statement.sql,
    encodeVector(statement.params),
    statement.flags,
    stamp.wallMs,
    stamp.seed,
    stamp.lastInsertRowid,
    maxResultBytes,
    systemTables.map(
      ({ name, columns, rows, types }): WireSystemTable => [name, columns, encodeRows(rows), types ?? null],
    ),
  ];
}

export function fromWireRun(run: WireRun): {
  readonly statement: StampedStatement;
  readonly maxResultBytes: number;
  readonly systemTables: readonly SystemTable[];
} {
  const [sql, params, flags, wallMs, seed, lastInsertRowid, maxResultBytes, systemTables] = run;
  return {
    statement: {
      sql,
      params: decodeVector(params),
      flags,
      stamp: { wallMs, seed, lastInsertRowid: BigInt(lastInsertRowid) },
      told: undefined,
    },
    maxResultBytes,
    systemTables: systemTables.map(([name, columns, rows, types]) => ({
      name,
      columns,
      types: types ?? undefined,
      rows: decodeAll(rows),
    })),
  };
}

const LoadBit = { LowAfter: 1, HighAfter: 2, Last: 4 } as const;

export function toWireLoad({
  source,
  load: { table, slice, where, last, first, query },
}: SourceLoad): WireSourceLoad {
  const bound = (values: readonly SqlValue[] | undefined): Uint8Array | null =>
    values === undefined ? null : encodeVector(values);
  const bits =
    (slice.lowAfter ? LoadBit.LowAfter : 0) |
    (slice.highAfter ? LoadBit.HighAfter : 0) |
    (last ? LoadBit.Last : 0);
  const condition = where === undefined ? null : toWireCondition(where);
  const which = first === undefined && query === undefined ? null : { first, query };
  return [source, [table, bound(slice.low), bound(slice.high), bits, condition, which]];
}

function toWireCondition({ sql, params, alias, flags, stamp }: ScratchCondition): WireCondition {
  const wireStamp = stamp === undefined ? null : ([stamp.wallMs, stamp.seed, stamp.lastInsertRowid] as const);
  return [sql, encodeVector(params), alias ?? null, flags ?? 0, wireStamp];
}

export function fromWireLoad([source, [table, low, high, bits, where, which]]: WireSourceLoad): SourceLoad {
  const bound = (bytes: Uint8Array | null): readonly SqlValue[] | undefined =>
    bytes === null ? undefined : decodeVector(bytes);
  const load: ScratchLoad = {
    ...which,
    table,
    slice: {
      low: bound(low),
      high: bound(high),
      lowAfter: (bits & LoadBit.LowAfter) !== 0,
      highAfter: (bits & LoadBit.HighAfter) !== 0,
    },
    where: where === null ? undefined : fromWireCondition(where),
    last: (bits & LoadBit.Last) !== 0,
  };
  return { source, load };
}

function fromWireCondition([sql, params, alias, flags, stamp]: WireCondition): ScratchCondition {
  return {
    sql,
    params: decodeVector(params),
    alias: alias ?? undefined,
    flags,
    stamp:
      stamp === null ? undefined : { wallMs: stamp[0], seed: stamp[1], lastInsertRowid: BigInt(stamp[2]) },
  };
}

export function toEnd(summary: Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">): End {
  return [summary.changes, summary.totalChanges, summary.lastInsertRowid];
}

export function fromEnd([changes, totalChanges, lastInsertRowid]: End): Pick<
  StatementOutcome,
  "changes" | "totalChanges" | "lastInsertRowid"
> {
  return { changes, totalChanges, lastInsertRowid: BigInt(lastInsertRowid) };
}

function encodeRows(rows: readonly (readonly SqlValue[])[]): Uint8Array {
  const writer = new ValueWriter(1024);
  for (const row of rows) writer.vector(row);
  return writer.take();
}

function decodeAll(bytes: Uint8Array): SqlValue[][] {
  const reader = new ValueReader(bytes);
  const rows: SqlValue[][] = [];
  while (!reader.done) rows.push(reader.vector());
  return rows;
}
