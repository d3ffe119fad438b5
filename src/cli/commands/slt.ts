/** `ostraka slt`: sqllogictest files through the driver, each on an empty database. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { type Command, Option } from "commander";
import type { Database } from "../../driver/types.js";
import {
  addConnectionOptions,
  type ConnectionFlags,
  isConnectionLost,
  resolveUrl,
  withDatabase,
} from "../connection.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { LocalCluster } from "../local-cluster.js";
import { dropEverything, isEmpty } from "../slt/empty-database.js";
import { findSltFiles, readSltFile } from "../slt/files.js";
import { parseSlt, type SltRecord } from "../slt/parser.js";
import { type FileResult, type RunOptions, runSlt } from "../slt/runner.js";

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
  statements?: StatementCounts;
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
  if (flags.nodes === undefined && flags.rangeMaxRows !== undefined)
    throw new CommandFailure(EXIT.failure, "--range-max-rows is for a cluster of --nodes");
  const files = findSltFiles(paths);
  const reports: FileReport[] = [];
  try {
    if (flags.nodes !== undefined) await runOnOwnCluster(files, flags, reports);
    else await runOn(resolveUrl(flags), flags, { files, flags, reports });
  } finally {
    // Whatever ended the run: what was found out until then is told.
    if (reports.length > 0) conclude(reports, flags);
  }
  if (reports.some(({ failed }) => failed > 0)) throw new CommandFailure(EXIT.failure, "");
}

function conclude(reports: readonly FileReport[], flags: SltFlags): void {
  const passed = reports.reduce((sum, report) => sum + report.passed, 0);
  const failed = reports.reduce((sum, report) => sum + report.failed, 0);
  const skipped = reports.reduce((sum, report) => sum + report.skipped, 0);
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  if (flags.report !== undefined) {
    writeFileSync(
      flags.report,
      `${JSON.stringify({ passed, failed, skipped, statements: sumOf(reports), files: reports }, undefined, 2)}\n`,
    );
  }
}

async function runOnOwnCluster(
  files: readonly string[],
  flags: SltFlags,
  reports: FileReport[],
): Promise<void> {
  if (flags.rangeMaxRows === undefined) return onOwnCluster(files, flags, reports);
  // Ranges stay when their tables are dropped: the files of one after the other would make ever more of them.
  for (const file of files) await onOwnCluster([file], flags, reports);
}

async function onOwnCluster(files: readonly string[], flags: SltFlags, reports: FileReport[]): Promise<void> {
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
    await runOn(cluster.url, {}, { files, flags, reports, ours: true });
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

interface SltRun {
  readonly files: readonly string[];
  readonly flags: SltFlags;
  /** Where what happened is added, file by file. */
  readonly reports: FileReport[];
  /** The cluster was made for the run, and goes as it is. */
  readonly ours?: boolean;
}

function runOn(url: string, connection: ConnectionFlags, run: SltRun): Promise<void> {
  return withDatabase(connection, url, (database) =>
    runFiles(database, run, (error) => isConnectionLost(error, connection, url)),
  );
}

async function runFiles(
  database: Database,
  { files, flags, reports, ours }: SltRun,
  isLost: (error: unknown) => Promise<boolean>,
): Promise<void> {
  const exclusions = parseExclusions(flags.exclude);
  const timeoutMs = wholeNumber("--timeout-ms", flags.timeoutMs);
  if (!(await isEmpty(database))) {
    throw new CommandFailure(EXIT.failure, "the database is not empty; the tests would drop what is in it");
  }
  /** Why the files that are left are not run. */
  let hindrance: string | undefined;
  for (const file of files) {
    const before =
      flags.report === undefined || hindrance !== undefined ? undefined : await statementCounts(database);
    const report = await runFile(database, file, hindrance, {
      excludes: (line) => exclusions.some((one) => one.line === line && isTail(one.file, file)),
      timeoutMs,
      isConnectionLost: isLost,
    });
    if (report.connectionLost === true) hindrance = "not run: no node answers";
    else if (before !== undefined) report.statements = difference(await statementCounts(database), before);
    if (hindrance === undefined && (ours !== true || file !== files.at(-1))) {
      try {
        await empty(database, timeoutMs);
      } catch (error) {
        hindrance = "not run: the database is not empty";
        failAsWhole(report, `what it made could not be dropped: ${describeError(error)}`);
      }
    }
    reports.push(report);
    printReport(report, Number(flags.showFailures));
  }
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
  hindrance: string | undefined,
  options: RunOptions,
): Promise<FileReport> {
  const started = performance.now();
  const none: FileReport = { file, seconds: 0, passed: 0, failed: 0, skipped: 0, failures: [] };
  if (hindrance !== undefined) return failAsWhole(none, hindrance);
  let records: SltRecord[];
  try {
    records = parseSlt(readSltFile(file));
  } catch (error) {
    return failAsWhole(none, describeError(error));
  }
  const session = await database.session();
  try {
    const result = await runSlt(session, records, options);
    return { file, seconds: Math.round(performance.now() - started) / 1000, ...result };
  } finally {
    await session.close();
  }
}

/** A failure that is none of its records'. */
function failAsWhole(report: FileReport, reason: string): FileReport {
  report.failed++;
  report.failures.push({ line: 0, reason, sql: "" });
  return report;
}

async function empty(database: Database, timeoutMs: number): Promise<void> {
  const session = await database.session();
  await dropEverything(session, timeoutMs).finally(() => session.close());
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
    process.stdout.write(`     ${file}${line === 0 ? "" : `:${line}`}: ${reason}\n`);
    if (sql !== "") process.stdout.write(`       ${sql.replaceAll("\n", "\n       ")}\n`);
    if (expected !== undefined)
      process.stdout.write(`       expected: ${expected.slice(0, 10).join(" | ")}\n`);
    if (actual !== undefined) process.stdout.write(`       actual:   ${actual.slice(0, 10).join(" | ")}\n`);
  }
}
