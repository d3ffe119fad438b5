/**
 * npm run bench: what the database does a second, beside what the disk, plain SQLite, PostgreSQL and etcd do in the
 * same run on the same machine. Ratios mean something; rates are this machine's, at this moment. Fails nothing.
 *
 *   npm run bench -- --seconds 5 --phases raw,sqlite,inserts,reads,postgres
 *   npm run bench -- --phases memory --minutes 60
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Cluster } from "./bench/cluster.mjs";
import { Etcd, etcdVersion, findEtcd } from "./bench/etcd.mjs";
import { memoryPhase, streamPhase } from "./bench/memory.mjs";
import { findPostgres, Postgres } from "./bench/postgres.mjs";
import { cleanUp, removeDirectory, runScript, temporaryDirectory } from "./bench/processes.mjs";
import { RANGE_PARTS, rangesPhase } from "./bench/ranges.mjs";
import { memoryTable, rateTable, ratioTable, streamTable } from "./bench/report.mjs";

const PHASES = [
  "raw",
  "sqlite",
  "inserts",
  "reads",
  "open",
  "postgres",
  "three",
  "etcd",
  "memory",
  "stream",
  "ranges",
  ...Object.keys(RANGE_PARTS),
];
const HELP = `npm run bench -- [options]
  --phases <list>     of ${PHASES.join(",")} (default: all; from splits on, parts of ranges)
  --seconds <n>       for each measurement (default 5)
  --in-flight <list>  (default 1,16,128,512)
  --minutes <n>       for the memory phase (default: 20 seconds)
  --rows <n>          of the streamed result (default 1000000)
  --open-rate <share> of the closed loop's rate at 128 in flight (default 0.5)
  --dir <folder>      where data go while it runs (default: the system's temporary folder)
  --ranges <n>        of the ranges phase (default 1000)
  --etcd <folder>     where etcd's program is, when not in PATH
  --dist <folder>     the build to measure
  --node-flags <list> flags of Node for our nodes, comma-separated, e.g. --cpu-prof
  --json <file>       the results in full`;

const { values: flags } = parseArgs({
  options: {
    phases: { type: "string", default: PHASES.join(",") },
    seconds: { type: "string", default: "5" },
    "in-flight": { type: "string", default: "1,16,128,512" },
    minutes: { type: "string" },
    rows: { type: "string", default: "1000000" },
    ranges: { type: "string", default: "1000" },
    "open-rate": { type: "string", default: "0.5" },
    dir: { type: "string" },
    etcd: { type: "string" },
    dist: { type: "string", default: fileURLToPath(new URL("../dist", import.meta.url)) },
    "node-flags": { type: "string", default: "" },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
const phases = new Set(flags.phases.split(","));
const seconds = Number(flags.seconds);
const inFlights = flags["in-flight"].split(",").map(Number);
const nodeFlags = flags["node-flags"].split(",").filter((flag) => flag !== "");
const WARM_UP_SECONDS = Math.min(2, seconds);
const PGBENCH_CLIENTS = 64;

const results = [];
const skipped = [];
const extra = { memory: undefined, streams: [] };

function say(text) {
  process.stderr.write(`${text}\n`);
}

function keep(name, result) {
  results.push({ name, ...result });
  say(`  ${name}: ${Math.round(result.perSecond).toLocaleString("en")}/s`);
}

function skip(what, why) {
  skipped.push(`${what}: ${why}`);
  say(`SKIPPED ${what}: ${why}`);
}

async function inDirectory(work) {
  const directory = temporaryDirectory(flags.dir);
  try {
    return await work(directory);
  } finally {
    removeDirectory(directory);
  }
}

async function raw() {
  await inDirectory(async (directory) => {
    for (const inFlight of inFlights)
      keep(
        `durable appends, ${inFlight}`,
        await runScript("raw-appends.mjs", { directory, inFlight, seconds }),
      );
  });
}

async function sqlite() {
  for (const kind of ["insert", "read"])
    await inDirectory(async (directory) =>
      keep(`plain SQLite ${kind}s`, await runScript("sqlite.mjs", { directory, kind, seconds })),
    );
}

async function withCluster(count, work, startFlags = []) {
  await inDirectory(async (directory) => {
    const cluster = await Cluster.start(directory, count, flags.dist, nodeFlags, startFlags);
    try {
      const client = cluster.client();
      await client.ask("create");
      await work(cluster, client);
      await client.ask("quit");
    } finally {
      await cluster.stop();
    }
  });
}

async function load(cluster, client, kind, levels, label) {
  for (const inFlight of levels) {
    await client.ask("closed", { kind, inFlight, seconds: WARM_UP_SECONDS });
    keep(`${label}, ${inFlight}`, await cluster.measure(client, "closed", { kind, inFlight, seconds }));
  }
}

async function openLoops(cluster, client) {
  for (const kind of ["insert", "read"]) {
    const { perSecond: most } = await client.ask("closed", { kind, inFlight: 128, seconds: WARM_UP_SECONDS });
    const perSecond = Math.round(most * Number(flags["open-rate"]));
    keep(`ostraka ${kind}s, open loop`, await cluster.measure(client, "open", { kind, perSecond, seconds }));
  }
}

async function oneNode() {
  await withCluster(1, async (cluster, client) => {
    if (phases.has("inserts")) await load(cluster, client, "insert", inFlights, "ostraka inserts");
    if (phases.has("reads") || phases.has("open")) await client.ask("fill");
    if (phases.has("reads")) await load(cluster, client, "read", inFlights, "ostraka reads");
    if (phases.has("open")) await openLoops(cluster, client);
  });
}

async function postgres() {
  const found = findPostgres();
  if (found === undefined) return skip("PostgreSQL", "not installed");
  await inDirectory(async (directory) => {
    const server = await Postgres.start(found, directory);
    try {
      await server.fill();
      for (const kind of ["insert", "read"]) {
        await server.measure(kind, PGBENCH_CLIENTS, WARM_UP_SECONDS);
        keep(
          `PostgreSQL ${found.version} ${kind}s, ${PGBENCH_CLIENTS}`,
          await server.measure(kind, PGBENCH_CLIENTS, seconds),
        );
      }
    } finally {
      await server.stop();
    }
  });
}

async function threeNodes() {
  await withCluster(3, async (cluster, client) => {
    await load(cluster, client, "insert", inFlights, "ostraka ×3 inserts");
    await client.ask("fill");
    await load(cluster, client, "read", inFlights, "ostraka ×3 reads");
  });
}

async function etcd() {
  const program = findEtcd(flags.etcd);
  if (program === undefined)
    return skip("etcd", "not installed (Debian: etcd-server), or say --etcd <folder>");
  const version = await etcdVersion(program);
  await inDirectory(async (directory) => {
    const cluster = await Etcd.start(program, directory, 3);
    try {
      const client = cluster.client();
      await client.ask("fill");
      for (const kind of ["insert", "read"])
        for (const inFlight of inFlights) {
          await client.ask("closed", { kind, inFlight, seconds: WARM_UP_SECONDS });
          const before = cluster.cpuMicros();
          const result = await client.ask("closed", { kind, inFlight, seconds });
          const server = (cluster.cpuMicros() - before) / result.operations;
          const name = `etcd ${version} ×3 ${kind === "insert" ? "puts" : "reads"}, ${inFlight}`;
          const cpu = { server: Number.isNaN(server) ? undefined : server };
          keep(name, { ...result, cpu: { ...cpu, client: result.cpuMicros / result.operations } });
        }
      await client.ask("quit");
    } finally {
      await cluster.stop();
    }
  });
}

async function memory() {
  const length = flags.minutes === undefined ? 20 : Number(flags.minutes) * 60;
  await withCluster(1, async (cluster, client) => {
    extra.memory = await memoryPhase(cluster, client, length, say);
  });
}

async function stream() {
  await withCluster(1, async (cluster, client) => {
    await client.ask("fill");
    extra.streams = await streamPhase(cluster, client, Number(flags.rows), say);
  });
}

async function ranges() {
  const all = Object.keys(RANGE_PARTS);
  extra.ranges = await rangesPhase({
    parts: phases.has("ranges") ? all : all.filter((part) => phases.has(part)),
    withCluster: (startFlags, work) => withCluster(3, work, startFlags),
    keep,
    say,
    seconds,
    ranges: Number(flags.ranges),
  });
}

const find = (name) => results.find((result) => result.name.startsWith(name))?.perSecond;
const best = (prefix) => {
  const rates = results.filter(({ name }) => name.startsWith(prefix)).map(({ perSecond }) => perSecond);
  return rates.length === 0 ? undefined : Math.max(...rates);
};

function ratios() {
  const made = [];
  const add = (what, ours, theirs, bar) => {
    if (ours !== undefined && theirs !== undefined) made.push({ what, ratio: ours / theirs, bar });
  };
  for (const n of inFlights) {
    add(
      `inserts at ${n} : durable appends at ${n}`,
      find(`ostraka inserts, ${n}`),
      find(`durable appends, ${n}`),
    );
    const bar = n === 128 ? 5 : undefined;
    add(
      `inserts at ${n} : plain SQLite, one a transaction`,
      find(`ostraka inserts, ${n}`),
      find("plain SQLite inserts"),
      bar,
    );
  }
  const pgInserts = best("PostgreSQL") === undefined ? undefined : postgresRate("inserts");
  add("inserts at 128 : PostgreSQL at 64", find("ostraka inserts, 128"), pgInserts, 2);
  add("best reads : PostgreSQL's at 64", best("ostraka reads"), postgresRate("reads"), 1);
  add("best inserts on three nodes : best of etcd", best("ostraka ×3 inserts"), etcdRate("puts"), 3);
  add("best reads on three nodes : best of etcd", best("ostraka ×3 reads"), etcdRate("reads"));
  made.push(...(extra.ranges?.ratios ?? []));
  return made;
}

function postgresRate(kind) {
  return results.find(({ name }) => name.startsWith("PostgreSQL") && name.includes(kind))?.perSecond;
}

function etcdRate(kind) {
  const rates = results
    .filter(({ name }) => name.startsWith("etcd") && name.includes(kind))
    .map(({ perSecond }) => perSecond);
  return rates.length === 0 ? undefined : Math.max(...rates);
}

const WORK = [
  [["raw"], raw],
  [["sqlite"], sqlite],
  [["inserts", "reads", "open"], oneNode],
  [["postgres"], postgres],
  [["three"], threeNodes],
  [["etcd"], etcd],
  [["memory"], memory],
  [["stream"], stream],
  [["ranges", ...Object.keys(RANGE_PARTS)], ranges],
];

async function main() {
  for (const phase of phases) if (!PHASES.includes(phase)) throw new Error(`no phase ${phase}\n\n${HELP}`);
  for (const [names, work] of WORK) {
    if (!names.some((name) => phases.has(name))) continue;
    say(names.join(", "));
    try {
      await work();
    } catch (error) {
      skip(names.join(", "), error instanceof Error ? error.message : String(error));
    }
  }
  const machine = { node: process.version, cpus: cpus().length, model: cpus()[0]?.model };
  const made = ratios();
  const parts = [];
  if (results.length > 0) parts.push(rateTable(results));
  if (made.length > 0) parts.push(ratioTable(made));
  if (extra.memory !== undefined) parts.push(memoryTable(extra.memory.samples), extra.memory.verdict);
  if (extra.streams.length > 0) parts.push(streamTable(extra.streams));
  for (const what of skipped) parts.push(`SKIPPED ${what}`);
  process.stdout.write(`${parts.join("\n\n")}\n`);
  const json = JSON.stringify({ machine, results, ratios: made, ...extra, skipped }, null, 1);
  if (flags.json !== undefined) writeFileSync(flags.json, `${json}\n`);
}

if (flags.help) process.stdout.write(`${HELP}\n`);
else {
  try {
    await main();
  } finally {
    await cleanUp();
  }
}
