/**
 * The whole of a commit across ranges around the coordinator, by seed: gateways that register, prepare and decide and die
 * at any point; participants that vote, hold, ask when they are in doubt and obey; a network that loses, repeats and
 * reorders; a group whose leadership moves and whose nodes restart from their checkpoints. `check` says what must hold.
 */
import { AmbiguousError, RetryError, RouteError } from "../../../src/base/errors.js";
import { type GroupId, groupId, nodeId, type TransactionId, transactionId } from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { CoordinatorLeader } from "../../../src/coordinator/leader.js";
import type { CoordinatorEndpoint } from "../../../src/coordinator/types.js";
import { CoordinatorClient } from "../../../src/gateway/coordinator-client.js";
import { decodeEntry, decodeImage } from "../../../src/machines/coordinator/codec.js";
import {
  beganMs,
  type CoordinatorBounds,
  CoordinatorState,
  type Decision,
} from "../../../src/txn/coordinator.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SimRandom } from "../../sim/sim-random.js";
import { GroupDouble, type NodeDouble } from "./group-double.js";

/** Ways of being wrong, for seeing that they are found. */
export type Bug =
  | "commit without registration"
  | "answer an inquiry without logging"
  | "acknowledge before delivery"
  | "forget the outbox of an earlier leader"
  | "answer as soon as it is proposed";

const BOUNDS: CoordinatorBounds = {
  outcomeAgeMs: 600,
  maxOutcomes: 6,
  maxAnswerBytes: 16,
  maxTotalAnswerBytes: 100,
  maxOpen: 40,
  maxAheadMs: 2_000,
  maxAheadTombstones: 8,
};
const UNDECIDED_MS = 700;
const IN_DOUBT_MS = 250;
const CALL_MS = 80;
const RANGES = [3, 4, 5].map(groupId);
const OUTBOX = { window: 3, firstBackoffMs: 10, maxBackoffMs: 100, gatherMs: 5, proposeAgainMs: 40 };

class Died extends Error {}

/** Messages between a caller and whoever it calls. */
class Network {
  healed = false;

  constructor(
    readonly clock: Clock,
    readonly random: SimRandom,
  ) {}

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.clock.setTimer(ms, resolve));
  }

  async call<T>(work: () => Promise<T>): Promise<T> {
    const { random } = this;
    if (this.healed) return work();
    await this.pause(random.below(15));
    if (random.chance(0.08)) return this.#lost();
    const answer = work();
    // A repetition may come much later than the call has been given up.
    if (random.chance(0.1))
      this.clock.setTimer(random.below(1_500), () => void work().catch(() => undefined));
    const late = this.pause(CALL_MS).then(() => this.#lost<T>());
    late.catch(() => undefined);
    const result = await Promise.race([answer, late]);
    await this.pause(random.below(15));
    return random.chance(0.08) ? this.#lost() : result;
  }

  async #lost<T>(): Promise<T> {
    await this.pause(this.random.below(CALL_MS));
    throw new AmbiguousError("lost", undefined);
  }
}

/** A range that takes part: as durable as its log would be. */
class Participant {
  readonly prepared = new Map<TransactionId, number>();
  readonly outcomes = new Map<TransactionId, Decision>();
  readonly wrong: string[] = [];
  toldUnknown = 0;

  constructor(
    readonly range: GroupId,
    readonly clock: Clock,
    readonly random: SimRandom,
  ) {}

  async prepare(transaction: TransactionId): Promise<boolean> {
    const outcome = this.outcomes.get(transaction);
    if (outcome !== undefined) return outcome === "committed";
    if (this.prepared.has(transaction)) return true;
    if (this.random.chance(0.1)) return false;
    this.prepared.set(transaction, this.clock.monotonicMs());
    return true;
  }

  async resolve(transaction: TransactionId, decision: Decision): Promise<void> {
    const before = this.outcomes.get(transaction);
    if (before !== undefined) {
      if (before !== decision) this.wrong.push(`${transaction} ${before}, then ${decision} at ${this.range}`);
      return;
    }
    if (decision === "committed" && !this.prepared.has(transaction))
      this.wrong.push(`${transaction} committed at ${this.range}, which has not prepared it`);
    this.prepared.delete(transaction);
    this.outcomes.set(transaction, decision);
  }

  /** Asks about what it has held for long. */
  async ask(coordinator: CoordinatorEndpoint): Promise<void> {
    for (const [transaction, sinceMs] of this.prepared) {
      if (this.clock.monotonicMs() - sinceMs < IN_DOUBT_MS) continue;
      const { decision } = await coordinator.inquire(transaction);
      if (decision === "unknown") this.toldUnknown++;
      await this.resolve(transaction, decision === "unknown" ? "aborted" : decision);
    }
  }
}

interface Attempt {
  readonly transaction: TransactionId;
  readonly participants: readonly GroupId[];
  told: Decision | "unknown";
}

export class Protocol {
  readonly clock = new ManualClock();
  readonly group: GroupDouble;
  readonly attempts: Attempt[] = [];
  readonly wrong: string[] = [];
  readonly seen = new Map<string, number>();
  readonly participants: ReadonlyMap<GroupId, Participant>;
  readonly #random: SimRandom;
  readonly #schedule: SimRandom;
  readonly #network: Network;
  readonly #leaders: (CoordinatorLeader | undefined)[] = [];
  readonly #clients: CoordinatorClient[];
  readonly #bug: Bug | undefined;
  #names = 0;

  constructor(seed: number, bug?: Bug) {
    this.#bug = bug;
    this.#random = new SimRandom(seed, "gateways");
    this.#schedule = new SimRandom(seed, "schedule");
    this.#network = new Network(this.clock, new SimRandom(seed, "network"));
    this.group = new GroupDouble({
      clock: this.clock,
      nodes: 3,
      bounds: BOUNDS,
      commitMs: () => (this.#network.healed ? 1 : this.#schedule.below(20)),
    });
    const votes = new SimRandom(seed, "votes");
    this.participants = new Map(RANGES.map((range) => [range, new Participant(range, this.clock, votes)]));
    this.group.nodes.forEach((node, n) => {
      this.#leaders[n] = this.#lead(node);
    });
    this.#clients = [0, 1].map(() => this.#client());
  }

  // --- the parts ----------------------------------------------------------------------------------------------------

  #lead(node: NodeDouble): CoordinatorLeader {
    const skewMs = (node.id - 2) * 150;
    const clock: Clock = {
      monotonicMs: () => this.clock.monotonicMs(),
      wallMs: () => this.clock.wallMs() + skewMs,
      setTimer: (delayMs, fire) => this.clock.setTimer(delayMs, fire),
    };
    const leader: CoordinatorLeader = new CoordinatorLeader({
      handle: node.handle,
      machine: node.machine,
      clock,
      limits: { undecidedMs: UNDECIDED_MS, outbox: OUTBOX },
      resolve: async (range, transaction, decision) => {
        // What a node that was restarted had under way is nobody's any more.
        if (this.#leaders[node.id - 1] !== leader) return new Promise(() => undefined);
        const participant = this.participants.get(range)!;
        const delivery = this.#network.call(() => participant.resolve(transaction, decision));
        if (this.#bug === "acknowledge before delivery") delivery.catch(() => undefined);
        else await delivery;
      },
    });
    if (this.#bug === "forget the outbox of an earlier leader") {
      const { state } = node.machine;
      Object.defineProperty(state, "rows", { value: () => [] });
    }
    return leader;
  }

  /** A node without a replica: everything goes over the network. */
  #client(): CoordinatorClient {
    return new CoordinatorClient({
      self: nodeId(9),
      clock: this.clock,
      graceMs: CALL_MS,
      hosted: undefined,
      candidates: () => this.group.nodes.map(({ id }) => id),
      remote: (node) => {
        const call = <T>(work: (leader: CoordinatorEndpoint) => Promise<T>): Promise<T> =>
          this.#network.call(async () => {
            const leader = this.#leaders[node - 1];
            if (leader === undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is down");
            return work(leader);
          });
        return {
          register: (...args) => call((leader) => leader.register(...args)),
          decide: (...args) => call((leader) => this.#decide(leader, ...args)),
          inquire: (...args) => call((leader) => this.#inquire(leader, ...args)),
          list: () => call((leader) => leader.list()),
          outbox: () => call((leader) => leader.outbox()),
        };
      },
      ask: (node) => this.#network.call(async () => this.group.nodes[node - 1]!.leader),
    });
  }

  async #decide(
    leader: CoordinatorEndpoint,
    ...[transaction, decision, answer]: Parameters<CoordinatorEndpoint["decide"]>
  ): ReturnType<CoordinatorEndpoint["decide"]> {
    if (this.#bug === "commit without registration" && decision === "committed")
      await leader.register(transaction, []);
    const decided = leader.decide(transaction, decision, answer);
    if (this.#bug !== "answer as soon as it is proposed") return decided;
    decided.catch(() => undefined);
    return { decision, answer };
  }

  async #inquire(
    leader: CoordinatorEndpoint,
    transaction: TransactionId,
  ): ReturnType<CoordinatorEndpoint["inquire"]> {
    if (this.#bug !== "answer an inquiry without logging") return leader.inquire(transaction);
    const known = this.group.nodes[0]!.machine.state.decided(transaction);
    return known ?? { decision: "aborted", answer: undefined };
  }

  // --- what goes on -------------------------------------------------------------------------------------------------

  /** Tries as a gateway would: what was refused or is in doubt is said again. */
  async #persist<T>(times: number, attempt: () => Promise<T>): Promise<T> {
    for (let n = 1; ; n++) {
      try {
        return await attempt();
      } catch (error) {
        const passing =
          error instanceof RouteError || error instanceof AmbiguousError || error instanceof RetryError;
        if (!passing || n >= times) throw error;
        await this.#network.pause(10 * n);
      }
    }
  }

  async gateway(): Promise<void> {
    const random = this.#random;
    const count = random.between(1, RANGES.length);
    const participants = [...RANGES].sort(() => random.float() - 0.5).slice(0, count);
    // Some have been open for long.
    const began = this.clock.wallMs() - (random.chance(0.2) ? random.below(900) : 0);
    const transaction = transactionId(`t${++this.#names}@${began.toString(36)}`);
    const attempt: Attempt = { transaction, participants, told: "unknown" };
    this.attempts.push(attempt);
    const coordinator = this.#clients[random.below(this.#clients.length)]!;
    const mayDie = (): void => {
      if (random.chance(0.06)) throw new Died();
    };
    try {
      attempt.told = await this.#commit(attempt, coordinator, mayDie);
    } catch (error) {
      if (!(error instanceof Died || error instanceof AmbiguousError || error instanceof RetryError))
        if (!(error instanceof RouteError)) throw error;
    }
    this.#count(`told ${attempt.told}`);
  }

  async #commit(
    { transaction, participants }: Attempt,
    coordinator: CoordinatorEndpoint,
    mayDie: () => void,
  ): Promise<Decision | "unknown"> {
    const registered = this.#persist(4, () => coordinator.register(transaction, participants)).catch(
      () => undefined,
    );
    mayDie();
    const votes = participants.map((range) =>
      this.#persist(3, () =>
        this.#network.call(() => this.participants.get(range)!.prepare(transaction)),
      ).catch(() => false),
    );
    const yes = (await Promise.all(votes)).every(Boolean);
    mayDie();
    const state = (await registered)?.state;
    this.#count(`registering answered ${state}`);
    mayDie();
    const trusting = this.#bug === "commit without registration";
    const wanted = yes && (trusting || state === "registered") ? "committed" : "aborted";
    if (this.#random.chance(0.1)) await this.#network.pause(this.#random.below(2 * UNDECIDED_MS));
    const { decision } = await this.#persist(6, () =>
      coordinator.decide(transaction, wanted, Uint8Array.of(1)),
    );
    return decision;
  }

  /** Leadership moves; or there is none for a while; or a node restarts from its checkpoint. */
  #disturb(): void {
    const random = this.#schedule;
    const node = this.group.nodes[random.below(3)]!;
    const survive = random.below(this.group.inFlight + 1);
    const doubt = () => random.chance(0.5);
    if (random.chance(0.3)) this.group.elect(undefined, survive, doubt);
    else this.group.elect(node, survive, doubt);
    const other = this.group.nodes[random.below(3)]!;
    if (random.chance(0.5)) other.catchUp(random.between(other.applied, this.group.log.length));
    if (random.chance(0.3)) other.checkpoint();
    if (this.group.leader !== other && random.chance(0.3)) {
      this.#leaders[other.id - 1]?.close();
      other.restart();
      this.#leaders[other.id - 1] = this.#lead(other);
    }
  }

  #every(meanMs: number, untilMs: number, run: () => void): void {
    const next = (): void =>
      void this.clock.setTimer(1 + this.#schedule.below(2 * meanMs), () => {
        if (this.clock.monotonicMs() >= untilMs) return;
        run();
        next();
      });
    next();
  }

  /** Everything may fail, then nothing does; resolves when nothing goes on any more. */
  async run(): Promise<void> {
    const fail = (error: unknown): void => void this.wrong.push(`unexpected: ${String(error)}`);
    const badMs = 4_000;
    const endMs = badMs + 6_000;
    this.#disturb();
    this.#every(60, badMs, () => void this.gateway().catch(fail));
    this.#every(120, badMs, () => this.#disturb());
    for (const participant of this.participants.values())
      this.#every(60, endMs, () => void participant.ask(this.#clients[0]!).catch(() => undefined));
    await this.clock.advance(badMs);
    this.#network.healed = true;
    this.group.elect(this.group.nodes[this.#schedule.below(3)], this.group.inFlight, () => false);
    await this.clock.advance(endMs - badMs);
  }

  #count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }

  // --- what must hold -----------------------------------------------------------------------------------------------

  check(): string[] {
    const wrong = [...this.wrong];
    for (const participant of this.participants.values()) {
      wrong.push(...participant.wrong);
      if (participant.toldUnknown > 0) this.#count("a participant in doubt is told unknown");
    }
    for (const leader of this.#leaders)
      if ((leader?.counts().byRecovery ?? 0) > 0) this.#count("aborted by recovery");
    const decisions = this.#checkLog(wrong);
    for (const { transaction, participants, told } of this.attempts) {
      const decision = decisions.get(transaction);
      if (told !== "unknown" && decision !== undefined && told !== decision)
        wrong.push(`${transaction} is ${decision}, and ${told} was told`);
      for (const range of participants) {
        const { outcomes, prepared } = this.participants.get(range)!;
        const outcome = outcomes.get(transaction);
        if (prepared.has(transaction)) wrong.push(`${transaction} is in doubt at ${range} for ever`);
        if (told === "committed" && outcome !== "committed")
          wrong.push(`${transaction} was told committed, and ${range} has ${outcome}`);
        if (told === "aborted" && outcome === "committed")
          wrong.push(`${transaction} was told aborted, and ${range} has committed it`);
        if (decision === "committed" && outcome !== "committed")
          wrong.push(`${transaction} is committed, and ${range} has ${outcome}`);
      }
      const outcomes = new Set(
        participants.map((range) => this.participants.get(range)!.outcomes.get(transaction)),
      );
      if (outcomes.has("committed") && outcomes.size > 1) wrong.push(`${transaction} is half committed`);
    }
    return wrong;
  }

  /** The committed log again, entry by entry. */
  #checkLog(wrong: string[]): Map<TransactionId, Decision> {
    const decisions = new Map<TransactionId, Decision>();
    const unacknowledged = new Map<number, TransactionId>();
    let state = new CoordinatorState(BOUNDS);
    for (const [n, data] of this.group.log.entries()) {
      const { wallMs, commands } = decodeEntry(data);
      const results = state.apply(wallMs, commands);
      commands.forEach((command, c) => {
        const result = results[c]!;
        this.#count(`${command.kind} ${result.state}`);
        if (command.kind === "acknowledge") for (const row of command.rows) unacknowledged.delete(row);
        else if (result.state === "committed" || result.state === "aborted") {
          const before = decisions.get(command.transaction);
          if (before !== undefined && before !== result.state)
            wrong.push(`two decisions about ${command.transaction}`);
          decisions.set(command.transaction, result.state);
        } else if (result.state === "unknown" && beganMs(command.transaction) >= state.floorMs)
          wrong.push(`${command.transaction} is unknown above the mark`);
      });
      for (const row of state.takeFreshRows()) unacknowledged.set(row.id, row.transaction);
      for (const transaction of unacknowledged.values())
        if (state.decided(transaction)?.decision !== decisions.get(transaction))
          wrong.push(`${transaction} was forgotten before all acknowledged`);
      if (state.open > BOUNDS.maxOpen || state.outcomes > BOUNDS.maxOutcomes + BOUNDS.maxAheadTombstones)
        wrong.push("the state is not bounded");
      if (n % 7 === 0) state = CoordinatorState.fromImage(state.image(), BOUNDS);
    }
    if (state.open > 0 || state.undelivered > 0)
      wrong.push(`left open: ${JSON.stringify(state.transactions())}`);
    for (const node of this.group.nodes) {
      node.catchUp();
      const copy = CoordinatorState.fromImage(decodeImage(node.machine.snapshot()), BOUNDS);
      if (JSON.stringify(copy.image()) !== JSON.stringify(state.image())) wrong.push("replicas differ");
    }
    return decisions;
  }
}
