/**
 * What the tokens of a statement's text say, remembered by text: programs send the same few texts again and again.
 */
import { classifyTokens, singleStatement } from "../sql/classify.js";
import { bindSession, mayReadSessionValues } from "../sql/rewrite.js";
import type { Analysis, Statement, StatementClass } from "../sql/types.js";
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
