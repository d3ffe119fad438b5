/**
 * `ostraka start`: one node, in this process. Prints `ready node=… grpc=… http=…` on standard output when it serves.
 * SIGTERM and SIGINT drain it: leadership moves away, then it exits with 0; a second signal ends it at once. Before it
 * serves they end it with 0, since nobody was promised anything. It exits with 1 when it has to stop by itself (disk
 * failure, corruption, a broken invariant), for a supervisor to see.
 */
import { type Command, Option } from "commander";
import { NODE_DEFAULTS, type NodeFlags, parseNodeConfig } from "../../node/config.js";
import type { RunningNode } from "../../node/node.js";
import { describeError, EXIT, type ExitCode } from "../exit.js";

export function addStartCommand(program: Command): void {
  program
    .command("start")
    .description("run one node")
    .option("--node-id <n>", "this node's number; never one that was used before")
    .option("--data <dir>", "where its data is", NODE_DEFAULTS.data)
    .option("--listen <host:port>", "gRPC, for clients and nodes", NODE_DEFAULTS.listen)
    .option("--http <host:port>", "HTTP, or off", NODE_DEFAULTS.http)
    .option("--advertise <host:port>", "where others reach this node, when that is not --listen")
    .option(
      "--initial-cluster <id=host:port,…>",
      "the founding nodes; first start only, the same on all of them",
    )
    .option("--join <host:port,…>", "nodes of a running cluster to join")
    .option("--range-max-bytes <size>", "split ranges larger than this", NODE_DEFAULTS.rangeMaxBytes)
    .option("--range-max-rows <n>", "split ranges with more rows than this (default off)")
    .option(
      "--replicas <n>",
      "copies of every range, or fewer where fewer nodes exist",
      NODE_DEFAULTS.replicas,
    )
    .option(
      "--node-dead-ms <ms>",
      "how long a node must be silent before its replicas are made anew elsewhere (default 300000)",
    )
    .option("--election-timeout-ms <ms>", "how long to wait for a leader", NODE_DEFAULTS.electionTimeoutMs)
    .option("--log-level <level>", "trace, debug, info, warn, error, fatal or silent", NODE_DEFAULTS.logLevel)
    .option("--auth-token-file <file>", "the token that clients must show, in a file")
    .option("--tls-cert <file>", "this node's certificate, PEM")
    .option("--tls-key <file>", "its key, PEM")
    .option("--tls-ca <file>", "the certificates that nodes' certificates are signed with, PEM")
    .option("--cluster-secret-file <file>", "what nodes show one another when they have no certificates")
    .option("--insecure", "serve other machines without TLS or token")
    .addOption(new Option("--exit-with-parent", "stop when standard input ends").hideHelp())
    .action(run);
}

interface StartFlags extends NodeFlags {
  readonly exitWithParent?: boolean;
}

const LAST_CALLS_MS = 200;

async function run(flags: StartFlags): Promise<void> {
  const config = parseNodeConfig(flags);
  let node: RunningNode | undefined;
  const stopped = untilStopped(async () => (node === undefined ? end(EXIT.ok) : node.stop()), flags);
  // Loaded here, so that the other commands start without the server's code.
  const { startNode } = await import("../../node/index.js");
  node = await startNode(config).catch(giveUp);
  process.stdout.write(`ready node=${node.nodeId} grpc=${node.grpc} http=${node.http ?? "off"}\n`);
  const failure = await Promise.race([stopped, node.failed]);
  if (failure !== undefined) giveUp(failure);
  // Nothing that is left running may keep a drained node alive.
  process.exit(EXIT.ok);
}

/** Ends at once, as if killed, and says why: what is in memory may be wrong, and calls under way need not be waited for. */
function giveUp(failure: unknown): never {
  process.stderr.write(`Error: ${describeError(failure)}\n`);
  return end(EXIT.failure);
}

function end(exitCode: ExitCode): never {
  // Storage threads are given no more work and the time to finish what they have: one that is ended in the middle of a
  // call from SQLite would take the process down with SIGABRT.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LAST_CALLS_MS);
  process.exit(exitCode);
}

/** Resolves when a signal (or the parent's end) has come and `stop` has finished. */
function untilStopped(stop: () => Promise<void>, { exitWithParent }: StartFlags): Promise<undefined> {
  return new Promise((resolve, reject) => {
    let stopping = false;
    const begin = (): void => {
      stopping = true;
      stop().then(() => resolve(undefined), reject);
    };
    const onSignal = (): void => {
      if (stopping) process.exit(EXIT.failure);
      begin();
    };
    process.on("SIGTERM", onSignal).on("SIGINT", onSignal);
    if (exitWithParent === true) {
      // The parent holds the other end of the pipe and never writes: it ends when the parent does, however it does.
      process.stdin.on("error", () => undefined);
      process.stdin.once("close", () => {
        if (!stopping) begin();
      });
      process.stdin.resume();
    }
  });
}
