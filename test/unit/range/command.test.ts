import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import { encodeVector } from "../../../src/base/values.js";
import {
  decodeCommands,
  decodeResults,
  encodeCommands,
  encodeResults,
  packResult,
  unpackResult,
} from "../../../src/machines/range/command.js";
import { toldDigest } from "../../../src/machines/range/told.js";
import type {
  Command,
  CommandResult,
  StampedStatement,
  StatementOutcome,
} from "../../../src/machines/range/types.js";

const key = { client: "c-1", sequence: 2 ** 40, lowestUnanswered: 3, issuedMs: 1_700_000_000_000 };
const statement: StampedStatement = {
  sql: "insert into t values (?, ?, ?, ?, ?, ?)",
  params: [null, 2n ** 63n - 1n, -0, "é\0🎈", new Uint8Array([0, 255]), Number.NEGATIVE_INFINITY],
  flags: 5,
  stamp: { wallMs: 1_700_000_000_123, seed: 2 ** 53 - 1, lastInsertRowid: -(2n ** 63n) },
  told: "1 1 7",
};
const outcome: StatementOutcome = {
  columns: ["a", "b"],
  columnTypes: ["INTEGER", null],
  rows: encodeVector([1n, "x"]),
  rowCount: 1,
  changes: 3,
  totalChanges: 4,
  lastInsertRowid: 9n,
};
const transaction = transactionId("n1-1");
const commands: Command[] = [
  { kind: "execute", key, wallMs: 5, statement },
  { kind: "execute", key, wallMs: 5, statement: { ...statement, params: [], told: undefined } },
  { kind: "transaction", key, wallMs: 5, transaction, statements: [statement, statement] },
  {
    kind: "rows",
    key,
    wallMs: 5,
    transaction,
    changes: [
      { table: "t", key: [1n], row: [1n, "a"] },
      { table: "t", key: [2n], row: undefined },
      { table: "u", key: ["k", null], row: [] },
      { table: "t", key: [3n], row: [-0] },
    ],
    outcomes: [outcome],
  },
  { kind: "tombstone", key, wallMs: 5, transaction },
  { kind: "pragma", key, wallMs: 5, name: "application_id", value: -7 },
];

const written: StatementOutcome = {
  columns: [],
  columnTypes: [],
  rows: new Uint8Array(0),
  rowCount: 0,
  changes: 70_000,
  totalChanges: 140_000,
  lastInsertRowid: 12n,
};

describe("the command codec", () => {
  it("takes parameters as they came", () => {
    const [command] = commands as [Extract<Command, { kind: "execute" }>];
    const vector = encodeVector(command.statement.params);
    const asTheyCame = { ...command, statement: { ...command.statement, vector } };
    expect(encodeCommands([asTheyCame])).toEqual(encodeCommands([command]));
  });

  it("carries whatever number a key may be made of", () => {
    const odd = {
      client: "c",
      sequence: 1e60,
      lowestUnanswered: 2 ** 53 - 1,
      issuedMs: Number.POSITIVE_INFINITY,
    };
    const {
      commands: [command],
    } = decodeCommands(encodeCommands([{ kind: "tombstone", key: odd, wallMs: 5, transaction }]));
    const most = Number.MAX_SAFE_INTEGER;
    expect(command?.key).toEqual({ client: "c", sequence: most, lowestUnanswered: most, issuedMs: most });
  });

  it("carries every command exactly", () => {
    const decoded = decodeCommands(encodeCommands(commands)).commands;
    expect(decoded).toEqual(commands);
    const first = decoded[0] as Extract<Command, { kind: "execute" }>;
    expect(Object.is(first.statement.params[2], -0)).toBe(true);
  });

  it("carries every result exactly", () => {
    const results: CommandResult[] = [
      { ok: true, outcomes: [outcome, { ...outcome, lastInsertRowid: 2n ** 62n }], repeated: false },
      { ok: true, outcomes: [written], repeated: false },
      { ok: true, outcomes: [{ ...written, changes: 1, lastInsertRowid: -(2n ** 63n) }], repeated: true },
      { ok: true, outcomes: [], repeated: true },
      { ok: true, outcomes: [], repeated: false, decision: "aborted" },
      { ok: false, error: ["user", "SQLITE_CONSTRAINT", "no", null], statement: 2 },
    ];
    expect(decodeResults(encodeResults(results))).toEqual(results);
    for (const result of results) expect(unpackResult(packResult(result))).toEqual(result);
  });

  it("is the same bytes each time", () => {
    expect(encodeCommands(commands)).toEqual(
      encodeCommands(decodeCommands(encodeCommands(commands)).commands),
    );
  });

  it("refuses another format", () => {
    const bytes = Uint8Array.from(encodeCommands([]));
    bytes[0] = 99;
    expect(() => decodeCommands(bytes)).toThrow(/format 99/);
  });
});

describe("toldDigest", () => {
  it("differs when anything a client sees differs", () => {
    const told = new Set([
      toldDigest(outcome),
      toldDigest({ ...outcome, changes: 4 }),
      toldDigest({ ...outcome, totalChanges: 5 }),
      toldDigest({ ...outcome, lastInsertRowid: 8n }),
      toldDigest({ ...outcome, rows: encodeVector([1n, "y"]) }),
      toldDigest({ ...outcome, rows: new Uint8Array(0), rowCount: 0 }),
      toldDigest(["user", "SQLITE_ERROR", "a", null]),
      toldDigest(["user", "SQLITE_ERROR", "b", null]),
      toldDigest(["user", "SQLITE_CONSTRAINT", "a", null]),
    ]);
    expect(told.size).toBe(9);
    expect(toldDigest({ ...outcome })).toBe(toldDigest(outcome));
  });
});
