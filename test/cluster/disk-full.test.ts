/**
 * No space left on the leader's disk (a small tmpfs): the others serve, the node says why and hands leadership away,
 * and it takes part again once there is room.
 *
 * Skipped, loudly, where file systems cannot be mounted.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { Cluster, type ClusterNode, until } from "./harness.js";
import { FINE, verdict, Workload } from "./workload.js";

const DISK_MEGABYTES = 96;

let cluster: Cluster;
const mounts: string[] = [];
afterEach(async () => {
  await cluster?.dispose();
  for (const mount of mounts.splice(0)) unmount(mount);
});

function mount(directory: string): boolean {
  mkdirSync(directory, { recursive: true });
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MEGABYTES}m`, "none", directory], {
      stdio: "pipe",
    });
  } catch {
    return false;
  }
  mounts.push(directory);
  return true;
}

function unmount(directory: string): void {
  execFileSync("umount", [directory], { stdio: "pipe" });
  rmSync(directory, { recursive: true, force: true });
}

function canMount(): boolean {
  const directory = mkdtempSync(join(tmpdir(), "ostraka-mount-"));
  const could = mount(directory);
  if (could) unmount(mounts.pop()!);
  else {
    rmSync(directory, { recursive: true });
    process.stderr.write("SKIPPED: a full disk: this user cannot mount a tmpfs\n");
  }
  return could;
}

it.skipIf(!canMount())(
  "serves without the node whose disk is full, and with it again",
  { timeout: 240_000 },
  async () => {
    cluster = await Cluster.create({ electionTimeoutMs: 1000, start: false });
    for (const node of cluster.nodes) {
      const disk = mkdtempSync(join(tmpdir(), "ostraka-disk-"));
      if (!mount(disk)) throw new Error(`cannot mount ${disk}`);
      node.directory = join(disk, "data");
    }
    await cluster.startAll();
    const full = await cluster.leader();
    const others = cluster.others(full);
    const database = await cluster.connect(others);
    await Workload.prepare(database);
    await database.exec(
      "create table filler (id integer primary key, data); insert into filler (id) values (1)",
    );
    const workload = new Workload();
    workload.start(database, 2);
    await workload.progress();

    const data = new Uint8Array(1024 * 1024);
    fillDisk(full);
    // Writes go on, and soon the full node has no room for them.
    const stopFilling = new AbortController();
    const filling = (async () => {
      while (!stopFilling.signal.aborted) {
        await database.execute("update filler set data = ? where id = 1", [data]);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    try {
      await until("the node says that its disk is full", () => /no space left|disk is full/i.test(full.log));
      await until("it has handed leadership away", async () => (await cluster.leader()) !== full);
      await until("its health says why", async () => {
        const { status, text } = await full.get("/health");
        return status === 503 && /no space|disk/i.test(text);
      });
    } finally {
      stopFilling.abort();
      await filling;
    }
    expect(full.running).toBe(true);
    await workload.progress();
    for (const node of others) expect((await node.get("/health")).status).toBe(200);

    rmSync(join(full.directory, "..", "ballast"));
    await until("it serves again", async () => (await full.get("/health")).status === 200);
    await workload.progress();
    await workload.stop();
    await workload.settle(database);
    expect(await verdict(database, [workload])).toEqual(FINE);
    const own = await cluster.connect([full]);
    expect(await verdict(own, [workload])).toEqual(FINE);
    await cluster.checkDigests(database);
  },
);

function fillDisk(node: ClusterNode): void {
  const file = join(node.directory, "..", "ballast");
  for (const size of [1024 * 1024, 64 * 1024, 4096]) {
    const piece = new Uint8Array(size);
    try {
      for (;;) writeFileSync(file, piece, { flag: "a" });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
  expect(statfsSync(node.directory).bavail).toBe(0);
}
