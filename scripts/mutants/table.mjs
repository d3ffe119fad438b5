/** docs/mutants.md: who caught what, in the run that wrote it. */
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Of temporary folders only what is in them. */
const TEMPORARY = new RegExp(`${join(tmpdir(), "ostraka-")}[^/ ]+/`, "g");
const clean = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ").replace(TEMPORARY, "");

const SECTIONS = [
  ["One range", (mutant) => !mutant.manyRanges],
  [
    "Transactions across ranges: fences, participants, coordinator, recovery",
    (mutant) => mutant.commit === true,
  ],
  ["Many ranges: splits, merges, routing", (mutant) => mutant.manyRanges && mutant.commit !== true],
];

function row({ mutant, result }) {
  const { test, world } = result;
  const by =
    test !== undefined
      ? `${test.file.replace("test/", "").replace(".test.ts", "")}: ${test.name ?? "did not end"}`
      : "";
  const simulated =
    world?.seed !== undefined
      ? `seed ${world.seed}`
      : world?.passed > 0
        ? `not in ${world.passed} seeds`
        : "";
  const saw = (test ?? world)?.saw ?? "";
  const rule = mutant.rule === undefined ? "" : ` (rule ${mutant.rule})`;
  return `| ${clean(mutant.name)}${rule} | ${mutant.file.replace("src/", "")} | ${clean(by)} | ${simulated} | ${clean(saw)} | ${result.seconds} |`;
}

export function table(rows, { seeds, minutes }) {
  const sections = SECTIONS.flatMap(([title, belongs]) => {
    const own = rows.filter(({ mutant }) => belongs(mutant));
    if (own.length === 0) return [];
    return [
      `## ${title}\n\n| planted | in | test | random worlds | what it saw | s |\n|---|---|---|---|---|---|\n${own.map(row).join("\n")}\n`,
    ];
  });
  const caught = rows.filter(({ result }) => result.killed);
  const byTest = caught.filter(({ result }) => result.test !== undefined).length;
  const byWorld = caught.filter(({ result }) => result.world?.seed !== undefined).length;
  return `# Planted bugs

Each line is a bug planted on purpose (\`scripts/mutants\`), and who caught it, all on one tree, as
\`npm run mutants\` makes it. First the test is tried that is known to catch it (a unit test, or a scenario with a name),
alone; where none does, all tests of the part; and where none of them does, random worlds on the seeds from 1 to ${seeds}, in
order, until one fails.

The fourth column is about random worlds. "Seed 6": of the seeds from 1 on, 6 was the first that failed, in this run, or in
an earlier one and again in this. "Not in 3 seeds": none of the first three did. Where it is empty, none was tried, since a
test had caught the bug (\`--worlds\` tries some for every bug). A number in brackets is the rule of the transaction protocol that
the bug breaks (\`test/unit/txn/protocol/rules.ts\`). All tests named here pass without the bugs.

${sections.join("\n")}
${caught.length} of ${rows.length} were caught: ${byTest} by tests, ${byWorld} by random worlds (some by both), in ${minutes} minutes.
`;
}
