/**
 * `ostraka demo`: a cluster on this machine with a small sample database, and the shell on it. With SQL on standard
 * input it runs that and exits with psql's codes; then nothing but results goes to standard output.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { openDatabase } from "../connection.js";
import { CommandFailure, EXIT } from "../exit.js";
import { LocalCluster } from "../local-cluster.js";
import { SAMPLE_DATABASE, SAMPLE_QUERIES } from "../sample-database.js";
import { isEmpty } from "../slt/empty-database.js";
import { runShellOn } from "./sql.js";

interface DemoFlags {
  readonly nodes: string;
  readonly data?: string;
  readonly empty?: boolean;
  readonly shell: boolean;
}

export function addDemoCommand(program: Command): void {
  program
    .command("demo")
    .description("a cluster on this machine with a sample database, and the shell")
    .option("--nodes <n>", "how many nodes", "3")
    .option("--data <dir>", "keep the data there (default: a temporary directory, removed at the end)")
    .option("--empty", "without the sample database")
    .option("--no-shell", "stay in the foreground and print the URL instead")
    .action(async (flags: DemoFlags) => {
      process.exitCode = await runDemo(flags);
    });
}

async function runDemo(flags: DemoFlags): Promise<number> {
  const nodes = Number(flags.nodes);
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > 9) {
    throw new CommandFailure(EXIT.failure, "--nodes: a number from 1 to 9");
  }
  const dataDirectory = flags.data ?? mkdtempSync(join(tmpdir(), "ostraka-demo-"));
  const found = existsSync(dataDirectory) && readdirSync(dataDirectory).length > 0;
  const removeData = (): void => {
    if (flags.data === undefined) rmSync(dataDirectory, { recursive: true, force: true });
  };
  let cluster: LocalCluster | undefined;
  const stopped = onSignal(flags.shell, async () => {
    await cluster?.stop();
    removeData();
  });
  try {
    process.stderr.write(`Starting ${nodes} node${nodes === 1 ? "" : "s"} in ${dataDirectory} …\n`);
    cluster = await LocalCluster.start({ nodes, dataDirectory });
    if (flags.empty !== true && !found) await loadSample(cluster.url);
    if (!flags.shell) {
      process.stdout.write(`ready url=${cluster.url}\n`);
      return await stopped;
    }
    return await runShell(cluster, flags.empty !== true);
  } finally {
    await cluster?.stop();
    removeData();
  }
}

async function loadSample(url: string): Promise<void> {
  const database = await openDatabase({}, url);
  try {
    if (!(await isEmpty(database))) return;
    const session = await database.session();
    await session.exec(SAMPLE_DATABASE).finally(() => session.close());
  } finally {
    await database.close();
  }
}

async function runShell(cluster: LocalCluster, sample: boolean): Promise<number> {
  const { url } = cluster;
  if (process.stdin.isTTY === true && process.stdout.isTTY === true) {
    process.stderr.write(`Running at ${url}`);
    process.stderr.write(cluster.http === "off" ? "\n" : ` and http://${cluster.http}/\n`);
    if (sample)
      process.stderr.write(`A bookshop to try:\n${SAMPLE_QUERIES.map((sql) => `  ${sql}\n`).join("")}`);
  }
  return runShellOn(await openDatabase({}, url), url, {}, []);
}

const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/**
 * Runs `stop` at the first signal, then ends the process: with 0 from the foreground (`--no-shell`), where a signal is
 * how it ends well, else as one that the signal ended.
 */
function onSignal(shell: boolean, stop: () => Promise<void>): Promise<number> {
  return new Promise((resolve) => {
    let stopping = false;
    for (const [signal, number] of Object.entries(SIGNAL_NUMBERS)) {
      process.on(signal, () => {
        if (stopping) return;
        stopping = true;
        const exitCode = shell ? 128 + number : EXIT.ok;
        void stop().finally(() => {
          resolve(exitCode);
          process.exit(exitCode);
        });
      });
    }
  });
}
