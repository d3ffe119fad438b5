import { expect, it } from "vitest";
import { type Chunks, OneAfterTheOther } from "../../../src/gateway/chunks.js";

/** Queries of so many chunks each; `log` tells what became of them. */
function queries(counts: readonly number[], log: string[]): (() => Promise<Chunks>)[] {
  return counts.map((count, query) => async () => {
    log.push(`start ${query}`);
    let at = 0;
    return {
      next: async () => (at < count ? { rows: Uint8Array.of(query, at++), count: 1 } : undefined),
      close: async () => void log.push(`close ${query}`),
    };
  });
}

it("starts each query when the one before has given its last row", async () => {
  const log: string[] = [];
  const chunks = await OneAfterTheOther.start(queries([2, 0, 1], log));
  expect(log).toEqual(["start 0"]);
  const rows: number[][] = [];
  for (let chunk = await chunks.next(); chunk !== undefined; chunk = await chunks.next())
    rows.push([...chunk.rows]);
  expect(rows).toEqual([
    [0, 0],
    [0, 1],
    [2, 0],
  ]);
  expect(log).toEqual(["start 0", "close 0", "start 1", "close 1", "start 2", "close 2"]);
  expect(await chunks.next()).toBe(undefined);
});

it("closes what is being started when it is closed", async () => {
  const log: string[] = [];
  const chunks = await OneAfterTheOther.start(queries([0, 1], log));
  const next = chunks.next();
  // The second query has been asked for, and is not here yet.
  for (let i = 0; i < 10 && !log.includes("start 1"); i++) await Promise.resolve();
  await chunks.close();
  expect(await next).toBe(undefined);
  expect(log).toEqual(["start 0", "close 0", "start 1", "close 0", "close 1"]);
});

it("starts nothing more once it is closed", async () => {
  const log: string[] = [];
  const chunks = await OneAfterTheOther.start(queries([2, 1], log));
  await chunks.next();
  await chunks.close();
  expect(await chunks.next()).toBe(undefined);
  expect(log).toEqual(["start 0", "close 0"]);
});
