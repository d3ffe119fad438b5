/**
 * Elections: campaigns, pre-vote (thesis, section 9.6), votes, and what becomes of a winner.
 *
 * Why requests for votes wait for the disk: a leader must not lose its term in a crash. If it led on others' votes
 * before its own record was durable, it could be elected again in the same term after a restart and write other
 * entries at the same (index, term).
 */
import { assert } from "../base/assert.js";
import { logIndex, NO_NODE, type NodeId, term } from "../base/ids.js";
import { members } from "./conf-change.js";
import type { Core } from "./core.js";
import { hasConfChange } from "./membership.js";
import { Progress } from "./progress.js";
import { quorumVote } from "./quorum.js";
import { ackOwnLog, appendEntries } from "./replication.js";
import { EntryKind, type Message, MessageType } from "./types.js";

/** In a Vote's context: the leader itself asked for this campaign, so voters do not wait for its timeout (26). */
const BY_TRANSFER = 1;

/** Begins a campaign if this node may (14, 16, 17, 18, 77). */
export function campaign(core: Core, byTransfer: boolean): void {
  if (core.role === "leader" || !core.promotable) return;
  if (hasUnappliedConfChange(core)) {
    core.resetElectionTimer();
    return;
  }
  if (byTransfer) becomeCandidate(core, true);
  else becomePreCandidate(core);
}

function hasUnappliedConfChange(core: Core): boolean {
  return hasConfChange(core, core.log.applied + 1, core.log.commit);
}

function becomePreCandidate(core: Core): void {
  core.resetRole(core.term);
  core.role = "preCandidate";
  core.preCandidacy++;
  requestVotes(core, MessageType.PreVote);
  // Nothing about a pre-vote needs to be durable.
  countVote(core, core.id, true);
}

function becomeCandidate(core: Core, byTransfer: boolean): void {
  core.resetRole(term(core.term + 1));
  core.role = "candidate";
  core.vote = core.id;
  requestVotes(core, MessageType.Vote, byTransfer);
}

function requestVotes(
  core: Core,
  type: typeof MessageType.PreVote | typeof MessageType.Vote,
  byTransfer = false,
): void {
  const last = { index: core.log.last, logTerm: core.log.lastTerm };
  for (const to of new Set([...core.conf.voters, ...core.conf.votersOutgoing])) {
    if (to === core.id) continue;
    if (type === MessageType.PreVote)
      core.outbox.send(core.term, {
        type,
        to,
        term: term(core.term + 1),
        ...last,
        context: core.preCandidacy,
      });
    else core.outbox.sendAfterDisk(core.term, { type, to, ...last, context: byTransfer ? BY_TRANSFER : 0 });
  }
}

/** An append of this term is durable, and with it, for a candidate, its vote for itself (9). */
export function ownVoteDurable(core: Core): void {
  if (core.role === "candidate") countVote(core, core.id, true);
}

function countVote(core: Core, from: NodeId, granted: boolean): void {
  if (!core.votes.has(from)) core.votes.set(from, granted);
  const outcome = quorumVote(core.conf, (voter) => core.votes.get(voter));
  if (outcome === "lost") core.becomeFollower(core.term, NO_NODE);
  else if (outcome === "won") {
    if (core.role === "preCandidate") becomeCandidate(core, false);
    else becomeLeader(core);
  }
}

function becomeLeader(core: Core): void {
  assert(core.role === "candidate", "only a candidate becomes leader");
  assert(core.vote === core.id, "a leader voted for itself");
  core.resetRole(core.term);
  core.role = "leader";
  core.leader = core.id;
  // No activity is assumed of anybody until heard from; the check of the quorum comes a timeout later.
  for (const member of members(core.conf))
    core.peers.set(member, new Progress(core.config, core.log.last + 1, member === core.id));
  // The inherited tail may hold a membership change (67).
  core.pendingConfIndex = core.log.last;
  core.termStart = logIndex(core.log.last + 1);
  // Entries of earlier terms commit only under one of its own (32, 33).
  appendEntries(core, [{ kind: EntryKind.Normal, data: new Uint8Array(0) }]);
  ackOwnLog(core);
}

/** A voter that heard a leader within the timeout takes no part in elections (23), unless the leader wants one. */
export function ignoresCampaign(core: Core, message: Message): boolean {
  if (message.type === MessageType.Vote && message.context === BY_TRANSFER) return false;
  return core.leader !== NO_NODE && core.electionElapsed < core.config.electionTicks;
}

/** Vote and PreVote of this node's term or a later one (6, 7, 15, 21). */
export function handleVoteRequest(core: Core, message: Message): void {
  const pre = message.type === MessageType.PreVote;
  const free =
    core.vote === message.from ||
    (core.vote === NO_NODE && core.leader === NO_NODE) ||
    (pre && message.term > core.term);
  const grant = free && core.isUpToDate(message.index, message.logTerm);
  const { commit } = core.log;
  const known = { commit, logTerm: core.log.term(commit) ?? term(0) };
  if (pre) {
    core.outbox.send(core.term, {
      type: MessageType.PreVoteResponse,
      to: message.from,
      term: grant ? message.term : core.term,
      reject: !grant,
      context: message.context,
      ...known,
    });
    return;
  }
  assert(message.term === core.term, "a vote is asked for in the current term");
  if (grant) {
    core.vote = message.from;
    core.electionElapsed = 0;
  }
  core.outbox.sendAfterDisk(core.term, {
    type: MessageType.VoteResponse,
    to: message.from,
    reject: !grant,
    ...known,
  });
}

/**
 * Answers to vote requests tell what the voter knows to be committed, which is true in any term. Without it a group
 * can be stuck for good: when the change that leaves a joint configuration is committed, but those who know it are
 * outside the new one and have longer logs than those inside, the former may not campaign and the latter, who still
 * count by the joint one, are refused.
 */
export function learnCommit(core: Core, message: Message): void {
  if (core.role === "leader" || message.commit <= core.log.commit || message.logTerm === 0) return;
  if (!core.log.matches(message.commit, message.logTerm)) return;
  core.log.commitTo(message.commit);
  // A campaign under a membership that is known to be over must not go on (17).
  if (core.role !== "follower" && hasUnappliedConfChange(core)) core.becomeFollower(core.term, NO_NODE);
}

/** Answers that a candidate waits for; all others are late and mean nothing (10, 22). */
export function handleVoteResponse(core: Core, message: Message): void {
  if (message.type === MessageType.VoteResponse) {
    if (core.role === "candidate") countVote(core, message.from, !message.reject);
    return;
  }
  if (core.role !== "preCandidate" || message.context !== core.preCandidacy) return;
  // Candidacies are numbered afresh after a restart; a grant for another term is such an old one's.
  if (!message.reject && message.term !== core.term + 1) return;
  countVote(core, message.from, !message.reject);
}
