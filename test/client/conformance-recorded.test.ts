/** Recorded scripts and grammar cases: every stable step gives plain SQLite's answer, or is refused from a short list. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Grammar,
  newTally,
  readScript,
  replayGrammar,
  replayScript,
  type Target,
} from "../../scripts/conformance/replay.mjs";
import { plainTarget } from "../../scripts/conformance/targets.mjs";
import { oneNode, part, shared, unaccounted } from "./conformance-cluster.js";

const MINUTES = 60_000;
const scripts = shared("scripts");
const grammarFile = shared("grammar/sqlite_grammar_cases.json");
const files =
  scripts === undefined
    ? []
    : ["sqlite", "turso"].flatMap((folder) =>
        readdirSync(join(scripts, folder))
          .filter((name) => name.endsWith(".json.gz"))
          .sort()
          .map((name) => join(scripts, folder, name)),
      );

describe.skipIf(scripts === undefined && grammarFile === undefined)("recorded SQL", () => {
  let target: Target;
  beforeAll(async () => {
    target = await oneNode();
  }, 2 * MINUTES);
  afterAll(() => target.close());

  it.skipIf(scripts === undefined)("in scripts", { timeout: 30 * MINUTES }, async () => {
    const tally = newTally();
    for (const file of part(files, 8)) await replayScript(target, readScript(file), tally);
    process.stderr.write(
      `scripts: ${tally.equal} steps equal, ${tally.ran} not compared, ${tally.unsupported} refused\n`,
    );
    expect(unaccounted(tally)).toEqual([]);
    expect(tally.equal).toBeGreaterThan(1000);
  });

  it.skipIf(grammarFile === undefined)("over the whole grammar", { timeout: 10 * MINUTES }, async () => {
    const { setup, cases } = JSON.parse(readFileSync(grammarFile!, "utf8")) as Grammar;
    const tally = await replayGrammar(target, { setup, cases: part(cases, 4) });
    expect(unaccounted(tally)).toEqual([]);
    expect(tally.equal).toBeGreaterThan(100);
  });
});

describe.skipIf(scripts === undefined)("the replay itself", () => {
  it("finds plain SQLite equal, and a wrong answer different", async () => {
    const plain = plainTarget();
    const tally = newTally();
    const script = readScript(files[0]!);
    await replayScript(plain, script, tally);
    expect(tally.differences).toEqual([]);
    const steps = [
      { sql: "select 1", k: "SELECT", columns: ["1"], rows: [[2]] },
      { sql: "select 1", k: "SELECT", columns: ["x"], rows: [[1]] },
      { sql: "select 1.0", k: "SELECT", columns: ["1.0"], rows: [[1]] },
      { sql: "select 1", k: "SELECT", error: "no such table" },
      { sql: "select nothing", k: "SELECT", columns: ["nothing"], rows: [] },
      { sql: "begin", k: "BEGIN" },
    ];
    const wrong = await replayScript(plain, { name: "wrong", steps });
    expect(wrong.differences.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5]);
    await plain.close();
  });
});
