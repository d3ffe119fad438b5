/**
 * node-sql-parser, which knows the grammars of the other databases, behind the little that is asked of it: the
 * structure of one definition or one CREATE INDEX.
 *
 * It gives AND and OR the same precedence, leaves escapes in strings, and takes some names for keywords; so it is only
 * ever shown skeletons (skeleton.ts): statements in which every name, literal, type and expression is a placeholder.
 * What it cannot read it refuses, and then the caller says so; nothing of what it makes is used as SQL.
 */
import type { Dialect } from "./session.js";

/** A node of the parser's tree: its shape depends on the dialect, so every member is looked at before it is used. */
export type Node = Readonly<Record<string, unknown>>;

export class DdlParser {
  readonly #parse: (sql: string) => unknown;

  private constructor(parse: (sql: string) => unknown) {
    this.#parse = parse;
  }

  /** Grammars are large: only the one that is needed is loaded, and only when it is. */
  static async load(dialect: Dialect): Promise<DdlParser> {
    const { default: build } =
      dialect === "postgresql"
        ? await import("node-sql-parser/build/postgresql.js")
        : dialect === "mariadb"
          ? await import("node-sql-parser/build/mariadb.js")
          : await import("node-sql-parser/build/mysql.js");
    const parser = new build.Parser();
    return new DdlParser((sql) => parser.astify(sql));
  }

  /** The tree of one statement; undefined when the parser does not understand it. */
  statement(sql: string): Node | undefined {
    let parsed: unknown;
    try {
      parsed = this.#parse(sql);
    } catch {
      return undefined;
    }
    const only = Array.isArray(parsed) ? (parsed.length === 1 ? parsed[0] : undefined) : parsed;
    return isNode(only) ? only : undefined;
  }

  /** The trees of the definitions within a CREATE TABLE; none when the parser does not understand them. */
  definitions(sql: string): Node[] {
    return nodes(this.statement(`CREATE TABLE t (${sql})`)?.create_definitions);
  }
}

export function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function nodes(value: unknown): Node[] {
  return Array.isArray(value) ? value.filter(isNode) : [];
}

/** A member that is text. */
export function textIn(node: unknown, ...path: readonly string[]): string | undefined {
  let value = node;
  for (const step of path) value = isNode(value) ? value[step] : undefined;
  return typeof value === "string" ? value : undefined;
}

/** The name in a reference to a column, which the dialects nest differently. */
export function columnIn(node: Node): string | undefined {
  return textIn(node, "column") ?? textIn(node, "column", "expr", "value");
}
