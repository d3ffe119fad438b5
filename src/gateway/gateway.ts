/**
 * The gateway of a node: opens sessions, and answers what is not SQL (outcomes of transactions, operations).
 */

import { UserError } from "../base/errors.js";
import { type TransactionId, transactionId } from "../base/ids.js";
import type { Timer } from "../base/io.js";
import type { IdempotencyKey } from "../machines/range/types.js";
import type { Gateway, Session, SessionCounts } from "../rpc/gateway.js";
import type { GatewayDatabase } from "./database.js";
import { Deadline } from "./deadline.js";
import type { RunningStatements } from "./running.js";
import { GatewaySession, type SessionContext } from "./session.js";
import { StatementCache } from "./statements.js";
import type { SystemTables } from "./system-tables.js";

export type AdminVerb = (args: Readonly<Record<string, unknown>>) => Promise<unknown>;

export interface GatewayOptions {
  readonly db: GatewayDatabase;
  readonly systemTables: SystemTables;
  readonly running: RunningStatements;
  readonly admin: Readonly<Record<string, AdminVerb>>;
}

const IDLE_CHECK_MS = 10_000;

export class NodeGateway implements Gateway {
  readonly #options: GatewayOptions;
  readonly #context: SessionContext;
  readonly #sessions = new Set<GatewaySession>();
  /** Unique to this start of this node: keys and ids made here are never made again. */
  readonly #origin: string;
  #sequence = 0;
  /** Sequences of keys made here whose statements are under way, in order. */
  readonly #unanswered = new Set<number>();
  #idleTimer: Timer | undefined;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#origin = Array.from(options.db.random.bytes(12), (byte) => byte.toString(16).padStart(2, "0")).join(
      "",
    );
    this.#context = {
      db: options.db,
      statements: new StatementCache(),
      systemTables: options.systemTables,
      running: options.running,
      nextKey: (deadline) => this.#nextKey(deadline),
      nextTransactionId: () => this.#nextTransactionId(),
      closed: (session) => this.#sessions.delete(session),
    };
    this.#watchIdle();
  }

  openSession(kind: "session" | "autocommit", counts?: SessionCounts): Session {
    const session = new GatewaySession(this.#context, kind);
    if (counts !== undefined) session.settings.recount(counts);
    if (kind === "session") this.#sessions.add(session);
    return session;
  }

  async outcome(id: string): Promise<"committed" | "aborted" | "unknown"> {
    const { db } = this.#options;
    const deadline = new Deadline(db.clock, undefined, db.limits.availabilityMs, { signal: undefined });
    return db.outcome(transactionId(id), deadline);
  }

  async admin(verb: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    const run = this.#options.admin[verb];
    if (run === undefined)
      throw new UserError("OSTRAKA_UNSUPPORTED", `no operation is called ${JSON.stringify(verb)}`);
    return run(args);
  }

  schemaVersion(): number | undefined {
    try {
      return this.#options.db.ranges.schema().version;
    } catch {
      return undefined;
    }
  }

  mainLeader(): number | undefined {
    return this.#options.db.ranges.mainLeader();
  }

  async close(): Promise<void> {
    this.#idleTimer?.cancel();
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await this.#options.db.scratches.close();
  }

  /** For a caller that has none and cannot repeat: its answer is kept for as long as it is under way. */
  #nextKey(deadline: Deadline): IdempotencyKey {
    const sequence = ++this.#sequence;
    this.#unanswered.add(sequence);
    deadline.onEnd(() => this.#unanswered.delete(sequence));
    const [lowest] = this.#unanswered;
    return {
      client: this.#origin,
      sequence,
      lowestUnanswered: lowest as number,
      issuedMs: this.#options.db.clock.wallMs(),
    };
  }

  #nextTransactionId(): TransactionId {
    return transactionId(
      `${this.#origin}-${++this.#sequence}@${this.#options.db.clock.wallMs().toString(36)}`,
    );
  }

  #watchIdle(): void {
    const { clock } = this.#options.db;
    this.#idleTimer = clock.setTimer(IDLE_CHECK_MS, () => {
      const nowMs = clock.monotonicMs();
      for (const session of this.#sessions) session.expireIdle(nowMs);
      this.#watchIdle();
    });
  }
}
