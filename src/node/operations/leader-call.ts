/** Calls a method of the node that leads a group, wherever that is, until it is answered or time is up. */

import { RouteError } from "../../base/errors.js";
import { type GroupId, NO_NODE, type NodeId } from "../../base/ids.js";
import { Deadline } from "../../gateway/deadline.js";
import { allReports, type ClusterView, leaderReports } from "./cluster-view.js";

export async function atLeader<T>(
  view: ClusterView,
  group: GroupId,
  withinMs: number,
  work: (leader: NodeId) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(view.clock, undefined, withinMs, { signal: undefined });
  return deadline.persist(async () => {
    const leader = await leaderOf(view, group);
    if (leader === NO_NODE) throw new RouteError(`nobody is known to lead group ${group}`, undefined);
    return work(leader);
  });
}

export async function leaderOf(view: ClusterView, group: GroupId): Promise<NodeId> {
  const here = view.host.findGroup(group)?.leader ?? NO_NODE;
  if (here !== NO_NODE) return here;
  return (leaderReports(await allReports(view, { groups: [group] })).get(group)?.node ?? NO_NODE) as NodeId;
}
