/**
 * EXPLAIN and EXPLAIN QUERY PLAN: SQLite's own answer; for QUERY PLAN with a first row that says which ranges the
 * statement touches and how it would run.
 */
import { UserError } from "../base/errors.js";
import { ValueReader, ValueWriter } from "../base/values.js";
import type { ExecuteRequest, ExecuteResult } from "../rpc/gateway.js";
import { classify, explainedFrom } from "../sql/classify.js";
import { bindParameters } from "../sql/parameters.js";
import type { Pushdown } from "../sql/pushdown-types.js";
import { tokenize } from "../sql/tokenizer.js";
import { type Analysis, type Footprint, HEADER, SCHEMA, type Statement } from "../sql/types.js";
import { SCHEMA as SCHEMA_SPAN } from "../txn/spans.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import { collectResult } from "./outcomes.js";
import { pushdownOf } from "./pushdown.js";
import { described } from "./pushed-reads.js";
import type { GatewaySession, SessionContext } from "./session.js";
import { systemTablesFor } from "./system-tables.js";
import { tablesNamed } from "./tables-named.js";
import { UNANALYSED_SCHEMA } from "./unanalysed.js";

export async function explain(
  context: SessionContext,
  session: GatewaySession,
  sql: string,
  request: ExecuteRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const tokens = tokenize(sql);
  const from = explainedFrom(tokens);
  const start = tokens.starts[from];
  if (start === undefined) throw new UserError("SQLITE_ERROR", "incomplete input");
  const explained = sql.slice(start);
  const kind = classify(explained).kind;
  if (kind !== "select" && kind !== "write" && kind !== "ddl") {
    throw new UserError("OSTRAKA_UNSUPPORTED", "EXPLAIN is for queries, data changes and schema changes");
  }
  const queryPlan = from > 1;
  const analysis = await session.analyseFresh(explained, deadline);
  const params = bindParameters(analysis.parameters, padded(request, analysis.parameters.length));
  const { db } = context;
  const ran = await session.runHere(
    { sql: `${sql.slice(0, start)}${analysis.sql}`, params },
    deadline,
    UNANALYSED_SCHEMA,
    await systemTablesFor(context.systemTables, analysis.systemTables),
  );
  if (!queryPlan) return ran;
  const outcome = await collectResult(ran, db.limits.maxTransactionBytes);
  const shared = analysis === db.analysed(explained);
  const plan = shared ? pushdownOf(analysis, db.ranges.schema().oracle(), db.tables) : undefined;
  // A transaction's own changes are in no range: those may only leave out rows.
  const inForce = plan && session.writing ? { ...plan, form: undefined } : plan;
  const detail = howItRuns(db, analysis, params, inForce);
  const writer = new ValueWriter();
  writer.vector([0n, 0n, 0n, detail]);
  const reader = new ValueReader(outcome.rows);
  while (!reader.done) writer.vector(reader.vector());
  return { kind: "outcome", outcome: { ...outcome, rows: writer.take(), rowCount: outcome.rowCount + 1 } };
}

/** EXPLAIN needs no values: what is missing is NULL, as in SQLite. */
function padded(request: ExecuteRequest, count: number): ExecuteRequest["params"] {
  if (!Array.isArray(request.params) || request.params.length > 0) return request.params;
  return new Array(count).fill(null);
}

/** Which ranges the statement touches, and how it would run there. */
function howItRuns(
  db: GatewayDatabase,
  analysis: Analysis,
  params: Statement["params"],
  plan: Pushdown | undefined,
): string {
  const footprint = footprintOf(db, analysis, params);
  const { reads, writes } = footprint;
  const tables = [...new Set([...reads, ...writes].map(({ table }) => table))].filter(
    (name) => name !== SCHEMA && name !== HEADER,
  );
  const named = tables.length === 0 ? "" : ` (${tables.join(", ")})`;
  const touched = db.touched(footprint);
  const changesSchema = writes.some(({ table }) => table === SCHEMA);
  if (changesSchema && db.whole === undefined) return `every range${named}`;
  if (touched.length <= 1) return `single range ${(touched[0] ?? db.first).range}${named}`;
  const ranges = `${touched.length} ranges ${touched.map(({ range }) => range).join(", ")}${named}`;
  const what = plan && described(plan, params);
  return what === undefined ? `gather from ${ranges}` : `pushdown ${what} to ${ranges}`;
}

/** What names system tables is not analysed: it touches the tables that it names beside them. */
function footprintOf(db: GatewayDatabase, analysis: Analysis, params: Statement["params"]): Footprint {
  if (analysis.systemTables.length === 0) return analysis.footprint(params);
  const changesSchema = analysis.class.kind === "ddl" && !analysis.class.temp;
  const reads = tablesNamed(analysis.sql, db.ranges.schema().snapshot);
  return { reads, writes: changesSchema ? [SCHEMA_SPAN] : [], checks: [] };
}
