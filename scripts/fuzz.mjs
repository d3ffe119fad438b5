/**
 * Compares Ostraka with plain SQLite: random schemas and statements, all from a seed, run on both; every answer, every
 * count of changes and every error has to be the same.
 *
 *   npm run fuzz -- --seeds 50 --statements 400 --nodes 3 --range-max-rows 8
 *   SEED=17 npm run fuzz -- --statements 400
 *
 * OSTRAKA_RETRY, which SQLite does not know, may end a transaction: both are then rolled back.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { compareWithSqlite } from "./fuzz/compare.mjs";

const program = new Command()
  .option("--seeds <n>", "how many seeds", Number, 10)
  .option("--first <n>", "the first of them", Number, 1)
  .option("--statements <n>", "how many statements a seed", Number, 300)
  .option("--nodes <n>", "how many nodes", Number, 1)
  .option("--range-max-rows <n>", "split ranges with more rows than this; 0 for one range", Number, 8)
  .option("--log-level <level>", "of the nodes", "warn")
  .option("--minutes <n>", "no new seed after this time", Number, 1e9)
  .parse();
const options = program.opts();
const { LocalCluster } = await import("../dist/cli/local-cluster.js");
const { connect } = await import("../dist/driver/index.js");

const seeds =
  process.env.SEED === undefined
    ? Array.from({ length: options.seeds }, (_, i) => options.first + i)
    : [Number(process.env.SEED)];
const untilMs = performance.now() + options.minutes * 60_000;
let statements = 0;
let failed = 0;
let passed = 0;
for (const seed of seeds) {
  if (performance.now() > untilMs) break;
  const dataDirectory = mkdtempSync(join(tmpdir(), "ostraka-fuzz-"));
  const cluster = await LocalCluster.start({
    nodes: options.nodes,
    dataDirectory,
    rangeMaxRows: options.rangeMaxRows === 0 ? undefined : options.rangeMaxRows,
    logLevel: options.logLevel,
  });
  const database = await connect(cluster.url, { intMode: "bigint", timeoutMs: 60_000 });
  try {
    const result = await compareWithSqlite(database, seed, options.statements);
    statements += result.statements;
    if (result.difference === undefined) passed++;
    else {
      failed++;
      const state = await database.admin("range.list", {}, { timeoutMs: 10_000 }).catch((error) => error);
      console.log(JSON.stringify(state));
      console.log(`seed ${seed}, statement ${result.statements}: ${result.difference}`);
    }
    console.log(
      `seed ${seed}: ${result.statements} statements, ${result.ranges} ranges at the end, ${result.retries} retries`,
    );
  } finally {
    await database.close();
    await cluster.stop();
    rmSync(dataDirectory, { recursive: true, force: true });
  }
}
console.log(`${statements} statements`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
