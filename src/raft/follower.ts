/**
 * What a follower does with its leader's messages: appends, heartbeats, snapshots. The term has been dealt with
 * (node.ts): the sender leads this node's term.
 */
import { assert } from "../base/assert.js";
import { type LogIndex, logIndex, NO_NODE, type NodeId, type Term } from "../base/ids.js";
import { isMember } from "./conf-change.js";
import type { Core } from "./core.js";
import { type Message, MessageType } from "./types.js";

/** Notes that `from` leads this term; candidates give way (12). */
export function followLeader(core: Core, from: NodeId): void {
  assert(core.role !== "leader", `nodes ${core.id} and ${from} both lead term ${core.term}`);
  if (core.role !== "follower") core.becomeFollower(core.term, from);
  assert(core.leader === 0 || core.leader === from, `both ${core.leader} and ${from} lead term ${core.term}`);
  core.leader = from;
  core.electionElapsed = 0;
}

/**
 * In a rejection's context: this replica was created empty and knows no membership, so entries alone are of no use to
 * it, even from the first one on. The group's first membership is in no entry but in the base of its founders' logs.
 */
export const NEEDS_SNAPSHOT = 1;
/** In an acknowledgement's context: somebody here waits for what may be committed, and was not told. */
export const ASKS_COMMIT = 2;

export function handleAppend(core: Core, message: Message): void {
  const { log } = core;
  if (core.conf.voters.length === 0) {
    core.outbox.sendAfterDisk(core.term, {
      type: MessageType.AppendResponse,
      to: message.from,
      index: message.index,
      reject: true,
      context: NEEDS_SNAPSHOT,
    });
    return;
  }
  checkCommitted(core, message);
  if (message.index < log.commit) {
    // Old news; what is committed matches (39).
    acknowledge(core, message.from, log.commit);
    return;
  }
  if (!log.matches(message.index, message.logTerm)) {
    const hint = log.findConflictByTerm(Math.min(message.index, log.last), message.logTerm);
    core.outbox.sendAfterDisk(core.term, {
      type: MessageType.AppendResponse,
      to: message.from,
      index: message.index,
      reject: true,
      rejectHint: hint.index,
      logTerm: hint.term,
      commit: log.commit,
    });
    return;
  }
  const last = message.index + message.entries.length;
  log.appendAfterMatch(message.entries);
  log.commitTo(Math.min(message.commit, last));
  acknowledge(core, message.from, logIndex(last));
}

/** No leader lacks or contradicts what is committed: one that does proves a log was lost or damaged (38). */
function checkCommitted(core: Core, { from, index, logTerm, entries }: Message): void {
  const { log } = core;
  const agrees = (at: number, entryTerm: Term): boolean =>
    at > log.commit || at < log.base.index || log.term(at) === entryTerm;
  assert(agrees(index, logTerm), `leader ${from} contradicts entry ${index}, which is committed here`);
  for (const entry of entries) {
    if (entry.index > log.commit) break;
    assert(
      agrees(entry.index, entry.term),
      `leader ${from} contradicts entry ${entry.index}, committed here`,
    );
  }
}

export function handleHeartbeat(core: Core, message: Message): void {
  // To one that was made anew, what its predecessor is known to match may still be said.
  if (!core.forgetful) core.log.commitTo(message.commit);
  core.outbox.send(core.term, {
    type: MessageType.HeartbeatResponse,
    to: message.from,
    context: message.context,
    commit: core.log.commit,
  });
}

/** A snapshot has arrived whole; installing begins if it is of use. */
export function handleSnapshot(core: Core, message: Message): void {
  const { snapshot } = message;
  assert(snapshot !== undefined, "a Snapshot message without a snapshot");
  const { log } = core;
  if (snapshot.index <= log.commit) {
    // Stale (61).
    acknowledge(core, message.from, log.commit);
  } else if (log.matches(snapshot.index, snapshot.term)) {
    // The log has it all; it only was not known to be committed (62).
    log.commitTo(snapshot.index);
    acknowledge(core, message.from, log.commit);
  } else if (!isMember(snapshot.conf, core.id)) {
    // Installing it would leave a replica outside its own membership (63).
    acknowledge(core, message.from, log.commit);
  } else {
    log.restore(snapshot);
    core.confs.restore(snapshot);
    acknowledge(core, message.from, log.last);
  }
}

/** Leaves once everything up to `index` is durable, as everything handed to the disk before it is. */
function acknowledge(core: Core, to: NodeId, index: LogIndex, context = 0): void {
  core.outbox.sendAfterDisk(core.term, {
    type: MessageType.AppendResponse,
    to,
    index,
    commit: core.log.commit,
    context,
  });
}

/** Asks the leader to tell what it knows to be committed. What is committed here matches its log (39). */
export function askCommit(core: Core): void {
  if (core.role === "follower" && core.leader !== NO_NODE)
    acknowledge(core, core.leader, core.log.commit, ASKS_COMMIT);
}
