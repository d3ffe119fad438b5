/** `ostraka range list|split|merge|move|transfer`. */
import { AmbiguousError, RetryError, UserError } from "../../base/errors.js";
import { COORDINATOR_GROUP, type GroupId, groupId, type NodeId, nodeId } from "../../base/ids.js";
import { Deadline } from "../../gateway/deadline.js";
import type { AdminVerb } from "../../gateway/gateway.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import { lowerAscii } from "../../sql/tokenizer.js";
import { allReports, type ClusterView, leaderReports, type NodeReport } from "./cluster-view.js";
import { atLeader, leaderOf } from "./leader-call.js";
import { mergeRight } from "./merge.js";
import { amendWish, handOver, replace } from "./replica-moves.js";
import { describeKey, splitKeys } from "./split-keys.js";

const CHANGE_MS = 60_000;
const SPLIT_MS = 30_000;

export interface RangeRow {
  readonly rangeId: number;
  /** Of the start key. */
  readonly table: string;
  readonly startKey: string;
  readonly endKey: string;
  readonly leader: number;
  readonly replicas: readonly number[];
  readonly rows: number | null;
  readonly bytes: number | null;
  readonly appliedIndex: number;
  readonly term: number;
  readonly generation: number;
}

/** One row a range, in key order. */
export async function listRanges(view: ClusterView): Promise<RangeRow[]> {
  const { hosting } = view;
  await hosting.view.refresh();
  const reports = await allReports(view, { rows: true });
  const leaders = leaderReports(reports);
  const { tables } = hosting.view.schema().snapshot;
  return hosting.view.directory().ranges.map((range) => {
    const leader = leaders.get(range.range);
    const any = leader ?? anyReport(reports, range.range);
    const start = describeKey(range.start, tables);
    const end = describeKey(range.end, tables);
    return {
      rangeId: range.range,
      table: start?.table ?? "",
      startKey: start?.values ?? "",
      endKey: end === undefined ? "" : end.table === start?.table ? end.values : `${end.table}/${end.values}`,
      leader: leader?.node ?? 0,
      replicas:
        leader === undefined ? range.replicas : [...leader.voters, ...leader.learners].sort((a, b) => a - b),
      rows: leader?.rows ?? null,
      bytes: any?.bytes ?? null,
      appliedIndex: any?.applied ?? 0,
      term: any?.term ?? 0,
      generation: range.generation,
    };
  });
}

function anyReport(reports: ReadonlyMap<number, NodeReport>, range: GroupId) {
  for (const { groups } of reports.values())
    for (const group of groups) if (group.group === range) return group;
  return undefined;
}

export function rangeOperations(view: ClusterView): Record<string, AdminVerb> {
  return {
    // Under the names of the columns of ostraka_ranges.
    "range.list": async () =>
      (await listRanges(view)).map((row) => ({
        range_id: row.rangeId,
        table_name: row.table,
        start_key: row.startKey,
        end_key: row.endKey,
        leader_node: row.leader,
        replicas: row.replicas,
        row_count: row.rows,
        byte_size: row.bytes,
        applied_index: row.appliedIndex,
        term: row.term,
        generation: row.generation,
      })),
    "range.split": ({ table, at }) => split(view, String(table), (Array.isArray(at) ? at : [at]).map(String)),
    "range.merge": async ({ range }) => mergeRight(view, await known(view, range)),
    "range.move": ({ range, from, to }) => move(view, range, from, to),
    "range.transfer": ({ range, to }) => transfer(view, range, to),
  };
}

async function known(view: ClusterView, range: unknown): Promise<RangeDescriptor> {
  await view.hosting.view.refresh();
  const descriptor = view.hosting.view.directory().get(groupId(Number(range)));
  if (descriptor === undefined)
    throw new UserError("OSTRAKA_NO_SUCH_RANGE", `there is no range ${String(range)}`);
  return descriptor;
}

function knownNode(view: ClusterView, node: unknown): NodeId {
  const found = view.meta.node(Number(node));
  if (found === undefined || found.state === "removed")
    throw new UserError("OSTRAKA_NO_SUCH_NODE", `there is no node ${String(node)}`);
  return nodeId(found.id);
}

// --- split ------------------------------------------------------------------------------------------------------------

async function split(view: ClusterView, name: string, at: readonly string[]) {
  const { hosting, clock } = view;
  const deadline = new Deadline(clock, undefined, SPLIT_MS, { signal: undefined });
  await deadline.persist(() => hosting.view.refreshSchema());
  const schema = hosting.view.schema();
  const table = schema.snapshot.tables.find((one) => one.name === lowerAscii(name));
  if (table === undefined) throw new UserError("SQLITE_ERROR", `no such table: ${name}`);
  const keys = at.flatMap((text) => splitKeys(table, text, schema.oracle()));
  if (keys.length === 0)
    throw new UserError("OSTRAKA_CONFIG", "a split needs a value of the table's key at which a range begins");
  const ranges: { readonly range: number; readonly at: string; readonly existed: boolean }[] = [];
  for (const key of [...new Set(keys)].sort()) {
    const told = { at: describeKey(key, schema.snapshot.tables)!.values };
    ranges.push({ ...(await splitAt(view, key)), ...told });
  }
  return { table: table.name, ranges };
}

/**
 * A range that begins there already is as good. A range that may have been made by an attempt without an answer may also
 * have been taken in again by now: its id must not be given to another one.
 */
async function splitAt(view: ClusterView, key: string) {
  const { hosting, metaClient, clock } = view;
  const deadline = new Deadline(clock, undefined, SPLIT_MS, { signal: undefined });
  const ours = new Set<GroupId>();
  let unused: GroupId | undefined;
  return deadline.persist(async (tries) => {
    if (tries > 0) await hosting.view.refresh();
    const parent = hosting.view.directory().at(key);
    if (parent === undefined)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the directory of ranges has a gap");
    if (parent.start === key) return { range: parent.range, existed: !ours.has(parent.range) };
    const child = unused ?? (await metaClient.allocate());
    unused = child;
    ours.add(child);
    // By hand: it is not merged again by itself.
    await amendWish(view, child, { apart: true });
    const made = await hosting.view
      .client(parent.range)
      .split(key, child)
      .catch((error: unknown) => {
        if (error instanceof AmbiguousError) unused = undefined;
        throw error;
      });
    hosting.view.learn(JSON.stringify([made]));
    await hosting.view.refresh().catch(() => undefined);
    return { range: made.range, existed: false };
  });
}

// --- move and transfer ------------------------------------------------------------------------------------------------

async function move(view: ClusterView, rangeId: unknown, fromNode: unknown, toNode: unknown) {
  const group = await movable(view, rangeId);
  const from = knownNode(view, fromNode);
  const to = knownNode(view, toNode);
  if (view.meta.node(to)?.state !== "live")
    throw new UserError(
      "OSTRAKA_REFUSED",
      `node ${to} is to hold nothing: it is ${view.meta.node(to)?.state}`,
    );
  const members = await membersOf(view, group);
  if (!members.includes(from))
    throw new UserError("OSTRAKA_REFUSED", `node ${from} has no replica of ${group}`);
  if (members.includes(to))
    throw new UserError("OSTRAKA_REFUSED", `node ${to} has a replica of ${group} already`);
  const placed = view.meta.wish(group)?.placed === true;
  await amendWish(view, group, { placed: true });
  try {
    if ((await leaderOf(view, group)) === from && members.length > 1)
      await handOver(view, group, await successor(view, group, members, from));
    await replace(view, group, from, to);
  } catch (error) {
    if (!placed) await amendWish(view, group, { placed: false }).catch(() => undefined);
    throw error;
  }
  return { range: group, replicas: await membersOf(view, group) };
}

/** Who can lead in its place: of those that answer and have disk space the one that has applied most. */
async function successor(
  view: ClusterView,
  group: GroupId,
  members: readonly NodeId[],
  from: NodeId,
): Promise<NodeId> {
  const reports = await allReports(view, { groups: [group] });
  const fit = members.flatMap((node) => {
    const report = node === from ? undefined : reports.get(node);
    const applied = report?.groups.find((one) => one.group === group)?.applied;
    return applied === undefined || report?.diskFull ? [] : [{ node, applied }];
  });
  const [best] = fit.sort((a, b) => b.applied - a.applied);
  if (best === undefined)
    throw new RetryError("OSTRAKA_UNAVAILABLE", `no other node that has a replica of ${group} can lead it`);
  return best.node;
}

async function transfer(view: ClusterView, rangeId: unknown, toNode: unknown) {
  const group = await movable(view, rangeId);
  const to = knownNode(view, toNode);
  if (!(await membersOf(view, group)).includes(to))
    throw new UserError("OSTRAKA_REFUSED", `node ${to} has no replica of ${group}`);
  await amendWish(view, group, { leader: to });
  await handOver(view, group, to);
  return { range: group, leader: to };
}

/** A range, or the coordinator's group. */
async function movable(view: ClusterView, id: unknown): Promise<GroupId> {
  if (Number(id) === COORDINATOR_GROUP) return COORDINATOR_GROUP;
  return (await known(view, id)).range;
}

export async function membersOf(view: ClusterView, group: GroupId): Promise<NodeId[]> {
  return atLeader(view, group, CHANGE_MS, async () => {
    const leader = leaderReports(await allReports(view, { groups: [group] })).get(group);
    if (leader === undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", `nobody leads ${group}`);
    return leader.voters.map(nodeId);
  });
}
