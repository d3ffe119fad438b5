/** A node that cannot trust its disk stops by itself, says why, and the others go on; it comes back when it can. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { Cluster } from "./harness.js";
import { FINE, verdict, Workload } from "./workload.js";

let cluster: Cluster;
afterEach(() => cluster?.dispose());

function canLimit(): boolean {
  try {
    execFileSync("prlimit", ["--version"], { stdio: "pipe" });
    return true;
  } catch {
    process.stderr.write("SKIPPED: failing writes: there is no prlimit to make them fail\n");
    return false;
  }
}

it.skipIf(!canLimit())("stops with 1 and the reason when its writes fail, and loses nothing", async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 1000 });
  const clients = await Promise.all([1, 2, 3].map(() => cluster.connect()));
  await Workload.prepare(clients[0]!);
  const workload = new Workload();
  for (const client of clients) workload.start(client, 2);
  await workload.progress();
  const leader = await cluster.leader();
  // From now on every write of the process beyond the first bytes of a file fails with EFBIG.
  execFileSync("prlimit", ["--pid", String(leader.pid), "--fsize=1:1"]);
  expect(await leader.exit).toEqual({ code: 1, signal: null });
  expect(leader.log).toMatch(/^Error: .*(EFBIG|disk I\/O error)/m);
  await workload.progress();
  await leader.start();
  await workload.progress();
  await workload.stop();
  await workload.settle(clients[0]!);
  expect(await verdict(clients[0]!, [workload])).toEqual(FINE);
  await cluster.checkDigests(clients[0]!);
});

it("does not start from a log that is damaged before its end", async () => {
  cluster = await Cluster.create();
  const database = await cluster.connect();
  await database.exec("create table t (id integer primary key, v)");
  for (let i = 0; i < 50; i++) await database.execute("insert into t (v) values (?)", [`row ${i}`]);
  const three = cluster.node(3);
  await three.kill();
  const directory = join(three.directory, "log");
  const segment = readdirSync(directory)
    .filter((name) => name.endsWith(".log"))
    .sort()[0]!;
  const file = join(directory, segment);
  const whole = readFileSync(file);
  const damaged = Buffer.from(whole);
  const at = damaged.indexOf("row 10");
  expect(at).toBeGreaterThan(0);
  damaged[at] = damaged[at]! ^ 1;
  writeFileSync(file, damaged);
  three.spawn();
  expect(await three.exit).toEqual({ code: 1, signal: null });
  expect(three.log).toMatch(/^Error: .*(damaged|corrupt)/m);
  writeFileSync(file, whole);
  await three.start();
  await cluster.checkDigests(database);
});
