/**
 * Everything that decides whether the tree is good, in order, each step timed: build, lint, types, dead code, tests,
 * SQL logic tests. Goes on after a failed step, says at the end what failed, and prints one line with the totals.
 *
 *   npm test                      all of it
 *   npm test -- unit cluster      only the named steps (after the build)
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const wanted = new Set(process.argv.slice(2));
const scratch = mkdtempSync(join(tmpdir(), "ostraka-check-"));
const bin = (name) => join("node_modules", ".bin", name);
const vitest = (name) => ({
  name,
  command: [
    bin("vitest"),
    "run",
    "--project",
    name,
    "--reporter=dot",
    "--reporter=json",
    `--outputFile.json=${join(scratch, `${name}.json`)}`,
  ],
  count: () => {
    const { numPassedTests, numFailedTests } = JSON.parse(
      readFileSync(join(scratch, `${name}.json`), "utf8"),
    );
    return [numPassedTests, numFailedTests];
  },
});
const slt = (name, nodes, paths, flags = []) => ({
  name,
  command: [
    process.execPath,
    "dist/cli/main.js",
    "slt",
    "--nodes",
    String(nodes),
    ...flags,
    "--report",
    join(scratch, `${name}.json`),
    ...paths,
  ],
  count: () => {
    const report = JSON.parse(readFileSync(join(scratch, `${name}.json`), "utf8"));
    return [report.passed, report.failed];
  },
});

/** A part of the shared corpus small enough for every run; the whole of it is for longer ones. */
const SAMPLE = [
  "evidence/in1.test.gz",
  "evidence/slt_lang_createtrigger.test.gz",
  "evidence/slt_lang_dropview.test.gz",
  "evidence/slt_lang_dropindex.test.gz",
  "evidence/slt_lang_update.test.gz",
  "select1.test.gz",
  "select5.a.test.gz",
  "index/view/10/slt_good_3.test.gz",
].map((file) => join("..", "shared", "slt", file));

/** Every table that matters in several ranges. */
const MANY_RANGES = ["--range-max-rows", "8"];

const steps = [
  { name: "build", command: [bin("tsc"), "-p", "tsconfig.build.json"] },
  { name: "lint", command: [bin("biome"), "ci", "."] },
  { name: "types", command: [bin("tsc"), "-p", "tsconfig.json"] },
  { name: "pure-types", command: [bin("tsc"), "-p", "tsconfig.pure.json"] },
  { name: "dead-code", command: [bin("knip")] },
  vitest("unit"),
  vitest("sim"),
  vitest("cluster"),
  vitest("client"),
  slt("slt-own-1", 1, ["sql-tests"]),
  slt("slt-own-3", 3, ["sql-tests"]),
  slt("slt-own-many", 1, ["sql-tests"], MANY_RANGES),
  ...(existsSync(SAMPLE[0])
    ? [
        slt("slt-shared-1", 1, SAMPLE),
        slt("slt-shared-3", 3, SAMPLE.slice(0, 6)),
        slt("slt-shared-many", 3, SAMPLE.slice(0, 6), MANY_RANGES),
      ]
    : [{ name: "slt-shared", skip: "../shared is absent: the shared SQL logic tests were skipped" }]),
];

function run(command) {
  return new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), {
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    child.on("error", (error) => {
      console.error(String(error));
      resolve(1);
    });
    child.on("exit", (code, signal) => resolve(signal === null ? code : 1));
  });
}

let passed = 0;
let failed = 0;
const lines = [];
for (const step of steps) {
  if (wanted.size > 0 && step.name !== "build" && !wanted.has(step.name)) continue;
  if (step.skip !== undefined) {
    lines.push(`skipped  ${step.name}: ${step.skip}`);
    continue;
  }
  console.log(`\n== ${step.name}`);
  const startedMs = performance.now();
  const code = await run(step.command);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  let counted = code === 0 ? [1, 0] : [0, 1];
  try {
    if (step.count !== undefined) counted = step.count();
  } catch (error) {
    console.error(`${step.name}: no report (${error.message})`);
    counted = [0, 1];
  }
  if (code !== 0 && counted[1] === 0) counted[1] = 1;
  passed += counted[0];
  failed += counted[1];
  lines.push(
    `${counted[1] === 0 ? "ok      " : "FAILED  "} ${step.name}: ${counted[0]} passed, ${counted[1]} failed, ${seconds} s`,
  );
  if (step.name === "build" && code !== 0) break;
}
rmSync(scratch, { recursive: true, force: true });
console.log(`\n${lines.join("\n")}\n`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
