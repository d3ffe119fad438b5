/** `ostraka check`: whether the replicas of every group hold the same state at the same applied index. */
import { UserError } from "../../base/errors.js";
import { COORDINATOR_GROUP, type GroupId, groupId, META_GROUP, type NodeId, nodeId } from "../../base/ids.js";
import { pause } from "../../base/waits.js";
import { allReports, type ClusterView, leaderReports, type NodeReport } from "./cluster-view.js";

/** How long replicas may take to meet at one applied index. */
const CHECK_MS = 30_000;
/** Groups compared at once. */
const AT_ONCE = 8;
const PAUSE_MS = 20;

interface ReplicaDigest {
  readonly node: number;
  readonly appliedIndex?: number;
  readonly digest?: string;
  readonly error?: string;
}

interface GroupCheck {
  readonly group: number;
  readonly index: number;
  readonly equal: boolean;
  readonly replicas: readonly ReplicaDigest[];
}

export function serveDigests(view: ClusterView): void {
  view.calls.serve("node.digest", ([group]) => digestOf(view, group as GroupId));
}

async function digestOf(
  { host, self }: ClusterView,
  group: GroupId,
): Promise<{ readonly appliedIndex: number; readonly digest: string }> {
  const handle = host.findGroup(group);
  if (handle === undefined)
    throw new UserError("OSTRAKA_UNSUPPORTED", `node ${self} has no replica of group ${group}`);
  return handle.digest();
}

/** Of all groups of the cluster, wherever their replicas are. */
export async function checkDigests(view: ClusterView) {
  await view.hosting.view.refresh();
  const ranges = view.hosting.view.directory().ranges.map(({ range }) => range);
  const reports = await allReports(view);
  const waiting = [META_GROUP, COORDINATOR_GROUP, ...ranges];
  const groups: GroupCheck[] = [];
  const checkNext = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const group = await checkGroup(view, next, membersOf(view, reports, next));
      if (group.equal || !(await isMerged(view, next))) groups.push(group);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, checkNext));
  groups.sort((a, b) => a.group - b.group);
  return { equal: groups.every((group) => group.equal), groups };
}

/** Its replicas may have left while they were asked. */
async function isMerged(view: ClusterView, group: GroupId): Promise<boolean> {
  await view.hosting.view.refresh().catch(() => undefined);
  return view.meta.isMerged(group);
}

/** Its members as its leader knows them; without one, those that are known to have a replica. */
function membersOf(
  view: ClusterView,
  reports: ReadonlyMap<number, NodeReport>,
  group: GroupId,
): readonly NodeId[] {
  const leader = leaderReports(reports).get(group);
  if (leader !== undefined) return [...leader.voters, ...leader.learners].map(nodeId).sort((a, b) => a - b);
  const known = new Set(view.hosting.view.directory().get(group)?.replicas ?? []);
  for (const [node, { groups }] of reports)
    if (groups.some((report) => report.group === group)) known.add(nodeId(node));
  return [...known].sort((a, b) => a - b);
}

/** Asks every replica until all have answered at one applied index (writes may go on meanwhile), or time is up. */
async function checkGroup(
  view: ClusterView,
  group: GroupId,
  members: readonly NodeId[],
): Promise<GroupCheck> {
  const startedMs = view.clock.monotonicMs();
  const seen = new Map<number, Map<number, string>>();
  for (;;) {
    const replicas = await Promise.all(members.map((member) => askDigest(view, member, group)));
    for (const { node, appliedIndex, digest } of replicas) {
      if (appliedIndex === undefined || digest === undefined) continue;
      const at = seen.get(appliedIndex) ?? new Map<number, string>();
      seen.set(appliedIndex, at.set(node, digest));
    }
    const answered = replicas.filter((replica) => replica.error === undefined).length;
    const met = [...seen].find(([, digests]) => digests.size === members.length);
    const differing = [...seen].find(([, digests]) => new Set(digests.values()).size > 1);
    const decisive = differing ?? met;
    const late = view.clock.monotonicMs() - startedMs > CHECK_MS;
    if (decisive !== undefined || answered < members.length || members.length === 0 || late) {
      const equal = decisive !== undefined && new Set(decisive[1].values()).size === 1;
      const digests = (at: number, of: ReadonlyMap<number, string>): ReplicaDigest[] =>
        members.map((node) => {
          const digest = of.get(node);
          return digest === undefined ? { node, appliedIndex: at } : { node, appliedIndex: at, digest };
        });
      return {
        group,
        index: decisive?.[0] ?? 0,
        equal,
        replicas: decisive === undefined ? replicas : digests(...decisive),
      };
    }
    await pause(view.clock, PAUSE_MS);
  }
}

async function askDigest(view: ClusterView, member: NodeId, group: GroupId): Promise<ReplicaDigest> {
  try {
    const { appliedIndex, digest } =
      member === view.self
        ? await digestOf(view, group)
        : ((await view.calls.call(member, "node.digest", [groupId(group)], { timeoutMs: CHECK_MS })) as {
            readonly appliedIndex: number;
            readonly digest: string;
          });
    return { node: member, appliedIndex, digest };
  } catch (error) {
    return { node: member, error: error instanceof Error ? error.message : String(error) };
  }
}
