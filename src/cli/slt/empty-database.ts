/** Every file starts on an empty database: finding out whether one is, and making it so again. */
import type { Executor, Session } from "../../driver/types.js";
import { quoteName } from "../format/literals.js";

const OWN_OBJECTS = "select type, name from sqlite_schema where name not like 'sqlite\\_%' escape '\\'";

export async function isEmpty(executor: Executor): Promise<boolean> {
  const { rows } = await executor.execute(`${OWN_OBJECTS} limit 1`);
  return rows.length === 0;
}

/**
 * Drops everything. Views and triggers first, since they may mention what no longer exists; shadow tables go with
 * their virtual table, so what has gone meanwhile is passed over.
 */
export async function dropEverything(session: Session, timeoutMs: number): Promise<void> {
  if (session.state !== "idle") await session.execute("ROLLBACK");
  await session.execute("PRAGMA foreign_keys=OFF");
  for (const types of [["trigger"], ["view"], ["virtual"], ["table"]]) {
    for (const name of await namesOf(session, types[0]!)) {
      const kind = types[0] === "virtual" ? "table" : types[0];
      await session.execute(`DROP ${kind} IF EXISTS ${quoteName(name)}`, undefined, { timeoutMs });
    }
  }
}

async function namesOf(session: Session, type: string): Promise<string[]> {
  const condition =
    type === "virtual"
      ? "type = 'table' and sql like 'create virtual%'"
      : `type = '${type}' and name not like 'sqlite\\_%' escape '\\'`;
  const { rows } = await session.execute(
    `select name from sqlite_schema where ${condition} order by rowid desc`,
  );
  return rows.map((row) => String(row[0]));
}
