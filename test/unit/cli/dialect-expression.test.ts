/** Expressions and SELECTs of other databases: what is translated means the same, what would not is refused. */
import Sqlite from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { resolveType } from "../../../src/cli/import/dialect/column-type.js";
import { translate } from "../../../src/cli/import/dialect/expression.js";
import type { Scope } from "../../../src/cli/import/dialect/expression-types.js";
import { Untranslatable } from "../../../src/cli/import/dialect/expression-types.js";
import type { Family } from "../../../src/cli/import/dialect/lexer.js";
import { Schema } from "../../../src/cli/import/dialect/schema.js";
import { translateSelect } from "../../../src/cli/import/dialect/select.js";
import { DumpSession } from "../../../src/cli/import/dialect/session.js";
import type { ValueKind } from "../../../src/cli/import/dialect/value-kind.js";

const KINDS: Readonly<Record<string, { kind: ValueKind; time?: string; order?: "members" | "no case" }>> = {
  a: { kind: "integer" },
  b: { kind: "integer" },
  c: { kind: "integer" },
  t: { kind: "text" },
  u: { kind: "text" },
  d: { kind: "numeric" },
  r: { kind: "real" },
  ok: { kind: "boolean" },
  born: { kind: "time", time: "date" },
  at: { kind: "timestamptz", time: "timestamptz" },
  ch: { kind: "padded" },
  m: { kind: "text", order: "members" },
  ci: { kind: "text", order: "no case" },
};

function scopeOf(family: Family, notes: string[] = []): Scope {
  return {
    family,
    note: (what) => notes.push(what),
    type: (type) => {
      const resolved = resolveType(type, new Schema(), family);
      return resolved.note === undefined ? resolved : undefined;
    },
    column: (_, name) => {
      const known = KINDS[name];
      if (known === undefined) throw new Untranslatable(`${name}: no such column`);
      return { sql: name, ...known };
    },
  };
}

function sql(family: Family, text: string): string {
  const session = new DumpSession(family === "mysql" ? "mysql" : "postgresql");
  try {
    return translate(session.tokenize(text), scopeOf(family)).sql;
  } catch (error) {
    if (error instanceof Untranslatable) return `refused: ${error.message}`;
    throw error;
  }
}

describe("expressions", () => {
  test.each([
    ["a = 1 or b = 2 and c = 3", "((a = 1) OR ((b = 2) AND (c = 3)))"],
    ["not a = 1 and b = 2", "((NOT (a = 1)) AND (b = 2))"],
    ["a = b is null", "((a = b) IS NULL)"],
    ["a = b in (1, 2)", "((a = b) IN (1, 2))"],
    ["a between 1 and 2 and b <=> null", "((a BETWEEN 1 AND 2) AND (b IS NULL))"],
    ["t like 'x\\\\_%'", "(t LIKE 'x\\_%' ESCAPE '\\')"],
    ["_utf8mb4'x' = `t` collate utf8mb4_bin", "('x' = (t COLLATE BINARY))"],
    ["concat(t, ' ', a)", "(t || ' ' || a)"],
    ["if(a > 1, t, 'none')", "iif((a > 1), t, 'none')"],
    ["case a when 1 then t else 'x' end", "CASE a WHEN 1 THEN t ELSE 'x' END"],
    ["a div 2 + a mod 3", "((a / 2) + (a % 3))"],
    ["a / 2", "(CAST(a AS REAL) / 2)"],
    ["length(t) > char_length(t)", "(octet_length(t) > length(t))"],
    ["born > '1900-01-01'", "(born > '1900-01-01')"],
    ["ok and x'00' is not null", "(ok AND (X'00' IS NOT NULL))"],
    ["- -5", "(-(-5))"],
  ])("MySQL: %s", (text, expected) => {
    expect(sql("mysql", text)).toBe(expected);
  });

  test.each([
    ["((d >= (0)::numeric) OR (ok AND ((t)::text <> 'x'::text)))", "((d >= 0) OR (ok AND (t <> 'x')))"],
    [
      "(t)::text = ANY ((ARRAY['x'::character varying, 'y'::character varying])::text[])",
      "(t IN ('x', 'y'))",
    ],
    ["t <> ALL (ARRAY['x'::text])", "(t NOT IN ('x'))"],
    ["t ~~ 'a_[%\\%'::text", "(t GLOB 'a?[[]*%')"],
    ["t !~~* 'x%'", "(t NOT LIKE 'x%')"],
    ["t NOT LIKE 'x'", "(t NOT GLOB 'x')"],
    ["(('x'::text || (a)::text) || t)", "(('x' || CAST(a AS TEXT)) || t)"],
    ["a IS DISTINCT FROM b", "(a IS NOT b)"],
    ["ok IS NOT TRUE", "(ok IS NOT TRUE)"],
    ["born > '2000-01-01'::date", "(born > '2000-01-01')"],
    ["at < '2000-01-01 02:00:00+02'::timestamp with time zone", "(at < '2000-01-01 00:00:00')"],
    ["ch = 'ab  '::bpchar", "(ch = 'ab')"],
    ["a / 2 % 3", "((a / 2) % 3)"],
    ["(a)::double precision / (2)::double precision", "(CAST(a AS REAL) / CAST(2 AS REAL))"],
    ["COALESCE(t, 'x'::character varying)", "coalesce(t, 'x')"],
    ["'-5'::integer", "-5"],
    ["m = 'x'", "(m = 'x')"],
    ["ci ~~ 'x%'", "(ci LIKE 'x%')"],
  ])("PostgreSQL: %s", (text, expected) => {
    expect(sql("postgresql", text)).toBe(expected);
  });

  test.each([
    ["mysql", "t || u"],
    ["mysql", "t = 5"],
    ["mysql", "a ^ b"],
    ["mysql", "t regexp 'x'"],
    ["mysql", "d + d = d"],
    ["mysql", "born > '1900-1-1'"],
    ["mysql", "date_format(born, '%Y')"],
    ["mysql", "concat('x', d)"],
    ["mysql", "a + interval 1 day"],
    ["mysql", "missing = 1"],
    ["mysql", "binary t = 'x'"],
    ["postgresql", "d / 2"],
    ["postgresql", "(d)::text"],
    ["postgresql", "(d)::integer"],
    ["postgresql", "t ~ 'x'"],
    ["postgresql", "t LIKE u"],
    ["postgresql", "GREATEST(a, b)"],
    ["postgresql", "born > '2000-01-01 00:00:00'::timestamp without time zone"],
    ["postgresql", "a = ANY (SELECT 1)"],
    ["postgresql", "count(*) OVER ()"],
    ["postgresql", "a 1"],
    ["postgresql", "m > 'x'"],
    ["postgresql", "m BETWEEN 'x' AND 'y'"],
    ["postgresql", "max(m)"],
  ] as const)("%s: %s is refused", (family, text) => {
    expect(sql(family, text)).toMatch(/^refused: /);
  });
});

test("differences that are told", () => {
  const notes: string[] = [];
  const session = new DumpSession("mysql");
  for (const text of ["concat(t, 'x') = 'y'", "upper(t) like 'x%'", "d * 2", "t = 'x'"]) {
    translate(session.tokenize(text), scopeOf("mysql", notes));
  }
  expect(notes).toEqual([
    "computed text is compared with regard to case",
    "lower() and upper() change ASCII letters only",
    "LIKE ignores the case of ASCII letters only",
    "decimal arithmetic is done in binary floating point",
  ]);
});

/** Random expressions of integers, with as few parentheses as the operators' precedence allows. */
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

describe(`precedence (seed ${seed})`, () => {
  let state = seed >>> 0 || 1;
  const random = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  interface Node {
    readonly text: string;
    readonly power: number;
    value(row: Readonly<Record<string, number>>): number;
  }
  const OPERATORS: readonly (readonly [string, number, (a: number, b: number) => number])[] = [
    ["or", 1, (a, b) => Number(a !== 0 || b !== 0)],
    ["and", 2, (a, b) => Number(a !== 0 && b !== 0)],
    ["=", 4, (a, b) => Number(a === b)],
    ["<", 4, (a, b) => Number(a < b)],
    [">=", 4, (a, b) => Number(a >= b)],
    ["+", 5, (a, b) => a + b],
    ["-", 5, (a, b) => a - b],
    ["*", 6, (a, b) => a * b],
  ];
  const wrapped = (node: Node, least: number): string => (node.power < least ? `(${node.text})` : node.text);
  const generate = (depth: number): Node => {
    if (depth === 0 || random(6) === 0) {
      const name = "abc"[random(3)]!;
      if (random(2) === 0) return { text: name, power: 9, value: (row) => row[name]! };
      const constant = random(4);
      return { text: String(constant), power: 9, value: () => constant };
    }
    if (random(6) === 0) {
      const inner = generate(depth - 1);
      return { text: `not ${wrapped(inner, 3)}`, power: 3, value: (row) => Number(inner.value(row) === 0) };
    }
    const [operator, power, compute] = OPERATORS[random(OPERATORS.length)]!;
    const left = generate(depth - 1);
    const right = generate(depth - 1);
    // Comparisons one after the other are written with parentheses: PostgreSQL refuses them.
    const text = `${wrapped(left, power === 4 ? 5 : power)} ${operator} ${wrapped(right, power + 1)}`;
    return { text, power, value: (row) => compute(left.value(row), right.value(row)) };
  };
  const sqlite = new Sqlite(":memory:");

  test.each(["mysql", "postgresql"] as const)("%s", (family) => {
    const session = new DumpSession(family);
    const scope = scopeOf(family);
    let evaluated = 0;
    for (let i = 0; i < 400; i++) {
      const node = generate(4);
      const row = { a: random(4), b: random(4), c: random(4) };
      let translated: string;
      try {
        translated = translate(session.tokenize(node.text), scope).sql;
      } catch (error) {
        // A truth value in arithmetic.
        expect(error, node.text).toBeInstanceOf(Untranslatable);
        continue;
      }
      const result = sqlite.prepare(`select ${translated} from (select @a a, @b b, @c c)`).pluck().get(row);
      expect(Number(result), `${node.text} became ${translated} for ${JSON.stringify(row)}`).toBe(
        node.value(row),
      );
      evaluated++;
    }
    expect(evaluated).toBeGreaterThan(50);
  });
});

describe("SELECT", () => {
  const select = (family: Family, text: string): string => {
    const session = new DumpSession(family);
    const columns = (name: string): { sql: string; kind: ValueKind; time?: string } | undefined =>
      KINDS[name] === undefined ? undefined : { sql: name, ...KINDS[name] };
    try {
      return translateSelect(session.tokenize(text), {
        family,
        scope: scopeOf(family),
        relations: {
          find: ({ name }) => (name === "nothing" ? undefined : { name: `${name}_here`, columns }),
        },
      });
    } catch (error) {
      if (error instanceof Untranslatable) return `refused: ${error.message}`;
      throw error;
    }
  };

  test.each([
    [
      "select `x`.`a` AS `a`,count(0) AS `n` from `x` group by `x`.`a` having (count(0) > 1) order by `n` desc limit 3",
      "SELECT x.a AS a, count(0) AS n FROM x_here AS x GROUP BY x.a HAVING (count(0) > 1) ORDER BY n DESC LIMIT 3",
    ],
    [
      "select `y`.`t` AS `t` from (`x` left join `z` `y` on((`x`.`a` = `y`.`b`)))",
      "SELECT y.t AS t FROM (x_here AS x LEFT JOIN z_here AS y ON (x.a = y.b))",
    ],
  ])("MySQL: %s", (text, expected) => {
    expect(select("mysql", text)).toBe(expected);
  });

  test.each([
    [
      'SELECT x.a, x.t AS "Na me" FROM public.x WHERE (x.a IN ( SELECT y.b FROM public.y WHERE (y.c = x.a))) ORDER BY x.a DESC, x.t',
      'SELECT x.a AS a, x.t AS "Na me" FROM x_here AS x WHERE (x.a IN (SELECT y.b AS b FROM y_here AS y WHERE (y.c = x.a))) ORDER BY x.a DESC NULLS FIRST, x.t NULLS LAST',
    ],
    [
      "SELECT DISTINCT x.a FROM x UNION ALL SELECT y.b FROM y",
      "SELECT DISTINCT x.a AS a FROM x_here AS x UNION ALL SELECT y.b AS b FROM y_here AS y",
    ],
    [
      "WITH w AS (SELECT x.a FROM x) SELECT w.a, sum(w.a) AS s FROM w GROUP BY w.a",
      "refused: sum() of what may be no number",
    ],
    [
      "WITH w AS (SELECT x.a FROM x) SELECT w.a FROM w WHERE (EXISTS ( SELECT 1 FROM w w2))",
      "WITH w AS (SELECT x.a AS a FROM x_here AS x) SELECT w.a AS a FROM w WHERE EXISTS (SELECT 1 FROM w AS w2)",
    ],
    ["SELECT DISTINCT ON (x.a) x.a FROM x", "refused: DISTINCT ON"],
    ["SELECT * FROM x", "refused: SELECT *"],
    ["SELECT nothing.a FROM nothing", "refused: there is no nothing"],
    ["SELECT y.a FROM x", "refused: y.a: no such column"],
    ["SELECT g.g FROM generate_series(1, 2) g(g)", "refused: generate_series() as a table"],
    ["SELECT row_number() OVER (ORDER BY x.a) AS n FROM x", "refused: row_number() with OVER"],
  ])("PostgreSQL: %s", (text, expected) => {
    expect(select("postgresql", text)).toBe(expected);
  });
});
