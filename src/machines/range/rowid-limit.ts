/**
 * What SQLite does when a table's largest rowid is 2^63 - 1 is not the same on every replica: it tries random rowids,
 * from a generator of its own. So while a table is there, a statement that would have one chosen fails as it does in
 * an AUTOINCREMENT table: SQLITE_FULL. A statement that changes a single row may still give that row's rowid itself. One
 * that changes several fails whether it gives them or not: SQLite tells only the last.
 *
 * The tables are looked at once a batch, in a query over all of them, and where a rowid looks like a random one, since the
 * row that was at the limit may be gone by the end of the batch; statements only when one was found. What goes unnoticed
 * is a rowid chosen while a row comes and goes in one batch that a trigger has brought there, or an UPDATE that does not
 * name the limit.
 */
import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import type Database from "better-sqlite3";
import { UserError } from "../../base/errors.js";
import type { RangeConnection } from "./connection.js";
import { bindArguments, planParameters } from "./parameters.js";
import type { TableFacts } from "./table-facts.js";
import { quoteName } from "./temp-objects.js";
import type { StampedStatement, StatementOutcome } from "./types.js";

const LAST_ROWID = 9223372036854775807n;
const LAST_ROWID_TEXT = String(LAST_ROWID);
/** SQLite allows 500 terms in a compound SELECT. */
const TERMS = 400;
/** With this much room the disk is not what is full. */
const ROOM_BYTES = 64 * 1024 * 1024;

interface Opcode {
  readonly opcode: string;
  readonly p2: bigint;
  readonly p3: bigint;
}

/** Random rowids are below this once in a billion times. */
const UNLIKELY_ROWID = 2n ** 32n;

function isGiven(rowid: bigint, sql: string, params: StampedStatement["params"]): boolean {
  return params.includes(rowid) || new RegExp(`(?<!\\d)${String(rowid)}(?!\\d)`).test(sql);
}

export class TableFull extends UserError {
  constructor() {
    super("SQLITE_FULL", "database or disk is full");
  }
}

export class RowidLimit {
  readonly #connection: RangeConnection;
  /** All tables as the connection sees them now. */
  readonly #tables: () => readonly TableFacts[];
  /** Queries that answer the root pages of tables at the limit; undefined after a schema change. */
  #queries: readonly Database.Statement[] | undefined;

  constructor(connection: RangeConnection, tables: () => readonly TableFacts[]) {
    this.#connection = connection;
    this.#tables = tables;
  }

  schemaChanged(): void {
    this.#queries = undefined;
  }

  /** Whether any table is at the limit. */
  reached(): boolean {
    this.#queries ??= this.#prepare();
    return this.#queries.some((query) => query.get() !== undefined);
  }

  /** Whether the statement has brought a row to the limit, where it need not stay. */
  takesLast({ sql, params }: StampedStatement, { lastInsertRowid }: StatementOutcome): boolean {
    if (lastInsertRowid === LAST_ROWID) return true;
    return (sql.includes(LAST_ROWID_TEXT) || params.includes(LAST_ROWID)) && this.reached();
  }

  /** Whether SQLite may have chosen a rowid at random, as it does while some table is at the limit. */
  mayBeRandom({ sql, params, stamp }: StampedStatement, { lastInsertRowid }: StatementOutcome): boolean {
    if (lastInsertRowid < UNLIKELY_ROWID || lastInsertRowid === stamp.lastInsertRowid) return false;
    return !isGiven(lastInsertRowid, sql, params) && this.reached();
  }

  /**
   * Throws when a statement that has run may have had a rowid chosen at random. To be asked after each statement,
   * inside its savepoint, when a table was at the limit before it (`before`) or is now.
   */
  check({ sql, params }: StampedStatement, outcome: StatementOutcome, before: readonly bigint[]): void {
    const full = new Set([...before, ...this.fullPages()]);
    if (full.size === 0) return;
    const program = this.#explain(sql);
    if (!program.some(({ opcode }) => opcode === "NewRowid")) return;
    if (!program.some(({ opcode, p2, p3 }) => opcode === "OpenWrite" && p3 === 0n && full.has(p2))) return;
    const rowid = outcome.lastInsertRowid;
    const alone = outcome.changes === 1 && outcome.totalChanges === 1;
    if (!alone || !isGiven(rowid, sql, params)) throw new TableFull();
  }

  /**
   * Whether SQLITE_FULL can only have come from an AUTOINCREMENT table at the limit. The error may have undone the batch,
   * and the table with it, if it was made there (`made`).
   */
  explainsFull(made: boolean): boolean {
    const found = this.#connection.database
      .prepare(
        "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND instr(lower(sql), 'autoincrement') > 0",
      )
      .get();
    if ((found === undefined && !made) || !this.#mayGrow()) return false;
    const { bavail, bsize } = statfsSync(dirname(this.#connection.path));
    return bavail * bsize > ROOM_BYTES;
  }

  /** The file is not near the size to which it is limited. */
  #mayGrow(): boolean {
    const { database } = this.#connection;
    const [most, pages, pageBytes] = ["max_page_count", "page_count", "page_size"].map((name) =>
      Number(database.pragma(name, { simple: true })),
    );
    return (most! - pages!) * pageBytes! > ROOM_BYTES;
  }

  /** Root pages of the tables at the limit. */
  fullPages(): bigint[] {
    this.#queries ??= this.#prepare();
    return this.#queries.flatMap((query) => query.all() as bigint[]);
  }

  #prepare(): Database.Statement[] {
    const { database } = this.#connection;
    const pages = new Map(
      database
        .prepare("SELECT name, rootpage FROM main.sqlite_schema WHERE type = 'table'")
        .raw(true)
        .all() as [string, bigint][],
    );
    const terms = this.#tables().map(({ kind, withoutRowid, actualName, rowKey: [rowid] }) =>
      kind !== "table" || withoutRowid || rowid === undefined
        ? undefined
        : `SELECT ${pages.get(actualName)} FROM main.${quoteName(actualName)} WHERE ${quoteName(rowid)} = ${LAST_ROWID}`,
    );
    const known = terms.filter((term) => term !== undefined);
    const queries: Database.Statement[] = [];
    for (let i = 0; i < known.length; i += TERMS)
      queries.push(database.prepare(known.slice(i, i + TERMS).join(" UNION ALL ")).pluck(true));
    return queries;
  }

  #explain(sql: string): Opcode[] {
    const plan = planParameters(`EXPLAIN ${sql}`);
    const nulls = new Array<null>(plan.count).fill(null);
    return this.#connection.database.prepare(plan.sql).all(...bindArguments(plan, nulls)) as Opcode[];
  }
}
