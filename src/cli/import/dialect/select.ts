/**
 * The SELECT of a view as SQLite's, by the rules of expression.ts: what is not known to mean the same is not translated
 * (Untranslatable). Dumps have views as the servers print them, with every column named and every name resolved.
 */
import { Translator } from "./expression.js";
import { type Expression, type Scope, Untranslatable } from "./expression-types.js";
import type { Family } from "./lexer.js";
import { sqlName } from "./names.js";
import {
  isSymbol,
  isWord,
  nameOf,
  type QualifiedName,
  splitAtCommas,
  type Token,
  TokenReader,
  textOf,
} from "./tokens.js";

/** What a table or view has to say of its columns; undefined where nothing is known of one. */
export type ColumnLookUp = (column: string) => Expression | undefined;

export interface Relations {
  /** The name in the new database, and the columns; undefined when there is no such table or view. */
  find(name: QualifiedName): { readonly name: string; readonly columns: ColumnLookUp } | undefined;
}

export interface SelectContext {
  readonly family: Family;
  readonly relations: Relations;
  readonly scope: Pick<Scope, "note" | "type">;
}

const UNKNOWN: ColumnLookUp = () => undefined;
/** Words that cannot be an alias written without AS. */
const CLAUSES = new Set(
  (
    "where group having order limit offset union intersect except on using join inner left right full cross natural " +
    "straight_join window for fetch lateral as from"
  ).split(" "),
);

export function translateSelect(tokens: readonly Token[], context: SelectContext): string {
  try {
    return new SelectTranslator(new TokenReader(tokens, context.family), context, []).whole();
  } catch (error) {
    if (error instanceof SyntaxError) throw new Untranslatable(error.message);
    throw error;
  }
}

interface Source {
  readonly alias: string;
  readonly columns: ColumnLookUp;
}

class SelectTranslator {
  #sources: Source[] = [];
  /** WITH's names. */
  readonly #local = new Set<string>();

  constructor(
    readonly reader: TokenReader,
    readonly context: SelectContext,
    /** Those of the queries around this one. */
    readonly outer: readonly Source[],
  ) {}

  whole(): string {
    const sql = this.#query();
    if (!this.reader.done) throw new Untranslatable(textOf(this.reader.rest(), 30));
    return sql;
  }

  #query(): string {
    const { reader } = this;
    let sql = "";
    if (reader.take("with")) {
      if (reader.take("recursive")) throw new Untranslatable("WITH RECURSIVE");
      sql += "WITH ";
      do {
        const name = reader.name();
        const columns = reader.is("(") ? `(${this.#names(reader.parenthesized())})` : "";
        reader.expect("as");
        reader.take("not");
        reader.take("materialized");
        sql += `${sql.endsWith("WITH ") ? "" : ", "}${sqlName(name)}${columns} AS (${this.#inner(reader.parenthesized())})`;
        this.#local.add(name);
      } while (reader.take(","));
      sql += " ";
    }
    sql += this.#select();
    let compound = false;
    for (let word = this.#compound(); word !== undefined; word = this.#compound()) {
      compound = true;
      this.#sources = [];
      sql += ` ${word} ${this.#select()}`;
    }
    return sql + this.#orderBy(compound) + this.#limit();
  }

  #compound(): string | undefined {
    const { reader } = this;
    const word = reader.peek()?.value;
    if (word !== "union" && word !== "intersect" && word !== "except") return undefined;
    reader.at++;
    const all = reader.take("all");
    if (all && word !== "union") throw new Untranslatable(`${word.toUpperCase()} ALL`);
    return `${word.toUpperCase()}${all ? " ALL" : ""}`;
  }

  #select(): string {
    const { reader } = this;
    if (!reader.take("select"))
      throw new Untranslatable(`${reader.peek()?.text ?? "nothing"} in place of SELECT`);
    const distinct = reader.take("distinct");
    if (distinct && reader.is("on")) throw new Untranslatable("DISTINCT ON");
    const from = this.#upTo(
      "from",
      "where",
      "group",
      "having",
      "order",
      "limit",
      "offset",
      "union",
      "intersect",
      "except",
    );
    let tail = "";
    if (reader.take("from")) tail += ` FROM ${this.#from()}`;
    if (reader.take("where"))
      tail += ` WHERE ${this.#clause("group", "having", "order", "limit", "offset", "union", "intersect", "except")}`;
    if (reader.take("group", "by")) {
      const list = this.#upTo("having", "order", "limit", "offset", "union", "intersect", "except", "with");
      tail += ` GROUP BY ${splitAtCommas(list)
        .map((piece) => this.#expression(piece).sql)
        .join(", ")}`;
    }
    if (reader.take("having"))
      tail += ` HAVING ${this.#clause("order", "limit", "offset", "union", "intersect", "except")}`;
    const items = splitAtCommas(from).map((piece) => this.#item(piece));
    return `SELECT ${distinct ? "DISTINCT " : ""}${items.join(", ")}${tail}`;
  }

  #item(tokens: readonly Token[]): string {
    const as = tokens.findLastIndex((token) => isWord(token, "as"));
    if (as < 0 || as !== tokens.length - 2) {
      if (tokens.some((token) => isSymbol(token, "*")) && tokens.length <= 3)
        throw new Untranslatable("SELECT *");
      const { sql } = this.#expression(tokens);
      // PostgreSQL leaves out a name that the column has anyway.
      const column = tokens.length === 1 || isSymbol(tokens[tokens.length - 2], ".");
      const name = column ? nameOf(tokens[tokens.length - 1], this.context.family) : undefined;
      return name === undefined ? sql : `${sql} AS ${sqlName(name)}`;
    }
    const name = nameOf(tokens[as + 1], this.context.family);
    if (name === undefined) throw new Untranslatable("a column without a name");
    return `${this.#expression(tokens.slice(0, as)).sql} AS ${sqlName(name)}`;
  }

  #from(): string {
    let sql = this.#joined();
    while (this.reader.take(",")) sql += `, ${this.#joined()}`;
    return sql;
  }

  #joined(): string {
    const { reader } = this;
    let sql = this.#source();
    for (;;) {
      let join = "JOIN";
      if (reader.take("cross", "join")) {
        sql += ` CROSS JOIN ${this.#source()}`;
        continue;
      }
      if (reader.take("left", "outer", "join") || reader.take("left", "join")) join = "LEFT JOIN";
      else if (reader.take("right", "outer", "join") || reader.take("right", "join")) join = "RIGHT JOIN";
      else if (reader.take("full", "outer", "join") || reader.take("full", "join")) join = "FULL JOIN";
      else if (!(reader.take("inner", "join") || reader.take("join"))) return sql;
      sql += ` ${join} ${this.#source()}`;
      if (reader.take("using")) sql += ` USING (${this.#names(reader.parenthesized())})`;
      else if (reader.take("on")) sql += ` ON ${this.#condition()}`;
    }
  }

  /** After ON: both servers print its parentheses. */
  #condition(): string {
    if (!this.reader.is("(")) throw new Untranslatable("ON without parentheses");
    return this.#expression(this.reader.parenthesized()).sql;
  }

  #source(): string {
    const { reader } = this;
    if (reader.is("(")) {
      const inner = reader.parenthesized();
      if (isWord(inner[0], "select") || isWord(inner[0], "with")) {
        const sql = `(${this.#inner(inner)})`;
        return this.#aliased(sql, UNKNOWN, undefined);
      }
      // (a JOIN b ON (…)): its names are those of the query around it.
      const nested = new SelectTranslator(
        new TokenReader(inner, this.context.family),
        this.context,
        this.outer,
      );
      const sql = nested.#joined();
      if (!nested.reader.done) throw new Untranslatable(textOf(nested.reader.rest(), 30));
      this.#sources.push(...nested.#sources);
      return `(${sql})`;
    }
    if (reader.is("lateral") || reader.is("only")) throw new Untranslatable(reader.peek()!.text);
    const name = reader.qualifiedName();
    if (reader.is("(")) throw new Untranslatable(`${name.name}() as a table`);
    if (name.schema === undefined && this.#local.has(name.name))
      return this.#aliased(sqlName(name.name), UNKNOWN, name.name);
    const found = this.context.relations.find(name);
    if (found === undefined) throw new Untranslatable(`there is no ${name.name}`);
    return this.#aliased(sqlName(found.name), found.columns, name.name);
  }

  #aliased(sql: string, columns: ColumnLookUp, name: string | undefined): string {
    const { reader } = this;
    const as = reader.take("as");
    const next = reader.peek();
    const named = next?.kind === "name" || (next?.kind === "word" && (as || !CLAUSES.has(next.value)));
    const alias = named ? reader.name() : name;
    if (alias === undefined) throw new Untranslatable("a subquery without a name");
    if (named && reader.is("(")) throw new Untranslatable("names of columns after an alias");
    this.#sources.push({ alias, columns });
    return alias === name && sql === sqlName(alias) ? sql : `${sql} AS ${sqlName(alias)}`;
  }

  #orderBy(compound: boolean): string {
    const { reader } = this;
    if (!reader.take("order", "by")) return "";
    if (compound) throw new Untranslatable("ORDER BY of a UNION");
    const items = splitAtCommas(this.#upTo("limit", "offset", "for", "fetch")).map((piece) =>
      this.#orderItem(piece),
    );
    return ` ORDER BY ${items.join(", ")}`;
  }

  /** NULLs come last in PostgreSQL and first elsewhere. */
  #orderItem(tokens: readonly Token[]): string {
    let rest = tokens;
    let nulls = "";
    if (isWord(rest[rest.length - 2], "nulls")) {
      nulls = ` NULLS ${rest[rest.length - 1]!.value.toUpperCase()}`;
      rest = rest.slice(0, -2);
    }
    const last = rest[rest.length - 1];
    const descending = isWord(last, "desc");
    if (descending || isWord(last, "asc")) rest = rest.slice(0, -1);
    if (nulls === "" && this.context.family === "postgresql")
      nulls = descending ? " NULLS FIRST" : " NULLS LAST";
    const { sql, order } = this.#expression(rest);
    if (order === "members") this.context.scope.note("an ENUM is sorted by the alphabet");
    return `${sql}${descending ? " DESC" : ""}${nulls}`;
  }

  #limit(): string {
    const { reader } = this;
    let sql = "";
    if (reader.take("limit")) {
      const limit = reader.next();
      if (limit.kind !== "number" || reader.is(",")) throw new Untranslatable("LIMIT");
      sql += ` LIMIT ${limit.value}`;
    }
    if (reader.take("offset")) {
      const offset = reader.next();
      if (offset.kind !== "number") throw new Untranslatable("OFFSET");
      sql += `${sql === "" ? " LIMIT -1" : ""} OFFSET ${offset.value}`;
    }
    return sql;
  }

  #clause(...ends: readonly string[]): string {
    return this.#expression(this.#upTo(...ends)).sql;
  }

  /** The tokens before the first of these words that is in no parentheses. */
  #upTo(...words: readonly string[]): readonly Token[] {
    const { reader } = this;
    const from = reader.at;
    let depth = 0;
    for (; !reader.done; reader.at++) {
      const token = reader.peek()!;
      if (isSymbol(token, "(")) depth++;
      else if (isSymbol(token, ")")) depth--;
      // IS DISTINCT FROM is no FROM.
      const distinctFrom =
        token.value === "from" && isWord(reader.peek(-1), "distinct") && reader.at > from + 1;
      if (depth === 0 && token.kind === "word" && words.includes(token.value) && !distinctFrom) break;
    }
    return reader.tokens.slice(from, reader.at);
  }

  #names(tokens: readonly Token[]): string {
    return splitAtCommas(tokens)
      .map(([token]) => sqlName(nameOf(token, this.context.family) ?? ""))
      .join(", ");
  }

  #inner(tokens: readonly Token[]): string {
    const inner = new SelectTranslator(new TokenReader(tokens, this.context.family), this.context, [
      ...this.#sources,
      ...this.outer,
    ]);
    for (const name of this.#local) inner.#local.add(name);
    return inner.whole();
  }

  #expression(tokens: readonly Token[]): Expression {
    const scope: Scope = {
      ...this.context.scope,
      family: this.context.family,
      column: (qualifier, name) => this.#column(qualifier, name),
      subquery: (inner) => this.#inner(inner),
    };
    return new Translator(new TokenReader(tokens, this.context.family), scope).whole();
  }

  #column(qualifier: string | undefined, name: string): Expression {
    const sources = [...this.#sources, ...this.outer];
    if (qualifier === undefined) {
      const known = sources.map(({ columns }) => columns(name)).filter((column) => column !== undefined);
      const [only] = known;
      return known.length === 1 ? { ...only!, sql: sqlName(name) } : { sql: sqlName(name), kind: undefined };
    }
    const source = sources.find(({ alias }) => alias === qualifier);
    if (source === undefined) throw new Untranslatable(`${qualifier}.${name}: no such column`);
    const known = source.columns(name);
    return { ...(known ?? { kind: undefined }), sql: `${sqlName(qualifier)}.${sqlName(name)}` };
  }
}
