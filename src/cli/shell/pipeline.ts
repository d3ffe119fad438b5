/**
 * Sends plain writes of a script ahead, without waiting for each answer, so that a dump of 100,000 INSERTs costs its
 * work and not 100,000 round trips. What the user sees is what one statement after the other would have given.
 *
 * A statement may be sent before the ones ahead of it are answered only if an error there could not have changed what
 * it does. That holds
 * 1. inside a transaction, for INSERT, REPLACE, UPDATE and DELETE without RETURNING: when an earlier one fails under
 *    stop-on-error, nothing of the transaction is kept, so what was sent after it leaves no trace; COMMIT (like
 *    everything else that is not such a write) is sent only when all before it have been answered well;
 * 2. provided that no failure can end the transaction on its own (OR ROLLBACK, RAISE(ROLLBACK), ON CONFLICT ROLLBACK),
 *    after which the next write would be kept: neither the statement nor the schema may mention ROLLBACK;
 * 3. anywhere, while errors do not stop the script.
 * Errors are reported in order, each with its own line.
 */
import type { ResultSet, Session } from "../../driver/types.js";
import { NO_TIMEOUT_MS } from "../connection.js";
import { bindLongLiterals } from "../long-literals.js";

const MAX_STATEMENTS = 256;
const MAX_CHARACTERS = 4 * 1024 * 1024;
const PLAIN_WRITE = /^(?:insert|replace|update|delete)\b/i;
const NEEDS_ITS_ANSWER = /returning|rollback/i;
const CHANGES_THE_SCHEMA_OR_TRANSACTION =
  /^(?:begin|create|drop|alter|rollback|commit|end|savepoint|release|pragma)\b/i;
/** 1 when a failing write might end its transaction on its own. */
export const SCHEMA_MENTIONS_ROLLBACK =
  "select exists (select 1 from sqlite_schema where sql like '%rollback%')";
const SESSION_MENTIONS_ROLLBACK = `${SCHEMA_MENTIONS_ROLLBACK} or exists (select 1 from sqlite_temp_schema where sql like '%rollback%')`;

interface InFlight {
  readonly line: number;
  readonly sql: string;
  readonly answer: Promise<{ readonly error: unknown } | { readonly result: ResultSet }>;
}

export interface PipelineEvents {
  /** Called in order for each answer; false stops the script. */
  failed(error: unknown, sql: string, line: number): boolean;
}

export class Pipeline {
  readonly #session: () => Session;
  readonly #events: PipelineEvents;
  readonly #stopOnError: () => boolean;
  readonly #timeoutMs: () => number;
  #inFlight: InFlight[] = [];
  #characters = 0;
  #consecutive = 0;
  /** Rule 2's answer for the schema; undefined when it must be asked (again). */
  #rollbackFree: boolean | undefined;
  #stopped = false;

  constructor(
    session: () => Session,
    events: PipelineEvents,
    options: { readonly stopOnError: () => boolean; readonly timeoutMs: () => number },
  ) {
    this.#session = session;
    this.#events = events;
    this.#stopOnError = options.stopOnError;
    this.#timeoutMs = options.timeoutMs;
  }

  /**
   * Takes the statement when it may be sent ahead. "taken": its answer will be reported. "no": everything before it
   * has been answered, and the caller runs it. "stop": an error before it stops the script.
   */
  async offer(sql: string, line: number): Promise<"taken" | "no" | "stop"> {
    if (!(await this.#eligible(sql))) {
      if (CHANGES_THE_SCHEMA_OR_TRANSACTION.test(sql)) this.#rollbackFree = undefined;
      return (await this.drain()) ? "no" : "stop";
    }
    if (this.#stopped) return "stop";
    // Its time is that of those ahead of it, and its own.
    const timeoutMs = Math.min(this.#timeoutMs() * (this.#inFlight.length + 1), NO_TIMEOUT_MS);
    const answer = this.#session()
      .execute(bindLongLiterals(sql), undefined, { timeoutMs })
      .then(
        (result) => ({ result }),
        (error: unknown) => ({ error }),
      );
    this.#inFlight.push({ line, sql, answer });
    this.#characters += sql.length;
    // Half of the window is let out at once, so that the other half keeps the session busy meanwhile.
    if (this.#inFlight.length >= MAX_STATEMENTS || this.#characters >= MAX_CHARACTERS) {
      if (!(await this.#settle(MAX_STATEMENTS / 2, MAX_CHARACTERS / 2))) return "stop";
    }
    return "taken";
  }

  /** The session is another one, or what it knows was changed by others: what was learned of it is forgotten. */
  forget(): void {
    this.#rollbackFree = undefined;
  }

  /** Waits for every answer; false when one of them stops the script. */
  drain(): Promise<boolean> {
    return this.#settle(0, 0);
  }

  async #eligible(sql: string): Promise<boolean> {
    if (!PLAIN_WRITE.test(sql) || NEEDS_ITS_ANSWER.test(sql)) {
      this.#consecutive = 0;
      return false;
    }
    // A lone write gains nothing.
    if (++this.#consecutive < 2) return false;
    if (!this.#stopOnError()) return true;
    if (this.#session().state !== "open") return false;
    this.#rollbackFree ??= await this.#askSchema();
    return this.#rollbackFree && this.#session().state === "open";
  }

  async #askSchema(): Promise<boolean> {
    try {
      const { rows } = await this.#session().execute(SESSION_MENTIONS_ROLLBACK);
      return Number(rows[0]?.[0]) === 0;
    } catch {
      // Whatever is wrong, the statement itself will say so, in its own words and on its own line.
      return false;
    }
  }

  async #settle(statements: number, characters: number): Promise<boolean> {
    let done = 0;
    while (
      done < this.#inFlight.length &&
      (this.#inFlight.length - done > statements || this.#characters > characters)
    ) {
      const { line, sql, answer } = this.#inFlight[done++]!;
      const outcome = await answer;
      this.#characters -= sql.length;
      // After the one that stops the script, answers to what was sent behind it are of no interest.
      if (!this.#stopped && "error" in outcome)
        this.#stopped = !this.#events.failed(outcome.error, sql, line);
    }
    this.#inFlight.splice(0, done);
    return !this.#stopped;
  }
}
