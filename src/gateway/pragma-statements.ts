/**
 * PRAGMA as a session answers it. SQLite is never handed one from the user unchecked: a pragma takes effect when it is
 * prepared. src/sql/pragmas.ts says how each is treated; this module does it.
 */
import { fromWireError, UserError } from "../base/errors.js";
import { decodeRows } from "../base/values.js";
import type { StatementOutcome } from "../machines/range/types.js";
import type { ExecuteRequest, ExecuteResult } from "../rpc/gateway.js";
import { pragmaBoolean, pragmaInteger, pragmaTreatment } from "../sql/pragmas.js";
import { isInternal } from "../sql/refuse.js";
import { SessionFlag, type StatementClass } from "../sql/types.js";
import { autocommitId, byKey } from "./attempts.js";
import type { Deadline } from "./deadline.js";
import { collectResult, emptyOutcome, oneValue, rowsOutcome } from "./outcomes.js";
import type { GatewaySession, SessionContext } from "./session.js";
import { UNANALYSED_HEADER, UNANALYSED_READ, UNANALYSED_SCHEMA } from "./unanalysed.js";

type PragmaClass = Extract<StatementClass, { kind: "pragma" }>;

/** The settings that are flags; query_only is none. */
const FLAGS: Readonly<Record<string, { readonly flag: number; readonly inverted: boolean }>> = {
  foreign_keys: { flag: SessionFlag.ForeignKeysOff, inverted: true },
  defer_foreign_keys: { flag: SessionFlag.DeferForeignKeys, inverted: false },
  recursive_triggers: { flag: SessionFlag.RecursiveTriggers, inverted: false },
  case_sensitive_like: { flag: SessionFlag.CaseSensitiveLike, inverted: false },
  ignore_check_constraints: { flag: SessionFlag.IgnoreCheckConstraints, inverted: false },
};

export async function executePragma(
  session: GatewaySession,
  context: SessionContext,
  sql: string,
  pragma: PragmaClass,
  request: ExecuteRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const treatment = pragmaTreatment(pragma.name.toLowerCase(), pragma.argument !== undefined);
  switch (treatment.kind) {
    case "fixed":
      if (treatment.alwaysOff !== undefined && pragmaBoolean(pragma.argument ?? ""))
        throw new UserError("OSTRAKA_UNSUPPORTED", `PRAGMA ${pragma.name} = ON: ${treatment.alwaysOff}`);
      return treatment.row === undefined ? emptyOutcome() : rowsOutcome(treatment.columns, [treatment.row]);
    case "session":
      return sessionSetting(session, pragma);
    case "replicated":
      return replicated(session, context, pragma, request, deadline);
    case "introspection": {
      const looksAt = treatment.wholeDatabase ? UNANALYSED_READ : UNANALYSED_SCHEMA;
      const ours = !treatment.wholeDatabase && isInternal(pragma.argument ?? "");
      const asked = { sql: ours ? `PRAGMA ${pragma.name}('')` : sql, params: [] };
      const result = await session.runHere(asked, deadline, looksAt);
      if (pragma.name.toLowerCase() !== "table_list") return result;
      return withoutOurTables(await collectResult(result, context.db.limits.maxTransactionBytes));
    }
    case "unknown":
      return emptyOutcome();
    case "unsupported":
      throw new UserError("OSTRAKA_UNSUPPORTED", `PRAGMA ${pragma.name}: ${treatment.reason}`);
  }
}

function sessionSetting(session: GatewaySession, pragma: PragmaClass): ExecuteResult {
  const name = pragma.name.toLowerCase();
  const { settings } = session;
  const { flag, inverted } = FLAGS[name] ?? { flag: undefined, inverted: false };
  const now = flag === undefined ? settings.queryOnly : settings.has(flag) !== inverted;
  if (pragma.argument === undefined) {
    if (name === "case_sensitive_like") return emptyOutcome();
    return oneValue(name, now ? 1n : 0n);
  }
  // As in SQLite, foreign_keys cannot change while a transaction is open, and says nothing.
  if (name === "foreign_keys" && session.transaction !== undefined) return emptyOutcome();
  const on = pragmaBoolean(pragma.argument);
  if (session.pooled && on !== now)
    throw new UserError("OSTRAKA_UNSUPPORTED", `PRAGMA ${name} belongs to one session: use db.session()`);
  if (flag === undefined) settings.queryOnly = on;
  else settings.set(flag, on !== inverted);
  return emptyOutcome();
}

function withoutOurTables(outcome: StatementOutcome): ExecuteResult {
  const name = outcome.columns.indexOf("name");
  const rows = decodeRows(outcome.rows).filter((row) => !isInternal(String(row[name])));
  return rowsOutcome(outcome.columns, rows);
}

async function replicated(
  session: GatewaySession,
  context: SessionContext,
  pragma: PragmaClass,
  request: ExecuteRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const name = pragma.name.toLowerCase() as "user_version" | "application_id";
  if (pragma.argument === undefined)
    return session.runHere({ sql: `PRAGMA main.${name}`, params: [] }, deadline, UNANALYSED_HEADER);
  if (session.transaction !== undefined) {
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      `PRAGMA ${name} cannot be set inside a transaction: set it before BEGIN or after COMMIT`,
    );
  }
  session.settings.admitWrite();
  const value = pragmaInteger(pragma.argument);
  const key = request.key ?? context.nextKey(deadline);
  const { db } = context;
  // Both live in the first range, where they are read too.
  try {
    const result = await db.persist(deadline, () => db.client(db.first.range).setPragma(name, value, key), {
      transaction: autocommitId(key),
      repeatable: true,
    });
    if (!result.ok) throw fromWireError(result.error);
    return emptyOutcome();
  } catch (error) {
    throw byKey(error, key);
  }
}
