/**
 * A transaction on several ranges: a scratch database with the rows it touches, and the commit of what it changed there.
 * What is proposed are row images, never text; only schema changes go to every range as text.
 *
 * A statement that touches ranges beyond the snapshot, or ranges that have split since, gets a new snapshot: what the
 * transaction did is done again there, and must come out as it was told.
 */
import { RetryError, UserError } from "../base/errors.js";
import type { GroupId } from "../base/ids.js";
import { encodeKey, HOME_TABLE_ID, type Key, tableStart } from "../base/keys.js";
import { createOracle, MAKE_SEQUENCE, type SessionOracle } from "../machines/range/oracle.js";
import type {
  CommandResult,
  RowChange,
  RowStream,
  Runner,
  SchemaSnapshot,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { RangeDescriptor, TableKey } from "../placement/descriptor.js";
import { RangeDirectory } from "../placement/directory.js";
import { isOfUniqueKeys, rangesOf, rowsOf, tableKeySpan } from "../placement/route.js";
import { analyse } from "../sql/analyse.js";
import { lowerAscii } from "../sql/tokenizer.js";
import { type Analysis, END_OF_TABLE, EVERY_TABLE, type Footprint, SCHEMA, type Span } from "../sql/types.js";
import { shadowOwner } from "../sql/virtual-tables.js";
import { EVERYTHING } from "../txn/spans.js";
import { type GatewayDatabase, outdated } from "./database.js";
import type { Deadline } from "./deadline.js";
import type { History } from "./history.js";
import { collect, collectTexts } from "./outcomes.js";
import { plainStatement } from "./plain-statement.js";
import { pushdownOf, safeConditions } from "./pushdown.js";
import { RangeReads } from "./range-reads.js";
import { TableNamesNow } from "./renamed.js";
import { replay } from "./replay.js";
import { Scratch } from "./scratch.js";
import { takeSnapshot } from "./snapshot.js";
import { changesDatabase } from "./statements.js";
import { tablesNamed } from "./tables-named.js";
import type { TransactionOptions } from "./transaction.js";
import { commitWide, type Participation } from "./wide-commit.js";
import type { RangeRead, Workspace, WorkspaceCommit } from "./workspace.js";
import { type Added, addedSpans, notAdded, writtenSpans } from "./written-spans.js";

const SEQUENCES = "sqlite_sequence";
const LAST: Key = tableStart(0xffff_ffff);
const LAST_ROWID = (1n << 63n) - 1n;
const SCHEMA_TEXTS =
  "SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_ostraka%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid";
const TEMP_TEXTS =
  "SELECT sql FROM sqlite_temp_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_ostraka%' ESCAPE '\\' ORDER BY rowid";

export interface WideTransaction extends Pick<TransactionOptions, "id" | "age" | "temp" | "fenced"> {
  /** Ranges whose leaders know of it: every one that a snapshot was taken of. They are told when the transaction ends. */
  readonly begun: Set<GroupId>;
}

export class WideWorkspace implements Workspace {
  readonly runner: Runner;
  readonly #db: GatewayDatabase;
  readonly #transaction: WideTransaction;
  readonly #history: History;
  /** Tables that got rows under keys that SQLite chose. */
  readonly #appended = new Set<string>();
  /** AUTOINCREMENT may have counted: whoever looks at sqlite_sequence afterwards is to find it so. */
  #counted = false;
  /** What was added to UNIQUE indexes, by table; null where it cannot be told, or is much. */
  readonly #added = new Map<string, Set<bigint> | null>();
  #scratch!: Scratch;
  #spans: readonly Span[];
  readonly #reads = new RangeReads();
  /** Changes of the schema, as every range is to run them: those of the history, each with its stamp. */
  #schemaTexts: StampedStatement[] = [];
  #schemaStatements: readonly string[] = [];
  #oracle: SessionOracle | undefined;
  readonly #names = new TableNamesNow();
  /** The texts of the TEMP objects that the oracle knows. */
  #temp: readonly string[] = [];

  private constructor(db: GatewayDatabase, runner: Runner, transaction: WideTransaction, history: History) {
    this.#db = db;
    this.runner = runner;
    this.#transaction = transaction;
    this.#history = history;
    this.#spans = [];
  }

  /** A snapshot of what the statement and what came before it touch; what came before is done again. */
  static async open(
    db: GatewayDatabase,
    runner: Runner,
    transaction: WideTransaction,
    history: History,
    spans: readonly Span[],
    deadline: Deadline,
  ): Promise<WideWorkspace> {
    const self = new WideWorkspace(db, runner, transaction, history);
    try {
      await self.#take([...self.#touchedBefore(), ...spans], deadline);
    } catch (error) {
      self.#forgetSchema();
      throw error;
    }
    return self;
  }

  get wallMs(): number {
    return this.#scratch.snapshot.wallMs;
  }

  get schemaVersion(): number {
    return this.#scratch.snapshot.schema.version;
  }

  #touchedBefore(): Span[] {
    const schema = this.#db.ranges.schema();
    return this.#history.events.flatMap((event) => {
      if (event.kind !== "write") return [];
      try {
        const analysis = analyse(event.stamped.sql, schema.oracle(), { admitted: true });
        return rowsOf(analysis.footprint(event.stamped.params));
      } catch {
        // It is about what the transaction has made itself, or about what is no more: doing it again tells.
        return [EVERYTHING];
      }
    });
  }

  async #take(spans: readonly Span[], deadline: Deadline): Promise<void> {
    const { id, age, begun, fenced = true } = this.#transaction;
    const transaction = { id, ageMs: age, begun, fenced };
    const everywhere = spans.some((span) => span.table === EVERY_TABLE);
    const snapshot = await takeSnapshot(this.#db, this.runner, { spans, everywhere, transaction }, deadline);
    this.#spans = spans;
    this.#scratch = await Scratch.open(this.#db, this.runner, snapshot);
    this.#schemaTexts = [];
    this.#names.forget();
    this.#schemaStatements = snapshot.schema.statements;
    try {
      await this.#replay(deadline);
    } catch (error) {
      await this.#scratch.close("rollback");
      throw error;
    }
  }

  async #replay(deadline: Deadline): Promise<void> {
    const { temp = [] } = this.#transaction;
    const { schema } = this.#scratch.snapshot;
    const atFirst = temp.length === 0 ? undefined : createOracle(schema, temp);
    try {
      await replay(this.#history, {
        run: async (statement) => {
          const oracle = this.#oracle ?? atFirst ?? this.#db.ranges.schema().oracle();
          const analysis = analyse(statement.sql, oracle, { admitted: true });
          this.#checkSchema(analysis);
          return this.#execute(statement, analysis, deadline, []);
        },
        control: (sql) => this.control(sql, deadline),
      });
    } finally {
      atFirst?.close();
    }
  }

  get knowsSchema(): boolean {
    return this.#oracle !== undefined;
  }

  analyse(sql: string): Analysis {
    if (this.#oracle === undefined) return this.#db.ranges.schema().analyse(sql);
    return analyse(sql, this.#oracle);
  }

  async run(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<StatementOutcome> {
    await this.#reach(statement, analysis, deadline);
    return this.#execute(statement, analysis, deadline, systemTables);
  }

  async stream(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    await this.#reach(statement, analysis, deadline);
    await this.#load(statement, analysis, deadline);
    this.#read(this.#footprint(statement, analysis).reads);
    return this.#scratch.run(statement, deadline, systemTables);
  }

  async control(sql: string, deadline: Deadline): Promise<void> {
    await (await this.#scratch.run(plainStatement(sql, this.wallMs), deadline, [])).close();
    if (!sql.startsWith("ROLLBACK") || this.#oracle === undefined) return;
    const left = new Set(this.#history.writes.map(({ stamp }) => stamp));
    this.#schemaTexts = this.#schemaTexts.filter(({ stamp }) => left.has(stamp));
    // What is left of TEMP objects the session knows.
    if (this.#schemaTexts.length > 0) await this.#learnSchema(deadline);
    else {
      this.#forgetSchema();
      this.#names.forget();
      this.#schemaStatements = this.#scratch.snapshot.schema.statements;
    }
  }

  reads(): readonly RangeRead[] {
    return this.#reads.all();
  }

  /** The footprint, with the tables whose rows a schema change looks at. */
  #footprint(statement: StampedStatement, analysis: Analysis): Footprint {
    const footprint = analysis.footprint(statement.params);
    if (analysis.systemTables.length > 0 && analysis.readonly) {
      // Not analysed by SQLite: whatever it names may be read.
      return { reads: this.#tablesNamed(analysis), writes: [], checks: [] };
    }
    if (analysis.class.kind !== "ddl" || analysis.touchesTemp) return footprint;
    if (footprint.reads.some((span) => span.table === EVERY_TABLE)) return footprint;
    return { ...footprint, checks: [...footprint.checks, ...this.#tablesNamed(analysis)] };
  }

  #tablesNamed({ sql }: Analysis): readonly Span[] {
    const { schema } = this.#scratch.snapshot;
    if (this.#oracle === undefined) return tablesNamed(sql, schema, this.#transaction.temp);
    return tablesNamed(sql, { tables: schema.tables, statements: this.#schemaStatements }, this.#temp);
  }

  #tables(): readonly TableKey[] {
    return this.#scratch.snapshot.schema.tables;
  }

  /** Takes another snapshot when the statement touches what this one has not. */
  async #reach(statement: StampedStatement, analysis: Analysis, deadline: Deadline): Promise<void> {
    this.#checkSchema(analysis);
    const footprint = this.#footprint(statement, analysis);
    const spans = rowsOf(footprint);
    if (!this.#scratch.reaches(spans)) await this.#takeAnother(spans, deadline);
    const tails = await this.#scratch.tailsElsewhere(footprint.writes, deadline);
    if (tails.length > 0) await this.#takeAnother([...spans, ...tails], deadline);
    this.#checkSchema(analysis);
  }

  /** A statement that was analysed by another schema may touch rows that nobody knows of. */
  #checkSchema(analysis: Analysis): void {
    if (this.#oracle === undefined && outdated(analysis, this.#scratch.snapshot.schema.version))
      throw new RetryError("OSTRAKA_RETRY", "the schema has changed since the transaction began");
  }

  async #takeAnother(spans: readonly Span[], deadline: Deadline): Promise<void> {
    await this.#scratch.close("rollback");
    this.#forgetSchema();
    try {
      await this.#take([...this.#spans, ...spans], deadline);
    } catch (error) {
      // There is nothing here to go on with.
      this.runner.kill();
      throw error;
    }
  }

  async #execute(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<StatementOutcome> {
    await this.#load(statement, analysis, deadline);
    let outcome: StatementOutcome | undefined;
    try {
      outcome = await collect(
        await this.#scratch.run(statement, deadline, systemTables),
        this.#db.limits.maxTransactionBytes,
      );
    } finally {
      const { reads, checks, writes } = analysis.footprint(statement.params, outcome);
      const { uniqueChecks } = analysis;
      const adds = uniqueChecks !== undefined || writes.some(isOfUniqueKeys);
      // What one that failed has left (OR FAIL) is told with what is committed; where it cannot be had, nothing is.
      if (adds && outcome === undefined) await this.#takeAdded().catch(() => this.runner.kill());
      const added = adds && outcome !== undefined ? await this.#takeAdded() : undefined;
      this.#read(reads);
      if (added === undefined || uniqueChecks === undefined) this.#read(checks);
      else this.#read([...uniqueChecks.others(statement.params), ...notAdded(uniqueChecks.tables, added)]);
      for (const span of writes) {
        if (span.table === SEQUENCES) this.#counted = true;
        if (span.low === END_OF_TABLE) this.#appended.add(span.table);
        else if (!isOfUniqueKeys(span)) this.#scratch.disturbed(span.table);
      }
    }
    const kind = analysis.class.kind;
    if (kind === "ddl" || kind === "analyze") {
      const made = await this.#learnSchema(deadline);
      const elsewhere = asRunElsewhere(statement, analysis, made);
      if (elsewhere !== undefined && changesDatabase(analysis, statement.params))
        this.#schemaTexts.push(elsewhere);
    }
    return outcome;
  }

  async #takeAdded(): Promise<Added> {
    const taken = new Map(await this.runner.takeUniqueKeys());
    for (const [table, keys] of taken) {
      const known = this.#added.get(table);
      const told = keys !== null && known !== null;
      this.#added.set(table, told ? new Set([...(known ?? []), ...keys]) : null);
    }
    return taken;
  }

  /** Rows that the statement's own conditions leave out stay away: what it changed itself is here already. */
  async #load(statement: StampedStatement, analysis: Analysis, deadline: Deadline): Promise<void> {
    const { schema } = this.#scratch.snapshot;
    const asAnalysed = this.#oracle === undefined && statement.sql === analysis.sql;
    const plan = asAnalysed
      ? pushdownOf(analysis, this.#db.ranges.schema().oracle(), schema.tables)
      : undefined;
    const conditions = safeConditions(plan, statement, analysis, schema.version);
    const footprint = this.#footprint(statement, analysis);
    const wide = this.#db.touched(footprint).length > 1;
    this.#db.counts[!wide ? "single" : conditions === undefined ? "gather" : "pushdown"]++;
    const probed = asAnalysed ? analysis.probed?.(statement.params) : undefined;
    try {
      await this.#scratch.ensure(footprint, deadline, conditions, probed);
    } catch (error) {
      // What could not be brought, or only in part, is asked for again in another one.
      if (!deadline.stopped) this.runner.kill();
      throw error;
    }
  }

  #read(spansNow: readonly Span[]): void {
    const spans = this.#names.spansBefore(spansNow);
    for (const { descriptor, index, term } of this.#scratch.snapshot.pins.values()) {
      const here = spans.filter((span) => span.table === SCHEMA || this.#touches(descriptor, span));
      this.#reads.add(descriptor.range, index, term, here);
    }
  }

  #touches(descriptor: RangeDescriptor, span: Span): boolean {
    return rangesOf([span], this.#tables(), this.#pinned()).some(({ range }) => range === descriptor.range);
  }

  #pinned(): RangeDirectory {
    if (this.#directoryOf !== this.#scratch) {
      this.#directoryOf = this.#scratch;
      this.#directory = new RangeDirectory(
        [...this.#scratch.snapshot.pins.values()].map(({ descriptor }) => descriptor),
      );
    }
    return this.#directory;
  }

  #directory = new RangeDirectory([]);
  #directoryOf: Scratch | undefined;

  /** Answers the schema's texts that were not there before. */
  async #learnSchema(deadline: Deadline): Promise<readonly string[]> {
    const statements = await this.#texts(SCHEMA_TEXTS, deadline);
    const temp = await this.#texts(TEMP_TEXTS, deadline);
    await this.#names.learn(this.runner);
    const before = new Set(this.#schemaStatements);
    this.#forgetSchema();
    this.#temp = temp;
    this.#schemaStatements = statements;
    const { schema } = this.#scratch.snapshot;
    // What ANALYZE found, and that there is AUTOINCREMENT, is no text of the schema's own.
    const sequence = schema.statements.filter((text) => MAKE_SEQUENCE.includes(text));
    const found = schema.statements.filter((text) => !/^\s*CREATE\b/i.test(text) && !sequence.includes(text));
    const now: SchemaSnapshot = {
      ...schema,
      version: -1,
      statements: [...sequence, ...statements, ...found],
    };
    this.#oracle = createOracle(now, temp);
    return statements.filter((text) => !before.has(text));
  }

  #forgetSchema(): void {
    this.#oracle?.close();
    this.#oracle = undefined;
  }

  async #texts(sql: string, deadline: Deadline): Promise<string[]> {
    return collectTexts(await this.#scratch.run(plainStatement(sql, this.wallMs), deadline, []));
  }

  async commit({
    transaction,
    key,
    history,
    earlier,
    ran,
    deadline,
  }: WorkspaceCommit): Promise<CommandResult> {
    const changes = history.hasWrites() ? await this.runner.captured() : [];
    const { schema } = this.#scratch.snapshot;
    const schemaTexts = this.#schemaTexts;
    const directory = schemaTexts.length > 0 ? await allRanges(this.#db) : undefined;
    const participants = this.#participants(changes, [...earlier, ...this.reads()], ran, directory);
    await this.#scratch.close("commit");
    this.#forgetSchema();
    const result = await commitWide(this.#db, {
      transaction,
      key,
      participants,
      schemaTexts,
      schemaVersion: schema.version,
      outcomes: history.outcomes,
      deadline,
    });
    // Those that took part have closed it.
    const { begun } = this.#transaction;
    if (result.ok) for (const { descriptor } of participants) begun.delete(descriptor.range);
    this.#release();
    return result;
  }

  #participants(
    changes: readonly RowChange[],
    reads: readonly RangeRead[],
    ran: ReadonlyMap<GroupId, number>,
    everywhere: RangeDirectory | undefined,
  ): readonly Participation[] {
    const changesSchema = everywhere !== undefined;
    const directory = everywhere ?? this.#pinned();
    const byRange = new Map<GroupId, RowChange[]>();
    for (const change of changes)
      for (const range of this.#rangesOf(change, directory)) {
        const list = byRange.get(range);
        if (list === undefined) byRange.set(range, [change]);
        else list.push(change);
      }
    const described = new Map(directory.ranges.map((descriptor) => [descriptor.range, descriptor]));
    // Who has only been read takes part too, also where it has been merged into another one meanwhile, and refuses.
    const ids = new Set([
      ...(everywhere?.ranges.map(({ range }) => range) ?? []),
      ...byRange.keys(),
      ...reads.map((read) => read.range),
      ...ran.keys(),
    ]);
    return Array.from(ids, (range) => {
      const descriptor = described.get(range) ?? this.#db.ranges.directory().get(range);
      if (descriptor === undefined) throw new RetryError("OSTRAKA_RETRY", "a range has gone meanwhile");
      const own = byRange.get(range) ?? [];
      return {
        descriptor,
        reads: reads.filter((read) => read.range === range),
        writes: changesSchema
          ? [EVERYTHING]
          : [
              ...writtenSpans(own, this.#appended, (table) => this.#ownerOf(table)),
              ...addedSpans(own, this.#added),
              ...this.#countedSpans(own),
            ],
        changes: own,
        ran: ran.get(range),
      };
    });
  }

  #countedSpans(changes: readonly RowChange[]): readonly Span[] {
    const counts =
      this.#counted && changes.some(({ table }) => this.#tableNow(table)?.autoincrement === true);
    return counts ? [{ table: SEQUENCES, low: undefined, high: undefined }] : [];
  }

  /** The table whose spans a table's rows count as: shadow tables are a part of their virtual table. */
  #ownerOf(table: string): string {
    return shadowOwner(table, this.#oracle ?? this.#db.ranges.schema().oracle());
  }

  #rangesOf(change: RowChange, directory: RangeDirectory): Iterable<GroupId> {
    const at = directory.at(this.#keyOf(change));
    if (at === undefined) throw new RetryError("OSTRAKA_RETRY", "a range has changed meanwhile");
    const counted = lowerAscii(change.table) === SEQUENCES ? this.#tableNow(change.row?.[0]) : undefined;
    if (counted === undefined) return [at.range];
    // The largest value of all ranges counts: to make it smaller takes all that have one.
    return new Set([at, ...directory.between(tableKeySpan(counted))].map(({ range }) => range));
  }

  /** The table that goes by this name now, as it was when the transaction began. */
  #tableNow(name: unknown): TableKey | undefined {
    const before = this.#names.before(String(name));
    return this.#tables().find((other) => other.name === before);
  }

  #keyOf({ table, key, row }: RowChange): Key {
    const name = lowerAscii(table);
    if (name === SEQUENCES) {
      // AUTOINCREMENT goes on where the table ends.
      const counted = this.#tableNow(row?.[0]);
      return counted === undefined ? LAST : encodeKey(counted.id, [LAST_ROWID]);
    }
    const known = this.#tableNow(name);
    if (this.#oracle?.homeTables().has(name)) return tableStart(HOME_TABLE_ID);
    // A table made by this transaction: its id will be higher than all others, so its rows belong to the last range.
    if (known === undefined) return LAST;
    if (known.shard === "home" && this.#oracle !== undefined)
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `${table} need not stay whole any more, by a change of the schema in the same transaction that writes it; split it in two`,
      );
    return known.shard === "home" ? tableStart(HOME_TABLE_ID) : encodeKey(known.id, key);
  }

  async rollback(): Promise<void> {
    this.#forgetSchema();
    await this.#scratch.close("rollback");
  }

  #release(): void {
    const { id, begun } = this.#transaction;
    for (const range of begun)
      void this.#db
        .client(range)
        .rollback(id)
        .catch(() => {});
    begun.clear();
  }
}

/**
 * All ranges, for what every one of them has to take part in. Half of a split may not be known of yet: it would be left
 * out, and its schema would be another from then on.
 */
async function allRanges({ ranges }: GatewayDatabase): Promise<RangeDirectory> {
  if (!ranges.directory().complete) await ranges.refresh();
  const directory = ranges.directory();
  if (!directory.complete) throw new RetryError("OSTRAKA_RETRY", "a range has split meanwhile");
  return directory;
}

/**
 * As a schema change runs on every range: CREATE TABLE … AS without its rows, which go as row images. Undefined where
 * there is nothing to run, as the table was there.
 */
function asRunElsewhere(
  statement: StampedStatement,
  analysis: Analysis,
  made: readonly string[],
): StampedStatement | undefined {
  const copies = analysis.footprint(statement.params).reads.some((span) => span.table === EVERY_TABLE);
  if (!copies || analysis.class.kind !== "ddl") return { ...statement, told: undefined };
  const [text] = made;
  if (text === undefined) return undefined;
  if (made.length !== 1)
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      "this change of the schema cannot be replicated to many ranges",
    );
  return { ...statement, sql: text, params: [], vector: undefined, told: undefined };
}
