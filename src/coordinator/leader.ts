/**
 * The coordinator's leader. Every node that has a replica of the coordinator's group has one of these; it refuses
 * (RouteError) unless that replica leads and has applied an entry of its own term, and so every inherited one.
 *
 * Invariants:
 * 1. What is answered is in the log: a result comes from an applied entry, or from a decision found in the applied
 *    state, which is final whoever leads.
 * 2. Commands are proposed in the term they came in. Whether they take effect is ruled at apply, in log order.
 * 3. While it leads, every undelivered outbox row is on its way or waits for its next try (outbox.ts), and whatever has
 *    been registered for `undecidedMs` of this leadership is decided as aborted: nobody is left waiting for a gateway
 *    that died.
 */
import { AmbiguousError, RetryError, RouteError } from "../base/errors.js";
import type { GroupId, Term, TransactionId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import { decodeResults, encodeEntry } from "../machines/coordinator/codec.js";
import type { CoordinatorMachine } from "../machines/coordinator/coordinator.js";
import type { GroupHandle } from "../multiraft/types.js";
import { BatchProposer, type Proposal } from "../range/proposer.js";
import type {
  CoordinatedTransaction,
  CoordinatorCommand,
  CoordinatorResult,
  Decision,
  OutboxRow,
} from "../txn/coordinator.js";
import type { TransactionTrace } from "../txn/trace.js";
import { DEFAULT_OUTBOX_LIMITS, Outbox, type OutboxLimits, type Resolve } from "./outbox.js";
import type { CoordinatorEndpoint, CoordinatorService } from "./types.js";

export interface CoordinatorLeaderLimits {
  /** A transaction registered for so long and not decided is aborted. */
  readonly undecidedMs: number;
  readonly outbox: OutboxLimits;
}

export const DEFAULT_COORDINATOR_LIMITS: CoordinatorLeaderLimits = {
  undecidedMs: 20_000,
  outbox: DEFAULT_OUTBOX_LIMITS,
};

/** What is registered is looked at so many times in `undecidedMs`. */
const CHECKS = 8;

export interface CoordinatorDependencies {
  /** The coordinator's group on this node. */
  readonly handle: GroupHandle;
  readonly machine: CoordinatorMachine;
  readonly clock: Clock;
  /** Delivers a decision to a range, wherever its leader is; deals with ranges that have been merged into others. */
  readonly resolve: Resolve;
  /**
   * Given where the log may lack decisions, as after a recovery: whether a range is known to have been told that the
   * transaction is committed.
   */
  readonly delivered?: ((transaction: TransactionId) => Promise<boolean>) | undefined;
  readonly limits: CoordinatorLeaderLimits;
  readonly trace?: TransactionTrace;
}

/** Counted by the leader since this node started; the cluster's numbers are the sums over its nodes. */
export interface CoordinatorCounts {
  readonly registered: number;
  readonly committed: number;
  readonly aborted: number;
  /** Of the aborted, those decided because somebody was in doubt or the gateway did not come back. */
  readonly byRecovery: number;
  readonly delivered: number;
}

class CoordinatorProposal implements Proposal<CoordinatorCommand, CoordinatorResult> {
  constructor(readonly command: CoordinatorCommand) {}

  settled(): void {}
}

export class CoordinatorLeader implements CoordinatorEndpoint {
  readonly group: GroupId;
  readonly #deps: CoordinatorDependencies;
  readonly #proposer: BatchProposer<CoordinatorProposal, CoordinatorCommand, CoordinatorResult>;
  readonly #unsubscribe: readonly (() => void)[];
  #leadership: Leadership | undefined;
  readonly #counts = { registered: 0, committed: 0, aborted: 0, byRecovery: 0, delivered: 0 };

  constructor(deps: CoordinatorDependencies) {
    this.#deps = deps;
    this.group = deps.handle.group;
    this.#proposer = new BatchProposer(deps.handle, {
      encode: (commands) => encodeEntry({ wallMs: Math.max(0, Math.floor(deps.clock.wallMs())), commands }),
      decode: decodeResults,
    });
    const follow = ({ leaderReady, term }: { readonly leaderReady: boolean; readonly term: Term }): void => {
      if (leaderReady && this.#leadership?.term === term) return;
      this.#leadership?.stop();
      this.#leadership = leaderReady ? this.#lead(term) : undefined;
    };
    this.#unsubscribe = [
      deps.handle.onChange(follow),
      deps.machine.onRows((rows) => this.#leadership?.outbox.add(rows)),
    ];
    follow(deps.handle.status());
  }

  /** Ends what runs by itself; calls are refused from then on. */
  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#leadership?.stop();
    this.#leadership = undefined;
  }

  #lead(term: Term): Leadership {
    const { clock, resolve, machine, limits } = this.#deps;
    const outbox = new Outbox({
      clock,
      resolve,
      limits: limits.outbox,
      acknowledge: (rows) => this.#submit({ kind: "acknowledge", rows }, term),
    });
    outbox.add(machine.state.rows());
    return new Leadership(term, outbox, {
      clock,
      machine,
      undecidedMs: limits.undecidedMs,
      abort: (transaction) => this.#recover(transaction, term),
    });
  }

  #leading(): Leadership {
    if (this.#leadership !== undefined) return this.#leadership;
    const { leader, role } = this.#deps.handle.status();
    throw new RouteError(
      "this node does not lead the coordinator",
      leader === 0 || role === "leader" ? undefined : leader,
    );
  }

  // --- CoordinatorService -------------------------------------------------------------------------------------------

  async register(
    transaction: TransactionId,
    participants: readonly GroupId[],
  ): ReturnType<CoordinatorService["register"]> {
    const leadership = this.#leading();
    const result = await this.#about(
      transaction,
      { kind: "register", transaction, participants },
      leadership,
    );
    if (result.state !== "registered") return told(result);
    this.#deps.trace?.note(transaction, "registered", `ranges ${participants.join(", ")}`);
    leadership.watch();
    return { state: "registered" };
  }

  async decide(
    transaction: TransactionId,
    decision: Decision,
    answer?: Uint8Array,
  ): Promise<{ readonly decision: Decision; readonly answer: Uint8Array | undefined }> {
    const known = this.#known(transaction);
    if (known !== undefined) return known;
    const command: CoordinatorCommand = { kind: "decide", transaction, decision, answer };
    const result = await this.#about(transaction, command, this.#leading());
    if ("changed" in result && result.changed) this.#deps.trace?.note(transaction, "decided", result.state);
    if (result.state === "committed" && result.changed) return { decision: "committed", answer };
    const { state, answer: kept } = told(result);
    if (state === "unknown")
      throw new AmbiguousError("the transaction is older than what is remembered", transaction);
    return { decision: state, answer: kept };
  }

  async inquire(
    transaction: TransactionId,
  ): Promise<{ readonly decision: Decision | "unknown"; readonly answer: Uint8Array | undefined }> {
    const known = this.#known(transaction);
    if (known !== undefined) return known;
    const { state, answer } = told(await this.#recover(transaction, this.#leading().term));
    return { decision: state, answer };
  }

  /** A decision is final, so whoever has applied it may tell it. */
  #known(transaction: TransactionId): ReturnType<CoordinatorMachine["state"]["decided"]> {
    return this.#deps.machine.state.decided(transaction);
  }

  async #about(
    transaction: TransactionId,
    command: CoordinatorCommand,
    { term }: { readonly term: Term },
  ): Promise<CoordinatorResult> {
    try {
      return await this.#submit(command, term);
    } catch (error) {
      if (error instanceof AmbiguousError) throw new AmbiguousError(error.message, transaction);
      throw error;
    }
  }

  /** Aborts unless it is decided, or was. */
  async #recover(transaction: TransactionId, term: Term): Promise<CoordinatorResult> {
    const { delivered } = this.#deps;
    if (delivered !== undefined && (await delivered(transaction))) return this.#restore(transaction, term);
    const command: CoordinatorCommand = {
      kind: "decide",
      transaction,
      decision: "aborted",
      answer: undefined,
    };
    const result = await this.#about(transaction, command, { term });
    if (result.state === "aborted" && result.changed) {
      this.#counts.byRecovery++;
      this.#deps.trace?.note(transaction, "decided", "aborted by recovery");
    }
    return result;
  }

  /** What was decided before the log lost it. */
  async #restore(transaction: TransactionId, term: Term): Promise<CoordinatorResult> {
    if (!this.#deps.machine.state.isUndecided(transaction))
      return { state: "committed", changed: false, answer: undefined };
    const command: CoordinatorCommand = {
      kind: "decide",
      transaction,
      decision: "committed",
      answer: undefined,
    };
    return this.#about(transaction, command, { term });
  }

  async #submit(command: CoordinatorCommand, term: Term): Promise<CoordinatorResult> {
    const result = await this.#proposer.submit(new CoordinatorProposal(command), term);
    if (result.state === "acknowledged") this.#counts.delivered += result.delivered;
    else if ("changed" in result && result.changed) this.#counts[result.state]++;
    return result;
  }

  // --- for system tables and metrics --------------------------------------------------------------------------------

  /** What is not over. RouteError unless this node leads: others may be behind. */
  async list(): Promise<CoordinatedTransaction[]> {
    this.#leading();
    return this.#deps.machine.state.transactions();
  }

  /** Undelivered rows. RouteError unless this node leads. */
  async outbox(): Promise<OutboxRow[]> {
    this.#leading();
    return this.#deps.machine.state.rows();
  }

  counts(): CoordinatorCounts {
    return { ...this.#counts };
  }

  /** As applied on this node: registered and undecided, rows undelivered, outcomes kept. */
  gauges(): { readonly inDoubt: number; readonly undelivered: number; readonly outcomes: number } {
    const { registered, undelivered, outcomes } = this.#deps.machine.state;
    return { inDoubt: registered, undelivered, outcomes };
  }
}

interface Watched {
  readonly clock: Clock;
  readonly machine: CoordinatorMachine;
  readonly undecidedMs: number;
  readonly abort: (transaction: TransactionId) => Promise<unknown>;
}

/** What a leader does by itself, for as long as it leads. */
class Leadership {
  readonly #deps: Watched;
  /** When each undecided transaction was first seen. */
  #seen = new Map<TransactionId, number>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(
    readonly term: Term,
    readonly outbox: Outbox,
    deps: Watched,
  ) {
    this.#deps = deps;
    this.#look();
  }

  stop(): void {
    this.#stopped = true;
    this.outbox.stop();
    this.#timer?.cancel();
  }

  /** Something was registered. */
  watch(): void {
    if (this.#stopped) return;
    this.#timer ??= this.#deps.clock.setTimer(this.#deps.undecidedMs / CHECKS, () => {
      this.#timer = undefined;
      this.#look();
    });
  }

  #look(): void {
    const { clock, machine, undecidedMs, abort } = this.#deps;
    const nowMs = clock.monotonicMs();
    const before = this.#seen;
    this.#seen = new Map();
    for (const transaction of machine.state.undecided()) {
      const sinceMs = before.get(transaction) ?? nowMs;
      this.#seen.set(transaction, sinceMs);
      // What cannot be proposed now is seen again at the next look.
      if (nowMs - sinceMs >= undecidedMs) abort(transaction).catch(() => undefined);
    }
    if (this.#seen.size > 0) this.watch();
  }
}

/** A decision as it is told; what was refused rejects. */
function told(result: CoordinatorResult): {
  readonly state: Decision | "unknown";
  readonly answer: Uint8Array | undefined;
} {
  switch (result.state) {
    case "committed":
    case "aborted":
      return { state: result.state, answer: result.answer };
    case "unknown":
      return { state: "unknown", answer: undefined };
    case "ahead":
      throw new RetryError(
        "OSTRAKA_UNAVAILABLE",
        "the clock that the transaction's id was made by is far ahead of the coordinator's",
      );
    case "full":
      throw new RetryError("OSTRAKA_UNAVAILABLE", "too many transactions wait for ranges that do not answer");
    default:
      throw new RetryError("OSTRAKA_UNAVAILABLE", `the coordinator answered ${result.state}`);
  }
}
