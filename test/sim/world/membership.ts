/**
 * Who belongs to the cluster, changed while everything else goes wrong: nodes that fail for good, and nodes that are
 * removed, whether they live or not. Others join (faults.ts). A node fails for good only while every group can do
 * without it; one that is removed stops by itself.
 */
import { nodeId } from "../../../src/base/ids.js";
import type { ConfState } from "../../../src/raft/types.js";
import type { Fault, Strike, Weights } from "./faults.js";
import { check } from "./invariants.js";
import type { Machine } from "./process.js";
import type { World } from "./world.js";

export type MembershipKind = "fail for good" | "remove" | "remove what failed";

export const MEMBERSHIP_WEIGHTS: Weights = [
  ["fail for good", 8],
  ["remove", 8],
  ["remove what failed", 6],
];

/** Of those that stay so many serve at least: others are not removed. */
const FEWEST = 2;
const AGAIN_MS = 300;
const REMOVED_MS = 120_000;
const WHOLE_MS = 60_000;

export const MEMBERSHIP: Readonly<Record<MembershipKind, Strike>> = {
  "fail for good": (world, { node, a }) => failForGood(world, world.machine(node), a),
  remove: (world, { node }) => remove(world, world.machine(node)),
  "remove what failed": (world, { a }: Fault) => {
    const failed = world.machines.filter(({ lost, leaving }) => lost && !leaving);
    const machine = failed[Math.floor(a * failed.length)];
    if (machine !== undefined) remove(world, machine);
  },
};

/** What belongs to the cluster and is to run at the end. */
export function stays({ lost, leaving }: Machine): boolean {
  return !lost && !leaving;
}

function failForGood(world: World, machine: Machine, a: number): void {
  if (machine.process === undefined || !world.machines.some((other) => other !== machine && stays(other)))
    return;
  if (!canSpare(world, machine)) return;
  world.note("a node failed for good");
  machine.lost = true;
  machine.crash(a < 0.6 ? "power" : "process");
}

/**
 * Whether every group keeps most of its voters without it. What is changing a membership now may yet be carried out, so
 * nothing may be.
 */
function canSpare(world: World, { id }: Machine): boolean {
  if (world.machines.some(({ leaving, process }) => leaving && process !== undefined)) return false;
  const groups = new Set(world.machines.flatMap(({ process }) => process?.host?.groups() ?? []));
  for (const { group } of groups) {
    const conf = world.leader(group)?.process?.host?.findGroup(group)?.status().conf;
    if (conf === undefined || conf.votersOutgoing.length > 0) return false;
    if (conf.voters.some((voter) => world.machine(voter).lost)) return false;
    if (conf.voters.includes(nodeId(id)) && conf.voters.length < 3) return false;
  }
  return true;
}

function remove(world: World, machine: Machine): void {
  // Whoever supervises it does not know.
  if (machine.leaving && machine.process === undefined && !machine.lost) {
    world.note("a node that is to be gone is started again");
    machine.start();
  }
  const others = world.machines.filter((other) => other !== machine && other.serving && stays(other));
  if (machine.starts === 0 || machine.leaving || others.length < FEWEST) return;
  machine.leaving = true;
  world.note(`a node is to be removed (${machine.lost ? "lost" : machine.serving ? "serving" : "down"})`);
  world.operator.remove(machine.id).catch((error: unknown) => world.fail(error));
}

/** Whether some group has lost most of its voters: by chance, while its membership was changed. */
export function isBeyondHelp(world: World): boolean {
  const newest = new Map<number, { readonly commit: number; readonly conf: ConfState }>();
  for (const { process } of world.machines)
    for (const handle of process?.host?.groups() ?? []) {
      const { commit, conf } = handle.status();
      if ((newest.get(handle.group)?.commit ?? -1) < commit) newest.set(handle.group, { commit, conf });
    }
  const lost = (voters: readonly number[]): boolean =>
    voters.length > 0 && voters.filter((voter) => !world.machine(voter).lost).length * 2 <= voters.length;
  return [...newest.values()].some(({ conf }) => lost(conf.voters) || lost(conf.votersOutgoing));
}

/**
 * Once nothing fails any more: what failed for good is removed, as is what was to be, and every group gets as many
 * voters as there may be.
 */
export async function membershipEnds(world: World): Promise<void> {
  const gone = world.machines.filter((machine) => !stays(machine) || machine.damage.wiped);
  for (const machine of gone) machine.leaving = true;
  const remaining = () =>
    gone
      .map(({ id }) => id)
      .filter((id) => {
        const standings = world.operator.standings(id);
        return standings.length > 0 && !standings.includes("removed");
      });
  const removed = async (): Promise<void> => {
    for (;;) {
      const left = remaining();
      if (left.length === 0) return;
      for (const id of left) await world.operator.remove(id);
      await world.sleep(AGAIN_MS);
    }
  };
  await world.during(removed(), () => `nodes are removed (not ${remaining().join(", ")})`, REMOVED_MS);
  await world.when(
    () => gone.every(({ process }) => process === undefined),
    () => `removed nodes stop (${gone.filter(({ process }) => process !== undefined).map(({ id }) => id)})`,
    WHOLE_MS,
  );
  await world.when(
    () => lacking(world) === "",
    () => `every group has its voters (${lacking(world)})`,
    WHOLE_MS,
  );
}

function lacking(world: World): string {
  const staying = world.machines.filter(stays);
  const target = Math.min(world.replicas, staying.length);
  const groups = new Set(
    staying.flatMap(({ process }) => process?.host?.groups() ?? []).map(({ group }) => group),
  );
  check(groups.size > 0, () => "there are no groups");
  for (const group of groups) {
    const conf = world.leader(group)?.process?.host?.findGroup(group)?.status().conf;
    if (conf === undefined) continue;
    const members = [...conf.voters, ...conf.votersOutgoing, ...conf.learners];
    if (conf.voters.length !== target || members.some((id) => !stays(world.machine(id))))
      return `group ${group}: voters ${conf.voters.join(" ")}, learners ${conf.learners.join(" ")}`;
  }
  return "";
}
