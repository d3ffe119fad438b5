/** Casts, arithmetic, and comparisons of dates: what is exact in the other database and might not be in SQLite. */
import { textLiteral } from "../../format/literals.js";
import {
  type Expression,
  isNumber,
  isTextual,
  isTime,
  type Scope,
  Untranslatable,
} from "./expression-types.js";
import type { TypeName } from "./type-name.js";
import { utcTimestamp } from "./utc.js";

const DECIMAL_NOTE = "decimal arithmetic is done in binary floating point";

/** + - * / % of numbers, where SQLite computes the same. */
export function exactArithmetic(
  operator: string,
  left: Expression,
  right: Expression,
  scope: Scope,
): Expression {
  if (!isNumber(left.kind) || !isNumber(right.kind)) {
    throw new Untranslatable(`${operator} of what may be no numbers`);
  }
  const integers = left.kind === "integer" && right.kind === "integer";
  const reals = left.kind === "real" || right.kind === "real";
  switch (operator) {
    case "/":
      // Of integers: MySQL's has a fraction, PostgreSQL's has none, as SQLite's.
      if (reals) break;
      if (integers && scope.family === "postgresql") break;
      if (scope.family === "postgresql") throw new Untranslatable("division of decimals");
      scope.note(DECIMAL_NOTE);
      return { sql: `(CAST(${left.sql} AS REAL) / ${right.sql})`, kind: "inexact" };
    case "div":
      if (!integers) throw new Untranslatable("DIV of what is no integer");
      return { sql: `(${left.sql} / ${right.sql})`, kind: "integer" };
    case "%":
    case "mod":
      if (!integers) throw new Untranslatable("a remainder of what is no integer");
      return { sql: `(${left.sql} % ${right.sql})`, kind: "integer" };
  }
  const sql = `(${left.sql} ${operator} ${right.sql})`;
  if (integers) return { sql, kind: "integer" };
  if (reals) return { sql, kind: "real" };
  scope.note(DECIMAL_NOTE);
  return { sql, kind: "inexact" };
}

/** CAST and ::, where they change nothing, or to what SQLite's would. */
export function castTo(operand: Expression, type: TypeName, scope: Scope): Expression {
  const target = type.array ? undefined : scope.type(type);
  if (operand.sql === "NULL") return { ...operand, kind: target?.kind };
  if (operand.literal !== undefined) return castLiteral(operand, operand.literal, type, target);
  switch (target?.kind) {
    case "text":
    case "padded":
      return castToText(operand, type);
    case "integer":
      if (operand.kind === "integer") return operand;
      break;
    case "numeric":
      if (operand.kind === "integer" && type.sizes.length === 0) return { ...operand, kind: "numeric" };
      if ((operand.kind === "numeric" || operand.kind === "inexact") && type.sizes.length === 0)
        return operand;
      break;
    case "real":
      if (isNumber(operand.kind)) return { sql: `CAST(${operand.sql} AS REAL)`, kind: "real" };
      break;
    case "boolean":
      if (operand.kind === "boolean") return operand;
      break;
    default:
      if (target !== undefined && isTime(target.kind) && target.time === operand.time) return operand;
  }
  throw new Untranslatable(`a cast of ${operand.kind ?? "an expression"} to ${type.text}`);
}

function castToText(operand: Expression, type: TypeName): Expression {
  if (type.sizes.length > 0) throw new Untranslatable(`a cast to ${type.text}`);
  if (operand.kind === "text" || operand.kind === "padded") return { ...operand, kind: "text" };
  if (operand.kind === "integer") return { sql: `CAST(${operand.sql} AS TEXT)`, kind: "text" };
  throw new Untranslatable(`${operand.kind ?? "an expression"} as text, which may look different here`);
}

function castLiteral(
  operand: Expression,
  value: string,
  type: TypeName,
  target: ReturnType<Scope["type"]>,
): Expression {
  if (target === undefined) return operand;
  if (isTextual(target.kind)) {
    const [size] = type.sizes;
    if (size !== undefined && value.length > size) throw new Untranslatable(`a cast to ${type.text}`);
    return operand;
  }
  switch (target.kind) {
    case "integer":
      if (/^\s*[-+]?\d{1,18}\s*$/.test(value))
        return { sql: String(BigInt(value.trim())), kind: "integer", constant: true };
      break;
    case "numeric":
    case "real":
      if (/^\s*[-+]?\d+(?:\.\d+)?\s*$/.test(value)) {
        return { sql: value.trim().replace(/^\+/, ""), kind: target.kind, constant: true };
      }
      break;
    case "boolean":
      if (/^(?:t|true|f|false)$/i.test(value)) {
        return { sql: /^t/i.test(value) ? "1" : "0", kind: "boolean", constant: true };
      }
      break;
    case "blob":
      if (/^\\x(?:[0-9a-fA-F]{2})*$/.test(value)) {
        return { sql: `X'${value.slice(2)}'`, kind: "blob", constant: true };
      }
      break;
    case "time":
    case "timestamptz":
      return timeLiteral(operand, { sql: "", kind: target.kind, time: target.time });
  }
  throw new Untranslatable(`a cast of '${value}' to ${type.text}`);
}

const TIME_PATTERNS: Readonly<Record<string, RegExp>> = {
  date: /^\d{4}-\d\d-\d\d$/,
  timestamp: /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?$/,
  time: /^\d\d:\d\d:\d\d(?:\.\d+)?$/,
};

/** One side of a comparison with a date or time: of the same type, or a literal written as the values are. */
export function timeLiteral(side: Expression, other: Expression): Expression {
  if (side.sql === "NULL" || (isTime(side.kind) && side.time === other.time)) return side;
  const { literal } = side;
  if (literal !== undefined && (!isTime(side.kind) || side.time === other.time)) {
    const text = other.time === "timestamptz" ? utcTimestamp(literal) : literal;
    const pattern = TIME_PATTERNS[other.time === "timestamptz" ? "timestamp" : (other.time ?? "")];
    if (text !== undefined && pattern?.test(text) === true) {
      return { sql: textLiteral(text), kind: other.kind, time: other.time, literal: text, constant: true };
    }
  }
  throw new Untranslatable(`a comparison of a ${other.time ?? "date"} with something else`);
}
