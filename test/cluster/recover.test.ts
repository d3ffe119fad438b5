/** `ostraka recover --quorum-lost`, on the data of a process that was killed with the others. */
import { execFileSync } from "node:child_process";
import { afterEach, expect, it } from "vitest";
import { Cluster, MAIN, until } from "./harness.js";

let cluster: Cluster;
afterEach(() => cluster?.dispose());

it("makes a cluster of one node's data, which splits, and is joined by new nodes under new ids", async () => {
  cluster = await Cluster.create();
  const before = await cluster.connect();
  await before.exec("create table t (id integer primary key, v)");
  for (let id = 1; id <= 9; id++) await before.execute("insert into t values (?, 'kept')", [id]);
  await before.admin("range.split", { table: "t", at: ["4"] });
  const two = cluster.node(2);
  await cluster.checkDigests(before);
  for (const node of cluster.nodes) await node.kill();

  const recover = [MAIN, "recover", "--quorum-lost", "--json", "--data", two.directory];
  const recovery = JSON.parse(execFileSync(process.execPath, recover, { encoding: "utf8" }));
  expect(recovery).toMatchObject({ nodeId: 2, lostNodes: [1, 3], lostRanges: [], coordinatorLost: false });
  await two.start(cluster.commonFlags(two));
  const after = await cluster.connect([two]);
  const count = async () => (await after.execute("select count(*) as n from t where v = 'kept'")).rows[0]!.n;
  expect(await count()).toBe(9);
  const { ranges } = (await after.admin("range.split", { table: "t", at: ["7"] })) as {
    ranges: readonly { readonly range: number }[];
  };
  // Whatever this node's meta had not heard of.
  expect(ranges[0]!.range).toBeGreaterThanOrEqual(1_000);

  const ids: number[] = [];
  for (const id of [4, 5]) {
    const node = await cluster.addNode(id);
    await node.start(["--join", two.address, ...cluster.commonFlags(node)]);
    ids.push(id);
  }
  const ours = [two, ...ids.map((id) => cluster.node(id))];
  await until("all groups have three voters", async () => {
    const { groups } = (await after.admin("node.status", { node: 2 })) as {
      groups: readonly { readonly voters: readonly number[] }[];
    };
    return groups.length === 5 && groups.every(({ voters }) => [...voters].sort().join() === "2,4,5");
  });
  await two.kill();
  const rest = await cluster.connect(ours.slice(1));
  await rest.execute("insert into t values (10, 'kept')");
  expect((await rest.execute("select count(*) as n from t where v = 'kept'")).rows[0]!.n).toBe(10);
});
