/**
 * Plants one bug after the other (scripts/mutants) in a copy of the tree and sees who catches it: the test or the seed
 * that is known to (scripts/mutants/killers.json), else the tests of the part, else simulated worlds on the seeds from
 * 1 on. Writes the table to docs/mutants.md, and who caught what to killers.json. Ends with 1 if a bug is caught by nobody,
 * or is not found in the text any more.
 *
 *   npm run mutants [-- --seeds 10] [--seconds 60] [--only WORD] [--ranges] [--worlds] [--resume] [--no-table]
 *
 *   --seeds, --seconds  of random worlds, at most, for a bug
 *   --worlds            random worlds also for what a test has caught
 *   --only, --ranges, --commits  some of the bugs; no table
 *   --resume            results of the same tree from earlier runs count
 */
import { writeFileSync } from "node:fs";
import { filesOf, runTests, runWorlds } from "./mutants/catchers.mjs";
import { COMMIT_MUTANTS } from "./mutants/commits.mjs";
import { MUTANTS } from "./mutants/list.mjs";
import { RANGE_MUTANTS } from "./mutants/ranges.mjs";
import { Journal, Killers } from "./mutants/records.mjs";
import { table } from "./mutants/table.mjs";
import { enterCopy, plan, plant } from "./mutants/tree.mjs";

const say = (line) => process.stdout.write(`${line}\n`);
const argv = process.argv.slice(2);
const option = (name, otherwise) => (argv.includes(name) ? argv[argv.indexOf(name) + 1] : otherwise);
const seeds = Number(option("--seeds", "10"));
const seconds = Number(option("--seconds", "60"));
const only = option("--only", "");
const rangesOnly = argv.includes("--ranges");
const commitsOnly = argv.includes("--commits");
const worldsToo = argv.includes("--worlds");
const resume = argv.includes("--resume");

const everything = [
  ...MUTANTS,
  ...COMMIT_MUTANTS.map((mutant) => ({ ...mutant, manyRanges: true, commit: true })),
  ...RANGE_MUTANTS.map((mutant) => ({ ...mutant, manyRanges: true })),
];
const wanted = everything.filter(
  ({ name, manyRanges, commit }) =>
    name.includes(only) && (!rangesOnly || manyRanges === true) && (!commitsOnly || commit === true),
);
/** For all tests that are known to catch something. */
const UNHARMED_MS = 30 * 60_000;
const killers = new Killers();
const copy = enterCopy();
const journal = new Journal(copy);
process.on("exit", () => copy.leave());

/** The first one that fails: the test that is known to, or one of all those that ought to. */
function hunt({ tests }, known) {
  if (known.file !== undefined) {
    const [failed] = runTests([known.file], known.name === undefined ? undefined : [known.name]).failed;
    if (failed !== undefined) return failed;
  }
  const files = tests.map(filesOf);
  const scenarios = files.filter((file) => file.startsWith("test/sim"));
  for (const some of [files.filter((file) => !scenarios.includes(file)), scenarios]) {
    const [failed] = some.length === 0 ? [] : runTests(some).failed;
    if (failed !== undefined) return failed;
  }
  return undefined;
}

/** The seed that is known to fail, or the first one that does. */
function explore({ manyRanges }, { seed }, search) {
  if (seed !== undefined) {
    const again = runWorlds({ first: seed, seeds: 1, seconds, manyRanges });
    if (again.seed !== undefined) return again;
  }
  return search ? runWorlds({ first: 1, seeds, seconds, manyRanges }) : undefined;
}

function judge(mutant, known) {
  const startedMs = performance.now();
  // Where only a seed is known, it is enough.
  let world = known.file === undefined ? explore(mutant, known, false) : undefined;
  const test = world?.seed === undefined ? hunt(mutant, known) : undefined;
  if (world?.seed === undefined) world = explore(mutant, known, worldsToo || test === undefined);
  const killed = test !== undefined || world?.seed !== undefined;
  const broken = test?.broken === true || world?.broken === true;
  return {
    test,
    world,
    killed: killed && !broken,
    broken,
    seconds: Number(((performance.now() - startedMs) / 1000).toFixed(0)),
  };
}

/** What is relied on must pass as it is. */
function checkKnown() {
  const known = wanted.map(({ name }) => killers.get(name));
  const tests = known.filter(({ name }) => name !== undefined);
  const files = [...new Set(tests.map(({ file }) => file))].sort();
  const names = [...new Set(tests.map(({ name }) => name))].sort();
  const worlds = new Map();
  for (const { name, manyRanges = false } of wanted) {
    const { seed } = killers.get(name);
    if (seed !== undefined) worlds.set(`${seed} ${manyRanges}`, { first: seed, manyRanges });
  }
  const what = { unharmed: [files, names, [...worlds.keys()].sort()] };
  if (resume && journal.get(what) !== undefined) return true;
  const { failed, ran } = files.length === 0 ? { failed: [], ran: 0 } : runTests(files, names, UNHARMED_MS);
  for (const { first, manyRanges } of worlds.values()) {
    const { seed, saw } = runWorlds({ first, seeds: 1, seconds, manyRanges });
    if (seed !== undefined) failed.push({ name: `seed ${seed}`, saw });
  }
  for (const { name, saw } of failed) say(`fails without any bug: ${name}: ${saw}`);
  say(`without a bug: ${ran} tests and ${worlds.size} worlds, ${failed.length} failed`);
  if (failed.length === 0) journal.add(what, { ran });
  return failed.length === 0;
}

const startedMs = performance.now();
if (!checkKnown()) process.exit(1);
const rows = [];
let survivors = 0;
for (const mutant of wanted) {
  const known = killers.get(mutant.name);
  const before = resume ? journal.get(mutant) : undefined;
  const earlier = worldsToo && before?.world === undefined ? undefined : before;
  const texts = plan(mutant);
  if (typeof texts === "string") {
    say(`NOT PLANTED ${mutant.name}: ${texts}`);
    survivors++;
    continue;
  }
  let result = earlier;
  if (result === undefined) {
    const takeOut = plant(texts);
    result = judge(mutant, known);
    takeOut();
    journal.add(mutant, result);
  }
  const { test, world, killed, broken } = result;
  if (killed) killers.set(mutant.name, { file: test?.file, name: test?.name, seed: world?.seed });
  else survivors++;
  killers.write(everything.map(({ name }) => name));
  rows.push({ mutant, result });
  const told = [
    test === undefined ? [] : `${test.file}: ${test.name}: ${test.saw}`,
    world === undefined
      ? []
      : world.seed === undefined
        ? `not in ${world.passed} seeds`
        : `seed ${world.seed}: ${world.saw}`,
  ].flat();
  say(
    `${killed ? "killed  " : broken ? "BROKEN  " : "SURVIVED"} ${mutant.name} (${result.seconds} s) ${told.join(" · ")}`,
  );
}
copy.leave();
if (!argv.includes("--no-table") && !rangesOnly && !commitsOnly && only === "") {
  const spent = rows.reduce((sum, { result }) => sum + result.seconds, 0);
  writeFileSync("docs/mutants.md", table(rows, { seeds, minutes: Math.ceil(spent / 60) }));
}
say(
  `${rows.length} mutants, ${survivors} survived or could not be planted, ${((performance.now() - startedMs) / 60_000).toFixed(1)} minutes`,
);
process.exit(survivors > 0 ? 1 : 0);
