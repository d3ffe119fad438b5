/**
 * Sorts what better-sqlite3 throws: the statement's own fault, which every replica meets alike, or this node's
 * trouble, which must never become a command's result.
 */
import Database from "better-sqlite3";
import { FatalError, OstrakaError, UserError } from "../../base/errors.js";

const NODE_TROUBLE =
  /^SQLITE_(FULL|IOERR|CORRUPT|NOMEM|CANTOPEN|READONLY|NOTADB|PROTOCOL|BUSY|LOCKED|INTERNAL|PERM|INTERRUPT|NOLFS)(_|$)/;

/** SQLite has a code of its own for a log's index that cannot grow, as it does whenever a file is opened. */
export function isDiskFull(error: unknown): boolean {
  const code = error instanceof Error && (error as { code?: unknown }).code;
  return code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE";
}

/** One of our functions found no memory: of a read that is the user's to know, and this node's trouble all the same. */
export function isOutOfMemory({ cause }: OstrakaError): boolean {
  if (!(cause instanceof RangeError)) return false;
  const { code } = cause as { code?: unknown };
  return code === "ERR_MEMORY_ALLOCATION_FAILED" || /allocation failed/i.test(cause.message);
}

/** An OstrakaError for anything thrown by better-sqlite3, or by our own functions called from SQL. */
export function classifySqliteError(error: unknown): OstrakaError {
  if (error instanceof OstrakaError) return error;
  if (error instanceof Database.SqliteError) {
    // Virtual tables report contents that they cannot parse as CORRUPT_VTAB: the user's doing, the same everywhere.
    if (error.code !== "SQLITE_CORRUPT_VTAB" && NODE_TROUBLE.test(error.code))
      return new FatalError(isDiskFull(error) ? "OSTRAKA_DISK_FULL" : error.code, error.message, {
        cause: error,
      });
    return new UserError(error.code, error.message);
  }
  if (error instanceof RangeError || error instanceof TypeError)
    return new UserError("SQLITE_ERROR", error.message, { cause: error });
  return new FatalError("OSTRAKA_INTERNAL", error instanceof Error ? error.message : String(error), {
    cause: error,
  });
}
