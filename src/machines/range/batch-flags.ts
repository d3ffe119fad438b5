/** The session flags of the SQLite transaction in which commands are applied. */
import { SessionFlag } from "../../sql/types.js";
import { IMAGE_FLAGS } from "./participant.js";
import type { Command, PreparedTransaction } from "./types.js";

/** Whoever has one of these needs a batch alone. */
export const BATCH_FLAGS = SessionFlag.ForeignKeysOff | SessionFlag.DeferForeignKeys;

/** Of a batch that what is prepared shares with others; undefined when it needs one of its own. */
export function preparedFlags(body: PreparedTransaction["body"]["kind"] | undefined): number | undefined {
  return body === "schema" ? undefined : body === "statements" ? 0 : IMAGE_FLAGS;
}

export function aloneFlags(command: Command): number {
  switch (command.kind) {
    case "rows":
    case "trim":
    case "absorb":
      return IMAGE_FLAGS;
    case "execute":
      return command.statement.flags & SessionFlag.ForeignKeysOff;
    case "transaction":
      return (command.statements[0]?.flags ?? 0) & SessionFlag.ForeignKeysOff;
    default:
      return 0;
  }
}
