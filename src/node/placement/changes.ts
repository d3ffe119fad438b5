/**
 * Carries out what placement asks of the groups that this node leads: changes of membership and of leadership. Whoever
 * is to learn makes an empty replica first, so that the leader's snapshot finds somebody; whoever is taken out is told
 * to look for itself.
 */
import { RetryError, RouteError } from "../../base/errors.js";
import { type GroupId, META_GROUP, type NodeId } from "../../base/ids.js";
import type { Clock } from "../../base/io.js";
import { pause } from "../../base/waits.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { GroupHandle } from "../../multiraft/types.js";
import type { PlacementAction } from "../../placement/view.js";
import { membersOf } from "../../raft/index.js";
import type { ConfChange } from "../../raft/types.js";
import type { NodeCalls } from "../network.js";
import type { Calm } from "../ranges/calm.js";
import { coordinatorDescriptor, hostArguments, type Ranges } from "../ranges/ranges.js";
import { caughtUp } from "./facts.js";

const HOST_MS = 10_000;
const CATCH_UP_PAUSE_MS = 50;

export interface ChangesOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly host: MultiRaft;
  readonly ranges: Ranges;
  readonly calls: NodeCalls;
  /** Work on a group has begun or ended. */
  readonly changed: () => void;
  readonly calm: Calm;
}

export class Changes {
  readonly #options: ChangesOptions;
  readonly #busy = new Set<GroupId>();

  constructor(options: ChangesOptions) {
    this.#options = options;
  }

  serve(): void {
    const { calls } = this.#options;
    calls.serve("placement.act", async ([action]) => {
      await this.act(action as PlacementAction);
      return true;
    });
    calls.serve("placement.replace", async ([group, from, to, withinMs]) => {
      await this.replace(group as GroupId, from as NodeId | null, to as NodeId | null, Number(withinMs));
      return true;
    });
  }

  /** Something is being done to the group on this node. */
  isBusy(group: GroupId): boolean {
    return this.#busy.has(group);
  }

  /** RouteError where this node does not lead; RetryError when it did not work out. */
  act(action: PlacementAction): Promise<void> {
    return this.#alone(action.group, async () => {
      const handle = this.#leading(action.group);
      if (action.kind === "transfer") {
        if (action.optional && this.#options.calm.leftMs > 0)
          throw new RetryError("OSTRAKA_UNAVAILABLE", "ranges are left as they are for now");
        await handle.transferLeadership(action.to);
      } else await this.#change(handle, action.changes);
    });
  }

  /**
   * Moves a replica, by hand: `to` learns, and once it has caught up it takes the place of `from`. Either may be null:
   * a replica more, or less. What was begun is undone when it does not work out in time.
   */
  replace(group: GroupId, from: NodeId | null, to: NodeId | null, withinMs: number): Promise<void> {
    return this.#alone(group, async () => {
      const handle = this.#leading(group);
      const changes: ConfChange["changes"][number][] = [];
      if (to !== null && !handle.conf.voters.includes(to)) {
        if (!handle.conf.learners.includes(to)) await this.#change(handle, [{ kind: "learner", node: to }]);
        try {
          await this.#untilCaughtUp(handle, to, withinMs);
        } catch (error) {
          await this.#change(handle, [{ kind: "remove", node: to }]).catch(() => undefined);
          throw error;
        }
        changes.push({ kind: "voter", node: to });
      }
      if (from !== null && membersOf(handle.conf).has(from)) changes.push({ kind: "remove", node: from });
      if (changes.length > 0) await this.#change(handle, changes);
    });
  }

  async #untilCaughtUp(handle: GroupHandle, node: NodeId, withinMs: number): Promise<void> {
    const { clock } = this.#options;
    const untilMs = clock.monotonicMs() + withinMs;
    while (!caughtUp(handle).includes(node)) {
      this.#leading(handle.group);
      if (clock.monotonicMs() >= untilMs)
        throw new RetryError("OSTRAKA_TIMEOUT", `node ${node} has not caught up within ${withinMs} ms`);
      await pause(clock, CATCH_UP_PAUSE_MS);
    }
  }

  async #change(handle: GroupHandle, changes: ConfChange["changes"]): Promise<void> {
    const { calls, ranges, self } = this.#options;
    const { group } = handle;
    const before = membersOf(handle.conf);
    const coming = changes.filter(({ kind, node }) => kind !== "remove" && !before.has(node));
    const nodes = coming.map(({ node }) => node);
    await ranges.expected.during(group, nodes, async () => {
      for (const node of nodes) await this.#prepare(group, node);
      await handle.changeMembership({ changes });
    });
    // It would find out by itself, later.
    for (const { kind, node } of changes)
      if (kind === "remove" && node !== self)
        calls.call(node, "ranges.look", [], { timeoutMs: HOST_MS }).catch(() => undefined);
  }

  async #prepare(group: GroupId, node: NodeId): Promise<void> {
    const { calls, ranges, self } = this.#options;
    // Meta is open on every node.
    if (group === META_GROUP || node === self) return;
    const descriptor = ranges.get(group)?.descriptor() ?? coordinatorDescriptor();
    await calls.call(node, "ranges.host", hostArguments(descriptor), { timeoutMs: HOST_MS });
  }

  #leading(group: GroupId): GroupHandle {
    const handle = this.#options.host.findGroup(group);
    const status = handle?.status();
    if (handle === undefined || status === undefined || !status.leaderReady)
      throw new RouteError(
        `node ${this.#options.self} does not lead group ${group}`,
        status?.leader || undefined,
      );
    return handle;
  }

  async #alone<T>(group: GroupId, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(group))
      throw new RetryError("OSTRAKA_UNAVAILABLE", `group ${group} is being changed already`);
    const { changed } = this.#options;
    this.#busy.add(group);
    changed();
    try {
      return await work();
    } finally {
      this.#busy.delete(group);
      changed();
    }
  }
}
