/** `ostraka slt`: sqllogictest files through the driver, each on an empty database. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { type Command, Option } from "commander";
import type { Database } from "../../driver/types.js";
import { addConnectionOptions, type ConnectionFlags, resolveUrl, withDatabase } from "../connection.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { LocalCluster } from "../local-cluster.js";
import { dropEverything, isEmpty } from "../slt/empty-database.js";
import { findSltFiles, readSltFile } from "../slt/files.js";
import { parseSlt } from "../slt/parser.js";
import { type FileResult, runSlt } from "../slt/runner.js";

/** As nodes count them: at one range, pushed down to several, or over all rows of several. */
type StatementCounts = Readonly<Record<string, number>>;

interface SltFlags extends ConnectionFlags {
  readonly nodes?: string;
  readonly rangeMaxRows?: string;
  readonly report?: string;
  readonly exclude: readonly string[];
  readonly timeoutMs: string;
  readonly showFailures: string;
}

interface FileReport extends FileResult {
  /** How the file's statements ran, by kind. */
  readonly statements?: StatementCounts | undefined;
  readonly file: string;
  readonly seconds: number;
}

export function addSltCommand(program: Command): void {
  const command = program
    .command("slt")
    .description("run sqllogictest files (plain or .gz, folders recursive)")
    .argument("<path...>", "files and folders");
  addConnectionOptions(command)
    .option("--nodes <n>", "run on a cluster of this many nodes, made for the purpose")
    .option("--range-max-rows <r>", "with --nodes: split ranges with more rows than this")
    .option("--report <file>", "write what happened as JSON")
    .addOption(
      new Option("--exclude <file:line>", "pass over this record; may be given several times")
        .argParser((text: string, all: readonly string[]) => [...all, text])
        .default([]),
    )
    .option("--timeout-ms <ms>", "how long a record may take", "60000")
    .option("--show-failures <n>", "how many failures of a file to describe", "5")
    .action(run);
}

async function run(paths: string[], flags: SltFlags): Promise<void> {
  const files = findSltFiles(paths);
  const reports =
    flags.nodes === undefined
      ? await withDatabase(flags, resolveUrl(flags), (database) => runFiles(database, files, flags, "theirs"))
      : await runOnOwnCluster(files, flags);
  const passed = reports.reduce((sum, report) => sum + report.passed, 0);
  const failed = reports.reduce((sum, report) => sum + report.failed, 0);
  const skipped = reports.reduce((sum, report) => sum + report.skipped, 0);
  if (flags.report !== undefined) {
    writeFileSync(
      flags.report,
      `${JSON.stringify({ passed, failed, skipped, statements: sumOf(reports), files: reports }, undefined, 2)}\n`,
    );
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  if (failed > 0) throw new CommandFailure(EXIT.failure, "");
}

async function runOnOwnCluster(files: readonly string[], flags: SltFlags): Promise<FileReport[]> {
  if (flags.rangeMaxRows === undefined) return onOwnCluster(files, flags);
  // Ranges stay when their tables are dropped: the files of one after the other would make ever more of them.
  const reports: FileReport[] = [];
  for (const file of files) reports.push(...(await onOwnCluster([file], flags)));
  return reports;
}

async function onOwnCluster(files: readonly string[], flags: SltFlags): Promise<FileReport[]> {
  if (flags.url !== undefined) throw new CommandFailure(EXIT.failure, "--url and --nodes exclude each other");
  const nodes = wholeNumber("--nodes", flags.nodes ?? "1");
  const rangeMaxRows =
    flags.rangeMaxRows === undefined ? undefined : wholeNumber("--range-max-rows", flags.rangeMaxRows);
  const dataDirectory = mkdtempSync(join(tmpdir(), "ostraka-slt-"));
  let cluster: LocalCluster | undefined;
  const stopOnSignal = (signal: NodeJS.Signals): void => {
    void (cluster?.stop() ?? Promise.resolve()).finally(() => {
      rmSync(dataDirectory, { recursive: true, force: true });
      process.exit(signal === "SIGINT" ? 130 : 143);
    });
  };
  process.on("SIGINT", stopOnSignal).on("SIGTERM", stopOnSignal);
  try {
    cluster = await LocalCluster.start({ nodes, dataDirectory, rangeMaxRows, logLevel: "warn" });
    return await withDatabase({}, cluster.url, (database) => runFiles(database, files, flags, "ours"));
  } finally {
    await cluster?.stop();
    rmSync(dataDirectory, { recursive: true, force: true });
    process.off("SIGINT", stopOnSignal).off("SIGTERM", stopOnSignal);
  }
}

function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new CommandFailure(EXIT.failure, `${flag}: not a number above 0`);
  return value;
}

async function runFiles(
  database: Database,
  files: readonly string[],
  flags: SltFlags,
  whose: "ours" | "theirs",
): Promise<FileReport[]> {
  const exclusions = parseExclusions(flags.exclude);
  if (!(await isEmpty(database))) {
    throw new CommandFailure(EXIT.failure, "the database is not empty; the tests would drop what is in it");
  }
  const reports: FileReport[] = [];
  for (const file of files) {
    const before = flags.report === undefined ? undefined : await statementCounts(database);
    const timeoutMs = wholeNumber("--timeout-ms", flags.timeoutMs);
    const ran = await runFile(database, file, {
      excludes: (line) => exclusions.some((one) => one.line === line && isTail(one.file, file)),
      timeoutMs,
    });
    const statements = before && difference(await statementCounts(database), before);
    const report = { ...ran, statements };
    reports.push(report);
    printReport(report, Number(flags.showFailures));
    // A cluster of our own goes as it is.
    if (whose === "theirs" || file !== files.at(-1)) await empty(database, timeoutMs);
  }
  return reports;
}

/** Of all nodes that tell, since their start. How statements ran is beside the point of a test. */
async function statementCounts(database: Database): Promise<StatementCounts> {
  try {
    const nodes = (await database.admin("node.list")) as readonly { readonly id: number }[];
    const reports = await Promise.all(nodes.map(({ id }) => database.admin("node.status", { node: id })));
    return sumOf(reports as readonly { readonly statements?: StatementCounts }[]);
  } catch {
    return {};
  }
}

function sumOf(reports: readonly { readonly statements?: StatementCounts | undefined }[]): StatementCounts {
  const sum: Record<string, number> = {};
  for (const { statements } of reports)
    for (const [kind, count] of Object.entries(statements ?? {})) sum[kind] = (sum[kind] ?? 0) + count;
  return sum;
}

function difference(after: StatementCounts, before: StatementCounts): StatementCounts {
  return Object.fromEntries(
    Object.entries(after).map(([kind, count]) => [kind, count - (before[kind] ?? 0)]),
  );
}

async function runFile(
  database: Database,
  file: string,
  options: Parameters<typeof runSlt>[2],
): Promise<FileReport> {
  const started = performance.now();
  const seconds = (): number => Math.round(performance.now() - started) / 1000;
  const records = parseFile(file);
  const session = await database.session();
  try {
    const result = await runSlt(session, records, options);
    return { file, seconds: seconds(), ...result };
  } finally {
    await session.close();
  }
}

async function empty(database: Database, timeoutMs: number): Promise<void> {
  const session = await database.session();
  await dropEverything(session, timeoutMs).finally(() => session.close());
}

function parseFile(file: string): ReturnType<typeof parseSlt> {
  try {
    return parseSlt(readSltFile(file));
  } catch (error) {
    throw new CommandFailure(EXIT.failure, `${file}: ${describeError(error)}`);
  }
}

function parseExclusions(texts: readonly string[]): { readonly file: string; readonly line: number }[] {
  return texts.map((text) => {
    const match = /^(.+):(\d+)$/.exec(text);
    if (match === null) throw new CommandFailure(EXIT.failure, `--exclude: ${text} is not FILE:LINE`);
    return { file: match[1]!, line: Number(match[2]) };
  });
}

/** Whether `path` is this file, named by the end of its path. */
function isTail(tail: string, path: string): boolean {
  return path === tail || path.endsWith(`/${tail}`);
}

function printReport(report: FileReport, shown: number): void {
  const { file, passed, failed, skipped, seconds, failures } = report;
  const state = failed === 0 ? "ok  " : "FAIL";
  process.stdout.write(
    `${state} ${file}: ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds} s)\n`,
  );
  for (const { line, reason, sql, expected, actual } of failures.slice(0, shown)) {
    process.stdout.write(`     ${file}:${line}: ${reason}\n       ${sql.replaceAll("\n", "\n       ")}\n`);
    if (expected !== undefined)
      process.stdout.write(`       expected: ${expected.slice(0, 10).join(" | ")}\n`);
    if (actual !== undefined) process.stdout.write(`       actual:   ${actual.slice(0, 10).join(" | ")}\n`);
  }
}
