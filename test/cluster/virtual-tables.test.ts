/**
 * Full text and R-Trees in a database of several ranges on three nodes: answered as by plain SQLite through splits and
 * from every node, in step with the other ranges' rows through kills, and with sound indexes on all replicas.
 */
import Database from "better-sqlite3";
import { afterEach, expect, it } from "vitest";
import type * as Driver from "../../src/driver/index.js";
import { SeededRandom } from "../sim/seeded-random.js";
import { Cluster } from "./harness.js";

const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);
const STATEMENTS = 120;
const SPLITS = new Map<number, readonly string[]>([
  [30, ["40", "80"]],
  [70, ["20"]],
]);

const SCHEMA = `
  create table shop(id integer primary key, v text not null);
  create table docs(id integer primary key, title, body);
  create virtual table found using fts5(title, body, content='docs', content_rowid='id');
  create trigger docs_i after insert on docs begin
    insert into found(rowid, title, body) values (new.id, new.title, new.body); end;
  create trigger docs_d after delete on docs begin
    insert into found(found, rowid, title, body) values ('delete', old.id, old.title, old.body); end;
  create trigger docs_u after update on docs begin
    insert into found(found, rowid, title, body) values ('delete', old.id, old.title, old.body);
    insert into found(rowid, title, body) values (new.id, new.title, new.body); end;
  create virtual table notes using fts5(x);
  create virtual table old using fts4(x);
  create virtual table box using rtree(id, low, high)`;
const CHECKS = ["found", "notes", "old"].map(
  (name) => `insert into ${name}(${name}) values ('integrity-check')`,
);
const QUESTIONS = [
  "select id, v from shop order by id",
  "select id, title, body from docs order by id",
  "select rowid, title from found where found match 'oak' order by rowid",
  "select shop.id, found.rowid from found join shop on shop.id = found.rowid where found match 'elm' order by 1",
  "select rowid, x from notes order by rowid",
  "select rowid from notes where notes match 'elm*' order by rowid",
  "select docid from old where old match 'oak' order by docid",
  "select id, low from box where low > 10 and high < 90 order by id",
  "select rtreecheck('box')",
];

let cluster: Cluster;
let plain: Database.Database;
afterEach(async () => {
  plain?.close();
  await cluster?.dispose();
});

function randomStatement(random: SeededRandom): string {
  const below = (n: number): number => random.uint32() % n;
  const words = ["ash", "birch", "elm", "oak", "yew"];
  const text = (): string => Array.from({ length: 1 + below(6) }, () => words[below(5)]!).join(" ");
  const id = 1 + below(100);
  const statements = [
    () => `insert or replace into shop values (${id}, '${text()}')`,
    () => `update shop set v = v || ' oak' where id between ${id} and ${id + 30}`,
    () => `insert or replace into docs values (${id}, '${text()}', '${text()}')`,
    () => `insert into docs(title, body) select v, 'of ' || v from shop where id % 9 = ${id % 9} order by id`,
    () => `update docs set body = body || ' elm' where id > ${id}`,
    () => `delete from docs where title like '%${words[below(5)]}%' and id % 3 = 0`,
    () => `insert or replace into notes(rowid, x) select id, v from shop where id > ${id}`,
    () => `insert into notes(x) values ('${text()}'), ('${text()}')`,
    () => `delete from notes where notes match '${words[below(5)]}' and rowid % 2 = 0`,
    () => `update notes set x = '${text()}' where rowid = ${id}`,
    () => `insert into old(x) select x from notes where rowid < ${id} order by rowid`,
    () => `delete from old where docid > ${id}`,
    () => `insert or replace into box select id, id, id + length(v) from shop where id < ${id}`,
    () => `delete from box where low > ${id}`,
    () => `delete from shop where id in (select rowid from found where found match 'ash' and rowid % 5 = 0)`,
    () => "insert into notes(notes) values ('optimize')",
  ];
  return statements[below(statements.length)]!();
}

async function ask(database: Pick<Driver.Database, "execute">): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const sql of QUESTIONS) answers.push((await database.execute(sql)).rows.map((row) => [...row]));
  return answers;
}

const askPlain = (): unknown[] => QUESTIONS.map((sql) => plain.prepare(sql).raw().all());

it("are answered as by SQLite, before and after splits", async () => {
  const random = new SeededRandom(SEED);
  cluster = await Cluster.create();
  plain = new Database(":memory:");
  plain.exec(SCHEMA);
  const databases = await Promise.all(cluster.nodes.map((node) => cluster.connect([node])));
  await databases[0]!.exec(SCHEMA);
  for (let n = 0; n < STATEMENTS; ) {
    const split = SPLITS.get(n);
    if (split !== undefined) await databases[0]!.admin("range.split", { table: "shop", at: split });
    const together = random.uint32() % 3 === 0 ? 1 + (random.uint32() % 4) : 1;
    const statements = Array.from({ length: Math.min(together, 10 - (n % 10)) }, () =>
      randomStatement(random),
    );
    const database = databases[random.uint32() % 3]!;
    if (statements.length === 1) await database.execute(statements[0]!);
    else
      await database.transaction(async (tx) => {
        for (const sql of statements) await tx.execute(sql);
      });
    for (const sql of statements) plain.exec(sql);
    n += statements.length;
    if (n % 10 === 0)
      expect(await ask(databases[random.uint32() % 3]!), `seed ${SEED}, statement ${n}`).toEqual(askPlain());
  }
  for (const sql of CHECKS) await databases[1]!.execute(sql);
  expect(
    await databases[2]!.transaction(async (tx) => {
      await tx.execute("insert into notes(rowid, x) values (1000, 'unheard of')");
      await tx.execute("update shop set v = 'unheard of' where id in (1, 99)");
      return (await tx.execute("select rowid from notes where notes match 'unheard'")).rows.map(([id]) => id);
    }),
  ).toEqual([1000]);
  await cluster.checkDigests(databases[0]!);
});

it("stay in step with rows in other ranges while leaders are killed", async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 500 });
  const database = await cluster.connect();
  await database.exec(SCHEMA);
  await database.exec("insert into shop select value, 0 from json_each('[1,2,3,4,5,6,7,8,9]')");
  await database.admin("range.split", { table: "shop", at: ["4", "7"] });
  let stopped = false;
  let done = 0;
  const work = async (client: Driver.Database, writer: number): Promise<void> => {
    for (let i = 0; !stopped; i++) {
      const id = ((writer + i) % 9) + 1;
      await client
        .transaction(
          async (tx) => {
            await tx.execute("update shop set v = v + 1 where id = ?", [id]);
            await tx.execute("insert into docs(title, body) values (?, 'common')", [`writer${writer}`]);
            if (i % 3 === 0) await tx.execute("insert into notes(x) select title from docs where id = 1");
          },
          { timeoutMs: 60_000 },
        )
        .then(() => done++);
    }
  };
  const clients = await Promise.all(
    cluster.nodes.map((node) => cluster.connect([node, ...cluster.others(node)])),
  );
  const failures: unknown[] = [];
  const writers = clients.map((client, writer) =>
    work(client, writer).catch((error: unknown) => {
      // It may have been committed; then everything of it has.
      if ((error as { code?: string }).code !== "OSTRAKA_UNKNOWN_OUTCOME") failures.push(error);
    }),
  );
  const progress = async (): Promise<void> => {
    const from = done;
    const untilMs = performance.now() + 60_000;
    while (done < from + 5 && performance.now() < untilMs && failures.length === 0)
      await new Promise((wake) => setTimeout(wake, 50));
    expect(failures).toEqual([]);
  };
  for (let round = 0; round < 2; round++) {
    await progress();
    const leader = await cluster.leader();
    await leader.kill();
    await leader.start();
  }
  await progress();
  stopped = true;
  await Promise.all(writers);
  expect(failures).toEqual([]);
  const [row] = (
    await database.execute(`select (select sum(v) from shop), (select count(*) from docs),
      (select count(*) from found where found match 'common')`)
  ).rows;
  const [sum, docs, found] = [...row!].map(Number);
  expect([docs, found]).toEqual([sum, sum]);
  expect(sum).toBeGreaterThanOrEqual(done);
  for (const sql of CHECKS) await database.execute(sql);
  await cluster.checkDigests(database);
});
