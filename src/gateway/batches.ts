/**
 * Batches are all or nothing within whatever is open: they are no place for statements that begin, end or undo more than
 * the batch itself has done.
 */
import { UserError } from "../base/errors.js";
import { lowerAscii } from "../sql/tokenizer.js";
import type { StatementClass } from "../sql/types.js";

export function refuseEndings(classes: Iterable<StatementClass>): void {
  const savepoints: string[] = [];
  for (const kind of classes) {
    switch (kind.kind) {
      case "begin":
      case "commit":
      case "rollback":
        throw new UserError(
          "OSTRAKA_UNSUPPORTED",
          `${kind.kind.toUpperCase()} cannot be part of a batch, which is all or nothing by itself`,
        );
      case "savepoint":
        savepoints.push(lowerAscii(kind.name));
        break;
      case "release":
      case "rollback to": {
        const at = savepoints.lastIndexOf(lowerAscii(kind.name));
        if (at < 0) throw new UserError("SQLITE_ERROR", `no such savepoint: ${kind.name}`);
        savepoints.length = kind.kind === "release" ? at : at + 1;
        break;
      }
      default:
    }
  }
}
