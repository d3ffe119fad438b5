/** The rows and statements that every system is measured with, and how a load is kept up. */
import { createInterface } from "node:readline";

export const TABLE = "item";
export const READ_ROWS = 100_000;
/** As long as makes a row about 150 bytes. */
export const NOTE = "n".repeat(96);

export const SQLITE = {
  create: `create table if not exists ${TABLE} (id integer primary key, owner integer not null, name text not null, score real, note text)`,
  insert: `insert into ${TABLE} (owner, name, score, note) values (?, ?, ?, ?)`,
  fill: `insert into ${TABLE} (owner, name, score, note) with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) select i, 'name ' || i, i * 0.5, ? from n`,
  read: `select id, owner, name, score, note from ${TABLE} where id = ?`,
  upsert: `insert or replace into ${TABLE} (id, owner, name, score, note) values (?, ?, ?, ?, ?)`,
  drop: `drop table if exists ${TABLE}`,
};

/** Never the same twice, and no better than it need be. */
export function numbers(seed = 1) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
}

export function insertArguments(n) {
  return [n, `name ${n}`, n * 0.5, NOTE];
}

/** `inFlight` operations at any time for so long; answers how many ended and how long each took. */
export async function closedLoop({ inFlight, seconds, operation }) {
  const latencies = new Latencies();
  const start = performance.now();
  const end = start + seconds * 1000;
  let operations = 0;
  const worker = async () => {
    for (let at = performance.now(); at < end; ) {
      await operation();
      const now = performance.now();
      latencies.add(now - at);
      at = now;
      operations++;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  const elapsed = (performance.now() - start) / 1000;
  return { operations, seconds: elapsed, perSecond: operations / elapsed, latencyMs: latencies.summary() };
}

/** Operations begin at fixed times whatever the others do, and are timed from when they should have begun. */
export async function openLoop({ perSecond, seconds, operation, maxInFlight = 20_000 }) {
  const latencies = new Latencies();
  const start = performance.now();
  const total = Math.floor(perSecond * seconds);
  let begun = 0;
  let running = 0;
  let most = 0;
  let refused = 0;
  await new Promise((resolve, reject) => {
    const beat = setInterval(() => {
      const due = Math.min(total, Math.floor(((performance.now() - start) / 1000) * perSecond));
      for (; begun < due; begun++) {
        if (running >= maxInFlight) {
          refused++;
          continue;
        }
        const intended = start + (begun / perSecond) * 1000;
        running++;
        most = Math.max(most, running);
        operation().then(
          () => {
            running--;
            latencies.add(performance.now() - intended);
            if (begun === total && running === 0) resolve();
          },
          (error) => {
            clearInterval(beat);
            reject(error);
          },
        );
      }
      if (begun < total) return;
      clearInterval(beat);
      if (running === 0) resolve();
    }, 1);
  });
  const elapsed = (performance.now() - start) / 1000;
  return {
    operations: total - refused,
    refused,
    mostInFlight: most,
    seconds: elapsed,
    perSecond: (total - refused) / elapsed,
    latencyMs: latencies.summary(),
  };
}

/** Counts in buckets 2 % apart, so that a long run takes no memory. */
class Latencies {
  #buckets = new Float64Array(1200);
  #count = 0;
  #most = 0;

  add(ms) {
    this.#count++;
    if (ms > this.#most) this.#most = ms;
    this.#buckets[Math.min(1199, Math.max(0, Math.floor(Math.log(ms * 1000) / Math.log(1.02))))]++;
  }

  #at(share) {
    let left = this.#count * share;
    for (let i = 0; i < this.#buckets.length; i++) {
      left -= this.#buckets[i];
      if (left <= 0) return 1.02 ** (i + 0.5) / 1000;
    }
    return this.#most;
  }

  summary() {
    if (this.#count === 0) return undefined;
    return {
      p50: this.#at(0.5),
      p90: this.#at(0.9),
      p99: this.#at(0.99),
      p999: this.#at(0.999),
      max: this.#most,
    };
  }
}

/** For scripts that are told what to do line by line: each answers one line. */
export async function serveCommands(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...rest } = JSON.parse(line);
    const before = process.cpuUsage();
    const answer = await commands[command](rest);
    const used = process.cpuUsage(before);
    const cpuMicros = used.user + used.system;
    process.stdout.write(`${JSON.stringify({ ...answer, cpuMicros })}\n`);
    if (command !== "quit") continue;
    // An open pipe would keep the process.
    process.stdin.destroy();
    return;
  }
}
