/**
 * PRAGMA as a session answers it. SQLite is never handed one from the user unchecked: a pragma takes effect when it is
 * prepared. src/sql/pragmas.ts says how each is treated; this module does it.
 */
import { fromWireError, UserError } from "../base/errors.js";
import { type PragmaTreatment, pragmaTreatment } from "../sql/pragmas.js";
import { SessionFlag, type StatementClass } from "../sql/types.js";
import type { Deadline } from "./deadline.js";
import { emptyOutcome, oneValue, rowsOutcome } from "./outcomes.js";
import type { GatewaySession, SessionContext } from "./session.js";
import type { ExecuteRequest, ExecuteResult } from "./types.js";

type PragmaClass = Extract<StatementClass, { kind: "pragma" }>;

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
  const treatment: PragmaTreatment = pragmaTreatment(pragma.name);
  switch (treatment.kind) {
    case "value":
      return treatment.value === undefined
        ? emptyOutcome()
        : rowsOutcome(treatment.columns, [treatment.value]);
    case "flag":
      return sessionFlag(session, pragma);
    case "replicated":
      return replicated(session, context, pragma, request, deadline);
    case "introspection":
      return session.runHere({ sql, params: [] }, deadline);
    case "unknown":
      return emptyOutcome();
    case "unsupported":
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `PRAGMA ${pragma.name} is not supported${treatment.instead}`,
      );
  }
}

function sessionFlag(session: GatewaySession, pragma: PragmaClass): ExecuteResult {
  const { flag, inverted } = FLAGS[pragma.name.toLowerCase()]!;
  const name = pragma.name.toLowerCase();
  if (pragma.argument === undefined) {
    if (name === "case_sensitive_like") return emptyOutcome();
    return oneValue(name, session.settings.has(flag) !== inverted ? 1n : 0n);
  }
  // As in SQLite, foreign_keys cannot change while a transaction is open, and says nothing.
  if (name !== "foreign_keys" || session.transaction === undefined) {
    session.settings.set(flag, asBoolean(pragma.argument) !== inverted);
  }
  return emptyOutcome();
}

function asBoolean(argument: string): boolean {
  const text = argument.replace(/^['"](.*)['"]$/, "$1").toLowerCase();
  if (text === "on" || text === "yes" || text === "true") return true;
  const number = Number.parseInt(text, 10);
  return Number.isNaN(number) ? false : number !== 0;
}

async function replicated(
  session: GatewaySession,
  context: SessionContext,
  pragma: PragmaClass,
  request: ExecuteRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const name = pragma.name.toLowerCase() as "user_version" | "application_id";
  if (pragma.argument === undefined) return session.runHere({ sql: `PRAGMA ${name}`, params: [] }, deadline);
  if (session.transaction !== undefined) {
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      `PRAGMA ${name} cannot be set inside a transaction: set it before BEGIN or after COMMIT`,
    );
  }
  const value = Number.parseInt(pragma.argument, 10) | 0;
  const key = request.key ?? context.nextKey();
  const result = await deadline.persist(() => context.replica.leader.setPragma(name, value, key), {
    transaction: `${key.client}:${key.sequence}`,
    repeatable: true,
  });
  if (!result.ok) throw fromWireError(result.error);
  return emptyOutcome();
}
