/**
 * An ordered conversation with one node, under sessions and transactions: takes turns, follows the transaction's
 * state, and decides what a lost node means.
 *
 * Invariants
 * 1. One request is under way at a time; the next starts when the last one's answer is complete.
 * 2. After an open transaction was lost with its node nothing runs until it is rolled back: the user never takes a
 *    statement of a lost transaction for one of it.
 * 3. Outside a transaction a statement is sent again, elsewhere if need be, only under the key it had.
 * 4. A COMMIT whose answer was lost ends as committed, as OSTRAKA_RETRY, or as OSTRAKA_UNKNOWN_OUTCOME; nothing else. So
 *    does a RELEASE, which is one if its savepoint began the transaction.
 */
import { pause } from "../base/waits.js";
import { ClientOp, type Summary, type WireCounts, type SessionState as WireState } from "../rpc/protocol.js";
import { type CallTerms, JsonCall, type ResultMessage, type RowsMessage } from "./calls.js";
import {
  errorFromWire,
  isUnknownOutcome,
  OstrakaError,
  timedOut,
  unavailable,
  unknownOutcome,
} from "./errors.js";
import type { Call, Link } from "./link.js";
import { closedError, type Pool, type PooledCall } from "./pool.js";
import { Result } from "./rows.js";
import { LinkWait, type SessionAnswer, SessionCall, TurnWait } from "./session-call.js";
import {
  type BoundStatement,
  executeMessage,
  ResultGatherer,
  statementBytes,
  takeBatch,
} from "./statements.js";
import { STREAM_CREDITS, type StreamTail, succeed } from "./stream.js";
import { endsTransaction, leavesSessionState } from "./text.js";
import type { IntMode, ResultSet, SessionState } from "./types.js";
import { WriteKey } from "./write-key.js";

const STATES: readonly SessionState[] = ["idle", "open", "failed"];

export interface Terms {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** What is to be asked, made anew for every attempt. */
interface Work<T> {
  readonly bytes: number;
  /** Undefined for what only reads. */
  readonly keyed: boolean;
  readonly ends: "commit" | "rollback" | "release" | undefined;
  readonly leavesState: boolean;
  message(
    id: number,
    session: number,
    key: ReturnType<Pool["key"]> | null,
    timeoutMs: number,
  ): readonly unknown[];
  take(message: readonly unknown[], call: PooledCall, link: Link): T | undefined;
  /** Answers a COMMIT or ROLLBACK that no node answered. */
  settled(): T;
}

export class Conversation {
  readonly pool: Pool;
  readonly intMode: IntMode;
  #state: SessionState = "idle";
  #transactionId: string | undefined;
  #link: Link | undefined;
  #session = 0;
  /** The node holds TEMP objects or settings of ours. */
  #stateful = false;
  /** What the session's counting functions answered when the node last told: they outlive it. */
  #counts: WireCounts | undefined;
  #lostWith: OstrakaError | undefined;
  #closed = false;
  #turn: Promise<void> = Promise.resolve();
  #stream: StreamTail | undefined;
  #streamEnded: (() => void) | undefined;
  /** Calls whose turn has not come, and all that are not over. */
  #waiting = 0;
  #unfinished = 0;
  #current: Call | undefined;
  /** What runs, or ran last, may end the transaction. */
  #ending = false;
  /** Nothing runs outside the transaction that is open now. */
  #transactionOnly = false;

  constructor(pool: Pool, intMode: IntMode) {
    this.pool = pool;
    this.intMode = intMode;
  }

  get state(): SessionState {
    return this.#state;
  }

  get transactionId(): string | undefined {
    return this.#transactionId;
  }

  /** From now on it is there for the open transaction alone. */
  endWithTransaction(): void {
    this.#transactionOnly = true;
  }

  /** The transaction that it was there for was ended or lost. */
  get over(): boolean {
    return this.#transactionOnly && this.#state !== "open";
  }

  execute(
    statement: BoundStatement,
    terms: Terms,
    retry?: readonly [attempt: number, ageMs: number],
  ): Promise<ResultSet> {
    let gatherer: ResultGatherer;
    return this.#inTurn(terms, {
      ...this.#describe(statement),
      message: (id, session, key, timeoutMs) => {
        gatherer = new ResultGatherer(this.intMode, statement.word);
        return executeMessage(id, session, statement, key, timeoutMs, 0, retry);
      },
      take: (message) => {
        this.#follow(summaryOf(message));
        return gatherer.take(message);
      },
      settled: () => new Result([], [], [], this.intMode, 0, undefined),
    });
  }

  batch(statements: readonly BoundStatement[], terms: Terms): Promise<readonly ResultSet[]> {
    return this.#inTurn(terms, {
      bytes: statements.reduce((sum, statement) => sum + statementBytes(statement), 0),
      keyed: true,
      ends: undefined,
      leavesState: statements.some(({ sql }) => leavesSessionState(sql)),
      message: (id, session, key, timeoutMs) => {
        const items = statements.map(({ sql, params }) => [sql, params]);
        return [ClientOp.Batch, id, session, items, key, timeoutMs];
      },
      take: (message) => {
        const items = message[2] as readonly (readonly unknown[])[];
        this.#follow(items.at(-1)?.[4] as Summary | undefined);
        return takeBatch(message, statements, this.intMode);
      },
      settled: () => [],
    });
  }

  /** Holds the conversation's turn until the stream has ended. */
  stream(statement: BoundStatement, terms: Terms): Promise<StreamTail> {
    const begin = (tail: StreamTail): StreamTail => {
      if (tail.ended) return tail;
      this.#stream = tail;
      tail.onEnd = (summary, error) => {
        this.#stream = undefined;
        if (error !== undefined) this.#failedWith(errorFromWire(error[2]), error[3]);
        else this.#follow(summary);
        this.#streamEnded?.();
      };
      if (this.#waiting > 0) tail.drain();
      return tail;
    };
    const work: Work<StreamTail> = {
      ...this.#describe(statement),
      message: (id, session, key, timeoutMs) =>
        executeMessage(id, session, statement, key, timeoutMs, STREAM_CREDITS),
      take: (message, call, link) => {
        this.#follow(summaryOf(message));
        return begin(succeed(this.pool, streamTerms(terms), link, call, message));
      },
      settled: () => {
        throw new TypeError("COMMIT and ROLLBACK return no rows to iterate over");
      },
    };
    return this.#inTurn(terms, work, (tail) =>
      tail.ended
        ? undefined
        : new Promise<void>((resolve) => {
            this.#streamEnded = resolve;
          }),
    );
  }

  /** Stops what runs, rolls back what is open and lets the node go. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#current !== undefined) this.#link?.cancel(this.#current);
    this.#stream?.close(new OstrakaError("OSTRAKA_CLOSED", "its session was closed while rows were read"));
    this.#leave();
    this.#state = "idle";
  }

  #describe(statement: BoundStatement): Pick<Work<never>, "bytes" | "keyed" | "ends" | "leavesState"> {
    return {
      bytes: statementBytes(statement),
      keyed: statement.word !== "query",
      ends: this.#endingWord(statement),
      leavesState: leavesSessionState(statement.sql),
    };
  }

  #endingWord({ word, sql }: BoundStatement): Work<never>["ends"] {
    // That of the savepoint which began the transaction.
    if (word === "release") return word;
    return word === "commit" || word === "rollback" ? endsTransaction(sql) : undefined;
  }

  /** Waits for its turn, and rejects early on abort; the turn itself lasts until the node has answered. */
  #inTurn<T>(terms: Terms, work: Work<T>, hold?: (value: T) => Promise<void> | undefined): Promise<T> {
    const { signal } = terms;
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    const deadlineMs = this.pool.clock.monotonicMs() + terms.timeoutMs;
    this.#stream?.drain();
    const before = this.#turn;
    const first = this.#unfinished++ === 0;
    let current: SessionCall<T> | undefined;
    const run = (async () => {
      if (!first) await this.#awaitTurn(before, deadlineMs);
      return this.#perform(work, deadlineMs, signal, (call) => {
        current = call;
      });
    })();
    const over = run
      .then(
        (value) => hold?.(value),
        () => undefined,
      )
      .then(() => {
        this.#unfinished--;
      });
    // Who gave up waiting has not had its turn: what it waited for goes on.
    this.#turn = first ? over : before.then(() => over);
    if (signal === undefined) return run;
    return new Promise<T>((resolve, reject) => {
      const abort = (): void => {
        if (current !== undefined) this.#link?.cancel(current);
        reject(signal.reason);
      };
      signal.addEventListener("abort", abort, { once: true });
      run.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    });
  }

  async #awaitTurn(before: Promise<void>, deadlineMs: number): Promise<void> {
    this.#waiting++;
    try {
      await new TurnWait(this.pool, deadlineMs, before).run();
    } finally {
      this.#waiting--;
    }
  }

  async #perform<T>(
    work: Work<T>,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    onCall: (call: SessionCall<T>) => void,
  ): Promise<T> {
    const key = work.keyed ? new WriteKey(this.pool) : undefined;
    let name = "";
    let maybe = false;
    let doubtful = false;
    try {
      for (let attempt = 0; ; attempt++) {
        this.#checkOpen(maybe, name);
        // Its caller was told already: nothing more is sent.
        signal?.throwIfAborted();
        if (this.#link?.isDown === true && this.#state !== "idle")
          return this.#loseTransaction(work, "the transaction was lost with its node");
        if (this.#lostWith !== undefined) return this.#afterLoss(work);
        const link = await this.#attach(deadlineMs, maybe, name);
        signal?.throwIfAborted();
        key?.issue(link);
        name = key?.name ?? "";
        const again = maybe;
        const inTransaction = this.#state !== "idle";
        if (work.leavesState) this.#stateful = true;
        this.#ending = work.ends !== undefined;
        const call = new SessionCall<T>(
          this.pool,
          deadlineMs,
          work.bytes,
          (id) => {
            const remaining = Math.max(1, Math.ceil(deadlineMs - this.pool.clock.monotonicMs()));
            return work.message(id, this.#session, key?.wire(again) ?? null, remaining);
          },
          (message, from) => work.take(message, from, link),
        );
        onCall(call);
        this.#current = call;
        const transactionId = this.#transactionId;
        const answer = await call.run(link);
        this.#current = undefined;
        if (answer.kind === "value") return answer.value;
        if (this.#closed && answer.kind === "error" && answer.error.code === "OSTRAKA_TIMEOUT")
          this.#checkOpen(maybe, name);
        const id = transactionId ?? name;
        if (inTransaction) return await this.#failedInside(answer, work, id, deadlineMs);
        maybe = this.#failedOutside(answer, maybe, id, work.keyed);
        // It was told that nothing was committed.
        if (!maybe && answer.kind === "error") key?.renew();
        const delayMs = this.pool.backoffMs(attempt);
        if (this.pool.clock.monotonicMs() + delayMs >= deadlineMs) throw this.#tooLate(answer, maybe, id);
        await pause(this.pool.clock, delayMs);
      }
    } catch (error) {
      doubtful = isUnknownOutcome(error);
      throw error;
    } finally {
      key?.release(doubtful);
    }
  }

  #checkOpen(maybe: boolean, name: string): void {
    if (this.#closed && maybe) throw unknownOutcome("the session was closed meanwhile", name);
    if (this.#closed) throw new OstrakaError("OSTRAKA_CLOSED", "the session is closed");
    if (this.pool.closed && !maybe) throw closedError();
    if (this.#transactionOnly && this.#state === "idle")
      throw new OstrakaError(
        "OSTRAKA_CLOSED",
        "the transaction is over: a statement in it, or COMMIT, ended it",
      );
  }

  /** Throws what ends the statement; answers whether it may have been applied when it is to be sent again. */
  #failedOutside(answer: SessionAnswer<unknown>, before: boolean, id: string, keyed: boolean): boolean {
    switch (answer.kind) {
      case "lost": {
        this.#link = undefined;
        if (!this.#stateful) return before || keyed;
        this.#stateful = false;
        if (keyed) throw unknownOutcome(`the session's node was lost: ${answer.reason}`, id);
        throw unavailable("the session's TEMP objects and settings were lost with its node");
      }
      case "error": {
        this.#state = STATES[answer.state]!;
        const { code } = answer.error;
        if (code === "OSTRAKA_UNAVAILABLE" && !this.#stateful) {
          if (this.#link !== undefined) this.pool.avoid(this.#link);
          this.#leave();
          return before;
        }
        if (code === "OSTRAKA_RETRY") return before && answer.error.transactionId !== id;
        if (code === "OSTRAKA_UNKNOWN_OUTCOME" && keyed) return true;
        if (before && code === "OSTRAKA_TIMEOUT") throw unknownOutcome(answer.error.message, id);
        throw answer.error;
      }
      case "overdue":
        if (before || keyed) throw unknownOutcome("no answer in time", id);
        throw timedOut("no answer in time");
      case "closed":
        if (before || keyed) throw unknownOutcome(answer.error.message, id);
        throw answer.error;
      case "unfit":
        throw answer.error;
      default:
        throw new TypeError("an answer is no failure");
    }
  }

  #tooLate(answer: SessionAnswer<unknown>, maybe: boolean, id: string): OstrakaError {
    const message = answer.kind === "error" ? answer.error.message : "the session's node was lost";
    if (maybe) return unknownOutcome(`it is not known whether the statement was applied: ${message}`, id);
    return answer.kind === "error" ? answer.error : unavailable(message);
  }

  /** A statement of an open transaction did not succeed. */
  async #failedInside<T>(
    answer: SessionAnswer<T>,
    work: Work<T>,
    id: string,
    deadlineMs: number,
  ): Promise<T> {
    switch (answer.kind) {
      case "error":
        this.#failedWith(answer.error, answer.state);
        throw answer.error;
      case "lost":
        this.#link = undefined;
        this.#stateful = false;
        if (work.ends === "commit" || work.ends === "release")
          return this.#askOutcome(work, id, deadlineMs, answer.reason);
        return this.#loseTransaction(work, `the transaction was lost with its node: ${answer.reason}`);
      case "overdue":
        if (work.ends === "commit") {
          this.#forgetTransaction();
          throw unknownOutcome("no answer to COMMIT in time", id);
        }
        if (work.ends === "release") throw unknownOutcome("no answer to RELEASE in time", id);
        throw timedOut("no answer in time");
      case "closed":
        if (work.ends === "commit" || work.ends === "release")
          throw unknownOutcome(`the database was closed during ${work.ends.toUpperCase()}`, id);
        throw answer.error;
      case "unfit":
        throw answer.error;
      default:
        throw new TypeError("an answer is no failure");
    }
  }

  /** The answer to a COMMIT, or to what may be one, was lost: another node is asked, which by asking makes an abort final. */
  async #askOutcome<T>(work: Work<T>, id: string, deadlineMs: number, reason: string): Promise<T> {
    this.#forgetTransaction();
    const timeoutMs = Math.max(1, deadlineMs - this.pool.clock.monotonicMs());
    let outcome: unknown;
    try {
      const terms: CallTerms = { timeoutMs, signal: undefined, repeat: "harmless" };
      outcome = (await new JsonCall(this.pool, terms, ClientOp.Outcome, [id]).run()).value;
    } catch {
      outcome = "unknown";
    }
    if (outcome === "committed") return work.settled();
    if (outcome !== "aborted")
      throw unknownOutcome(`the answer to ${work.ends!.toUpperCase()} was lost: ${reason}`, id);
    // Of a savepoint in the middle: the user has yet to learn that the transaction is gone.
    if (work.ends === "release")
      return this.#loseTransaction(work, `the transaction was lost with its node: ${reason}`);
    throw new OstrakaError(
      "OSTRAKA_RETRY",
      "the node was lost before it could commit; nothing was committed",
    );
  }

  #loseTransaction<T>(work: Work<T>, message: string): T {
    this.#link = undefined;
    this.#stateful = false;
    this.#loseWith(message);
    return this.#afterLoss(work);
  }

  #afterLoss<T>(work: Work<T>): T {
    const lost = this.#lostWith!;
    if (work.ends !== "rollback")
      throw new OstrakaError(lost.code, `${lost.message}; ROLLBACK, then run it again`);
    this.#lostWith = undefined;
    this.#forgetTransaction();
    return work.settled();
  }

  #forgetTransaction(): void {
    this.#state = "idle";
    this.#transactionId = undefined;
  }

  #follow(summary: Summary | undefined): void {
    if (summary === undefined) return;
    const [, , , wire, transactionId, counts] = summary;
    if (counts !== undefined) this.#counts = counts;
    const lost = this.#endedUnasked(wire);
    this.#enter(STATES[wire]!);
    if (lost) this.#loseWith("the transaction was ended by its node");
    else if (typeof transactionId === "string") this.#transactionId = transactionId;
  }

  /** Only SQLite's own errors end a transaction as a statement may (OR ROLLBACK, RAISE(ROLLBACK)). */
  #failedWith({ code, message }: OstrakaError, wire: WireState): void {
    const lost = this.#endedUnasked(wire) && !code.startsWith("SQLITE_");
    this.#enter(STATES[wire]!);
    if (!lost) return;
    // Whatever the node has of it must not go on with what comes next; what else the session had there is missed later.
    const stateful = this.#stateful;
    this.#leave();
    this.#stateful = stateful;
    this.#loseWith(`the transaction was ended by its node: ${message}`);
  }

  /** Nothing that ends it was asked for, so its node did, as when it stops: what comes next must not run outside. */
  #endedUnasked(wire: WireState): boolean {
    return this.#state !== "idle" && STATES[wire] === "idle" && !this.#ending;
  }

  #enter(state: SessionState): void {
    this.#state = state;
    if (state === "idle") this.#transactionId = undefined;
  }

  #loseWith(message: string): void {
    this.#lostWith = new OstrakaError("OSTRAKA_RETRY", message);
    this.#state = "failed";
  }

  async #attach(deadlineMs: number, maybe: boolean, name: string): Promise<Link> {
    if (this.#link !== undefined && !this.#link.isDown) return this.#link;
    this.#link = undefined;
    if (this.#stateful) {
      this.#stateful = false;
      throw unavailable("the session's TEMP objects and settings were lost with its node");
    }
    const late = (): OstrakaError => {
      const message = `no node could be reached: ${this.pool.lastFailure}`;
      return maybe ? unknownOutcome(message, name) : unavailable(message);
    };
    const link = await new LinkWait(this.pool, deadlineMs, late).run();
    this.#checkOpen(maybe, name);
    this.#session = link.openSession(this.#counts);
    this.#link = link;
    return link;
  }

  #leave(): void {
    if (this.#link !== undefined && !this.#link.isDown) this.#link.closeSession(this.#session);
    this.#link = undefined;
    this.#stateful = false;
  }
}

function streamTerms({ timeoutMs, signal }: Terms): CallTerms {
  return { timeoutMs, signal, repeat: "never" };
}

function summaryOf(message: readonly unknown[]): Summary | undefined {
  // Result and Rows end with their summary.
  const last = (message as unknown as ResultMessage | RowsMessage).at(-1);
  return (last as Summary | null) ?? undefined;
}
