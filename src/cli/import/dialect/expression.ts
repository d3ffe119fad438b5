/**
 * Expressions of MySQL and PostgreSQL as SQLite's, for CHECK constraints, defaults, generated columns, indexes and views.
 *
 * It is a translation, not a copy: the same text may mean something else in SQLite (`||` is OR in MySQL, 7 / 2 is 3.5
 * there, LIKE minds the case in PostgreSQL), so only what is known to mean the same is let through.
 *
 * Invariants
 * 1. What is not understood, or has no counterpart of the same meaning, throws Untranslatable: the caller then leaves
 *    out the whole of what it belongs to, and says so.
 * 2. Precedence is that of the other database; the result has parentheses wherever it might matter.
 * 3. Where a counterpart differs in a way worth knowing, but not worth leaving it out for, `note` is told.
 */
import { textLiteral } from "../../format/literals.js";
import { castTo, exactArithmetic, timeLiteral } from "./casts.js";
import {
  asText,
  type Expression,
  isNumber,
  isTextual,
  isTime,
  type Scope,
  Untranslatable,
} from "./expression-types.js";
import { translateCall } from "./functions.js";
import { isSymbol, isWord, nameOf, splitAtCommas, type Token, TokenReader, textOf } from "./tokens.js";
import { readType } from "./type-name.js";

const POWER = {
  or: 1,
  and: 3,
  not: 4,
  is: 5,
  compare: 6,
  between: 7,
  other: 8,
  add: 9,
  multiply: 10,
  unary: 12,
  collate: 14,
  cast: 16,
};
const COMPARISONS: Readonly<Record<string, string>> = {
  "=": "=",
  "<>": "<>",
  "!=": "<>",
  "<": "<",
  ">": ">",
  "<=": "<=",
  ">=": ">=",
};

export function translate(tokens: readonly Token[], scope: Scope): Expression {
  const translator = new Translator(new TokenReader(tokens, scope.family), scope);
  return translator.whole();
}

export class Translator {
  constructor(
    readonly reader: TokenReader,
    readonly scope: Scope,
  ) {}

  whole(): Expression {
    try {
      const result = this.expression();
      if (!this.reader.done) throw new Untranslatable(`${textOf(this.reader.rest(), 30)}: not understood`);
      return result;
    } catch (error) {
      if (error instanceof SyntaxError) throw new Untranslatable(error.message);
      throw error;
    }
  }

  /** Up to an operator that binds less than this. */
  expression(power = 0): Expression {
    let left = this.#prefix();
    for (;;) {
      const next = this.#infix(left, power);
      if (next === undefined) return left;
      left = next;
    }
  }

  get #mysql(): boolean {
    return this.scope.family === "mysql";
  }

  #prefix(): Expression {
    const { reader } = this;
    const token = reader.next();
    switch (token.kind) {
      case "number":
        return numberExpression(token.value);
      case "string":
        return { sql: textLiteral(token.value), kind: "text", literal: token.value, constant: true };
      case "hex":
        if (!this.#mysql) throw new Untranslatable(token.text);
        return { sql: `X'${token.value}'`, kind: "blob", constant: true };
      case "bits":
        if (this.#mysql) return { sql: String(BigInt(`0b${token.value}`)), kind: "integer", constant: true };
        return { sql: `'${token.value}'`, kind: "text", literal: token.value, constant: true };
      case "symbol":
        return this.#prefixSymbol(token);
      case "name":
        return this.#named(token);
      case "word":
        return this.#prefixWord(token);
    }
  }

  #prefixSymbol(token: Token): Expression {
    if (token.value === "(") {
      this.reader.at--;
      return this.#parenthesized();
    }
    if (token.value !== "-" && token.value !== "+") throw new Untranslatable(`operator ${token.value}`);
    const operand = this.expression(POWER.unary);
    if (!isNumber(operand.kind)) throw new Untranslatable(`${token.value} before what may be no number`);
    if (token.value === "+") return operand;
    const plain = operand.constant && !operand.sql.startsWith("-");
    return { ...operand, sql: plain ? `-${operand.sql}` : `(-(${operand.sql}))` };
  }

  #parenthesized(): Expression {
    const inner = this.reader.parenthesized();
    if (isWord(inner[0], "select") || isWord(inner[0], "with")) {
      return { sql: `(${this.#subquery(inner)})`, kind: undefined };
    }
    if (splitAtCommas(inner).length !== 1) throw new Untranslatable("a row as a value");
    return this.#inner(inner);
  }

  /** A part that stands for itself. */
  #inner(tokens: readonly Token[]): Expression {
    return new Translator(new TokenReader(tokens, this.scope.family), this.scope).whole();
  }

  #call(name: string): Expression {
    const tokens = this.reader.parenthesized();
    return translateCall(name, tokens, this.reader.peek(), this.scope, (arg) => this.#inner(arg));
  }

  #subquery(tokens: readonly Token[]): string {
    if (this.scope.subquery === undefined) throw new Untranslatable("a subquery");
    return this.scope.subquery(tokens);
  }

  #prefixWord(token: Token): Expression {
    const { reader } = this;
    switch (token.value) {
      case "null":
        return { sql: "NULL", kind: undefined, constant: true };
      case "true":
      case "false":
        return { sql: token.value === "true" ? "1" : "0", kind: "boolean", constant: true };
      case "not":
        return { sql: `(NOT ${this.expression(POWER.not).sql})`, kind: "boolean" };
      case "case":
        return this.#case();
      case "exists":
        return { sql: `EXISTS (${this.#subquery(reader.parenthesized())})`, kind: "boolean" };
      case "cast": {
        const inner = new Translator(new TokenReader(reader.parenthesized(), this.scope.family), this.scope);
        const operand = inner.expression();
        inner.reader.expect("as");
        return castTo(operand, readType(inner.reader), this.scope);
      }
      case "current_date":
        if (reader.take("(")) reader.expect(")");
        return { sql: "CURRENT_DATE", kind: "time", time: "date" };
      case "now":
        if (!reader.is("(")) break;
        return this.#now();
      case "current_timestamp":
      case "localtimestamp":
        return this.#now();
    }
    // _utf8mb4'…'
    if (this.#mysql && token.value.startsWith("_") && reader.peek()?.kind === "string") return this.#prefix();
    return this.#named(token);
  }

  #now(): Expression {
    if (this.reader.is("(")) this.reader.parenthesized();
    this.scope.note("the present time is in UTC, without fractions of a second");
    const time = this.#mysql ? "timestamp" : "timestamptz";
    return { sql: "CURRENT_TIMESTAMP", kind: this.#mysql ? "time" : "timestamptz", time };
  }

  /** A column, or a function's call. */
  #named(token: Token): Expression {
    const { reader } = this;
    let name = nameOf(token, this.scope.family)!;
    if (reader.is("(")) return this.#call(name.toLowerCase());
    let qualifier: string | undefined;
    while (reader.take(".")) {
      qualifier = name;
      name = reader.name();
      if (reader.is("(")) {
        if (qualifier !== "pg_catalog") throw new Untranslatable(`${qualifier}.${name}()`);
        return this.#call(name);
      }
    }
    if (isWord(reader.peek(), "over")) throw new Untranslatable("a window");
    return { ...this.scope.column(qualifier, name), column: true };
  }

  #case(): Expression {
    const { reader } = this;
    const operand = reader.is("when") ? undefined : this.expression();
    let sql = operand === undefined ? "CASE" : `CASE ${operand.sql}`;
    let kind: Expression["kind"];
    while (reader.take("when")) {
      let condition = this.expression();
      if (operand !== undefined) condition = this.#comparable(operand, condition)[1];
      reader.expect("then");
      const result = this.expression();
      kind ??= result.kind;
      sql += ` WHEN ${condition.sql} THEN ${result.sql}`;
    }
    if (reader.take("else")) sql += ` ELSE ${this.expression().sql}`;
    reader.expect("end");
    return { sql: `${sql} END`, kind };
  }

  /** Continues `left` by one operator of at least this power; undefined when there is none. */
  #infix(left: Expression, power: number): Expression | undefined {
    const token = this.reader.peek();
    if (token?.kind !== "word" && token?.kind !== "symbol") return undefined;
    const operator = token.value;
    const binary = this.#binaryPower(operator);
    if (binary !== undefined) {
      if (binary <= power) return undefined;
      this.reader.at++;
      return this.#binary(operator, left, binary);
    }
    return this.#postfix(operator, left, power);
  }

  #binaryPower(operator: string): number | undefined {
    switch (operator) {
      case "or":
        return POWER.or;
      case "and":
        return POWER.and;
      case "+":
      case "-":
        return POWER.add;
      case "*":
      case "/":
      case "%":
      case "div":
      case "mod":
        return POWER.multiply;
      case "&&":
        return this.#mysql ? POWER.and : undefined;
      case "<=>":
        return POWER.compare;
      case "||":
        // In MySQL this is OR, or not, as the session has it.
        return this.#mysql ? undefined : POWER.other;
      default:
        return operator in COMPARISONS ? POWER.compare : undefined;
    }
  }

  #binary(operator: string, left: Expression, power: number): Expression {
    const symbol = COMPARISONS[operator];
    if (symbol !== undefined && (this.reader.is("any", "(") || this.reader.is("all", "("))) {
      return this.#anyOf(symbol, left);
    }
    const right = this.expression(power);
    if (symbol !== undefined || operator === "<=>") {
      const [a, b] = this.#comparable(left, right);
      if (symbol !== undefined && symbol !== "=" && symbol !== "<>") this.#sortable(left, right);
      return { sql: `(${a.sql} ${symbol ?? "IS"} ${b.sql})`, kind: "boolean" };
    }
    if (operator === "or" || operator === "and" || operator === "&&") {
      return { sql: `(${left.sql} ${operator === "or" ? "OR" : "AND"} ${right.sql})`, kind: "boolean" };
    }
    if (operator === "||") {
      return { sql: `(${asText(left)} || ${asText(right)})`, kind: "text" };
    }
    return exactArithmetic(operator, left, right, this.scope);
  }

  #postfix(operator: string, left: Expression, power: number): Expression | undefined {
    const { reader } = this;
    if (operator === "::") {
      if (POWER.cast <= power) return undefined;
      reader.at++;
      return castTo(left, readType(reader), this.scope);
    }
    if (operator === "collate") {
      if (POWER.collate <= power) return undefined;
      reader.at++;
      return this.#collated(left, reader.qualifiedName().name);
    }
    if (operator === "is" || operator === "isnull" || operator === "notnull") {
      if (POWER.is <= power) return undefined;
      reader.at++;
      return this.#is(operator, left);
    }
    const negated = operator === "not";
    const word = negated ? reader.peek(1)?.value : operator;
    if (word === undefined || !/^(?:in|between|like|ilike|~~\*?|!~~\*?)$/.test(word)) return undefined;
    // In MySQL they are compared as = is, and BETWEEN after it.
    const own = this.#mysql ? (word === "between" ? POWER.is : POWER.compare) : POWER.between;
    if (own <= power) return undefined;
    reader.at += negated ? 2 : 1;
    return this.#set(word, negated, left);
  }

  #set(word: string, negated: boolean, left: Expression): Expression {
    const { reader } = this;
    const not = negated ? "NOT " : "";
    if (word === "in") {
      const inner = reader.parenthesized();
      if (isWord(inner[0], "select"))
        return { sql: `(${left.sql} ${not}IN (${this.#subquery(inner)}))`, kind: "boolean" };
      return this.#in(left, inner, negated);
    }
    if (word === "between") {
      if (reader.is("symmetric")) throw new Untranslatable("BETWEEN SYMMETRIC");
      const [, low] = this.#comparable(left, this.expression(POWER.between));
      reader.expect("and");
      const [, high] = this.#comparable(left, this.expression(POWER.between));
      this.#sortable(left);
      return { sql: `(${left.sql} ${not}BETWEEN ${low.sql} AND ${high.sql})`, kind: "boolean" };
    }
    const pattern = this.expression(POWER.between);
    if (reader.is("escape")) throw new Untranslatable("LIKE … ESCAPE");
    return this.#like(
      left,
      pattern,
      negated !== word.startsWith("!"),
      word === "ilike" || word.endsWith("*"),
    );
  }

  #in(left: Expression, tokens: readonly Token[], negated: boolean): Expression {
    const members = splitAtCommas(tokens).map((piece) => {
      return this.#comparable(left, this.#inner(piece))[1].sql;
    });
    return { sql: `(${left.sql} ${negated ? "NOT " : ""}IN (${members.join(", ")}))`, kind: "boolean" };
  }

  /** = ANY (ARRAY[…]) and <> ALL (ARRAY[…]), as PostgreSQL writes IN and NOT IN. */
  #anyOf(comparison: string, left: Expression): Expression {
    const any = this.reader.next().value === "any";
    const negated = comparison === "<>" && !any;
    if (!negated && !(comparison === "=" && any))
      throw new Untranslatable(`${comparison} ${any ? "ANY" : "ALL"}`);
    let tokens = this.reader.parenthesized();
    // ((ARRAY[…])::text[]): casts of the whole array make no difference to which texts are in it.
    while (isSymbol(tokens[0], "(")) tokens = new TokenReader(tokens, this.scope.family).parenthesized();
    const close = tokens.findLastIndex((token, i) => isSymbol(token, "]") && !isSymbol(tokens[i - 1], "["));
    const after = tokens[close + 1];
    if (
      !isWord(tokens[0], "array") ||
      !isSymbol(tokens[1], "[") ||
      (after !== undefined && after.value !== "::")
    ) {
      throw new Untranslatable("ANY or ALL of anything but a list");
    }
    return this.#in(left, tokens.slice(2, close), negated);
  }

  #is(operator: string, left: Expression): Expression {
    const { reader } = this;
    if (operator === "isnull") return { sql: `(${left.sql} IS NULL)`, kind: "boolean" };
    if (operator === "notnull") return { sql: `(${left.sql} IS NOT NULL)`, kind: "boolean" };
    const not = reader.take("not") ? "NOT " : "";
    const word = reader.next().value;
    if (word === "null" || word === "unknown") return { sql: `(${left.sql} IS ${not}NULL)`, kind: "boolean" };
    if (word === "true" || word === "false") {
      return { sql: `(${left.sql} IS ${not}${word.toUpperCase()})`, kind: "boolean" };
    }
    if (word !== "distinct") throw new Untranslatable(`IS ${word}`);
    reader.expect("from");
    const [a, b] = this.#comparable(left, this.expression(POWER.compare));
    return { sql: `(${a.sql} IS ${not === "" ? "NOT " : ""}${b.sql})`, kind: "boolean" };
  }

  #collated(left: Expression, collation: string): Expression {
    const name = collation.toLowerCase();
    if (!this.#mysql) {
      // What compares equal is the same in all of PostgreSQL's own; only the order differs.
      return left;
    }
    return { ...left, sql: `(${left.sql} COLLATE ${/_ci$/.test(name) ? "NOCASE" : "BINARY"})` };
  }

  #like(left: Expression, pattern: Expression, negated: boolean, ignoresCase: boolean): Expression {
    const not = negated ? "NOT " : "";
    if (left.kind !== "text" && left.kind !== undefined) throw new Untranslatable("LIKE on what is no text");
    if (pattern.literal === undefined) throw new Untranslatable("LIKE with a pattern that is no literal");
    if (this.#mysql || ignoresCase || left.order === "no case") {
      this.scope.note("LIKE ignores the case of ASCII letters only");
      const clause = pattern.literal.includes("\\") ? " ESCAPE '\\'" : "";
      return { sql: `(${left.sql} ${not}LIKE ${pattern.sql}${clause})`, kind: "boolean" };
    }
    return { sql: `(${left.sql} ${not}GLOB ${textLiteral(globOf(pattern.literal))})`, kind: "boolean" };
  }

  /** In PostgreSQL the members of an ENUM are in its order, not in the alphabet's. */
  #sortable(...sides: readonly Expression[]): void {
    if (!this.#mysql && sides.some(({ order }) => order === "members")) {
      throw new Untranslatable("the order of an ENUM's members");
    }
  }

  /** Both sides as they are to be compared; refused where SQLite would compare them otherwise. */
  #comparable(a: Expression, b: Expression): [Expression, Expression] {
    if (a.kind === "inexact" || b.kind === "inexact") {
      throw new Untranslatable("a comparison with the result of decimal arithmetic, which is not exact here");
    }
    if (isTime(a.kind)) return [a, timeLiteral(b, a)];
    if (isTime(b.kind)) return [timeLiteral(a, b), b];
    const mixed = (isNumber(a.kind) && isTextual(b.kind)) || (isTextual(a.kind) && isNumber(b.kind));
    if (mixed) throw new Untranslatable("a comparison of text with numbers");
    const text = isTextual(a.kind) || isTextual(b.kind);
    if (this.#mysql && text && !a.column && !b.column) {
      this.scope.note("computed text is compared with regard to case");
    }
    if (a.kind === "padded" || b.kind === "padded") {
      // Blanks at the end are no part of such values; those in the table have lost theirs.
      return [trimmed(a), trimmed(b)];
    }
    return [a, b];
  }
}

function trimmed(expression: Expression): Expression {
  if (expression.literal === undefined) return expression;
  return { ...expression, sql: textLiteral(expression.literal.replace(/ +$/, "")) };
}

function numberExpression(text: string): Expression {
  if (/^\d+$/.test(text)) {
    const value = BigInt(text);
    if (value > 2n ** 63n - 1n) throw new Untranslatable(`${text}, larger than any integer here`);
    return { sql: value.toString(), kind: "integer", constant: true };
  }
  return { sql: text.startsWith(".") ? `0${text}` : text, kind: "numeric", constant: true };
}

/** A pattern of LIKE as one of GLOB, which minds the case as PostgreSQL's LIKE does. */
function globOf(pattern: string): string {
  return pattern.replace(/\\([\s\S])|[%_*?[]/g, (found, escaped?: string) => {
    if (escaped !== undefined) return /[*?[]/.test(escaped) ? `[${escaped}]` : escaped;
    if (found === "%") return "*";
    return found === "_" ? "?" : `[${found}]`;
  });
}
