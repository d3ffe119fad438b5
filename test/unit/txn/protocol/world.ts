/**
 * Ranges, a coordinator and clients under one seed: clients do what gateways do, by the contracts of src/range/types.ts
 * and src/coordinator/types.ts, over messages that get lost and repeated, to leaders that may have been deposed. What
 * they are told is judged as a history of appends and reads of lists.
 */
import {
  groupId,
  type LogIndex,
  logIndex,
  type TransactionId,
  transactionId,
} from "../../../../src/base/ids.js";
import type { Span } from "../../../../src/sql/types.js";
import { CoordinatorState } from "../../../../src/txn/coordinator.js";
import { anyIntersect } from "../../../../src/txn/spans.js";
import {
  type AppendTransaction,
  checkListAppend,
  type MicroOperation,
} from "../../../sim/checkers/list-append.js";
import { Events } from "./events.js";
import { type Append, keySpan, type Leader, type LocalRead, type Pace, Range, type Shared } from "./range.js";
import type { Rule } from "./rules.js";

const KEYS_PER_RANGE = 2;
const SLOW = {
  prepareWaitMs: 150,
  crossingWaitMs: 30,
  fenceWaitMs: 300,
  fenceMs: 400,
  inDoubtMs: 500,
  callMs: 700,
};
const HASTY = {
  prepareWaitMs: 10,
  crossingWaitMs: 4,
  fenceWaitMs: 30,
  fenceMs: 12,
  inDoubtMs: 30,
  callMs: 100,
};
const QUICK = {
  prepareWaitMs: 30,
  crossingWaitMs: 10,
  fenceWaitMs: 60,
  fenceMs: 40,
  inDoubtMs: 50,
  callMs: 150,
};
const STEPS = 140;
const MAX_ACTIVE = 7;
/** Time in which everything must come to its end once nothing gets lost any more. */
const PATIENCE_MS = 60_000;

type Outcome = AppendTransaction["outcome"];

/** What a client does, from its beginning to what it was told. */
class Operation {
  readonly client: string;
  readonly startMs: number;
  readonly operations: MicroOperation[] = [];
  outcome: Outcome = "unknown";
  endMs = Infinity;
  ended = false;

  constructor(
    readonly kind: string,
    n: number,
    readonly world: World,
  ) {
    this.client = `${kind}${n}`;
    this.startMs = world.events.step;
  }

  end(outcome: Outcome): void {
    if (this.ended) return;
    this.ended = true;
    this.outcome = outcome;
    if (outcome !== "unknown") this.endMs = this.world.events.step;
    this.world.count(`${this.kind}: ${outcome}`);
  }
}

export class World {
  readonly events: Events;
  readonly ranges: Range[];
  readonly problems: string[] = [];
  readonly counts: Map<string, number>;
  readonly #coordinator = new CoordinatorState();
  readonly #operations: Operation[] = [];
  readonly #without: ReadonlySet<Rule>;
  readonly #pace: Pace;
  readonly #fencesRepeated: number;
  readonly #weights: { readonly fences: number; readonly wide: number; readonly elections: number };
  #values = 0;
  #ids = 0;

  constructor(seed: number, without: ReadonlySet<Rule>, counts: Map<string, number>) {
    this.events = new Events(seed);
    this.#without = without;
    this.counts = counts;
    // What only a rare coincidence shows needs a world in which it is less rare.
    const fencesFail = without.has("a fence that was ended never stands again");
    this.#pace = fencesFail ? HASTY : this.events.pick([SLOW, SLOW, QUICK, HASTY]);
    this.#fencesRepeated = fencesFail ? 60 : 20;
    const shared: Shared = {
      events: this.events,
      pace: this.#pace,
      without,
      count: (what) => this.count(what),
      fail: (why) => this.problems.push(why),
      inquire: (id, told) => this.#call(() => this.#decide(id, false), told),
    };
    const { events } = this;
    this.ranges = Array.from({ length: 2 + events.below(2) }, () => new Range(shared));
    this.#weights = {
      fences: events.pick([1, 1, 8]),
      wide: events.pick([2, 4, 10]),
      elections: events.pick([0, 1, 3]),
    };
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  // --- running --------------------------------------------------------------------------------------------------

  run(): string | undefined {
    for (let i = 0; i < STEPS && this.problems.length === 0; i++) this.#step();
    if (this.problems.length === 0) this.#drain();
    if (this.problems.length > 0) return this.problems[0];
    const verdict = checkListAppend([...this.#history(), this.#lastRead()]);
    return verdict.verdict === "valid" ? undefined : verdict.problems[0];
  }

  #step(): void {
    const { events } = this;
    events.step++;
    const active = this.#operations.filter(({ ended }) => !ended).length;
    const choice = events.below(30);
    if (choice < 3 && active < MAX_ACTIVE) {
      this.#begin();
      return;
    }
    if (choice < 7) return void this.#replicate();
    if (choice < 9) return void events.advance();
    if (choice === 9) {
      this.#deliverOutbox();
      return;
    }
    if (choice === 10 && events.below(12) < this.#weights.elections) {
      events.pick(this.ranges).elect();
      return;
    }
    if (events.messages > 0) {
      events.deliverOne();
      return;
    }
    if (active === 0) {
      this.#begin();
      return;
    }
    if (!this.#replicate()) events.advance();
  }

  /** One step of one log; false when all are at their end. */
  #replicate(): boolean {
    const steps: (() => void)[] = [];
    for (const range of this.ranges) {
      if (range.committed < range.log.length) steps.push(() => range.commit());
      if (range.leader.behind) steps.push(() => range.leader.applyOne());
    }
    if (steps.length === 0) return false;
    this.events.pick(steps)();
    return true;
  }

  /** Nothing gets lost any more: everything must come to its end. */
  #drain(): void {
    const { events } = this;
    events.unreliable = false;
    const untilMs = events.nowMs + PATIENCE_MS;
    while (events.nowMs < untilMs) {
      events.step++;
      if (this.#replicate()) continue;
      if (events.messages > 0) {
        events.deliverOne();
        continue;
      }
      if (this.#coordinator.undelivered > 0) {
        this.#deliverOutbox();
        continue;
      }
      if (this.#isOver() || !events.advance()) break;
    }
    if (!this.#isOver()) this.problems.push(`not everything came to its end: ${this.#unfinished()}`);
  }

  #isOver(): boolean {
    return (
      this.#operations.every(({ ended }) => ended) &&
      this.ranges.every(({ leader }) => leader.state.prepared.size === 0 && leader.gate.holds.size === 0) &&
      this.#coordinator.undelivered === 0
    );
  }

  #unfinished(): string {
    const open = this.#operations.filter(({ ended }) => !ended).map(({ client }) => client);
    const held = this.ranges.map(({ leader }) => [...leader.gate.holds.ids()].join("+") || "nothing");
    return `${open.join(", ") || "no client"} waits; held: ${held.join(", ")}`;
  }

  // --- judging --------------------------------------------------------------------------------------------------

  #history(): AppendTransaction[] {
    return this.#operations.map(({ client, operations, outcome, startMs, endMs }) => ({
      client,
      operations,
      outcome,
      startMs,
      endMs,
    }));
  }

  #lastRead(): AppendTransaction {
    const operations: MicroOperation[] = [];
    for (const [at, range] of this.ranges.entries())
      for (let i = 0; i < KEYS_PER_RANGE; i++) {
        const key = at * KEYS_PER_RANGE + i;
        operations.push({ kind: "read", key: `k${key}`, list: range.leader.state.lists.get(key) ?? [] });
      }
    const startMs = this.events.step + 1;
    return { client: "last", operations, outcome: "committed", startMs, endMs: startMs + 1 };
  }

  // --- messages -------------------------------------------------------------------------------------------------

  rule(rule: Rule): boolean {
    return !this.#without.has(rule);
  }

  /** A call and its answer, each a message; `told` hears the first answer. */
  #call<T>(work: () => T, told: (answer: T) => void): void {
    let heard = false;
    this.events.send(() => {
      const answer = work();
      this.events.send(() => {
        if (heard) return;
        heard = true;
        told(answer);
      });
    });
  }

  /** A call to a leader; undefined when no answer came in time. */
  #ask<T>(
    work: (reply: (answer: T) => void) => void,
    told: (answer: T | undefined) => void,
    repeatPercent?: number,
  ): void {
    let heard = false;
    const timer = this.events.timer(this.#pace.callMs, () => {
      if (heard) return;
      heard = true;
      told(undefined);
    });
    const reply = (answer: T): void =>
      this.events.send(() => {
        if (heard) return;
        heard = true;
        timer.cancelled = true;
        told(answer);
      });
    this.events.send(() => work(reply), repeatPercent);
  }

  // --- the coordinator ------------------------------------------------------------------------------------------

  /** Decides; answers what is decided. */
  #decide(id: TransactionId, commit: boolean): boolean {
    const decision = commit ? "committed" : "aborted";
    const [result] = this.#coordinator.apply(this.events.nowMs, [
      { kind: "decide", transaction: id, decision, answer: undefined },
    ]);
    if (commit && result!.state === "aborted") {
      this.count("decision came too late");
      if (!this.rule("a tombstone defeats a later decision")) return true;
    }
    return result!.state === "committed";
  }

  #register(id: TransactionId, ranges: readonly number[]): boolean {
    const participants = ranges.map((range) => groupId(range + 10));
    const [result] = this.#coordinator.apply(this.events.nowMs, [
      { kind: "register", transaction: id, participants },
    ]);
    return result!.state === "registered" || !this.rule("a tombstone defeats a later decision");
  }

  #deliverOutbox(): void {
    const rows = this.#coordinator.rows();
    if (rows.length === 0) return;
    const row = this.events.pick(rows);
    const leader = this.ranges[row.destination - 10]!.believed();
    this.#ask<boolean>(
      (reply) => leader.resolve(row.transaction, row.decision === "committed", reply),
      (resolved) => {
        if (resolved) this.#coordinator.apply(this.events.nowMs, [{ kind: "acknowledge", rows: [row.id] }]);
      },
    );
  }

  // --- clients --------------------------------------------------------------------------------------------------

  #begin(): void {
    const { fences, wide } = this.#weights;
    const kinds: [number, () => void][] = [
      [2, () => this.#autocommit()],
      [2, () => this.#localRead()],
      [3, () => this.#oneRange()],
      [wide, () => this.#wide()],
      [fences, () => this.#wideRead()],
    ];
    let left = this.events.below(kinds.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, begin] of kinds) {
      if (left < weight) {
        begin();
        return;
      }
      left -= weight;
    }
  }

  #operation(kind: string): Operation {
    const operation = new Operation(kind, this.#operations.length, this);
    this.#operations.push(operation);
    return operation;
  }

  #id(): TransactionId {
    return transactionId(`t${++this.#ids}@${this.events.nowMs.toString(36)}`);
  }

  #keyOf(range: number): number {
    return range * KEYS_PER_RANGE + this.events.below(KEYS_PER_RANGE);
  }

  #someRange(): number {
    return this.events.below(this.ranges.length);
  }

  #append(operation: Operation, key: number): Append {
    const value = ++this.#values;
    operation.operations.push({ kind: "append", key: `k${key}`, value });
    return { key, value };
  }

  #read(operation: Operation, key: number, list: readonly number[]): void {
    operation.operations.push({ kind: "read", key: `k${key}`, list });
  }

  #autocommit(): void {
    const operation = this.#operation("write");
    const at = this.#someRange();
    const appends = [this.#append(operation, this.#keyOf(at))];
    if (this.events.chance(50)) {
      const other = at * KEYS_PER_RANGE + ((appends[0]!.key + 1) % KEYS_PER_RANGE);
      appends.push(this.#append(operation, other));
    }
    const leader = this.ranges[at]!.believed();
    const id = this.#id();
    this.#ask<boolean | undefined>(
      (reply) => leader.write(id, appends, reply),
      (result) => operation.end(result === true ? "committed" : "unknown"),
    );
  }

  /** On a replica, at a read point or later. */
  #localRead(): void {
    const operation = this.#operation("read");
    const at = this.#someRange();
    const range = this.ranges[at]!;
    const keys = [at * KEYS_PER_RANGE, at * KEYS_PER_RANGE + 1];
    const spans = keys.map(keySpan);
    const leader = range.believed();
    const attempt = (tries: number): void =>
      this.#ask<{ readonly point: LogIndex; readonly held: readonly Span[] } | undefined>(
        (reply) =>
          leader.readPoint((point, held) => reply(point === undefined ? undefined : { point, held })),
        (answer) => {
          if (answer === undefined || tries > 3) return operation.end("aborted");
          if (anyIntersect(answer.held, spans)) return void this.events.timer(20, () => attempt(tries + 1));
          // The replica may have come further meanwhile.
          const index = answer.point + this.events.below(range.committed - answer.point + 1);
          const state = range.states[index]!;
          const undecided = [...state.prepared.values()].some(({ writes }) => anyIntersect(writes, spans));
          if (undecided && this.rule("a read at a later state looks at what is prepared there")) {
            this.count("read: prepared since");
            return void this.events.timer(20, () => attempt(tries + 1));
          }
          for (const key of keys) this.#read(operation, key, state.lists.get(key) ?? []);
          operation.end("committed");
        },
      );
    attempt(0);
  }

  /** Reads and writes of one range, validated at its leader. */
  #oneRange(): void {
    const operation = this.#operation("one");
    const at = this.#someRange();
    const leader = this.ranges[at]!.believed();
    const id = this.#id();
    const keys = this.events.chance(50) ? [this.#keyOf(at)] : [at * KEYS_PER_RANGE, at * KEYS_PER_RANGE + 1];
    const commit = (elsewhere: readonly LocalRead[]): void => {
      const appends = this.events.chance(75) ? [this.#append(operation, this.#keyOf(at))] : [];
      let asked = false;
      this.#ask<boolean | undefined>(
        (reply) => {
          // A second message of the same call finds the first one under way, or is none.
          if (asked && !leader.committing.has(id)) return;
          asked = true;
          leader.commit(id, elsewhere, appends, reply);
        },
        (result) => operation.end(result === undefined ? "unknown" : result ? "committed" : "aborted"),
      );
    };
    if (this.events.chance(40)) {
      this.#readLocally(operation, id, at, keys, leader, (read) =>
        read === undefined ? operation.end("aborted") : commit([read]),
      );
      return;
    }
    this.#readAll(
      operation,
      id,
      keys,
      () => leader,
      (read) => {
        if (read) commit([]);
        else operation.end("aborted");
      },
    );
  }

  /** On a replica, for a transaction that is open at the leader: what was read there is validated at the commit. */
  #readLocally(
    operation: Operation,
    id: TransactionId,
    at: number,
    keys: readonly number[],
    leader: Leader,
    then: (read: LocalRead | undefined) => void,
  ): void {
    this.#ask<LogIndex | undefined>(
      (reply) => leader.begin(id, reply),
      (point) => {
        if (point === undefined) return then(undefined);
        this.#pin(at, point, (index) => {
          const state = this.ranges[at]!.states[index]!;
          for (const key of keys) this.#read(operation, key, state.lists.get(key) ?? []);
          then({ index, term: leader.term, spans: keys.map(keySpan) });
        });
      },
      0,
    );
  }

  #readAll(
    operation: Operation,
    id: TransactionId,
    keys: readonly number[],
    leaderOf: (key: number) => Leader,
    then: (read: boolean) => void,
  ): void {
    const [key, ...rest] = keys;
    if (key === undefined) {
      then(true);
      return;
    }
    this.#ask<readonly number[] | undefined>(
      (reply) => leaderOf(key).run(id, key, reply),
      (list) => {
        if (list === undefined) return then(false);
        this.#read(operation, key, list);
        this.#readAll(operation, id, rest, leaderOf, then);
      },
      0,
    );
  }

  #someRanges(): number[] {
    const all = this.ranges.map((_, at) => at);
    const count = 2 + this.events.below(this.ranges.length - 1);
    while (all.length > count) all.splice(this.events.below(all.length), 1);
    return all;
  }

  /** A transaction over several ranges, by its gateway, which may die at any point. */
  #wide(): void {
    const operation = this.#operation("wide");
    const id = this.#id();
    const ranges = this.#someRanges();
    const leaders = new Map(ranges.map((at) => [at, this.ranges[at]!.believed()]));
    const readers = ranges.filter(() => this.events.chance(70));
    const keys = readers.map((at) => this.#keyOf(at));
    const commit = (elsewhere: ReadonlyMap<number, LocalRead>): void => {
      const writers = ranges.filter((at) => !readers.includes(at) || this.events.chance(60));
      const appends = new Map(writers.map((at) => [at, this.#append(operation, this.#keyOf(at))]));
      this.#commitWide(operation, id, ranges, leaders, appends, elsewhere);
    };
    if (this.events.chance(30) && readers.length > 0) {
      // Opened at the leaders first, so that they remember what is written from then on.
      for (const at of readers) {
        const leader = leaders.get(at)!;
        if (leader.serving) leader.open(id);
      }
      this.#snapshot(`${id}`, keys, leaders, (pins) => {
        if (pins === undefined) return operation.end("aborted");
        const elsewhere = new Map<number, LocalRead>();
        for (const key of keys) {
          const at = Math.floor(key / KEYS_PER_RANGE);
          const { index, leader } = pins.get(at)!;
          this.#read(operation, key, this.ranges[at]!.states[index]!.lists.get(key) ?? []);
          elsewhere.set(at, { index, term: leader.term, spans: [keySpan(key)] });
        }
        commit(elsewhere);
      });
      return;
    }
    if (this.events.chance(30) && readers.length > 0) {
      const elsewhere = new Map<number, LocalRead>();
      const next = (i: number): void => {
        if (i === keys.length) {
          commit(elsewhere);
          return;
        }
        const at = readers[i]!;
        this.#readLocally(operation, id, at, [keys[i]!], leaders.get(at)!, (read) => {
          if (read === undefined) return operation.end("aborted");
          elsewhere.set(at, read);
          next(i + 1);
        });
      };
      next(0);
      return;
    }
    const leaderOf = (key: number): Leader => leaders.get(Math.floor(key / KEYS_PER_RANGE))!;
    this.#readAll(operation, id, keys, leaderOf, (read) => {
      if (read) commit(new Map());
      else operation.end("aborted");
    });
  }

  #commitWide(
    operation: Operation,
    id: TransactionId,
    ranges: readonly number[],
    leaders: ReadonlyMap<number, Leader>,
    appends: ReadonlyMap<number, Append>,
    elsewhere: ReadonlyMap<number, LocalRead>,
  ): void {
    let waiting = ranges.length + 1;
    let no = false;
    const dies = this.events.unreliable && this.events.chance(10);
    const heard = (yes: boolean): void => {
      if (!yes && !no) {
        no = true;
        // Nobody will ever decide otherwise: the client need not wait for the coordinator.
        operation.end("aborted");
        if (!dies)
          this.#call(
            () => this.#decide(id, false),
            () => {},
          );
      }
      if (--waiting > 0 || no) return;
      if (dies) {
        operation.end("unknown");
        return;
      }
      this.#ask<boolean>(
        (reply) => reply(this.#decide(id, true)),
        (committed) =>
          operation.end(committed === undefined ? "unknown" : committed ? "committed" : "aborted"),
      );
    };
    this.#ask<boolean>(
      (reply) => reply(this.#register(id, ranges)),
      (registered) => heard(registered === true),
    );
    for (const at of ranges) {
      const append = appends.get(at);
      const read = elsewhere.get(at);
      this.#ask<"yes" | "no" | undefined>(
        (reply) =>
          leaders
            .get(at)!
            .prepare(id, read === undefined ? [] : [read], append === undefined ? [] : [append], reply),
        (vote) => heard(vote === "yes"),
      );
    }
  }

  // --- snapshots over several ranges ----------------------------------------------------------------------------

  #wideRead(): void {
    const operation = this.#operation("snapshot");
    const keys = this.#someRanges().map((at) => this.#keyOf(at));
    const attempt = (tries: number): void => {
      const leaders = new Map(
        keys.map((key) => {
          const at = Math.floor(key / KEYS_PER_RANGE);
          return [at, this.ranges[at]!.believed()];
        }),
      );
      this.#snapshot(`${operation.client}-${tries}`, keys, leaders, (pins) => {
        if (pins === undefined)
          return tries < 2 ? void this.events.timer(10, () => attempt(tries + 1)) : operation.end("aborted");
        for (const key of keys) {
          const at = Math.floor(key / KEYS_PER_RANGE);
          const state = this.ranges[at]!.states[pins.get(at)!.index]!;
          this.#read(operation, key, state.lists.get(key) ?? []);
        }
        operation.end("committed");
      });
    };
    attempt(0);
  }

  /** Fences, pins, releases: undefined when it was not confirmed whole. */
  #snapshot(
    id: string,
    keys: readonly number[],
    leaders: ReadonlyMap<number, Leader>,
    told: (
      pins: ReadonlyMap<number, { readonly index: LogIndex; readonly leader: Leader }> | undefined,
    ) => void,
  ): void {
    const pins = new Map<number, { readonly index: LogIndex; readonly leader: Leader }>();
    const fenced = [...new Set(keys.map((key) => Math.floor(key / KEYS_PER_RANGE)))];
    let failed = false;
    let released = 0;
    const fail = (): void => {
      if (failed) return;
      failed = true;
      for (const at of fenced) {
        const leader = leaders.get(at)!;
        this.events.send(() => leader.release(id, leader.term, () => {}));
      }
      told(undefined);
    };
    const release = (at: number): void => {
      const leader = leaders.get(at)!;
      this.#ask<boolean>(
        (reply) => leader.release(id, leader.term, reply),
        (stood) => {
          if (stood !== true) fail();
          else if (++released === fenced.length && !failed) told(pins);
        },
      );
    };
    for (const at of fenced) {
      const leader = leaders.get(at)!;
      const spans = keys.filter((key) => Math.floor(key / KEYS_PER_RANGE) === at).map(keySpan);
      this.#ask<LogIndex | undefined>(
        (reply) => leader.fence(id, spans, reply),
        (point) => {
          if (failed) return;
          if (point === undefined) return fail();
          this.#pin(at, point, (index) => {
            if (failed) return;
            pins.set(at, { index, leader });
            if (!this.rule("no release before the last pin")) release(at);
            else if (pins.size === fenced.length) for (const each of fenced) release(each);
          });
        },
        this.#fencesRepeated,
      );
    }
  }

  /** A replica's state at the fence's index or later, some time later. */
  #pin(at: number, point: LogIndex, pinned: (index: LogIndex) => void): void {
    this.events.later(() => {
      const { committed } = this.ranges[at]!;
      pinned(logIndex(point + this.events.below(committed - point + 1)));
    });
  }
}
