/**
 * The ostraka_* tables: what the cluster knows of itself, gathered when a statement reads them and placed beside the
 * user's tables in the process that runs it.
 */
import { UserError } from "../base/errors.js";
import type { SystemTable } from "../machines/range/types.js";

export type SystemTables = Readonly<Record<string, () => Promise<SystemTable>>>;

export function systemTablesFor(
  known: SystemTables,
  names: readonly string[],
): Promise<readonly SystemTable[]> {
  return Promise.all(
    names.map((name) => {
      const make = known[name];
      if (make === undefined) throw new UserError("SQLITE_ERROR", `no such table: ${name}`);
      return make();
    }),
  );
}
