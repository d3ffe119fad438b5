/**
 * What keeps a change of one group's membership waiting, at its leader, and who waits for what.
 *
 * Invariants:
 * 1. No change is made after which most of the voters could not be heard: it could never be completed, nor undone. Who is
 *    not heard yet, as after the group has slept, is waited for as long as an election would take.
 * 2. While somebody holds the membership nothing changes it; it is held only when no change is under way.
 */
import { RetryError } from "../base/errors.js";
import type { GroupId } from "../base/ids.js";
import { changeConf } from "../raft/conf-change.js";
import type { RaftNode } from "../raft/node.js";
import type { ConfChange } from "../raft/types.js";

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

interface Unheard extends Waiter {
  readonly change: ConfChange;
  ticks: number;
}

export class MembershipChanges {
  readonly #group: GroupId;
  readonly #node: RaftNode;
  readonly #patienceTicks: number;
  #holds = 0;
  /** Changes that wait for members to be heard. */
  #unheard: Unheard[] = [];
  /** Changes that wait for the joint configuration to be left. */
  #joint: Waiter[] = [];

  constructor(group: GroupId, node: RaftNode, patienceTicks: number) {
    this.#group = group;
    this.#node = node;
    this.#patienceTicks = patienceTicks;
  }

  /** Somebody waits for what only ticks can bring. */
  get waiting(): boolean {
    return this.#unheard.length > 0 || this.leaving;
  }

  /** Somebody waits for the joint configuration to be left. */
  get leaving(): boolean {
    return this.#joint.length > 0;
  }

  /** See GroupHandle.holdMembership. */
  hold(): () => void {
    if (this.#node.membershipChanging)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `the members of group ${this.#group} are being changed`);
    this.#holds++;
    let held = true;
    return () => {
      if (held) this.#holds--;
      held = false;
    };
  }

  /** Why the change may not be made now. */
  refusal(change: ConfChange): RetryError | undefined {
    if (this.#holds > 0)
      return new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `the members of group ${this.#group} stay as they are for now`,
      );
    return this.#quorumless(change);
  }

  /** Resolves once enough are heard, or after an election's time; undefined when they are. */
  untilHeard(change: ConfChange): Promise<void> | undefined {
    if (this.#quorumless(change) === undefined) return undefined;
    return new Promise((resolve, reject) => {
      this.#unheard.push({ change, ticks: this.#patienceTicks, resolve, reject });
    });
  }

  untilLeft(): Promise<void> {
    return new Promise((resolve, reject) => this.#joint.push({ resolve, reject }));
  }

  tick(): void {
    if (this.#unheard.length === 0) return;
    const waiting = this.#unheard;
    this.#unheard = [];
    for (const one of waiting) {
      if (this.#quorumless(one.change) === undefined || --one.ticks <= 0) one.resolve();
      else this.#unheard.push(one);
    }
  }

  /** The joint configuration was left, or, with an error, nobody knows whether it ever will be. */
  left(error?: Error): void {
    for (const waiter of this.#joint.splice(0)) {
      if (error === undefined) waiter.resolve();
      else waiter.reject(error);
    }
  }

  /** The group goes away. */
  close(error: Error): void {
    this.left(error);
    for (const one of this.#unheard.splice(0)) one.reject(error);
  }

  #quorumless(change: ConfChange): RetryError | undefined {
    const after = changeConf(this.#node.conf, change);
    if (after === undefined || this.#node.role !== "leader") return undefined;
    const peers = this.#node.progress();
    const heard = after.voters.filter((voter) => peers.get(voter)?.active === true);
    if (heard.length > after.voters.length / 2) return undefined;
    const silent = after.voters.filter((voter) => !heard.includes(voter));
    return new RetryError(
      "OSTRAKA_UNAVAILABLE",
      `the members of group ${this.#group} would be ${after.voters.join(", ")}, and of those ${silent.join(", ")} cannot be heard`,
    );
  }
}
