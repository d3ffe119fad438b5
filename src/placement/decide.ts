/**
 * Where replicas and leaders are to be. A function of what is so now: it keeps no memory, so whoever runs it may do so
 * at any time and again, and what was not carried out is decided once more.
 *
 * A replica is moved in two steps, each a membership change: the new node learns; once it has caught up it becomes a
 * voter in the same (joint) change in which the old one goes. So a range never has fewer replicas than before.
 *
 * Invariants:
 * 1. At most one action a group, and none while a change is under way there.
 * 2. No action removes a voter while a leader could not go on without it, and none removes the leader: that hands over
 *    first.
 * 3. Every move for balance makes the difference between two nodes smaller, and none makes another worthwhile that
 *    undoes it: with nothing else changing, there is an end to actions.
 * 4. Nothing is moved to a node without disk space, and leadership to nobody who lacks much of the log.
 * 5. A voter on a dead node keeps its seat until there is another node to take it: fewer voters would tolerate no more.
 */
import { assert } from "../base/assert.js";
import { type GroupId, NO_NODE, type NodeId } from "../base/ids.js";
import type { ConfChange } from "../raft/types.js";
import { decideLeaders } from "./leaders.js";
import {
  DEFAULT_PLACEMENT_LIMITS,
  type PlacedGroup,
  type PlacedNode,
  type PlacementAction,
  type PlacementLimits,
  type PlacementView,
} from "./view.js";

type Change = ConfChange["changes"][number];

export function decide(
  view: PlacementView,
  limits: PlacementLimits = DEFAULT_PLACEMENT_LIMITS,
): PlacementAction[] {
  return new Decision(view, limits).all();
}

/** How many replicas of each range a node has, learners counted: they are on their way to be voters. */
export function replicaLoads(view: PlacementView): Map<NodeId, number> {
  const loads = new Map<NodeId, number>(view.nodes.map(({ id }) => [id, 0]));
  for (const { spread, voters, learners } of view.groups)
    if (spread === "range")
      for (const node of [...voters, ...learners]) loads.set(node, (loads.get(node) ?? 0) + 1);
  return loads;
}

class Decision {
  readonly #view: PlacementView;
  readonly #limits: PlacementLimits;
  readonly #nodes: ReadonlyMap<NodeId, PlacedNode>;
  readonly #loads: Map<NodeId, number>;
  /** Voters that each group is to have. */
  readonly #target: number;
  /** Ranges that are getting a new replica. */
  #growing: number;

  constructor(view: PlacementView, limits: PlacementLimits) {
    this.#view = view;
    this.#limits = limits;
    this.#nodes = new Map(view.nodes.map((node) => [node.id, node]));
    this.#loads = replicaLoads(view);
    const seats = view.nodes.filter(({ standing }) => standing === "live" || standing === "dead").length;
    this.#target = Math.max(1, Math.min(view.replicas, seats));
    this.#growing = view.groups.filter(
      ({ spread, learners }) => spread === "range" && learners.length > 0,
    ).length;
  }

  all(): PlacementAction[] {
    const actions: PlacementAction[] = [];
    const taken = new Set<GroupId>();
    const add = (action: PlacementAction | undefined): void => {
      if (action === undefined) return;
      actions.push(action);
      taken.add(action.group);
    };
    const free = (group: PlacedGroup): boolean =>
      group.leader !== NO_NODE && !group.joint && !group.busy && !taken.has(group.group);
    for (const group of this.#view.groups) {
      const action = free(group) ? this.#members(group) : undefined;
      if (action !== undefined && this.#leavesQuorum(group, action)) add(action);
    }
    if (actions.length === 0) for (const action of this.#balance(free)) add(action);
    for (const action of decideLeaders(this.#view, this.#limits, free)) add(action);
    return actions;
  }

  // --- members ------------------------------------------------------------------------------------------------------

  #members(group: PlacedGroup): PlacementAction | undefined {
    const good = group.voters.filter((node) => this.#standing(node) === "live");
    const bad = this.#worstFirst(group.voters.filter((node) => this.#standing(node) !== "live"));
    return (
      this.#dismissLearner(group) ??
      this.#promote(group, good, bad) ??
      this.#learn(group, good) ??
      this.#shrink(group, good, bad)
    );
  }

  /** A change needs most of the voters that it leaves, so they have to be up: else it would never be completed. */
  #leavesQuorum(group: PlacedGroup, action: PlacementAction): boolean {
    if (action.kind !== "change") return true;
    const voters = votersAfter(group.voters, action.changes);
    return [...voters].filter((node) => this.#isUp(node)).length > voters.size / 2;
  }

  #standing(node: NodeId): PlacedNode["standing"] {
    const known = this.#nodes.get(node);
    assert(known !== undefined, `node ${node} is a member and not among the nodes`);
    return known.standing;
  }

  /** Dead ones first, then others that are down: they are of no use, and those that are up can do without them. */
  #worstFirst(nodes: readonly NodeId[]): NodeId[] {
    const order = ["dead", "removing", "draining", "live"];
    const place = (node: NodeId): number =>
      order.indexOf(this.#standing(node)) + (this.#isUp(node) ? order.length : 0);
    return [...nodes].sort((a, b) => place(a) - place(b) || a - b);
  }

  #dismissLearner(group: PlacedGroup): PlacementAction | undefined {
    const stays = (node: NodeId): boolean => {
      const standing = this.#standing(node);
      return group.spread === "everywhere" ? standing !== "removing" : standing === "live";
    };
    const gone = group.learners.find((node) => !stays(node));
    if (gone !== undefined)
      return change(group, [{ kind: "remove", node: gone }], `node ${gone} is to hold nothing`);
    // It would be waited for until there is space, and with it whatever else is to be repaired.
    const stuck = group.learners.find((node) => this.#nodes.get(node)?.full === true);
    if (stuck === undefined || group.spread === "everywhere" || this.#newcomers(group).length === 0)
      return undefined;
    return change(group, [{ kind: "remove", node: stuck }], `node ${stuck} has no disk space`);
  }

  /** Nodes that may get a replica of the range. */
  #newcomers({ voters, learners }: PlacedGroup): NodeId[] {
    const members = new Set([...voters, ...learners]);
    return this.#view.nodes
      .filter(({ id, standing, up, full }) => standing === "live" && up && !full && !members.has(id))
      .map(({ id }) => id);
  }

  /** A learner that has caught up becomes a voter; with one that goes for it, where there are enough. */
  #promote(group: PlacedGroup, good: readonly NodeId[], bad: readonly NodeId[]): PlacementAction | undefined {
    const fit = group.learners.filter((node) => this.#standing(node) === "live" && this.#isUp(node));
    const ready = fit.filter((node) => group.caughtUp.includes(node));
    if (good.length < this.#target) {
      const [learner] = this.#lightestFirst(ready);
      if (learner === undefined) return undefined;
      const victim = group.voters.length >= this.#target ? bad[0] : undefined;
      return this.#swap(group, learner, victim, "a replica is missing");
    }
    if (group.spread === "everywhere" || bad.length > 0 || fit.length === 0) return undefined;
    const learner = fit[0]!;
    // Whoever moves by hand says that it is at work: this one was given up.
    if (group.placed) return change(group, [{ kind: "remove", node: learner }], "nobody waits for it");
    // The heaviest of its voters for whom it is worth while still, and rather not the one that leads.
    const heavier = this.#lightestFirst(good)
      .reverse()
      .filter((node) => this.#load(node) > this.#load(learner) && node !== group.wishedLeader);
    const victim = heavier.find((node) => node !== group.leader) ?? heavier[0];
    if (victim === undefined || good.length > this.#target)
      return change(group, [{ kind: "remove", node: learner }], "the move is not worth while any more");
    if (!ready.includes(learner)) return undefined;
    return this.#swap(group, learner, victim, "balance");
  }

  #swap(
    group: PlacedGroup,
    learner: NodeId,
    victim: NodeId | undefined,
    why: string,
  ): PlacementAction | undefined {
    if (victim === undefined) return change(group, [{ kind: "voter", node: learner }], why);
    return this.#without(group, victim, [{ kind: "voter", node: learner }], why);
  }

  /** A change in which a voter goes; the leader hands over first, and waits for somebody who can lead at once. */
  #without(
    group: PlacedGroup,
    victim: NodeId,
    others: readonly Change[],
    why: string,
  ): PlacementAction | undefined {
    if (victim === group.leader) {
      const rest = group.voters.filter(
        (node) => node !== victim && this.#isUp(node) && this.#standing(node) === "live",
      );
      const fit = rest.filter((node) => !group.behind.includes(node) && this.#nodes.get(node)?.full !== true);
      const [to] = this.#lightestFirst(fit);
      if (to !== undefined) return { kind: "transfer", group: group.group, to, why };
      if (rest.length > 0) return undefined;
    }
    const learns = group.spread === "everywhere" && this.#standing(victim) !== "removing";
    return change(group, [...others, { kind: learns ? "learner" : "remove", node: victim }], why);
  }

  /** A node that is no member begins to learn. */
  #learn(group: PlacedGroup, good: readonly NodeId[]): PlacementAction | undefined {
    if (group.spread === "everywhere") {
      const members = new Set([...group.voters, ...group.learners]);
      const learner = this.#view.nodes.find(
        ({ id, up, standing }) => up && !members.has(id) && (standing === "live" || standing === "draining"),
      );
      if (learner === undefined) return undefined;
      return change(group, [{ kind: "learner", node: learner.id }], "every node has meta");
    }
    if (good.length >= this.#target || group.learners.length > 0) return undefined;
    if (this.#growing >= this.#limits.repairs) return undefined;
    const [learner] = this.#lightestFirst(this.#newcomers(group));
    if (learner === undefined) return undefined;
    this.#grow(learner);
    return change(group, [{ kind: "learner", node: learner }], "a replica is missing");
  }

  #grow(learner: NodeId): void {
    this.#growing++;
    this.#loads.set(learner, this.#load(learner) + 1);
  }

  /** Voters that are too many go, those of no use first. */
  #shrink(group: PlacedGroup, good: readonly NodeId[], bad: readonly NodeId[]): PlacementAction | undefined {
    if (good.length >= this.#target && bad.length > 0)
      return this.#without(group, bad[0]!, [], `node ${bad[0]!} is to hold nothing`);
    // Fewer good ones than wanted, and nobody to become one: still, more than the target is of no use.
    if (group.voters.length <= this.#target) return undefined;
    const victim = bad[0] ?? this.#lightestFirst(good.filter((node) => node !== group.leader)).at(-1);
    return victim === undefined ? undefined : this.#without(group, victim, [], "more replicas than wanted");
  }

  // --- balance ------------------------------------------------------------------------------------------------------

  *#balance(free: (group: PlacedGroup) => boolean): Generator<PlacementAction> {
    const live = this.#view.nodes.filter(({ standing, up }) => standing === "live" && up).map(({ id }) => id);
    const ranges = this.#view.groups.filter(({ spread, placed }) => spread === "range" && !placed);
    while (this.#growing < this.#limits.moves) {
      const ordered = this.#lightestFirst(live);
      const move = this.#bestMove(ordered, ranges.filter(free));
      if (move === undefined) return;
      this.#loads.set(move.from, this.#load(move.from) - 1);
      this.#grow(move.to);
      yield change(move.range, [{ kind: "learner", node: move.to }], "balance");
    }
  }

  /** From the heaviest node that has something for the lightest; a replica that does not lead, if there is one. */
  #bestMove(ordered: readonly NodeId[], ranges: readonly PlacedGroup[]) {
    for (const to of ordered) {
      if (this.#nodes.get(to)?.full === true) continue;
      for (const from of [...ordered].reverse()) {
        if (this.#load(from) - this.#load(to) < 2) break;
        const movable = ranges.filter(
          ({ voters, learners }) => voters.includes(from) && !voters.includes(to) && learners.length === 0,
        );
        const range = movable.find(({ leader }) => leader !== from) ?? movable[0];
        if (range !== undefined) return { from, to, range };
      }
    }
    return undefined;
  }

  #load(node: NodeId): number {
    return this.#loads.get(node) ?? 0;
  }

  #isUp(node: NodeId): boolean {
    return this.#nodes.get(node)?.up === true;
  }

  #lightestFirst(nodes: readonly NodeId[]): NodeId[] {
    return [...nodes].sort((a, b) => this.#load(a) - this.#load(b) || a - b);
  }
}

/** Who votes once the changes are made. */
export function votersAfter(voters: readonly NodeId[], changes: readonly Change[]): Set<NodeId> {
  const after = new Set(voters);
  for (const { kind, node } of changes) {
    if (kind === "voter") after.add(node);
    else after.delete(node);
  }
  return after;
}

function change({ group }: PlacedGroup, changes: readonly Change[], why: string): PlacementAction {
  return { kind: "change", group, changes, why };
}
