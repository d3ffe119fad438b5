/** Which texts call LIKE when they run, as PRAGMA case_sensitive_like has it. */
import { SessionFlag, type SessionFlags } from "./types.js";

const LIKE = /\blike\b/i;
/** What a view or a trigger says is said whenever it runs. */
const KEPT_TEXT = /^\s*create\s+(view|trigger)\b/i;

export function namesLike(sql: string): boolean {
  return LIKE.test(sql);
}

/** By itself: what the schema does for it is another question. */
export function callsOtherLike(sql: string, flags: SessionFlags): boolean {
  return (flags & SessionFlag.CaseSensitiveLike) !== 0 && LIKE.test(sql) && !KEPT_TEXT.test(sql);
}
