/** Every call of RangeService arrives at the range of its group as it left, and so does its answer. */

import { beforeEach, describe, expect, it } from "vitest";
import { RouteError } from "../../../src/base/errors.js";
import { groupId, logIndex, nodeId, term, transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { remoteRange, serveRanges } from "../../../src/gateway/range-rpc.js";
import { encodeChanges } from "../../../src/machines/range/row-changes.js";
import type { RowChange, StampedStatement, StatementOutcome } from "../../../src/machines/range/types.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import type { PrepareRequest, RangeService } from "../../../src/range/types.js";
import type { PeerMethod } from "../../../src/rpc/peer-calls.js";
import { END_OF_TABLE, type Span } from "../../../src/sql/types.js";

const NODE = nodeId(2);
const id = transactionId("gateway:1@abc");
const key = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1_700_000_000_000 };
const spans: readonly Span[] = [
  { table: "t", low: -5n, high: END_OF_TABLE },
  { table: "*", low: undefined, high: undefined },
];
const read = { index: logIndex(7), term: term(3), spans };
const stamped: StampedStatement = {
  sql: "INSERT INTO t VALUES (?, ?)",
  params: [1n, "x"],
  flags: 0,
  stamp: { wallMs: 1_700_000_000_000, seed: 12345, lastInsertRowid: 9n },
  told: "digest",
};
const statement = { sql: "SELECT ?", params: [null, 1n, 1.5, "x", Uint8Array.of(1, 2)] };
const outcome: StatementOutcome = {
  columns: ["a"],
  columnTypes: [null],
  rows: Uint8Array.of(1, 2, 3),
  rowCount: 1,
  changes: 0,
  totalChanges: 0,
  lastInsertRowid: 1n << 60n,
};
const changes: readonly RowChange[] = [
  { table: "t", key: [1n], row: [1n, "x", null, 1, Uint8Array.of(9)] },
  { table: "t", key: [2n], row: undefined },
];
const descriptor: RangeDescriptor = {
  range: groupId(9),
  start: encodeKey(1, [200n, "\u00e9\0"]),
  end: "",
  generation: 4,
  replicas: [nodeId(1), nodeId(2)],
};

let methods: Map<string, PeerMethod>;
let heard: unknown[];
let answer: unknown;

beforeEach(() => {
  methods = new Map();
  heard = [];
  serveRanges({ serve: (method, handler) => void methods.set(method, handler) }, (group) =>
    group === 9
      ? (new Proxy({} as RangeService, {
          get:
            (_, method) =>
            async (...args: unknown[]) => {
              heard.push([method, ...args]);
              return answer;
            },
        }) as RangeService)
      : undefined,
  );
});

const calls = {
  call: async (node: number, method: string, args: readonly unknown[]) => {
    expect(node).toBe(NODE);
    return methods.get(method)!(structuredClone(args), undefined as never);
  },
};
const range = remoteRange(calls, NODE, groupId(9));

const prepareRequest = (body: PrepareRequest["body"]): PrepareRequest => ({
  transaction: id,
  key,
  coordinator: groupId(2),
  generation: 4,
  reads: [read],
  writes: spans,
  schemaVersion: 3,
  body,
});

type Case = readonly [call: () => Promise<unknown>, heard: unknown[], answer: unknown];
const point = { index: logIndex(5), term: term(2), wallMs: 1_700_000_000_000, held: spans };
const result = { ok: true, outcomes: [outcome], repeated: false };
const refused = { ok: false, error: ["user", "SQLITE_CONSTRAINT", "no", null], statement: 0 };

const CASES: Readonly<Record<string, Case>> = {
  readPoint: [() => range.readPoint(), ["readPoint"], point],
  write: [
    () => range.write({ key, statement, flags: 3, lastInsertRowid: 4n }),
    ["write", { key, statement, flags: 3, lastInsertRowid: 4n }],
    refused,
  ],
  batch: [
    () => range.batch({ key, transaction: id, statements: [{ statement, flags: 0, lastInsertRowid: 0n }] }),
    ["batch", { key, transaction: id, statements: [{ statement, flags: 0, lastInsertRowid: 0n }] }],
    { ok: "move" },
  ],
  begin: [
    () => range.begin(id, { reserve: spans, age: 12 }),
    ["begin", id, { reserve: spans, age: 12 }],
    point,
  ],
  run: [
    () => range.run({ transaction: id, ordinal: 2, statement, flags: 1, lastInsertRowid: 3n }),
    ["run", { transaction: id, ordinal: 2, statement, flags: 1, lastInsertRowid: 3n }],
    { kind: "ran", outcome, stamped, rolledBack: false },
  ],
  recheck: [() => range.recheck(id, 3), ["recheck", id, 3], undefined],
  truncate: [() => range.truncate(id, 3), ["truncate", id, 3], undefined],
  commit: [() => range.commit(id, key, [read], 2), ["commit", id, key, [read], 2], result],
  commitCopy: [
    () =>
      range.commitCopy(
        {
          transaction: id,
          key,
          readAt: logIndex(4),
          readTerm: term(2),
          reads: spans,
          writes: spans,
          checks: spans,
          schemaVersion: 1,
          body: { kind: "rows", changes, outcomes: [outcome] },
        },
        [read],
      ),
    [
      "commitCopy",
      {
        transaction: id,
        key,
        readAt: 4,
        readTerm: 2,
        reads: spans,
        writes: spans,
        checks: spans,
        schemaVersion: 1,
        // They stay as they are on the way to the log.
        body: { kind: "rows", changes: new Uint8Array(encodeChanges(changes)), outcomes: [outcome] },
      },
      [read],
    ],
    result,
  ],
  rollback: [() => range.rollback(id), ["rollback", id], undefined],
  outcome: [() => range.outcome(id, 7), ["outcome", id, 7], "aborted"],
  answered: [() => range.answered(key, 7), ["answered", key, 7], result],
  setPragma: [() => range.setPragma("user_version", 7, key), ["setPragma", "user_version", 7, key], result],
  read: [
    () => range.read({ statement: stamped, maxBytes: 100 }),
    ["read", { statement: stamped, maxBytes: 100 }],
    { outcome, wallMs: 5 },
  ],
  awaitHolds: [() => range.awaitHolds(spans), ["awaitHolds", spans], undefined],
  "prepare nothing": [
    () => range.prepare(prepareRequest({ kind: "nothing" })),
    ["prepare", prepareRequest({ kind: "nothing" })],
    { vote: "yes" },
  ],
  "prepare what ran there": [
    () => range.prepare({ ...prepareRequest({ kind: "own" }), ran: 3 }),
    ["prepare", { ...prepareRequest({ kind: "own" }), ran: 3 }],
    { vote: "yes" },
  ],
  "prepare rows": [
    () => range.prepare(prepareRequest({ kind: "rows", changes })),
    ["prepare", prepareRequest({ kind: "rows", changes })],
    { vote: "no", error: ["retry", "OSTRAKA_RETRY", "why", null] },
  ],
  "prepare schema": [
    () => range.prepare(prepareRequest({ kind: "schema", statements: [stamped], changes })),
    ["prepare", prepareRequest({ kind: "schema", statements: [stamped], changes })],
    { vote: "known", result },
  ],
  resolve: [() => range.resolve(id, "committed"), ["resolve", id, "committed"], undefined],
  fence: [
    () => range.fence("f", spans, 4, 1000),
    ["fence", "f", spans, 4, 1000],
    { index: 5, term: 2, wallMs: 3, schemaVersion: 9 },
  ],
  release: [() => range.release("f", term(2)), ["release", "f", 2], true],
  split: [() => range.split(descriptor.start, groupId(12)), ["split", descriptor.start, 12], descriptor],
  "split in the middle": [() => range.split(undefined, groupId(12)), ["split", undefined, 12], descriptor],
  freeze: [() => range.freeze(groupId(3)), ["freeze", 3], descriptor],
  absorb: [
    () => range.absorb(descriptor, [nodeId(1), nodeId(2)]),
    ["absorb", descriptor, [1, 2]],
    descriptor,
  ],
  describe: [
    () => range.describe(),
    ["describe"],
    { descriptor, leader: 1, term: 2, applied: 3, rows: 4, bytes: 5, prepared: 6 },
  ],
  schema: [
    () => range.schema(),
    ["schema"],
    {
      version: 3,
      statements: ["CREATE TABLE t(a)"],
      appliedIndex: 4,
      tables: [{ name: "t", id: 1, shard: "rowid", keyColumns: ["rowid"], autoincrement: false }],
    },
  ],
};

describe("calls over the wire", () => {
  for (const [name, [call, expected, told]] of Object.entries(CASES))
    it(`${name}`, async () => {
      answer = told;
      const got = await call();
      expect(heard).toEqual([expected]);
      expect(plain(got)).toEqual(plain(told));
    });

  it("cover the whole service", () => {
    const tested = new Set(Object.keys(CASES).map((name) => name.split(" ")[0]));
    expect([...methods.keys()].sort()).toEqual([...tested].map((name) => `range.${name}`).sort());
  });

  it("to a range that is not there are refused with a RouteError", async () => {
    const elsewhere = remoteRange(calls, NODE, groupId(10));
    await expect(elsewhere.readPoint()).rejects.toBeInstanceOf(RouteError);
    expect(heard).toEqual([]);
  });
});

/** Bytes may come back as another kind of array of them. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}
