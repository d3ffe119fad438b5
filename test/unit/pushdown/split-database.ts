/**
 * One database twice: whole, in plain SQLite, and cut into ranges' files, with a runner and a scratch database as a gateway
 * has them, but without a cluster. Files also hold rows that are not their range's (what a split leaves behind).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OstrakaError } from "../../../src/base/errors.js";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { collect } from "../../../src/gateway/outcomes.js";
import { conditionsOf, pushdownOf, safeConditions } from "../../../src/gateway/pushdown.js";
import { isOwnError, runForm } from "../../../src/gateway/pushed-reads.js";
import { DEFAULT_LIMITS } from "../../../src/gateway/replica.js";
import { Scratch } from "../../../src/gateway/scratch.js";
import type { PinnedRange } from "../../../src/gateway/snapshot.js";
import { openConnection, type RangeConnection } from "../../../src/machines/range/connection.js";
import { createOracle, type SessionOracle } from "../../../src/machines/range/oracle.js";
import { createInProcessRunnerPool } from "../../../src/machines/range/runner/pool.js";
import type {
  RowChange,
  Runner,
  RunnerPool,
  SchemaSnapshot,
  StampedStatement,
  StatementOutcome,
} from "../../../src/machines/range/types.js";
import type { RangeDescriptor, TableKey } from "../../../src/placement/descriptor.js";
import { analyse } from "../../../src/sql/analyse.js";
import type { Pushdown } from "../../../src/sql/pushdown-types.js";

/** Turns of the event loop instead of short waits. */
const CLOCK: Clock = {
  monotonicMs: () => 0,
  wallMs: () => 0,
  setTimer: (delayMs, fire) => {
    if (delayMs <= 1) {
      const turn = setImmediate(fire);
      return { cancel: () => clearImmediate(turn) };
    }
    const timer = setTimeout(fire, delayMs).unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

export interface TableDefinition {
  readonly sql: string;
  readonly key: Omit<TableKey, "id">;
  /** Rows of all columns that are not generated, the rowid first where no column stands for it. */
  readonly rows: readonly (readonly SqlValue[])[];
  /** Names of what `rows` has. */
  readonly columns: readonly string[];
  /** Where the key's values are in a row. */
  readonly keyAt: readonly number[];
  /** Keys to cut at: indices of rows. */
  readonly cuts: readonly number[];
}

/** What was told: rows, or an error. */
export interface Told {
  readonly columns?: readonly string[];
  readonly types?: readonly (string | null)[];
  readonly rows?: readonly (readonly SqlValue[])[];
  readonly error?: string;
}

/** What a statement left behind: the rows of all tables. */
export interface Written {
  readonly changes?: number;
  readonly rows?: readonly (readonly (readonly SqlValue[])[])[];
  readonly error?: string;
}

export class SplitDatabase {
  readonly #tables: readonly TableDefinition[];
  readonly plain: RangeConnection;
  readonly oracle: SessionOracle;
  readonly schema: SchemaSnapshot;
  readonly #directory = mkdtempSync(join(tmpdir(), "ostraka-pushdown-"));
  readonly #descriptors: readonly RangeDescriptor[];
  readonly #pool: RunnerPool;
  readonly #deadline = new Deadline(CLOCK, undefined, 60_000, { signal: undefined });
  #runner: Runner | undefined;
  #scratch: Scratch | undefined;

  /** `strays` decides which of another range's rows a file has, as well. */
  constructor(tables: readonly TableDefinition[], others: readonly string[], strays: () => boolean) {
    this.#tables = tables;
    const statements = [...tables.map(({ sql }) => sql), ...others];
    const keys = tables.map(({ key }, i): TableKey => ({ ...key, id: i + 1 }));
    this.schema = { version: 1, statements, appliedIndex: logIndex(1), tables: keys };
    this.oracle = createOracle(this.schema);
    this.plain = openConnection(":memory:", { readonly: false, role: "scratch" });
    for (const sql of statements) this.plain.database.exec(sql);
    this.plain.database.pragma("foreign_keys = OFF");
    for (const table of tables) for (const row of table.rows) insert(this.plain, table, row);
    this.plain.database.pragma("foreign_keys = ON");
    this.#descriptors = descriptorsOf(tables, keys);
    for (const descriptor of this.#descriptors) {
      const file = openConnection(this.#path(descriptor), { readonly: false, role: "scratch" });
      file.database.pragma("foreign_keys = OFF");
      file.database.exec("BEGIN; CREATE TABLE _ostraka_state(applied_index)");
      file.database.exec("INSERT INTO _ostraka_state VALUES (1)");
      for (const sql of statements) file.database.exec(sql);
      for (const [i, table] of tables.entries()) {
        for (const row of table.rows) {
          const key = encodeKey(
            i + 1,
            table.keyAt.map((at) => row[at]!),
          );
          const inside = key >= descriptor.start && (descriptor.end === "" || key < descriptor.end);
          if (inside || strays()) insert(file, table, row);
        }
      }
      file.database.exec("COMMIT");
      file.close();
    }
    this.#pool = createInProcessRunnerPool({ clock: CLOCK, size: 1 });
  }

  get ranges(): number {
    return this.#descriptors.length;
  }

  #path({ range }: RangeDescriptor): string {
    return join(this.#directory, `${range}.db`);
  }

  /** As plain SQLite answers. */
  ask(statement: StampedStatement): Told {
    try {
      return told(this.plain.execute(statement, { maxBytes: 1 << 30 }));
    } catch (error) {
      return failed(error);
    }
  }

  plan(sql: string): Pushdown | undefined {
    return pushdownOf(analyse(sql, this.oracle), this.oracle, this.schema.tables);
  }

  /**
   * As a gateway would answer over the ranges; and how: "merge", "filter", "gather", …; `failure` is the error because of
   * which what was pushed down was given up.
   */
  async askRanges(
    statement: StampedStatement,
  ): Promise<{ readonly told: Told; readonly how: string; readonly failure?: string | undefined }> {
    let analysis: ReturnType<typeof analyse>;
    try {
      analysis = analyse(statement.sql, this.oracle);
    } catch (error) {
      return { told: failed(error), how: "error" };
    }
    const plan = pushdownOf(analysis, this.oracle, this.schema.tables);
    const { reads, checks } = analysis.footprint(statement.params);
    const spans = [...reads, ...checks];
    const scratch = await this.#open();
    let failure: string | undefined;
    if (plan !== undefined) {
      try {
        const stream = await runForm(scratch, { plan, statement, spans }, this.#deadline);
        if (stream !== undefined) return { told: told(await collect(stream, 1 << 30)), how: plan.form!.kind };
        const conditions = conditionsOf(plan, statement, analysis);
        await scratch.ensure({ reads: spans, writes: [], checks: [] }, this.#deadline, conditions);
        const answer = await collect(await scratch.run(statement, this.#deadline, []), 1 << 30);
        return { told: told(answer), how: plan.filters.size > 0 ? "filter" : "gather" };
      } catch (error) {
        await this.renew();
        if (!isOwnError(error)) throw error;
        failure = failed(error).error;
      }
    }
    const fresh = await this.#open();
    try {
      await fresh.ensure({ reads: spans, writes: [], checks: [] }, this.#deadline);
      const answer = await collect(await fresh.run(statement, this.#deadline, []), 1 << 30);
      return { told: told(answer), how: "gather", failure };
    } catch (error) {
      await this.renew();
      return { told: failed(error), how: "gather", failure };
    }
  }

  /** What plain SQLite would have of all tables after a statement, and its count of changes. */
  tryWrite(statement: StampedStatement): Written {
    const { database } = this.plain;
    database.exec("BEGIN");
    try {
      const { changes } = this.plain.execute(statement, { maxBytes: 1 << 30 });
      return { changes, rows: this.#tables.map((table) => this.#allRows(table)) };
    } catch (error) {
      return { error: failed(error).error! };
    } finally {
      if (database.inTransaction) database.exec("ROLLBACK");
    }
  }

  /** The same by the rows that a transaction over the ranges would bring together and change. */
  async tryWriteRanges(
    statement: StampedStatement,
  ): Promise<{ readonly written: Written; readonly how: string }> {
    const analysis = analyse(statement.sql, this.oracle);
    const plan = pushdownOf(analysis, this.oracle, this.schema.tables);
    const conditions = safeConditions(plan, statement, analysis, this.schema.version);
    const how = conditions === undefined ? "gather" : "filter";
    const scratch = await this.#open();
    try {
      await scratch.ensure(analysis.footprint(statement.params), this.#deadline, conditions);
      const { changes } = await collect(await scratch.run(statement, this.#deadline, []), 1 << 30);
      const changed = await scratch.runner.captured();
      return {
        how,
        written: { changes, rows: this.#tables.map((table) => this.#changedRows(table, changed)) },
      };
    } catch (error) {
      return { how, written: { error: failed(error).error! } };
    } finally {
      await this.renew();
    }
  }

  /** By key, in order. */
  #allRows({ key, columns }: TableDefinition): SqlValue[][] {
    const order = key.keyColumns.map((column) => `"${column}"`).join(", ");
    return this.plain.database
      .prepare(`SELECT ${columns.join(", ")} FROM "${key.name}" ORDER BY ${order}`)
      .raw()
      .safeIntegers()
      .all() as SqlValue[][];
  }

  #changedRows(table: TableDefinition, changes: readonly RowChange[]): SqlValue[][] {
    const keyOf = (key: readonly SqlValue[]): string => encodeKey(1, key);
    const rows = new Map(this.#allRows(table).map((row) => [keyOf(table.keyAt.map((at) => row[at]!)), row]));
    const hidden = table.columns[0] === "rowid";
    for (const { table: name, key, row } of changes) {
      if (name.toLowerCase() !== table.key.name) continue;
      if (row === undefined) rows.delete(keyOf(key));
      else rows.set(keyOf(key), hidden ? [...key, ...row] : [...row]);
    }
    return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  }

  async #open(): Promise<Scratch> {
    if (this.#scratch !== undefined) return this.#scratch;
    this.#runner ??= await this.#pool.acquire();
    const pins = new Map<PinnedRange["descriptor"]["range"], PinnedRange>();
    for (const descriptor of this.#descriptors) {
      const { source } = await this.#runner.addSource(this.#path(descriptor));
      pins.set(descriptor.range, { descriptor, index: logIndex(1), term: term(1), source });
    }
    const database = {
      limits: DEFAULT_LIMITS,
      clock: CLOCK,
      replica: () => undefined,
    } as unknown as GatewayDatabase;
    this.#scratch = await Scratch.open(database, this.#runner, { pins, schema: this.schema, wallMs: 0 });
    return this.#scratch;
  }

  /** The next statement gets an empty scratch database. */
  async renew(): Promise<void> {
    await this.#scratch?.close("rollback");
    this.#scratch = undefined;
  }

  async close(): Promise<void> {
    await this.renew();
    if (this.#runner !== undefined) this.#pool.release(this.#runner);
    await this.#pool.close();
    this.plain.close();
    this.oracle.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function descriptorsOf(tables: readonly TableDefinition[], keys: readonly TableKey[]): RangeDescriptor[] {
  const cuts = tables.flatMap(({ rows, keyAt, cuts: at }, i) =>
    at.map((row) =>
      encodeKey(
        keys[i]!.id,
        keyAt.map((column) => rows[row]![column]!),
      ),
    ),
  );
  const bounds = ["", ...[...new Set(cuts)].sort(), ""];
  return bounds.slice(0, -1).map((start, i) => ({
    range: groupId(10 + i),
    start,
    end: bounds[i + 1]!,
    generation: 1,
    replicas: [],
  }));
}

function insert(
  { database }: RangeConnection,
  { key, columns }: TableDefinition,
  row: readonly SqlValue[],
): void {
  const marks = columns.map(() => "?").join(", ");
  database
    .prepare(`INSERT INTO "${key.name}"(${columns.join(", ")}) VALUES (${marks})`)
    .run(...(row as SqlValue[]));
}

function told({ columns, columnTypes, rows }: StatementOutcome): Told {
  return { columns, types: columnTypes, rows: decodeRows(rows) };
}

function failed(error: unknown): Told {
  if (!(error instanceof OstrakaError)) throw error;
  return { error: `${error.code}: ${error.message}` };
}
