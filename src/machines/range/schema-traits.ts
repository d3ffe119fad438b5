/**
 * What every statement needs to know of the schema as a whole, found by looking for words in its text: a word that is there
 * may mean nothing, and one that is not there means that there is none of it.
 */
import type Database from "better-sqlite3";
import { HIDDEN_PREFIX } from "./connection-setup.js";
import { mayHoldPureDates } from "./pure-dates.js";
import { Remembered } from "./remembered.js";

export interface SchemaTraits {
  /** Triggers or foreign keys may change rows. */
  readonly indirectChanges: boolean;
  /** The schema itself asks for last_insert_rowid() or changes(). */
  readonly asksSession: boolean;
  readonly virtualTables: boolean;
  /** An index, a generated column or a CHECK may call a date function. */
  readonly pureDates: boolean;
  /** Some table may have a CHECK. */
  readonly checks: boolean;
  /** A foreign key may be checked only at COMMIT, or a virtual table does more then than at a savepoint (FTS3 and FTS4). */
  readonly waitsForCommit: boolean;
  /** There are tables of statistics. */
  readonly statistics: boolean;
  /** Triggers may write statistics. */
  readonly statisticsTriggers: boolean;
}

type Row = readonly [schema: "main" | "temp", type: string, name: string, sql: string];

const remembered = new Remembered<SchemaTraits>(8);

/** `database` must be a RangeConnection's. */
export function readSchemaTraits(database: Database.Database): SchemaTraits {
  const rows = database
    .prepare(
      `SELECT 'main', type, name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL
       UNION ALL SELECT 'temp', type, name, sql FROM temp.sqlite_schema WHERE sql IS NOT NULL`,
    )
    .raw(true)
    .all() as Row[];
  return remembered.of(JSON.stringify(rows), () => traitsOf(rows));
}

function traitsOf(rows: readonly Row[]): SchemaTraits {
  const visible = rows.filter(([, , name]) => !name.startsWith(HIDDEN_PREFIX));
  const tables = rows.filter(([schema, type]) => schema === "main" && type === "table");
  return {
    indirectChanges: visible.some(([, type, , sql]) => type === "trigger" || /references/i.test(sql)),
    asksSession: visible.some(([, , , sql]) => /changes|last_insert_rowid/i.test(sql)),
    virtualTables: visible.some(([, , , sql]) => /^create virtual /i.test(sql)),
    pureDates: rows.some(([schema, type, , sql]) => schema === "main" && mayHoldPureDates(type, sql)),
    checks: visible.some(([, , , sql]) => /check/i.test(sql)),
    waitsForCommit: tables.some(([, , , sql]) =>
      /deferr|^create virtual table[\s\S]*using[\s\S]*fts[34]/i.test(sql),
    ),
    statistics: tables.some(([, , name]) => /^sqlite_stat[14]$/.test(name)),
    statisticsTriggers: rows.some(
      ([schema, type, , sql]) => schema === "main" && type === "trigger" && /sqlite_stat/i.test(sql),
    ),
  };
}
