/** A transaction as its gateway runs it, on a replica and a process that do as the test says. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError, UserError } from "../../../src/base/errors.js";
import {
  FIRST_RANGE_GROUP,
  logIndex,
  type TransactionId,
  term,
  transactionId,
} from "../../../src/base/ids.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { DEFAULT_LIMITS, type Replica } from "../../../src/gateway/replica.js";
import { SessionSettings } from "../../../src/gateway/settings.js";
import { Transaction } from "../../../src/gateway/transaction.js";
import type { RowStream, Runner, RunOptions, StampedStatement } from "../../../src/machines/range/types.js";
import type { LocalRead } from "../../../src/range/types.js";
import type { Analysis } from "../../../src/sql/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const ID = transactionId("c-1@1");
const KEY = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1 };
const POINT = { index: logIndex(5), term: term(2), wallMs: 1 };
const STATEMENT = { sql: "SELECT * FROM v", params: [] };

let clock: ManualClock;
/** Of the schema that this node's replica has. */
let version: number;
/** Where this node's replica ends: at the end of all keys, until it is split. */
let end: string;
/** What the process has been asked to run. */
let ran: string[];
let runner: Runner;
let onPin: () => void;
let onRun: (options: RunOptions) => void;
/** What COMMIT was to validate. */
let validated: readonly LocalRead[];
let transaction: Transaction;
/** What is left in the process: the copy, or a scratch database. */
let opened: boolean;
/** What the leader was told to forget. */
let forgotten: TransactionId[];

function deadline(signal?: AbortSignal): Deadline {
  return new Deadline(clock, undefined, 1_000, { signal });
}

/** Each version of the schema has a table of its own below the view. */
function analysis(): Analysis {
  const reads = [{ table: `of_${version}`, low: undefined, high: undefined }];
  return {
    ...STATEMENT,
    class: { kind: "select" },
    readonly: true,
    cost: "unknown",
    schemaVersion: version,
    systemTables: [],
    footprint: () => ({ reads, writes: [], checks: [] }),
  } as unknown as Analysis;
}

beforeEach(() => {
  clock = new ManualClock();
  version = 1;
  end = "";
  ran = [];
  validated = [];
  forgotten = [];
  onPin = () => undefined;
  onRun = () => undefined;
  const stream = {
    columns: [],
    columnTypes: [],
    next: async () => undefined,
    summary: () => undefined,
    close: async () => undefined,
  } as unknown as RowStream;
  const process = {
    dead: false,
    kill: () => {
      process.dead = true;
    },
    pin: async () => {
      onPin();
      return logIndex(7);
    },
    unpin: async () => undefined,
    openCopy: async () => {
      opened = true;
    },
    capture: async () => undefined,
    closeCopy: async () => {
      if (!opened) throw new Error("there is no copy");
      opened = false;
    },
    run: async ({ sql }: StampedStatement, options: RunOptions) => {
      ran.push(sql);
      onRun(options);
      return stream;
    },
  };
  runner = process as unknown as Runner;
  const leader = {
    begin: async () => POINT,
    readPoint: async () => POINT,
    run: () => new Promise(() => undefined),
    rollback: async (id: TransactionId) => void forgotten.push(id),
    commitCopy: () => Promise.reject(new AmbiguousError("the leader was lost", undefined)),
    commit: async (_: unknown, __: unknown, reads: readonly LocalRead[]) => {
      validated = reads;
      return { ok: true, outcomes: [], repeated: false };
    },
  };
  const schema = {
    get version() {
      return version;
    },
    snapshot: { statements: [], tables: [] },
    analyse: () => analysis(),
  };
  const parts = { clock, random: new SeededRandom(1), limits: DEFAULT_LIMITS };
  const whole = {
    ...parts,
    range: FIRST_RANGE_GROUP,
    runners: { acquire: async () => runner, release: () => undefined },
    handle: { waitApplied: async () => undefined },
    store: {
      path: "range.db",
      appliedIndex: () => logIndex(9),
      state: () => ({ descriptor: { start: "", end } }),
      size: () => ({ databaseBytes: 1 << 30, walBytes: 0 }),
      copy: async () => ({ path: "copy.db", appliedIndex: logIndex(9), release: async () => undefined }),
    },
    leader,
    schema,
  } as unknown as Replica;
  const db = {
    ...parts,
    whole,
    first: { range: FIRST_RANGE_GROUP },
    counts: { single: 0, pushdown: 0, gather: 0 },
    space: { maxResultBytes: 1024 },
    ranges: { schema: () => schema },
    client: () => leader,
    outcome: async () => "aborted",
    persist: (of: Deadline, attempt: (tries: number) => Promise<unknown>) => of.race(attempt(0)),
  } as unknown as GatewayDatabase;
  transaction = new Transaction(db, {
    id: ID,
    mode: "deferred",
    age: 0,
    reserve: undefined,
    needsCopy: false,
    borrow: async () => ({ runner, giveBack: () => undefined }),
  });
});

describe("a read on the gateway's replica", () => {
  const read = () => transaction.run(STATEMENT, analysis(), new SessionSettings(), deadline(), []);
  const tables = () => validated.map(({ spans }) => spans.map(({ table }) => table));

  it("has read what the schema says that it ran on", async () => {
    await read();
    await transaction.commit(KEY, deadline());
    expect(tables()).toEqual([["", "of_1"]]);
  });

  it("runs again where the schema has become another one before it was pinned", async () => {
    onPin = () => {
      version = 2;
    };
    await read();
    await transaction.commit(KEY, deadline());
    expect(ran).toHaveLength(2);
    expect(tables()).toEqual([["", "of_2"]]);
  });

  it.each(["rows", "a failure"])("is not told %s of half a database", async (what) => {
    let tries = 0;
    onPin = () => {
      const split = ++tries < 3;
      end = split ? "k" : "";
      onRun = () => {
        if (split && what === "a failure") throw new UserError("SQLITE_ERROR", "integer overflow");
      };
    };
    await read();
    await transaction.commit(KEY, deadline());
    expect(tries).toBe(3);
    expect(tables()).toEqual([["", "of_1"]]);
  });

  it("has no private copy of half a database", async () => {
    end = "k";
    await expect(transaction.scratch(deadline())).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  });
});

describe("a savepoint in a workspace", () => {
  beforeEach(async () => {
    await transaction.scratch(deadline());
    await transaction.savepoint("a", deadline());
    ran = [];
  });

  it("is not set, released or gone back to by who was cancelled before", async () => {
    const cancelled = deadline(AbortSignal.abort());
    const before = [...transaction.history.events];
    await expect(transaction.savepoint("b", cancelled)).rejects.toThrow("interrupted");
    await expect(transaction.release("a", cancelled)).rejects.toThrow("interrupted");
    await expect(transaction.rollbackTo("a", cancelled)).rejects.toThrow("interrupted");
    expect(transaction.history.events).toEqual(before);
    expect(ran).toEqual([]);
  });

  it("is as the history says where it is not known whether the workspace has it", async () => {
    onRun = () => {
      throw new Error("stopped");
    };
    await expect(transaction.release("a", deadline())).rejects.toThrow("stopped");
    expect(transaction.history.hasSavepoints()).toBe(false);
    // Nothing more is asked of the workspace that may still have it.
    expect(runner.dead).toBe(true);
  });
});

it("leaves the process with the session's TEMP objects alone where COMMIT's answer was lost", async () => {
  await transaction.scratch(deadline());
  await expect(transaction.commit(KEY, deadline())).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  await transaction.rollback();
  expect(runner.dead).toBe(false);
});

it("is forgotten by a leader whose answer to its first statement nobody waited for", async () => {
  const write = { ...analysis(), class: { kind: "write" }, readonly: false, cost: "bounded" } as Analysis;
  const short = new Deadline(clock, 100, 1_000, { signal: undefined });
  const run = transaction.run(STATEMENT, write, new SessionSettings(), short, []);
  const failed = expect(run).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
  await clock.advance(200);
  await failed;
  await transaction.commit(KEY, deadline());
  expect(forgotten).toEqual([ID]);
});
