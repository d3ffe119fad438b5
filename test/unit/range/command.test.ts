import { describe, expect, it } from "vitest";
import { groupId, nodeId, transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { encodeVector } from "../../../src/base/values.js";
import {
  ANY_GENERATION,
  decodeCommands,
  decodeResults,
  encodeCommands,
  encodeResults,
  packResult,
  unpackResult,
} from "../../../src/machines/range/command.js";
import { encodeStatement } from "../../../src/machines/range/command-body.js";
import { encodeChanges } from "../../../src/machines/range/row-changes.js";
import { toldDigest } from "../../../src/machines/range/told.js";
import type {
  Command,
  CommandResult,
  RowChange,
  StampedStatement,
  StatementOutcome,
} from "../../../src/machines/range/types.js";
import { END_OF_TABLE } from "../../../src/sql/types.js";

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
const changes = [
  { table: "t", key: [1n], row: [1n, "a"] },
  { table: "t", key: [2n], row: undefined },
];
const prepared = {
  transaction,
  coordinator: groupId(2),
  preparedMs: 7,
  reads: [{ table: "t", low: 1n, high: END_OF_TABLE }],
  writes: [{ table: "*", low: undefined, high: undefined }],
  schemaVersion: 12,
};
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
  { kind: "execute", key, wallMs: 5, statement: { ...statement, flags: 31, appendsTo: ["t", "u"] } },
  { kind: "transaction", key, wallMs: 5, transaction, statements: [{ ...statement, appendsTo: ["t"] }] },
  { kind: "prepare", key, wallMs: 5, prepared: { ...prepared, body: { kind: "nothing" } } },
  { kind: "prepare", key, wallMs: 5, prepared: { ...prepared, body: { kind: "rows", changes } } },
  {
    kind: "prepare",
    key,
    wallMs: 5,
    prepared: { ...prepared, body: { kind: "schema", statements: [statement], changes } },
  },
  {
    kind: "prepare",
    key,
    wallMs: 5,
    prepared: {
      ...prepared,
      body: { kind: "statements", statements: [statement, { ...statement, appendsTo: ["t"] }] },
    },
  },
  { kind: "resolve", key, wallMs: 5, transaction, decision: "committed" },
  { kind: "resolve", key, wallMs: 5, transaction, decision: "aborted" },
  {
    kind: "split",
    key,
    wallMs: 5,
    generation: 3,
    at: encodeKey(7, ["é\0", new Uint8Array([0, 255])]),
    child: groupId(8),
    conf: {
      voters: [nodeId(1)],
      votersOutgoing: [],
      learners: [nodeId(2)],
      learnersNext: [],
      autoLeave: true,
    },
  },
  { kind: "trim", key, wallMs: 5, maxRows: 100 },
  { kind: "freeze", key, wallMs: 5, generation: 4, into: groupId(3) },
  {
    kind: "absorb",
    key,
    wallMs: 5,
    generation: 4,
    right: {
      range: groupId(8),
      start: encodeKey(7, [1n]),
      end: "",
      generation: 9,
      replicas: [nodeId(1), nodeId(3)],
    },
  },
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

  it("takes statements and row changes that are encoded already", () => {
    for (const count of [1, 15, 16, 70_000]) {
      const statements = new Array(count).fill(statement);
      const command: Command = { kind: "transaction", key, wallMs: 5, transaction, statements };
      const encoded = statements.map(encodeStatement);
      const [decoded] = decodeCommands(encodeCommands([{ ...command, encoded }])).commands;
      expect(decoded).toEqual(command);
    }
    const rows = commands.find(({ kind }) => kind === "rows") as Extract<Command, { kind: "rows" }>;
    const changed = { ...rows, changes: encodeChanges(rows.changes as readonly RowChange[]) };
    expect(decodeCommands(encodeCommands([changed])).commands).toEqual([rows]);
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
      { ok: true, outcomes: [], repeated: true, vote: "yes" },
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

  it("carries the generation that commands were admitted under", () => {
    expect(decodeCommands(encodeCommands(commands, 2 ** 40)).generation).toBe(2 ** 40);
    expect(decodeCommands(encodeCommands(commands)).generation).toBe(ANY_GENERATION);
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
