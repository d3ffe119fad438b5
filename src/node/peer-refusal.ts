/**
 * Why a node does not let another one in: it was removed from the cluster, or it has come back without the data that it
 * voted with. What either says to those who remember it otherwise counts for nothing.
 */
import { nodeId } from "../base/ids.js";
import type { MetaMachine } from "../machines/meta/meta.js";

/** Part of every refusal of a node whose data was lost: for it there is no use in trying again. */
export const KNOWN_OTHERWISE = "is known with other data";
/** The same for one that was removed. */
export const REMOVED = "was removed from the cluster";

/** The incarnation that each peer showed first, durable; see known-peers.ts. */
export interface MetPeers {
  get(node: number): string | undefined;
  /** Durable when it returns. */
  remember(node: number, incarnation: string): void;
}

/** Undefined lets it in; whoever was not met before is remembered first. */
export function peerRefusal(
  peer: { readonly node: number; readonly incarnation: string },
  meta: Pick<MetaMachine, "node"> | undefined,
  met: MetPeers,
): string | undefined {
  const { node, incarnation } = peer;
  const registered = meta?.node(nodeId(node));
  if (registered?.state === "removed")
    return `node ${node} ${REMOVED}, and its id is never used again: it must join anew under another id`;
  const before = met.get(node);
  for (const known of [before, registered?.incarnation])
    if (known !== undefined && known !== incarnation)
      return `node ${node} ${KNOWN_OTHERWISE} (incarnation ${known}): a node that lost its data must be removed and join anew under another id`;
  if (before !== undefined) return undefined;
  try {
    met.remember(node, incarnation);
    return undefined;
  } catch (error) {
    return `node ${node} was not met before and cannot be remembered: ${String(error)}`;
  }
}
