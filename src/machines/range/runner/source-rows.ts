/**
 * What is read from a source for a scratch database: queries whose rows are the vectors that `RowSink` takes, on the
 * same node or another.
 *
 * A table's rows come as its shape says (shapes.ts). A virtual table's are those of its shadow tables, each vector
 * preceded by the shadow table's name. Behind the rows of a table with AUTOINCREMENT comes a vector that is one value
 * longer than they are and begins with the table's value in sqlite_sequence. sqlite_sequence itself may be asked for as
 * any table.
 */
import { RetryError, UserError } from "../../../base/errors.js";
import type { SqlValue } from "../../../base/values.js";
import { sliceCondition } from "../../../placement/slice.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import { SessionFlag } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import { bindArguments, planParameters } from "../parameters.js";
import { quoteName } from "../temp-objects.js";
import type { ScratchFirst, ScratchLoad, StampedStatement } from "../types.js";
import type { TableShape } from "./shapes.js";
import type { Source } from "./sources.js";

/** Rows read at a time; each may be large. */
const PAGE_ROWS = 128;

interface Query {
  readonly sql: string;
  readonly params: readonly SqlValue[];
}

/** The queries that answer a load, in order. */
export function queriesOf(source: Source, load: ScratchLoad): readonly Query[] {
  const shape = shapeOfLoad(source, load.table);
  if (shape.kind === "virtual")
    return shadowTables(source, shape.name).map(({ name, vector }) => ({
      sql: `SELECT ${textLiteral(name)}, ${vector.join(", ")} FROM main.${quoteName(name)}`,
      params: [],
    }));
  if (load.query !== undefined) return [selectFrom(shape, load, load.query.list, load.query.tail)];
  if (load.first !== undefined) return [rowsFirst(source, shape, load, load.first)];
  const rows = selectRows(shape, load);
  if (shape.withoutRowid || shape.kind !== "table" || source.sequence(shape.name) === undefined)
    return [rows];
  return [
    rows,
    {
      sql: `SELECT seq${", NULL".repeat(shape.vector.length)} FROM main.sqlite_sequence WHERE name = ? COLLATE NOCASE`,
      params: [shape.name],
    },
  ];
}

/** A load's rows in batches, in a source's own process. */
export function* readRows(source: Source, load: ScratchLoad): Generator<SqlValue[][]> {
  const { connection } = source;
  putInForce(connection, load);
  const shape = shapeOfLoad(source, load.table);
  const plain = load.where === undefined && load.last !== true && load.first === undefined;
  if (!shape.withoutRowid && plain && shape.kind === "table" && shape.key.length === 1) {
    yield* readPages(connection, shape, load);
    const sequence = source.sequence(shape.name);
    if (sequence !== undefined) yield [[sequence, ...shape.vector.map(() => null)]];
    return;
  }
  for (const query of queriesOf(source, load)) {
    let batch: SqlValue[][] = [];
    for (const row of iterate(connection, query)) {
      batch.push(row);
      if (batch.length < PAGE_ROWS) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0) yield batch;
  }
}

/** By rowid, a page at a time: twice as fast as stepping from row to row. */
function* readPages(
  connection: RangeConnection,
  shape: TableShape,
  load: ScratchLoad,
): Generator<SqlValue[][]> {
  const [rowid] = shape.key;
  const at = shape.keyAt[0]!;
  const order = `ORDER BY ${rowid} LIMIT ${PAGE_ROWS}`;
  const { sql, params } = selectRows(shape, load);
  let rows = connection.internal(`${sql} ${order}`).all(params) as SqlValue[][];
  if (rows.length > 0) yield rows;
  if (rows.length < PAGE_ROWS) return;
  const after = selectRows(shape, { ...load, slice: { ...load.slice, low: undefined } });
  const more = connection.internal(
    `${after.sql} ${after.params.length > 0 ? "AND" : "WHERE"} ${rowid} > ? ${order}`,
  );
  while (rows.length === PAGE_ROWS) {
    rows = more.all([...after.params, rows[PAGE_ROWS - 1]![at]!]) as SqlValue[][];
    if (rows.length > 0) yield rows;
  }
}

/** Statements for `scan`, which runs them as any other query. */
export function scanStatements(source: Source, load: ScratchLoad): readonly StampedStatement[] {
  const flags = putInForce(source.connection, load);
  const stamp = load.where?.stamp ?? { wallMs: 0, seed: 0, lastInsertRowid: 0n };
  return queriesOf(source, load).map(({ sql, params }) => ({ sql, params, flags, stamp, told: undefined }));
}

/** The source's tables whose rows make up a virtual table. */
export function shadowTables(source: Source, virtual: string): readonly TableShape[] {
  const { database } = source.connection;
  const names = (type: string): string[] =>
    database
      .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = ? ORDER BY name")
      .pluck()
      .all(type) as string[];
  const owners = names("virtual").sort((a, b) => b.length - a.length);
  const owned = names("shadow").filter(
    (shadow) => owners.find((owner) => hasPrefix(shadow, `${owner}_`)) === virtual,
  );
  return owned.map((shadow) => shapeOfLoad(source, shadow));
}

function hasPrefix(name: string, prefix: string): boolean {
  return lowerAscii(name.slice(0, prefix.length)) === lowerAscii(prefix);
}

function shapeOfLoad(source: Source, table: string): TableShape {
  const shape = source.shape(table);
  // Whoever asks knows the schema: the range has another one by now, or does not have it yet.
  if (shape === undefined || shape.kind === "view")
    throw new RetryError("OSTRAKA_RETRY", `the schema has changed: no table ${table}`);
  return shape;
}

function selectRows(shape: TableShape, load: ScratchLoad): Query {
  const order = load.last ? `ORDER BY ${shape.key.map((part) => `${part} DESC`).join(", ")} LIMIT 1` : "";
  return selectFrom(shape, load, shape.vector.join(", "), order);
}

/** Of a load's rows; parameters in `list` and `tail` are numbered and have the condition's values. */
function selectFrom(shape: TableShape, load: ScratchLoad, list: string, tail: string): Query {
  const { slice, where } = load;
  const bounds = sliceCondition({ keyColumns: keyNames(shape) }, slice);
  const conditions: string[] = [];
  const params: SqlValue[] = [];
  if (where !== undefined) {
    const count = Math.max(...[list, where.sql, tail].map((text) => planParameters(text).count));
    if (where.params.length < count)
      throw new UserError("SQLITE_RANGE", `a condition has ${count} parameters but fewer values were given`);
    // A comment may end it.
    conditions.push(`(${where.sql}\n)`);
    params.push(...where.params.slice(0, count));
  }
  if (bounds.params.length > 0)
    conditions.push(numbered(bounds.sql, params.length, load.first?.byKey !== false));
  params.push(...bounds.params);
  const alias = where?.alias === undefined ? "" : ` AS ${quoteName(where.alias)}`;
  const condition = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
  return {
    sql: `SELECT ${list} FROM main.${quoteName(shape.name)}${alias}${condition} ${tail}`,
    params,
  };
}

/** With `?` as numbers behind `last`. A key that is not to be searched by gets a plus sign. */
function numbered(bounds: string, last: number, search: boolean): string {
  if (last === 0 && search) return bounds;
  let number = last;
  return bounds.replace(/"(?:[^"]|"")*"|\?/g, (part) => {
    if (part === "?") return `?${++number}`;
    return search ? part : `+${part}`;
  });
}

/** First the keys, by the query as it is; then their rows. */
function rowsFirst(source: Source, shape: TableShape, load: ScratchLoad, first: ScratchFirst): Query {
  const { list, order, limit } = first;
  const query = selectFrom(shape, load, `${list}, ${shape.key.join(", ")}`, `${order} LIMIT ${limit}`);
  const width = shape.key.length;
  const found = [...iterate(source.connection, query)].map((row) => row.slice(-width));
  const marks = `(${shape.key.map(() => "?").join(", ")})`;
  const target = width === 1 ? shape.key[0] : `(${shape.key.join(", ")})`;
  return {
    sql: `SELECT ${shape.vector.join(", ")} FROM main.${quoteName(shape.name)} WHERE ${target} IN (VALUES ${
      found.length === 0 ? `(${shape.key.map(() => "NULL").join(", ")})` : found.map(() => marks).join(", ")
    })`,
    params: found.flat(),
  };
}

/** As a table's key names them: unquoted. */
function keyNames({
  withoutRowid,
  keyColumns,
  hiddenRowid,
  key,
  columns,
  keyAt,
}: TableShape): readonly string[] {
  if (withoutRowid) return keyColumns;
  return [hiddenRowid ? key[0]! : columns[keyAt[0]!]!];
}

function iterate(connection: RangeConnection, { sql, params }: Query): IterableIterator<SqlValue[]> {
  const rows = connection.internal(sql).iterate(...bindArguments(planParameters(sql), params));
  return rows as IterableIterator<SqlValue[]>;
}

/** Only what changes a condition's answer; the others could not be changed while the source is pinned. */
function putInForce(connection: RangeConnection, { where }: ScratchLoad): number {
  const flags = (where?.flags ?? 0) & SessionFlag.CaseSensitiveLike;
  connection.setFlags(flags);
  if (where?.stamp !== undefined) connection.setStamp(where.stamp);
  return flags;
}

function textLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
