/**
 * Leadership transfer (thesis, section 3.10): the leader stops taking proposals, brings the target up to date and
 * tells it to campaign at once. It is given up after one election timeout (81).
 */
import { NO_NODE, type NodeId } from "../base/ids.js";
import { isVoter } from "./conf-change.js";
import type { Core } from "./core.js";
import { MessageType } from "./types.js";

/** Begins a transfer; false if it asks for nothing that can be done. */
export function beginTransfer(core: Core, to: NodeId): boolean {
  if (core.role !== "leader" || to === core.id || to === core.transferee) return false;
  if (!isVoter(core.conf, to) || !core.peers.has(to)) return false;
  core.transferee = to;
  core.transferElapsed = 0;
  core.replicationDue = true;
  sendTimeoutNowIfReady(core);
  return true;
}

export function abortTransfer(core: Core): void {
  core.transferee = NO_NODE;
  core.transferElapsed = 0;
}

/** Tells an up-to-date target to campaign; a lagging one is told once its acknowledgement arrives (80). */
export function sendTimeoutNowIfReady(core: Core): void {
  const peer = core.peers.get(core.transferee);
  if (peer === undefined || peer.match < core.log.last) return;
  core.outbox.send(core.term, { type: MessageType.TimeoutNow, to: core.transferee });
}
