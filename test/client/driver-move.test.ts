/** The driver goes over to the node that leads what it writes, where the URL names it, and loses nothing on the way. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connect, type Database } from "../../src/driver/index.js";
import { LocalGateway, type LocalServer, startLocalServer } from "./local-gateway.js";

let gateway: LocalGateway;
let servers: LocalServer[];
let db: Database;

beforeEach(async () => {
  gateway = new LocalGateway();
  servers = [];
  for (const nodeId of [1, 2, 3]) servers.push(await startLocalServer({ gateway, nodeId }));
  db = await connect(urlOf(1, 2, 3), { timeoutMs: 10_000 });
  await db.exec("create table t (id integer primary key, n)");
});

afterEach(async () => {
  await db.close();
  for (const server of servers) await server.close();
  gateway.dispose();
});

const urlOf = (...nodes: number[]): string =>
  `ostraka://${nodes.map((node) => `127.0.0.1:${servers[node - 1]!.port}`).join(",")}`;

const another = (node: number): number => (node % 3) + 1;

async function write(times: number): Promise<void> {
  await Promise.all(Array.from({ length: times }, () => db.execute("insert into t (n) values (1)")));
}

/** Writes until the driver speaks to that node. */
async function writeUntil(node: number): Promise<number> {
  let written = 0;
  while (db.server.nodeId !== node) {
    await write(50);
    written += 50;
  }
  return written;
}

const count = async (): Promise<unknown> => (await db.execute("select count(*) as c from t")).rows[0]!.c;

describe("the leader is another node", () => {
  it("goes there with its writes, each applied once, and again when leadership moves", async () => {
    const first = another(db.server.nodeId);
    gateway.leader = first;
    let written = await writeUntil(first);
    gateway.leader = another(first);
    written += await writeUntil(another(first));
    expect(await count()).toBe(written);
  });

  it("leaves a transaction that is open where it is", async () => {
    const before = db.server.nodeId;
    const tx = await db.begin();
    await tx.execute("select 1");
    gateway.leader = another(before);
    await writeUntil(another(before));
    await tx.execute("insert into t (n) values (77)");
    await tx.commit();
    expect((await db.execute("select count(*) as c from t where n = 77")).rows[0]!.c).toBe(1);
  });

  it("does not go anywhere to read", async () => {
    const before = db.server.nodeId;
    await write(1);
    gateway.leader = another(before);
    for (let i = 0; i < 200; i++) await db.execute("select n from t");
    expect(db.server.nodeId).toBe(before);
  });

  it("stays where it is when that node is not among its hosts, or gone", async () => {
    const stay = db.server.nodeId;
    const gone = another(stay);
    await servers[gone - 1]!.close();
    gateway.leader = gone;
    await write(300);
    expect(db.server.nodeId).toBe(stay);
    gateway.leader = 17;
    await write(300);
    expect(db.server.nodeId).toBe(stay);
    expect(await count()).toBe(600);
  });

  it("ends with the database that is closed while it goes", async () => {
    gateway.leader = another(db.server.nodeId);
    await write(64);
    await db.close();
    expect(() => db.server.nodeId).not.toThrow();
    await expect(db.execute("select 1")).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
  });
});
