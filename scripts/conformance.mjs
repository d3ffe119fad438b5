/**
 * Compares a cluster with plain SQLite on recorded SQL and prints every difference. The database at URL is
 * emptied; without one a cluster is made for the purpose.
 *
 *   node scripts/conformance.mjs [--url URL | --nodes N | --plain] [--json FILE] [--slow MS] PATH…
 *
 * PATH is a recorded script (.json.gz), a folder of them, or a file of grammar cases. Exit code 1 if any step differs.
 */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { newTally, readScript, replayGrammar, replayScript } from "./conformance/replay.mjs";
import { clusterTarget, ownCluster, plainTarget } from "./conformance/targets.mjs";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" },
    nodes: { type: "string", default: "1" },
    plain: { type: "boolean", default: false },
    json: { type: "string" },
    slow: { type: "string" },
    dist: { type: "string", default: fileURLToPath(new URL("../dist", import.meta.url)) },
  },
});

function filesOf(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => filesOf(join(path, name)))
    .filter((file) => file.endsWith(".json.gz"));
}

async function openTarget() {
  if (flags.plain) return plainTarget();
  const { connect } = await import(`${flags.dist}/driver/index.js`);
  if (flags.url !== undefined) return clusterTarget(connect, flags.url);
  const cluster = await ownCluster(Number(flags.nodes), `${flags.dist}/cli/main.js`);
  const target = await clusterTarget(connect, await cluster.fresh(), cluster.fresh);
  return { ...target, close: () => target.close().then(cluster.stop) };
}

const say = (text) => process.stdout.write(`${text}\n`);
const target = await openTarget();
const total = newTally();
const slow = flags.slow === undefined ? Number.POSITIVE_INFINITY : Number(flags.slow);
const timed = (step, ms) => {
  if (ms >= slow) say(`  ${ms.toFixed(0)} ms  ${step.sql.slice(0, 200).replaceAll("\n", " ")}`);
};

function report(name, tally, startedMs) {
  const { equal, ran, unsupported, affected, different } = tally;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(
    `${name}: ${equal} equal, ${ran} ran, ${unsupported} unsupported, ${affected} affected, ${different} different (${seconds} s)`,
  );
  for (const { step, sql, different: how } of tally.differences)
    say(`  step ${step}: ${sql.slice(0, 300)}\n    ${how}`);
  for (const key of ["equal", "ran", "unsupported", "affected", "different"]) total[key] += tally[key];
  for (const [reason, n] of Object.entries(tally.reasons))
    total.reasons[reason] = (total.reasons[reason] ?? 0) + n;
  total.differences.push(...tally.differences);
}

for (const path of positionals) {
  for (const file of filesOf(path)) {
    const startedMs = performance.now();
    if (file.endsWith(".json")) {
      report(file, await replayGrammar(target, JSON.parse(readFileSync(file, "utf8"))), startedMs);
      continue;
    }
    const tally = newTally();
    const script = readScript(file);
    try {
      await replayScript(target, script, tally, { timed });
    } catch (error) {
      tally.different++;
      tally.differences.push({
        script: script.name,
        step: -1,
        sql: "",
        different: `the replay broke: ${error.code} ${error.message}`,
      });
    }
    report(script.name, tally, startedMs);
  }
}
await target.close();
for (const [reason, n] of Object.entries(total.reasons)) say(`unsupported ${n} ×: ${reason}`);
say(
  `${total.equal} equal, ${total.ran} ran, ${total.unsupported} unsupported, ${total.affected} affected, ${total.different} different`,
);
if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(total, undefined, 1)}\n`);
process.exitCode = total.different > 0 ? 1 : 0;
