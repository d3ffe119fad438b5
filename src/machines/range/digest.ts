/**
 * A digest of a range's logical state: equal on every replica at an equal applied index, whatever the files look like.
 *
 * It covers the schema in creation order, every table's rows in key order with exact storage classes, our own tables,
 * user_version and application_id. Indexes follow from the rows and are left out (integrity_check is for them), and
 * so are page numbers and free pages. A virtual table counts by what it answers, and by the rows of its shadow tables:
 * transactions replicate changes of those.
 *
 * Reads a snapshot on a connection of its own and lets others run between slices.
 */
import { createHash, type Hash } from "node:crypto";
import { UserError } from "../../base/errors.js";
import type { LogIndex } from "../../base/ids.js";
import { type SqlValue, ValueWriter } from "../../base/values.js";
import { openConnection, type RangeConnection } from "./connection.js";
import { classifySqliteError } from "./sqlite-errors.js";
import { RangeState } from "./state.js";

const SLICE_ROWS = 2000;
const HASHED_BYTES = 64 * 1024;
/** Derived from other tables, and without rows of their own. */
const DERIVED = /\busing\s+(fts5vocab|fts4aux|dbstat|sqlite_stmt)\b/i;

export interface StateDigest {
  readonly appliedIndex: LogIndex;
  readonly digest: string;
}

/** `pause` is awaited between slices of work. */
export async function digestDatabase(path: string, pause: () => Promise<void>): Promise<StateDigest> {
  const connection = openConnection(path, { readonly: true, role: "read" });
  try {
    connection.database.exec("BEGIN");
    const appliedIndex = RangeState.appliedIndexOf(connection.database);
    const hash = createHash("sha256");
    for (const query of queries(connection)) {
      hash.update(`\n${query}\n`);
      try {
        await hashRows(connection, query, hash, pause);
      } catch (error) {
        // A virtual table that cannot be read, as what has its content is gone, fails alike everywhere.
        const failure = classifySqliteError(error);
        if (!(failure instanceof UserError)) throw error;
        hash.update(`\n${failure.code} ${failure.message}\n`);
      }
    }
    return { appliedIndex, digest: hash.digest("hex") };
  } finally {
    connection.close();
  }
}

async function hashRows(
  connection: RangeConnection,
  query: string,
  hash: Hash,
  pause: () => Promise<void>,
): Promise<void> {
  const writer = new ValueWriter(HASHED_BYTES);
  let rows = 0;
  for (const row of connection.database.prepare(query).raw(true).iterate()) {
    writer.vector(row as SqlValue[]);
    if (writer.length >= HASHED_BYTES) hash.update(writer.take());
    if (++rows % SLICE_ROWS === 0) await pause();
  }
  hash.update(writer.take());
}

interface Listed {
  readonly name: string;
  readonly kind: string;
  readonly withoutRowid: boolean;
  readonly sql: string;
}

function queries({ database }: RangeConnection): string[] {
  const tables = database
    .prepare(
      `SELECT s.name, l.type, l.wr, s.sql FROM main.sqlite_schema s
       JOIN pragma_table_list l ON l.schema = 'main' AND l.name = s.name
       WHERE s.type = 'table' ORDER BY s.name`,
    )
    .raw(true)
    .all() as [string, string, bigint, string][];
  const listed = tables.map(
    ([name, kind, wr, sql]): Listed => ({ name, kind, withoutRowid: wr === 1n, sql }),
  );
  return [
    "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY rowid",
    "SELECT user_version, application_id FROM pragma_user_version, pragma_application_id",
    ...listed
      .filter(({ kind, sql }) => !(kind === "virtual" && DERIVED.test(sql)))
      .map((table) => rowsQuery(database, table)),
  ];
}

function rowsQuery(database: RangeConnection["database"], { name, withoutRowid }: Listed): string {
  const from = `FROM main.${quote(name)}`;
  let columns: [name: string, key: bigint][];
  try {
    columns = database
      .prepare("SELECT name, pk FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0 ORDER BY cid")
      .raw(true)
      .all(name) as typeof columns;
  } catch {
    // A virtual table that cannot be opened: why is told by the query.
    return `SELECT * ${from}`;
  }
  const quoted = columns.map(([column]) => quote(column));
  if (withoutRowid) {
    const key = columns.filter(([, pk]) => pk > 0n).sort((a, b) => Number(a[1] - b[1]));
    return `SELECT ${quoted.join(", ")} ${from} ORDER BY ${key.map(([column]) => quote(column)).join(", ")}`;
  }
  const taken = new Set(columns.map(([column]) => column.toLowerCase()));
  const rowid = ["rowid", "_rowid_", "oid"].find((candidate) => !taken.has(candidate));
  // Without a name for it the rowid cannot be ordered by, but a full scan of a table goes in its order.
  if (rowid === undefined) return `SELECT ${quoted.join(", ")} ${from} NOT INDEXED`;
  return `SELECT ${[rowid, ...quoted].join(", ")} ${from} ORDER BY ${rowid}`;
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
