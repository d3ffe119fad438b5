/**
 * What a text begins with, by SQLite's own lexer: a second line behind those who classify statements, where preparing
 * the wrong one would already act (PRAGMA) or end a transaction that is not the statement's.
 */
import { Tokenizer, TokenKind } from "../../sql/tokenizer.js";

export interface Leading {
  /** The statement's first word, lower-case, after EXPLAIN and QUERY PLAN; "" when it is not a word. */
  readonly word: string;
  readonly explained: boolean;
}

export function leadingWord(sql: string): Leading {
  const tokens = new Tokenizer(sql);
  const next = (): string => {
    while (tokens.nextSignificant()) {
      if (tokens.kind === TokenKind.Semicolon) continue;
      return tokens.kind === TokenKind.Word ? sql.slice(tokens.start, tokens.end).toLowerCase() : "";
    }
    return "";
  };
  const first = next();
  if (first !== "explain") return { word: first, explained: false };
  const second = next();
  if (second !== "query") return { word: second, explained: true };
  next();
  return { word: next(), explained: true };
}
