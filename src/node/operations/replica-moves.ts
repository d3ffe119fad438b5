/** What operations ask of a group's leader, wherever it is: to hand over, or to move a replica. */
import type { GroupId, NodeId } from "../../base/ids.js";
import type { WishChange } from "../../machines/meta/meta.js";
import type { ClusterView } from "./cluster-view.js";
import { atLeader } from "./leader-call.js";

const CHANGE_MS = 60_000;
/** How long a new replica may take to catch up. */
export const CATCH_UP_MS = 10 * 60_000;

export function handOver(view: ClusterView, group: GroupId, to: NodeId): Promise<void> {
  const action = { kind: "transfer" as const, group, to, why: "by hand" };
  return atLeader(view, group, CHANGE_MS, async (leader) => {
    if (leader === to) return;
    if (leader === view.self) await view.hosting.changes.act(action);
    else await view.calls.call(leader, "placement.act", [action], { timeoutMs: CHANGE_MS });
  });
}

/** Either node may be null: a replica more, or less. */
export function replace(
  view: ClusterView,
  group: GroupId,
  from: NodeId | null,
  to: NodeId | null,
  withinMs = CATCH_UP_MS,
): Promise<void> {
  return atLeader(view, group, withinMs, async (leader) => {
    if (leader === view.self) await view.hosting.changes.replace(group, from, to, withinMs);
    else {
      const timeoutMs = withinMs;
      await view.calls.call(leader, "placement.replace", [group, from, to, withinMs], { timeoutMs });
    }
  });
}

/** Only what is named: what this node knows of the rest may be old. */
export async function amendWish(view: ClusterView, range: GroupId, wish: WishChange): Promise<void> {
  await view.metaClient.command({ kind: "amend", range, wish });
}
