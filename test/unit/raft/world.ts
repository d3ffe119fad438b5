/**
 * A group of nodes under a hostile network and disk, all drawn from one seed: messages are lost, repeated, delayed and
 * reordered, links are cut, appends become durable late, applying lags, nodes crash and lose what was not synced,
 * memberships change, logs are compacted and snapshots streamed. invariants.ts looks on after every step.
 */
import { type LogIndex, logIndex, type NodeId, nodeId, term } from "../../../src/base/ids.js";
import {
  type Append,
  type ConfChange,
  type ConfState,
  decodeConfChange,
  type Entry,
  EntryKind,
  type LogEnd,
  type Message,
  MessageType,
  RaftNode,
  type Ready,
  type SnapshotMeta,
} from "../../../src/raft/index.js";
import { check, Invariants, votes } from "./invariants.js";
import { BLANK, MemoryLog } from "./memory-log.js";
import { SeededRandom } from "./random.js";

/** A state machine whose state is a digest of all it applied; what is durable is its last checkpoint. */
interface Machine {
  applied: number;
  digest: number;
}

class Replica {
  node!: RaftNode;
  up = true;
  machine: Machine = { applied: 0, digest: 0 };
  checkpoint: Machine = { applied: 0, digest: 0 };
  /** Handed out by readies, not applied yet. */
  toApply: Entry[] = [];
  /** The state that belongs to a snapshot whose bytes are here. */
  received = new Map<number, Machine>();
  /** How likely it takes its turn; a slow or paused process still believes what it last knew. */
  pace = 1;
  /** What the log of the one ended with that had left before this was made anew. */
  lostLog: LogEnd | undefined;

  constructor(
    readonly id: NodeId,
    public log: MemoryLog,
  ) {}
}

interface SnapshotStream {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly term: number;
  readonly meta: SnapshotMeta;
  readonly state: Machine;
}

export interface Hostility {
  readonly loss: number;
  readonly duplicate: number;
  readonly crash: number;
  readonly cut: number;
  readonly confChange: number;
  readonly compact: number;
  /** How soon replicas go that are no members any more. */
  readonly leave: number;
}

const NODES = 6;

export class World {
  readonly random: SeededRandom;
  readonly replicas = new Map<number, Replica>();
  readonly invariants: Invariants;
  /** How often rare things happened; a suite in which one never does is not testing it. */
  readonly sometimes = new Map<string, number>();
  #network: Message[] = [];
  #streams: SnapshotStream[] = [];
  readonly #cut = new Set<string>();
  /** Reads under way: who was asked, and what was committed then. */
  readonly #reads = new Map<number, { at: NodeId; committed: number }>();
  readonly #digests = new Map<number, number>();
  readonly #appendBytes: number;
  readonly #lazyCommits: boolean;
  #nextRead = 1;
  #nextProposal = 1;
  hostility: Hostility;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    const founders = this.random.pick([1, 2, 3, 3, 3, 4, 5, 5]);
    const conf: ConfState = { ...BLANK.conf, voters: ids(founders) };
    this.invariants = new Invariants(conf);
    this.hostility = this.#drawHostility();
    this.#appendBytes = this.random.pick([3, 12]);
    this.#lazyCommits = this.random.pick([false, true]);
    for (const id of ids(NODES)) {
      const base = id <= founders ? { index: logIndex(0), term: term(0), conf } : BLANK;
      const replica = new Replica(id, new MemoryLog(base));
      this.replicas.set(id, replica);
      this.#start(replica);
    }
  }

  #drawHostility(): Hostility {
    const { random } = this;
    return {
      loss: random.pick([0, 0.02, 0.2]),
      duplicate: random.pick([0, 0.02, 0.2]),
      crash: random.pick([0, 0.0005, 0.004]),
      // A cut has to outlast an election timeout to matter, about 500 steps.
      cut: random.pick([0, 0.0003, 0.001, 0.003]),
      confChange: random.pick([0, 0.005, 0.03]),
      compact: random.pick([0, 0.005, 0.03]),
      leave: random.pick([0, 0.2, 1]),
    };
  }

  #start(replica: Replica): void {
    replica.up = true;
    replica.machine = { ...replica.checkpoint };
    replica.toApply = [];
    replica.received.clear();
    replica.node = new RaftNode(
      {
        id: replica.id,
        electionTicks: 5,
        heartbeatTicks: 1,
        maxAppendBytes: this.#appendBytes,
        maxInflightMessages: 3,
        maxInflightBytes: 60,
        maxUncommittedBytes: 40,
        maxReadyBytes: 16,
        random: () => this.random.float(),
        lazyCommits: this.#lazyCommits,
        ...(replica.lostLog === undefined ? {} : { lostLog: replica.lostLog }),
      },
      replica.log,
      logIndex(replica.machine.applied),
    );
    this.invariants.restarted(replica.id);
    this.#noteConf(replica);
  }

  note(what: string): void {
    this.sometimes.set(what, (this.sometimes.get(what) ?? 0) + 1);
  }

  // ---- one step ----------------------------------------------------------------------------------------------

  step(): void {
    const { random } = this;
    const replica = this.#pickReplica();
    if (random.chance(this.hostility.cut)) this.#changeCuts();
    if (random.chance(0.0004)) this.hostility = this.#drawHostility();
    if (random.chance(0.001)) replica.pace = random.pick([1, 1, 0.3, 0.05]);
    if (!replica.up) {
      if (random.chance(0.02)) this.#restart(replica);
      this.#deliverOne();
      return;
    }
    const die = random.below(100);
    if (die < 36) for (let i = random.below(4); i >= 0; i--) this.#deliverOne();
    else if (die < 58) this.#takeReady(replica);
    else if (die < 70) this.#sync(replica);
    else if (die < 78) this.#apply(replica);
    else if (die < 88) {
      if (random.chance(replica.pace)) this.#touch(replica, () => replica.node.tick());
    } else if (die < 92) this.#propose(this.#clientsChoice(replica));
    else if (die < 94) this.#read(this.#clientsChoice(replica));
    else if (die < 96) this.#stream();
    else this.#rareEvent(replica);
  }

  /** Mostly one that takes part. */
  #pickReplica(): Replica {
    const all = [...this.replicas.values()];
    const replica = this.random.pick(all);
    const idle = replica.up && replica.node.lastIndex === 0 && replica.node.conf.voters.length === 0;
    return idle ? this.random.pick(all) : replica;
  }

  /** Mostly a leader, as clients that follow hints would. */
  #clientsChoice(replica: Replica): Replica {
    if (this.random.chance(0.1)) return replica;
    const leaders = [...this.replicas.values()].filter(({ up, node }) => up && node.role === "leader");
    return leaders.length > 0 ? this.random.pick(leaders) : replica;
  }

  #rareEvent(replica: Replica): void {
    const { random, hostility } = this;
    if (random.chance(hostility.leave)) for (const each of this.replicas.values()) this.#makeAnew(each);
    if (random.chance(hostility.crash * 25)) this.#crash(replica);
    else if (random.chance(hostility.confChange * 25)) this.#changeMembership(this.#clientsChoice(replica));
    else if (random.chance(hostility.compact * 25)) this.#compact(replica);
    else this.#steer(this.#clientsChoice(replica), random.below(100));
  }

  #steer(replica: Replica, die: number): void {
    const { node } = replica;
    const other = nodeId(1 + this.random.below(NODES));
    if (die < 10)
      this.#touch(replica, () => {
        if (node.transferLeadership(other)) this.note("transfer begun");
      });
    else if (die < 13) this.#touch(replica, () => node.campaign());
    else if (die < 23) this.#touch(replica, () => node.reportUnreachable(other));
  }

  /** Runs an input on a node, then has everything checked. */
  #touch(replica: Replica, input: () => void): void {
    const { role, term: before } = replica.node;
    input();
    if (replica.node.role === "leader" && role !== "leader") this.note("leader elected");
    if (role === "leader" && replica.node.role !== "leader")
      this.note(replica.node.term === before ? "leader stepped down by itself" : "leader deposed");
    this.invariants.step(replica, this.replicas);
  }

  #deliverOne(): void {
    const { random } = this;
    if (this.#network.length === 0) return;
    // Mostly in order, now and then not.
    const at = random.chance(0.7) ? 0 : random.below(this.#network.length);
    const message = this.#network[at]!;
    if (random.chance(this.hostility.duplicate)) this.note("duplicated");
    else this.#network.splice(at, 1);
    const to = this.replicas.get(message.to)!;
    if (!to.up || this.#isCut(message.from, message.to) || random.chance(this.hostility.loss)) return;
    if (message.type === MessageType.TimeoutNow && to.node.term === message.term) this.note("timeout now");
    this.#touch(to, () => to.node.step(message));
  }

  #send(from: Replica, messages: readonly Message[]): void {
    for (const message of messages) {
      this.invariants.sent(from, message);
      if (message.type === MessageType.Append && message.reject) this.note("reject");
      this.#network.push(message);
    }
    // A network that forgets nothing would never deliver anything new.
    while (this.#network.length > 400) this.#network.splice(this.random.below(this.#network.length), 1);
  }

  #takeReady(replica: Replica): void {
    if (!replica.node.hasReady()) return;
    const ready = replica.node.ready();
    if (ready.append !== undefined) this.#append(replica, ready.append);
    this.#send(replica, ready.messages);
    for (const entry of ready.committed) {
      check(
        replica.log.durableLast >= entry.index,
        `${replica.id} is to apply ${entry.index}, not durable yet`,
      );
      replica.toApply.push(entry);
    }
    this.#answerReads(ready);
    for (const to of ready.snapshotsNeeded) this.#offerSnapshot(replica, to);
    this.invariants.step(replica, this.replicas);
  }

  #append(replica: Replica, append: Append): void {
    this.invariants.append(replica, append);
    const first = append.entries[0];
    if (first !== undefined && append.snapshot === undefined && first.index <= replica.log.lastIndex())
      this.note("tail replaced");
    replica.log.append(append);
  }

  #sync(replica: Replica): void {
    let count = this.random.below(Math.min(3, replica.log.unsynced) + 1);
    while (count-- > 0) this.#syncOne(replica);
  }

  #syncOne(replica: Replica): void {
    const append = replica.log.sync();
    if (append.snapshot !== undefined) {
      const state = replica.received.get(append.snapshot.index)!;
      check(state.applied === append.snapshot.index, "the received state belongs to the snapshot");
      replica.machine = { ...state };
      replica.checkpoint = { ...state };
      replica.toApply = [];
      this.note("snapshot installed");
      if (append.snapshot.conf.votersOutgoing.length > 0) this.note("joint snapshot installed");
    }
    this.#send(replica, append.messages);
    this.#touch(replica, () => replica.node.appended(append));
    if (append.snapshot !== undefined) this.#noteConf(replica);
  }

  #apply(replica: Replica): void {
    let count = this.random.below(Math.min(4, replica.toApply.length) + 1);
    let last: LogIndex | undefined;
    while (count-- > 0) {
      const entry = replica.toApply.shift()!;
      const { machine } = replica;
      check(
        entry.index === machine.applied + 1,
        `${replica.id} applies ${entry.index} after ${machine.applied}`,
      );
      this.invariants.applied(replica.id, entry);
      machine.applied = entry.index;
      for (const byte of entry.data) machine.digest = (Math.imul(machine.digest, 31) + byte + 1) | 0;
      const known = this.#digests.get(entry.index);
      if (known === undefined) this.#digests.set(entry.index, machine.digest);
      else check(known === machine.digest, `${replica.id} has another state at ${entry.index}`);
      last = entry.index;
      if (entry.kind === EntryKind.ConfChange) {
        // One at a time, so that the membership at each index can be compared.
        const index = last;
        this.#touch(replica, () => replica.node.applied(index));
        this.#noteConf(replica);
        if (replica.node.conf.votersOutgoing.length === 0) this.note("joint configuration left");
        last = undefined;
      }
    }
    if (last !== undefined) {
      const index = last;
      this.#touch(replica, () => replica.node.applied(index));
    }
    if (this.random.chance(0.3)) replica.checkpoint = { ...replica.machine };
  }

  #noteConf(replica: Replica): void {
    const { node } = replica;
    // While a snapshot is being installed `conf` is ahead of what is applied.
    const conf = node.confAt(node.appliedIndex);
    if (conf.voters.length === 0) return;
    // The index at which it came into force is the highest known one up to the applied index with a change.
    let index = node.appliedIndex as number;
    while (index > 0 && !this.#isConfChange(index)) index--;
    this.invariants.conf(replica.id, index, conf);
  }

  #isConfChange(index: number): boolean {
    return this.invariants.committed.get(index)?.data.startsWith(`${EntryKind.ConfChange}:`) === true;
  }

  // ---- clients -----------------------------------------------------------------------------------------------

  #propose(replica: Replica): void {
    this.#touch(replica, () => {
      const count = 1 + this.random.below(3);
      const batch: Uint8Array[] = [];
      for (let i = 0; i < count; i++) {
        const number = this.#nextProposal++;
        batch.push(Uint8Array.of(number >> 16, (number >> 8) & 255, number & 255));
      }
      const answer = replica.node.proposeBatch(batch);
      this.note(typeof answer === "string" ? `refused: ${answer}` : "proposed");
    });
  }

  #read(replica: Replica): void {
    const context = this.#nextRead++;
    this.#touch(replica, () => {
      if (!replica.node.readIndex(context)) return;
      this.#reads.set(context, { at: replica.id, committed: this.invariants.highestCommitted });
    });
  }

  #answerReads(ready: Ready): void {
    for (const { context, index } of ready.readStates) {
      this.note("read confirmed");
      const begun = this.#reads.get(context);
      check(begun !== undefined, `read ${context} is answered twice or was never asked`);
      this.#reads.delete(context);
      this.invariants.read(begun.committed, index);
    }
    for (const context of ready.droppedReads) {
      this.note("read dropped");
      check(this.#reads.delete(context), `read ${context} is dropped twice or was never asked`);
    }
  }

  #changeMembership(replica: Replica): void {
    const { random } = this;
    const changes: ConfChange["changes"][number][] = [];
    const count = random.pick([0, 1, 1, 1, 2, 3]);
    for (let i = 0; i < count; i++)
      changes.push({
        kind: random.pick(["voter", "voter", "voter", "learner", "remove"]),
        node: nodeId(1 + random.below(NODES)),
      });
    this.#touch(replica, () => {
      const answer = replica.node.proposeConfChange({ changes });
      this.note(typeof answer === "string" ? `change refused: ${answer}` : "change proposed");
    });
  }

  // ---- snapshots and compaction ------------------------------------------------------------------------------

  #offerSnapshot(from: Replica, to: NodeId): void {
    const { node, log, machine } = from;
    const index = logIndex(machine.applied);
    const entryTerm = log.term(index);
    check(entryTerm !== undefined, `${from.id} has applied ${index} but not its term`);
    const meta = { index, term: entryTerm, conf: node.confAt(index) };
    this.#streams.push({ from: from.id, to, term: node.term, meta, state: { ...machine } });
    this.note("snapshot offered");
  }

  #stream(): void {
    const stream = this.#streams.shift();
    if (stream === undefined) return;
    const from = this.replicas.get(stream.from)!;
    const to = this.replicas.get(stream.to)!;
    const ok = to.up && !this.#isCut(stream.from, stream.to) && !this.random.chance(this.hostility.loss);
    if (ok) {
      const message: Message = {
        type: MessageType.Snapshot,
        from: stream.from,
        to: stream.to,
        term: term(stream.term),
        index: logIndex(0),
        logTerm: term(0),
        entries: [],
        commit: logIndex(0),
        reject: false,
        rejectHint: logIndex(0),
        context: 0,
        snapshot: stream.meta,
      };
      to.received.set(stream.meta.index, stream.state);
      this.#touch(to, () => to.node.step(message));
    }
    if (from.up && this.random.chance(0.9)) this.#touch(from, () => from.node.reportSnapshot(stream.to, ok));
    else this.#lostReports.push(stream);
  }

  /** A sender always learns how its stream ended, if it lives, but perhaps much later. */
  readonly #lostReports: SnapshotStream[] = [];

  #compact(replica: Replica): void {
    const { checkpoint, node, log } = replica;
    const index = logIndex(checkpoint.applied);
    if (index <= log.base().index || node.appliedIndex < index) return;
    const entryTerm = log.term(index);
    check(entryTerm !== undefined, `${replica.id} cannot compact to its checkpoint`);
    log.compact({ index, term: entryTerm, conf: node.confAt(index) });
    this.note("compacted");
    this.invariants.step(replica, this.replicas);
    const late = this.#lostReports.pop();
    if (late === undefined) return;
    const from = this.replicas.get(late.from)!;
    if (from.up) this.#touch(from, () => from.node.reportSnapshot(late.to, false));
  }

  // ---- faults ------------------------------------------------------------------------------------------------

  #crash(replica: Replica, power = true): void {
    replica.up = false;
    if (replica.log.unsynced > 0) this.note("crashed with unsynced appends");
    if (power) replica.log.crash();
    for (const [context, { at }] of this.#reads) if (at === replica.id) this.#reads.delete(context);
    for (const to of this.#streams) if (to.from === replica.id) this.note("snapshot cut short");
    this.#streams = this.#streams.filter((stream) => stream.from !== replica.id);
  }

  /**
   * A leader that a quorum confirms, here the one of the highest term, says that the replica is no member up to what it
   * has applied, and it has nothing from that leader beyond: its data goes, but what it has promised is kept, and an empty
   * replica stands ready to be taken in again. What is on its way to and from it stays on its way.
   */
  #makeAnew(replica: Replica): void {
    const leader = this.#leader();
    if (leader === undefined || [...this.replicas.values()].some(({ node }) => node.term > leader.node.term))
      return;
    const { id, log } = replica;
    if (leader.node.members.includes(id) || log.lastIndex() === 0 || this.#isExpected(leader, id)) return;
    if (log.lastIndex() > leader.node.appliedIndex && log.term(log.lastIndex())! >= leader.node.term) return;
    this.note("made anew");
    this.#crash(replica, false);
    for (const stream of this.#streams) if (stream.to === id) this.#lostReports.push(stream);
    this.#streams = this.#streams.filter(({ to }) => to !== id);
    const end = { index: log.lastIndex(), term: log.term(log.lastIndex())! };
    const promised = { ...log.initialHardState(), commit: logIndex(0) };
    this.invariants.left(id, log);
    replica.log = new MemoryLog(BLANK, [], promised);
    replica.checkpoint = { applied: 0, digest: 0 };
    if (!isFurther(replica.lostLog, end)) replica.lostLog = end;
    this.#start(replica);
  }

  /** Whether a change that takes the node in may be under way. */
  #isExpected({ node, log }: Replica, id: NodeId): boolean {
    if (node.lastIndex > log.lastIndex()) return true;
    const pending = log.entries(logIndex(node.appliedIndex + 1), logIndex(node.lastIndex + 1), 1 << 20);
    return pending.some(
      ({ kind, data }) =>
        kind === EntryKind.ConfChange && decodeConfChange(data).changes.some((change) => change.node === id),
    );
  }

  #restart(replica: Replica): void {
    this.note("restarted");
    this.#start(replica);
    this.invariants.step(replica, this.replicas);
  }

  #changeCuts(): void {
    const { random } = this;
    this.#cut.clear();
    const shape = random.pick([
      "none",
      "none",
      "none",
      "halves",
      "one-way",
      "sieve",
      "leader",
      "leader deaf",
      "leader mute",
    ]);
    if (shape === "none") return;
    const leader = this.#leader()?.id;
    const side = new Set(
      ids(NODES).filter((id) => (leader === undefined ? random.chance(0.5) : id === leader)),
    );
    if (!shape.startsWith("leader")) for (const id of ids(NODES)) if (random.chance(0.5)) side.add(id);
    for (const a of ids(NODES))
      for (const b of ids(NODES)) {
        const leaves = side.has(a) && !side.has(b);
        const enters = !side.has(a) && side.has(b);
        const cut =
          shape === "sieve"
            ? random.chance(0.2)
            : shape === "one-way" || shape === "leader mute"
              ? leaves
              : shape === "leader deaf"
                ? enters
                : leaves || enters;
        if (cut) this.#cut.add(`${a}>${b}`);
      }
    this.note("links cut");
  }

  #isCut(from: number, to: number): boolean {
    return this.#cut.has(`${from}>${to}`);
  }

  // ---- recovery ----------------------------------------------------------------------------------------------

  /** Heals everything; the group must then finish what it began, and every member must come to the same state. */
  recover(maxRounds: number): void {
    this.hostility = { loss: 0, duplicate: 0, crash: 0, cut: 0, confChange: 0, compact: 0, leave: 0 };
    this.#cut.clear();
    for (const stream of this.#lostReports.splice(0)) {
      const from = this.replicas.get(stream.from)!;
      if (from.up) this.#touch(from, () => from.node.reportSnapshot(stream.to, false));
    }
    for (const replica of this.replicas.values()) if (!replica.up) this.#restart(replica);
    let proposed: number | undefined;
    for (let round = 0; round < maxRounds; round++) {
      for (const replica of this.replicas.values()) this.#touch(replica, () => replica.node.tick());
      this.settle();
      const leader = this.#leader();
      if (leader === undefined) continue;
      if (proposed === undefined) {
        const answer = leader.node.propose(Uint8Array.of(1, 2, 3));
        if (typeof answer !== "string") proposed = answer.index;
        this.settle();
      }
      if (proposed !== undefined && this.#converged(leader, proposed)) return;
    }
    throw new Error(`no recovery in ${maxRounds} rounds:\n${this.describe()}`);
  }

  /** Everything that can happen without time passing. */
  settle(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const replica of this.replicas.values()) {
        while (replica.node.hasReady()) {
          busy = true;
          this.#takeReady(replica);
        }
        while (replica.log.unsynced > 0) {
          busy = true;
          this.#syncOne(replica);
        }
        while (replica.toApply.length > 0) {
          busy = true;
          this.#apply(replica);
        }
      }
      while (this.#network.length > 0) {
        busy = true;
        this.#deliverOne();
      }
      while (this.#streams.length > 0) {
        busy = true;
        this.#stream();
        for (const stream of this.#lostReports.splice(0)) {
          const from = this.replicas.get(stream.from)!;
          this.#touch(from, () => from.node.reportSnapshot(stream.to, true));
        }
      }
    }
  }

  #leader(): Replica | undefined {
    let best: Replica | undefined;
    for (const replica of this.replicas.values())
      if (replica.node.role === "leader" && (best === undefined || replica.node.term > best.node.term))
        best = replica;
    return best;
  }

  #converged(leader: Replica, proposed: number): boolean {
    const { node } = leader;
    if (node.appliedIndex < proposed || node.conf.votersOutgoing.length > 0) return false;
    if (node.appliedIndex !== node.lastIndex || this.#reads.size > 0) return false;
    for (const member of node.members) {
      const replica = this.replicas.get(member)!;
      if (replica.node.appliedIndex !== node.appliedIndex) return false;
      if (votes(node.conf, member) && replica.node.leader !== leader.id) return false;
      check(
        replica.machine.digest === leader.machine.digest,
        `${member} differs from its leader after recovery`,
      );
    }
    return node.canQuiesce();
  }

  describe(): string {
    const lines: string[] = [];
    for (const { id, up, node, log } of this.replicas.values()) {
      const { term: now, role, leader, commit, applied, lastIndex, conf } = node.status;
      lines.push(
        `${id}${up ? "" : " down"}: ${role} of ${leader} in ${now}, commit ${commit} applied ${applied} last ${lastIndex} ` +
          `base ${log.base().index} conf ${JSON.stringify(conf)}`,
      );
      for (const [peer, p] of node.progress())
        lines.push(`    ${peer}: ${p.state} match ${p.match} next ${p.next} inflight ${p.inflight}`);
    }
    return lines.join("\n");
  }
}

function isFurther(one: LogEnd | undefined, other: LogEnd): boolean {
  return one !== undefined && (one.term > other.term || (one.term === other.term && one.index > other.index));
}

function ids(count: number): NodeId[] {
  return Array.from({ length: count }, (_, i) => nodeId(i + 1));
}
