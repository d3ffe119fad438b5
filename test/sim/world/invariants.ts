/**
 * What must hold of the cluster as a whole after every step, whatever happens to its nodes: Raft's safety properties
 * over all groups, against a memory of everything ever voted, led and committed.
 */
import type { GroupId, LogIndex } from "../../../src/base/ids.js";
import type { Replica } from "../../../src/multiraft/replica.js";
import type { PeerFrame } from "../../../src/multiraft/types.js";
import { type ConfState, type Entry, MessageType } from "../../../src/raft/types.js";
import type { Machine, Process } from "./process.js";

export class Violation extends Error {}

export function check(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new Violation(message());
}

/** What is said in a term only by one who will remember it. */
const BINDING: ReadonlySet<MessageType> = new Set([
  MessageType.Vote,
  MessageType.VoteResponse,
  MessageType.Append,
  MessageType.AppendResponse,
  MessageType.Heartbeat,
]);

interface Seen {
  conf: ConfState;
  term: number;
  commit: number;
  applied: number;
  led: number;
}

interface Committed {
  readonly term: number;
  readonly hash: number;
  /** The term of the leader that was seen to commit it first. */
  readonly inTerm: number;
}

class GroupMemory {
  readonly leaders = new Map<number, number>();
  readonly votes = new Map<string, number>();
  readonly committed = new Map<number, Committed>();
  /** The highest term in which each node has spoken: what it may not forget. */
  readonly spoke = new Map<number, number>();
  /** What each has said it holds durably; for machines that are down or starting. */
  readonly durable = new Map<number, number>();
  highest = 0;
}

export class Invariants {
  readonly #groups = new Map<number, GroupMemory>();
  readonly #seen = new WeakMap<Replica, Seen>();
  readonly #results = new Map<string, { readonly summary: string; readonly by: number }>();
  /** The highest index that each store on each machine has answered for. */
  readonly #applied = new Map<string, number>();
  readonly #note: (what: string) => void;

  constructor(note: (what: string) => void) {
    this.#note = note;
  }

  #memory(group: GroupId): GroupMemory {
    let memory = this.#groups.get(group);
    if (memory === undefined) {
      memory = new GroupMemory();
      this.#groups.set(group, memory);
    }
    return memory;
  }

  /** The newest index known to be committed. */
  committed(group: number): number {
    return this.#groups.get(group)?.highest ?? 0;
  }

  /** A machine lost everything: what it knew binds nobody that comes after. */
  forgotten(machine: Machine): void {
    for (const memory of this.#groups.values()) {
      memory.spoke.delete(machine.id);
      for (const key of [...memory.votes.keys()])
        if (key.startsWith(`${machine.id}@`)) memory.votes.delete(key);
    }
  }

  sent(process: Process, frame: PeerFrame): void {
    for (const { group, message } of frame.messages) {
      const memory = this.#memory(group);
      const { id } = process;
      const replica = process.host?.findGroup(group) as Replica | undefined;
      const hypothetical =
        message.type === MessageType.PreVote ||
        (message.type === MessageType.PreVoteResponse && !message.reject);
      check(
        hypothetical || replica === undefined || message.term <= replica.node.term,
        () => `node ${id} sends a term above its own in group ${group}`,
      );
      if (BINDING.has(message.type) && !message.reject)
        memory.spoke.set(id, Math.max(memory.spoke.get(id) ?? 0, message.term));
      if (message.type === MessageType.AppendResponse && !message.reject)
        memory.durable.set(id, Math.max(memory.durable.get(id) ?? 0, message.index));
      if (message.type === MessageType.VoteResponse && !message.reject)
        this.#vote(memory, group, id, message.term, message.to);
      if (message.type === MessageType.Vote) this.#vote(memory, group, id, message.term, id);
    }
  }

  #vote(memory: GroupMemory, group: GroupId, voter: number, term: number, candidate: number): void {
    const key = `${voter}@${term}`;
    const known = memory.votes.get(key);
    if (known === undefined) memory.votes.set(key, candidate);
    check(
      known === undefined || known === candidate,
      () => `node ${voter} votes for ${known} and ${candidate} in term ${term} of group ${group}`,
    );
  }

  /** A call that failed may have applied some of its entries: what the file has now. */
  fileHas(machine: Machine, store: string, index: number): void {
    const place = `${machine.id} ${store}`;
    this.#applied.set(place, Math.max(this.#applied.get(place) ?? 0, index));
  }

  /**
   * Applying is a function of the log: what an entry did on one replica it did on all. Whoever is given again what the
   * file has already (a process that begins anew, a call after one that failed) answers from memory, which may have gone
   * since; and a vote whose transaction has been given up since is no.
   */
  result(machine: Machine, store: string, index: number, summary: string): void {
    const place = `${machine.id} ${store}`;
    const before = this.#applied.get(place) ?? 0;
    if (index <= before && /OSTRAKA_(UNKNOWN_OUTCOME|RETRY)/.test(summary)) return;
    this.#applied.set(place, Math.max(before, index));
    const key = `${store} ${index}`;
    const known = this.#results.get(key);
    if (known === undefined) this.#results.set(key, { summary, by: machine.id });
    else
      check(
        known.summary === summary,
        () =>
          `entry ${index} of ${store} did "${summary}" on node ${machine.id} and "${known.summary}" on node ${known.by}`,
      );
  }

  /** After every step. */
  step(machines: readonly Machine[]): void {
    for (const machine of machines) {
      const process = machine.process;
      if (process?.host === undefined || process.failure !== undefined) continue;
      for (const handle of process.host.groups()) this.#look(machine, handle as Replica, machines);
    }
  }

  #look(machine: Machine, replica: Replica, machines: readonly Machine[]): void {
    const { node, group } = replica;
    let seen = this.#seen.get(replica);
    const { term, commitIndex: commit } = node;
    const applied = replica.applier.appliedIndex;
    if (seen === undefined) {
      seen = { conf: node.conf, term: 0, commit: 0, applied: 0, led: 0 };
      this.#seen.set(replica, seen);
      const spoke = this.#memory(group).spoke.get(machine.id) ?? 0;
      check(
        term >= spoke,
        () => `node ${machine.id} starts group ${group} in term ${term}, and had spoken in term ${spoke}`,
      );
    }
    if (
      term === seen.term &&
      commit === seen.commit &&
      applied === seen.applied &&
      (node.role !== "leader" || seen.led === term)
    )
      return;
    const where = (): string => `node ${machine.id}, group ${group}`;
    check(term >= seen.term, () => `${where()}: the term went back from ${seen.term} to ${term}`);
    check(
      commit >= seen.commit,
      () => `${where()}: the commit index went back from ${seen.commit} to ${commit}`,
    );
    check(applied >= seen.applied, () => `${where()}: the applied index went back`);
    check(applied <= commit, () => `${where()}: ${applied} is applied and only ${commit} committed`);
    const memory = this.#memory(group);
    if (node.role === "leader" && seen.led !== term) this.#leads(machine, replica, memory);
    if (commit > seen.commit) this.#commits(machine, replica, memory, seen, machines);
    if (node.role === "leader") seen.led = term;
    seen.conf = node.conf;
    seen.term = term;
    seen.commit = commit;
    seen.applied = applied;
  }

  #leads(machine: Machine, { node, group, log }: Replica, memory: GroupMemory): void {
    const { term } = node;
    const known = memory.leaders.get(term);
    if (known === undefined) {
      memory.leaders.set(term, machine.id);
      this.#note("a leader was elected");
    }
    check(
      known === undefined || known === machine.id,
      () => `nodes ${known} and ${machine.id} both lead term ${term} of group ${group}`,
    );
    const base = log.base().index;
    for (const [index, entry] of memory.committed) {
      if (entry.inTerm >= term || index <= base) continue;
      const mine = log.term(index as LogIndex);
      check(
        mine === entry.term,
        () =>
          `node ${machine.id} leads term ${term} of group ${group} without the committed entry ${index} (has term ${mine}, committed ${entry.term})`,
      );
    }
  }

  #commits(
    machine: Machine,
    replica: Replica,
    memory: GroupMemory,
    { commit: from, conf }: Seen,
    machines: readonly Machine[],
  ): void {
    const { node, group, log } = replica;
    // What a core has not handed out yet is not in its log; it is looked at when it is.
    const last = Math.min(node.commitIndex, log.lastIndex());
    for (let index = Math.max(from, log.base().index) + 1; index <= last; index++) {
      const entry = log.entries(index as LogIndex, (index + 1) as LogIndex, 1)[0];
      check(
        entry !== undefined,
        () => `node ${machine.id} lacks the committed entry ${index} of group ${group}`,
      );
      const hash = hashOf(entry);
      const known = memory.committed.get(index);
      if (known !== undefined) {
        if (node.status.durableIndex < index) continue;
        check(
          known.term === entry.term && known.hash === hash,
          () =>
            `node ${machine.id} commits another entry at ${index} of group ${group} than was committed (term ${entry.term}, was ${known.term})`,
        );
        continue;
      }
      if (node.role !== "leader") continue;
      this.#durableOnQuorum(machine, replica, index, entry, memory, machines, conf);
      memory.committed.set(index, {
        term: entry.term,
        hash,
        inTerm: node.term,
      });
      memory.highest = Math.max(memory.highest, index);
    }
  }

  #durableOnQuorum(
    machine: Machine,
    { node, group }: Replica,
    index: number,
    entry: Entry,
    memory: GroupMemory,
    machines: readonly Machine[],
    before: ConfState,
  ): void {
    const holds = (voter: number): boolean => {
      const other = machines.find(({ id }) => id === voter)?.process?.host?.findGroup(group) as
        | Replica
        | undefined;
      if (other === undefined) return (memory.durable.get(voter) ?? 0) >= index;
      if (other.log.base().index >= index) return true;
      return other.log.term(index as LogIndex) === entry.term && other.node.status.durableIndex >= index;
    };
    const majority = (voters: readonly number[]): boolean =>
      voters.length === 0 || voters.filter(holds).length * 2 > voters.length;
    // What was committed in this step may have changed the membership in it.
    const durable = [before, node.conf].some(
      ({ voters, votersOutgoing }) => majority(voters) && majority(votersOutgoing),
    );
    check(durable, () => {
      const { voters, votersOutgoing } = node.conf;
      const holders = [...new Set([...voters, ...votersOutgoing])].filter(holds);
      return `node ${machine.id} commits ${index} of group ${group} that only ${holders.join(", ")} of ${voters.join(", ")} hold durably`;
    });
  }
}

function hashOf(entry: Entry): number {
  let hash = (entry.kind + 1) * 2654435761;
  for (let i = 0; i < entry.data.length; i++) hash = Math.imul(hash ^ entry.data[i]!, 1597334677);
  return hash >>> 0;
}
