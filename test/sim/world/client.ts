/**
 * A simulated client: its place in the network, a connection to one node at a time, and what a driver does with
 * answers: writes are sent again under their idempotency key, the outcome of what stays in doubt is asked for.
 */
import { AmbiguousError, OstrakaError } from "../../../src/base/errors.js";
import type { SqlValue } from "../../../src/base/values.js";
import { decodeRows } from "../../../src/base/values.js";
import { autocommitId } from "../../../src/gateway/attempts.js";
import { collectResult } from "../../../src/gateway/outcomes.js";
import type { IdempotencyKey, StatementOutcome } from "../../../src/machines/range/types.js";
import type { ExecuteRequest, Gateway, Session } from "../../../src/rpc/gateway.js";
import type { SimRandom } from "../sim-random.js";
import { Violation } from "./invariants.js";
import type { Process } from "./process.js";
import type { World } from "./world.js";

const MAX_RESULT_BYTES = 64 * 1024 * 1024;
/** How many election timeouts a client waits for one answer before it gives the connection up. */
const PATIENCE = 25;
const ATTEMPTS = 12;

export type Rows = readonly (readonly SqlValue[])[];

export interface Answer {
  readonly rows: Rows;
  readonly changes: number;
}

/** The connection was lost: the request may have been carried out. */
export class Lost extends Error {}
/** The request never left. */
export class NotSent extends Error {}

export type WriteEnd =
  | { readonly outcome: "committed"; readonly answer: Answer | undefined }
  | { readonly outcome: "aborted"; readonly error: OstrakaError | undefined }
  | { readonly outcome: "unknown"; readonly id: string };

export interface RunOptions {
  readonly timeoutMs?: number | undefined;
}

/** An ordered session on one node. */
export interface RemoteSession {
  readonly process: Process;
  readonly session: Session;
  broken: boolean;
}

export class SimClient {
  readonly random: SimRandom;
  /** Asks the same node again, whatever it answers. */
  stays = false;
  #sequence = 0;
  #at: number;
  readonly #unanswered = new Set<number>();
  readonly #impatience: SimRandom;

  constructor(
    readonly world: World,
    readonly id: number,
    random: SimRandom,
  ) {
    this.random = random;
    this.#impatience = random.stream("impatience");
    this.#at = world.machines[random.below(world.machines.length)]!.id;
  }

  get name(): string {
    return `c${this.id}`;
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.world.after(ms, resolve));
  }

  /** Goes to another node for what comes next. */
  moveOn(): void {
    if (this.stays) return;
    const others = this.world.machines.filter(({ id }) => id !== this.#at);
    if (others.length > 0) this.#at = this.random.pick(others).id;
  }

  pin(node: number): void {
    this.#at = node;
  }

  #process(): Process {
    const process = this.world.process(this.#at);
    if (process === undefined || process.network.gateway === undefined) throw new NotSent();
    return process;
  }

  /** Runs something on a node; the answer comes back if nothing goes wrong on either way. */
  request<T>(process: Process, work: (gateway: Gateway) => Promise<T>): Promise<T> {
    const { world } = this;
    const { wires } = world;
    return new Promise<T>((resolve, reject) => {
      let done = false;
      let forget = (): void => undefined;
      const settle = (how: () => void): void => {
        if (done) return;
        done = true;
        forget();
        how();
      };
      const lost = (): void => void world.after(wires.detectionMs(), () => settle(() => reject(new Lost())));
      if (!wires.connects(this.id, process.id)) {
        world.after(wires.detectionMs(), () => settle(() => reject(new NotSent())));
        return;
      }
      const back = (run: () => void): void => {
        if (process.dead) lost();
        else wires.stream(process.id, this.id, () => settle(run), lost);
      };
      const arrive = (): void => {
        const gateway = process.network.gateway;
        if (process.dead || gateway === undefined) {
          lost();
          return;
        }
        new Promise<T>((answer) => answer(work(gateway))).then(
          (value) => back(() => resolve(value)),
          (error: Error) => back(() => reject(error)),
        );
      };
      wires.stream(this.id, process.id, () => world.onMachine(process.id, arrive), lost);
      const patience = world.after(PATIENCE * world.unitMs, () => settle(() => reject(new Lost())));
      const deaf = process.onDeath(lost);
      forget = () => {
        patience.cancel();
        deaf();
      };
    });
  }

  // --- autocommit -----------------------------------------------------------------------------------------------

  async #execute(process: Process, request: ExecuteRequest): Promise<Answer> {
    return this.request(process, async (gateway) => {
      const session = gateway.openSession("autocommit");
      try {
        return answerOf(await collectResult(await session.execute(request), MAX_RESULT_BYTES));
      } finally {
        void session.close();
      }
    });
  }

  #request(
    sql: string,
    params: readonly SqlValue[],
    key: IdempotencyKey | undefined,
    options: RunOptions,
  ): ExecuteRequest {
    return {
      sql,
      params,
      key,
      timeoutMs: options.timeoutMs ?? this.#patience(),
      signal: undefined,
    };
  }

  /** Of some statements, in some worlds, so little that they are stopped in the middle of what they do. */
  #patience(): number | undefined {
    if (!this.world.impatient || !this.#impatience.chance(0.2)) return undefined;
    return Math.ceil(this.world.unitMs * (0.01 + this.#impatience.float() ** 4));
  }

  /** An autocommit read; undefined when it was not answered. */
  async read(
    sql: string,
    params: readonly SqlValue[] = [],
    options: RunOptions = {},
  ): Promise<Rows | undefined> {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        return (await this.#execute(this.#process(), this.#request(sql, params, undefined, options))).rows;
      } catch (error) {
        this.#expected(error, sql);
        this.moveOn();
        await this.pause(20);
      }
    }
    return undefined;
  }

  /** An autocommit write, sent again under its key until it is known what became of it or patience ends. */
  async write(sql: string, params: readonly SqlValue[], options: RunOptions = {}): Promise<WriteEnd> {
    const key = this.#newKey();
    const id = autocommitId(key);
    let maybe = false;
    let sentUnder: number | undefined;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        const process = this.#process();
        const request = this.#request(sql, params, { ...key, lowestUnanswered: this.#lowest() }, options);
        const again = maybe ? { ...request, sentUnder } : request;
        sentUnder ??= process.network.gateway?.schemaVersion?.() ?? 0;
        const answer = await this.#execute(process, again);
        if (attempt > 0 && maybe) this.world.note("a write was sent again after its answer was lost");
        this.#unanswered.delete(key.sequence);
        return { outcome: "committed", answer };
      } catch (error) {
        const how = this.#expected(error, sql);
        if (how === "in doubt") maybe = true;
        else if (how === "refused" && !maybe) {
          this.#unanswered.delete(key.sequence);
          return { outcome: "aborted", error: error as OstrakaError };
        } else if (how === "refused") break;
        if (this.random.chance(0.2) && maybe) break;
        this.moveOn();
        await this.pause(10 * 2 ** Math.min(attempt, 5));
      }
    }
    if (!maybe) {
      this.#unanswered.delete(key.sequence);
      return { outcome: "aborted", error: undefined };
    }
    return this.resolve(id);
  }

  #newKey(): IdempotencyKey {
    const sequence = ++this.#sequence;
    this.#unanswered.add(sequence);
    return {
      client: this.name,
      sequence,
      lowestUnanswered: this.#lowest(),
      issuedMs: this.world.clock.wallMs(),
    };
  }

  #lowest(): number {
    for (const lowest of this.#unanswered) return lowest;
    return this.#sequence + 1;
  }

  /** What became of a transaction; asks until somebody knows, or for a while. */
  async resolve(id: string, attempts = 6): Promise<WriteEnd> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      try {
        const outcome = await this.request(this.#process(), (gateway) => gateway.outcome(id));
        this.world.note(`an outcome was asked for: ${outcome}`);
        if (outcome === "committed") return { outcome, answer: undefined };
        if (outcome === "aborted") return { outcome, error: undefined };
        return { outcome: "unknown", id };
      } catch (error) {
        this.#expected(error, `outcome of ${id}`);
        this.moveOn();
        await this.pause(100);
      }
    }
    return { outcome: "unknown", id };
  }

  // --- sessions -------------------------------------------------------------------------------------------------

  /** Opens an ordered session on the node it is at. */
  async open(): Promise<RemoteSession> {
    const process = this.#process();
    const session = await this.request(process, async (gateway) => gateway.openSession("session"));
    return { process, session, broken: false };
  }

  async run(
    on: RemoteSession,
    sql: string,
    params: readonly SqlValue[] = [],
    more: Partial<ExecuteRequest> = {},
  ): Promise<Answer> {
    if (on.broken) throw new Lost();
    try {
      return await this.request(on.process, async () =>
        answerOf(
          await collectResult(
            await on.session.execute({
              ...this.#request(sql, params, undefined, {}),
              ...more,
            }),
            MAX_RESULT_BYTES,
          ),
        ),
      );
    } catch (error) {
      if (error instanceof Lost || error instanceof NotSent) this.#drop(on);
      throw error;
    }
  }

  /** The server notices a lost connection later, and ends the session. */
  #drop(on: RemoteSession): void {
    on.broken = true;
    this.world.after(this.world.wires.detectionMs(), () =>
      this.world.onMachine(on.process.id, () => {
        if (!on.process.dead) void on.session.close().catch(() => undefined);
      }),
    );
  }

  async close(on: RemoteSession): Promise<void> {
    if (on.broken) return;
    on.broken = true;
    await this.request(on.process, () => on.session.close()).catch(() => undefined);
  }

  /**
   * A transaction in a session: what `body` returns, and what became of it. `committed` is only said when COMMIT was
   * answered or its outcome told.
   */
  async transaction<T>(
    begin: string,
    body: (run: (sql: string, params?: readonly SqlValue[]) => Promise<Rows>) => Promise<T>,
    retry: ExecuteRequest["retry"],
  ): Promise<{ readonly end: WriteEnd; readonly value: T | undefined }> {
    let on: RemoteSession | undefined;
    let id: string | undefined;
    let committing = false;
    let value: T | undefined;
    this.world.openTransactions++;
    try {
      on = await this.open();
      const session = on;
      const learn = async (sql: string, params: readonly SqlValue[] = []): Promise<Rows> => {
        const { rows } = await this.run(session, sql, params, {});
        id = session.session.transactionId?.() ?? id;
        return rows;
      };
      await this.run(session, begin, [], { retry });
      id = session.session.transactionId?.();
      value = await body(learn);
      committing = true;
      await this.run(session, "COMMIT");
      return { end: { outcome: "committed", answer: undefined }, value };
    } catch (error) {
      const how = this.#expected(error, `transaction ${id ?? ""}`);
      if (committing && how === "in doubt") {
        const doubted = id ?? (error instanceof AmbiguousError ? error.transactionId : undefined);
        this.world.note("the answer to COMMIT was lost");
        this.moveOn();
        return {
          end: doubted === undefined ? { outcome: "unknown", id: "" } : await this.resolve(doubted),
          value,
        };
      }
      if (how !== "refused") this.moveOn();
      return {
        end: {
          outcome: "aborted",
          error: error instanceof OstrakaError ? error : undefined,
        },
        value,
      };
    } finally {
      this.world.openTransactions--;
      if (on !== undefined) await this.close(on);
    }
  }

  /** What an error says of the request; anything that no fault explains is a violation. */
  #expected(error: unknown, what: string): "not sent" | "in doubt" | "refused" {
    if (error instanceof NotSent) return "not sent";
    if (error instanceof Lost) return "in doubt";
    if (!(error instanceof OstrakaError)) throw error;
    switch (error.family) {
      case "retry":
        this.world.note(`answered ${error.code}`);
        if (this.world.manyRanges)
          this.world.note(`told: ${error.message.replace(/\S*\d\S*/g, "_").slice(0, 90)}`);
        return error.code === "OSTRAKA_UNAVAILABLE" ? "not sent" : "refused";
      case "ambiguous":
        this.world.note("answered OSTRAKA_UNKNOWN_OUTCOME");
        return "in doubt";
      case "user":
        if (this.world.allows(error)) return "refused";
        throw new Violation(`${this.name} was told ${error.code} "${error.message}" for ${what}`);
      case "fatal":
        // A node that goes down cuts its connections; what it tells before is not worth more.
        if (/INVARIANT|INTERNAL|CORRUPT/.test(error.code) && !this.world.excused)
          throw new Violation(`${this.name} was told ${error.code} "${error.message}" for ${what}`);
        return "in doubt";
      default:
        throw new Violation(`${this.name} was told ${error.code} "${error.message}" for ${what}`);
    }
  }
}

function answerOf(outcome: StatementOutcome): Answer {
  return { rows: decodeRows(outcome.rows), changes: outcome.changes };
}

/** A client of a scripted world; with `node`, one that asks only that. */
export function scriptedClient(world: World, id: number, node?: { readonly id: number }): SimClient {
  const client = new SimClient(world, id, world.random.stream(`client-${id}`));
  if (node !== undefined) {
    client.pin(node.id);
    client.stays = true;
  }
  return client;
}
