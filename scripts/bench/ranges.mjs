/**
 * What it costs to be divided: the same load on one range and on many, on three nodes, in the same run. Splits under
 * load, ranges that nobody uses, ranges that everybody uses, transactions across ranges, reads across them beside
 * writers, and a row that all write.
 */
import { setTimeout as delay } from "node:timers/promises";
import { cpuMicros, residentBytes } from "./proc-stat.mjs";

const IN_FLIGHT = 128;
const TRANSFERS_IN_FLIGHT = 16;
const READS_PER_SECOND = 100;
const SEVERAL = 8;

export const RANGE_PARTS = {
  splits: splitsUnderLoad,
  many: manyRanges,
  transfers,
  readers: readsBesideWriters,
  counter: hotCounter,
};

/**
 * `withCluster(flags, work)` runs `work(cluster, client)` on three fresh nodes; `keep(name, result)` takes a rate.
 * Answers the ratios and what idle nodes use.
 */
export async function rangesPhase({ parts, ...bench }) {
  const ratios = [];
  const idle = [];
  const add = (what, many, one) => ratios.push({ what, ratio: many / one });
  for (const part of parts) await RANGE_PARTS[part]({ ...bench, add, idle });
  return { ratios, idle };
}

async function splitsUnderLoad({ withCluster, keep, say, seconds, add }) {
  const results = [];
  for (const [name, size] of [
    ["one range", "1GiB"],
    ["ranges of 2 MiB", "2MiB"],
  ])
    await withCluster(["--range-max-bytes", size], async (cluster, client) => {
      const load = { kind: "insert", inFlight: IN_FLIGHT, seconds: seconds * 3 };
      const result = await cluster.measure(client, "closed", load);
      const { ranges } = await client.ask("ranges");
      say(`  ${ranges} ranges after ${result.operations} inserts`);
      keep(`loading, ${name}`, result);
      results.push(result);
    });
  const [one, many] = results;
  add("loading: while ranges split : one range", many.perSecond, one.perSecond);
  for (const key of ["p99", "p999", "max"])
    add(`loading, latency ${key}: while ranges split : one range`, many.latencyMs[key], one.latencyMs[key]);
}

async function manyRanges({ withCluster, keep, say, seconds, ranges, add, idle }) {
  await withCluster(["--range-max-bytes", "1GiB"], async (cluster, client) => {
    // Every split copies a file, so they are kept small.
    await client.ask("fill", { count: Math.max(2 * ranges, 2000) });
    const rates = [];
    for (const count of [1, ranges]) {
      const started = performance.now();
      const made = count === 1 ? { ranges: 1 } : await client.ask("split", { table: "item", count });
      if (count > 1)
        say(`  ${made.ranges} ranges made in ${((performance.now() - started) / 1000).toFixed(0)} s`);
      // What follows a split (deleting the other half, moving leaders) is not part of idling.
      await settled(cluster);
      const used = await idleUse(cluster, seconds);
      say(
        `  idle, ${made.ranges} ranges: ${used.map(({ share, mib }) => `${share} % ${mib} MiB`).join(", ")}`,
      );
      idle.push({ ranges: made.ranges, nodes: used });
      // Ranges that nobody has used for a while open their files at their first use.
      if (count > 1) await client.ask("touch");
      const rate = {};
      for (const kind of ["change", "read"]) {
        const load = { kind, inFlight: IN_FLIGHT, seconds };
        await client.ask("closed", { ...load, seconds: Math.min(2, seconds) });
        rate[kind] = await cluster.measure(client, "closed", load);
        keep(`${kind}s, ${made.ranges} ranges, ${IN_FLIGHT}`, rate[kind]);
      }
      rates.push(rate);
    }
    const [one, many] = rates;
    add(`writes: ${ranges} ranges : 1 range`, many.change.perSecond, one.change.perSecond);
    add(`reads by key: ${ranges} ranges : 1 range`, many.read.perSecond, one.read.perSecond);
  });
}

/** Until the nodes use little, or for a while. */
async function settled(cluster) {
  let before = cluster.pids.map((pid) => cpuMicros(pid)?.all ?? 0);
  for (let i = 0; i < 60; i++) {
    await delay(1000);
    const now = cluster.pids.map((pid) => cpuMicros(pid)?.all ?? 0);
    const used = now.reduce((sum, micros, at) => sum + micros - before[at], 0);
    if (used < 150_000) return;
    before = now;
  }
}

async function idleUse(cluster, seconds) {
  const before = cluster.pids.map((pid) => cpuMicros(pid)?.all ?? Number.NaN);
  await delay(seconds * 1000);
  return cluster.pids.map((pid, at) => ({
    share: ((((cpuMicros(pid)?.all ?? Number.NaN) - before[at]) / seconds / 1e6) * 100).toFixed(2),
    mib: Math.round((residentBytes(pid) ?? Number.NaN) / 2 ** 20),
  }));
}

/** One row that everybody adds to, beside rows that nobody else touches. */
async function hotCounter({ withCluster, keep, seconds, add }) {
  await withCluster([], async (cluster, client) => {
    await client.ask("accounts", { count: 1 });
    const rates = {};
    for (const kind of ["insert", "count"]) {
      const load = { kind, inFlight: IN_FLIGHT, seconds };
      await client.ask("closed", { ...load, seconds: Math.min(2, seconds) });
      rates[kind] = await cluster.measure(client, "closed", load);
    }
    keep("inserts beside the counter's", rates.insert);
    keep("additions to one row", rates.count);
    add("autocommit: additions to one row : inserts", rates.count.perSecond, rates.insert.perSecond);
  });
}

async function transfers({ withCluster, keep, seconds, add }) {
  for (const [contention, count] of [
    ["low", 2000],
    ["high", 20],
  ])
    await withCluster([], async (cluster, client) => {
      await client.ask("accounts", { count });
      const results = [];
      for (const where of ["in one range", "across two"]) {
        if (where === "across two") await client.ask("split", { table: "account", count: 2 });
        const load = { kind: "transfer", inFlight: TRANSFERS_IN_FLIGHT, seconds };
        await client.ask("closed", { ...load, seconds: Math.min(2, seconds) });
        const result = await cluster.measure(client, "closed", load);
        keep(`transfers ${where}, ${contention} contention`, result);
        results.push(result);
      }
      const [one, two] = results;
      add(`transfers, ${contention} contention: across two ranges : in one`, two.perSecond, one.perSecond);
    });
}

async function readsBesideWriters({ withCluster, keep, seconds, add }) {
  await withCluster(["--range-max-bytes", "1GiB"], async (cluster, client) => {
    await client.ask("fill");
    await client.ask("split", { table: "item", count: SEVERAL });
    const load = { kind: "change", inFlight: IN_FLIGHT, seconds };
    await client.ask("closed", { ...load, seconds: Math.min(2, seconds) });
    const alone = await cluster.measure(client, "closed", load);
    keep(`writes over ${SEVERAL} ranges`, alone);
    const reader = cluster.client();
    const reading = reader.ask("open", { kind: "scan", perSecond: READS_PER_SECOND, seconds });
    const beside = await cluster.measure(client, "closed", load);
    keep(`the same beside ${READS_PER_SECOND} reads/s over ranges`, beside);
    keep("those reads", await reading);
    await reader.ask("quit");
    add(
      `writes: beside ${READS_PER_SECOND} reads/s over ranges : without`,
      beside.perSecond,
      alone.perSecond,
    );
  });
}
