/**
 * A range as an abstract log with leaders: entries are appended by the current leader, commit one after the other, and
 * those that are not committed may go when the leader is deposed. Deposed leaders go on believing in themselves.
 */
import { type LogIndex, logIndex, type Term, type TransactionId, term } from "../../../../src/base/ids.js";
import type { Span } from "../../../../src/sql/types.js";
import { type Entrant, Gate, MAX_OVERTAKEN, type Passage } from "../../../../src/txn/gate.js";
import { anyIntersect } from "../../../../src/txn/spans.js";
import { TransactionTable } from "../../../../src/txn/transactions.js";
import type { WriteToken } from "../../../../src/txn/write-memory.js";
import type { Events } from "./events.js";
import type { Rule } from "./rules.js";

const FOREVER_MS = 1e9;

/** How long is waited, and stood; at a quick pace these run out between messages. */
export interface Pace {
  readonly prepareWaitMs: number;
  readonly crossingWaitMs: number;
  readonly fenceWaitMs: number;
  readonly fenceMs: number;
  readonly inDoubtMs: number;
  readonly callMs: number;
}

export interface Append {
  readonly key: number;
  readonly value: number;
}

export interface Prepared {
  readonly id: TransactionId;
  readonly reads: readonly Span[];
  readonly writes: readonly Span[];
  readonly appends: readonly Append[];
}

export type Entry =
  | { readonly kind: "empty" }
  | { readonly kind: "write"; readonly id: TransactionId; readonly appends: readonly Append[] }
  | { readonly kind: "prepare"; readonly prepared: Prepared }
  | { readonly kind: "resolve"; readonly id: TransactionId; readonly committed: boolean };

export interface State {
  readonly lists: ReadonlyMap<number, readonly number[]>;
  readonly prepared: ReadonlyMap<TransactionId, Prepared>;
  readonly outcomes: ReadonlyMap<TransactionId, boolean>;
}

const EMPTY: State = { lists: new Map(), prepared: new Map(), outcomes: new Map() };

export function keySpan(key: number): Span {
  return { table: "t", low: BigInt(key), high: BigInt(key) };
}

export interface LocalRead {
  readonly index: LogIndex;
  readonly term: Term;
  readonly spans: readonly Span[];
}

/** What every part of the model shares. */
export interface Shared {
  readonly events: Events;
  readonly pace: Pace;
  readonly without: ReadonlySet<Rule>;
  readonly count: (what: string) => void;
  /** Something that safety does not see went wrong. */
  readonly fail: (why: string) => void;
  readonly inquire: (id: TransactionId, told: (committed: boolean) => void) => void;
}

export class Range {
  readonly shared: Shared;
  log: Entry[] = [];
  committed = 0;
  /** After each committed entry; the first is before all. */
  readonly states: State[] = [EMPTY];
  /** Of each committed entry: a prepare's vote, a write's success. */
  readonly results: boolean[] = [true];
  readonly leaders: Leader[] = [];
  #term = 0;

  constructor(shared: Shared) {
    this.shared = shared;
    this.elect();
  }

  get leader(): Leader {
    return this.leaders.at(-1)!;
  }

  /** Whom a client takes for the leader. */
  believed(): Leader {
    const { events } = this.shared;
    return this.leaders.length > 1 && events.unreliable && events.chance(20)
      ? events.pick(this.leaders)
      : this.leader;
  }

  elect(): void {
    const { events } = this.shared;
    const old = this.leaders.at(-1);
    old?.depose();
    this.log.length = this.committed + events.below(this.log.length - this.committed + 1);
    this.log.push({ kind: "empty" });
    const behind = events.below(4);
    const applied = Math.max(0, this.committed - behind);
    this.leaders.push(new Leader(this, ++this.#term, applied, this.log.length));
    old?.lost();
  }

  commit(): void {
    const state = this.states[this.committed]!;
    const [next, result] = apply(state, this.log[this.committed]!);
    this.states.push(next);
    this.results.push(result);
    this.committed++;
  }
}

function apply(state: State, entry: Entry): [State, boolean] {
  switch (entry.kind) {
    case "empty":
      return [state, true];
    case "write":
      if (state.outcomes.has(entry.id)) return [state, state.outcomes.get(entry.id)!];
      return [
        {
          ...state,
          lists: appended(state.lists, entry.appends),
          outcomes: new Map(state.outcomes).set(entry.id, true),
        },
        true,
      ];
    case "prepare": {
      const { prepared } = entry;
      const known = state.outcomes.get(prepared.id);
      if (known !== undefined) return [state, known];
      return [{ ...state, prepared: new Map(state.prepared).set(prepared.id, prepared) }, true];
    }
    default: {
      const { id, committed } = entry;
      if (state.outcomes.has(id)) return [state, true];
      const held = state.prepared.get(id);
      const prepared = new Map(state.prepared);
      prepared.delete(id);
      const lists = held !== undefined && committed ? appended(state.lists, held.appends) : state.lists;
      return [{ lists, prepared, outcomes: new Map(state.outcomes).set(id, committed) }, true];
    }
  }
}

function appended(
  lists: ReadonlyMap<number, readonly number[]>,
  appends: readonly Append[],
): ReadonlyMap<number, readonly number[]> {
  const next = new Map(lists);
  for (const { key, value } of appends) next.set(key, [...(next.get(key) ?? []), value]);
  return next;
}

interface Proposal {
  readonly index: number;
  readonly writes: readonly Span[];
  token: WriteToken | undefined;
  readonly settled: (result: boolean | undefined, index: number) => void;
}

export type Vote = "yes" | "no";

interface Waiting {
  readonly entrant: Entrant;
  readonly step: (passage: Passage) => void;
  overtaken: number;
}

export class Leader {
  readonly range: Range;
  readonly term: Term;
  readonly table: TransactionTable<Append>;
  readonly gate: Gate;
  applied: number;
  serving = false;
  deposed = false;
  readonly #firstOwn: number;
  readonly #waiting = new Map<number, Waiting>();
  #settling = false;
  #again = false;
  #proposals: Proposal[] = [];
  readonly voting = new Map<TransactionId, ((vote: Vote | undefined) => void)[]>();
  readonly voted = new Set<TransactionId>();
  readonly refused = new Set<TransactionId>();
  readonly committing = new Map<TransactionId, ((result: boolean | undefined) => void)[]>();

  constructor(range: Range, ownTerm: number, applied: number, firstOwn: number) {
    this.range = range;
    this.term = term(ownTerm);
    this.table = new TransactionTable(this.term, 1000);
    const { without } = range.shared;
    this.gate = new Gate({
      claimMs: 100,
      maxOvertaken: without.has("nobody who waits is overtaken for ever") ? Infinity : MAX_OVERTAKEN,
      maxEnded: without.has("a fence that was ended never stands again") ? 0 : 1000,
    });
    this.applied = applied;
    this.#firstOwn = firstOwn;
    if (without.has("a new leader serves after every inherited entry is applied")) this.#serve();
  }

  get #events(): Events {
    return this.range.shared.events;
  }

  get #pace(): Pace {
    return this.range.shared.pace;
  }

  rule(rule: Rule): boolean {
    return !this.range.shared.without.has(rule);
  }

  get state(): State {
    return this.range.states[this.applied]!;
  }

  // --- replication ----------------------------------------------------------------------------------------------

  depose(): void {
    this.deposed = true;
  }

  /** What it proposed and is not in the log any more never will be. */
  lost(): void {
    for (const proposal of this.#proposals)
      if (proposal.index > this.range.log.length - 1) this.#drop(proposal);
  }

  #drop(proposal: Proposal): void {
    this.#proposals = this.#proposals.filter((other) => other !== proposal);
    if (proposal.token !== undefined) this.table.drop(proposal.token);
    proposal.settled(undefined, 0);
  }

  /** A deposed one learns no more than it could have known. */
  get behind(): boolean {
    return !this.deposed && this.applied < this.range.committed;
  }

  applyOne(): void {
    this.applied++;
    const { applied } = this;
    for (const proposal of this.#proposals.filter(({ index }) => index === applied)) {
      this.#proposals = this.#proposals.filter((other) => other !== proposal);
      const result = this.range.results[applied]!;
      if (proposal.token !== undefined) {
        if (result) this.table.settle(proposal.token, logIndex(applied));
        else this.table.drop(proposal.token);
      }
      proposal.settled(result, applied);
    }
    if (!this.serving && applied >= this.#firstOwn) this.#serve();
  }

  #serve(): void {
    this.serving = true;
    for (const { id, reads, writes } of this.state.prepared.values()) {
      this.#hold(id, reads, writes);
      this.voted.add(id);
      this.#askLater(id);
    }
  }

  #hold(id: TransactionId, reads: readonly Span[], writes: readonly Span[]): void {
    const both = this.rule("what is held as read keeps writers waiting");
    this.gate.holds.hold(id, both ? reads : [], writes);
  }

  propose(
    entry: Entry,
    writes: readonly Span[],
    counts: boolean,
    settled: (result: boolean | undefined, index: number) => void,
  ): void {
    if (this.deposed) {
      settled(undefined, 0);
      return;
    }
    this.range.log.push(entry);
    const token = counts ? this.table.admit(writes) : undefined;
    this.#proposals.push({ index: this.range.log.length, writes, token, settled });
  }

  /** A quorum round begun after the call: it may be over at once, or find out that there is another leader. */
  confirm(told: (confirmed: boolean) => void): void {
    const now = !this.deposed && this.#events.chance(50);
    this.#events.later(() => told(now || !this.deposed));
  }

  open(id: TransactionId): void {
    const remembered = this.table.remembering;
    this.table.open(id, logIndex(this.applied), 0);
    if (!remembered)
      for (const proposal of this.#proposals) proposal.token = this.table.admit(proposal.writes);
  }

  // --- the gate -------------------------------------------------------------------------------------------------

  pass(entrant: Entrant, step: (passage: Passage) => void): void {
    const sinceMs = this.#events.nowMs;
    const passage = this.gate.enter(entrant, sinceMs);
    if (typeof passage !== "number") {
      if (passage === "go") this.#countOvertaken(entrant, Infinity);
      step(passage);
      return;
    }
    this.#waiting.set(passage, { entrant, step, overtaken: 0 });
    this.range.shared.count(`waited: ${entrant.kind}`);
    const untilMs = entrant.kind === "write" ? undefined : entrant.untilMs;
    const brieflyMs = entrant.kind === "prepare" ? entrant.brieflyUntilMs : undefined;
    for (const ms of [untilMs, brieflyMs, this.gate.fences.nextExpiryMs()])
      if (ms !== undefined && ms < sinceMs + FOREVER_MS / 2)
        this.#events.timer(ms - sinceMs, () => this.settle());
  }

  /** A statement that waits is passed by fresh ones that keep it waiting: not for ever. */
  #countOvertaken(fresh: Entrant, ticket: number): void {
    if (fresh.kind !== "prepare" && fresh.kind !== "fence") return;
    for (const [other, waiting] of this.#waiting) {
      if (other >= ticket || waiting.entrant.kind !== "write") continue;
      const { reads, writes } = waiting.entrant;
      const kept =
        fresh.kind === "fence"
          ? anyIntersect(fresh.spans, writes)
          : anyIntersect(fresh.writes, [...reads, ...writes]) || anyIntersect(fresh.reads, writes);
      if (kept && ++waiting.overtaken > MAX_OVERTAKEN)
        this.range.shared.fail(`a write was overtaken ${waiting.overtaken} times`);
    }
  }

  settle(): void {
    if (this.#settling) {
      this.#again = true;
      return;
    }
    this.#settling = true;
    do {
      this.#again = false;
      for (const { ticket, passage } of this.gate.settle(this.#events.nowMs)) {
        const { entrant, step } = this.#waiting.get(ticket)!;
        this.#waiting.delete(ticket);
        if (passage === "go") this.#countOvertaken(entrant, ticket);
        step(passage);
      }
    } while (this.#again);
    this.#settling = false;
  }

  /** The end of a wait that should be bounded. */
  until(ms: number): number {
    const bounded = this.rule("no wait across ranges is unbounded");
    return this.#events.nowMs + (bounded ? ms : FOREVER_MS);
  }

  /** Once all that is on its way and writes these spans is applied. */
  settledOn(spans: readonly Span[], then: () => void): void {
    const before = this.#proposals.filter(({ writes }) => anyIntersect(writes, spans));
    const look = (): void => {
      if (before.some((proposal) => this.#proposals.includes(proposal))) this.#events.timer(5, look);
      else then();
    };
    look();
  }

  letGo(id: TransactionId): void {
    this.gate.holds.release(id);
    this.settle();
  }

  // --- in doubt -------------------------------------------------------------------------------------------------

  #askLater(id: TransactionId): void {
    if (!this.rule("no wait across ranges is unbounded")) return;
    this.#events.timer(this.#pace.inDoubtMs, () => {
      if (this.deposed || !this.voted.has(id)) return;
      this.range.shared.count("in doubt");
      this.range.shared.inquire(id, (committed) => this.resolve(id, committed, () => {}));
      this.#askLater(id);
    });
  }

  // --- what a range offers --------------------------------------------------------------------------------------

  /** Autocommit. Undefined: not known. */
  write(id: TransactionId, appends: readonly Append[], told: (result: boolean | undefined) => void): void {
    if (!this.serving) {
      told(undefined);
      return;
    }
    const writes = appends.map(({ key }) => keySpan(key));
    this.pass({ kind: "write", reads: [], writes }, () => {
      if (this.deposed) return told(undefined);
      this.propose({ kind: "write", id, appends }, writes, true, told);
    });
  }

  /** Opens a transaction that will read on a replica, at this index or later. */
  begin(id: TransactionId, told: (point: LogIndex | undefined) => void): void {
    if (!this.serving) {
      told(undefined);
      return;
    }
    this.confirm((confirmed) => {
      if (!confirmed) return told(undefined);
      this.open(id);
      told(logIndex(this.applied));
    });
  }

  /** Reads one key for an open transaction; undefined when it cannot go on. */
  run(id: TransactionId, key: number, told: (list: readonly number[] | undefined) => void): void {
    if (!this.serving) {
      told(undefined);
      return;
    }
    const reads = [keySpan(key)];
    if (this.table.get(id) === undefined) this.open(id);
    this.pass({ kind: "read", reads }, () => {
      const transaction = this.table.get(id);
      if (transaction === undefined) return told(undefined);
      this.table.ran(transaction, { reads, writes: [], checks: [] }, logIndex(this.applied), undefined);
      told(this.state.lists.get(key) ?? []);
    });
  }

  /** On this range alone; joins a commit of the same transaction that is under way. */
  commit(
    id: TransactionId,
    elsewhere: readonly LocalRead[],
    appends: readonly Append[],
    told: (result: boolean | undefined) => void,
  ): void {
    const under = this.committing.get(id);
    if (under !== undefined && this.rule("a commit in flight is not validated again")) {
      under.push(told);
      return;
    }
    const transaction = this.table.get(id);
    if (transaction === undefined) {
      told(false);
      return;
    }
    const listeners = [told];
    this.committing.set(id, listeners);
    const answer = (result: boolean | undefined): void => {
      this.committing.delete(id);
      this.table.close(id);
      for (const listener of listeners) listener(result);
    };
    const reads = this.rule("a commit on one range waits for what is held of what it read")
      ? [...transaction.reads, ...elsewhere].flatMap(({ spans }) => spans)
      : [];
    const validated = (): boolean =>
      elsewhere.every((read) => read.term === this.term) &&
      this.table.conflict(transaction, elsewhere) === undefined;
    const writes = appends.map(({ key }) => keySpan(key));
    const ordered = this.rule("waiting comes before validation, with no pause after it");
    const early = ordered || validated();
    this.pass({ kind: "write", reads, writes }, () => {
      if (ordered ? !validated() : !early) return answer(false);
      if (appends.length === 0) return this.confirm((confirmed) => answer(confirmed ? true : undefined));
      this.propose({ kind: "write", id, appends }, writes, true, answer);
    });
  }

  // --- across ranges --------------------------------------------------------------------------------------------

  prepare(
    id: TransactionId,
    elsewhere: readonly LocalRead[],
    appends: readonly Append[],
    told: (vote: Vote | undefined) => void,
  ): void {
    if (!this.serving) {
      told(undefined);
      return;
    }
    const under = this.voting.get(id);
    if (under !== undefined) {
      under.push(told);
      return;
    }
    if (this.voted.has(id)) {
      told("yes");
      return;
    }
    const listeners = [told];
    const answer = (vote: Vote | undefined): void => {
      this.voting.delete(id);
      for (const listener of listeners) listener(vote);
    };
    const refuse = (): void => {
      this.refused.add(id);
      this.confirm((confirmed) => {
        if (confirmed) this.table.close(id);
        answer(confirmed ? "no" : undefined);
      });
    };
    this.voting.set(id, listeners);
    if (this.refused.has(id)) {
      refuse();
      return;
    }
    const own = this.table.get(id)?.reads ?? [];
    const reads = [...own, ...elsewhere].flatMap(({ spans }) => spans);
    const writes = appends.map(({ key }) => keySpan(key));
    const validated = (): boolean =>
      !this.refused.has(id) &&
      elsewhere.every((read) => read.term === this.term) &&
      this.table.conflictOfPart(this.table.get(id), elsewhere) === undefined;
    const ordered = this.rule("waiting comes before validation, with no pause after it");
    if (!validated()) {
      refuse();
      return;
    }
    const untilMs = this.until(this.#pace.prepareWaitMs);
    const brieflyUntilMs = this.until(this.#pace.crossingWaitMs);
    const met = this.gate.holds.meets(reads, writes, id);
    this.pass({ kind: "prepare", id, reads, writes, untilMs, brieflyUntilMs }, (passage) => {
      if (passage !== "go") {
        this.range.shared.count(`prepare: ${passage}`);
        return refuse();
      }
      if (ordered && !validated()) {
        if (met) this.range.shared.count("prepare: waited in vain");
        this.letGo(id);
        return refuse();
      }
      if (met) this.range.shared.count("prepare: waited for a held one");
      if (!this.rule("what is held as read keeps writers waiting")) this.#hold(id, reads, writes);
      if (!this.rule("a PREPARE in flight is held")) this.gate.holds.release(id);
      const counts = this.rule("PREPARE or COMMIT counts as a write at its index");
      const prepared: Prepared = { id, reads, writes, appends };
      this.propose({ kind: "prepare", prepared }, writes, counts, (result, index) => {
        this.table.close(id);
        if (result === undefined) return answer(undefined);
        const decided = this.range.states[index]!.outcomes.has(id) || this.state.outcomes.has(id);
        if (!result || decided) {
          this.letGo(id);
          this.refused.add(id);
          return answer("no");
        }
        this.#hold(id, reads, writes);
        this.voted.add(id);
        this.#askLater(id);
        answer("yes");
      });
    });
  }

  resolve(id: TransactionId, committed: boolean, told: (resolved: boolean) => void): void {
    if (!this.serving) {
      told(false);
      return;
    }
    if (!committed) this.refused.add(id);
    const writes = committed ? (this.gate.holds.get(id)?.writes.spans ?? []) : [];
    const counts =
      this.rule("COMMIT counts as a write at its index") &&
      this.rule("PREPARE or COMMIT counts as a write at its index");
    this.propose({ kind: "resolve", id, committed }, writes, counts, (result) => {
      if (result === undefined) return told(false);
      this.voted.delete(id);
      this.letGo(id);
      told(true);
    });
  }

  fence(id: string, spans: readonly Span[], told: (point: LogIndex | undefined) => void): void {
    if (!this.serving) {
      told(undefined);
      return;
    }
    const { fences } = this.gate;
    if (fences.standing(id)) return;
    const untilMs = this.until(this.#pace.fenceWaitMs);
    const fail = (): void => {
      fences.end(id);
      this.settle();
      this.range.shared.count("fence: late");
      told(undefined);
    };
    const still = (): void => {
      this.settledOn(this.rule("a fence waits for what is in flight on its spans") ? spans : [], () => {
        fences.expire(this.#events.nowMs);
        if (!fences.extend(id, this.until(this.#pace.fenceMs))) return fail();
        told(logIndex(this.applied));
      });
    };
    this.pass({ kind: "fence", id, spans, untilMs, expiresMs: untilMs + this.#pace.fenceMs }, (passage) => {
      if (passage !== "go") return fail();
      if (!this.rule("a fence waits for what is held on its spans")) return still();
      this.pass({ kind: "read", reads: spans, untilMs }, (drained) => (drained === "go" ? still() : fail()));
    });
  }

  release(id: string, term: Term, told: (stood: boolean) => void): void {
    const { fences } = this.gate;
    fences.expire(this.#events.nowMs);
    const stood = fences.end(id) || !this.rule("a release fails if the fence has expired");
    this.settle();
    if (!stood || term !== this.term) {
      this.range.shared.count("release: failed");
      told(false);
      return;
    }
    if (!this.rule("a release is confirmed by a quorum after it arrived")) {
      told(true);
      return;
    }
    this.confirm(told);
  }

  /** Where a replica may read, and what is held then; undefined when this is not the leader. */
  readPoint(told: (point: LogIndex | undefined, held: readonly Span[]) => void): void {
    if (!this.serving) {
      told(undefined, []);
      return;
    }
    const { committed } = this.range;
    this.confirm((confirmed) =>
      told(confirmed ? logIndex(committed) : undefined, this.gate.holds.writes() ?? []),
    );
  }
}
