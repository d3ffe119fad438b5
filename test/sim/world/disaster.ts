/**
 * All nodes but one are lost for good, in the middle of everything. What is left is made a cluster of its own
 * (`ostraka recover --quorum-lost`), and new nodes join it. What was acknowledged may be gone, so histories say nothing any
 * more; but the database is whole, nothing is left undecided, and it can be read, written and changed.
 */
import type { OstrakaError } from "../../../src/base/errors.js";
import { type Recovery, recover } from "../../../src/node/recover.js";
import type { SimRandom } from "../sim-random.js";
import { type Rows, SimClient } from "./client.js";
import { check } from "./invariants.js";
import { stays } from "./membership.js";
import type { Machine } from "./process.js";
import type { World } from "./world.js";

const RECOVER_MS = 60_000;
const SERVES_MS = 90_000;
const JOINING = 2;
const CLIENT = 98;
const MOST_TRIES = 20;
/** Of recoveries so many are cut short, within so long. */
const CUT_SHORT = 0.4;
const CUT_MS = 20;

/** Who has a replica of every range, now; drawn among them. */
export function survivorOf(world: World): Machine | undefined {
  const ranges = world.operator.directory?.ranges ?? [];
  const whole = world.machines.filter((machine) => {
    const here = machine.process?.hosting?.ranges.all;
    return (
      machine.serving && stays(machine) && ranges.every(({ range }) => here?.get(range)?.filled === true)
    );
  });
  return whole.length === 0 ? undefined : world.random.stream("survivor").pick(whole);
}

/** At once: nobody comes back as what it was. */
export function loseAll(world: World): void {
  const random = world.random.stream("disaster");
  world.note("all nodes but one failed for good");
  for (const machine of world.machines) {
    machine.crash(random.chance(0.5) ? "power" : "process");
    machine.lost = true;
  }
}

/** Answers whether its ranges fit together: else there is nothing more to be done with it. */
export async function recoverFrom(world: World, survivor: Machine): Promise<boolean> {
  const random = world.random.stream("recovery");
  const recovery = await world.during(
    recovered(world, survivor, random),
    "the data is recovered",
    RECOVER_MS,
  );
  check(recovery.lostRanges.length === 0, () => `ranges ${recovery.lostRanges.join(" ")} are lost`);
  world.note(`recovered (coordinator ${recovery.coordinatorLost ? "lost" : "there"})`);
  world.beginAnew();
  survivor.lost = false;
  survivor.start();
  await world.when(() => survivor.serving, "the survivor serves", SERVES_MS);
  if (schemasDiffer(survivor)) {
    world.note("recovered with ranges that differ in their schemas");
    const told = survivor.lines.some((line) => line.includes("different versions of the schema"));
    check(told, () => `node ${survivor.id} does not say that its ranges differ`);
    return false;
  }
  const joined = Array.from({ length: JOINING }, () => world.addMachine());
  for (const machine of joined) machine.start();
  await world.when(() => joined.every(({ serving }) => serving), "new nodes serve", SERVES_MS);
  await world.during(use(new SimClient(world, CLIENT, random.stream("client"))), "the database is used");
  return true;
}

/** Now and then the power fails meanwhile, or a disk does: then it is done again. */
async function recovered(
  world: World,
  { disk, dataDirectory }: Machine,
  random: SimRandom,
): Promise<Recovery> {
  for (;;) {
    const parts = { clock: world.clock, random, disk: disk.mount(), directory: dataDirectory };
    const attempt = recover(parts).catch((error: OstrakaError) => {
      if (error.code !== "OSTRAKA_IO") throw error;
    });
    const recovery = await (random.chance(CUT_SHORT)
      ? Promise.race([attempt, world.sleep(random.float() * CUT_MS).then(() => undefined)])
      : attempt);
    if (recovery !== undefined) return recovery;
    world.note("a recovery was cut short");
    disk.crash("some");
  }
}

/** It had not heard of the last changes of the schema in all of them. */
function schemasDiffer({ process }: Machine): boolean {
  const ranges = [...(process?.hosting?.ranges.all.values() ?? [])];
  return new Set(ranges.map(({ schema }) => schema.version)).size > 1;
}

async function use(client: SimClient): Promise<void> {
  for (const sql of ["CREATE TABLE after (id INTEGER PRIMARY KEY)", "INSERT INTO after VALUES (1), (2)"])
    await write(client, sql);
  for (const [table] of await read(client, "SELECT name FROM sqlite_schema WHERE type = 'table'"))
    await read(client, `SELECT count(*) FROM "${String(table)}"`);
}

/** Until it is committed: what was under way when the others were lost may be in its way. */
async function write(client: SimClient, sql: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    const end = await client.write(sql, []);
    if (end.outcome === "committed") return;
    const { family } = end.outcome === "aborted" && end.error !== undefined ? end.error : { family: "retry" };
    check(family === "retry" && tries < MOST_TRIES, () => `${sql}: ${JSON.stringify(end)}`);
    await client.pause(100);
  }
}

async function read(client: SimClient, sql: string): Promise<Rows> {
  const rows = await client.read(sql);
  check(rows !== undefined, () => `${sql}: no answer`);
  return rows;
}
