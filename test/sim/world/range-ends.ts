/** What must be so of a database of many ranges once everything has healed and the clients are gone. */
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { check } from "./invariants.js";
import type { Machine } from "./process.js";
import type { World } from "./world.js";

const COMES_TO_REST_MS = 60_000;

/** The machines to look at, now: one whose log has rotted may come to serve, and to lead, while others are waited for. */
type Machines = () => readonly Machine[];

/** Transactions end everywhere: nothing is undelivered, undecided or prepared on any replica. */
export async function comeToRest(world: World, machines: Machines): Promise<void> {
  await world.when(
    () => openAtCoordinator(machines()) === "",
    () => `the coordinator forgets (${openAtCoordinator(machines())})`,
    COMES_TO_REST_MS,
  );
  let held = await preparedOf(machines());
  for (let waitedMs = 0; held !== "" && waitedMs < COMES_TO_REST_MS; waitedMs += 500) {
    await world.sleep(500);
    held = await preparedOf(machines());
  }
  check(held === "", () => `something stays prepared: ${held}`);
}

function openAtCoordinator(machines: readonly Machine[]): string {
  for (const { id, process } of machines) {
    const local = process?.hosting?.coordinator;
    if (local?.handle?.status().leaderReady !== true || local.leader === undefined) continue;
    const { inDoubt, undelivered } = local.leader.gauges();
    return inDoubt + undelivered === 0 ? "" : `node ${id}: ${inDoubt} undecided, ${undelivered} undelivered`;
  }
  return "nobody leads it";
}

async function preparedOf(machines: readonly Machine[]): Promise<string> {
  const found: string[] = [];
  for (const { id, process } of machines)
    for (const { range, store, filled } of process?.hosting?.ranges.all.values() ?? []) {
      if (!filled) continue;
      for (const { transaction } of await store.prepared()) found.push(`${transaction} in ${range} on ${id}`);
    }
  return found.join(", ");
}

/** Every key belongs to one range, which some node leads; and all nodes come to know so. */
export async function coverKeyspace(world: World, machines: Machines): Promise<void> {
  const problem = (): string =>
    machines()
      .map(gapOf)
      .find((gap) => gap !== "") ?? leaderless(machines());
  await world.when(
    () => problem() === "",
    () => `the directory is whole (${problem()})`,
    COMES_TO_REST_MS,
  );
}

function gapOf({ id, process }: Machine): string {
  const ranges = process?.hosting?.view.directory().ranges ?? [];
  let reached = "";
  for (const [i, { range, start, end }] of ranges.entries()) {
    if (start !== reached)
      return `node ${id}: range ${range} begins at ${start}, the one before ends at ${reached}`;
    if (end === "" && i < ranges.length - 1)
      return `node ${id}: range ${range} ends at the end and is not the last`;
    reached = end;
  }
  return ranges.length > 0 && reached === "" ? "" : `node ${id}: the last range ends at ${reached}`;
}

/** Each range of the directory is what its leader says of itself. */
function leaderless(machines: readonly Machine[]): string {
  const led = new Map<number, RangeDescriptor>();
  for (const { process } of machines)
    for (const hosted of process?.hosting?.ranges.all.values() ?? [])
      if (hosted.leadsHere) led.set(hosted.range, hosted.descriptor());
  for (const { id, process } of machines)
    for (const known of process!.hosting!.view.directory().ranges) {
      const own = led.get(known.range);
      if (own === undefined) return `nobody leads range ${known.range}`;
      if (own.generation !== known.generation || own.start !== known.start || own.end !== known.end)
        return `node ${id} knows range ${known.range} in generation ${known.generation}, its leader is in ${own.generation}`;
    }
  return "";
}
