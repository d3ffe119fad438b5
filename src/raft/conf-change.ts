/**
 * Membership as a value: what a change does to it, and questions about it. Every change goes through a joint
 * configuration (thesis, section 4.3), so there is no single-step path.
 *
 * Invariants:
 * 1. `voters` is never empty once a group exists.
 * 2. A node is never both a voter and a learner; one that is demoted waits in `learnersNext` while it still
 *    votes in the outgoing half.
 * 3. Lists are sorted and free of duplicates, so equal memberships are equal bytes.
 */
import { assert } from "../base/assert.js";
import type { NodeId } from "../base/ids.js";
import type { ConfChange, ConfState } from "./types.js";

export const EMPTY_CONF: ConfState = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};

export function isJoint(conf: ConfState): boolean {
  return conf.votersOutgoing.length > 0;
}

export function isVoter(conf: ConfState, node: NodeId): boolean {
  return conf.voters.includes(node) || conf.votersOutgoing.includes(node);
}

export function isMember(conf: ConfState, node: NodeId): boolean {
  return isVoter(conf, node) || conf.learners.includes(node) || conf.learnersNext.includes(node);
}

/** Everybody who gets entries: voters of both halves and learners. */
export function membersOf(conf: ConfState): Set<NodeId> {
  return new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners, ...conf.learnersNext]);
}

/** The same, ascending. */
export function members(conf: ConfState): NodeId[] {
  return sorted(membersOf(conf));
}

/** The membership after `change`, or undefined if it may not be made now. */
export function changeConf(conf: ConfState, change: ConfChange): ConfState | undefined {
  if (change.changes.length === 0) return isJoint(conf) ? leaveJoint(conf) : undefined;
  return isJoint(conf) ? undefined : enterJoint(conf, change);
}

function enterJoint(conf: ConfState, change: ConfChange): ConfState | undefined {
  const voters = new Set(conf.voters);
  const learners = new Set(conf.learners);
  const learnersNext = new Set<NodeId>();
  const outgoing = new Set(conf.voters);
  for (const { kind, node } of change.changes) {
    if (!Number.isSafeInteger(node) || node <= 0) return undefined;
    switch (kind) {
      case "voter":
        learners.delete(node);
        learnersNext.delete(node);
        voters.add(node);
        break;
      case "learner":
        voters.delete(node);
        if (outgoing.has(node)) learnersNext.add(node);
        else learners.add(node);
        break;
      case "remove":
        voters.delete(node);
        learners.delete(node);
        learnersNext.delete(node);
        break;
    }
  }
  if (voters.size === 0) return undefined;
  return {
    voters: sorted(voters),
    votersOutgoing: sorted(outgoing),
    learners: sorted(learners),
    learnersNext: sorted(learnersNext),
    autoLeave: true,
  };
}

function leaveJoint(conf: ConfState): ConfState {
  const next: ConfState = {
    voters: conf.voters,
    votersOutgoing: [],
    learners: sorted(new Set([...conf.learners, ...conf.learnersNext])),
    learnersNext: [],
    autoLeave: false,
  };
  checkConf(next);
  return next;
}

/** Stops the node on a membership that breaks the invariants above. */
export function checkConf(conf: ConfState): void {
  for (const learner of conf.learners)
    assert(!isVoter(conf, learner), `node ${learner} is both a voter and a learner`);
  for (const learner of conf.learnersNext) {
    assert(
      conf.votersOutgoing.includes(learner),
      `node ${learner} is to be demoted but is no outgoing voter`,
    );
    assert(!conf.voters.includes(learner), `node ${learner} is to be demoted but is an incoming voter`);
  }
  assert(isJoint(conf) || !conf.autoLeave, "auto-leave outside a joint configuration");
  assert(!isJoint(conf) || conf.voters.length > 0, "a joint configuration without incoming voters");
}

function sorted(nodes: ReadonlySet<NodeId>): NodeId[] {
  return [...nodes].sort((a, b) => a - b);
}
