/**
 * Syntax trees by sqlite3-parser, which is generated from SQLite's own grammar. It may only narrow what SQLite says of a
 * statement (src/sql/syntax.ts): what it does not take is run without its help.
 */
import { parseStmt } from "sqlite3-parser";
import type { StatementNode, StatementParser } from "../../sql/syntax.js";

/** Trees are walked by recursion, and nobody writes statements of that length by hand. */
const LONGEST = 64 * 1024;

export const statementParser: StatementParser = {
  parse(sql: string): StatementNode | undefined {
    if (sql.length > LONGEST) return undefined;
    try {
      const parsed = parseStmt(sql);
      if (parsed.status !== "ok") return undefined;
      const { root } = parsed;
      switch (root.type) {
        case "SelectStmt":
        case "UpdateStmt":
        case "DeleteStmt":
        case "CreateViewStmt":
        case "CreateTableStmt":
        case "CreateIndexStmt":
          return root;
        default:
          return undefined;
      }
    } catch {
      return undefined;
    }
  },
};
