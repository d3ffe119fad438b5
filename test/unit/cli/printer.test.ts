import { describe, expect, test } from "vitest";
import {
  createPrinter,
  DEFAULT_PRINT_OPTIONS,
  type Format,
  type PrintOptions,
} from "../../../src/cli/format/printer.js";
import { displayWidth, printable } from "../../../src/cli/format/width.js";
import type { Value } from "../../../src/driver/types.js";

function print(
  format: Format,
  columns: readonly string[],
  rows: readonly (readonly Value[])[],
  options: Partial<PrintOptions> = {},
): string {
  const printer = createPrinter(format, { ...DEFAULT_PRINT_OPTIONS, ...options });
  return printer.head(columns) + rows.map((row) => printer.row(row)).join("") + printer.end();
}

const COLUMNS = ["id", "name", "price", "data"];
const ROWS: Value[][] = [
  [1n, "plain", 1.5, null],
  [22n, "two\nlines", 100, new Uint8Array([0, 255])],
  [3n, 'quote " , comma', null, new Uint8Array()],
];

describe("formats", () => {
  test("table: aligned, numbers on the right, NULL empty, a line feed breaks the cell", () => {
    expect(print("table", COLUMNS, ROWS)).toBe(
      [
        "+----+-----------------+-------+---------+",
        "| id |      name       | price |  data   |",
        "+----+-----------------+-------+---------+",
        "|  1 | plain           |   1.5 |         |",
        "| 22 | two             | 100.0 | X'00ff' |",
        "|    | lines           |       |         |",
        "|  3 | quote \" , comma |       | X''     |",
        "+----+-----------------+-------+---------+",
        "",
      ].join("\n"),
    );
  });

  test("box", () => {
    expect(print("box", ["a", "b"], [[1n, "x"]])).toBe(
      ["┌───┬───┐", "│ a │ b │", "├───┼───┤", "│ 1 │ x │", "└───┴───┘", ""].join("\n"),
    );
  });

  test("markdown escapes bars and keeps a row on its line", () => {
    expect(print("markdown", ["a|b"], [["x|y\nz"]])).toBe(
      ["|  a\\|b   |", "|---------|", "| x\\|y\\nz |", ""].join("\n"),
    );
  });

  test("csv is RFC 4180, and tells NULL from the empty text", () => {
    expect(print("csv", COLUMNS, [...ROWS, [4n, "", null, null]])).toBe(
      'id,name,price,data\n1,plain,1.5,\n22,"two\nlines",100.0,X\'00ff\'\n3,"quote "" , comma",,X\'\'\n4,"",,\n',
    );
  });

  test("csv with another separator and without header", () => {
    expect(print("csv", ["a", "b"], [["x;y", "z,"]], { separator: ";", header: false })).toBe('"x;y";z,\n');
  });

  test("tsv", () => {
    expect(print("tsv", ["a", "b"], [["x\ty", null]])).toBe('a\tb\n"x\ty"\t\n');
  });

  test("json keeps storage classes and parses back", () => {
    const text = print("json", ["i", "r", "t", "n"], [[9007199254740993n, 5, 'a"\u0007\u009b', null]]);
    expect(text).toBe('[{"i":9007199254740993,"r":5.0,"t":"a\\"\\u0007\\u009b","n":null}]\n');
    expect(JSON.parse(text)).toHaveLength(1);
    expect(print("json", ["a"], [])).toBe("[]\n");
    expect(JSON.parse(print("json", ["a"], [[1n], [Number.POSITIVE_INFINITY]]))).toEqual([
      { a: 1 },
      { a: Number.POSITIVE_INFINITY },
    ]);
  });

  test("jsonl", () => {
    expect(print("jsonl", ["a"], [[1n], ["x"]])).toBe('{"a":1}\n{"a":"x"}\n');
  });

  test("line", () => {
    expect(
      print(
        "line",
        ["a", "longer name"],
        [
          [1n, null],
          [2n, "x"],
        ],
        { nullText: "-" },
      ),
    ).toBe("          a = 1\nlonger name = -\n\n          a = 2\nlonger name = x\n");
  });

  test("insert", () => {
    const rows: Value[][] = [[1n, "it's", 2, Number.NEGATIVE_INFINITY, new Uint8Array([1]), null]];
    expect(print("insert", ["a", "order", "c d", "e", "f", "g"], rows, { tableName: "my table" })).toBe(
      `INSERT INTO "my table"(a,"order","c d",e,f,g) VALUES(1,'it''s',2.0,-1e999,X'01',NULL);\n`,
    );
  });

  test("wide and combining characters count their cells", () => {
    expect(displayWidth("日本")).toBe(4);
    expect(displayWidth("e\u0301")).toBe(1);
    expect(displayWidth("👩‍👩‍👧")).toBe(2);
    expect(displayWidth("🇨🇿")).toBe(2);
    expect(print("table", ["x"], [["日本"], ["abcd"]])).toContain("| 日本 |\n| abcd |");
  });

  test.each(["table", "box", "csv", "tsv", "json", "jsonl", "line", "markdown", "insert"] as const)(
    "%s on a terminal lets no control character through",
    (format) => {
      const evil = "\u001b]0;owned\u0007\u009b2J\u202e\u0000\u0008";
      const text = print(format, [`c${evil}`], [[evil]], { terminal: true });
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
      expect(text).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]/);
    },
  );

  test("escapes are readable", () => {
    expect(printable("a\u001b[0m\n\u202eb")).toBe("a\\x1b[0m\\n\\u202eb");
  });

  test("a result longer than a page goes on with the page's widths, whole", () => {
    const rows: Value[][] = Array.from({ length: 2500 }, (_, i) => [
      BigInt(1000 + i),
      i === 2000 ? "a longer value" : "v",
    ]);
    const lines = print("table", ["n", "v"], rows).trimEnd().split("\n");
    expect(lines).toHaveLength(2504);
    expect(lines[2003]).toContain("a longer value");
    expect(lines[2499]!.length).toBe(lines[3]!.length);
  });
});
