/**
 * A gateway on one plain SQLite file, served over the real wire: what the driver, the shell and the sqllogictest runner
 * are tested against without a cluster. Sessions have a connection each; writers that meet are told OSTRAKA_RETRY
 * inside a transaction and wait outside; every keyed write is applied once. Tests can look into it and get in its way.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { AmbiguousError, RetryError, UserError } from "../../src/base/errors.js";
import { type SqlValue, ValueWriter } from "../../src/base/values.js";
import { autocommitId } from "../../src/gateway/attempts.js";
import type { IdempotencyKey, RowStream, StatementOutcome } from "../../src/machines/range/types.js";
import type { ClientLimits } from "../../src/rpc/client-service.js";
import type {
  ExecuteRequest,
  ExecuteResult,
  Gateway,
  Params,
  Session,
  SessionCounts,
} from "../../src/rpc/gateway.js";
import { type RpcLogger, silentLogger } from "../../src/rpc/logger.js";
import { RpcServer, type ServerTls } from "../../src/rpc/server.js";
import { systemClock } from "../../src/rpc/system.js";

const CHUNK_BYTES = 64 * 1024;

/** Called around each statement; a promise delays it, an error takes its place. */
export interface Interference {
  before?(request: ExecuteRequest): Promise<void> | void;
  /** What was done stays done; an error thrown here replaces the answer. */
  after?(request: ExecuteRequest): Promise<void> | void;
}

export class LocalGateway implements Gateway {
  readonly directory = mkdtempSync(join(tmpdir(), "ostraka-local-"));
  readonly file = join(this.directory, "data.sqlite");
  readonly answers = new Map<string, readonly StatementOutcome[]>();
  readonly outcomes = new Map<string, "committed" | "aborted">();
  readonly sessions = new Set<LocalSession>();
  /** Keys of all requests that came, in order. */
  readonly keys: IdempotencyKey[] = [];
  /** What these requests said they were sent under before. */
  readonly sentUnder: (number | undefined)[] = [];
  readonly retries: unknown[] = [];
  /** With which sessions were opened. */
  readonly countsGiven: (SessionCounts | undefined)[] = [];
  interference: Interference = {};
  transactions = 0;
  /** Rows handed out by streams. */
  streamedRows = 0;
  openStreams = 0;
  /** The node that its servers say leads everything. */
  leader: number | undefined;
  /** The version that its servers tell of. */
  schema = 1;

  constructor() {
    this.connect().close();
  }

  connect(): Database.Database {
    const db = new Database(this.file, { timeout: 0 });
    db.pragma("journal_mode = wal");
    db.pragma("synchronous = off");
    db.pragma("foreign_keys = on");
    db.defaultSafeIntegers(true);
    return db;
  }

  openSession(kind: "session" | "autocommit", counts?: SessionCounts): Session {
    if (kind === "session") this.countsGiven.push(counts);
    const session = new LocalSession(this, kind);
    this.sessions.add(session);
    return session;
  }

  async outcome(transactionId: string): Promise<"committed" | "aborted" | "unknown"> {
    const known = this.outcomes.get(transactionId);
    if (known !== undefined) return known;
    this.outcomes.set(transactionId, "aborted");
    return "aborted";
  }

  async admin(verb: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (verb === "echo") return args;
    if (verb === "never") return new Promise(() => undefined);
    throw new UserError("OSTRAKA_UNSUPPORTED", `unknown operation "${verb}"`);
  }

  mainLeader(): number | undefined {
    return this.leader;
  }

  schemaVersion(): number {
    return this.schema;
  }

  dispose(): void {
    for (const session of this.sessions) session.dispose();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

class LocalSession implements Session {
  readonly #gateway: LocalGateway;
  readonly #kind: "session" | "autocommit";
  readonly #db: Database.Database;
  #turn: Promise<unknown> = Promise.resolve();
  #failed: RetryError | undefined;
  #transactionId: string | undefined;
  #readOnly = false;

  constructor(gateway: LocalGateway, kind: "session" | "autocommit") {
    this.#gateway = gateway;
    this.#kind = kind;
    this.#db = gateway.connect();
  }

  state(): "idle" | "open" | "failed" {
    if (this.#failed !== undefined) return "failed";
    return this.#db.open && this.#db.inTransaction ? "open" : "idle";
  }

  transactionId(): string | undefined {
    return this.#transactionId;
  }

  counts(): SessionCounts | undefined {
    if (this.#kind === "autocommit" || !this.#db.open) return undefined;
    const sql =
      'select changes() as "changes", total_changes() as "totalChanges", last_insert_rowid() as "lastInsertRowid"';
    const counts = this.#db.prepare(sql).get() as Record<keyof SessionCounts, bigint>;
    return { ...counts, changes: Number(counts.changes), totalChanges: Number(counts.totalChanges) };
  }

  execute(request: ExecuteRequest): Promise<ExecuteResult> {
    if (this.#kind === "autocommit") return this.#execute(request);
    const result = this.#turn.then(() => this.#execute(request));
    this.#turn = result.then(
      (r) => (r.kind === "stream" ? (r.stream as LocalStream).closed : undefined),
      () => undefined,
    );
    return result;
  }

  async #execute(request: ExecuteRequest): Promise<ExecuteResult> {
    const { interference } = this.#gateway;
    if (request.retry !== undefined) this.#gateway.retries.push(request.retry);
    await interference.before?.(request);
    const result = await this.#once(request.key, request, () => this.#run(request));
    await interference.after?.(request);
    return result;
  }

  async #once(
    key: IdempotencyKey | undefined,
    request: Pick<ExecuteRequest, "timeoutMs" | "signal" | "sentUnder">,
    run: () => ExecuteResult,
  ): Promise<ExecuteResult> {
    const name = key && autocommitId(key);
    if (key !== undefined) {
      this.#gateway.keys.push(key);
      this.#gateway.sentUnder.push(request.sentUnder);
    }
    const known = name === undefined ? undefined : this.#gateway.answers.get(name);
    if (known !== undefined) return { kind: "outcome", outcome: known[0]! };
    const result = await this.#whenFree(request, run);
    if (name !== undefined && result.kind === "outcome") {
      this.#gateway.answers.set(name, [result.outcome]);
      this.#gateway.outcomes.set(name, "committed");
    }
    return result;
  }

  /** Waits for another writer outside transactions; loses to it inside. */
  async #whenFree<T>(request: Pick<ExecuteRequest, "timeoutMs" | "signal">, run: () => T): Promise<T> {
    const deadline = performance.now() + (request.timeoutMs ?? 10_000);
    for (;;) {
      if (request.signal?.aborted === true) throw new RetryError("OSTRAKA_TIMEOUT", "interrupted");
      const inside = this.#db.inTransaction;
      try {
        return run();
      } catch (error) {
        const busy =
          error instanceof Error && String((error as { code?: unknown }).code).startsWith("SQLITE_BUSY");
        if (!busy) throw translate(error);
        if (inside) {
          this.#failed = new RetryError("OSTRAKA_RETRY", "another transaction came in between");
          if (this.#db.inTransaction) this.#db.exec("rollback");
          throw this.#failed;
        }
        if (performance.now() > deadline)
          throw new RetryError("OSTRAKA_TIMEOUT", "the writer before took too long");
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  }

  #run(request: ExecuteRequest): ExecuteResult {
    const word = /^[\s;]*(\w*)/.exec(request.sql)?.[1]?.toLowerCase() ?? "";
    if (this.#failed !== undefined) {
      if (word !== "rollback") throw this.#failed;
      this.#failed = undefined;
      return none(this.#db);
    }
    if (this.#kind === "autocommit" && ["begin", "savepoint"].includes(word))
      throw new UserError("OSTRAKA_UNSUPPORTED", `${word.toUpperCase()} needs a session`);
    const sql = request.sql.replace(/^\s*begin\s+(read\s+only|concurrent)/i, "BEGIN");
    if (word === "begin") {
      this.#readOnly = /^\s*begin\s+read\s+only/i.test(request.sql);
      this.#transactionId = `local-${++this.#gateway.transactions}`;
    }
    const ending = this.#db.inTransaction && (word === "commit" || word === "end");
    if (ending && this.#gateway.outcomes.get(this.#transactionId ?? "") === "aborted")
      throw new RetryError("OSTRAKA_RETRY", "aborted by a question");
    const result = this.#statement(sql, request.params);
    if (ending && this.#transactionId !== undefined)
      this.#gateway.outcomes.set(this.#transactionId, "committed");
    if (!this.#db.inTransaction) this.#transactionId = undefined;
    return result;
  }

  #statement(sql: string, params: Params): ExecuteResult {
    let statement: Database.Statement;
    try {
      statement = this.#db.prepare(sql);
    } catch (error) {
      if (error instanceof RangeError && /no statements/i.test(error.message)) return none(this.#db);
      throw error;
    }
    if (this.#readOnly && this.#db.inTransaction && !statement.readonly)
      throw new UserError("SQLITE_READONLY", "the transaction is read only");
    const bound = bindings(params);
    if (!statement.reader) {
      const { changes } = statement.run(...bound);
      const rowid = this.#db.prepare("select last_insert_rowid()").pluck().get() as bigint;
      return { kind: "outcome", outcome: outcome([], [], new Uint8Array(), 0, changes, rowid) };
    }
    return this.#query(statement, sql, bound);
  }

  /** Small results at once, others as a stream on a connection of its own outside transactions. */
  #query(statement: Database.Statement, sql: string, bound: unknown[]): ExecuteResult {
    const ownConnection = statement.readonly && !this.#db.inTransaction && this.#kind === "autocommit";
    const db = ownConnection ? this.#gateway.connect() : this.#db;
    const reader = (ownConnection ? db.prepare(sql) : statement).raw();
    const columns = reader.columns();
    const names = columns.map((column) => column.name);
    const types = columns.map((column) => column.type);
    const rows = reader.iterate(...bound) as IterableIterator<SqlValue[]>;
    const first = gather(rows);
    if (first.done) {
      const rowid = db.prepare("select last_insert_rowid()").pluck().get() as bigint;
      const changes = statement.readonly ? 0 : first.count;
      if (ownConnection) db.close();
      return { kind: "outcome", outcome: outcome(names, types, first.rows, first.count, changes, rowid) };
    }
    const release = (): void => {
      rows.return?.();
      if (ownConnection) db.close();
    };
    return { kind: "stream", stream: new LocalStream(this.#gateway, names, types, first, rows, release) };
  }

  batch(
    statements: readonly { readonly sql: string; readonly params: Params }[],
    request: Omit<ExecuteRequest, "sql" | "params">,
  ): Promise<readonly StatementOutcome[]> {
    const run = async (): Promise<readonly StatementOutcome[]> => {
      const name = request.key && autocommitId(request.key);
      const known = name === undefined ? undefined : this.#gateway.answers.get(name);
      if (known !== undefined) return known;
      const all = this.#db.transaction(() =>
        statements.map(({ sql, params }) => {
          const result = this.#statement(sql, params);
          if (result.kind === "stream") throw new UserError("OSTRAKA_TOO_LARGE", "too many rows for a batch");
          return result.outcome;
        }),
      );
      const outcomes = await this.#whenFree(request, () => all.immediate());
      if (name !== undefined) this.#gateway.answers.set(name, outcomes);
      return outcomes;
    };
    const result = this.#turn.then(run);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async close(): Promise<void> {
    await this.#turn.catch(() => undefined);
    this.dispose();
  }

  /** As a node that stops: nobody is told. */
  rollBack(): void {
    if (this.#db.inTransaction) this.#db.exec("rollback");
  }

  dispose(): void {
    this.#gateway.sessions.delete(this);
    if (!this.#db.open) return;
    try {
      if (this.#db.inTransaction) this.#db.exec("rollback");
    } catch {
      // A stream that nobody closed keeps the connection busy; closing it below ends both.
    }
    this.#db.close();
  }
}

class LocalStream implements RowStream {
  #first: Chunk | undefined;
  #open = true;
  readonly closed: Promise<void>;
  #resolveClosed!: () => void;

  constructor(
    private readonly gateway: LocalGateway,
    readonly columns: readonly string[],
    readonly columnTypes: readonly (string | null)[],
    first: Chunk,
    private readonly rows: IterableIterator<SqlValue[]>,
    private readonly release: () => void,
  ) {
    this.#first = first;
    gateway.openStreams++;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async next(): Promise<{ rows: Uint8Array; count: number } | undefined> {
    const chunk = this.#first ?? gather(this.rows);
    this.#first = undefined;
    // As a runner's answer would: never in the same turn.
    await new Promise((resolve) => setImmediate(resolve));
    if (chunk.count === 0) return undefined;
    this.gateway.streamedRows += chunk.count;
    return chunk;
  }

  summary(): Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid"> {
    return { changes: 0, totalChanges: 0, lastInsertRowid: 0n };
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.gateway.openStreams--;
    this.release();
    this.#resolveClosed();
  }
}

interface Chunk {
  readonly rows: Uint8Array;
  readonly count: number;
  readonly done: boolean;
}

function gather(rows: IterableIterator<SqlValue[]>): Chunk {
  const writer = new ValueWriter(CHUNK_BYTES);
  let count = 0;
  while (writer.length < CHUNK_BYTES) {
    let next: IteratorResult<SqlValue[]>;
    try {
      next = rows.next();
    } catch (error) {
      throw translate(error);
    }
    if (next.done === true) return { rows: writer.take(), count, done: true };
    writer.vector(next.value);
    count++;
  }
  return { rows: writer.take(), count, done: false };
}

function bindings(params: Params): unknown[] {
  if (!(params instanceof Map)) return [...(params as readonly SqlValue[])];
  if (params.size === 0) return [];
  const named: Record<string, unknown> = {};
  for (const [name, value] of params as ReadonlyMap<string, SqlValue>)
    named[name.replace(/^[:@$]/, "")] = value;
  return [named];
}

function outcome(
  columns: readonly string[],
  columnTypes: readonly (string | null)[],
  rows: Uint8Array,
  rowCount: number,
  changes: number,
  lastInsertRowid: bigint,
): StatementOutcome {
  return { columns, columnTypes, rows, rowCount, changes, totalChanges: changes, lastInsertRowid };
}

function none(db: Database.Database): ExecuteResult {
  const rowid = db.prepare("select last_insert_rowid()").pluck().get() as bigint;
  return { kind: "outcome", outcome: outcome([], [], new Uint8Array(), 0, 0, rowid) };
}

function translate(error: unknown): unknown {
  if (error instanceof Database.SqliteError) return new UserError(error.code, error.message);
  if (error instanceof RangeError || error instanceof TypeError)
    return new UserError("SQLITE_ERROR", error.message);
  return error;
}

export interface LocalServer {
  readonly url: string;
  readonly port: number;
  readonly gateway: LocalGateway;
  readonly server: RpcServer;
  /** Cuts every connection at once, as a crash would; the data stays. */
  cut(): Promise<void>;
  close(): Promise<void>;
}

export interface LocalServerOptions {
  readonly gateway?: LocalGateway;
  readonly port?: number;
  readonly nodeId?: number;
  readonly authToken?: string;
  readonly tls?: ServerTls;
  readonly logger?: RpcLogger;
  readonly limits?: Partial<ClientLimits>;
}

/** A server on a free loopback port over a database of its own (or over another server's, for failover). */
export async function startLocalServer(options: LocalServerOptions = {}): Promise<LocalServer> {
  const gateway = options.gateway ?? new LocalGateway();
  const sqliteVersion = new Database(":memory:").prepare("select sqlite_version()").pluck().get() as string;
  const nodeId = options.nodeId ?? 1;
  const server = new RpcServer({
    host: "127.0.0.1",
    port: options.port ?? 0,
    clock: systemClock,
    logger: options.logger ?? silentLogger,
    authToken: options.authToken,
    tls: options.tls,
    client: { gateway, clusterId: "local", nodeId, sqliteVersion, limits: options.limits },
  });
  await server.listen();
  const scheme = options.tls === undefined ? "ostraka" : "ostrakas";
  let closed = false;
  return {
    url: `${scheme}://127.0.0.1:${server.port}`,
    port: server.port,
    gateway,
    server,
    cut: () => server.close(),
    close: async () => {
      if (closed) return;
      closed = true;
      await server.close();
      if (options.gateway === undefined) gateway.dispose();
    },
  };
}

/** For tests: the error a node gives when it does not know what became of a write. */
export function ambiguous(message = "leadership was lost"): AmbiguousError {
  return new AmbiguousError(message, undefined);
}
