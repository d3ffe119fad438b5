/** ATTACH, DETACH, VACUUM and REINDEX, which are about a database's files: those are each node's own. */
import { UserError } from "../base/errors.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { StatementClass } from "../sql/types.js";
import { emptyOutcome } from "./outcomes.js";
import type { GatewaySession } from "./session.js";

type UpkeepClass = Extract<
  StatementClass,
  { readonly kind: "vacuum" } | { readonly kind: "attach" | "detach" | "analyze" | "reindex" }
>;

export function executeUpkeep({ transaction, settings }: GatewaySession, upkeep: UpkeepClass): ExecuteResult {
  switch (upkeep.kind) {
    case "attach":
    case "detach":
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `${upkeep.kind.toUpperCase()} is not supported: a cluster is one database`,
      );
    case "vacuum":
      if (upkeep.into)
        throw new UserError("OSTRAKA_UNSUPPORTED", "VACUUM INTO is not supported: use ostraka dump");
      if (transaction !== undefined)
        throw new UserError("SQLITE_ERROR", "cannot VACUUM from within a transaction");
      break;
    default:
  }
  settings.admitWrite();
  return emptyOutcome();
}
