/**
 * A scratch database: the rows of several ranges that a statement can touch, brought together in one SQLite database
 * with the whole schema, in a runner. There the user's own text runs as it is, with all that SQLite can do.
 *
 * Rows are loaded as statements need them, from pins that all show one moment. What is loaded follows from the
 * statement's footprint: an answer that a plan computes from certain rows depends on no others (src/sql/footprint.ts).
 *
 * Left out: what the rows are for. Reads (wide-reads.ts) throw the scratch away after one statement, transactions
 * (workspace.ts) keep it until they end.
 */
import { RetryError } from "../base/errors.js";
import type { Key } from "../base/keys.js";
import { type SqlValue, ValueReader } from "../base/values.js";
import { quoteName } from "../machines/range/temp-objects.js";
import type {
  RowStream,
  Runner,
  ScratchCondition,
  ScratchLoad,
  SourceLoad,
  StampedStatement,
  SystemTable,
} from "../machines/range/types.js";
import { type KeySpan, overlaps, type TableKey, type TableSlice } from "../placement/descriptor.js";
import { isOfChosenKeys, isOfUniqueKeys, spanToKeys, tableKeySpan } from "../placement/route.js";
import { sliceOf } from "../placement/slice.js";
import type { Probed } from "../sql/probes.js";
import { END_OF_TABLE, EVERY_TABLE, type Footprint, HEADER, SCHEMA, type Span } from "../sql/types.js";
import { shadowOwner } from "../sql/virtual-tables.js";
import { type Chunks, OneAfterTheOther, PulledChunks } from "./chunks.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import { collect } from "./outcomes.js";
import { plainStatement } from "./plain-statement.js";
import { runOptions } from "./run-options.js";
import type { PinnedRange, Snapshot } from "./snapshot.js";
import type { RemoteSource } from "./sources.js";

/** Tables whose rows follow from others' or from the schema. */
const SEQUENCES = "sqlite_sequence";
/** It has one row, in every range. */
const STATE = "_ostraka_state";
const HEADER_VALUES =
  "(SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id)";
/** A scratch that was filled in so many pieces has rows that nobody will ask for again. */
const MANY_PARTS = 256;
const MAX_KEY_BYTES = 1024;
/** Ranges of this node that a process is asked for at once, and their files' bytes: it answers nothing else meanwhile. */
const MOST_TOGETHER = 64;
const MOST_BYTES_TOGETHER = 16 * 1024 * 1024;

/** By table: rows that meet none of these are not needed. */
export type Conditions = ReadonlyMap<string, readonly ScratchCondition[]>;

const NO_CONDITIONS: Conditions = new Map();
const ALL_ROWS: readonly undefined[] = [undefined];

/** A table's rows in one of the pinned ranges. */
export interface PinnedSlice {
  readonly pin: PinnedRange;
  readonly slice: TableSlice;
}

interface PinnedLoad {
  readonly pin: PinnedRange;
  readonly load: ScratchLoad;
}

type Together =
  | { readonly here: SourceLoad[] }
  | { readonly source: RemoteSource; readonly load: ScratchLoad };

export class Scratch {
  readonly runner: Runner;
  readonly snapshot: Snapshot;
  readonly #db: GatewayDatabase;
  readonly #tables: ReadonlyMap<string, TableKey>;
  /** In key order. */
  readonly #pins: readonly PinnedRange[];
  readonly #whole = new Set<string>();
  readonly #parts = new Set<string>();
  readonly #tails = new Set<string>();
  #closed = false;
  /** Tables of which statements have changed or deleted rows here: the last one may be gone. */
  readonly #disturbed = new Set<string>();

  private constructor(db: GatewayDatabase, runner: Runner, snapshot: Snapshot) {
    this.#db = db;
    this.runner = runner;
    this.snapshot = snapshot;
    this.#tables = new Map(snapshot.schema.tables.map((table) => [table.name, table]));
    this.#pins = [...snapshot.pins.values()].sort((a, b) =>
      a.descriptor.start < b.descriptor.start ? -1 : 1,
    );
  }

  static async open(db: GatewayDatabase, runner: Runner, snapshot: Snapshot): Promise<Scratch> {
    const scratch = new Scratch(db, runner, snapshot);
    try {
      await runner.openScratch(snapshot.schema);
    } catch (error) {
      await scratch.close("rollback");
      throw error;
    }
    return scratch;
  }

  /** Whether all the rows that these spans name are surely within what is pinned. */
  reaches(spans: readonly Span[]): boolean {
    // Some of them may lie in a range that is not known of yet.
    if (!this.#db.ranges.directory().complete) return false;
    return this.#db
      .rangesOf(spans)
      .every(({ range, generation }) => this.snapshot.pins.get(range)?.descriptor.generation === generation);
  }

  /** It has seen so many different statements that a fresh one is better. */
  get worn(): boolean {
    return this.#parts.size > MANY_PARTS;
  }

  /**
   * Loads the rows that a statement may touch and that are not here yet. Conditions narrow what it reads and writes by
   * its own predicates; what it looks at to check constraints, `probed` alone.
   */
  async ensure(
    { reads, writes, checks }: Footprint,
    deadline: Deadline,
    conditions: Conditions = NO_CONDITIONS,
    probed: Probed = NO_CONDITIONS,
  ): Promise<void> {
    for (const span of checks) await this.#ensureSome(span, deadline, isWhole(span) ? probed : NO_CONDITIONS);
    for (const span of reads) await this.#ensureSome(span, deadline, conditions);
    for (const span of writes) {
      if (isOfUniqueKeys(span)) continue;
      if (span.low !== END_OF_TABLE) await this.#ensureSome(span, deadline, conditions);
      else if (!(await this.#ensureTail(span.table, deadline)))
        throw new RetryError("OSTRAKA_RETRY", `what ${span.table} ended with was deleted meanwhile`);
    }
  }

  async #ensureSome(span: Span, deadline: Deadline, conditions: Conditions): Promise<void> {
    for (const where of conditions.get(span.table) ?? ALL_ROWS) await this.#ensure(span, deadline, where);
  }

  async #ensure(span: Span, deadline: Deadline, where?: ScratchCondition): Promise<void> {
    if (span.table === SCHEMA || isOfChosenKeys(span)) return;
    if (span.table === HEADER || span.table === EVERY_TABLE) await this.#bringHeader(deadline);
    if (span.table === EVERY_TABLE) {
      const oracle = this.#db.ranges.schema().oracle();
      // Shadow tables come with their virtual table. The next change of the schema closes the oracle.
      const own = [...this.#tables.values()].filter(({ name }) => shadowOwner(name, oracle) === name);
      for (const table of own) await this.#ensureWhole(table, deadline);
      return;
    }
    if (span.table === SEQUENCES) {
      for (const table of this.#tables.values())
        if (table.autoincrement) await this.#ensureWhole(table, deadline);
      return;
    }
    const table = this.#tables.get(span.table);
    if (table === undefined || this.#whole.has(table.name)) return;
    if (isWhole(span) && where === undefined) return this.#ensureWhole(table, deadline);
    const name = `${table.name} ${span.low ?? ""} ${span.high ?? ""}`;
    if (this.#parts.has(name)) return;
    const narrowed = where === undefined ? name : `${name} ${JSON.stringify(where, plainJson)}`;
    if (this.#parts.has(narrowed)) return;
    await this.#load(table, spanToKeys(span, this.snapshot.schema.tables), deadline, where);
    this.#parts.add(narrowed);
  }

  /** Anew each time: a savepoint that was rolled back took it along. */
  async #bringHeader(deadline: Deadline): Promise<void> {
    const pin = this.#pins[0];
    if (pin?.descriptor.start !== "") return;
    const slice = { low: undefined, high: undefined };
    const chunks = await this.scan(
      [{ pin, slice }],
      { table: STATE, query: { list: HEADER_VALUES, tail: "" } },
      deadline,
    );
    const chunk = await chunks.next().finally(() => chunks.close());
    if (chunk !== undefined) await this.runner.fill(HEADER, chunk.rows, this.#db.limits.maxScratchBytes);
  }

  async #ensureWhole(table: TableKey, deadline: Deadline): Promise<void> {
    if (this.#whole.has(table.name)) return;
    const span = { table: table.name, low: undefined, high: undefined };
    await this.#load(table, spanToKeys(span, this.snapshot.schema.tables), deadline);
    this.#whole.add(table.name);
  }

  /** Where a table's rows that the spans touch lie among what is pinned, in the order of keys. */
  slices(name: string, spans: readonly Span[]): readonly PinnedSlice[] {
    const table = this.#tables.get(name);
    if (table === undefined) return [];
    const keys = spans
      .filter((span) => span.table === name && span.low !== END_OF_TABLE)
      .flatMap((span) => spanToKeys(span, this.snapshot.schema.tables));
    return this.#pins.flatMap((pin) => {
      const slice = sliceOf(table, pin.descriptor);
      const touched = slice !== undefined && keys.some((span) => overlaps(span, pin.descriptor));
      return touched ? [{ pin, slice }] : [];
    });
  }

  /** Loads rows of slices; answers how many were new. */
  bring(
    slices: readonly PinnedSlice[],
    load: Omit<ScratchLoad, "slice">,
    deadline: Deadline,
  ): Promise<number> {
    return this.#bring(ofEach(slices, load), deadline);
  }

  /** The rows of a query of each slice (at least one), as they are found, slice by slice. One scan at a time. */
  async scan(
    slices: readonly PinnedSlice[],
    load: Omit<ScratchLoad, "slice">,
    deadline: Deadline,
  ): Promise<Chunks> {
    return OneAfterTheOther.start(
      this.#together(ofEach(slices, load)).map((group) => () => {
        if (!("source" in group)) return this.runner.scan(group.here, runOptions(this.#db, deadline, []));
        return Promise.resolve(new PulledChunks(group.source.scan(group.load, deadline)));
      }),
    );
  }

  /** What one request asks for: of this node's ranges several, of another's one. */
  #together(loads: readonly PinnedLoad[]): readonly Together[] {
    const groups: Together[] = [];
    let here: SourceLoad[] | undefined;
    let bytes = 0;
    for (const { pin, load } of loads) {
      const { source } = pin;
      if (typeof source !== "number") {
        groups.push({ source, load });
        here = undefined;
        continue;
      }
      if (here === undefined || here.length >= MOST_TOGETHER || bytes >= MOST_BYTES_TOGETHER) {
        here = [];
        bytes = 0;
        groups.push({ here });
      }
      here.push({ source, load });
      bytes += this.#db.replica(pin.descriptor.range)?.store.size().databaseBytes ?? 0;
    }
    return groups;
  }

  /** Of the tables that get rows under chosen keys, those whose last row is not in what is pinned. */
  async tailsElsewhere(writes: readonly Span[], deadline: Deadline): Promise<readonly Span[]> {
    const elsewhere: Span[] = [];
    for (const { table, low } of writes)
      if (low === END_OF_TABLE && !(await this.#ensureTail(table, deadline)))
        elsewhere.push({ table, low: undefined, high: undefined });
    return elsewhere;
  }

  /**
   * Brings the row with the highest rowid: SQLite chooses the next one from it. Answers false where it is not in what is
   * pinned: the ranges at the table's end have no row of it, and those in front of them are not here.
   */
  async #ensureTail(name: string, deadline: Deadline): Promise<boolean> {
    const table = this.#tables.get(name);
    if (table === undefined || this.#whole.has(name)) return true;
    const disturbed = this.#disturbed.has(name) || this.#disturbed.has(EVERY_TABLE);
    if (this.#tails.has(name) && !disturbed) return true;
    const { start } = tableKeySpan(table);
    let reached: Key | undefined;
    for (const pin of this.#pins.toReversed()) {
      const { descriptor } = pin;
      const slice = sliceOf(table, descriptor);
      if (slice === undefined) continue;
      if (reached !== undefined && descriptor.end !== reached) return false;
      const found = disturbed
        ? await this.#bringTail(table, { pin, slice }, deadline)
        : (await this.bring([{ pin, slice }], { table: name, last: true }, deadline)) > 0;
      reached = descriptor.start;
      if (found || reached <= start) {
        this.#tails.add(name);
        return true;
      }
    }
    return false;
  }

  /**
   * The same of a slice of whose rows some were deleted here: as many of the last ones as it takes for one to be left.
   * Answers whether there is one.
   */
  async #bringTail(table: TableKey, { pin, slice }: PinnedSlice, deadline: Deadline): Promise<boolean> {
    const name = quoteName(table.name);
    const key = quoteName(table.keyColumns[0] ?? "rowid");
    for (let count = 1; ; count *= 4) {
      const query = { list: key, tail: `ORDER BY ${key} DESC LIMIT ${count}` };
      const chunks = await this.scan([{ pin, slice }], { table: table.name, query }, deadline);
      const keys = await keysIn(chunks);
      const lowest = keys.at(-1);
      if (lowest === undefined) return false;
      const tail = { ...slice, low: [lowest], lowAfter: false };
      await this.bring([{ pin, slice: tail }], { table: table.name }, deadline);
      const left = plainStatement(
        `SELECT 1 FROM main.${name} WHERE ${key} >= ? LIMIT 1`,
        this.snapshot.wallMs,
        [lowest],
      );
      const { rowCount } = await collect(await this.run(left, deadline, []), MAX_KEY_BYTES);
      if (rowCount > 0) return true;
      if (keys.length < count) return false;
    }
  }

  /** Statements have changed or deleted rows of this table. */
  disturbed(table: string): void {
    this.#disturbed.add(table);
  }

  async #load(
    table: TableKey,
    keys: readonly KeySpan[],
    deadline: Deadline,
    where?: ScratchCondition,
  ): Promise<void> {
    const loads: PinnedLoad[] = [];
    for (const pin of this.#pins) {
      for (const span of keys) {
        const common = intersection(span, pin.descriptor);
        const slice = common && sliceOf(table, common);
        if (slice !== undefined) loads.push({ pin, load: { table: table.name, slice, where } });
      }
    }
    await this.#bring(loads, deadline);
  }

  /** Answers how many rows came. */
  async #bring(loads: readonly PinnedLoad[], deadline: Deadline): Promise<number> {
    const { maxScratchBytes } = this.#db.limits;
    let brought = 0;
    for (const group of this.#together(loads)) {
      if (deadline.stopped) throw deadline.reason();
      if (!("source" in group)) {
        brought += (await deadline.race(this.runner.load(group.here, maxScratchBytes))).rows;
        continue;
      }
      for await (const chunk of group.source.scan(group.load, deadline)) {
        const { rows } = await this.runner.fill(group.load.table, chunk.rows, maxScratchBytes);
        brought += rows;
      }
    }
    return brought;
  }

  run(
    statement: StampedStatement,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream> {
    return this.runner.run(statement, runOptions(this.#db, deadline, systemTables));
  }

  /** `commit` fails as COMMIT would, and then the scratch stays open. */
  async close(how: "commit" | "rollback"): Promise<void> {
    if (this.#closed) return;
    if (!this.runner.dead) {
      try {
        await this.runner.closeCopy(how);
      } catch (error) {
        if (how === "commit") throw error;
        this.runner.kill();
      }
    }
    this.#closed = true;
    if (!this.runner.dead) await this.runner.dropSources().catch(() => this.runner.kill());
    for (const { source } of this.#pins) if (typeof source !== "number") source.close();
  }
}

function ofEach(slices: readonly PinnedSlice[], load: Omit<ScratchLoad, "slice">): readonly PinnedLoad[] {
  return slices.map(({ pin, slice }) => ({ pin, load: { ...load, slice } }));
}

async function keysIn(chunks: Chunks): Promise<readonly SqlValue[]> {
  const keys: SqlValue[] = [];
  try {
    for (let chunk = await chunks.next(); chunk !== undefined; chunk = await chunks.next()) {
      const reader = new ValueReader(chunk.rows);
      while (!reader.done) keys.push(reader.vector()[0]!);
    }
  } finally {
    await chunks.close();
  }
  return keys;
}

function isWhole({ low, high }: Span): boolean {
  return low === undefined && high === undefined;
}

/** What JSON does not know, told apart from what it does. */
function plainJson(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return { integer: String(value) };
  // JSON has null for infinities, and no zero below zero.
  if (Object.is(value, -0)) return { real: "-0" };
  if (typeof value === "number" && !Number.isFinite(value)) return { real: String(value) };
  return value instanceof Uint8Array ? { blob: [...value] } : value;
}

function intersection(a: KeySpan, b: KeySpan): KeySpan | undefined {
  if (!overlaps(a, b)) return undefined;
  const [, start] = [a.start, b.start].sort();
  const [end] = [a.end, b.end].filter((key) => key !== "").sort();
  return { start: start!, end: end ?? "" };
}
