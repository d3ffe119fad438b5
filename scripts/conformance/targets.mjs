/** What recorded SQL can be replayed on: a cluster, through the driver, and plain SQLite, to check the replaying itself. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";

const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/** A cluster made for the purpose; `fresh()` ends it and makes another. */
export async function ownCluster(nodes = 1, main = MAIN) {
  let child;
  const stop = async () => {
    if (child === undefined || child.exitCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  };
  const fresh = async () => {
    await stop();
    child = spawn(process.execPath, [main, "demo", "--nodes", String(nodes), "--empty", "--no-shell"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const complaints = [];
    child.stderr.on("data", (text) => complaints.push(text));
    for await (const line of createInterface({ input: child.stdout })) {
      const url = /^ready url=(\S+)$/.exec(line)?.[1];
      if (url === undefined) continue;
      child.stdout.resume();
      return url;
    }
    throw new Error(`the cluster did not start: ${complaints.join("")}`);
  };
  return { fresh, stop };
}

/**
 * A cluster that the replay may empty, by dropping what is in it; where SQLite leaves something behind
 * (sqlite_sequence), `fresh`, if given, answers the URL of an empty one.
 */
export async function clusterTarget(connect, url, fresh, timeoutMs = 60_000) {
  const options = { intMode: "bigint", timeoutMs };
  let db = await connect(url, options);
  let session;
  const open = async () => {
    await session?.close();
    session = await db.session();
    return wrap(session);
  };
  return {
    reset: async () => {
      await open();
      const left = await dropEverything(session);
      if (left > 0 && fresh !== undefined) {
        await db.close();
        session = undefined;
        db = await connect(await fresh(), options);
      }
      return open();
    },
    reopen: open,
    close: () => db.close(),
  };
}

function wrap(session) {
  return {
    run: async (sql, args) => {
      const { columns, rows, rowsAffected } = await session.execute(sql, args);
      return { columns: [...columns], rows: rows.map((row) => Array.from(row)), changes: rowsAffected };
    },
    get inTransaction() {
      return session.state !== "idle";
    },
  };
}

/** Views and triggers first: they may mention what is gone. Shadow tables go with their virtual table. */
async function dropEverything(session) {
  await session.execute("PRAGMA foreign_keys=OFF");
  const { rows } = await session.execute("select type, name, sql from sqlite_schema order by rowid desc");
  const drop = (kind, chosen) =>
    rows
      .filter(([type, name, sql]) => chosen(String(type), String(name), String(sql)))
      .map(([, name]) => session.execute(`DROP ${kind} IF EXISTS "${String(name).replaceAll('"', '""')}"`));
  const virtual = (sql) => /^create virtual/i.test(sql);
  // A session runs its calls in order, so they can all be under way.
  await Promise.all([
    ...drop("TRIGGER", (type) => type === "trigger"),
    ...drop("VIEW", (type) => type === "view"),
    ...drop("TABLE", (type, _, sql) => type === "table" && virtual(sql)),
  ]);
  await Promise.all(
    drop("TABLE", (type, name, sql) => type === "table" && !virtual(sql) && !/^sqlite_(?!stat)/.test(name)),
  );
  const left = await session.execute("select count(*) from sqlite_schema");
  return Number(left.rows[0]?.[0]);
}

/** Plain SQLite in memory. */
export function plainTarget() {
  let database;
  const open = (bytes) => {
    database?.close();
    database = new Database(bytes ?? ":memory:");
    database.defaultSafeIntegers(true);
    const current = database;
    return {
      run: async (sql, args) => {
        const statement = current.prepare(sql);
        const bound = args === undefined ? [] : boundValues(sql, args);
        if (!statement.reader) return { columns: [], rows: [], changes: statement.run(...bound).changes };
        const rows = statement.raw(true).all(...bound);
        return { columns: statement.columns().map((column) => column.name), rows, changes: 0 };
      },
      get inTransaction() {
        return current.inTransaction;
      },
    };
  };
  return {
    reset: async () => open(undefined),
    reopen: async () => open(database.serialize()),
    close: async () => {
      database?.close();
    },
  };
}

/** INTEGER stays what it is for the driver; better-sqlite3 takes numbers as REAL. */
function boundValues(sql, args) {
  const entries = Object.entries(args).map(([k, v]) => [k, Number.isInteger(v) ? BigInt(v) : v]);
  if (!Array.isArray(args)) return [Object.fromEntries(entries)];
  if (/\?\d/.test(sql)) return [Object.fromEntries(entries.map(([k, v]) => [Number(k) + 1, v]))];
  return [entries.map(([, v]) => v)];
}
