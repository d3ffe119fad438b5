/**
 * Parameters of a statement by SQLite's own numbering, and binding of a caller's values to them.
 *
 * `?` takes the next number after the largest so far; `?N` is number N; `:a`, `@a`, `$a` and `#a` take the number of
 * their first appearance (their first character is part of the name). Numbers in between that nothing names exist,
 * and are bound to NULL unless a positional value is given.
 */
import { UserError } from "../base/errors.js";
import type { SqlValue } from "../base/values.js";
import { TokenKind, type TokenList, tokenText } from "./tokenizer.js";

/** SQLITE_MAX_VARIABLE_NUMBER of the bundled SQLite. */
export const MAX_PARAMETERS = 32766;

/** Values by position (number 1 first), or by name with or without the first character of the name. */
export type ParameterValues = readonly SqlValue[] | ReadonlyMap<string, SqlValue>;

export interface ParameterLayout {
  /** Names by number (1 → 0); undefined for plain `?` and for numbers that are only skipped. `?7` is named "?7". */
  readonly names: readonly (string | undefined)[];
  /** Numbers by token index of each variable. */
  readonly numberAt: ReadonlyMap<number, number>;
}

export function parameterLayout(tokens: TokenList): ParameterLayout {
  const names: (string | undefined)[] = [];
  const numberAt = new Map<number, number>();
  const byName = new Map<string, number>();
  for (let i = 0; i < tokens.length; i++) {
    if (tokens.kinds[i] !== TokenKind.Variable) continue;
    const text = tokenText(tokens, i);
    let number: number;
    if (text === "?") {
      number = names.length + 1;
    } else if (text[0] === "?") {
      number = text.length > 6 && Number(text.slice(1)) > MAX_PARAMETERS ? 0 : Number(text.slice(1));
      if (number < 1 || number > MAX_PARAMETERS) {
        throw new UserError("SQLITE_ERROR", `variable number must be between ?1 and ?${MAX_PARAMETERS}`);
      }
    } else {
      number = byName.get(text) ?? names.length + 1;
      byName.set(text, number);
    }
    if (number > MAX_PARAMETERS) throw new UserError("SQLITE_ERROR", "too many SQL variables");
    while (names.length < number) names.push(undefined);
    if (text !== "?") names[number - 1] ??= text;
    numberAt.set(i, number);
  }
  return { names, numberAt };
}

/**
 * The full vector of values for a statement with these parameter names.
 * Throws UserError: SQLITE_RANGE when there are too few or too many positional values, or a name is missing.
 */
export function bindParameters(
  names: readonly (string | undefined)[],
  values: ParameterValues,
): readonly SqlValue[] {
  if (isVector(values)) {
    if (values.length === names.length) return values;
    const count = (n: number): string => `${n} ${n === 1 ? "value" : "values"}`;
    const relation = values.length < names.length ? "too few" : "too many";
    throw new UserError(
      "SQLITE_RANGE",
      `${relation} parameter values: the statement takes ${count(names.length)}, ${values.length} given`,
    );
  }
  return names.map((name, i) => {
    if (name === undefined) {
      throw new UserError(
        "SQLITE_RANGE",
        `parameter ${i + 1} has no name: values were given by name, but the statement has a plain "?"`,
      );
    }
    const value = values.get(name) ?? values.get(name.slice(1));
    if (value !== undefined) return value;
    if (values.has(name) || values.has(name.slice(1))) return null;
    throw new UserError("SQLITE_RANGE", `missing value for parameter "${name}"`);
  });
}

function isVector(values: ParameterValues): values is readonly SqlValue[] {
  return Array.isArray(values);
}
