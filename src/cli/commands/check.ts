/**
 * `ostraka check`: whether every replica of every group holds the same state, compared by digest at equal applied
 * index. Exits 1 on any difference, and on any replica that could not be asked: silence is not agreement.
 */
import type { Command } from "commander";
import {
  addConnectionOptions,
  type ConnectionFlags,
  NO_TIMEOUT_MS,
  resolveUrl,
  withDatabase,
} from "../connection.js";
import { CommandFailure, EXIT } from "../exit.js";
import { printJson, printRecords } from "../tables.js";

interface ReplicaDigest {
  readonly node: number;
  readonly appliedIndex: number;
  readonly digest: string | null;
  readonly error?: string;
}

interface CheckAnswer {
  readonly equal: boolean;
  readonly groups: readonly {
    readonly group: number;
    readonly index: number;
    readonly replicas: readonly ReplicaDigest[];
  }[];
}

export function addCheckCommand(program: Command): void {
  const command = program.command("check").description("compare the state of all replicas");
  addConnectionOptions(command)
    .option("--json", "JSON for machines")
    .action(async (flags: ConnectionFlags & { readonly json?: boolean }) => {
      const answer = (await withDatabase(flags, resolveUrl(flags), (database) =>
        database.admin("check", {}, { timeoutMs: NO_TIMEOUT_MS }),
      )) as CheckAnswer;
      if (flags.json === true) printJson(answer);
      else print(answer);
      if (!isEqual(answer))
        throw new CommandFailure(EXIT.failure, flags.json === true ? "" : "replicas differ or are missing");
    });
}

/** The server's word, checked against what it shows. */
export function isEqual({ equal, groups }: CheckAnswer): boolean {
  return (
    equal &&
    groups.length > 0 &&
    groups.every(
      ({ replicas }) =>
        replicas.length > 0 &&
        replicas.every(
          ({ digest, appliedIndex, error }) =>
            error === undefined &&
            digest !== null &&
            digest === replicas[0]!.digest &&
            appliedIndex === replicas[0]!.appliedIndex,
        ),
    )
  );
}

function print({ groups }: CheckAnswer): void {
  const records = groups.flatMap(({ group, replicas }) =>
    replicas.map(({ node, appliedIndex, digest, error }) => ({
      group,
      node,
      applied: appliedIndex,
      digest: error ?? digest,
    })),
  );
  printRecords(records, ["group", "node", "applied", "digest"]);
}
