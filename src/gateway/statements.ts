/**
 * What the tokens of a statement's text say, remembered by text: programs send the same few texts again and again.
 */
import type { SchemaSnapshot } from "../machines/range/types.js";
import { classifyTokens, singleStatement } from "../sql/classify.js";
import { callsOtherLike, namesLike } from "../sql/like.js";
import { bindSession, mayReadSessionValues } from "../sql/rewrite.js";
import {
  type Analysis,
  SessionFlag,
  type SessionFlags,
  type Statement,
  type StatementClass,
} from "../sql/types.js";
import type { SessionSettings } from "./settings.js";

export interface KnownStatement {
  /** The statement alone, without comments and semicolons around it. */
  readonly sql: string;
  readonly class: StatementClass;
  /** Calls changes(), total_changes() or last_insert_rowid() where the session's values have to be bound. */
  readonly readsSession: boolean;
}

const MAX_TEXTS = 8192;
/** Long texts are rarely repeated, and would hold much memory. */
const MAX_CACHED_LENGTH = 4096;

/** Whether a statement changes the database that all share, and not only the session's TEMP objects. */
export function changesDatabase(analysis: Analysis, params: Statement["params"]): boolean {
  return analysis.footprint(params).writes.length > 0;
}

/**
 * Whether the statement calls LIKE, by itself or in what the schema does for it, as PRAGMA case_sensitive_like has it. That
 * is for a process of the session's own: the function takes the place of SQLite's for the rest of a connection's life, and
 * what is applied from the log must be planned alike on connections that never had it.
 */
export function likesOtherwise(
  { class: { kind }, sql }: Pick<Analysis, "class" | "sql">,
  flags: SessionFlags,
  { statements }: SchemaSnapshot,
): boolean {
  if ((flags & SessionFlag.CaseSensitiveLike) === 0) return false;
  return callsOtherLike(sql, flags) || (kind !== "ddl" && statements.some(namesLike));
}

export class StatementCache {
  readonly #known = new Map<string, KnownStatement>();

  /** Throws UserError when the text holds more than one statement, or what SQLite cannot begin with. */
  get(text: string): KnownStatement {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const { sql, tokens } = singleStatement(text);
    const fresh: KnownStatement = {
      sql,
      class: classifyTokens(tokens),
      readsSession: mayReadSessionValues(sql),
    };
    if (text.length <= MAX_CACHED_LENGTH) {
      if (this.#known.size >= MAX_TEXTS) this.#known.clear();
      this.#known.set(text, fresh);
    }
    return fresh;
  }

  /** The text with the session's values in place of changes() and its like. */
  bindSession(sql: string, settings: SessionSettings): string {
    if (!this.get(sql).readsSession) return sql;
    return bindSession(sql, {
      changes: settings.changes,
      totalChanges: settings.totalChanges,
      lastInsertRowid: settings.lastInsertRowid,
    });
  }
}
