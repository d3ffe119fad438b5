/**
 * `ostraka recover --quorum-lost`: the last resort when so many nodes are lost for good that no majority will ever be
 * there again. Makes one surviving node's data directory a cluster of its own: of every group that it has a replica of
 * it becomes the only member, with all that its log holds. Offline; the node is started afterwards as usual.
 *
 * What the lost majority had acknowledged and this node had not received is gone. Nobody can say how much that is; what
 * can be said (ranges that have no replica here, entries that were not known to be committed) is reported.
 *
 * Invariants:
 * 1. The recovered cluster has another id, and the data another incarnation: should a lost node come back, it is no
 *    member of this cluster, and the two never speak to one another.
 * 2. Until the identity is written last, nothing has happened that cannot be done again from the beginning.
 * 3. Entries keep their indexes and terms, so that what machines have applied stays what the log says; changes of
 *    membership among them become empty.
 * 4. The identity names the nodes that were lost: a split that is applied after the recovery may still give its child
 *    to them (src/node/ranges/ranges.ts). So none of their ids is ever given to another node.
 * 5. No id of a range that this node has heard of is given to another range, though its meta may have lagged behind.
 */
import { join } from "node:path";
import { FatalError, UserError } from "../base/errors.js";
import {
  COORDINATOR_GROUP,
  FIRST_RANGE_GROUP,
  type GroupId,
  logIndex,
  META_GROUP,
  NO_NODE,
  type NodeId,
  nodeId,
  term,
} from "../base/ids.js";
import type { Clock, Disk, Random } from "../base/io.js";
import { openLog } from "../log/index.js";
import type { DurableLog, GroupLog } from "../log/types.js";
import { MemoryMachine } from "../machines/memory-machine.js";
import { MetaMachine } from "../machines/meta/meta.js";
import { BOOTSTRAP_INDEX } from "../multiraft/replica.js";
import { snapshotPath } from "../multiraft/snapshot-receiver.js";
import { decodeConfChange, membersOf } from "../raft/index.js";
import { type ConfState, type Entry, EntryKind } from "../raft/types.js";
import { emptyDirectory } from "./empty-directory.js";
import { type Identity, newIncarnation, readIdentity, writeIdentity } from "./identity.js";

const SEGMENT_BYTES = 16 * 1024 * 1024;
/** Ids of ranges left out: some are in splits that are not applied, or in what ranges know of those they took in. */
const UNHEARD_RANGES = 1_000;

export interface RecoveredGroup {
  readonly group: number;
  readonly kind: "meta" | "coordinator" | "range";
  readonly lastIndex: number;
  /** Entries that were not known to be committed here: kept, though they may have been refused. */
  readonly uncertain: number;
}

export interface Recovery {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly formerClusterId: string;
  readonly groups: readonly RecoveredGroup[];
  /** Ranges of the directory that have no replica here: their rows are lost. */
  readonly lostRanges: readonly number[];
  readonly lostNodes: readonly number[];
  /** The coordinator had no replica here: transactions across ranges that were being committed are aborted. */
  readonly coordinatorLost: boolean;
}

export interface RecoverParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly directory: string;
}

/** The directory must be locked by the caller. */
export async function recover(parts: RecoverParts): Promise<Recovery> {
  const { disk, clock, directory, random } = parts;
  const identity = await readIdentity(disk, directory);
  if (identity === undefined)
    throw new UserError("OSTRAKA_CONFIG", `${directory} holds no node's data: there is nothing to recover`);
  const log = await openLog(disk, clock, {
    directory: join(directory, "log"),
    segmentBytes: SEGMENT_BYTES,
    onDiskFull: (reason) => {
      if (reason !== undefined) throw new FatalError("OSTRAKA_DISK_FULL", reason);
    },
    // Every append is awaited here, and rejects with it.
    onFailure: () => undefined,
  });
  try {
    const self = nodeId(identity.nodeId);
    const meta = await readMeta(disk, directory, log);
    const hosted = log.groups();
    const first = hosted.includes(FIRST_RANGE_GROUP) ? log.group(FIRST_RANGE_GROUP).base().index : 0;
    // The node would begin with an empty range of all keys in its place, beside those that it has.
    if (first === 0 && meta.state.ranges.length > 0)
      throw new UserError(
        "OSTRAKA_CONFIG",
        `${directory} has no replica of the first range, without which no cluster can go on: recover another node's data. ` +
          `The ranges that are here are SQLite files, ${join(directory, "ranges")}/*/range.db`,
      );
    const lost = lostNodes(identity, meta, log);
    // What is rewritten does not name them any more, should this have to be done again.
    await writeIdentity(disk, directory, { ...identity, recovering: lost });
    const groups: RecoveredGroup[] = [];
    for (const group of log.groups().sort((a, b) => a - b)) {
      const recovered = await rewrite(log, group, self);
      if (recovered !== undefined) groups.push(recovered);
    }
    const coordinatorLost = !groups.some(({ kind }) => kind === "coordinator");
    if (coordinatorLost) await beginCoordinator(parts, log, self);
    const clusterId = `${newIncarnation(random)}${newIncarnation(random)}`;
    const firstFreeRange =
      Math.max(meta.state.nextRangeId, ...hosted.map((group) => group + 1)) + UNHEARD_RANGES;
    await becomeAlone(parts, identity, { clusterId, meta, lost, firstFreeRange });
    const ranges = meta.state.ranges.map(({ range }) => range);
    return {
      nodeId: identity.nodeId,
      clusterId,
      formerClusterId: identity.clusterId,
      groups,
      lostRanges: ranges.filter((range) => !groups.some(({ group }) => group === range)),
      lostNodes: lost.filter((id) => meta.node(id)?.state !== "removed"),
      coordinatorLost,
    };
  } finally {
    await log.close();
  }
}

/** All other nodes that anything here may name as a member, ascending; also those that were removed before. */
function lostNodes(identity: Identity, meta: MetaMachine, log: DurableLog): number[] {
  const lost = new Set<number>([...(identity.recovering ?? []), ...meta.state.nodes.map(({ id }) => id)]);
  for (const group of log.groups()) {
    const view = log.group(group);
    for (const node of membersOf(view.base().conf)) lost.add(node);
    for (const { kind, data } of entriesOf(view))
      if (kind === EntryKind.ConfChange)
        for (const { node } of decodeConfChange(data).changes) lost.add(node);
  }
  lost.delete(identity.nodeId);
  return [...lost].sort((a, b) => a - b);
}

/** Meta as of the end of this node's log. A snapshot whose installation was cut short is installed first. */
async function readMeta(disk: Disk, directory: string, log: DurableLog): Promise<MetaMachine> {
  const machine = new MetaMachine();
  const hosted = new MemoryMachine({ machine, disk, directory: join(directory, "meta") });
  const own = log.group(META_GROUP);
  const base = own.base();
  let applied = await hosted.open();
  if (applied < base.index && base.index > BOOTSTRAP_INDEX)
    applied = await hosted.restore(
      snapshotPath(join(directory, "snapshots"), META_GROUP, base.index, base.term),
    );
  const from = logIndex(Math.max(applied, base.index) + 1);
  const entries = own.entries(from, logIndex(own.lastIndex() + 1), Number.MAX_SAFE_INTEGER);
  machine.apply(entries.filter(({ kind, data }) => kind === EntryKind.Normal && data.length > 0));
  return machine;
}

async function rewrite(log: DurableLog, group: GroupId, self: NodeId): Promise<RecoveredGroup | undefined> {
  const view = log.group(group);
  const base = view.base();
  // A replica that never had a state has nothing to give.
  if (base.index === 0) {
    await log.removeGroup(group);
    return undefined;
  }
  const lastIndex = view.lastIndex();
  const hard = view.hardState();
  await log.append([
    {
      group,
      hardState: { term: term(hard.term + 1), vote: NO_NODE, commit: lastIndex },
      snapshot: { index: base.index, term: base.term, conf: alone(self) },
      entries: entriesOf(view).map(withoutMembership),
    },
  ]);
  return {
    group,
    kind: group === META_GROUP ? "meta" : group === COORDINATOR_GROUP ? "coordinator" : "range",
    lastIndex,
    uncertain: Math.max(0, lastIndex - Math.max(hard.commit, base.index)),
  };
}

function entriesOf(view: GroupLog): Entry[] {
  const from = logIndex(view.base().index + 1);
  return view.entries(from, logIndex(view.lastIndex() + 1), Number.MAX_SAFE_INTEGER);
}

function withoutMembership(entry: Entry): Entry {
  return entry.kind === EntryKind.ConfChange
    ? { ...entry, kind: EntryKind.Normal, data: new Uint8Array(0) }
    : entry;
}

function alone(self: NodeId): ConfState {
  return { voters: [self], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
}

async function beginCoordinator({ disk, directory }: RecoverParts, log: DurableLog, self: NodeId) {
  // What is left there of a replica that was removed is of another log.
  await emptyDirectory(disk, join(directory, "coordinator"));
  const first = { index: logIndex(1), term: term(1) };
  await log.append([
    {
      group: COORDINATOR_GROUP,
      hardState: { term: first.term, vote: NO_NODE, commit: first.index },
      snapshot: { ...first, conf: alone(self) },
      entries: [],
    },
  ]);
}

interface Afterwards {
  readonly clusterId: string;
  readonly meta: MetaMachine;
  readonly lost: readonly number[];
  readonly firstFreeRange: number;
}

/** Last of all: from here on it is another cluster. */
async function becomeAlone(
  { disk, directory, random }: RecoverParts,
  identity: Identity,
  { clusterId, meta, lost, firstFreeRange }: Afterwards,
): Promise<void> {
  const { nodeId: id } = identity;
  const address = meta.node(id)?.address ?? identity.founders[String(id)] ?? "127.0.0.1:7400";
  // Who was met in the former cluster, and which promises were made there, binds nobody any more.
  for (const file of ["peers.json", "departed.json"]) await disk.remove(join(directory, file));
  await writeIdentity(disk, directory, {
    nodeId: id,
    clusterId,
    incarnation: newIncarnation(random),
    founders: { [id]: address },
    // Those of an earlier recovery may still be named in the log.
    recoveredFrom: {
      clusterId: identity.clusterId,
      lost: [...new Set([...lost, ...(identity.recoveredFrom?.lost ?? [])])].sort((a, b) => a - b),
      firstFreeRange,
    },
  });
}
