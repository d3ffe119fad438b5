/** Rows of one INSERT or COPY as rows of a table: which of its columns they fill, and with what. */
import type { InputValue } from "../../../driver/types.js";
import { quoteName } from "../../format/literals.js";
import { RowError, type SourceRow } from "../loader.js";
import { translate } from "./expression.js";
import { type Scope, Untranslatable } from "./expression-types.js";
import type { RawRow } from "./scanner.js";
import type { DumpSession } from "./session.js";
import type { BuiltColumn, BuiltTable } from "./table-sql.js";
import { inputValue, type ValueContext } from "./values.js";

/** What an INSERT does with a row that is there already. */
export type OnConflict = "fail" | "replace" | "ignore";

export class RowTarget {
  readonly #sql: string;
  readonly #scope: Scope;
  readonly #hasGenerated: boolean;

  constructor(
    readonly table: BuiltTable,
    /** Those that the statement fills, in its order. */
    readonly columns: readonly BuiltColumn[],
    readonly session: DumpSession,
    readonly context: ValueContext,
    readonly onConflict: OnConflict,
  ) {
    this.#hasGenerated = columns.some(({ generated }) => generated);
    const filled = columns.filter(({ generated }) => !generated);
    this.#sql = this.#insert(
      filled,
      filled.map(() => "?"),
    );
    this.#scope = {
      family: session.mode.family,
      note: () => undefined,
      type: () => undefined,
      column: (_, name) => {
        throw new Untranslatable(`${name}: not a value`);
      },
    };
  }

  /** Throws RowError. */
  row({ values, line }: RawRow): SourceRow {
    const { columns } = this;
    if (values.length !== columns.length) {
      throw new RowError(line, new Error(`${values.length} values for ${columns.length} columns`));
    }
    const special = values.some((value) => value?.kind === "default" || value?.kind === "expression");
    try {
      if (special) return this.#special(values, line);
      const bound: InputValue[] = [];
      for (let i = 0; i < columns.length; i++) {
        const column = columns[i]!;
        if (this.#hasGenerated && column.generated) continue;
        bound.push(this.#value(values[i]!, column));
      }
      return { values: bound, line, sql: this.#sql };
    } catch (error) {
      throw error instanceof RowError ? error : new RowError(line, error);
    }
  }

  #value(literal: RawRow["values"][number], column: BuiltColumn): InputValue {
    try {
      return inputValue(
        literal,
        { name: `${this.table.name}.${column.source.name}`, kind: column.kind },
        this.context,
      );
    } catch (error) {
      if (error instanceof TypeError) throw new TypeError(`${column.source.name}: ${error.message}`);
      throw error;
    }
  }

  /** With a column left to its default, or a value that has to be computed. */
  #special(values: RawRow["values"], line: number): SourceRow {
    const filled: BuiltColumn[] = [];
    const places: string[] = [];
    const bound: InputValue[] = [];
    for (const [i, value] of values.entries()) {
      const column = this.columns[i]!;
      if (column.generated || value?.kind === "default") continue;
      filled.push(column);
      if (value?.kind === "expression") {
        places.push(this.#expression(value.bytes, column));
      } else {
        places.push("?");
        bound.push(this.#value(value, column));
      }
    }
    return { values: bound, line, sql: this.#insert(filled, places) };
  }

  #expression(bytes: string, column: BuiltColumn): string {
    try {
      return translate(this.session.tokenize(bytes), this.#scope).sql;
    } catch (error) {
      if (!(error instanceof Untranslatable) && !(error instanceof SyntaxError)) throw error;
      throw new TypeError(`${column.source.name}: ${bytes.slice(0, 60)} is no literal (${error.message})`);
    }
  }

  #insert(columns: readonly BuiltColumn[], places: readonly string[]): string {
    const verb = this.onConflict === "replace" ? "INSERT OR REPLACE INTO" : "INSERT INTO";
    const into = `${verb} ${quoteName(this.table.name)}`;
    if (columns.length === 0) return `${into} DEFAULT VALUES`;
    const names = columns.map(({ source }) => quoteName(source.name)).join(",");
    const tail = this.onConflict === "ignore" ? " ON CONFLICT DO NOTHING" : "";
    return `${into}(${names}) VALUES(${places.join(",")})${tail}`;
  }
}
