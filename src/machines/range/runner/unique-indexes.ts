/** A table's UNIQUE indexes, as it takes to find the rows that REPLACE deletes for a row that is written. */
import type Database from "better-sqlite3";
import { quoteName } from "../temp-objects.js";

interface IndexColumn {
  readonly name: string;
  readonly collation: string;
  readonly generated: boolean;
  /** What a row that is written will have in it, before it is. */
  readonly added: string;
}

/** Those on which REPLACE may find victims with another key; `blind` when there are some that cannot be looked up. */
export function uniqueIndexes(
  database: Database.Database,
  table: string,
): { readonly indexes: readonly (readonly IndexColumn[])[]; readonly blind: boolean } {
  const listed = database
    .prepare(`SELECT name, partial FROM pragma_index_list(?, 'main') WHERE "unique" = 1`)
    .raw()
    .safeIntegers(false)
    .all(table) as [string, number][];
  const indexes: IndexColumn[][] = [];
  let blind = false;
  for (const [index, partial] of listed) {
    const columns = database
      .prepare(
        `SELECT i.cid, i.name, i.coll, c.hidden, iif(c."notnull", c.dflt_value, NULL) FROM pragma_index_xinfo(?, 'main') i
         LEFT JOIN pragma_table_xinfo(?, 'main') c ON c.cid = i.cid WHERE i.key = 1 ORDER BY i.seqno`,
      )
      .raw()
      .safeIntegers(false)
      .all(index, table) as [number, string | null, string, number | null, string | null][];
    if (partial === 1 || columns.some(([cid]) => cid < 0)) blind = true;
    else
      indexes.push(
        columns.map(([, name, collation, hidden, instead]) => ({
          name: name as string,
          collation,
          generated: hidden !== 0,
          added: valueAdded(quoteName(name as string), instead),
        })),
      );
  }
  return { indexes, blind };
}

/** REPLACE puts a column's default in place of a NULL that it may not have; a random one is nobody's equal. */
function valueAdded(column: string, instead: string | null): string {
  if (instead === null || /random/i.test(instead)) return `new.${column}`;
  return `coalesce(new.${column}, (${defaultValue(instead)}))`;
}

/** A default that is a name stands for that text, but for the names of values. */
function defaultValue(text: string): string {
  const quoted = /^["`[]([\s\S]*)["`\]]$/.exec(text)?.[1]?.replace(/(["`])\1/g, "$1");
  const bare =
    /^(?!(?:null|true|false|current_(?:date|time|timestamp))$)[a-z_\u0080-\uffff][\w$\u0080-\uffff]*$/i;
  const name = quoted ?? (bare.test(text) ? text : undefined);
  return name === undefined ? text : `'${name.replaceAll("'", "''")}'`;
}
