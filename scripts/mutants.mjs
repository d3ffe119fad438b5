/**
 * Plants one bug after the other (scripts/mutants) in a copy of the tree and sees who catches it: the
 * simulator on fixed seeds, and where that does not (or with --all) the unit tests of the part. Writes the table to
 * docs/mutants.md. Ends with 1 if a mutant survives, or is not found in the text any more.
 *
 *   npm run mutants [-- --seeds 40] [--seconds 90] [--only WORD] [--all] [--sim-only] [--ranges] [--no-table]
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { MUTANTS } from "./mutants/list.mjs";
import { RANGE_MUTANTS } from "./mutants/ranges.mjs";
import { transpile, writeTranspiled } from "./transpile.mjs";

const say = (line) => process.stdout.write(`${line}\n`);
const argv = process.argv.slice(2);
const option = (name, otherwise) => (argv.includes(name) ? argv[argv.indexOf(name) + 1] : otherwise);
const seeds = Number(option("--seeds", "40"));
const seconds = Number(option("--seconds", "90"));
const only = option("--only", "");
const all = argv.includes("--all");
const simOnly = argv.includes("--sim-only");
const rangesOnly = argv.includes("--ranges");
const from = resolve(".");
const scratch = mkdtempSync(join(tmpdir(), "ostraka-mutants-"));

for (const part of ["src", "test", "package.json", "vitest.config.ts", "tsconfig.json", "proto"])
  cpSync(part, join(scratch, part), { recursive: true });
symlinkSync(join(from, "node_modules"), join(scratch, "node_modules"));
process.chdir(scratch);
transpile("dist-sim");

function simulate(manyRanges) {
  const started = performance.now();
  const child = spawnSync(
    process.execPath,
    [
      "dist-sim/test/sim/world/main.js",
      "--first",
      "1",
      "--seeds",
      String(seeds),
      "--minutes",
      String(seconds / 60),
      "--no-shrink",
      ...(manyRanges ? ["--ranges"] : []),
    ],
    { encoding: "utf8", timeout: seconds * 1000 + 60_000 },
  );
  const took = ((performance.now() - started) / 1000).toFixed(0);
  const failed = /^seed (\d+) FAILED at [^:]*: (.*)$/m.exec(child.stdout ?? "");
  if (failed !== null) return { killed: true, told: `seed ${failed[1]}`, why: failed[2].slice(0, 110), took };
  if (child.status === 0)
    return {
      killed: false,
      told: `survived ${child.stdout.match(/^seed \d+ ok/gm)?.length ?? 0} seeds`,
      why: "",
      took,
    };
  return {
    killed: true,
    told: "the world broke",
    why: (child.stderr || "it did not end").trim().split("\n").at(-1).slice(0, 110),
    took,
  };
}

function unitTests(tests) {
  for (const test of tests) {
    const { status, stdout } = spawnSync(
      process.execPath,
      [
        "node_modules/vitest/vitest.mjs",
        "run",
        "--project",
        "unit",
        "--project",
        "sim",
        "--reporter=json",
        // Whatever a bug does to it, a test in a thread ends with the process.
        "--pool=threads",
        test.startsWith("multiraft")
          ? "multiraft"
          : test.startsWith("sim/")
            ? `test/${test}`
            : `test/unit/${test}`,
      ],
      { encoding: "utf8", timeout: 240_000, killSignal: "SIGKILL", maxBuffer: 1 << 28 },
    );
    if (status === 0) continue;
    let name = test;
    try {
      const failed = JSON.parse(stdout.slice(stdout.indexOf('{"num')))
        .testResults.flatMap((file) => file.assertionResults)
        .find((result) => result.status === "failed");
      if (failed !== undefined) name = `${test}: ${failed.fullName}`;
    } catch {
      // It did not even end: killed all the same.
    }
    return name.slice(0, 110);
  }
  return undefined;
}

const rows = [];
let survivors = 0;
/** What is to be written where, or why it cannot be. */
function edits({ file, find, replace, all: everywhere = false, also }) {
  const texts = new Map();
  for (const edit of [{ file, find, replace, everywhere }, ...(also === undefined ? [] : [also])]) {
    const text = texts.get(edit.file) ?? readFileSync(edit.file, "utf8");
    const found = text.split(edit.find).length - 1;
    if (found !== 1 && !(edit.everywhere && found > 0))
      return `its text is found ${found} times in ${edit.file}`;
    texts.set(
      edit.file,
      text.replaceAll(edit.find, () => edit.replace),
    );
  }
  return texts;
}

function write(texts) {
  for (const [file, text] of texts) {
    writeFileSync(file, text);
    writeTranspiled(text, file, join("dist-sim", file.replace(/\.ts$/, ".js")));
  }
}

for (const mutant of [...MUTANTS, ...RANGE_MUTANTS.map((mutant) => ({ ...mutant, manyRanges: true }))]) {
  if (!mutant.name.includes(only) || (rangesOnly && !mutant.manyRanges)) continue;
  const mutated = edits(mutant);
  if (typeof mutated === "string") {
    say(`${mutant.name}: ${mutated}`);
    survivors++;
    continue;
  }
  const original = new Map([...mutated.keys()].map((file) => [file, readFileSync(file, "utf8")]));
  write(mutated);
  const simulated = simulate(mutant.manyRanges);
  const tests = simOnly ? [] : mutant.tests;
  const unit = (all || !simulated.killed) && tests.length > 0 ? unitTests(tests) : undefined;
  write(original);
  const killed = simulated.killed || unit !== undefined;
  if (!killed) survivors++;
  rows.push({ mutant, simulated, unit, killed });
  say(
    `${killed ? "killed  " : "SURVIVED"} ${mutant.name}: ${simulated.told} (${simulated.took} s) ${simulated.why}${unit === undefined ? "" : ` · ${unit}`}`,
  );
}
process.chdir(from);
rmSync(scratch, { recursive: true, force: true });

const clean = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
if (!argv.includes("--no-table") && !simOnly && !rangesOnly && only === "")
  writeFileSync(
    "docs/mutants.md",
    `# Planted bugs

Each line is a bug planted on purpose (\`scripts/mutants\`), and who caught it: the simulator on the seeds 1 to
${seeds} (at most ${seconds} s a mutant), by the first seed that failed, or a unit test. \`npm run mutants\` makes this table.

| planted | in | the simulator | what it saw | unit test |
|---|---|---|---|---|
${rows.map(({ mutant, simulated, unit }) => `| ${clean(mutant.name)} | ${mutant.file.replace("src/", "")} | ${simulated.told} | ${clean(simulated.why)} | ${clean(unit ?? "")} |`).join("\n")}

${rows.filter(({ killed }) => killed).length} of ${rows.length} were caught.
`,
  );
say(`${rows.length} mutants, ${survivors} survived or could not be planted`);
process.exit(survivors > 0 ? 1 : 0);
