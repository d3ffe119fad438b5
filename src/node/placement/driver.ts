/**
 * Runs placement. The node that leads meta asks all nodes what they lead, records who has fallen silent, decides
 * (src/placement) and asks the leaders of the groups to carry it out. It keeps nothing that matters: another leader of
 * meta begins where this one was.
 *
 * Runs on every node and does nothing where meta is led elsewhere. While nothing changes, a look costs a call to each
 * node and an answer without content.
 */
import {
  COORDINATOR_GROUP,
  FIRST_RANGE_GROUP,
  type GroupId,
  META_GROUP,
  NO_NODE,
  type NodeId,
} from "../../base/ids.js";
import type { Clock, Timer } from "../../base/io.js";
import type { MetaMachine, MetaNode } from "../../machines/meta/meta.js";
import type { GroupHandle } from "../../multiraft/types.js";
import { decide, votersAfter } from "../../placement/decide.js";
import { judge, type Liveness } from "../../placement/liveness.js";
import type { PlacedGroup, PlacedNode, PlacementAction, PlacementView } from "../../placement/view.js";
import type { Logger } from "../logger.js";
import type { MetaClient } from "../meta-client.js";
import type { NodeCalls } from "../network.js";
import type { Changes } from "./changes.js";
import type { GroupFacts, NodeFacts, NodeFactsKeeper } from "./facts.js";

const LOOK_MS = 500;
const SOON_MS = 20;
const ASK_MS = 1_000;
const ACT_MS = 60_000;
/** An action that failed is not tried again for that group before this. */
const REST_MS = 1_000;

export interface DriverOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of meta's group. */
  readonly handle: GroupHandle;
  readonly meta: MetaMachine;
  readonly metaClient: Pick<MetaClient, "command">;
  readonly calls: NodeCalls;
  readonly facts: NodeFactsKeeper;
  readonly changes: Changes;
  /** Silence after which a node counts as down. */
  readonly silentMs: number;
}

interface Known {
  heardMs: number;
  stamp: string;
  full: boolean;
  leads: readonly GroupFacts[];
}

export class PlacementDriver {
  readonly #options: DriverOptions;
  readonly #known = new Map<NodeId, Known>();
  /** What was asked of groups' leaders and is not done. */
  readonly #busy = new Map<GroupId, PlacementAction>();
  /** Voters that groups have since they were changed, until a leader tells: a leader that goes leaves none behind. */
  readonly #votersSince = new Map<GroupId, readonly NodeId[]>();
  /** Groups that were changed since this look began: what is known of them is old. */
  readonly #changed = new Set<GroupId>();
  /** Since when this node leads meta, by its monotonic clock. */
  #sinceMs: number | undefined;
  #timer: Timer | undefined;
  #looking = false;
  #again = false;
  #stopped = false;

  constructor(options: DriverOptions) {
    this.#options = options;
  }

  start(): void {
    const { handle, meta } = this.#options;
    handle.onChange(() => this.#soon());
    meta.onChange(() => this.#soon());
    this.#plan(LOOK_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Something has changed that placement may answer to. */
  #soon(): void {
    if (this.#looking) this.#again = true;
    else this.#plan(SOON_MS);
  }

  #plan(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      this.#looking = true;
      this.#look()
        .catch((error: unknown) =>
          this.#options.logger.warn({ reason: String(error) }, "placement could not do its work"),
        )
        .finally(() => {
          this.#looking = false;
          const delay = this.#again ? SOON_MS : LOOK_MS;
          this.#again = false;
          this.#plan(delay);
        });
    });
  }

  async #look(): Promise<void> {
    const { handle, meta, clock } = this.#options;
    if (!handle.status().leaderReady) {
      this.#sinceMs = undefined;
      this.#known.clear();
      this.#votersSince.clear();
      return;
    }
    this.#sinceMs ??= clock.monotonicMs();
    const { clusterId } = meta.state;
    if (clusterId === "") return;
    const nodes = meta.state.nodes.filter(({ state }) => state !== "removed");
    // Nobody contradicts what a node said that is asked no more: it may have led what somebody else does now.
    for (const id of this.#known.keys()) if (!nodes.some((node) => node.id === id)) this.#known.delete(id);
    this.#changed.clear();
    await Promise.all(nodes.map((node) => this.#ask(node.id as NodeId)));
    const liveness = this.#judge(nodes);
    await this.#record(liveness);
    const view = this.#view(nodes, liveness);
    await this.#finishRemovals(nodes, view);
    for (const action of decide(view)) this.#carryOut(action);
  }

  async #ask(node: NodeId): Promise<void> {
    const { self, calls, facts, clock } = this.#options;
    const known = this.#known.get(node);
    try {
      const answer: NodeFacts =
        node === self
          ? facts.facts(known?.stamp)
          : ((await calls.call(node, "placement.facts", [known?.stamp], { timeoutMs: ASK_MS })) as NodeFacts);
      this.#known.set(node, {
        heardMs: clock.monotonicMs(),
        stamp: answer.stamp,
        full: answer.full,
        leads: answer.leads ?? known?.leads ?? [],
      });
    } catch {
      // It is judged by when it was heard last.
    }
  }

  #judge(nodes: readonly MetaNode[]): Liveness {
    const { clock, silentMs, meta } = this.#options;
    const hearings = nodes.map(({ id, downSinceMs }) => ({
      id: id as NodeId,
      heardMs: this.#known.get(id as NodeId)?.heardMs,
      downSinceMs,
    }));
    return judge(hearings, {
      nowMs: clock.monotonicMs(),
      sinceMs: this.#sinceMs ?? clock.monotonicMs(),
      wallMs: clock.wallMs(),
      silentMs,
      deadMs: meta.state.settings.nodeDeadMs,
    });
  }

  async #record({ down, up }: Liveness): Promise<void> {
    if (down.length === 0 && up.length === 0) return;
    const { metaClient, clock, logger } = this.#options;
    logger.info({ down, up }, "nodes have fallen silent, or are heard again");
    await metaClient.command({ kind: "heard", wallMs: clock.wallMs(), down, up });
  }

  frozenRanges(): Set<GroupId> {
    const frozen = new Set<GroupId>();
    for (const [group, { facts }] of this.#leaders())
      if (facts.frozenInto !== undefined && !this.#options.meta.isMerged(group)) frozen.add(group);
    return frozen;
  }

  // --- what is so ---------------------------------------------------------------------------------------------------

  /** Of each group the leader of the highest term. */
  #leaders(): Map<GroupId, { readonly leader: NodeId; readonly facts: GroupFacts }> {
    const leaders = new Map<GroupId, { readonly leader: NodeId; readonly facts: GroupFacts }>();
    for (const [leader, { leads }] of this.#known)
      for (const facts of leads)
        if ((leaders.get(facts.group)?.facts.term ?? -1) < facts.term)
          leaders.set(facts.group, { leader, facts });
    return leaders;
  }

  #view(nodes: readonly MetaNode[], { dead, silent }: Liveness): PlacementView {
    const { meta } = this.#options;
    const standing = ({ id, state }: MetaNode): PlacedNode["standing"] =>
      state === "draining" || state === "removing" ? state : dead.has(id as NodeId) ? "dead" : "live";
    const groups: PlacedGroup[] = [];
    const leaders = this.#leaders();
    const awaiting = this.#takingIn(leaders);
    for (const [group, { leader, facts }] of leaders) {
      if (!this.#changed.has(group)) this.#votersSince.delete(group);
      // One that is not heard any more may have been replaced.
      const lost = silent.has(leader);
      if (meta.isMerged(group)) continue;
      const wish = meta.wish(group);
      groups.push({
        group,
        spread: group === META_GROUP ? "everywhere" : "range",
        leader: lost ? NO_NODE : leader,
        voters: facts.voters,
        learners: [...new Set([...facts.learners, ...this.#coming(group)])],
        joint: facts.joint,
        caughtUp: facts.caughtUp,
        behind: facts.behind,
        // A frozen range stays with the one that takes it in.
        busy:
          this.#busy.has(group) ||
          this.#changed.has(group) ||
          facts.changing ||
          facts.frozenInto !== undefined ||
          awaiting.has(group),
        wishedLeader: wish?.leader,
        placed: wish?.placed === true || wish?.merging === true,
      });
    }
    // Nothing can be done for a range whose leader is not known, but its replicas are somewhere.
    for (const { range, replicas } of meta.state.ranges)
      if (!leaders.has(range)) groups.push(leaderless(range, this.#votersSince.get(range) ?? replicas));
    const placed = nodes.map((node) => ({
      id: node.id as NodeId,
      standing: standing(node),
      up: !silent.has(node.id as NodeId),
      full: this.#known.get(node.id as NodeId)?.full ?? false,
    }));
    return {
      nodes: [...placed, ...this.#strangers(groups)],
      groups: groups.sort((a, b) => a.group - b.group),
      replicas: meta.state.settings.replicas,
      first: FIRST_RANGE_GROUP,
    };
  }

  /** Ranges that are about to take in their right neighbour: both stay where they are, or it would not end. */
  #takingIn(leaders: ReadonlyMap<GroupId, { readonly facts: GroupFacts }>): ReadonlySet<GroupId> {
    const { meta } = this.#options;
    const starts = new Set<string | undefined>();
    for (const [group, { facts }] of leaders)
      if (facts.frozenInto !== undefined && !meta.isMerged(group))
        starts.add(meta.directory.get(group)?.start);
    const awaiting = meta.directory.ranges.filter(({ end }) => end !== "" && starts.has(end));
    return new Set(awaiting.map(({ range }) => range));
  }

  /** Nodes that have been asked to hold a replica: they count before they are members. */
  #coming(group: GroupId): NodeId[] {
    const action = this.#busy.get(group);
    if (action?.kind !== "change") return [];
    return action.changes.filter(({ kind }) => kind === "learner").map(({ node }) => node);
  }

  /** Members that are not among meta's nodes: founders that have not said where they are yet, and what was removed. */
  #strangers(groups: readonly PlacedGroup[]): PlacedNode[] {
    const { meta } = this.#options;
    const strangers = new Map<NodeId, PlacedNode>();
    for (const { voters, learners } of groups)
      for (const id of [...voters, ...learners]) {
        const state = meta.node(id)?.state;
        if (state === undefined) strangers.set(id, { id, standing: "live", up: false, full: false });
        else if (state === "removed") strangers.set(id, { id, standing: "removing", up: false, full: false });
      }
    return [...strangers.values()];
  }

  /** A node that is being removed, and that no group has as a member any more, is gone. */
  async #finishRemovals(nodes: readonly MetaNode[], view: PlacementView): Promise<void> {
    const { meta, metaClient, logger } = this.#options;
    const ranges = meta.state.ranges.map(({ range }) => range);
    const known = new Set(view.groups.filter(({ leader }) => leader !== NO_NODE).map(({ group }) => group));
    // Of a group whose leader is not known nobody can say who is in it; nor of one that meta is yet to hear of.
    if (!meta.directory.complete || ranges.some((range) => !known.has(range))) return;
    if (!known.has(META_GROUP) || !known.has(COORDINATOR_GROUP)) return;
    for (const { id, state } of nodes) {
      if (state !== "removing") continue;
      const node = id as NodeId;
      const member = ({ voters, learners, joint }: PlacedGroup): boolean =>
        joint || voters.includes(node) || learners.includes(node);
      if (view.groups.some(member) || meta.state.ranges.some(({ replicas }) => replicas.includes(node)))
        continue;
      await metaClient.command({ kind: "node", id, state: "removed" });
      logger.info({ node: id }, "a node was removed from the cluster");
      // If it still runs, it hears of its end from nobody else.
      if (node !== this.#options.self)
        this.#options.calls.call(node, "node.removed", [], { timeoutMs: ASK_MS }).catch(() => undefined);
    }
  }

  // --- doing it -----------------------------------------------------------------------------------------------------

  #carryOut(action: PlacementAction): void {
    const { group } = action;
    const known = this.#leaders().get(group);
    if (known === undefined || this.#busy.has(group)) return;
    const { leader, facts } = known;
    this.#busy.set(group, action);
    const { self, calls, changes, clock, logger } = this.#options;
    const done =
      leader === self
        ? changes.act(action)
        : calls.call(leader, "placement.act", [action], { timeoutMs: ACT_MS });
    done.then(
      () => {
        logger.info({ ...action }, "placement has changed a group");
        this.#busy.delete(group);
        this.#changed.add(group);
        if (action.kind === "change")
          this.#votersSince.set(group, [...votersAfter(facts.voters, action.changes)]);
        this.#soon();
      },
      (error: unknown) => {
        logger.info({ ...action, reason: String(error) }, "placement could not change a group");
        clock.setTimer(REST_MS, () => {
          this.#busy.delete(group);
        });
      },
    );
  }
}

function leaderless(group: GroupId, replicas: readonly NodeId[]): PlacedGroup {
  return {
    group,
    spread: "range",
    leader: NO_NODE,
    voters: replicas,
    learners: [],
    joint: false,
    caughtUp: [],
    behind: [],
    busy: false,
    wishedLeader: undefined,
    placed: false,
  };
}
