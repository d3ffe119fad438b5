/** The driver under load, in a process of its own. */
import { setTimeout as delay } from "node:timers/promises";
import {
  closedLoop,
  insertArguments,
  NOTE,
  numbers,
  openLoop,
  READ_ROWS,
  SQLITE,
  serveCommands,
} from "./workload.mjs";

const { driver, url } = JSON.parse(process.argv[2]);
const { connect } = await import(driver);
const db = await connect(url, { timeoutMs: 60_000 });
const next = numbers(process.pid);
const insert = db.prepare(SQLITE.insert);
const read = db.prepare(SQLITE.read);
const upsert = db.prepare(SQLITE.upsert);
const UPSERT_ROWS = 200_000;

/** Rows that `fill` made. */
let filled = READ_ROWS;
const spread = () => 1 + (next() % filled);

const operations = {
  insert: () => insert.run(...insertArguments(next())),
  read: async () => {
    const row = await read.get(spread());
    if (row === undefined || row.note !== NOTE) throw new Error("a row that was written cannot be read");
  },
  upsert: () => upsert.run(1 + (next() % UPSERT_ROWS), ...insertArguments(next())),
};

let accounts = 0;

Object.assign(operations, {
  /** Between the two halves of the accounts, which may lie in different ranges. */
  transfer: () =>
    db.transaction(async (tx) => {
      const half = accounts / 2;
      const [from, to] = [1 + (next() % half), 1 + half + (next() % half)];
      await tx.execute("update account set balance = balance - 1 where id = ?", [from]);
      await tx.execute("update account set balance = balance + 1 where id = ?", [to]);
    }),
  /** A thousand rows on end: of several ranges, where they are small. */
  scan: async () => {
    const low = spread();
    await db.execute("select count(*), sum(owner) from item where id between ? and ?", [low, low + 999]);
  },
  count: () => db.execute("update account set balance = balance + 1 where id = 1"),
  change: () => db.execute("update item set owner = ? where id = ?", [next() % 1000, spread()]),
});

const MANY_ROWS =
  "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) select i, 'row number ' || i as text from n";

async function ranges() {
  const { rows } = await db.execute("select count(*) from ostraka_ranges");
  return { ranges: Number(rows[0][0]) };
}

await serveCommands({
  create: async () => {
    await db.execute(SQLITE.create);
    return {};
  },
  fill: async ({ count = READ_ROWS }) => {
    filled = count;
    const { rows } = await db.execute("select count(*) from item");
    const missing = filled - Number(rows[0][0]);
    for (let at = 0; at < missing; at += 500) {
      const count = Math.min(500, missing - at);
      await db.batch(
        Array.from({ length: count }, (_, i) => ({ sql: SQLITE.insert, args: insertArguments(at + i) })),
      );
    }
    return {};
  },
  accounts: async ({ count }) => {
    accounts = count;
    await db.execute("create table if not exists account (id integer primary key, balance integer not null)");
    await db.execute("delete from account");
    const rows = Array.from({ length: count }, (_, i) => ({
      sql: "insert into account values (?, 1000000)",
      args: [i + 1],
    }));
    await db.batch(rows);
    return {};
  },
  /** Makes so many ranges of the rows that `fill` made; or two of the accounts. */
  split: async ({ table, count }) => {
    const rows = table === "item" ? filled : accounts;
    const at = Array.from({ length: count - 1 }, (_, i) => String(1 + Math.floor((rows * (i + 1)) / count)));
    const options = { timeoutMs: 600_000 };
    for (let i = 0; i < at.length; i += 50)
      await db.admin("range.split", { table, at: at.slice(i, i + 50) }, options);
    return ranges();
  },
  ranges,
  /** Changes and reads every row that `fill` made once: afterwards no range is used for the first time. */
  touch: async () => {
    let id = 0;
    const toucher = async () => {
      while (id < filled) {
        const args = [next() % 1000, ++id];
        await db.execute("update item set owner = ? where id = ?", args);
        await read.get(args[1]);
      }
    };
    await Promise.all(Array.from({ length: 128 }, toucher));
    return {};
  },
  closed: ({ kind, inFlight, seconds }) => closedLoop({ inFlight, seconds, operation: operations[kind] }),
  open: ({ kind, perSecond, seconds }) => openLoop({ perSecond, seconds, operation: operations[kind] }),
  /** Streams `rows` rows, waiting `pauseMs` after every `every` of them. */
  stream: async ({ rows, every, pauseMs }) => {
    global.gc?.();
    const start = performance.now();
    let count = 0;
    let mostBytes = 0;
    for await (const row of db.iterate(MANY_ROWS, [rows])) {
      if (row.i !== ++count) throw new Error("rows out of order");
      if (count % 10_000 === 0) mostBytes = Math.max(mostBytes, process.memoryUsage().rss);
      if (pauseMs > 0 && count % every === 0) await delay(pauseMs);
    }
    if (count !== rows) throw new Error(`${count} rows of ${rows}`);
    return { rows: count, seconds: (performance.now() - start) / 1000, mostBytes };
  },
  quit: async () => {
    await db.close();
    return {};
  },
});
