/**
 * The database as a gateway has it: many ranges behind one name. Says which ranges a statement touches, and hands out
 * what it takes to run it there.
 *
 * While one range has everything and lies on this node (`whole`), statements go straight to it; nothing is routed.
 */

import { RetryError, RouteError } from "../base/errors.js";
import type { GroupId, TransactionId } from "../base/ids.js";
import type { Clock, Random } from "../base/io.js";
import { pause } from "../base/waits.js";
import type { CommandResult, IdempotencyKey, RunnerPool } from "../machines/range/types.js";
import { isWhole, type RangeDescriptor, type TableKey } from "../placement/descriptor.js";
import type { RangeDirectory } from "../placement/directory.js";
import { rangesOf, rowsOf } from "../placement/route.js";
import type { RangeService } from "../range/types.js";
import { type Analysis, type Footprint, SCHEMA, type Span } from "../sql/types.js";
import type { TransactionTrace } from "../txn/trace.js";
import type { Deadline, InDoubt } from "./deadline.js";
import type { LocalRange, RangesView } from "./ranges.js";
import type { GatewayLimits, GatewayParts, Replica } from "./replica.js";
import type { RemoteSources } from "./sources.js";
import type { SpoolSpace } from "./spool.js";
import { WarmScratches } from "./warm-scratch.js";

/** Of those in which a decision comes to a range that waits for it. */
const LONGEST_PAUSE_MS = 640;

/** The range is another one now than it was when all were counted. */
const MOVED = Symbol("moved");

/** How many statements ran how, since the start. */
export interface StatementCounts {
  /** Whole, at one range. */
  single: number;
  /** Over several ranges, each of which did a part. */
  pushdown: number;
  /** Over several ranges, on all rows that they had of the tables. */
  gather: number;
}

export interface DatabaseOptions extends GatewayParts {
  readonly ranges: RangesView;
  readonly space: SpoolSpace;
  readonly sources: RemoteSources;
  readonly trace: TransactionTrace;
}

export class GatewayDatabase implements GatewayParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: GatewayLimits;
  readonly runners: RunnerPool;
  readonly heldRunners: RunnerPool;
  readonly gatherRunners: RunnerPool;
  readonly ranges: RangesView;
  readonly space: SpoolSpace;
  readonly sources: RemoteSources;
  readonly trace: TransactionTrace;
  readonly scratches = new WarmScratches(this);
  readonly counts: StatementCounts = { single: 0, pushdown: 0, gather: 0 };
  readonly #replicas = new Map<GroupId, { readonly local: LocalRange; readonly replica: Replica }>();
  #wholeOf: RangeDirectory | undefined;
  #whole: Replica | undefined;

  constructor(options: DatabaseOptions) {
    this.clock = options.clock;
    this.random = options.random;
    this.limits = options.limits;
    this.runners = options.runners;
    this.heldRunners = options.heldRunners;
    this.gatherRunners = options.gatherRunners;
    this.ranges = options.ranges;
    this.space = options.space;
    this.sources = options.sources;
    this.trace = options.trace;
  }

  /** The replica that has everything, while there is one. */
  get whole(): Replica | undefined {
    const directory = this.ranges.directory();
    if (directory === this.#wholeOf) return this.#whole;
    const only = directory.ranges.length === 1 ? directory.ranges[0]! : undefined;
    const replica = only !== undefined && isWhole(only) ? this.replica(only.range) : undefined;
    // Without a replica here there may yet come one.
    this.#wholeOf = only !== undefined && replica === undefined ? undefined : directory;
    this.#whole = replica;
    return replica;
  }

  /** This node's replica of a range. */
  replica(range: GroupId): Replica | undefined {
    const local = this.ranges.local(range);
    if (local === undefined) {
      this.#replicas.delete(range);
      return undefined;
    }
    const known = this.#replicas.get(range);
    if (known?.local.store === local.store) return known.replica;
    const { clock, random, limits, runners, heldRunners, gatherRunners } = this;
    const parts = { clock, random, limits, runners, heldRunners, gatherRunners };
    const replica = { ...parts, range, ...local, leader: this.ranges.client(range) };
    this.#replicas.set(range, { local, replica });
    return replica;
  }

  client(range: GroupId): RangeService {
    return this.ranges.client(range);
  }

  /** The range that what stays whole lives in, and that answers for the database where any range would do. */
  get first(): RangeDescriptor {
    return this.ranges.directory().ranges[0]!;
  }

  get tables(): readonly TableKey[] {
    return this.ranges.schema().snapshot.tables;
  }

  /** By the schema that all share, and not by a session's own; undefined when it does not compile, as far as is known here. */
  analysed(sql: string): Analysis | undefined {
    try {
      return this.ranges.schema().analyse(sql);
    } catch {
      return undefined;
    }
  }

  /** The ranges that a statement touches, in key order; none for what touches no rows. */
  touched(footprint: Footprint): readonly RangeDescriptor[] {
    return this.rangesOf(rowsOf(footprint));
  }

  rangesOf(spans: readonly Span[]): readonly RangeDescriptor[] {
    const rows = spans.filter((span) => span.table !== SCHEMA);
    return rows.length === 0 ? [] : rangesOf(rows, this.tables, this.ranges.directory());
  }

  /**
   * As Deadline.persist, for attempts that look up their ranges anew each time: what a RouteError tells of moved keys is
   * learned before the next one.
   */
  persist<T>(
    deadline: Deadline,
    attempt: (tries: number) => Promise<T>,
    inDoubt?: InDoubt,
    unwanted?: (value: T) => void,
  ): Promise<T> {
    return deadline.persist(attempt, inDoubt, unwanted, (tries, failure) =>
      tries === 0 && this.ranges.directory().complete ? undefined : this.#prepare(tries, failure),
    );
  }

  async #prepare(tries: number, failure: unknown): Promise<void> {
    await this.learnFrom(failure, tries - 1);
    if (!this.ranges.directory().complete) await this.ranges.refresh();
  }

  /** Whoever is refused without being told where to go asks meta. */
  async learnFrom(error: unknown, tries = 0): Promise<void> {
    if (!(error instanceof RouteError)) return;
    const known = this.ranges.directory();
    if (error.moved !== undefined) this.ranges.learn(error.moved);
    else if (tries > 2) await this.ranges.refresh().catch(() => {});
    // Whoever goes where the keys are and is refused knows another schema, and so other keys, than the range does.
    if (error.moved !== undefined && tries > 0 && this.ranges.directory() === known)
      await this.ranges.refreshSchema().catch(() => {});
  }

  /** Afterwards this node knows every change of the schema that was told before; leaders may have to be found first. */
  refreshSchema(deadline: Deadline): Promise<void> {
    return this.persist(deadline, () => this.ranges.refreshSchema());
  }

  /** What became of a transaction, wherever it may have been committed. An unknown one never will be. */
  async outcome(id: TransactionId, deadline: Deadline): Promise<"committed" | "aborted" | "unknown"> {
    return this.persist(deadline, () => this.#outcome(id, deadline), { transaction: id, repeatable: true });
  }

  async #outcome(id: TransactionId, deadline: Deadline): Promise<"committed" | "aborted" | "unknown"> {
    const { whole } = this;
    if (whole !== undefined) return whole.leader.outcome(id, this.first.generation);
    // The coordinator first: after its "aborted" nothing that is prepared under this id can be committed.
    const { decision } = await this.ranges.coordinator.inquire(id);
    if (decision === "committed") return "committed";
    await this.ranges.refresh();
    const outcomes = [...(await this.#outcomes(id, decision === "aborted", deadline)).values()];
    if (outcomes.includes("committed")) return "committed";
    return outcomes.includes("unknown") || decision === "unknown" ? "unknown" : "aborted";
  }

  /** The range that has committed a transaction of its own under this id. */
  async committedIn(id: TransactionId, deadline: Deadline): Promise<GroupId | undefined> {
    const attempt = () => this.#outcomes(id, false, deadline);
    const outcomes = await this.persist(deadline, attempt, { transaction: id, repeatable: true });
    for (const [range, outcome] of outcomes) if (outcome === "committed") return range;
    return undefined;
  }

  /** What ranges have answered under the key, all of them asked after this call began; leaves no trace. */
  answered(key: IdempotencyKey, deadline: Deadline): Promise<readonly CommandResult[]> {
    return this.persist(deadline, async () => {
      await this.ranges.refresh();
      const answers = await this.#askAll((of) =>
        this.persist(deadline, () => this.#ask(of, (range) => range.answered(key, of.generation))),
      );
      return [...answers.values()].filter((answer) => answer !== undefined);
    });
  }

  /**
   * What all ranges say. Each is asked as of the generation that this directory has it in, and together these have all
   * keys: who does not know of every range is told so. What changes a range later takes along what it has said.
   */
  async #askAll<T>(
    ask: (of: RangeDescriptor) => Promise<T | typeof MOVED>,
  ): Promise<ReadonlyMap<GroupId, T>> {
    const { complete, ranges } = this.ranges.directory();
    if (!complete) throw moved();
    const asked = await Promise.all(ranges.map(async (of) => [of.range, await ask(of)] as const));
    const told = new Map<GroupId, T>();
    for (const [range, answer] of asked) {
      if (answer === MOVED) throw moved();
      told.set(range, answer);
    }
    return told;
  }

  #outcomes(id: TransactionId, decided: boolean, deadline: Deadline) {
    return this.#askAll((of) => this.#outcomeAt(of, id, decided, deadline));
  }

  /** A range that has prepared it does not know before it is told; when there is something to tell, that is soon. */
  async #outcomeAt(of: RangeDescriptor, id: TransactionId, decided: boolean, deadline: Deadline) {
    const inDoubt = { transaction: id, repeatable: true };
    for (let pauseMs = 5; ; pauseMs *= 2) {
      const ask = (range: RangeService) => range.outcome(id, of.generation);
      const outcome = await this.persist(deadline, () => this.#ask(of, ask), inDoubt);
      const over = pauseMs > LONGEST_PAUSE_MS || deadline.stopped;
      if (outcome !== "unknown" || !decided || over) return outcome;
      await pause(this.clock, pauseMs);
    }
  }

  /** MOVED is no reason to ask this range again, but all that have its keys now. */
  async #ask<T>(
    { range, generation }: RangeDescriptor,
    ask: (range: RangeService) => Promise<T>,
  ): Promise<T | typeof MOVED> {
    if (this.ranges.directory().get(range)?.generation !== generation) return MOVED;
    try {
      return await ask(this.client(range));
    } catch (error) {
      if (!(error instanceof RouteError) || error.moved === undefined) throw error;
      await this.learnFrom(error);
      return MOVED;
    }
  }
}

/** What was found out of a statement is not true of the schema that it would run on: to be found out again. */
export function outdated(analysis: Pick<Analysis, "schemaVersion">, version: number): boolean {
  return analysis.schemaVersion !== undefined && analysis.schemaVersion !== version;
}

/** The keys are no longer where the gateway thought them: what was read there does not count. */
export function moved(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "the range was split or moved while it was read");
}
