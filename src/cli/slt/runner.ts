/**
 * Runs one sqllogictest file in one session. Records are sent ahead of their answers: the session runs them in order
 * whatever their outcome, so nothing is changed by not waiting.
 *
 * A record passes when it does what the file says and for no other reason: `statement error` is met by an error of
 * SQL, not by a cluster that cannot be reached.
 */
import { OstrakaError } from "../../driver/errors.js";
import type { ResultSet, Session } from "../../driver/types.js";
import { type SplitStatement, splitScript } from "../../sql/splitter.js";
import { describeError, errorCode } from "../exit.js";
import type { QueryRecord, SltRecord, StatementRecord } from "./parser.js";
import { hashValues, renderResult } from "./render.js";

export interface Failure {
  /** Of the record; 0 for a failure of the file as a whole. */
  readonly line: number;
  readonly reason: string;
  readonly sql: string;
  readonly expected?: readonly string[] | undefined;
  readonly actual?: readonly string[] | undefined;
}

export interface FileResult {
  passed: number;
  failed: number;
  skipped: number;
  readonly failures: Failure[];
  /** The file was given up in the middle: no node answers. */
  connectionLost?: true;
}

export interface RunOptions {
  /** Whether the record at this line is to be passed over. */
  readonly excludes: (line: number) => boolean;
  readonly timeoutMs: number;
  /** Whether this error came of having no node to talk to. */
  readonly isConnectionLost?: (error: unknown) => Promise<boolean>;
}

const WINDOW = 128;
/** Failures beyond this are counted, not described. */
const MAX_FAILURES = 1000;

type Outcome = { readonly results: readonly ResultSet[] } | { readonly error: unknown };

export async function runSlt(
  session: Session,
  records: readonly SltRecord[],
  options: RunOptions,
): Promise<FileResult> {
  const run = new SltRun(session, options);
  for (const record of records) {
    if (record.skipped || options.excludes(record.line)) {
      if (record.kind === "statement" || record.kind === "query") run.result.skipped++;
      continue;
    }
    if (record.kind === "halt" || run.result.connectionLost === true) break;
    // Thresholds say how expectations were written; how they are compared shows in themselves.
    if (record.kind === "hash-threshold") continue;
    await run.add(record);
  }
  await run.drain();
  return run.result;
}

class SltRun {
  readonly result: FileResult = { passed: 0, failed: 0, skipped: 0, failures: [] };
  readonly #labels = new Map<string, { readonly hash: string; readonly line: number }>();
  #inFlight: { readonly record: StatementRecord | QueryRecord; readonly outcome: Promise<Outcome> }[] = [];
  /** Of the record that was sent last: the session runs one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    readonly session: Session,
    readonly options: RunOptions,
  ) {}

  async add(record: StatementRecord | QueryRecord): Promise<void> {
    const statements = splitScript(record.sql);
    if (statements.length > 1) {
      // The second runs only if the first did not fail.
      await this.drain();
      if (this.result.connectionLost === true) return;
      await this.#judge(record, await this.#runAll(statements));
      return;
    }
    this.#inFlight.push({ record, outcome: this.#runAll(statements) });
    if (this.#inFlight.length >= WINDOW) await this.#settle(WINDOW / 2);
  }

  drain(): Promise<void> {
    return this.#settle(0);
  }

  async #settle(keep: number): Promise<void> {
    const done = this.#inFlight.splice(0, this.#inFlight.length - keep);
    for (const { record, outcome } of done) {
      // What was sent ahead has no answer either, and ends with the database.
      if (this.result.connectionLost === true) return;
      await this.#judge(record, await outcome);
    }
  }

  #runAll(statements: readonly SplitStatement[]): Promise<Outcome> {
    const outcome = this.#runInTurn(statements, this.#last);
    this.#last = outcome;
    return outcome;
  }

  /** Sent ahead; its time begins when the record before it has ended. */
  async #runInTurn(statements: readonly SplitStatement[], before: Promise<unknown>): Promise<Outcome> {
    const { timeoutMs } = this.options;
    const atMostMs = timeoutMs * (WINDOW + 1);
    const controller = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    let ended = false;
    before.then(() => {
      if (ended) return;
      const late = new OstrakaError("OSTRAKA_TIMEOUT", `took more than ${timeoutMs} ms`);
      timer = setTimeout(() => controller.abort(late), timeoutMs);
    });
    const results: ResultSet[] = [];
    try {
      for (const { text } of statements) {
        const { signal } = controller;
        results.push(await this.session.execute(text, undefined, { signal, timeoutMs: atMostMs }));
      }
      return { results };
    } catch (error) {
      return { error };
    } finally {
      ended = true;
      clearTimeout(timer);
    }
  }

  async #judge(record: StatementRecord | QueryRecord, outcome: Outcome): Promise<void> {
    let failure =
      record.kind === "statement" ? judgeStatement(record, outcome) : this.#judgeQuery(record, outcome);
    if (failure !== undefined && "error" in outcome) {
      if ((await this.options.isConnectionLost?.(outcome.error)) === true) {
        this.result.connectionLost = true;
        failure = { reason: `${failure.reason}; no node answers: the rest of the file was not run` };
      }
    }
    if (failure === undefined) {
      this.result.passed++;
      return;
    }
    this.result.failed++;
    if (this.result.failures.length < MAX_FAILURES) {
      this.result.failures.push({ line: record.line, sql: record.sql, ...failure });
    }
  }

  #judgeQuery(record: QueryRecord, outcome: Outcome): Omit<Failure, "line" | "sql"> | undefined {
    if ("error" in outcome) return { reason: describeError(outcome.error) };
    const result = outcome.results.at(-1);
    if (result === undefined) return { reason: "no statement to run" };
    if (result.columns.length !== record.types.length) {
      return { reason: `${result.columns.length} columns where ${record.types.length} are expected` };
    }
    const rows = result.rows.map((row) => [...row]);
    const values = renderResult(rows, record.types, record.sort);
    const difference = compareValues(record.expected, values);
    if (difference !== undefined) return difference;
    return record.label === undefined ? undefined : this.#judgeLabel(record.label, record.line, values);
  }

  #judgeLabel(
    label: string,
    line: number,
    values: readonly string[],
  ): Omit<Failure, "line" | "sql"> | undefined {
    const hash = hashValues(values);
    const first = this.#labels.get(label);
    if (first === undefined) {
      this.#labels.set(label, { hash, line });
      return undefined;
    }
    if (first.hash === hash) return undefined;
    return { reason: `differs from the query at line ${first.line}, which has the same label ${label}` };
  }
}

function judgeStatement(
  record: StatementRecord,
  outcome: Outcome,
): Omit<Failure, "line" | "sql"> | undefined {
  if (!("error" in outcome)) {
    return record.expect === "ok" ? undefined : { reason: "succeeded where an error is expected" };
  }
  const bySql = errorCode(outcome.error)?.startsWith("SQLITE_") === true;
  if (record.expect === "error" && bySql) return undefined;
  return { reason: describeError(outcome.error) };
}

const HASHED = /^(\d+) values hashing to ([0-9a-f]{32})$/;

function compareValues(
  expected: readonly string[] | undefined,
  actual: readonly string[],
): Omit<Failure, "line" | "sql"> | undefined {
  if (expected === undefined) return undefined;
  const hashed = expected.length === 1 ? HASHED.exec(expected[0]!) : null;
  const summary = `${actual.length} values hashing to ${hashValues(actual)}`;
  const equal =
    hashed === null
      ? expected.length === actual.length && expected.every((line, i) => line === actual[i])
      : expected[0] === summary;
  if (equal) return undefined;
  return {
    reason: "wrong result",
    expected: expected.slice(0, 100),
    actual: hashed === null ? actual.slice(0, 100) : [summary, ...actual.slice(0, 100)],
  };
}
