/** Who may catch a planted bug: tests (of units, or scenarios with a name), and simulated worlds drawn from seeds. */
import { spawnSync } from "node:child_process";

/** A test that hangs ends with this; one that is only slow does not come near it. */
const TESTS_MS = 240_000;
const WORLD_SPARE_MS = 60_000;
/** What says that the bug broke the program itself, and not what the program promises. */
const BROKEN = /ReferenceError|SyntaxError/;

/** The files that a part's name in the lists means, as filters. */
export function filesOf(part) {
  if (part.startsWith("test/")) return part;
  if (part.startsWith("multiraft")) return "multiraft";
  return part.startsWith("sim/") ? `test/${part}` : `test/unit/${part}`;
}

/**
 * Runs these files, or of them the tests of these full names only. Answers how many tests ran, and the failed ones, the
 * cheapest first.
 */
export function runTests(files, names, timeoutMs = TESTS_MS) {
  const { status, stdout } = spawnSync(
    process.execPath,
    [
      "node_modules/vitest/vitest.mjs",
      "run",
      "--config",
      "mutants.config.ts",
      "--project",
      "unit",
      "--project",
      "sim",
      "--reporter=json",
      // Whatever a bug does to it, a test in a thread ends with the process.
      "--pool=threads",
      ...files,
      ...(names === undefined ? [] : ["-t", `^(${names.map(literally).join("|")})$`]),
    ],
    { encoding: "utf8", timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: 1 << 28 },
  );
  let results = [];
  try {
    results = JSON.parse(stdout.slice(stdout.indexOf('{"num'))).testResults;
  } catch {
    return { ran: 0, failed: [{ file: files[0], name: undefined, saw: "the tests did not end" }] };
  }
  const tests = results.flatMap((file) =>
    file.assertionResults.map((test) => ({
      ...test,
      file: file.name.slice(file.name.lastIndexOf("/test/") + 1),
    })),
  );
  const ran = tests.filter((test) => test.status === "passed" || test.status === "failed");
  const failed = ran
    .filter((test) => test.status === "failed")
    .sort((a, b) => (a.duration ?? 0) - (b.duration ?? 0))
    .map((test) => ({ file: test.file, name: test.fullName, ...seen(test.failureMessages.join("\n")) }));
  if (status !== 0 && failed.length === 0)
    failed.push({
      file: files[0],
      name: undefined,
      ...seen(results.find((file) => file.message)?.message ?? "an error outside of the tests"),
    });
  return { ran: ran.length, failed };
}

/** Worlds from these seeds, until one fails. */
export function runWorlds({ first, seeds, seconds, manyRanges }) {
  const child = spawnSync(
    process.execPath,
    [
      "dist-sim/test/sim/world/main.js",
      "--first",
      String(first),
      "--seeds",
      String(seeds),
      "--minutes",
      String(seconds / 60),
      "--no-shrink",
      ...(manyRanges ? ["--ranges"] : []),
    ],
    {
      encoding: "utf8",
      timeout: seconds * 1000 + WORLD_SPARE_MS,
      maxBuffer: 1 << 28,
      env: { ...process.env, SEED: undefined },
    },
  );
  const passed = child.stdout?.match(/^seed \d+ ok/gm)?.length ?? 0;
  const failed = /^seed (\d+) FAILED at [^:]*: (.*)$/m.exec(child.stdout ?? "");
  if (failed !== null) return { passed, seed: Number(failed[1]), ...seen(failed[2]) };
  if (child.status === 0) return { passed };
  const last = (child.stderr || "the world did not end").trim().split("\n").at(-1);
  return { passed, seed: first + passed, ...seen(last) };
}

function literally(name) {
  return name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
}

/** Its first lines, without where they were thrown. */
function seen(message) {
  const lines = message
    .split("\n")
    .map((text) => text.trim())
    .filter((text) => text !== "" && !text.startsWith("at "));
  return {
    saw: lines
      .slice(0, 3)
      .join(" ")
      .replace(/^(AssertionError|Error): /, "")
      .slice(0, 160),
    broken: BROKEN.test(message),
  };
}
