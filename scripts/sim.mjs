/**
 * Simulated worlds, from seeds: the whole cluster in this process, broken in every way (test/sim/world).
 *
 *   npm run sim                          20 fresh seeds
 *   npm run sim -- --seeds 1000 --minutes 30
 *   SEED=17 npm run sim                  one seed again, with its trace
 *   npm run sim -- --ranges              databases of many ranges, most of them in short worlds (--long: as others)
 *   npm run sim -- --members             the same, and nodes join, fail for good (all but one, now and then) and are removed
 *   flags: --first N  --twice (same hash?)  --keep-going  --no-shrink  --verbose
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { transpile } from "./transpile.mjs";

const root = transpile("dist-sim");
const { status } = spawnSync(
  process.execPath,
  [join(root, "test/sim/world/main.js"), ...process.argv.slice(2)],
  { stdio: "inherit" },
);
process.exit(status ?? 1);
