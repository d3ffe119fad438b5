/** Random schemas, rows and queries for comparing what ranges answer with what plain SQLite does. */
import type { SqlValue } from "../../../src/base/values.js";
import type { TableDefinition } from "./split-database.js";

/** Marsaglia's xorshift: the same everywhere. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0 || 1;
    for (let i = 0; i < 8; i++) this.below(2);
  }

  below(n: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state % n;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  some<T>(list: readonly T[], most: number): T[] {
    return Array.from({ length: 1 + this.below(most) }, () => this.pick(list));
  }
}

const INTEGERS = [0n, 1n, 1n, 2n, 3n, 4n, 5n, -1n, -7n, 10n];
const HUGE = [
  9007199254740993n,
  -9007199254740993n,
  9223372036854775807n,
  6000000000000000000n,
  -6000000000000000000n,
];
const REALS = [0.5, 1.5, 2.25, -0.1, 1e19, 0.1, 0.2, 100.0];
const TEXTS = [
  "a",
  "A",
  "b",
  "B",
  "abc",
  "ABC",
  "Abd",
  "",
  "1",
  " 1",
  "1.0",
  "x'y",
  "2024-01-05",
  "é",
  '{"k":1}',
  '{"k":2}',
];
const BLOBS = [new Uint8Array([1, 2]), new Uint8Array([]), new Uint8Array([97])];

function value(dice: Dice, kind: "int" | "huge" | "text" | "real" | "any"): SqlValue {
  if (dice.chance(12)) return null;
  switch (kind) {
    case "int":
      return dice.pick(INTEGERS);
    case "huge":
      return dice.chance(30) ? dice.pick(HUGE) : dice.pick(INTEGERS);
    case "text":
      return dice.pick(TEXTS);
    case "real":
      return dice.chance(70) ? dice.pick(REALS) : dice.pick(INTEGERS);
    default:
      return dice.pick([
        dice.pick(INTEGERS),
        Number(dice.pick(INTEGERS)),
        dice.pick(REALS),
        dice.pick(TEXTS),
        dice.pick(BLOBS),
      ]);
  }
}

export interface RandomDatabase {
  readonly tables: readonly TableDefinition[];
  readonly others: readonly string[];
}

export function randomDatabase(dice: Dice): RandomDatabase {
  const size = 8 + dice.below(28);
  const huge = dice.chance(25) ? "huge" : "int";
  const keys = new Set<number>();
  while (keys.size < size) keys.add(dice.below(200) - 40);
  const t = [...keys].map((id) => [
    BigInt(id),
    value(dice, huge),
    value(dice, "text"),
    value(dice, "real"),
    value(dice, "any"),
    value(dice, dice.chance(80) ? "int" : "any"),
    value(dice, "text"),
  ]);
  const names = [
    ...new Set(Array.from({ length: 4 + dice.below(14) }, () => `${dice.pick(TEXTS)}${dice.below(6)}`)),
  ];
  const w = names.map((k) => [k, BigInt(dice.below(4)), value(dice, "int"), value(dice, "text")]);
  const u = Array.from({ length: dice.below(12) }, (_, i) => [
    BigInt(i * 3 + 1),
    value(dice, "int"),
    value(dice, "text"),
    value(dice, "text"),
  ]);
  const cuts = (rows: number, most: number): number[] =>
    rows === 0 ? [] : Array.from({ length: dice.below(most + 1) }, () => dice.below(rows));
  const tables: TableDefinition[] = [
    {
      sql: "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b TEXT, c REAL, d, e NUMERIC, n TEXT COLLATE NOCASE, g AS (a % 3))",
      key: { name: "t", shard: "rowid", keyColumns: ["rowid"], autoincrement: false },
      rows: t,
      columns: ["id", "a", "b", "c", "d", "e", "n"],
      keyAt: [0],
      cuts: [...cuts(size, 3), dice.below(size)],
    },
    {
      sql: "CREATE TABLE w(k TEXT NOT NULL, j INTEGER NOT NULL, m INT, v TEXT, PRIMARY KEY(k, j)) WITHOUT ROWID",
      key: { name: "w", shard: "key", keyColumns: ["k", "j"], autoincrement: false },
      rows: w,
      columns: ["k", "j", "m", "v"],
      keyAt: [0, 1],
      cuts: cuts(w.length, 2),
    },
    {
      sql: "CREATE TABLE u(a INT, y TEXT, n TEXT)",
      key: { name: "u", shard: "rowid", keyColumns: ["rowid"], autoincrement: false },
      rows: u,
      columns: ["rowid", "a", "y", "n"],
      keyAt: [0],
      cuts: cuts(u.length, 2),
    },
  ];
  const indexes = [
    "CREATE INDEX t_a ON t(a)",
    "CREATE INDEX t_b ON t(b)",
    "CREATE INDEX t_ab ON t(a, b)",
    "CREATE INDEX t_bd ON t(b DESC)",
    "CREATE INDEX t_n ON t(n)",
    "CREATE INDEX t_e ON t(e) WHERE e > 1",
    "CREATE INDEX t_c ON t(c, a)",
    "CREATE INDEX w_m ON w(m)",
    "CREATE INDEX t_x ON t(lower(b))",
  ].filter(() => dice.chance(25));
  const views = [
    "CREATE VIEW v AS SELECT * FROM t WHERE a > 1",
    "CREATE VIEW vj AS SELECT t.id, t.a, u.y FROM t LEFT JOIN u ON t.a = u.a AND u.y <> 'b' WHERE t.b IS NOT NULL",
  ];
  return { tables, others: [...indexes, ...views] };
}

// --- queries --------------------------------------------------------------------------------------------------------

const T_COLUMNS = ["id", "a", "b", "c", "d", "e", "n", "g"];
const LITERALS = ["0", "1", "2", "3", "-1", "1.0", "0.5", "'a'", "'A'", "'abc'", "'1'", "NULL", "x'61'", "5"];

export class QueryMaker {
  readonly #dice: Dice;
  params: SqlValue[] = [];

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  make(): { readonly sql: string; readonly params: readonly SqlValue[] } {
    this.params = [];
    const dice = this.#dice;
    const sql = dice.pick([
      () => this.rows(),
      () => this.rows(),
      () => this.aggregate(),
      () => this.aggregate(),
      () => this.join(),
      () => this.join(),
      () => this.nested(),
      () => this.padded(),
      () => this.keyed(),
      () => this.simple(),
    ])();
    return { sql, params: this.params };
  }

  #literal(): string {
    const dice = this.#dice;
    if (!dice.chance(25)) return dice.pick(LITERALS);
    this.params.push(value(dice, "any"));
    return "?";
  }

  #column(prefix: string, columns: readonly string[] = T_COLUMNS): string {
    const dice = this.#dice;
    const name = dice.pick(columns);
    return prefix !== "" && dice.chance(50) ? `${prefix}.${name}` : name;
  }

  #scalar(prefix: string, columns: readonly string[] = T_COLUMNS): string {
    const dice = this.#dice;
    const column = () => this.#column(prefix, columns);
    return dice.pick([
      column,
      column,
      column,
      () => `${column()} + ${this.#literal()}`,
      () => `lower(${column()})`,
      () => `coalesce(${column()}, ${this.#literal()})`,
      () => `CAST(${column()} AS ${dice.pick(["INTEGER", "TEXT", "REAL", "NUMERIC"])})`,
      () => `length(${column()})`,
      () => `substr(${column()}, 1, 1)`,
      () => `${column()} || ${this.#literal()}`,
      () => `CASE WHEN ${column()} > ${this.#literal()} THEN ${column()} ELSE ${this.#literal()} END`,
      () => `(${column()} COLLATE NOCASE)`,
      () => `typeof(${column()})`,
      () => `-${column()}`,
      () => `+${column()}`,
      () => `${column()} % 2`,
      () => `json_extract(${column()}, '$.k')`,
      () => `abs(${column()})`,
      () => "random() * 0",
      () => `strftime('%Y', ${column()})`,
    ])();
  }

  condition(prefix: string, columns: readonly string[] = T_COLUMNS, depth = 0): string {
    const dice = this.#dice;
    const scalar = () => this.#scalar(prefix, columns);
    const column = () => this.#column(prefix, columns);
    if (depth < 2 && dice.chance(30)) {
      const joined = dice.pick(["AND", "AND", "OR"]);
      return `(${this.condition(prefix, columns, depth + 1)} ${joined} ${this.condition(prefix, columns, depth + 1)})`;
    }
    return dice.pick([
      () =>
        `${column()} ${dice.pick(["=", "<", ">", "<=", ">=", "<>", "IS", "IS NOT", "=="])} ${this.#literal()}`,
      () => `${column()} ${dice.pick(["=", "<", ">"])} ${this.#literal()}`,
      () => `${scalar()} ${dice.pick(["=", "<", ">"])} ${scalar()}`,
      () => `${column()} IN (${this.#literal()}, ${this.#literal()})`,
      () => `${column()} NOT IN (${this.#literal()}, 3)`,
      () => `${column()} BETWEEN ${this.#literal()} AND ${this.#literal()}`,
      () =>
        `${column()} ${dice.pick(["LIKE", "GLOB", "NOT LIKE"])} ${dice.pick(["'a%'", "'A*'", "'%b%'", "'_'"])}`,
      () => `${column()} LIKE 'a%' ESCAPE ${dice.pick(["'!'", "'ab'", column()])}`,
      () => `${column()} IS NULL`,
      () => `${column()} NOTNULL`,
      () => `NOT ${column()}`,
      () => column(),
      () => "true",
      () => `${column()} = true`,
      () =>
        `EXISTS (SELECT 1 FROM u WHERE u.a = ${this.#dice.pick(["a", "1", prefix === "" ? "2" : `${prefix}.a`])})`,
      () => `${column()} IN (SELECT a FROM t WHERE b > ${this.#literal()})`,
      () => `${column()} = ${column()}`,
      () => "rowid > 3",
      () => "b = 'a' -- a comment\n",
    ])();
  }

  #where(prefix: string, columns: readonly string[] = T_COLUMNS): string {
    const dice = this.#dice;
    if (dice.chance(25)) return "";
    const conditions = Array.from({ length: 1 + dice.below(3) }, () => this.condition(prefix, columns));
    return ` WHERE ${conditions.join(" AND ")}`;
  }

  #limit(): string {
    const dice = this.#dice;
    if (dice.chance(45)) return "";
    const count = (): string => {
      if (!dice.chance(30)) return String(dice.below(9));
      this.params.push(dice.pick([0n, 1n, 3n, 5n, -1n]));
      return "?";
    };
    return dice.pick([
      () => ` LIMIT ${count()}`,
      () => ` LIMIT ${count()} OFFSET ${count()}`,
      () => ` LIMIT ${dice.below(4)}, ${dice.below(6)}`,
      () => ` LIMIT ${count()} + 1 OFFSET (SELECT count(*) > ${dice.below(9)} FROM u)`,
    ])();
  }

  #order(prefix: string, columns: readonly string[] = T_COLUMNS): string {
    const dice = this.#dice;
    if (dice.chance(30)) return "";
    const term = (): string =>
      `${dice.chance(70) ? this.#column(prefix, columns) : this.#scalar(prefix, columns)}${dice.pick(["", " DESC", " ASC", " DESC NULLS LAST", " NULLS FIRST", " COLLATE NOCASE"])}`;
    return ` ORDER BY ${dice.pick([
      term,
      () => `${term()}, ${term()}`,
      () => dice.pick(["id", "id DESC", "1", "2 DESC", "x", "x DESC, 1", "rowid"]),
    ])()}`;
  }

  rows(): string {
    const dice = this.#dice;
    const alias = dice.pick(["", "", " AS x", " z"]);
    const prefix = alias === "" ? "t" : alias.at(-1)!;
    const list = dice.pick([
      () => "*",
      () => `${prefix}.*`,
      () => "id, a",
      () => "rowid, *",
      () => `${this.#scalar(prefix)} AS x, ${this.#column(prefix)}`,
      () => `id AS x, ${this.#scalar(prefix)}`,
      () => "a AS id, b AS a, id AS b",
      () => this.#column(prefix),
    ])();
    const distinct = dice.chance(8) ? "DISTINCT " : "";
    const main = dice.chance(10) ? "main." : "";
    return `SELECT ${distinct}${list} FROM ${main}t${alias}${this.#where(prefix)}${this.#order(prefix)}${this.#limit()}`;
  }

  /** What is most likely to be asked. */
  simple(): string {
    const dice = this.#dice;
    const column = dice.pick(T_COLUMNS);
    const where = dice.chance(40)
      ? ""
      : ` WHERE ${column} ${dice.pick(["=", ">", "<", "IS"])} ${this.#literal()}`;
    return dice.pick([
      () => `SELECT * FROM t${where}`,
      () => `SELECT *, rowid FROM t${where} ORDER BY ${dice.pick(["id", "id DESC", "rowid"])}`,
      () =>
        `SELECT id, b FROM t${where} ORDER BY ${dice.pick(T_COLUMNS)} ${dice.pick(["", "DESC"])} LIMIT ${dice.below(7)}`,
      () => `SELECT count(*) FROM t${where}`,
      () => `SELECT min(${column}), max(${column}), count(${column}) FROM t${where}`,
      () =>
        `SELECT ${column}, count(*), sum(a) FROM t${where} GROUP BY ${column}${dice.pick(["", " ORDER BY 2 DESC, 1", " HAVING count(*) > 1"])}`,
      () => `SELECT sum(a), avg(a), total(a), sum(id), avg(e) FROM t${where}`,
    ])();
  }

  /** By the whole key, or of it. */
  keyed(): string {
    const dice = this.#dice;
    const where = this.#where("w", ["k", "j", "m", "v"]).replaceAll("rowid", "j");
    const order = dice.pick([
      "",
      " ORDER BY k, j",
      " ORDER BY k DESC, j DESC",
      " ORDER BY k",
      " ORDER BY m, k",
      " ORDER BY j, k",
    ]);
    const list = dice.pick(["*", "k, m", "v", "m, count(*)", "max(k), min(k), count(*)"]);
    const group = list === "m, count(*)" ? " GROUP BY m" : "";
    return `SELECT ${list} FROM w${where}${group}${group === "" ? order : ""}${this.#limit()}`;
  }

  #call(prefix: string): string {
    const dice = this.#dice;
    const argument = dice.chance(75) ? this.#column(prefix) : this.#scalar(prefix);
    const filter = dice.chance(15) ? ` FILTER (WHERE ${this.condition(prefix)})` : "";
    return dice.pick([
      () => `count(*)${filter}`,
      () => `count(${argument})${filter}`,
      () => `sum(${argument})${filter}`,
      () => `total(${argument})${filter}`,
      () => `avg(${argument})${filter}`,
      () => `min(${argument})${filter}`,
      () => `max(${argument})${filter}`,
      () => `sum(a)${filter}`,
      () => "avg(a)",
      () => `count(DISTINCT ${argument})`,
      () => `group_concat(${argument})`,
    ])();
  }

  aggregate(): string {
    const dice = this.#dice;
    const prefix = "t";
    const around = (call: string): string =>
      dice.pick([
        call,
        call,
        call,
        `${call} + 1`,
        `coalesce(${call}, 0)`,
        `-${call}`,
        `${call} > 2`,
        `${call} || ''`,
      ]);
    const calls = Array.from({ length: 1 + dice.below(3) }, () => around(this.#call(prefix)));
    const where = this.#where(prefix);
    if (dice.chance(40)) {
      const having = dice.chance(15) ? ` HAVING ${this.#call(prefix)} > 1` : "";
      return `SELECT ${calls.join(", ")} FROM t${where}${having}${this.#limit()}`;
    }
    const groups = dice.some(
      [
        "a",
        "b",
        "n",
        "d",
        "e",
        "c",
        "g",
        "t.a",
        "lower(b)",
        "a % 2",
        "length(b)",
        "id",
        "CAST(d AS TEXT)",
        "x",
        "1",
        "substr(b, 1, 1)",
      ],
      2,
    );
    const first = dice.pick(groups.filter((group) => group !== "x" && group !== "1").concat("a"));
    const list = `${first} AS x, ${calls.join(", ")}`;
    const having = dice.chance(25)
      ? ` HAVING ${dice.pick([`${this.#call(prefix)} > 1`, "x > 1", "x = 'a'", `${first} IS NOT NULL`, "count(*) > 1 AND max(a) > 0"])}`
      : "";
    const order = dice.pick([
      "",
      "",
      " ORDER BY 1",
      " ORDER BY 2 DESC",
      " ORDER BY x DESC, 2",
      " ORDER BY count(*)",
      ` ORDER BY ${first}`,
    ]);
    const distinct = dice.chance(8) ? "DISTINCT " : "";
    return `SELECT ${distinct}${list} FROM t${where} GROUP BY ${groups.join(", ")}${having}${order}${this.#limit()}`;
  }

  join(): string {
    const dice = this.#dice;
    const U = ["a", "y"];
    const on = (): string =>
      dice.pick([
        () => ` ON x.a = z.a`,
        () => ` ON x.a = z.a AND ${this.condition("z", ["z.y", "z.a"])}`,
        () => ` ON x.a = z.a AND ${this.condition("x", ["x.b", "x.c"])}`,
        () => " USING (a)",
        () => ` ON x.b = z.y AND z.a > ${this.#literal()}`,
      ])();
    const kind = dice.pick([
      "JOIN",
      "LEFT JOIN",
      "LEFT JOIN",
      ",",
      "CROSS JOIN",
      "NATURAL JOIN",
      "RIGHT JOIN",
      "FULL JOIN",
      "NATURAL LEFT JOIN",
    ]);
    const hasOn = kind !== "," && kind !== "CROSS JOIN" && !kind.startsWith("NATURAL");
    const other = dice.pick(["u", "u", "t", "(SELECT a, y FROM u WHERE y > 'a')", "v"]);
    const columns =
      other === "t" || other === "v"
        ? ["x.a", "z.a", "x.b", "z.b"]
        : ["x.a", "z.a", "z.y", "y", "x.b", "b", "n"];
    const conditions = Array.from({ length: dice.below(4) }, () =>
      this.condition("", dice.chance(70) ? columns : [...columns, ...U]),
    );
    const third = dice.chance(25)
      ? ` ${dice.pick(["JOIN", "LEFT JOIN"])} w ON w.m = x.a AND ${this.condition("w", ["w.m", "w.v"])}`
      : "";
    const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
    const list = dice.pick(["*", "x.id, z.a", "count(*)", "x.a, count(*), max(z.a)", "x.*"]);
    return `SELECT ${list} FROM t AS x ${kind} ${other} AS z${hasOn ? on() : ""}${third}${where}${dice.chance(30) ? " ORDER BY x.id, z.a" : ""}`;
  }

  /** Conditions on a table that a join may pad with NULLs, or whose columns it merges. */
  padded(): string {
    const dice = this.#dice;
    const kind = dice.pick(["LEFT JOIN", "LEFT JOIN", "JOIN", "RIGHT JOIN", "FULL JOIN"]);
    const of = (table: string): string =>
      dice.pick([
        () => `${table}.a IS NULL`,
        () => `${table}.n IS NOT 'a'`,
        () => `coalesce(${table}.a, 1) = ${this.#literal()}`,
        () => `${table}.a = ${dice.below(4)}`,
        () => `${table}.n ${dice.pick(["=", "<>"])} ${dice.pick(["'a'", "'A'", "'abc'"])}`,
        () => `${table}.a > 1 IS NOT true`,
      ])();
    const on = dice.pick([
      () => `ON x.a = z.a AND ${of("z")}`,
      () => `ON x.a = z.a AND ${of("x")}`,
      () => "ON x.a = z.a",
      () => "USING (n)",
      () => "USING (n)",
      () => "USING (a, n)",
    ])();
    const merged = on.startsWith("USING")
      ? dice.pick(["n = 'a'", "n = 'A'", "n > 'a'", of("z"), of("x")])
      : of("z");
    const where = dice.pick([merged, merged, of("x"), `${merged} AND ${of("x")}`]);
    const natural = kind === "LEFT JOIN" && dice.chance(10);
    return `SELECT ${dice.pick(["*", "count(*)", "x.id, z.y"])} FROM t AS x ${natural ? "NATURAL LEFT JOIN u AS z" : `${kind} u AS z ${on}`} WHERE ${natural ? "n = 'a'" : where}`;
  }

  nested(): string {
    const dice = this.#dice;
    const c = () => this.condition("t");
    return dice.pick([
      () => `SELECT * FROM v WHERE ${this.condition("v")}${this.#order("v")}${this.#limit()}`,
      () => `SELECT * FROM vj WHERE ${this.condition("", ["id", "a", "y"])}`,
      () =>
        `WITH q AS (SELECT a, b FROM t WHERE ${c()}) SELECT * FROM q WHERE ${this.condition("q", ["a", "b"])}`,
      () => `WITH t AS (SELECT a, y AS b FROM u) SELECT * FROM t WHERE ${this.condition("t", ["a", "b"])}`,
      () =>
        `WITH t AS (SELECT a, y AS b FROM u) SELECT * FROM main.t WHERE ${this.condition("", ["a", "b"])}`,
      () => `SELECT a FROM t WHERE ${c()} UNION SELECT a FROM u WHERE ${this.condition("u", ["a", "y"])}`,
      () => `SELECT a FROM t WHERE ${c()} UNION ALL SELECT id FROM t WHERE ${c()} ORDER BY 1${this.#limit()}`,
      () => `SELECT * FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.a = u.a AND ${c()})`,
      () => `SELECT *, (SELECT count(*) FROM t WHERE t.a = u.a AND ${c()}) FROM u`,
      () => `SELECT * FROM u WHERE y IN (SELECT b FROM t WHERE ${c()} AND t.a > u.a)`,
      () => `SELECT a, row_number() OVER (ORDER BY id) FROM t WHERE ${c()}`,
      () => `SELECT a, sum(a) OVER (PARTITION BY b) FROM t WHERE ${c()}`,
      () => `SELECT * FROM (SELECT a, count(*) AS n FROM t WHERE ${c()} GROUP BY a) WHERE n > 1`,
      () => `SELECT * FROM t WHERE ${c()} AND a = (SELECT max(a) FROM t WHERE ${c()})`,
      () =>
        `SELECT x.id FROM t AS x WHERE ${this.condition("x")} AND x.id NOT IN (SELECT id FROM t WHERE ${c()})`,
      () => `SELECT * FROM (t JOIN u ON t.a = u.a) WHERE ${this.condition("", ["id", "b", "y"])}`,
      () =>
        `WITH RECURSIVE r(i) AS (SELECT 1 UNION SELECT t.id FROM t, r WHERE t.a = r.i AND ${c()}) SELECT * FROM r`,
      () => `SELECT max(id) FROM t`,
      () => `SELECT min(id), max(id), count(*) FROM t WHERE ${c()}`,
      () => `SELECT a AS b, b AS a FROM t WHERE ${c()} ORDER BY b, a${this.#limit()}`,
    ])();
  }
}
