/**
 * Membership changes: proposing them, and putting them in force when they are applied.
 *
 * Changes take effect on application, not on appending. That is safe because a change is proposed only after its
 * predecessor is applied at the leader, so whoever has a change in its log knows its predecessor to be committed
 * (see HardState), and nobody campaigns before applying what it knows to be committed (17): two nodes are never more
 * than one change apart in an election, and neighbouring configurations' quorums intersect.
 */
import { assert } from "../base/assert.js";
import { type LogIndex, logIndex, NO_NODE } from "../base/ids.js";
import { changeConf, isJoint, isMember, isVoter, members } from "./conf-change.js";
import { decodeConfChange, encodeConfChange } from "./conf-codec.js";
import type { Core } from "./core.js";
import { Progress } from "./progress.js";
import { appendEntries, confirmReads, maybeCommit } from "./replication.js";
import { abortTransfer } from "./transfer.js";
import { type ConfChange, type Entry, EntryKind, type ProposalRefusal, type Proposed } from "./types.js";

/** Bytes of log read at a time when it is searched for membership changes. */
const SCAN_BYTES = 1 << 20;

export function proposeConfChange(core: Core, change: ConfChange): Proposed | ProposalRefusal {
  const refusal = refusesProposals(core);
  if (refusal !== undefined) return refusal;
  const leaving = change.changes.length === 0;
  if (core.pendingConfIndex > core.log.applied) return "change-pending";
  if (isJoint(core.conf) && !leaving) return "change-pending";
  if (changeConf(core.conf, change) === undefined) return "invalid-change";
  return appendConfChange(core, change);
}

/** Why this node takes no proposals now, if it does not (54). */
export function refusesProposals(core: Core): ProposalRefusal | undefined {
  if (!isMember(core.conf, core.id)) return "removed";
  if (core.role !== "leader") return "not-leader";
  if (core.transferee !== NO_NODE) return "transferring";
  return undefined;
}

function appendConfChange(core: Core, change: ConfChange): Proposed {
  const proposed = appendEntries(core, [{ kind: EntryKind.ConfChange, data: encodeConfChange(change) }]);
  core.pendingConfIndex = proposed.index;
  return proposed;
}

/**
 * Proposes to leave the joint configuration as soon as that is possible. Called whenever it may have become so, and
 * by every leader, so that no group stays joint (72).
 */
export function maybeAutoLeave(core: Core): void {
  if (core.role !== "leader" || !core.conf.autoLeave || core.transferee !== NO_NODE) return;
  if (core.pendingConfIndex > core.log.applied) return;
  appendConfChange(core, { changes: [] });
}

/** Remembers the membership changes among entries handed out for applying. */
export function noteHandedOut(core: Core, entries: readonly Entry[]): void {
  for (const entry of entries)
    if (entry.kind === EntryKind.ConfChange) core.confs.handedOut(entry.index, decodeConfChange(entry.data));
}

/** The state machine has applied up to `index`: puts the changes up to there in force. */
export function confsApplied(core: Core, index: LogIndex): void {
  for (let next = core.confs.takeApplied(index); next; next = core.confs.takeApplied(index)) {
    const conf = changeConf(core.confs.applied, next.change);
    assert(conf !== undefined, `the membership change at ${next.index} does not follow from its predecessor`);
    core.confs.set(next.index, conf);
    if (core.role === "leader") leadWithConf(core, next.index);
  }
  core.confs.prune(core.log.storedBase);
}

function leadWithConf(core: Core, since: LogIndex): void {
  const { conf } = core;
  if (!isVoter(conf, core.id)) {
    // Removed or demoted (76); the others have or will learn what is committed from the next leader.
    core.becomeFollower(core.term, NO_NODE);
    return;
  }
  const now = new Set(members(conf));
  for (const id of core.peers.keys()) if (!now.has(id)) core.peers.delete(id);
  for (const id of now) {
    // Counts as active until the first check, or a new quorum could depose the leader at once (31).
    if (!core.peers.has(id)) core.peers.set(id, new Progress(core.config, core.log.last + 1, true, since));
  }
  if (core.transferee !== NO_NODE && !isVoter(conf, core.transferee)) abortTransfer(core);
  // A smaller quorum may already have what waited (78).
  maybeCommit(core);
  confirmReads(core);
  core.replicationDue = true;
}

/** Replays the changes between the log's base and the applied index at start. */
export function replayConfs(core: Core): void {
  eachEntry(core, core.log.base.index + 1, core.log.applied, (entry) => {
    if (entry.kind !== EntryKind.ConfChange) return true;
    const conf = changeConf(core.conf, decodeConfChange(entry.data));
    assert(
      conf !== undefined,
      `the membership change at ${entry.index} does not follow from its predecessor`,
    );
    core.confs.set(entry.index, conf);
    return true;
  });
}

/** Whether a membership change lies in [from, to]. */
export function hasConfChange(core: Core, from: number, to: number): boolean {
  let found = false;
  eachEntry(core, from, to, (entry) => {
    found = entry.kind === EntryKind.ConfChange;
    return !found;
  });
  return found;
}

function eachEntry(core: Core, from: number, to: number, visit: (entry: Entry) => boolean): void {
  let at = from;
  while (at <= to) {
    const page = core.log.entries(at, to + 1, SCAN_BYTES);
    assert(page !== undefined && page.length > 0, `entry ${at} is compacted but not applied`);
    for (const entry of page) if (!visit(entry)) return;
    at = logIndex(at + page.length);
  }
}
