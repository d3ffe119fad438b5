/**
 * Who is to lead. A leader on a node that is to hold nothing hands over; a leader wished by hand leads; the leaders of
 * a small database are on one node, so that transactions across its ranges cost no network; those of a large one are
 * spread evenly. Nobody is told to lead who could not at once: a transfer keeps writers waiting until it is done or
 * given up.
 */
import type { NodeId } from "../base/ids.js";
import type { PlacedGroup, PlacementAction, PlacementLimits, PlacementView } from "./view.js";

export function decideLeaders(
  view: PlacementView,
  limits: PlacementLimits,
  free: (group: PlacedGroup) => boolean,
): PlacementAction[] {
  const live = new Set(
    view.nodes.filter(({ standing, up, full }) => standing === "live" && up && !full).map(({ id }) => id),
  );
  const ranges = view.groups.filter(({ spread }) => spread === "range");
  const counts = leaderCounts(ranges);
  const together = ranges.length <= limits.togetherRanges;
  const home = together ? homeOf(view, live) : undefined;
  const moves: PlacementAction[] = [];
  let optional = limits.transfers;
  const transfer = (group: PlacedGroup, to: NodeId, why: string, isOptional = false): void => {
    moves.push({
      kind: "transfer",
      group: group.group,
      to,
      why,
      ...(isOptional && { optional: true }),
    });
    counts.set(group.leader, (counts.get(group.leader) ?? 1) - 1);
    counts.set(to, (counts.get(to) ?? 0) + 1);
  };
  for (const group of view.groups) {
    if (!free(group)) continue;
    const fit = group.voters.filter((node) => live.has(node) && !group.behind.includes(node));
    const { wishedLeader, leader } = group;
    if (wishedLeader !== undefined && fit.includes(wishedLeader)) {
      if (leader !== wishedLeader) transfer(group, wishedLeader, "as was wished");
      continue;
    }
    const leaving = view.nodes.find(({ id }) => id === leader)?.standing;
    if (leaving === "draining" || leaving === "removing") {
      const to = home !== undefined && fit.includes(home) ? home : least(fit, counts);
      if (to !== undefined) transfer(group, to, `node ${leader} is to hold nothing`);
      continue;
    }
    if (group.spread !== "range" || optional === 0) continue;
    // While nobody knows where the leaders are to be they stay.
    const to = together ? home : lighter(group, fit, counts, live);
    if (to === undefined || to === leader || !fit.includes(to)) continue;
    transfer(group, to, together ? "leaders of a small database stay together" : "balance of leaders", true);
    optional--;
  }
  return moves;
}

function leaderCounts(ranges: readonly PlacedGroup[]): Map<NodeId, number> {
  const counts = new Map<NodeId, number>();
  for (const { leader } of ranges) counts.set(leader, (counts.get(leader) ?? 0) + 1);
  return counts;
}

function homeOf(view: PlacementView, live: ReadonlySet<NodeId>): NodeId | undefined {
  const first = view.groups.find(({ group }) => group === view.first);
  if (first === undefined) return undefined;
  const wished = first.wishedLeader;
  if (wished !== undefined && live.has(wished) && first.voters.includes(wished)) return wished;
  return live.has(first.leader) ? first.leader : undefined;
}

function least(nodes: readonly NodeId[], counts: ReadonlyMap<NodeId, number>): NodeId | undefined {
  return [...nodes].sort((a, b) => (counts.get(a) ?? 0) - (counts.get(b) ?? 0) || a - b)[0];
}

/** A voter that leads so much less than the leader does that moving is worth while, and is not undone by the next. */
function lighter(
  { leader }: PlacedGroup,
  fit: readonly NodeId[],
  counts: ReadonlyMap<NodeId, number>,
  live: ReadonlySet<NodeId>,
): NodeId | undefined {
  const to = least(fit, counts);
  if (to === undefined) return undefined;
  let all = 0;
  for (const count of counts.values()) all += count;
  const margin = Math.max(2, Math.ceil((all / Math.max(1, live.size)) * 0.2));
  return (counts.get(leader) ?? 0) - (counts.get(to) ?? 0) >= margin ? to : undefined;
}
