/** Calls of functions that SQLite has too, under the same name or another, with the same result. */
import {
  asText,
  type Expression,
  isNumber,
  isTextual,
  type Scope,
  Untranslatable,
} from "./expression-types.js";
import { isSymbol, isWord, splitAtCommas, type Token } from "./tokens.js";

type Call = (args: readonly Expression[], scope: Scope) => Expression;

/** `after` is what follows the call; `translate` is for its arguments. */
export function translateCall(
  name: string,
  tokens: readonly Token[],
  after: Token | undefined,
  scope: Scope,
  translate: (tokens: readonly Token[]) => Expression,
): Expression {
  if (isWord(after, "over") || isWord(after, "filter") || isWord(after, "within")) {
    throw new Untranslatable(`${name}() with ${after!.value.toUpperCase()}`);
  }
  if (name === "count") return count(tokens, translate);
  const call = scope.family === "mysql" ? (MYSQL[name] ?? BOTH[name]) : (POSTGRES[name] ?? BOTH[name]);
  if (call === undefined) throw new Untranslatable(`${name}()`);
  return call(splitAtCommas(tokens).map(translate), scope);
}

function count(tokens: readonly Token[], translate: (tokens: readonly Token[]) => Expression): Expression {
  if (tokens.length === 1 && isSymbol(tokens[0], "*")) return { sql: "count(*)", kind: "integer" };
  const distinct = isWord(tokens[0], "distinct");
  const arg = translate(distinct ? tokens.slice(1) : tokens);
  return { sql: `count(${distinct ? "DISTINCT " : ""}${arg.sql})`, kind: "integer" };
}

function sqlOf(args: readonly Expression[]): string {
  return args.map(({ sql }) => sql).join(", ");
}

/** The kind that all arguments have. */
function commonKind(args: readonly Expression[]): Expression["kind"] {
  const kinds = new Set(args.filter(({ sql }) => sql !== "NULL").map(({ kind }) => kind));
  return kinds.size === 1 ? [...kinds][0] : undefined;
}

function expectArgs(args: readonly Expression[], name: string, least: number, most = least): void {
  if (args.length < least || args.length > most)
    throw new Untranslatable(`${name}() with ${args.length} arguments`);
}

/** The same function, by this name; the result has the kind of the arguments, or the one given. */
function same(name: string, least: number, most = least, kind?: Expression["kind"]): Call {
  return (args) => {
    expectArgs(args, name, least, most);
    const time = args[0]?.time;
    return {
      sql: `${name}(${sqlOf(args)})`,
      kind: kind ?? commonKind(args),
      ...(time === undefined ? {} : { time }),
    };
  };
}

/** Of texts. */
function ofText(name: string, least: number, most = least, kind: Expression["kind"] = "text"): Call {
  return (args) => {
    expectArgs(args, name, least, most);
    if (!isTextual(args[0]!.kind)) throw new Untranslatable(`${name}() of what may be no text`);
    return { sql: `${name}(${sqlOf(args)})`, kind };
  };
}

function changesCase(name: string): Call {
  const call = ofText(name, 1);
  return (args, scope) => {
    scope.note("lower() and upper() change ASCII letters only");
    return call(args, scope);
  };
}

const substr = (args: readonly Expression[]): Expression => {
  expectArgs(args, "substr", 2, 3);
  // Before the first character, and with a negative length, the three of them differ.
  const counted = args.slice(1).every(({ sql, kind }) => kind === "integer" && /^[1-9]\d*$/.test(sql));
  if (!isTextual(args[0]!.kind) || !counted) throw new Untranslatable("substr() with computed positions");
  return { sql: `substr(${sqlOf(args)})`, kind: "text" };
};

const left = (args: readonly Expression[]): Expression => {
  expectArgs(args, "left", 2);
  return substr([args[0]!, { sql: "1", kind: "integer" }, args[1]!]);
};

function aggregate(name: string): Call {
  return (args, scope) => {
    expectArgs(args, name, 1);
    const { kind } = args[0]!;
    if (args[0]!.order === "members") throw new Untranslatable(`${name}() of an ENUM`);
    if (name === "min" || name === "max") return { ...args[0]!, sql: `${name}(${args[0]!.sql})` };
    if (!isNumber(kind)) throw new Untranslatable(`${name}() of what may be no number`);
    if (kind !== "integer" || name === "avg")
      scope.note("decimal arithmetic is done in binary floating point");
    const exact = name === "sum" && kind === "integer";
    return {
      sql: `${name}(${args[0]!.sql})`,
      kind: exact ? "integer" : kind === "real" ? "real" : "inexact",
    };
  };
}

const round: Call = (args, scope) => {
  expectArgs(args, "round", 1, 2);
  const { kind } = args[0]!;
  if (!isNumber(kind) || kind === "real") throw new Untranslatable("round() of a floating point number");
  scope.note("decimal arithmetic is done in binary floating point");
  return { sql: `round(${sqlOf(args)})`, kind: "inexact" };
};

const concatMysql: Call = (args) => {
  if (args.length === 0) throw new Untranslatable("concat() of nothing");
  return { sql: `(${args.map(asText).join(" || ")})`, kind: "text" };
};

function concat(name: string): Call {
  return (args) => ({ sql: `${name}(${args.map(asText).join(", ")})`, kind: "text" });
}

const BOTH: Readonly<Record<string, Call>> = {
  coalesce: same("coalesce", 2, 20),
  nullif: same("nullif", 2),
  abs: same("abs", 1),
  lower: changesCase("lower"),
  upper: changesCase("upper"),
  replace: ofText("replace", 3),
  trim: ofText("trim", 1),
  ltrim: ofText("ltrim", 1),
  rtrim: ofText("rtrim", 1),
  substr,
  substring: substr,
  left,
  char_length: ofText("length", 1, 1, "integer"),
  character_length: ofText("length", 1, 1, "integer"),
  octet_length: ofText("octet_length", 1, 1, "integer"),
  concat_ws: concat("concat_ws"),
  sum: aggregate("sum"),
  avg: aggregate("avg"),
  min: aggregate("min"),
  max: aggregate("max"),
  round,
};

const MYSQL: Readonly<Record<string, Call>> = {
  ifnull: same("ifnull", 2),
  if: (args) => {
    expectArgs(args, "if", 3);
    return { sql: `iif(${sqlOf(args)})`, kind: commonKind(args.slice(1)) };
  },
  length: ofText("octet_length", 1, 1, "integer"),
  lcase: changesCase("lower"),
  ucase: changesCase("upper"),
  mid: substr,
  concat: concatMysql,
  greatest: same("max", 2, 20),
  least: same("min", 2, 20),
  json_valid: same("json_valid", 1, 1, "boolean"),
};

const POSTGRES: Readonly<Record<string, Call>> = {
  length: ofText("length", 1, 1, "integer"),
  btrim: ofText("trim", 1),
  concat: concat("concat"),
  string_agg: (args) => {
    expectArgs(args, "string_agg", 2);
    return { sql: `group_concat(${args.map(asText).join(", ")})`, kind: "text" };
  },
};
