/**
 * Brings the members of every group in line with meta's list of nodes: the leader of a group makes a node that has
 * joined the cluster first a learner and, once it has caught up, a voter. Runs on every node, acts where it leads;
 * what it does is idempotent, so it needs no memory and no coordination.
 */
import { nodeId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { MetaMachine } from "../machines/meta/meta.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RpcLogger } from "../rpc/logger.js";

const CHECK_MS = 500;
/** A learner this close to the leader's last entry is made a voter; one that has never answered is not close. */
const CAUGHT_UP_ENTRIES = 256;

export class Membership {
  readonly #clock: Clock;
  readonly #groups: readonly GroupHandle[];
  readonly #meta: MetaMachine;
  readonly #logger: RpcLogger;
  readonly #changing = new Set<GroupHandle>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(clock: Clock, groups: readonly GroupHandle[], meta: MetaMachine, logger: RpcLogger) {
    this.#clock = clock;
    this.#groups = groups;
    this.#meta = meta;
    this.#logger = logger;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = this.#clock.setTimer(CHECK_MS, () => {
      for (const group of this.#groups) void this.#check(group);
      this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  async #check(group: GroupHandle): Promise<void> {
    const status = group.status();
    if (!status.leaderReady || this.#changing.has(group) || status.conf.votersOutgoing.length > 0) return;
    const change = this.#nextChange(group);
    if (change === undefined) return;
    this.#changing.add(group);
    try {
      await group.changeMembership({ changes: [change] });
      this.#logger.info({ group: group.group, node: change.node, as: change.kind }, "membership changed");
    } catch (error) {
      this.#logger.warn(
        { group: group.group, node: change.node, reason: String(error) },
        "membership not changed, will try again",
      );
    } finally {
      this.#changing.delete(group);
    }
  }

  #nextChange(group: GroupHandle) {
    const { conf, match, lastIndex } = group.status();
    const { settings, nodes } = this.#meta.state;
    const { replicas } = settings;
    if (conf.voters.length >= replicas) return undefined;
    for (const learner of conf.learners) {
      const matched = match.get(learner) ?? 0;
      if (matched > 0 && matched + CAUGHT_UP_ENTRIES >= lastIndex)
        return { kind: "voter" as const, node: learner };
    }
    if (conf.voters.length + conf.learners.length >= replicas) return undefined;
    const members = new Set<number>([...conf.voters, ...conf.learners]);
    const joiner = nodes.find((node) => !members.has(node.id));
    return joiner === undefined ? undefined : { kind: "learner" as const, node: nodeId(joiner.id) };
  }
}
