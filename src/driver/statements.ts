/** The messages that run statements, and the gathering of what they answer; for the pool and for sessions alike. */
import { ClientOp, ServerOp, type Summary, type WireKey } from "../rpc/protocol.js";
import {
  bindArgs,
  checkBatchSize,
  checkSize,
  isPlainObject,
  statementSize,
  type WireParams,
} from "./bind.js";
import { type CallTerms, type ResultMessage, RetriedCall, type RowsMessage } from "./calls.js";
import { OstrakaError } from "./errors.js";
import type { Pool } from "./pool.js";
import { Result } from "./rows.js";
import { firstWord, type Word } from "./text.js";
import type { Args, IntMode, ResultSet, StatementInput } from "./types.js";

/** A statement ready to be sent. */
export interface BoundStatement {
  readonly sql: string;
  readonly params: WireParams;
  readonly word: Word;
}

/** Throws TypeErrors for what is no statement or cannot be bound, OSTRAKA_TOO_LARGE for what is too large. */
export function bindStatement(statement: string | StatementInput, args?: Args): BoundStatement {
  let sql: unknown = statement;
  let given: Args | undefined = args;
  if (typeof statement === "object" && statement !== null) {
    sql = statement.sql;
    given = args ?? statement.args;
  }
  if (typeof sql !== "string") throw new TypeError("a statement is a string or { sql, args }");
  const params = bindArgs(given);
  checkSize(sql, params);
  return { sql, params, word: firstWord(sql) };
}

/** As in better-sqlite3: values one by one, or one array, or one object of names. */
export function spreadArgs(args: readonly unknown[]): Args {
  const [only] = args;
  if (args.length === 1 && (Array.isArray(only) || isPlainObject(only))) return only as Args;
  return args as Args;
}

export function executeMessage(
  id: number,
  session: number,
  { sql, params }: BoundStatement,
  key: WireKey | null,
  timeoutMs: number,
  want: number,
  retry?: readonly [attempt: number, ageMs: number],
): readonly unknown[] {
  return retry === undefined
    ? [ClientOp.Execute, id, session, sql, params, key, timeoutMs, want]
    : [ClientOp.Execute, id, session, sql, params, key, timeoutMs, want, retry];
}

/** Of a batch. */
export function bindStatements(statements: readonly (string | StatementInput)[]): readonly BoundStatement[] {
  if (!Array.isArray(statements)) throw new TypeError("batch takes an array of statements");
  const bound = statements.map((statement) => bindStatement(statement));
  checkBatchSize(bound);
  return bound;
}

/** About how much it takes on the wire. */
export function statementBytes({ sql, params }: BoundStatement): number {
  return statementSize(sql, params);
}

/** Gathers head, chunks and summary into a ResultSet. */
export class ResultGatherer {
  #columns: readonly string[] = [];
  #columnTypes: readonly (string | null)[] = [];
  #chunks: Uint8Array[] = [];
  summary: Summary | undefined;

  constructor(
    readonly intMode: IntMode,
    readonly word: Word,
  ) {}

  reset(): void {
    this.#chunks = [];
  }

  /** The result once it is complete. Throws RangeError on integers that do not fit `intMode`. */
  take(message: readonly unknown[]): ResultSet | undefined {
    let rows: Uint8Array | null;
    let count: number;
    let summary: Summary | null;
    if (message[0] === ServerOp.Result) {
      [, , this.#columns, this.#columnTypes, rows, count, , summary] = message as unknown as ResultMessage;
    } else {
      [, , rows, count, , summary] = message as unknown as RowsMessage;
    }
    if (rows !== null && count > 0) this.#chunks.push(rows);
    if (summary === null) return undefined;
    this.summary = summary;
    return makeResult(this.#columns, this.#columnTypes, this.#chunks, summary, this.intMode, this.word);
  }
}

function makeResult(
  columns: readonly string[],
  columnTypes: readonly (string | null)[],
  chunks: readonly Uint8Array[],
  [changes, , rowid]: Summary,
  intMode: IntMode,
  word: Word,
): ResultSet {
  const inserted = word === "insert" && changes > 0;
  const lastInsertRowid = inserted ? BigInt(rowid) : undefined;
  const affected = word === "query" ? 0 : changes;
  const result = new Result(columns, columnTypes, chunks, intMode, affected, lastInsertRowid);
  // Integers that cannot be shown must fail the call, not whoever looks at the rows.
  if (chunks.length > 0) void result.rows;
  return result;
}

type BatchItem = readonly [
  columns: string[],
  columnTypes: (string | null)[],
  rows: Uint8Array | null,
  rowCount: number,
  summary: Summary,
];

export function takeBatch(
  message: readonly unknown[],
  statements: readonly BoundStatement[],
  intMode: IntMode,
): readonly ResultSet[] {
  const items = message[2] as readonly BatchItem[];
  return items.map(([columns, columnTypes, rows, count, summary], i) => {
    if (rows === null && count > 0)
      throw new OstrakaError(
        "OSTRAKA_TOO_LARGE",
        "the batch was applied, but its rows are too many to be told",
      );
    const chunks = rows === null || count === 0 ? [] : [rows];
    return makeResult(columns, columnTypes, chunks, summary, intMode, statements[i]!.word);
  });
}

/** One autocommit statement on any node. */
export class ExecuteCall extends RetriedCall<ResultSet> {
  readonly #statement: BoundStatement;
  readonly #gatherer: ResultGatherer;

  constructor(pool: Pool, terms: CallTerms, statement: BoundStatement, intMode: IntMode) {
    super(pool, terms);
    this.#statement = statement;
    this.#gatherer = new ResultGatherer(intMode, statement.word);
  }

  get bytes(): number {
    return statementBytes(this.#statement);
  }

  message(id: number): readonly unknown[] {
    return executeMessage(id, 0, this.#statement, this.key, this.remainingMs(), 0);
  }

  protected take(message: readonly unknown[]): ResultSet | undefined {
    return this.#gatherer.take(message);
  }

  protected override restart(): void {
    this.#gatherer.reset();
  }
}

/** Statements all or nothing on any node. */
export class BatchCall extends RetriedCall<readonly ResultSet[]> {
  constructor(
    pool: Pool,
    terms: CallTerms,
    private readonly statements: readonly BoundStatement[],
    private readonly intMode: IntMode,
  ) {
    super(pool, terms);
  }

  get bytes(): number {
    return this.statements.reduce((sum, statement) => sum + statementBytes(statement), 0);
  }

  message(id: number): readonly unknown[] {
    const items = this.statements.map(({ sql, params }) => [sql, params]);
    return [ClientOp.Batch, id, 0, items, this.key, this.remainingMs()];
  }

  protected take(message: readonly unknown[]): readonly ResultSet[] {
    return takeBatch(message, this.statements, this.intMode);
  }
}
