/** Runs worlds from the command line; see scripts/sim.mjs. */
import { describeFault, type Fault } from "./faults.js";
import { freshSeed, type Kind, replay } from "./seeds.js";
import { type RunReport, runSeed } from "./world.js";

interface Flags {
  readonly seed: number | undefined;
  readonly seeds: number;
  readonly minutes: number;
  readonly first: number;
  readonly shrink: boolean;
  readonly twice: boolean;
  readonly verbose: boolean;
  readonly keepGoing: boolean;
  readonly manyRanges: boolean;
  readonly members: boolean;
  readonly long: boolean;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function flags(argv: readonly string[]): Flags {
  const value = (name: string): string | undefined => {
    const at = argv.indexOf(name);
    return at < 0 ? undefined : argv[at + 1];
  };
  const seed = process.env.SEED ?? value("--seed");
  return {
    seed: seed === undefined ? undefined : Number(seed),
    seeds: Number(value("--seeds") ?? 20),
    minutes: Number(value("--minutes") ?? 60 * 24),
    first: Number(value("--first") ?? freshSeed()),
    shrink: !argv.includes("--no-shrink"),
    twice: argv.includes("--twice"),
    verbose: argv.includes("--verbose"),
    keepGoing: argv.includes("--keep-going"),
    manyRanges: argv.includes("--ranges") || argv.includes("--members"),
    members: argv.includes("--members"),
    long: argv.includes("--long"),
  };
}

/** Leaves out ever smaller parts of the faults while the run still fails, whatever it fails with. */
async function shrink(report: RunReport, kind: Kind): Promise<RunReport> {
  let best = report;
  let left = 60;
  for (let size = Math.ceil(best.faults.length / 2); size >= 1 && left > 0; ) {
    let removed = false;
    for (let at = 0; at < best.faults.length && left > 0; at += size) {
      const faults: Fault[] = [...best.faults.slice(0, at), ...best.faults.slice(at + size)];
      left--;
      const tried = await runSeed({ seed: report.seed, faults, ...kind });
      if (tried.violation === undefined) continue;
      best = tried;
      removed = true;
      break;
    }
    if (!removed) size = size === 1 ? 0 : Math.ceil(size / 2);
  }
  return best;
}

function tell(report: RunReport, kind: Kind, verbose: boolean): void {
  say(`\nseed ${report.seed} FAILED at ${(report.virtualMs / 1000).toFixed(3)} s: ${report.violation}`);
  say("faults:");
  for (const fault of report.faults) say(`  ${describeFault(fault)}`);
  if (verbose) {
    say("trace:");
    for (const line of report.lines) say(`  ${line}`);
    say("logs:");
    for (const line of report.logs) say(`  ${line}`);
    say("ranges:");
    for (const line of report.ranges) say(`  ${line}`);
  }
  say(`replay: ${replay(report.seed, kind)}`);
}

async function main(): Promise<number> {
  const options = flags(process.argv.slice(2));
  const kind: Kind = { manyRanges: options.manyRanges, members: options.members, long: options.long };
  const started = performance.now();
  const sometimes = new Map<string, number>();
  let events = 0;
  let virtualMs = 0;
  let operations = 0;
  let runs = 0;
  const failures: number[] = [];
  const seeds =
    options.seed !== undefined
      ? [options.seed]
      : Array.from({ length: options.seeds }, (_, i) => options.first + i);
  for (const seed of seeds) {
    if (performance.now() - started > options.minutes * 60_000) break;
    const startedMs = performance.now();
    const report = await runSeed({ seed, ...kind });
    runs++;
    events += report.events;
    virtualMs += report.virtualMs;
    operations += report.operations;
    for (const [what, count] of report.sometimes) sometimes.set(what, (sometimes.get(what) ?? 0) + count);
    say(
      `seed ${seed} ${report.violation === undefined ? "ok" : "FAILED"} hash ${report.hash} events ${report.events} operations ${report.operations} virtual ${(report.virtualMs / 1000).toFixed(1)} s in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
    );
    if (options.twice) {
      const again = await runSeed({ seed, ...kind });
      if (again.hash !== report.hash) {
        say(`seed ${seed} is not deterministic: ${report.hash}, then ${again.hash}`);
        failures.push(seed);
      }
    }
    if (report.violation === undefined) continue;
    failures.push(seed);
    tell(
      options.shrink ? await shrink(report, kind) : report,
      kind,
      options.verbose || options.seed !== undefined,
    );
    if (!options.keepGoing) break;
  }
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage();
  say("\nsometimes:");
  for (const [what, count] of [...sometimes].sort()) say(`  ${String(count).padStart(8)} ${what}`);
  say(
    `\n${runs} seeds, ${failures.length} failed${failures.length > 0 ? ` (${failures.join(", ")})` : ""}; ${(virtualMs / 3_600_000).toFixed(2)} simulated hours, ${operations} operations, ${events} events in ${seconds.toFixed(0)} s (${(events / seconds).toFixed(0)} a second), ${((user + system) / 1e6).toFixed(0)} s of processor time`,
  );
  return failures.length > 0 ? 1 : 0;
}

process.exitCode = await main();
