/** SIGTERM: leadership moves first, the node ends with 0, and its clients go on elsewhere without an error. */
import { afterEach, expect, it } from "vitest";
import { Cluster, until } from "./harness.js";
import { FINE, verdict, Workload } from "./workload.js";

let cluster: Cluster;
afterEach(() => cluster?.dispose());

it("drains every node in turn under writers that see no error", async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 1000 });
  const workload = new Workload();
  const clients = await Promise.all([1, 2, 3].map(() => cluster.connect()));
  await Workload.prepare(clients[0]!);
  for (const client of clients) workload.start(client, 2);
  const pauses: number[] = [];
  for (let round = 0; round < 3; round++) {
    await workload.progress();
    const leader = await cluster.leader();
    await until("the writers are where the leader is", () =>
      clients.every(({ server }) => server.nodeId === leader.id),
    );
    const momentMs = performance.now();
    leader.signal("SIGTERM");
    expect(await leader.exit).toEqual({ code: 0, signal: null });
    await workload.progress();
    pauses.push(workload.pauseMsAfter(momentMs));
    await until("another node leads", async () => (await cluster.leader()) !== leader);
    await leader.start();
  }
  await workload.progress();
  await workload.stop();
  expect([...workload.tokens.values()].filter((outcome) => outcome !== "acknowledged")).toEqual([]);
  expect(await verdict(clients[0]!, [workload])).toEqual(FINE);
  await cluster.checkDigests(clients[0]!);
  const told = pauses.map((pause) => pause.toFixed(0)).join(" ");
  process.stderr.write(`pauses of writes around a drain, in ms: ${told}\n`);
});

it("ends with 0 at SIGTERM while it waits for its peers, and can be started again", async () => {
  cluster = await Cluster.create({ start: false });
  const one = cluster.node(1);
  one.spawn(cluster.foundingFlags(one));
  await until("it waits for its peers", () => /founding peer not reached/.test(one.log));
  await until("it has said who it is", async () => (await one.get("/health")).status === 503);
  one.signal("SIGTERM");
  expect(await one.exit).toEqual({ code: 0, signal: null });
  await cluster.startAll();
});

it("ends at SIGTERM though a session's statement would run for ever", async () => {
  cluster = await Cluster.create({ nodes: 1 });
  const client = await cluster.connect();
  const session = await client.session();
  const running = session.execute(
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    [],
    { timeoutMs: 600_000 },
  );
  running.catch(() => undefined);
  const seen = "SELECT count(*) FROM ostraka_statements WHERE statement LIKE 'WITH RECURSIVE%'";
  await until("it runs", async () => (await client.execute(seen)).rows[0]?.[0] === 1);
  const node = cluster.node(1);
  node.signal("SIGTERM");
  const exit = await Promise.race([node.exit, new Promise((resolve) => setTimeout(resolve, 20_000, "none"))]);
  expect(exit).toEqual({ code: 0, signal: null });
});
