/** PostgreSQL where it is installed: a cluster of its own on a socket in its directory, and pgbench. */
import { chownSync, existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { childrenMicros } from "./proc-stat.mjs";
import { run, start, stop, until } from "./processes.mjs";
import { NOTE, READ_ROWS, TABLE } from "./workload.mjs";

const ROOT = "/usr/lib/postgresql";
const DATABASE = "postgres";
/** The user of Debian's package, or whoever has no rights at all; PostgreSQL refuses to run as root. */
const USERS = ["postgres", "nobody"];

/** Where its programs are; undefined when it is not installed. */
export function findPostgres() {
  if (!existsSync(ROOT)) return undefined;
  const newest = readdirSync(ROOT)
    .filter((version) => existsSync(join(ROOT, version, "bin/pgbench")))
    .sort((a, b) => Number(b) - Number(a))[0];
  return newest === undefined ? undefined : { version: newest, bin: join(ROOT, newest, "bin") };
}

async function userIds() {
  if (process.getuid?.() !== 0) return undefined;
  for (const user of USERS) {
    try {
      const uid = Number(await run("id", ["-u", user]));
      return { uid, gid: Number(await run("id", ["-g", user])) };
    } catch {
      // The next one, then.
    }
  }
  throw new Error("PostgreSQL does not run as root, and there is no other user");
}

export class Postgres {
  #bin;
  #as;
  #directory;
  #server;

  constructor(bin, directory, as) {
    this.#bin = bin;
    this.#directory = directory;
    this.#as = as;
  }

  static async start({ bin }, directory) {
    const ids = await userIds();
    if (ids !== undefined) chownSync(directory, ids.uid, ids.gid);
    const postgres = new Postgres(bin, directory, { ...ids, cwd: directory });
    await postgres.#start();
    return postgres;
  }

  async #start() {
    const data = join(this.#directory, "data");
    await run(join(this.#bin, "initdb"), ["-D", data, "-U", DATABASE, "-A", "trust", "--no-sync"], this.#as);
    const settings = ["-c", "listen_addresses=", "-c", `unix_socket_directories=${this.#directory}`];
    this.#server = start(join(this.#bin, "postgres"), ["-D", data, ...settings], this.#as);
    await until("PostgreSQL", async () => {
      await this.#psql("select 1");
      return true;
    });
    await this.#psql(
      `create table ${TABLE} (id bigserial primary key, owner bigint not null, name text not null, score double precision, note text)`,
    );
  }

  #psql(sql) {
    return run(join(this.#bin, "psql"), ["-h", this.#directory, "-U", DATABASE, "-qAtc", sql], this.#as);
  }

  async fill() {
    await this.#psql(
      `insert into ${TABLE} (owner, name, score, note) select i, 'name ' || i, i * 0.5, '${NOTE}' from generate_series(1, ${READ_ROWS}) i`,
    );
    await this.#psql(`vacuum analyze ${TABLE}`);
    await this.#psql("checkpoint");
  }

  /** pgbench with prepared statements. */
  async measure(kind, clients, seconds) {
    const script = join(this.#directory, `${kind}.sql`);
    writeFileSync(script, SCRIPTS[kind]);
    const args = ["-h", this.#directory, "-U", DATABASE, "-n", "-M", "prepared", "-f", script];
    args.push(
      "-c",
      String(clients),
      "-j",
      "2",
      "-T",
      String(Math.ceil(seconds)),
      "-D",
      `note=${NOTE}`,
      DATABASE,
    );
    const before = this.#used();
    const out = await run(join(this.#bin, "pgbench"), args, this.#as);
    // A backend is counted once its parent has taken leave of it.
    await delay(300);
    const after = this.#used();
    const perSecond = Number(/^tps = ([\d.]+)/m.exec(out)?.[1]);
    const operations = Number(/actually processed: (\d+)/.exec(out)?.[1]);
    const average = Number(/latency average = ([\d.]+) ms/.exec(out)?.[1]);
    const cpu = { server: each(before.server, after.server), client: each(before.client, after.client) };
    return { operations, perSecond, latencyMs: { average }, cpu };

    function each(from, to) {
      return from === undefined || to === undefined ? undefined : (to - from) / operations;
    }
  }

  /** Backends that have ended, and what this process has waited for, which is pgbench. */
  #used() {
    return { server: childrenMicros(this.#server.pid), client: childrenMicros("self") };
  }

  async stop() {
    // "Fast": sessions are ended, the data are not wanted any more.
    await stop(this.#server, "SIGINT");
  }
}

const SCRIPTS = {
  insert: `\\set owner random(1, 1000000000)
insert into ${TABLE} (owner, name, score, note) values (:owner, 'name ' || :owner, :owner * 0.5, :note);
`,
  read: `\\set id random(1, ${READ_ROWS})
select id, owner, name, score, note from ${TABLE} where id = :id;
`,
};
