/** A SchemaOracle for tests, on a better-sqlite3 database that the test owns. */
import Database from "better-sqlite3";
import { UserError } from "../../../src/base/errors.js";
import { parameterLayout } from "../../../src/sql/parameters.js";
import { lowerAscii, tokenize } from "../../../src/sql/tokenizer.js";
import type { OpcodeRow, PreparedFacts, SchemaOracle, TableFacts } from "../../../src/sql/types.js";

export class OracleDouble implements SchemaOracle {
  version = 1;
  explains = 0;
  constructor(readonly db: Database.Database = new Database(":memory:")) {
    db.exec("create temp view if not exists _ostraka_schema_view as select * from main.sqlite_schema");
    db.exec("create temp view if not exists _ostraka_temp_schema_view as select * from temp.sqlite_schema");
  }

  exec(sql: string): void {
    this.db.exec(sql);
    this.version++;
  }

  #compile(sql: string): Database.Statement {
    try {
      return this.db.prepare(sql);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      throw new UserError(code ?? "SQLITE_ERROR", message);
    }
  }

  prepare(sql: string): PreparedFacts {
    const statement = this.#compile(sql);
    const columns = statement.reader ? statement.columns() : [];
    return {
      readonly: statement.readonly,
      returnsRows: statement.reader,
      columns: columns.map((c) => c.name),
      columnTypes: columns.map((c) => c.type),
    };
  }

  explain(sql: string): readonly OpcodeRow[] {
    this.explains++;
    return this.#rows(`EXPLAIN ${sql}`) as OpcodeRow[];
  }

  explainQueryPlan(sql: string): readonly { id: number; parent: number; detail: string }[] {
    return this.#rows(`EXPLAIN QUERY PLAN ${sql}`) as { id: number; parent: number; detail: string }[];
  }

  #rows(sql: string): unknown[] {
    const { names } = parameterLayout(tokenize(sql));
    const statement = this.#compile(sql);
    const numbered: Record<string, null> = {};
    let plain = 0;
    for (const name of names) {
      if (name === undefined) plain++;
      else numbered[name.slice(1)] = null;
    }
    return statement.all(...Array(plain).fill(null), ...(Object.keys(numbered).length ? [numbered] : []));
  }

  objectByRootPage(database: number, rootPage: number) {
    const schema = database === 1 ? "temp.sqlite_schema" : "main.sqlite_schema";
    if (rootPage === 1) return { name: "sqlite_schema", table: "sqlite_schema", kind: "table" as const };
    const row = this.db
      .prepare(`select name, tbl_name as "table", type as kind from ${schema} where rootpage=?`)
      .get(rootPage);
    return row as { name: string; table: string; kind: "table" | "index" } | undefined;
  }

  isUniqueIndex(rootPage: number): boolean {
    const index = this.objectByRootPage(0, rootPage);
    const unique = `select 1 from pragma_index_list(?) where name=? and "unique"`;
    return index !== undefined && this.db.prepare(unique).get(index.table, index.name) !== undefined;
  }

  virtualTables() {
    return this.db.prepare("select name, sql from sqlite_schema where sql like 'create virtual%'").all() as {
      name: string;
      sql: string;
    }[];
  }

  table(name: string): TableFacts | undefined {
    const row = this.db
      .prepare("select name, type, wr from pragma_table_list where schema='main' and lower(name)=lower(?)")
      .get(name) as { name: string; type: TableFacts["kind"]; wr: number } | undefined;
    if (row === undefined) return undefined;
    const columns = this.db.prepare("select name, type, pk from pragma_table_xinfo(?)").all(row.name) as {
      name: string;
      type: string;
      pk: number;
    }[];
    const hasPkIndex = this.db.prepare("select 1 from pragma_index_list(?) where origin='pk'").get(row.name);
    const sql = this.db.prepare("select sql from sqlite_schema where name=?").pluck().get(row.name) as string;
    const alias = row.wr === 0 && hasPkIndex === undefined ? columns.find((c) => c.pk > 0)?.name : undefined;
    return {
      name: row.name,
      kind: row.type,
      withoutRowid: row.wr === 1,
      integerPrimaryKey: alias,
      autoincrement: /autoincrement/i.test(sql ?? ""),
      columns: columns.map((c) => c.name),
      hasTriggers:
        this.db
          .prepare("select 1 from sqlite_schema where type='trigger' and lower(tbl_name)=?")
          .get(lowerAscii(row.name)) !== undefined,
    };
  }
}
