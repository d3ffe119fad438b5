/** Whether memory is bounded: a node under writes at full speed, and a result of many rows with a slow reader. */
import { setTimeout as delay } from "node:timers/promises";
import { residentBytes } from "./proc-stat.mjs";

const IN_FLIGHT = 128;
const SAMPLES = 20;

/** Overwrites the same keys over and over, so that only what should not grow could. */
export async function memoryPhase(cluster, client, seconds, say) {
  const [pid] = cluster.pids;
  const samples = [];
  const start = performance.now();
  let operations = 0;
  for (let i = 0; i < SAMPLES; i++) {
    const step = { kind: "upsert", inFlight: IN_FLIGHT, seconds: seconds / SAMPLES };
    // The heap swings between collections; its low points tell.
    let lowest = Number.POSITIVE_INFINITY;
    let running = true;
    const loading = client.ask("closed", step).finally(() => {
      running = false;
    });
    while (running) {
      lowest = Math.min(
        lowest,
        (await cluster.metric("ostraka_nodejs_heap_size_used_bytes")) ?? Number.POSITIVE_INFINITY,
      );
      await Promise.race([delay(250), loading]);
    }
    operations += (await loading).operations;
    const sample = {
      seconds: (performance.now() - start) / 1000,
      operations,
      heapBytes: lowest,
      residentBytes: residentBytes(pid),
    };
    samples.push(sample);
    if (i % 5 === 4)
      say(`  ${operations.toLocaleString("en")} writes, heap ${Math.round(lowest / 2 ** 20)} MiB`);
  }
  const early = middle(samples.slice(SAMPLES / 4, SAMPLES / 2));
  const late = middle(samples.slice(-SAMPLES / 4));
  const verdict = `heap from the second quarter to the last: × ${(late.heap / early.heap).toFixed(2)}; resident: × ${(late.resident / early.resident).toFixed(2)}`;
  return { samples, verdict };
}

function middle(samples) {
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return {
    heap: median(samples.map(({ heapBytes }) => heapBytes)),
    resident: median(samples.map((sample) => sample.residentBytes ?? Number.NaN)),
  };
}

/** The same result read at full speed, then by a client that dawdles while another one reads by key. */
export async function streamPhase(cluster, other, rows, say) {
  const streams = [];
  for (const [name, every, pauseMs] of [
    ["read at full speed", 1000, 0],
    ["by a slow client", 1000, 10],
  ]) {
    const client = cluster.client();
    const [pid] = cluster.pids;
    let running = true;
    let nodeBytes = 0;
    const streaming = client.ask("stream", { rows, every, pauseMs }).finally(() => {
      running = false;
    });
    const watching = (async () => {
      while (running) {
        nodeBytes = Math.max(nodeBytes, residentBytes(pid) ?? 0);
        await Promise.race([delay(100), streaming]);
      }
    })();
    const beside = await other.ask("closed", { kind: "read", inFlight: 16, seconds: 3 });
    const result = await streaming;
    await watching;
    await client.ask("quit");
    say(`  ${name}: ${Math.round(result.rows / result.seconds).toLocaleString("en")} rows/s`);
    streams.push({ name, ...result, nodeBytes, beside });
  }
  return streams;
}
