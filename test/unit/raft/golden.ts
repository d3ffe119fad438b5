/**
 * Runs golden scripts: commands to a small group of nodes, and below them what they must lead to. A script is made of
 * blocks: command lines, a line "----", the expected output, an empty line. Lines with # are comments; "# pins:" names
 * the items of checklist.md that the script pins down.
 *
 * After every command all nodes' readies are taken: messages go into one queue and stay there until delivered by a
 * command; appends become durable and entries are applied at once, unless `hold disk N` or `hold apply N` said
 * otherwise. Election timeouts are exactly electionTicks unless `new` sets `random=`. Nothing is left to chance.
 */
import { type LogIndex, logIndex, type NodeId, nodeId, term } from "../../../src/base/ids.js";
import {
  type ConfChange,
  type ConfState,
  type Entry,
  EntryKind,
  type HardState,
  type LogEnd,
  type Message,
  MessageType,
  RaftNode,
  type SnapshotMeta,
} from "../../../src/raft/index.js";
import { formatConf, formatEntries, formatMessage, formatStatus, list } from "./golden-format.js";
import { BLANK, MemoryLog } from "./memory-log.js";

interface Host {
  readonly id: NodeId;
  readonly log: MemoryLog;
  node: RaftNode;
  readonly lostLog: LogEnd | undefined;
  up: boolean;
  holdDisk: boolean;
  holdApply: boolean;
  applied: LogIndex;
  /** What a restart begins with. */
  checkpoint: LogIndex;
  toApply: Entry[];
}

type Arguments = { readonly words: readonly string[]; readonly options: ReadonlyMap<string, string> };

export class GoldenGroup {
  readonly #hosts = new Map<number, Host>();
  #queue: Message[] = [];
  readonly #cut = new Set<string>();
  #out: string[] = [];
  #settings = new Map<string, string>();
  #draws: number[] = [];

  /** Runs one block's commands and answers their output. */
  run(commands: readonly string[]): string {
    this.#out = [];
    for (const line of commands) {
      const quiet = line.startsWith("quiet ");
      const before = this.#out.length;
      const [name, ...rest] = (quiet ? line.slice(6) : line).split(/\s+/);
      const options = new Map<string, string>();
      const words: string[] = [];
      for (const word of rest) {
        const at = word.indexOf("=");
        if (at > 0) options.set(word.slice(0, at), word.slice(at + 1));
        else words.push(word);
      }
      this.#command(name!, { words, options });
      this.#takeReadies();
      if (quiet) this.#out.length = before;
    }
    return this.#out.length === 0 ? "ok" : this.#out.join("\n");
  }

  #say(line: string): void {
    this.#out.push(line);
  }

  #host(word: string | undefined): Host {
    const host = this.#hosts.get(Number(word));
    if (host === undefined) throw new Error(`no node ${word}`);
    return host;
  }

  // ---- commands ----------------------------------------------------------------------------------------------

  #command(name: string, args: Arguments): void {
    const { words } = args;
    switch (name) {
      case "new":
        this.#new(args);
        return;
      case "load":
        this.#load(args);
        return;
      case "blank":
        this.#blank(args);
        return;
      case "draws":
        this.#draws = words.map(Number);
        return;
      case "hold":
      case "release":
        this.#hold(name === "hold", words);
        return;
      case "sync":
        this.#sync(this.#host(words[0]), Number(words[1] ?? 1000));
        return;
      case "apply":
        this.#apply(this.#host(words[0]), Number(words[1] ?? 1000));
        return;
      case "deliver":
      case "drop":
      case "repeat":
      case "reorder":
        this.#network(name, words);
        return;
      case "cut":
      case "heal":
        this.#cutLinks(name === "cut", words);
        return;
      case "stabilize":
        this.#stabilize(words);
        return;
      case "queue":
        for (const message of this.#queue) this.#say(formatMessage(message));
        if (this.#queue.length === 0) this.#say("empty");
        return;
      case "step":
        this.#stepMade(args);
        return;
      case "snapshot":
        this.#snapshot(args);
        return;
      case "compact":
        this.#compact(this.#host(words[0]), Number(words[1]));
        return;
      case "crash":
        this.#host(words[0]).up = false;
        this.#host(words[0]).log.crash();
        return;
      case "restart":
        this.#restart(this.#host(words[0]));
        return;
      case "status":
        for (const { id, node, up } of words.length > 0
          ? words.map((w) => this.#host(w))
          : this.#hosts.values())
          this.#say(up ? formatStatus(node.status) : `${id}: down`);
        return;
      case "log":
        for (const word of words) this.#showLog(this.#host(word));
        return;
      default:
        this.#nodeCommand(name, args);
        return;
    }
  }

  /** Commands that are an input to one node. */
  #nodeCommand(name: string, { words, options }: Arguments): void {
    const host = this.#host(words[0]);
    const { node } = host;
    const peer = nodeId(Number(words[1] ?? 0));
    this.#guard(host, () => {
      switch (name) {
        case "tick":
          for (let i = Number(words[1] ?? 1); i > 0; i--) {
            node.tick();
            this.#takeReadies();
          }
          return;
        case "campaign":
          node.campaign();
          return;
        case "propose": {
          const size = Number(options.get("size") ?? 0);
          const batch = words.slice(1).map((word) => bytes(size > 0 ? word.padEnd(size, ".") : word));
          const answer = node.proposeBatch(batch);
          this.#say(typeof answer === "string" ? answer : `at ${answer.index} in term ${answer.term}`);
          return;
        }
        case "conf": {
          const answer = node.proposeConfChange(parseChange(words.slice(1)));
          this.#say(typeof answer === "string" ? answer : `at ${answer.index} in term ${answer.term}`);
          return;
        }
        case "conf-at":
          this.#say(formatConf(node.confAt(logIndex(Number(words[1])))));
          return;
        case "read":
          if (!node.readIndex(Number(words[1]))) this.#say("not leading");
          return;
        case "hurry":
          node.hurry();
          return;
        case "ask":
          node.askCommit();
          return;
        case "transfer":
          this.#say(node.transferLeadership(peer) ? "begun" : "nothing to do");
          return;
        case "unreachable":
          node.reportUnreachable(peer);
          return;
        case "floor":
          node.raiseReplayFloor(logIndex(Number(words[1])));
          return;
        case "snapshot-status":
          node.reportSnapshot(peer, words[2] === "ok");
          return;
        case "can-quiesce":
          this.#say(String(node.canQuiesce()));
          return;
        case "wake":
          node.wake();
          return;
        default:
          throw new Error(`unknown command ${name}`);
      }
    });
  }

  /** A node that stops with a FatalError is down; that is what some scripts are about. */
  #guard(host: Host, input: () => void): void {
    try {
      input();
    } catch (error) {
      if (!(error instanceof Error) || !("family" in error)) throw error;
      host.up = false;
      this.#say(`${host.id} stops: ${error.message}`);
    }
  }

  #new({ words, options }: Arguments): void {
    this.#hosts.clear();
    this.#queue = [];
    this.#cut.clear();
    this.#draws = [];
    this.#settings = new Map(options);
    const voters = words.map((word) => nodeId(Number(word)));
    const learners = (options.get("learners")?.split(",") ?? []).map((word) => nodeId(Number(word)));
    const conf: ConfState = { ...BLANK.conf, voters, learners };
    const base: SnapshotMeta = { ...BLANK, conf };
    for (const id of [...voters, ...learners]) this.#add(id, new MemoryLog(base), 0);
  }

  /** One node with a log of the given terms: `load 1 of=1,2,3 log=1,1,2 term=2 vote=0 commit=1 base=0/0`. */
  #load({ words, options }: Arguments): void {
    const number = (key: string, otherwise: number): number => Number(options.get(key) ?? otherwise);
    const [baseIndex = 0, baseTerm = 0] = (options.get("base") ?? "0/0").split("/").map(Number);
    const voters = (options.get("of") ?? "1,2,3").split(",").map((word) => nodeId(Number(word)));
    const terms = (options.get("log") ?? "").split(",").filter((word) => word !== "");
    const entries = terms.map((word, i): Entry => {
      const change = word.split(":")[1];
      const kind = change === undefined ? EntryKind.Normal : EntryKind.ConfChange;
      return {
        term: term(Number.parseInt(word, 10)),
        index: logIndex(baseIndex + 1 + i),
        kind,
        data: loadData(change),
      };
    });
    const last = entries[entries.length - 1]?.term ?? baseTerm;
    const hard: HardState = {
      term: term(number("term", last)),
      vote: nodeId(number("vote", 0)),
      commit: logIndex(number("commit", baseIndex)),
    };
    const base = { index: logIndex(baseIndex), term: term(baseTerm), conf: { ...BLANK.conf, voters } };
    const id = nodeId(Number(words[0]));
    this.#hosts.delete(id);
    this.#add(id, new MemoryLog(base, entries, hard), number("applied", baseIndex));
    if (options.get("hold") === "apply") this.#host(words[0]).holdApply = true;
  }

  /** Nodes that know nothing; `back=TERM/VOTE/INDEX/TERM` is what those had promised and had that were here before. */
  #blank({ words, options }: Arguments): void {
    const back = options.get("back")?.split("/").map(Number);
    const [promisedTerm = 0, vote = 0, lastIndex = 0, lastTerm = 0] = back ?? [];
    const lostLog = back && { index: logIndex(lastIndex), term: term(lastTerm) };
    const hard = { term: term(promisedTerm), vote: nodeId(vote), commit: logIndex(0) };
    for (const word of words) {
      const id = nodeId(Number(word));
      this.#hosts.delete(id);
      this.#add(id, new MemoryLog(BLANK, [], hard), 0, lostLog);
    }
  }

  #add(id: NodeId, log: MemoryLog, applied: number, lostLog?: LogEnd): void {
    const at = logIndex(applied);
    const host: Host = {
      id,
      log,
      node: undefined as unknown as RaftNode,
      lostLog,
      up: true,
      holdDisk: false,
      holdApply: false,
      applied: at,
      checkpoint: at,
      toApply: [],
    };
    this.#guard(host, () => {
      host.node = this.#makeNode(host);
    });
    this.#hosts.set(id, host);
  }

  #makeNode(host: Host): RaftNode {
    const number = (key: string, otherwise: number): number => Number(this.#settings.get(key) ?? otherwise);
    return new RaftNode(
      {
        id: host.id,
        electionTicks: number("election", 10),
        heartbeatTicks: number("heartbeat", 1),
        maxAppendBytes: number("append", 1000),
        maxInflightMessages: number("inflight", 8),
        maxInflightBytes: number("inflight-bytes", 100_000),
        maxUncommittedBytes: number("uncommitted", 100_000),
        maxReadyBytes: number("page", 1000),
        random: () => this.#draws.shift() ?? number("random", 0),
        lazyCommits: number("lazy", 0) === 1,
        ...(host.lostLog === undefined ? {} : { lostLog: host.lostLog }),
      },
      host.log,
      host.applied,
    );
  }

  #restart(host: Host): void {
    host.applied = host.checkpoint;
    host.toApply = [];
    host.up = true;
    this.#guard(host, () => {
      host.node = this.#makeNode(host);
    });
  }

  #hold(hold: boolean, words: readonly string[]): void {
    for (const word of words.slice(1)) {
      const host = this.#host(word);
      if (words[0] === "disk") host.holdDisk = hold;
      else host.holdApply = hold;
    }
  }

  // ---- the host's loop ---------------------------------------------------------------------------------------

  #takeReadies(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const host of this.#hosts.values()) {
        if (!host.up) continue;
        this.#guard(host, () => {
          while (host.up && host.node.hasReady()) {
            busy = true;
            this.#takeReady(host);
            if (!host.holdDisk) this.#sync(host, 1000);
            if (!host.holdApply) this.#apply(host, 1000);
          }
        });
      }
    }
  }

  #takeReady(host: Host): void {
    const ready = host.node.ready();
    const { id } = host;
    if (ready.softState !== undefined)
      this.#say(
        `${id}: ${ready.softState.role} in term ${host.node.term}` +
          (ready.softState.leader > 0 && ready.softState.leader !== id
            ? ` of ${ready.softState.leader}`
            : ""),
      );
    const { append } = ready;
    if (append !== undefined) {
      host.log.append(append);
      if (host.holdDisk) {
        const { hardState: hard, entries, snapshot, messages } = append;
        const parts = [
          hard && `term ${hard.term} vote ${hard.vote} commit ${hard.commit}`,
          snapshot && `snapshot ${snapshot.index}/${snapshot.term}`,
          entries.length > 0 && `entries ${formatEntries(entries)}`,
          messages.length > 0 && `then ${messages.length} message${messages.length > 1 ? "s" : ""}`,
        ];
        this.#say(`${id}: to disk: ${parts.filter(Boolean).join("; ")}`);
      }
    }
    this.#send(ready.messages);
    for (const { context, index } of ready.readStates) this.#say(`${id}: read ${context} at ${index}`);
    for (const context of ready.droppedReads) this.#say(`${id}: read ${context} dropped`);
    for (const peer of ready.snapshotsNeeded) this.#say(`${id}: snapshot needed by ${peer}`);
    if (ready.committed.length > 0) {
      if (host.holdApply) this.#say(`${id}: to apply ${formatEntries(ready.committed)}`);
      host.toApply.push(...ready.committed);
    }
  }

  #sync(host: Host, count: number): void {
    for (let i = 0; i < count && host.log.unsynced > 0; i++) {
      const append = host.log.sync();
      if (append.snapshot !== undefined) {
        host.applied = append.snapshot.index;
        host.checkpoint = append.snapshot.index;
        host.toApply = [];
        this.#say(`${host.id}: snapshot ${append.snapshot.index} installed`);
      }
      this.#send(append.messages);
      this.#guard(host, () => host.node.appended(append));
    }
  }

  #apply(host: Host, count: number): void {
    if (host.toApply.length === 0 || count === 0) return;
    const entries = host.toApply.splice(0, count);
    for (const entry of entries) {
      if (entry.index !== host.applied + 1)
        throw new Error(`${host.id} is to apply ${entry.index} after ${host.applied}`);
      host.applied = entry.index;
    }
    this.#say(`${host.id}: applied ${formatEntries(entries)}`);
    this.#guard(host, () => host.node.applied(host.applied));
  }

  // ---- the network -------------------------------------------------------------------------------------------

  #send(messages: readonly Message[]): void {
    for (const message of messages) {
      if (this.#cut.has(`${message.from}->${message.to}`)) continue;
      this.#say(formatMessage(message));
      this.#queue.push(message);
    }
  }

  /** Takes the messages that a link selects out of the queue: "1->2", "1->*", "*->2" or nothing for all. */
  #select(words: readonly string[]): Message[] {
    const [from = "*", to = "*"] = (words.find((word) => word.includes("->")) ?? "*->*").split("->");
    const limit = Number(words.find((word) => /^\d+$/.test(word)) ?? Number.POSITIVE_INFINITY);
    const type = words.find((word) => /^[A-Z]/.test(word));
    const selected: Message[] = [];
    this.#queue = this.#queue.filter((message) => {
      const fits =
        selected.length < limit &&
        (from === "*" || Number(from) === message.from) &&
        (to === "*" || Number(to) === message.to) &&
        (type === undefined || MessageType[type as keyof typeof MessageType] === message.type);
      if (fits) selected.push(message);
      return !fits;
    });
    return selected;
  }

  #network(name: string, words: readonly string[]): void {
    const selected = this.#select(words);
    if (selected.length === 0) this.#say("no such message");
    if (name === "repeat") this.#queue.push(...selected, ...selected);
    if (name === "reorder") this.#queue.push(...selected.reverse());
    if (name === "deliver") for (const message of selected) this.#deliver(message);
  }

  #deliver(message: Message): void {
    const host = this.#hosts.get(message.to);
    if (host?.up !== true || this.#cut.has(`${message.from}->${message.to}`)) return;
    this.#guard(host, () => host.node.step(message));
    this.#takeReadies();
  }

  /** `cut 1` isolates a node, `cut 1->2` one direction, `cut 1-2` both. `heal` heals all. */
  #cutLinks(cut: boolean, words: readonly string[]): void {
    if (!cut) this.#cut.clear();
    for (const word of words) {
      const oneWay = word.includes("->");
      const [a, b] = word.split(oneWay ? "->" : "-");
      for (const other of b === undefined ? this.#hosts.keys() : [Number(b)]) {
        this.#cut.add(`${a}->${other}`);
        if (!oneWay) this.#cut.add(`${other}->${a}`);
      }
    }
    this.#queue = this.#queue.filter(({ from, to }) => !this.#cut.has(`${from}->${to}`));
  }

  #stabilize(words: readonly string[]): void {
    for (let rounds = 0; rounds < 1000; rounds++) {
      this.#takeReadies();
      const messages = this.#select(words);
      if (messages.length === 0) return;
      for (const message of messages) this.#deliver(message);
    }
    throw new Error("the group does not come to rest");
  }

  /** A message made by hand: `step Vote from=2 to=1 term=5 index=3 logTerm=2`. */
  #stepMade({ words, options }: Arguments): void {
    const number = (key: string): number => Number(options.get(key) ?? 0);
    const terms = (options.get("entries") ?? "").split(",").filter((word) => word !== "");
    const message: Message = {
      type: MessageType[words[0] as keyof typeof MessageType],
      from: nodeId(number("from")),
      to: nodeId(number("to")),
      term: term(number("term")),
      index: logIndex(number("index")),
      logTerm: term(number("logTerm")),
      entries: terms.map((word, i) => ({
        term: term(Number.parseInt(word, 10)),
        index: logIndex(number("index") + 1 + i),
        kind: EntryKind.Normal,
        data: loadData(undefined),
      })),
      commit: logIndex(number("commit")),
      reject: words.includes("reject"),
      rejectHint: logIndex(number("hint")),
      context: number("context"),
      snapshot: undefined,
    };
    const host = this.#host(options.get("to"));
    this.#guard(host, () => host.node.step(message));
  }

  // ---- snapshots ---------------------------------------------------------------------------------------------

  /** The host of the first node streams its state to the second: `snapshot 1 2 [voters=..]`. */
  #snapshot({ words, options }: Arguments): void {
    const from = this.#host(words[0]);
    const to = this.#host(words[1]);
    const index = logIndex(Number(options.get("index") ?? from.applied));
    const voters = options
      .get("voters")
      ?.split(",")
      .map((word) => nodeId(Number(word)));
    const conf = voters === undefined ? from.node.confAt(index) : { ...BLANK.conf, voters };
    const message: Message = {
      type: MessageType.Snapshot,
      from: from.id,
      to: to.id,
      term: term(Number(options.get("term") ?? from.node.term)),
      index: logIndex(0),
      logTerm: term(0),
      entries: [],
      commit: logIndex(0),
      reject: false,
      rejectHint: logIndex(0),
      context: 0,
      snapshot: { index, term: term(Number(options.get("at") ?? from.log.term(index))), conf },
    };
    this.#say(formatMessage(message));
    this.#guard(to, () => to.node.step(message));
  }

  #compact(host: Host, to: number): void {
    const index = logIndex(to);
    host.checkpoint = logIndex(Math.max(host.checkpoint, index));
    host.log.compact({ index, term: host.log.term(index)!, conf: host.node.confAt(index) });
  }

  #showLog(host: Host): void {
    const { log } = host;
    const base = log.base().index;
    const entries = log.entries(logIndex(base + 1), logIndex(log.lastIndex() + 1), 1e9);
    this.#say(`${host.id}: ${base > 0 ? `(to ${base}/${log.base().term}) ` : ""}${formatEntries(entries)}`);
  }
}

function parseChange(words: readonly string[]): ConfChange {
  if (words[0] === "leave") return { changes: [] };
  const kinds = { "+": "voter", "~": "learner", "-": "remove" } as const;
  return {
    changes: words.map((word) => ({
      kind: kinds[word[0] as keyof typeof kinds],
      node: nodeId(Number(word.slice(1))),
    })),
  };
}

function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** An entry in `log=` is its term, or term:change for a membership change such as 1:+4 or 1:leave. */
function loadData(change: string | undefined): Uint8Array {
  return change === undefined ? bytes("x") : list.encodeChange(parseChange(change.split("&")));
}
