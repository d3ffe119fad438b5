/** Who leads a group, as any node tells what it knows: for nodes that have no replica of the group. */
import { type GroupId, NO_NODE, type NodeId } from "../base/ids.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { PeerCalls } from "../rpc/peer-calls.js";

const METHOD = "group.leader";
const TIMEOUT_MS = 1_000;

export function serveLeaders(
  calls: Pick<PeerCalls, "serve">,
  find: (group: GroupId) => Pick<GroupHandle, "leader"> | undefined,
): void {
  calls.serve(METHOD, async ([group]) => find(group as GroupId)?.leader ?? NO_NODE);
}

/** For GroupRouteOptions.ask. */
export function askLeader(calls: Pick<PeerCalls, "call">, group: GroupId): (node: NodeId) => Promise<NodeId> {
  return async (node) => (await calls.call(node, METHOD, [group], { timeoutMs: TIMEOUT_MS })) as NodeId;
}
