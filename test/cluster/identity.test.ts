/** Who a node is: founders that lost their data are refused, directories are used by one process, nodes join. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, it } from "vitest";
import { Cluster, type ClusterNode, until } from "./harness.js";

let cluster: Cluster;
afterEach(() => cluster?.dispose());

const NO_PLACE = /must not vote again|lost its data/;

async function expectRefused(node: ClusterNode): Promise<void> {
  const { code, signal } = await until(`node ${node.id} gives up`, () =>
    Promise.race([node.exit, delay(100, undefined)]),
  );
  expect({ code, signal }).toEqual({ code: 1, signal: null });
  expect(node.log).toMatch(NO_PLACE);
}

async function founded(): Promise<void> {
  cluster = await Cluster.create();
  const database = await cluster.connect();
  await database.exec("create table t (id integer primary key, v); insert into t values (1, 'kept')");
}

const kept = async (nodes: readonly ClusterNode[]): Promise<unknown> =>
  (await (await cluster.connect(nodes)).execute("select v from t where id = 1")).rows[0]?.v;

it("refuses a wiped node with its old flags, at once, again, and after its peers were down", async () => {
  await founded();
  const [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  await three.kill();
  three.wipe();
  three.spawn();
  await expectRefused(three);
  // What it may have written on the way must not let it in the second time.
  three.spawn();
  await expectRefused(three);
  expect(await kept([one, two])).toBe("kept");

  // Nobody is there to ask, and then only one, which cannot know what the cluster decided while it was down.
  await one.kill();
  await two.kill();
  three.wipe();
  const unreached = (): number => three.log.split("founding peer not reached").length;
  const before = unreached();
  three.spawn();
  // Neither answers: it begins, and is found out by whoever comes back.
  await until("the wiped node has looked for its peers", () => unreached() >= before + 2);
  one.spawn();
  await expectRefused(three);
  two.spawn();
  await Promise.all([one.ready(), two.ready()]);
  expect(await kept([one, two])).toBe("kept");
  expect(await kept([one])).toBe("kept");
});

it("starts again with nothing but its data, and only once", async () => {
  await founded();
  const three = cluster.node(3);
  await three.kill();
  await three.start(cluster.commonFlags(three));
  expect(await kept([three])).toBe("kept");

  const second = await cluster.addNode(4);
  second.directory = three.directory;
  second.spawn(cluster.commonFlags(second));
  expect(await second.exit).toEqual({ code: 1, signal: null });
  expect(second.log).toMatch(/in use by another process/);
  expect(await kept([three])).toBe("kept");
});

it("refuses a directory of another node, and a damaged identity", async () => {
  await founded();
  const three = cluster.node(3);
  await three.kill();
  three.spawn(["--node-id", "2", ...cluster.commonFlags(three)]);
  expect((await three.exit).code).toBe(1);
  expect(three.log).toMatch(/belongs to node 3, not 2/);
  const file = join(three.directory, "identity.json");
  const whole = readFileSync(file);
  writeFileSync(file, whole.subarray(0, whole.length / 2));
  three.spawn(cluster.commonFlags(three));
  expect((await three.exit).code).toBe(1);
  expect(three.log).toMatch(/identity\.json is damaged/);
  writeFileSync(file, whole);
  await three.start();
  expect(await kept([three])).toBe("kept");
});

it("is reached by its peers at its address in --initial-cluster, wherever it listens", async () => {
  cluster = await Cluster.create({ links: true });
  const database = await cluster.connect();
  const nodes = (await database.admin("node.list", {})) as readonly { readonly address: string }[];
  expect(nodes.map(({ address }) => address)).toEqual(cluster.nodes.map(({ peerAddress }) => peerAddress));
});

interface Listed {
  readonly id: number;
  readonly status: string;
  readonly voter: boolean;
}

it("grows from one node to three, which then serve without the first", async () => {
  cluster = await Cluster.create({ nodes: 1, start: false });
  const one = cluster.node(1);
  await one.start(cluster.commonFlags(one));
  const database = await cluster.connect();
  await database.exec("create table t (id integer primary key, v); insert into t values (1, 'kept')");
  for (const id of [2, 3]) {
    const node = await cluster.addNode(id);
    // Without an id: the next free one is given.
    await node.start(["--join", one.address, ...cluster.commonFlags(node)]);
  }
  await until("all three vote", async () => {
    const nodes = (await database.admin("node.list", {})) as readonly Listed[];
    return nodes.length === 3 && nodes.every(({ status, voter }) => status === "up" && voter);
  });
  await until("both groups have three voters everywhere", async () => {
    for (const { id } of cluster.nodes) {
      const { groups } = (await database.admin("node.status", { node: id })) as {
        groups: readonly { readonly voters: readonly number[]; readonly role: string }[];
      };
      if (groups.some(({ voters }) => voters.length !== 3)) return false;
    }
    return true;
  });
  await cluster.checkDigests(database);

  for (const victim of cluster.nodes) {
    await victim.kill();
    const rest = await cluster.connect(cluster.others(victim));
    await rest.execute("insert into t (v) values (?)", [`without ${victim.id}`]);
    expect((await rest.execute("select count(*) as n from t")).rows[0]!.n).toBe(victim.id + 1);
    // A node that joined knows its cluster from its data, like a founder.
    await victim.start(cluster.commonFlags(victim));
  }

  // Its id was used: data that is not there any more cannot come back under it.
  const three = cluster.node(3);
  await three.kill();
  three.wipe();
  three.spawn(["--node-id", "3", "--join", one.address, ...cluster.commonFlags(three)]);
  expect((await three.exit).code).toBe(1);
  expect(three.log).toMatch(/node 3 is known with other data/);
  expect(existsSync(join(three.directory, "identity.json"))).toBe(false);
});
