/**
 * `ostraka recover --quorum-lost`: makes a cluster of its own of one node's data, when no majority of the others will
 * ever come back. Offline: the node must not be running. Says what may be lost, and what to do next.
 */
import type { Command } from "commander";
import { NODE_DEFAULTS } from "../../node/config.js";
import type { Recovery } from "../../node/recover.js";
import { CommandFailure, EXIT } from "../exit.js";
import { printJson } from "../tables.js";

interface RecoverFlags {
  readonly data: string;
  readonly quorumLost?: boolean;
  readonly json?: boolean;
}

export function addRecoverCommand(program: Command): void {
  program
    .command("recover")
    .description("go on with one node's data after the others are lost for good (offline)")
    .option("--data <dir>", "the surviving node's data", NODE_DEFAULTS.data)
    .option("--quorum-lost", "the majority is lost and will not come back")
    .option("--json", "JSON for machines")
    .action(async (flags: RecoverFlags) => {
      if (flags.quorumLost !== true)
        throw new CommandFailure(
          EXIT.failure,
          "recover gives up what only the lost nodes knew; say --quorum-lost if a majority is lost for good",
        );
      const { recoverDirectory } = await import("../../node/index.js");
      const recovery = await recoverDirectory(flags.data);
      if (flags.json === true) printJson(recovery);
      else process.stdout.write(report(flags.data, recovery));
    });
}

function report(directory: string, recovery: Recovery): string {
  const { nodeId, clusterId, groups, lostNodes, lostRanges, coordinatorLost } = recovery;
  const lines = [
    `${directory} is now a cluster of its own: node ${nodeId} of cluster ${clusterId}.`,
    `Left behind: ${lostNodes.length === 0 ? "no other nodes were known" : `nodes ${lostNodes.join(", ")}`}.`,
    "",
    "What may be lost:",
    "- writes that were acknowledged by the lost nodes and had not reached this one;",
  ];
  for (const { group, kind, uncertain } of groups)
    if (uncertain > 0)
      lines.push(
        `- nothing of ${kind} ${group}, but ${uncertain} of its last entries may be in doubt: they are kept;`,
      );
  if (lostRanges.length > 0)
    lines.push(`- ALL rows of the ranges ${lostRanges.join(", ")}, which have no replica here;`);
  if (coordinatorLost)
    lines.push("- transactions across ranges that were being committed: they are aborted;");
  lines.push(
    "",
    "Next: start the node with `ostraka start --data` and this directory, look at the data, and let new nodes join",
    "(`ostraka start --join`, with empty directories and new ids). The other nodes' old data is of no use to this",
    "cluster and is refused; keep it until you are sure that nothing in it is needed.",
  );
  return `${lines.join("\n")}\n`;
}
