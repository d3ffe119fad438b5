/**
 * The driver's public interface. Everything here is a promise to users (README, "Driver"); nothing here knows how a
 * cluster is reached, so the embedded library offers the same types.
 *
 * Conventions: times are milliseconds; every call takes `{ signal, timeoutMs }` last; every failure of the database
 * is an OstrakaError (errors.ts) with a `code`, every misuse of the interface a TypeError.
 */

/** How SQLite's 64-bit INTEGERs appear in rows. "number" throws a RangeError on one that a number cannot hold. */
export type IntMode = "number" | "bigint" | "string";

/** What may be bound: NULL, INTEGER or REAL, TEXT, BLOB; booleans become 0 and 1, a Date its ISO text. */
export type InputValue = null | number | bigint | string | boolean | Date | Uint8Array | ArrayBuffer;

/** What comes back: NULL, INTEGER (by `intMode`) or REAL, TEXT, BLOB. */
export type Value = null | number | bigint | string | Uint8Array;

/** By position (`?`, `?3`), or by name (`:a`, `@a`, `$a`), the names with or without their prefix. */
export type Args = readonly InputValue[] | Readonly<Record<string, InputValue>>;

export interface StatementInput {
  readonly sql: string;
  readonly args?: Args | undefined;
}

export interface CallOptions {
  /** Aborting rejects the call with the signal's reason and stops the statement at the server. */
  readonly signal?: AbortSignal | undefined;
  /** Deadline of this call; defaults to that of `connect`. */
  readonly timeoutMs?: number | undefined;
}

/** One row: array-like, iterable, and with a property per column (the first of several of one name). */
export interface Row extends Iterable<Value> {
  readonly length: number;
  readonly [index: number]: Value;
  readonly [column: string]: Value;
}

export interface ResultSet {
  readonly columns: readonly string[];
  /** Declared types, null for expressions. */
  readonly columnTypes: readonly (string | null)[];
  readonly rows: readonly Row[];
  /** Rows inserted, updated or deleted by the statement itself; 0 for queries. */
  readonly rowsAffected: number;
  /**
   * The rowid of the last row the statement inserted; undefined when it changed none or is no INSERT. As SQLite's
   * last_insert_rowid(), what it was before (0 in the pool) where an upsert only updated or the table has no rowids.
   */
  readonly lastInsertRowid: bigint | undefined;
}

export interface RunResult {
  readonly changes: number;
  readonly lastInsertRowid: bigint | undefined;
}

/** What a script came to. */
export interface ExecResult {
  readonly statements: number;
  readonly rowsAffected: number;
}

/** A running query, read one row at a time; the head is known before the first row. */
export interface RowIterator extends AsyncIterableIterator<Row> {
  /** Resolves once the statement has begun to answer. */
  head(): Promise<{ readonly columns: readonly string[]; readonly columnTypes: readonly (string | null)[] }>;
  /** Stops the query and frees what it holds; `break` in a `for await` does the same. */
  return(): Promise<IteratorResult<Row>>;
}

/** A statement's text, to be run many times. It holds nothing at the server and needs no closing. */
export interface Statement {
  readonly sql: string;
  /**
   * @example
   * const insert = db.prepare("insert into t (a, b) values (?, ?)");
   * const { changes, lastInsertRowid } = await insert.run(1, "one");
   * await db.prepare("insert into t (a) values (:a)").run({ a: 2 });
   */
  run(...args: readonly InputValue[] | readonly [Args]): Promise<RunResult>;
  /** The first row, or undefined. */
  get(...args: readonly InputValue[] | readonly [Args]): Promise<Row | undefined>;
  all(...args: readonly InputValue[] | readonly [Args]): Promise<readonly Row[]>;
  iterate(...args: readonly InputValue[] | readonly [Args]): RowIterator;
  /** The same statement with call options: `st.with({ timeoutMs: 100 }).get(1)`. */
  with(options: CallOptions): Statement;
}

/** What runs statements: the pool, a session, a transaction. */
export interface Executor {
  /**
   * Runs one statement and gathers its rows.
   * @example
   * const rs = await db.execute("select id, name from t where id = ?", [1]);
   * for (const row of rs.rows) console.log(row.id, row[1]);
   * await db.execute({ sql: "update t set name = :name where id = :id", args: { name: "x", id: 1 } });
   * await db.execute({ sql: "select count(*) from t" }, { timeoutMs: 500 });
   */
  execute(statement: StatementInput, options: CallOptions): Promise<ResultSet>;
  execute(statement: string | StatementInput, args?: Args, options?: CallOptions): Promise<ResultSet>;
  /**
   * Runs statements all or nothing, one ResultSet each.
   * @example
   * await db.batch([
   *   { sql: "update account set balance = balance - ? where id = ?", args: [10, 1] },
   *   { sql: "update account set balance = balance + ? where id = ?", args: [10, 2] },
   * ]);
   */
  batch(
    statements: readonly (string | StatementInput)[],
    options?: CallOptions,
  ): Promise<readonly ResultSet[]>;
  /**
   * Runs a script, one statement after the other, stopping at the first error. `timeoutMs` is for each statement. On the
   * pool a script has a session of its own: a transaction that it leaves open is rolled back, and an error.
   * @example
   * await db.exec("create table t (id integer primary key, name text); insert into t (name) values ('a');");
   */
  exec(script: string, options?: CallOptions): Promise<ExecResult>;
  /**
   * Streams a query's rows in bounded memory.
   * @example
   * for await (const row of db.iterate("select id from big where id > ?", [10])) {
   *   if (row.id === 99) break; // frees the query
   * }
   */
  iterate(statement: StatementInput, options: CallOptions): RowIterator;
  iterate(statement: string | StatementInput, args?: Args, options?: CallOptions): RowIterator;
  prepare(sql: string): Statement;
}

export type TransactionMode = "write" | "read";

/** An open transaction. Every statement sees those before it; nobody else does until `commit` has resolved. */
export interface Transaction extends Executor {
  /** True once it was committed, rolled back (by a statement too, as INSERT OR ROLLBACK does), or lost. */
  readonly closed: boolean;
  /** The name under which `db.outcome` knows it; undefined for read transactions. */
  readonly id: string | undefined;
  /** Rejects with OSTRAKA_RETRY when another transaction came in between: nothing was committed. */
  commit(options?: CallOptions): Promise<void>;
  /** Does nothing when it is closed. */
  rollback(): Promise<void>;
}

export type SessionState = "idle" | "open" | "failed";

/**
 * One ordered conversation: all SQL (BEGIN, SAVEPOINT, pragmas, TEMP objects, changes()), calls run one after the
 * other. It lives on one node. When that is lost the session goes on at another one; an open transaction is lost with
 * the node (OSTRAKA_RETRY until ROLLBACK), and so are TEMP objects and pragmas (one call says so with
 * OSTRAKA_UNAVAILABLE). `changes()` and `last_insert_rowid()` answer what they last did.
 *
 * A statement run inside a loop over the session's own `iterate` makes the rest of those rows be kept in memory, up to
 * 64 MiB.
 */
export interface Session extends Executor {
  /** Whether a transaction is open, as of the last answer. */
  readonly state: SessionState;
  /** Stops what runs and rolls back what is open. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export type Outcome = "committed" | "aborted" | "unknown";

export interface ServerInfo {
  readonly clusterId: string;
  /** The node this process talks to at the moment. */
  readonly nodeId: number;
  readonly sqliteVersion: string;
}

/** A cluster, as a concurrent pool: calls in flight together may run in any order. */
export interface Database extends Executor {
  readonly server: ServerInfo;
  /**
   * Commits what `fn` does, or rolls back when it throws. Runs `fn` again on OSTRAKA_RETRY, so `fn` must not have
   * other effects. Where `timeoutMs` is given nothing is committed later than that.
   * @example
   * await db.transaction(async (tx) => {
   *   const row = (await tx.execute("select n from counter where id = 1")).rows[0];
   *   await tx.execute("update counter set n = ? where id = 1", [Number(row?.n) + 1]);
   * });
   */
  transaction<T>(
    fn: (tx: Transaction) => Promise<T>,
    options?: CallOptions & { readonly mode?: TransactionMode | undefined },
  ): Promise<T>;
  /**
   * Opens a transaction to be ended by `commit` or `rollback`.
   * @example
   * const tx = await db.begin("write");
   * try {
   *   await tx.execute("insert into t (name) values (?)", ["a"]);
   *   await tx.commit();
   * } finally {
   *   await tx.rollback(); // does nothing after a commit
   * }
   */
  begin(mode?: TransactionMode, options?: CallOptions): Promise<Transaction>;
  session(options?: CallOptions): Promise<Session>;
  /**
   * What became of a transaction whose call rejected with OSTRAKA_UNKNOWN_OUTCOME (its `transactionId`).
   * "aborted" is final: it will never commit.
   */
  outcome(transactionId: string, options?: CallOptions): Promise<Outcome>;
  /** An operation of the cluster ("node.list", "node.status", "check", ...); arguments and answer are plain objects. */
  admin(verb: string, args?: Readonly<Record<string, unknown>>, options?: CallOptions): Promise<unknown>;
  /** Rejects what is outstanding and lets go of every connection. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface TlsOptions {
  /** PEM; the system's roots when left out. */
  readonly ca?: Uint8Array | string | undefined;
  readonly cert?: Uint8Array | string | undefined;
  readonly key?: Uint8Array | string | undefined;
  /** The name to check in the server's certificate, when it is not the host connected to. */
  readonly serverName?: string | undefined;
}

export interface ConnectOptions {
  /** Default "number". */
  readonly intMode?: IntMode | undefined;
  readonly authToken?: string | undefined;
  /** Only with ostrakas:// URLs. */
  readonly tls?: TlsOptions | undefined;
  /** Deadline of `connect` itself and default of every call: 30,000. */
  readonly timeoutMs?: number | undefined;
}
