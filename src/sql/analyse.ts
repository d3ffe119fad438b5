/**
 * What is known of a statement before it runs: see `Analysis`. The order of authority is: our lexer, to tell what must not
 * reach SQLite at all; then SQLite, by preparing and explaining the text on a database that has only the schema.
 *
 * Invariants
 * 1. PRAGMA, ATTACH, VACUUM and transaction control are never prepared.
 * 2. A statement that SQLite accepts is analysed, however little of it is understood: coarse, never wrong.
 * 3. The cache answers for one schema version; a result depends on nothing but the text and the schema.
 */
import { classifyTokens, explainedFrom, singleStatement } from "./classify.js";
import { costOf, functionName } from "./cost.js";
import { type Touched, touchedBy } from "./footprint.js";
import { parameterLayout } from "./parameters.js";
import { pragmaTreatment } from "./pragmas.js";
import { compileProbes } from "./probes.js";
import { type Frame, framesOf } from "./program.js";
import {
  dependsOnScanOrder,
  ROOT_PAGES,
  refuse,
  SYSTEM_PREFIX,
  SYSTEM_TABLES,
  unsupported,
} from "./refuse.js";
import { hideOurTables } from "./rewrite.js";
import { compileFootprint, compileUniqueChecks } from "./span-templates.js";
import { lowerAscii, nameAt, namesIn, TokenKind, type TokenList, wordAt } from "./tokenizer.js";
import {
  type Analysis,
  type Cost,
  EVERY_TABLE,
  type Footprint,
  SCHEMA,
  type SchemaOracle,
  type Span,
  type StatementClass,
} from "./types.js";
import { virtualTablesOf } from "./virtual-tables.js";

const whole = (table: string): Span => ({ table, low: undefined, high: undefined });

const NOTHING: Footprint = { reads: [], writes: [], checks: [] };
const READS_SCHEMA: Footprint = { reads: [whole(SCHEMA)], writes: [], checks: [] };
const READS_EVERYTHING: Footprint = { reads: [whole(EVERY_TABLE)], writes: [], checks: [] };
const TOUCHES_EVERYTHING: Footprint = {
  reads: [whole(EVERY_TABLE)],
  writes: [whole(EVERY_TABLE)],
  checks: [],
};
const CHANGES_SCHEMA: Footprint = { reads: [whole(SCHEMA)], writes: [whole(SCHEMA)], checks: [] };
const READS_ALL_CHANGES_SCHEMA: Footprint = { ...CHANGES_SCHEMA, reads: [whole(EVERY_TABLE)] };
const CHANGES_STATISTICS: Footprint = {
  reads: [whole(EVERY_TABLE)],
  writes: [whole(SCHEMA), whole("sqlite_stat1"), whole("sqlite_stat4")],
  checks: [],
};

export interface AnalyseOptions {
  /** The text is the `sql` of an earlier analysis: it was let pass, and may name the views that we put into it. */
  readonly admitted?: boolean;
}

/**
 * Analyses one statement. Throws UserError: SQLite's own for what does not compile, SQLITE_MISUSE for more than one
 * statement, OSTRAKA_UNSUPPORTED for what is refused.
 */
export function analyse(text: string, oracle: SchemaOracle, options: AnalyseOptions = {}): Analysis {
  const { sql, tokens } = singleStatement(text);
  const statementClass = classifyTokens(tokens);
  if (options.admitted !== true) refuse(tokens, statementClass);
  const { names } = parameterLayout(tokens);
  const base = { class: statementClass, sql, parameters: names, schemaVersion: oracle.version };
  switch (statementClass.kind) {
    case "select":
    case "write":
    case "ddl":
    case "analyze":
    case "reindex":
      return analyseData(base, tokens, oracle);
    case "explain":
      return analyseExplain(base, tokens, oracle);
    case "pragma":
      return analysePragma(base, statementClass);
    default:
      return plain(base, { cost: "bounded", footprint: NOTHING });
  }
}

/** Analyses by text, for one schema version at a time; the least recently used go first. */
export class AnalysisCache {
  readonly #capacity: number;
  readonly #byText = new Map<string, Analysis>();
  #oracle: SchemaOracle | undefined;
  #version = -1;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#byText.size;
  }

  /** As `analyse`; errors are not remembered. */
  analyse(text: string, oracle: SchemaOracle): Analysis {
    if (this.#oracle !== oracle || this.#version !== oracle.version) {
      this.#byText.clear();
      this.#oracle = oracle;
      this.#version = oracle.version;
    }
    const known = this.#byText.get(text);
    if (known !== undefined) {
      // Refreshed only where space is short: moving an entry costs more than the rest of a hit.
      if (this.#byText.size * 2 > this.#capacity) {
        this.#byText.delete(text);
        this.#byText.set(text, known);
      }
      return known;
    }
    const analysis = analyse(text, oracle);
    // Long texts are rarely sent twice, and would be kept alive by their number, not their size.
    if (text.length > MAX_CACHED_TEXT) return analysis;
    if (this.#byText.size >= this.#capacity) {
      for (const oldest of this.#byText.keys()) {
        this.#byText.delete(oldest);
        break;
      }
    }
    this.#byText.set(text, analysis);
    return analysis;
  }
}

const MAX_CACHED_TEXT = 64 * 1024;

type Base = Pick<Analysis, "class" | "sql" | "parameters" | "schemaVersion">;

function plain(
  base: Base,
  about: { cost: Cost; footprint: Footprint } & Partial<Omit<Analysis, "footprint">>,
): Analysis {
  const { footprint, ...rest } = about;
  return {
    readonly: true,
    returnsRows: false,
    touchesTemp: false,
    systemTables: [],
    rowChangesOnly: false,
    usesStamp: false,
    writesStatistics: false,
    ...base,
    ...rest,
    footprint: () => footprint,
  };
}

function analysePragma(base: Base, pragma: Extract<StatementClass, { kind: "pragma" }>): Analysis {
  const treatment = pragmaTreatment(pragma.name, pragma.argument !== undefined);
  const touchesTemp = pragma.schema === "temp";
  switch (treatment.kind) {
    case "unsupported":
      throw unsupported(`PRAGMA ${pragma.name} is not supported: ${treatment.reason}`);
    case "fixed":
      return plain(base, { cost: "bounded", footprint: NOTHING, returnsRows: treatment.row !== undefined });
    case "introspection":
      return plain(base, {
        cost: treatment.wholeDatabase ? "unknown" : "bounded",
        footprint: treatment.wholeDatabase ? READS_EVERYTHING : READS_SCHEMA,
        returnsRows: true,
        touchesTemp,
      });
    case "session":
      return plain(base, { cost: "bounded", footprint: NOTHING, returnsRows: pragma.argument === undefined });
    case "replicated": {
      const readonly = pragma.argument === undefined;
      return plain(base, {
        cost: "bounded",
        footprint: readonly ? READS_SCHEMA : CHANGES_SCHEMA,
        returnsRows: readonly,
        readonly,
      });
    }
    default:
      return plain(base, { cost: "bounded", footprint: NOTHING });
  }
}

/** EXPLAIN runs nothing: it reads the schema and the statistics. */
function analyseExplain(base: Base, tokens: TokenList, oracle: SchemaOracle): Analysis {
  const sql = hideOurTables(tokens);
  const at = tokens.starts[explainedFrom(tokens)]!;
  const systemTables = systemTablesIn(tokens);
  const inner = classifyTokens(singleStatement(tokens.text.slice(at)).tokens);
  // Preparing a PRAGMA, even below EXPLAIN, is left alone.
  const known = inner.kind === "select" || inner.kind === "write" || inner.kind === "ddl";
  if (!known) throw unsupported(`EXPLAIN of ${inner.kind} is not supported`);
  if (systemTables.length === 0) oracle.prepare(hideOurTables(singleStatement(tokens.text.slice(at)).tokens));
  return plain(
    { ...base, sql },
    {
      cost: "bounded",
      footprint: READS_SCHEMA,
      returnsRows: true,
      systemTables,
      touchesTemp: systemTables.length > 0 || namesTemp(tokens),
    },
  );
}

function analyseData(base: Base, tokens: TokenList, oracle: SchemaOracle): Analysis {
  const systemTables = systemTablesIn(tokens);
  const writes = base.class.kind !== "select";
  if (systemTables.length > 0) {
    // Only a session's own scratch process has these tables, so SQLite cannot be asked here.
    return plain(
      { ...base, sql: hideOurTables(tokens) },
      {
        cost: "unknown",
        footprint: writes ? TOUCHES_EVERYTHING : READS_EVERYTHING,
        readonly: !writes,
        returnsRows: !writes || hasReturning(tokens),
        touchesTemp: true,
        systemTables,
        rowChangesOnly: writes,
        usesStamp: true,
      },
    );
  }
  const sql = hideOurTables(tokens);
  const facts = oracle.prepare(sql);
  const frames = framesOf(oracle.explain(sql));
  const names = namesIn(tokens);
  const touched = touchedBy(frames, oracle, { names, virtualTable: virtualTablesOf(oracle) });
  const about = {
    readonly: facts.readonly && !writes,
    returnsRows: facts.returnsRows,
    withoutForeignKeys: facts.withoutForeignKeys,
    touchesTemp: touched.temp || isTemp(base.class) || namesTemp(tokens) || meetsTemp(names, writes, oracle),
    usesStamp: frames.some(usesStamp),
    writesStatistics: base.class.kind === "analyze" || touched.written.has("sqlite_stat1"),
  };
  if (base.class.kind === "analyze") {
    const touchesTemp = analysesTemp(tokens, oracle);
    return plain({ ...base, sql }, { ...about, touchesTemp, cost: "unknown", footprint: CHANGES_STATISTICS });
  }
  if (base.class.kind === "ddl" || base.class.kind === "reindex") {
    const facts = aboutTemp(about, base.class, tokens, frames, oracle);
    return analyseDdl({ ...base, sql }, facts, tokens, frames, touched);
  }
  return {
    ...plain({ ...base, sql }, { ...about, cost: costFrom(frames, oracle, touched), footprint: NOTHING }),
    rowChangesOnly:
      writes &&
      (about.touchesTemp || dependsOnScanOrder(tokens, hasLoops(frames)) || frames.some(readsRootPages)),
    footprint: footprintOf(touched, about.writesStatistics),
    probed: compileProbes(touched.probes),
    uniqueChecks: compileUniqueChecks(touched),
  };
}

function footprintOf(touched: Touched, statistics: boolean): Analysis["footprint"] {
  if (!statistics) return compileFootprint(touched);
  // Plans change with the statistics, and with them the order of answers that no ORDER BY orders.
  return compileFootprint({ ...touched, writes: [...touched.writes, { kind: "whole", table: SCHEMA }] });
}

interface DdlFacts extends Partial<Omit<Analysis, "footprint" | "cost">> {
  /** It leaves the shared database alone. */
  readonly tempOnly: boolean;
}

/** ALTER and DROP look through the TEMP schema even where there is nothing of the session's in it. */
function aboutTemp(
  about: Partial<Omit<Analysis, "footprint" | "cost">>,
  statementClass: StatementClass,
  tokens: TokenList,
  frames: readonly Frame[],
  oracle: SchemaOracle,
): DdlFacts {
  const writes = (database: number): boolean =>
    frames.some((frame) =>
      frame.ops.some((o) => o.opcode === "Transaction" && o.p1 === database && o.p2 > 0),
    );
  const named = isTemp(statementClass) || namesTemp(tokens);
  const tempOnly = !writes(0) && (named || writes(1));
  return {
    ...about,
    tempOnly,
    touchesTemp: named || tempOnly || (about.touchesTemp! && oracle.temp?.names.size !== 0),
  };
}

/**
 * A change of the schema conflicts with everything, since everything reads the schema. What it reads itself can only
 * make it succeed or fail (told, and compared when it runs again), but for CREATE TABLE … AS. Where rows of several
 * ranges decide about that together (duplicates below a unique index, children of a table that is dropped), no range can
 * tell by itself.
 */
function analyseDdl(
  base: Base,
  { tempOnly, ...about }: DdlFacts,
  tokens: TokenList,
  frames: readonly Frame[],
  { reads, writes }: Touched,
): Analysis {
  const copies =
    wordAt(tokens, 0) === "CREATE" && tokens.kinds.some((_, i) => wordAt(tokens, i) === "SELECT");
  const stored = /^(VIEW|TRIGGER)$/.test(wordAt(tokens, 1)) || /^(VIEW|TRIGGER)$/.test(wordAt(tokens, 2));
  if (base.class.kind === "ddl" && copies && !stored) {
    // The rows are found by each replica for itself.
    if (!tempOnly && frames.some(readsRootPages)) throw unsupported(ROOT_PAGES);
    const footprint = tempOnly ? READS_EVERYTHING : READS_ALL_CHANGES_SCHEMA;
    return plain(base, { ...about, cost: "unknown", footprint });
  }
  // An index may be over any expression: its functions count, its scan does not.
  const functions = frames.every((frame) => frame.ops.every((op) => !/^(Pure)?Func/.test(op.opcode)));
  const index = /INDEX/.test(`${wordAt(tokens, 1)} ${wordAt(tokens, 2)}`);
  if (tempOnly)
    return plain(base, { ...about, cost: index && !functions ? "unknown" : "scan", footprint: READS_SCHEMA });
  const together = wordAt(tokens, 0) === "DROP" || wordAt(tokens, 1) === "UNIQUE";
  const looked = new Set(together ? [...reads, ...writes].map(({ table }) => table) : []);
  looked.delete(SCHEMA);
  const footprint = { ...CHANGES_SCHEMA, checks: [...looked].map(whole) };
  return plain(base, { ...about, cost: index && !functions ? "unknown" : "scan", footprint });
}

const ROOT_PAGE_COLUMN = 3;

/** Root pages of the schema are read: by `*`, or by what a view or trigger says. */
function readsRootPages({ ops }: Frame): boolean {
  const cursors = new Set<number>();
  for (const op of ops) if (op.opcode === "OpenRead" && op.p2 === 1 && op.p3 === 0) cursors.add(op.p1);
  if (cursors.size === 0) return false;
  return ops.some(
    ({ opcode, p1, p2 }) =>
      (opcode === "Column" && p2 === ROOT_PAGE_COLUMN && cursors.has(p1)) ||
      (opcode === "RowData" && cursors.has(p1)) ||
      (opcode === "RowCell" && cursors.has(p2)),
  );
}

function costFrom(frames: readonly Frame[], oracle: SchemaOracle, touched: Touched): Cost {
  if (frames.length === 1) return costOf(frames, [touched.written]);
  const options = { names: new Set<string>(), virtualTable: () => undefined };
  return costOf(
    frames,
    frames.map((frame) => touchedBy([frame], oracle, options).written),
  );
}

function hasLoops(frames: readonly Frame[]): boolean {
  return frames[0] === undefined || !frames[0].understood || frames[0].loops().length > 0;
}

function isTemp(statementClass: StatementClass): boolean {
  return statementClass.kind === "ddl" && statementClass.temp;
}

/** Names that a statement uses, lower-case: bare and quoted words alike. */
function namesTemp(tokens: TokenList): boolean {
  for (let i = 0; i < tokens.length; i++) {
    if (tokens.kinds[i] !== TokenKind.Word && tokens.kinds[i] !== TokenKind.QuotedName) continue;
    const name = lowerAscii(nameAt(tokens, i)!);
    if (name === "sqlite_temp_master" || name === "sqlite_temp_schema") return true;
    if (name === "temp" && tokens.kinds[i + 1] === TokenKind.Dot) return true;
  }
  return false;
}

/** ANALYZE by itself is for the shared tables, though it looks at the session's as well. */
function analysesTemp(tokens: TokenList, { temp }: SchemaOracle): boolean {
  const name = lowerAscii(nameAt(tokens, 1) ?? "");
  if (name === "temp") return true;
  return tokens.kinds[2] !== TokenKind.Dot && temp !== undefined && temp.names.has(name);
}

/** TEMP views and triggers need not open TEMP tables. */
function meetsTemp(names: ReadonlySet<string>, writes: boolean, { temp }: SchemaOracle): boolean {
  if (temp === undefined || temp.names.size === 0) return false;
  if (writes && temp.triggers) return true;
  // It tells of all of them.
  if (names.has("pragma_table_list")) return true;
  for (const name of temp.names) if (names.has(name)) return true;
  return false;
}

function systemTablesIn(tokens: TokenList): readonly string[] {
  const found = new Set<string>();
  for (let i = 0; i < tokens.length; i++) {
    if (tokens.kinds[i] !== TokenKind.Word && tokens.kinds[i] !== TokenKind.QuotedName) continue;
    const name = lowerAscii(nameAt(tokens, i)!);
    if (name.startsWith(SYSTEM_PREFIX) && SYSTEM_TABLES.has(name)) found.add(name);
  }
  return [...found];
}

function hasReturning(tokens: TokenList): boolean {
  return tokens.kinds.some((_, i) => wordAt(tokens, i) === "RETURNING");
}

const STAMPED =
  /^(random|randomblob|date|time|datetime|julianday|unixepoch|strftime|timediff|current_(date|time|timestamp))$/;

function usesStamp(frame: Frame): boolean {
  return frame.ops.some((op) => /^(Pure)?Func/.test(op.opcode) && STAMPED.test(functionName(op)));
}
