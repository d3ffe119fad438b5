/** What arguments of pragmas mean is what SQLite makes of them. */
import Database from "better-sqlite3";
import { expect, it } from "vitest";
import { classify } from "../../../src/sql/classify.js";
import { pragmaBoolean, pragmaInteger } from "../../../src/sql/pragmas.js";

it.each([
  ..."-1 +1 0x10 0x100 0x7fffffff 0x80000000 0x0000000001 0x123456789 full extra '1' \"2\" 256 257 1.5 0.5 1e2".split(
    " ",
  ),
  ..."2147483647 2147483648 -2147483648 -2147483649 3000000000 0000000000000012 on yes TRUE 'on' 'on ' -0".split(
    " ",
  ),
  ..."no off false 00 01 -0x10 abc '' ' 1' '0x1g' 1_0".split(/ (?!1')/),
])("%s", (text) => {
  const plain = new Database(":memory:");
  const set = (name: string): unknown => {
    plain.exec(`pragma ${name} = ${text}`);
    return plain.pragma(name, { simple: true });
  };
  const read = (as: (argument: string) => unknown): unknown => {
    const pragma = classify(`pragma x = ${text}`);
    return as((pragma as Extract<typeof pragma, { kind: "pragma" }>).argument!);
  };
  const told = (run: () => unknown): unknown => {
    try {
      return run();
    } catch (error) {
      return (error as Error).message;
    }
  };
  plain.exec("pragma foreign_keys = off");
  expect(told(() => read(pragmaInteger))).toBe(told(() => set("user_version")));
  expect(told(() => read((argument) => Number(pragmaBoolean(argument))))).toBe(
    told(() => set("foreign_keys")),
  );
  plain.close();
});
