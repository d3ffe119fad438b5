/**
 * A leader's side of replication: appending, deciding what each peer is sent, taking acknowledgements, committing.
 *
 * Appends are made when the host takes a ready, not when something is proposed, so all that came in since the last
 * one travels together. Between readies only Progress changes.
 */
import { assert } from "../base/assert.js";
import { logIndex, type NodeId } from "../base/ids.js";
import type { Core } from "./core.js";
import { ASKS_COMMIT, NEEDS_SNAPSHOT } from "./follower.js";
import type { Progress } from "./progress.js";
import { quorumReached, quorumVote } from "./quorum.js";
import { sendTimeoutNowIfReady } from "./transfer.js";
import { type Entry, EntryKind, type Message, MessageType, type Proposed } from "./types.js";

/** Appends to the leader's own log. The caller has decided that it may. */
export function appendEntries(
  core: Core,
  bodies: readonly { readonly kind: EntryKind; readonly data: Uint8Array }[],
): Proposed {
  assert(core.role === "leader", "only a leader appends");
  const first = logIndex(core.log.last + 1);
  const term = core.term;
  const entries: Entry[] = bodies.map(({ kind, data }, i) => ({
    term,
    index: logIndex(first + i),
    kind,
    data,
  }));
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.length;
  // Beginnings of terms, and changes of members.
  if (entries.some(({ kind, data }) => kind !== EntryKind.Normal || data.length === 0))
    core.hurry(first + entries.length - 1);
  core.log.appendOwn(entries);
  core.uncommitted.add(core.log.last, bytes);
  core.replicationDue = true;
  return { index: first, term };
}

/** This leader's own log counts as far as it is durable (35). */
export function ackOwnLog(core: Core): void {
  if (core.role !== "leader") return;
  const own = core.peers.get(core.id);
  if (own === undefined) return;
  if (own.maybeUpdate(core.log.durable)) maybeCommit(core);
}

/** Commits what a quorum has, if that reaches into this leader's own term (33, 34). */
export function maybeCommit(core: Core): void {
  const reached = quorumReached(core.conf, (voter) => core.peers.get(voter)?.match ?? 0);
  assert(Number.isFinite(reached), "a leader without voters");
  if (reached < core.termStart || !core.log.commitTo(reached)) return;
  core.uncommitted.committedTo(reached);
  core.replicationDue = true;
}

/** Makes the Appends that may leave now. */
export function sendAppends(core: Core): void {
  if (!core.replicationDue) return;
  core.replicationDue = false;
  if (core.role !== "leader") return;
  for (const [id, peer] of core.peers) if (id !== core.id) sendAppendsTo(core, id, peer);
}

function sendAppendsTo(core: Core, to: NodeId, peer: Progress): void {
  for (;;) {
    if (peer.state === "snapshot" || (peer.state === "probe" && peer.paused)) return;
    const full = peer.state === "replicate" && peer.inflights.full;
    if (full && !peer.pingDue) return;
    const { log } = core;
    const previous = peer.next - 1;
    const previousTerm = log.term(previous);
    const entries = full ? [] : log.entries(peer.next, log.last + 1, core.config.maxAppendBytes);
    if (previousTerm === undefined || entries === undefined || peer.next <= core.replayFloor) {
      needSnapshot(core, to, peer);
      return;
    }
    const newsOfCommit =
      peer.sentCommit < Math.max(core.hurriedCommit, peer.askedCommit) &&
      Math.min(log.commit, previous) > peer.sentCommit;
    if (entries.length === 0 && peer.state === "replicate" && !peer.pingDue && !newsOfCommit) return;
    core.outbox.send(core.term, {
      type: MessageType.Append,
      to,
      index: logIndex(previous),
      logTerm: previousTerm,
      entries,
      commit: log.commit,
    });
    let bytes = 0;
    for (const entry of entries) bytes += entry.data.length;
    peer.sent(entries.length, bytes, log.commit);
    if (entries.length === 0) return;
  }
}

/** What the peer needs is compacted, or of no use to it. A peer that is not there would only make us copy for nothing (56). */
function needSnapshot(core: Core, to: NodeId, peer: Progress): void {
  if (!peer.recentActive) return;
  peer.becomeSnapshot(core.log.base.index);
  core.outbox.snapshotsNeeded.push(to);
}

export function handleAppendResponse(core: Core, message: Message): void {
  const peer = heard(core, message);
  if (peer === undefined) return;
  if (message.reject) {
    if (message.context === NEEDS_SNAPSHOT) {
      if (peer.match === 0 && peer.state !== "snapshot") needSnapshot(core, message.from, peer);
      return;
    }
    // Nothing of ours beyond the hinted term can match either (43).
    const hint = Math.min(message.rejectHint, core.log.last);
    const next = message.logTerm > 0 ? core.log.findConflictByTerm(hint, message.logTerm).index : hint;
    if (peer.maybeDecrement(message.index, next)) core.replicationDue = true;
    return;
  }
  assert(
    message.index <= core.log.last,
    `node ${message.from} acknowledged ${message.index}, beyond our log`,
  );
  const advanced = peer.maybeUpdate(message.index);
  if (message.context === ASKS_COMMIT) answerAsked(core, peer, message.commit);
  if (!advanced && !(peer.match === message.index && peer.state === "probe")) return;
  if (peer.state === "probe") peer.becomeReplicate();
  else if (peer.state === "replicate") peer.inflights.freeTo(message.index);
  else if (peer.match + 1 >= core.log.first) {
    // Its log meets ours again, whatever index the snapshot has (58, 59).
    peer.becomeReplicate();
  }
  core.replicationDue = true;
  maybeCommit(core);
  if (message.from === core.transferee) sendTimeoutNowIfReady(core);
}

function answerAsked(core: Core, peer: Progress, known: number): void {
  peer.askedCommit = core.log.commit;
  if (peer.state !== "replicate") return;
  peer.sentCommit = Math.min(peer.sentCommit, known);
  core.replicationDue = true;
}

export function handleHeartbeatResponse(core: Core, message: Message): void {
  const peer = heard(core, message);
  if (peer === undefined) return;
  peer.paused = false;
  if (peer.match < core.log.last && peer.state === "replicate") peer.pingDue = true;
  if (peer.match < core.log.last || peer.state === "probe") core.replicationDue = true;
  if (message.context > peer.ackedRound) {
    peer.ackedRound = message.context;
    confirmReads(core);
  }
}

/** Notes a sign of life; undefined for a node that is no member (79). */
function heard(core: Core, message: Message): Progress | undefined {
  const peer = core.peers.get(message.from);
  if (peer === undefined || message.from === core.id) return undefined;
  peer.recentActive = true;
  peer.assumed = false;
  peer.ackedCommit = Math.max(peer.ackedCommit, message.commit);
  return peer;
}

/** The heartbeats that are due by time. A peer that is sent entries all the time hears from its leader by them. */
export function sendDueHeartbeats(core: Core): void {
  sendHeartbeats(core, core.config.lazyCommits === true);
}

/** Heartbeats to everybody. They never carry a commit index the receiver may not have (41). */
export function sendHeartbeats(core: Core, onlySilent = false): void {
  for (const [to, peer] of core.peers) {
    if (to === core.id) continue;
    // Only a heartbeat carries the round of reads: one that was not answered may be lost.
    const told = peer.sentSinceHeartbeat && peer.ackedRound >= core.reads.round;
    const spared = onlySilent && told && peer.state === "replicate";
    peer.sentSinceHeartbeat = false;
    if (spared) continue;
    const commit = logIndex(Math.min(peer.match, core.log.commit));
    if (core.config.lazyCommits === true) peer.sentCommit = Math.max(peer.sentCommit, commit);
    core.outbox.send(core.term, { type: MessageType.Heartbeat, to, commit, context: core.reads.round });
  }
}

/** Begins a read round for the reads that came in, when the host takes a ready (82, 83). */
export function beginReadRound(core: Core): void {
  if (core.role !== "leader" || !core.reads.waiting || !core.committedInTerm) return;
  core.reads.begin(core.log.commit);
  sendHeartbeats(core);
  confirmReads(core);
}

/** Lets go the reads whose round a quorum has answered. */
export function confirmReads(core: Core): void {
  if (core.reads.empty) return;
  const round = quorumReached(core.conf, (voter) =>
    voter === core.id ? core.reads.round : (core.peers.get(voter)?.ackedRound ?? 0),
  );
  for (const state of core.reads.confirm(round)) core.outbox.readStates.push(state);
}

/** Whether a quorum was heard since the last check (27); begins the next period. */
export function checkQuorum(core: Core): boolean {
  const alive = quorumVote(
    core.conf,
    (voter) => voter === core.id || core.peers.get(voter)?.recentActive === true,
  );
  for (const [id, peer] of core.peers) {
    peer.activeBefore = peer.recentActive && !peer.assumed;
    peer.assumed = false;
    peer.recentActive = id === core.id;
  }
  return alive === "won";
}

/** The host could not deliver to `node`: stop pipelining into the void (51). */
export function reportUnreachable(core: Core, node: NodeId): void {
  const peer = core.peers.get(node);
  if (core.role === "leader" && peer?.state === "replicate" && node !== core.id) {
    peer.becomeProbe();
    // Probing goes on with the next response to a heartbeat, or with the next proposal.
  }
}

/** The host's stream of a snapshot to `node` ended (60). */
export function reportSnapshot(core: Core, node: NodeId, ok: boolean): void {
  const peer = core.peers.get(node);
  if (core.role !== "leader" || peer?.state !== "snapshot") return;
  if (!ok) peer.pendingSnapshot = 0;
  peer.becomeProbe();
  // Its acknowledgement, or the next response to a heartbeat, lets the next message out.
  peer.paused = true;
}
