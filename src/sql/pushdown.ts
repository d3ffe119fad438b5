/**
 * What of a statement over many ranges can be done at the ranges: see `Pushdown`. The answer depends on the text and the
 * schema alone; values of parameters come later.
 *
 * SQLite is the authority: every slice of the text that is to run elsewhere has been compiled by it, and what its query
 * plan does not say is not assumed. The parser only says where the slices are. What either does not take is run without
 * pushdown: slower, never wrong.
 */
import { UserError } from "../base/errors.js";
import { aggregateForm } from "./pushdown-aggregates.js";
import { definedNames, type Filters, tableFilters } from "./pushdown-filters.js";
import { oneTableQuery, rowsForm } from "./pushdown-one-table.js";
import { Slices } from "./pushdown-slices.js";
import type { OneTableForm, Pushdown, PushdownSchema, TableFilter } from "./pushdown-types.js";
import { writesOnlyWhatItFinds } from "./pushdown-writes.js";
import type { SelectStmt, StatementNode } from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";

/** Undefined when nothing can be. */
export function pushdown(sql: string, schema: PushdownSchema): Pushdown | undefined {
  const statement = schema.parser.parse(sql);
  if (statement === undefined) return undefined;
  try {
    return planned(sql, statement, schema);
  } catch (error) {
    // A tree too deep to walk; a text that is not what was analysed.
    if (error instanceof RangeError || error instanceof UserError) return undefined;
    throw error;
  }
}

function planned(sql: string, statement: StatementNode, schema: PushdownSchema): Pushdown | undefined {
  const slices = new Slices(sql);
  const all = tableFilters(statement, slices, schema);
  if (all === undefined) return undefined;
  if (statement.type === "SelectStmt") {
    const form = formOf(sql, statement, slices, schema);
    if (all.size === 0 && form === undefined) return undefined;
    const { columns, columnTypes } = schema.oracle.prepare(sql);
    return { version: schema.oracle.version, filters: all, form, columns, columnTypes };
  }
  if (statement.type !== "UpdateStmt" && statement.type !== "DeleteStmt") return undefined;
  const filters = filtersOfWrite(all, statement.tblName.objName.text, () =>
    writesOnlyWhatItFinds(sql, statement, schema),
  );
  if (filters.size === 0) return undefined;
  return { version: schema.oracle.version, filters, form: undefined, columns: [], columnTypes: [] };
}

function formOf(
  sql: string,
  statement: SelectStmt,
  slices: Slices,
  schema: PushdownSchema,
): OneTableForm | undefined {
  const query = oneTableQuery(sql, statement.body, slices, definedNames(statement), schema);
  return query && (rowsForm(query) ?? aggregateForm(query));
}

/** Other tables than the one written may be read by triggers and constraints: those are left as they are. */
function filtersOfWrite(all: Filters, target: string, isSafe: () => boolean): Filters {
  const name = lowerAscii(target);
  const own: readonly TableFilter[] | undefined = all.get(name);
  if (own === undefined || own.some(({ mayRaise }) => mayRaise) || !isSafe()) return new Map();
  return new Map([[name, own]]);
}
