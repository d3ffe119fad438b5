/** What must be so of a database of many ranges once clients have stopped and everything has healed. */
import { expect } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { type Cluster, until } from "./harness.js";
import { WIDE_FINE, type WideWorkload } from "./wide-workload.js";
import { FINE, verdict, type Workload } from "./workload.js";

/** Stops the clients, asks for what is in doubt, and judges all that was seen; answers what there was, in words. */
export async function judgeWide(
  cluster: Cluster,
  database: Database,
  narrow: Workload,
  wide: WideWorkload,
): Promise<string> {
  await Promise.all([narrow.stop(), wide.stop()]);
  await narrow.settle(database);
  expect(await wide.verdict(database)).toEqual(WIDE_FINE);
  expect(await verdict(database, [narrow])).toEqual(FINE);
  for (const table of ["ostraka_outbox", "ostraka_transactions"])
    await until(`${table} is empty`, async () => {
      const { rows } = await database.execute(`select * from ${table}`);
      if (rows.length > 0) throw new Error(JSON.stringify(rows.map((row) => [...row])));
      return true;
    });
  const { rows } = await database.execute(
    "select group_concat(distinct step) as steps from (select step from ostraka_trace order by step)",
  );
  expect(rows[0]!.steps).toMatch(/commit,.*decided,.*prepare,.*registered,.*resolved,.*vote/);
  await cluster.checkDigests(database);
  const ranges = await severalRanges(database, 3);
  return `${narrow.tokens.size} tokens, ${JSON.stringify(wide.counts)}, ${ranges} ranges at the end`;
}

export async function severalRanges(database: Database, count: number): Promise<number> {
  return until(`there are ${count} ranges`, async () => {
    const { rows } = await database.execute("select count(*) as n from ostraka_ranges");
    const found = Number(rows[0]!.n);
    if (found < count) throw new Error(`there are ${found}`);
    return found;
  });
}
