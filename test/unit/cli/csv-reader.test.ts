import { describe, expect, test } from "vitest";
import { CsvReader } from "../../../src/cli/csv-reader.js";

function read(text: string, pieceLength = text.length || 1, separator = ","): [string[], number][] {
  const reader = new CsvReader(separator);
  const records: [string[], number][] = [];
  for (let i = 0; i < text.length; i += pieceLength) {
    for (const { fields, line } of reader.push(text.slice(i, i + pieceLength)))
      records.push([[...fields], line]);
  }
  const rest = reader.finish();
  if (rest !== undefined) records.push([[...rest.fields], rest.line]);
  return records;
}

describe("CSV", () => {
  const cases: [name: string, text: string, records: [string[], number][]][] = [
    ["nothing", "", []],
    [
      "no end of line at the end",
      "a,b\n1,2",
      [
        [["a", "b"], 1],
        [["1", "2"], 2],
      ],
    ],
    [
      "CRLF",
      "a,b\r\n1,2\r\n",
      [
        [["a", "b"], 1],
        [["1", "2"], 2],
      ],
    ],
    ["byte order mark", "\ufeffa\n", [[["a"], 1]]],
    ["quotes", '"a ""b""",c\n', [[['a "b"', "c"], 1]]],
    [
      "line feeds within quotes count lines",
      '"a\nb\n",1\nc,2\n',
      [
        [["a\nb\n", "1"], 1],
        [["c", "2"], 4],
      ],
    ],
    [
      "a carriage return within quotes stays",
      '"a\r"\n"b\r\n"\r\n',
      [
        [["a\r"], 1],
        [["b\r\n"], 2],
      ],
    ],
    [
      "empty fields",
      ",\n,,\n",
      [
        [["", ""], 1],
        [["", "", ""], 2],
      ],
    ],
    [
      "an empty line is a record with one empty field",
      "a\n\nb\n",
      [
        [["a"], 1],
        [[""], 2],
        [["b"], 3],
      ],
    ],
    ["an empty quoted field at the end", 'a,""', [[["a", ""], 1]]],
    ["quotes within a bare field are text", 'a"b,c""d\n', [[['a"b', 'c""d'], 1]]],
    ["text after a closing quote is text", '"a"b,c\n', [[["ab", "c"], 1]]],
  ];
  test.each(cases)("%s", (_, text, records) => {
    for (const piece of [text.length || 1, 1, 2, 3]) expect(read(text, piece)).toEqual(records);
  });

  test("another separator", () => {
    expect(read("a;b,c\n", 1, ";")).toEqual([[["a", "b,c"], 1]]);
  });

  test("an unclosed quote names its line", () => {
    expect(() => read('a\nb,"c\nd\n')).toThrow("line 2: a quoted field is not closed");
  });

  test("which fields were quoted", () => {
    const [record] = new CsvReader().push(',"",x,"y"\n');
    expect(record!.quoted).toEqual([false, true, false, true]);
  });
});
