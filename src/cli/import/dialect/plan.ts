/**
 * A dump's schema as what is to be made in the database: tables first, then, once the rows are in, indexes and views.
 * All of it is made in a sandbox on the way, so that nothing is begun that SQLite would refuse.
 */
import { columnExpression, resolveType } from "./column-type.js";
import { translate } from "./expression.js";
import { type Scope, Untranslatable } from "./expression-types.js";
import type { Family } from "./lexer.js";
import { candidates, Names, sqlName } from "./names.js";
import type { Report } from "./report.js";
import { Sandbox } from "./sandbox.js";
import { type Column, type Index, Schema, shownName, type Table, type View } from "./schema.js";
import { translateSelect } from "./select.js";
import {
  type BuildContext,
  type BuiltTable,
  buildTable,
  columnScope,
  findColumn,
  keyPartSql,
} from "./table-sql.js";
import type { QualifiedName } from "./tokens.js";

export interface Statement {
  readonly name: string;
  readonly sql: string;
  readonly line: number;
}

export interface Plan {
  readonly tables: readonly BuiltTable[];
  readonly indexes: readonly Statement[];
  readonly views: readonly Statement[];
  /** Where rows for a table of the dump go: its columns in their order there. */
  target(
    name: QualifiedName,
  ): { readonly table: BuiltTable; readonly columns: readonly Column[] } | undefined;
}

/** Throws UnusableSchema where there is no way to make a table. */
export function planSchema(schema: Schema, family: Family, report: Report, only?: string): Plan {
  const sandbox = new Sandbox();
  try {
    return new Planner(schema, family, report, sandbox, only).plan();
  } finally {
    sandbox.close();
  }
}

export class UnusableSchema extends Error {
  constructor(
    readonly line: number,
    message: string,
  ) {
    super(message);
  }
}

class Planner implements BuildContext {
  readonly #names = new Names();
  readonly #tableNames = new Map<Table, string>();
  readonly #viewNames = new Map<View, string>();
  readonly #built = new Map<Table, BuiltTable>();

  constructor(
    readonly schema: Schema,
    readonly family: Family,
    readonly report: Report,
    readonly sandbox: Sandbox,
    readonly only: string | undefined,
  ) {}

  plan(): Plan {
    const wanted = this.only?.toLowerCase();
    const tables = [...this.schema.tables.values()].filter(
      (table) => wanted === undefined || table.name.name.toLowerCase() === wanted,
    );
    // Those of the schema that needs no naming keep their names.
    const roots = tables.filter((table) => this.rootOf(table.name) === table);
    const plain = (table: Table): boolean => shownName(table.name) === table.name.name;
    for (const table of [...roots.filter(plain), ...roots.filter((table) => !plain(table))])
      this.#takeName(table);
    const views = wanted === undefined ? [...this.schema.views.values()] : [];
    for (const view of views) this.#viewNames.set(view, this.#names.take(...candidates(view.name)));
    for (const table of tables) this.#build(table);
    const indexes = [...this.#built.values()].flatMap((built) => this.#indexes(built));
    const plannedViews = this.#views(views);
    for (const sequence of this.schema.sequences.values()) {
      if (!sequence.used && wanted === undefined)
        this.report.note("sequence", sequence.line, shownName(sequence.name));
    }
    return {
      tables: [...this.#built.values()],
      indexes,
      views: plannedViews,
      target: (name) => this.#target(name),
    };
  }

  nameOf(table: Table): string {
    return this.#tableNames.get(table) ?? table.name.name;
  }

  isMade(table: Table): boolean {
    return this.#tableNames.has(table);
  }

  rootOf(name: QualifiedName): Table | undefined {
    const seen = new Set<Table>();
    let table = this.schema.table(name);
    while (table?.partitionOf !== undefined && !seen.has(table)) {
      seen.add(table);
      const whole = this.schema.table(table.partitionOf);
      if (whole === undefined) break;
      table = whole;
    }
    return table;
  }

  columnsOf(table: Table): readonly Column[] {
    const columns = table.inherits.flatMap((name) => {
      const parent = this.schema.table(name);
      return parent === undefined || parent === table ? [] : this.columnsOf(parent);
    });
    // PARTITION OF has no columns of its own.
    if (table.columns.length === 0 && table.partitionOf !== undefined) {
      const whole = this.schema.table(table.partitionOf);
      if (whole !== undefined && whole !== table) return this.columnsOf(whole);
    }
    for (const column of table.columns) {
      const at = columns.findIndex(({ name }) => name === column.name);
      if (at < 0) columns.push(column);
      else columns[at] = column;
    }
    return columns;
  }

  #takeName(table: Table): void {
    const name = this.#names.take(...candidates(table.name));
    if (name !== table.name.name)
      this.report.note("new name", table.line, `${shownName(table.name)} is ${name} now`);
    this.#tableNames.set(table, name);
  }

  #build(table: Table): void {
    if (this.rootOf(table.name) !== table) {
      this.report.note(
        "partition",
        table.line,
        `${shownName(table.name)}: its rows are in ${shownName(this.rootOf(table.name)!.name)}`,
      );
      return;
    }
    if (table.inherits.length > 0) {
      const parents = table.inherits.map(shownName).join(", ");
      this.report.note(
        "inheritance",
        table.line,
        `${shownName(table.name)}: a table of its own, no part of ${parents}`,
      );
    }
    if (this.columnsOf(table).length === 0) {
      this.report.note("table without columns", table.line, shownName(table.name));
      return;
    }
    const built = buildTable(table, this);
    const objection = this.sandbox.run(built.sql);
    if (objection !== undefined) throw new UnusableSchema(table.line, `table ${built.name}: ${objection}`);
    this.#built.set(table, built);
  }

  #target(name: QualifiedName): ReturnType<Plan["target"]> {
    const table = this.schema.table(name);
    const root = table === undefined ? undefined : this.rootOf(name);
    const built = root === undefined ? undefined : this.#built.get(root);
    return built === undefined ? undefined : { table: built, columns: this.columnsOf(table!) };
  }

  #indexes(built: BuiltTable): Statement[] {
    const { source } = built;
    return [...source.indexes, ...built.indexes].flatMap((index) => {
      const unnamed = index.parts.map(({ column }) => column ?? "expression").join("_");
      const own = index.name ?? `${built.name}_${unnamed}`;
      const name = this.#names.take(own, `${built.name}_${own}`);
      const sql = this.#indexSql(index, name, built);
      return sql === undefined ? [] : [{ name, sql, line: index.line }];
    });
  }

  #indexSql(index: Index, name: string, built: BuiltTable): string | undefined {
    const kind = index.unique ? "unique index" : "index";
    const notes = new Set<string>();
    const scope = columnScope(this.columnsOf(built.source), this, notes);
    const what = `${name} on ${shownName(built.source.name)}`;
    try {
      const parts = index.parts.map((part) => keyPartSql(part, index.unique, scope)).join(", ");
      const where = index.where === undefined ? "" : ` WHERE ${translate(index.where, scope).sql}`;
      const sql = `CREATE ${index.unique ? "UNIQUE " : ""}INDEX ${sqlName(name)} ON ${sqlName(built.name)} (${parts})${where}`;
      const objection = this.sandbox.run(sql);
      if (objection !== undefined) throw new Untranslatable(objection);
      for (const note of notes)
        this.report.note(`${kind} with a difference`, index.line, `${what} (${note})`);
      return sql;
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      this.report.note(kind, index.line, `${what} (${error.message})`);
      return undefined;
    }
  }

  /** Views may use views that come later. */
  #views(views: readonly View[]): Statement[] {
    const made: Statement[] = [];
    let waiting = views.map((view) => ({ view, why: "" }));
    for (let before = -1; before !== made.length; ) {
      before = made.length;
      waiting = waiting.flatMap(({ view }) => {
        const result = this.#view(view);
        if (typeof result === "string") return [{ view, why: result }];
        made.push(result);
        return [];
      });
    }
    for (const { view, why } of waiting)
      this.report.note("view", view.line, `${shownName(view.name)} (${why})`);
    return made;
  }

  /** The view's statement, or why there is none. */
  #view(view: View): Statement | string {
    const notes = new Set<string>();
    const name = this.#viewNames.get(view)!;
    try {
      const { note, type }: Pick<Scope, "note" | "type"> = columnScope([], this, notes);
      const select = translateSelect(view.select, {
        family: this.family,
        scope: { note, type },
        relations: {
          find: (relation) => this.#relation({ ...relation, schema: relation.schema ?? view.name.schema }),
        },
      });
      const columns = view.columns.length === 0 ? "" : ` (${view.columns.map(sqlName).join(", ")})`;
      const sql = `CREATE VIEW ${sqlName(name)}${columns} AS ${select}`;
      const objection =
        this.sandbox.objection(sql, `SELECT * FROM ${sqlName(name)}`) ?? this.sandbox.run(sql);
      if (objection !== undefined) return objection;
      for (const note of notes)
        this.report.note("view with a difference", view.line, `${shownName(view.name)} (${note})`);
      return { name, sql, line: view.line };
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      return error.message;
    }
  }

  #relation(name: QualifiedName): ReturnType<import("./select.js").Relations["find"]> {
    const table = this.rootOf(name);
    if (table !== undefined) {
      const columns = this.columnsOf(table);
      return {
        name: this.nameOf(table),
        columns: (column) => {
          const found = findColumn(columns, column, this.family);
          if (found === undefined) return undefined;
          return columnExpression(sqlName(found.name), resolveType(found.type, this.schema, this.family));
        },
      };
    }
    const view = Schema.find(this.schema.views, name);
    return view === undefined ? undefined : { name: this.#viewNames.get(view)!, columns: () => undefined };
  }
}
