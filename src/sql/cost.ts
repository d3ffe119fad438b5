/**
 * How much work a program can be, from its loops: see `Cost` in types.ts.
 *
 * A loop is bounded when what drives it is: rows of a VALUES list, of an IN list, of a temporary table filled outside
 * of unbounded loops. A loop over a table or an index is unbounded (SQLite writes no loop for a unique search).
 * One level of unbounded loops is a scan; anything nested, recursive or not understood is unknown, and so is any
 * function that can make much out of little.
 */
import type { Frame, Loop } from "./program.js";
import type { Cost, OpcodeRow } from "./types.js";

/** Programs with more ops than this do not count as small where bounded loops multiply. */
const SMALL_PROGRAM = 300;
/** Programs with more loops than this are not looked into: nothing short has them, and telling takes long. */
const MAX_LOOPS = 64;
/** Concatenations that each double their operand reach SQLite's limit on lengths in 30. */
const MAX_CONCATS = 12;
/** Bytes that a function may make of constants. */
const SMALL_BYTES = 4096;

/** Functions whose work and result are linear in their arguments, with a small factor. */
const CHEAP = new Set(
  (
    "abs coalesce ifnull iif if nullif length octet_length lower upper substr substring trim ltrim rtrim instr typeof " +
    "round min max sum total avg count changes total_changes last_insert_rowid random date time datetime julianday " +
    "strftime unixepoch timediff current_time current_date current_timestamp like glob unicode sign sqlite_version " +
    "likely unlikely likelihood json json_array json_array_length json_error_position json_extract json_object " +
    "json_type json_valid json_quote json_insert json_remove json_replace json_set json_patch jsonb jsonb_array " +
    "jsonb_extract jsonb_insert jsonb_object jsonb_remove jsonb_replace jsonb_set jsonb_patch json_group_array " +
    "json_group_object jsonb_group_array jsonb_group_object -> ->> concat concat_ws group_concat string_agg quote " +
    "acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power " +
    "radians sin sinh sqrt tan tanh trunc row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value " +
    "last_value nth_value median percentile percentile_cont percentile_disc soundex unhex bm25 highlight snippet match " +
    "subtype sqlite_rename_column sqlite_rename_table sqlite_rename_test sqlite_drop_column sqlite_rename_quotefix"
  ).split(" "),
);

export function costOf(frames: readonly Frame[], writes: readonly ReadonlySet<string>[]): Cost {
  const [main, ...rest] = frames;
  if (main === undefined || frames.some((frame) => !frame.understood)) return "unknown";
  if (frames.some((frame) => !functionsAreCheap(frame))) return "unknown";
  const own = loopCost(main);
  if (own.cost === "unknown") return "unknown";
  if (rest.length === 0) return own.cost;
  const inner = rest.map(loopCost);
  if (inner.some((frame) => frame.cost === "unknown")) return "unknown";
  const innerScans = inner.some((frame) => frame.cost === "scan");
  if (own.callsInScan && innerScans) return "unknown";
  if (rest.some((frame) => frame.ops.some((op) => op.opcode === "Program"))) {
    // Programs that call programs: fine as a chain, endless as a circle, which has to write some table twice.
    if (!disjoint(writes) || innerScans) return "unknown";
    return "scan";
  }
  return own.cost === "scan" || innerScans ? "scan" : "bounded";
}

function disjoint(sets: readonly ReadonlySet<string>[]): boolean {
  const seen = new Set<string>();
  for (const set of sets) {
    for (const name of set) {
      if (seen.has(name)) return false;
      seen.add(name);
    }
  }
  return true;
}

function loopCost(frame: Frame): { readonly cost: Cost; readonly callsInScan: boolean } {
  const unknown = { cost: "unknown", callsInScan: true } as const;
  const loops = unguardedLoops(frame);
  if (loops.length > MAX_LOOPS) return unknown;
  if (loops.some((loop) => driverOf(frame, loop) === "odd")) return unknown;
  const unbounded = unboundedLoops(frame, loops);
  const inside = (at: number, outer: Iterable<Loop>): number => {
    let depth = 0;
    for (const loop of outer) if (at >= loop.start && at <= loop.end) depth++;
    return depth;
  };
  const calls = frame.ops.flatMap((op, at) => (op.opcode === "Gosub" ? [at] : []));
  for (const loop of loops) {
    const around = loops.filter(
      (other) => other !== loop && other.start <= loop.start && other.end >= loop.end,
    );
    const scans = around.filter((other) => unbounded.has(other)).length;
    if (unbounded.has(loop) && scans > 0 && !onlyOnce(frame, loop, around)) return unknown;
    if (around.length > 0 && (around.length > 2 || frame.ops.length > SMALL_PROGRAM)) return unknown;
    // A subroutine with a scan in it, called from a scan.
    const called = calls.some((at) => {
      const target = frame.ops[at]!.p2;
      return inside(at, unbounded) > 0 && loop.start >= target && !(at >= loop.start && at <= loop.end);
    });
    if (unbounded.has(loop) && called) return unknown;
  }
  const scans =
    unbounded.size > 0 || frame.ops.some((op) => /^(Clear|Count|Destroy|OpenAutoindex)$/.test(op.opcode));
  const callsInScan = frame.ops.some((op, at) => op.opcode === "Program" && inside(at, unbounded) > 0);
  return { cost: scans ? "scan" : "bounded", callsInScan };
}

/**
 * Loops but for those behind FkIfZero: a look for the children of a new parent row, which only happens while the
 * transaction owes parents.
 */
function unguardedLoops(frame: Frame): readonly Loop[] {
  const guards = frame.ops.flatMap((op, at) => (op.opcode === "FkIfZero" ? [{ at, until: op.p2 }] : []));
  if (guards.length === 0) return frame.loops();
  return frame.loops().filter((loop) => !guards.some(({ at, until }) => loop.start > at && loop.end < until));
}

/** A scan that stands in another one but runs only the first time: behind Once, as far as the Once skips. */
function onlyOnce(frame: Frame, loop: Loop, around: readonly Loop[]): boolean {
  const start = Math.max(...around.map((outer) => outer.start));
  for (let at = start; at < loop.start; at++) {
    const op = frame.ops[at]!;
    if (op.opcode === "Once" && op.p2 > loop.end) return true;
  }
  return false;
}

type Driver = "cursor" | "coroutine" | "rowset" | "odd";

function driverOf(frame: Frame, loop: Loop): Driver {
  const { opcode } = loop.driver;
  if (/^(Next|Prev|SorterNext|VNext)$/.test(opcode)) return "cursor";
  if (opcode !== "Goto") return "odd";
  const head = frame.ops[loop.start]!.opcode;
  if (head === "Yield") return "coroutine";
  return head === "RowSetRead" ? "rowset" : "odd";
}

/** Starts from "all are unbounded" and takes away those whose rows are made outside of unbounded loops. */
function unboundedLoops(frame: Frame, loops: readonly Loop[]): Set<Loop> {
  const unbounded = new Set(loops);
  const makers = new Map(loops.map((loop) => [loop, makersOf(frame, loop)]));
  for (let changed = true; changed; ) {
    changed = false;
    for (const loop of unbounded) {
      const rows = makers.get(loop);
      const free = rows?.every((at) => ![...unbounded].some((other) => at >= other.start && at <= other.end));
      if (free !== true) continue;
      unbounded.delete(loop);
      changed = true;
    }
  }
  return unbounded;
}

/** Addresses of the ops that make the rows a loop runs over; undefined when they are a table's. */
function makersOf(frame: Frame, loop: Loop): readonly number[] | undefined {
  const addresses = (test: (op: OpcodeRow, at: number) => boolean): number[] =>
    frame.ops.flatMap((op, at) => (test(op, at) ? [at] : []));
  const head = frame.ops[loop.start]!;
  switch (driverOf(frame, loop)) {
    case "coroutine":
      return addresses((op, at) => op.opcode === "Yield" && op.p1 === head.p1 && at !== loop.start);
    case "rowset":
      return addresses((op) => op.opcode === "RowSetAdd" && op.p1 === head.p1);
    default: {
      const cursor = loop.driver.p1;
      const opens = frame.ops.filter(
        (op) => /^(Open|Reopen|SorterOpen|VOpen)/.test(op.opcode) && op.p1 === cursor,
      );
      if (!opens.every((op) => op.opcode === "OpenEphemeral" || op.opcode === "SorterOpen")) return undefined;
      if (opens.length === 0) return undefined;
      return addresses((op) => /^(IdxInsert|Insert|SorterInsert)$/.test(op.opcode) && op.p1 === cursor);
    }
  }
}

function functionsAreCheap(frame: Frame): boolean {
  let growing = 0;
  for (let at = 0; at < frame.ops.length; at++) {
    const op = frame.ops[at]!;
    if (op.opcode === "Concat") growing++;
    if (op.opcode !== "Function" && op.opcode !== "PureFunc" && op.opcode !== "AggStep") continue;
    const name = functionName(op);
    if (CHEAP.has(name)) {
      if (/concat|string_agg|quote|json/.test(name)) growing++;
      continue;
    }
    if (!smallByConstants(frame, op, at, name)) return false;
    growing++;
  }
  return growing <= MAX_CONCATS;
}

export function functionName(op: OpcodeRow): string {
  const p4 = op.p4 ?? "";
  const paren = p4.indexOf("(");
  return (paren < 0 ? p4 : p4.slice(0, paren)).toLowerCase();
}

/** zeroblob(16), hex(randomblob(16)), printf('%05d', x), replace(x, 'a', 'b'): small because their constants are. */
function smallByConstants(frame: Frame, op: OpcodeRow, at: number, name: string): boolean {
  const literal = (index: number): string | undefined => {
    const writers = frame.ops.filter((o) => o.opcode === "String8" && o.p2 === op.p2 + index);
    const others = frame.writersOf(op.p2 + index);
    return writers.length === 1 && others.length === 1 ? (writers[0]!.p4 ?? "") : undefined;
  };
  switch (name) {
    case "zeroblob":
    case "randomblob": {
      const origins = frame.origins(op.p2, at);
      return (
        origins?.every((o) => o.from === "null" || (o.from === "integer" && o.value <= SMALL_BYTES)) === true
      );
    }
    case "hex":
    case "char":
      return true;
    case "printf":
    case "format": {
      const format = literal(0);
      return format !== undefined && !/\*|\d{4}/.test(format);
    }
    case "replace": {
      const pattern = literal(1);
      const replacement = literal(2);
      return pattern !== undefined && replacement !== undefined && replacement.length <= 2 * pattern.length;
    }
    default:
      return false;
  }
}
