/**
 * What must hold of a group as a whole, whatever happens to its nodes: Raft's safety properties, checked against a
 * memory of everything that ever was committed, voted, led or read. The world calls it after every step with the
 * node that step touched.
 */
import {
  type Append,
  type ConfState,
  type Entry,
  isVoter,
  type Message,
  MessageType,
  type RaftNode,
} from "../../../src/raft/index.js";
import type { MemoryLog } from "./memory-log.js";

export interface Observed {
  readonly id: number;
  readonly node: RaftNode;
  readonly log: MemoryLog;
}

interface Committed {
  readonly term: number;
  readonly data: string;
  /** The term of the leader that committed it. */
  readonly inTerm: number;
}

interface Seen {
  term: number;
  commit: number;
  applied: number;
  led: number;
  match: Map<number, number>;
  /** What members had acknowledged to this leader that have left since without its knowing, as another leader's word. */
  left: Map<number, MemoryLog>;
}

export class Invariants {
  readonly #leaders = new Map<number, number>();
  readonly #votes = new Map<string, number>();
  /** index:term to what such an entry holds and what it follows; the same wherever it turns up (log matching). */
  readonly #entries = new Map<string, string>();
  readonly committed = new Map<number, Committed>();
  #highestCommitted = 0;
  readonly #confs = new Map<number, ConfState>();
  #lastConf: { index: number; conf: ConfState };
  readonly #seen = new Map<number, Seen>();

  constructor(initial: ConfState) {
    this.#lastConf = { index: 0, conf: initial };
    this.#confs.set(0, initial);
  }

  get highestCommitted(): number {
    return this.#highestCommitted;
  }

  /** The node begins anew, with what was durable. */
  restarted(id: number): void {
    this.#seen.delete(id);
  }

  /** The replica's log is gone; whoever leads and counts it as a member since before goes on counting what it had. */
  left(id: number, log: MemoryLog): void {
    for (const { match, left } of this.#seen.values()) if (match.has(id) && !left.has(id)) left.set(id, log);
  }

  append(on: Observed, append: Append): void {
    const { id, node, log } = on;
    let previous: number | undefined;
    for (const entry of append.entries) {
      previous ??= append.snapshot?.term ?? log.term((entry.index - 1) as never) ?? -1;
      check(entry.term >= previous, `node ${id}: terms decrease at ${entry.index}`);
      check(entry.term <= append.term, `node ${id}: entry ${entry.index} is of a later term than the node`);
      const key = `${entry.index}:${entry.term}`;
      const value = `${previous}/${entry.kind}/${textOf(entry)}`;
      const known = this.#entries.get(key);
      if (known === undefined) this.#entries.set(key, value);
      else check(known === value, `node ${id}: two different entries at ${key}: ${known} and ${value}`);
      previous = entry.term;
    }
    const first = append.entries[0];
    if (
      first !== undefined &&
      node.role === "leader" &&
      node.term === append.term &&
      append.snapshot === undefined
    )
      check(
        first.index > log.lastIndex() || log.term(first.index) === first.term,
        `leader ${id} replaces its own entry ${first.index}`,
      );
  }

  sent(on: Observed, message: Message): void {
    const { id, node } = on;
    const hypothetical =
      message.type === MessageType.PreVote ||
      (message.type === MessageType.PreVoteResponse && !message.reject);
    check(hypothetical || message.term <= node.term, `node ${id} sends a term above its own`);
    if (message.type === MessageType.VoteResponse && !message.reject)
      this.#vote(id, message.term, message.to);
    if (message.type === MessageType.Vote) this.#vote(id, message.term, id);
    if (message.type === MessageType.VoteResponse || message.type === MessageType.Vote)
      check(on.log.durableHard.term >= message.term, `node ${id} votes before its term is durable`);
    if (message.type === MessageType.AppendResponse && !message.reject && message.term === node.term)
      check(
        on.log.durableLast >= message.index,
        `node ${id} acknowledges ${message.index} before it is durable`,
      );
  }

  #vote(voter: number, term: number, candidate: number): void {
    const key = `${voter}@${term}`;
    const known = this.#votes.get(key);
    if (known === undefined) this.#votes.set(key, candidate);
    else check(known === candidate, `node ${voter} votes for ${known} and ${candidate} in term ${term}`);
  }

  /** An entry is applied on a node: the same everywhere. */
  applied(id: number, entry: Entry): void {
    const known = this.committed.get(entry.index);
    check(known !== undefined, `node ${id} applies ${entry.index}, which nobody committed`);
    check(
      known.term === entry.term && known.data === textOf(entry),
      `node ${id} applies another entry at ${entry.index} than was committed`,
    );
  }

  /** A node's membership as of an applied index. */
  conf(id: number, index: number, conf: ConfState): void {
    const known = this.#confs.get(index);
    if (known !== undefined) {
      check(JSON.stringify(known) === JSON.stringify(conf), `node ${id} has another membership at ${index}`);
      return;
    }
    check(index > this.#lastConf.index, `node ${id} has a membership at ${index} out of order`);
    check(
      quorumsIntersect(this.#lastConf.conf, conf),
      `quorums at ${this.#lastConf.index} and ${index} are disjoint`,
    );
    this.#confs.set(index, conf);
    this.#lastConf = { index, conf };
  }

  confAt(index: number): ConfState | undefined {
    return this.#confs.get(index);
  }

  read(begunAt: number, index: number): void {
    check(index >= begunAt, `a read at ${index} misses ${begunAt}, committed before it began`);
  }

  /** After every step, for the node it touched. */
  step(on: Observed, world: ReadonlyMap<number, Observed>): void {
    const { id, node } = on;
    const seen = this.#seen.get(id) ?? {
      term: 0,
      commit: 0,
      applied: 0,
      led: 0,
      match: new Map(),
      left: new Map(),
    };
    this.#seen.set(id, seen);
    check(node.term >= seen.term, `node ${id}: the term went back`);
    check(node.commitIndex >= seen.commit, `node ${id}: the commit index went back`);
    check(node.appliedIndex >= seen.applied, `node ${id}: the applied index went back`);
    check(node.appliedIndex <= node.commitIndex, `node ${id} applied what is not committed`);
    if (node.role === "leader") this.#leads(on, seen, world);
    if (node.commitIndex > seen.commit) this.#commits(on, seen, world);
    seen.term = node.term;
    seen.commit = node.commitIndex;
    seen.applied = node.appliedIndex;
  }

  #leads(on: Observed, seen: Seen, world: ReadonlyMap<number, Observed>): void {
    const { id, node } = on;
    if (seen.led !== node.term) {
      const known = this.#leaders.get(node.term);
      check(known === undefined || known === id, `nodes ${known} and ${id} both lead term ${node.term}`);
      this.#leaders.set(node.term, id);
      check(on.log.durableHard.term >= node.term, `node ${id} leads a term that is not durable`);
      for (const [index, entry] of this.committed) {
        if (entry.inTerm >= node.term || index <= on.log.base().index) continue;
        check(
          on.log.term(index as never) === entry.term,
          `leader ${id} of term ${node.term} lacks committed entry ${index}`,
        );
      }
      seen.led = node.term;
      seen.match = new Map();
      seen.left = new Map();
    }
    const progress = node.progress();
    // Who was removed and comes back begins anew.
    for (const peer of seen.match.keys()) {
      if (progress.has(peer as never)) continue;
      seen.match.delete(peer);
      seen.left.delete(peer);
    }
    for (const [peer, { match, next }] of progress) {
      check(match >= (seen.match.get(peer) ?? 0), `leader ${id}: match of ${peer} went back`);
      check(next > match, `leader ${id}: next of ${peer} is not after its match`);
      seen.match.set(peer, match);
      const there = world.get(peer);
      if (there === undefined || there.log.durableHard.term !== node.term || match <= on.log.base().index)
        continue;
      const matchTerm = on.log.term(match as never);
      if (matchTerm === undefined) continue;
      const holds =
        there.log.durablyHolds(match, matchTerm) || seen.left.get(peer)?.durablyHolds(match, matchTerm);
      check(holds === true, `leader ${id} believes ${peer} holds ${match}`);
    }
  }

  #commits(on: Observed, { commit, left }: Seen, world: ReadonlyMap<number, Observed>): void {
    const { id, node, log } = on;
    for (let index = Math.max(commit, log.base().index) + 1; index <= node.commitIndex; index++) {
      // Before the first ready a follower's tail is in the core alone; its commit is looked at again when applied.
      const entry =
        log.lastIndex() >= index ? log.entries(index as never, (index + 1) as never, 1)[0] : undefined;
      const known = this.committed.get(index);
      if (known !== undefined) {
        if (entry !== undefined && log.durableLast >= index && node.status.durableIndex >= index)
          check(
            known.term === entry.term && known.data === textOf(entry),
            `node ${id} commits another entry at ${index} than was committed before`,
          );
        continue;
      }
      check(node.role === "leader", `follower ${id} commits ${index} before any leader did`);
      check(entry !== undefined, `leader ${id} commits ${index}, which it has not got`);
      const has = (voter: number): boolean =>
        world.get(voter)?.log.durablyHolds(index, entry.term) === true ||
        left.get(voter)?.durablyHolds(index, entry.term) === true;
      const holds = (voters: readonly number[]): boolean =>
        voters.length === 0 || voters.filter(has).length * 2 > voters.length;
      check(
        holds(node.conf.voters) && holds(node.conf.votersOutgoing),
        `leader ${id} commits ${index} before a quorum holds it durably`,
      );
      this.committed.set(index, { term: entry.term, data: textOf(entry), inTerm: node.term });
      this.#highestCommitted = Math.max(this.#highestCommitted, index);
    }
  }
}

function textOf(entry: Entry): string {
  return `${entry.kind}:${Array.from(entry.data, (byte) => byte.toString(16)).join(" ")}`;
}

function quorumsIntersect(a: ConfState, b: ConfState): boolean {
  const nodes = [...new Set([...a.voters, ...a.votersOutgoing, ...b.voters, ...b.votersOutgoing])];
  for (let mask = 0; mask < 1 << nodes.length; mask++) {
    const inside = new Set(nodes.filter((_, i) => (mask & (1 << i)) !== 0));
    if (hasQuorum(a, (n) => inside.has(n as never)) && hasQuorum(b, (n) => !inside.has(n as never)))
      return false;
  }
  return true;
}

export function hasQuorum(conf: ConfState, has: (node: number) => boolean): boolean {
  const majority = (voters: readonly number[]): boolean =>
    voters.length === 0 || voters.filter(has).length * 2 > voters.length;
  return majority(conf.voters) && majority(conf.votersOutgoing);
}

export function votes(conf: ConfState, node: number): boolean {
  return isVoter(conf, node as never);
}

export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`invariant: ${message}`);
}
