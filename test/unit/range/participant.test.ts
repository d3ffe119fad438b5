import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import { toldDigest } from "../../../src/machines/range/told.js";
import type { Command, RowChange, StatementOutcome } from "../../../src/machines/range/types.js";
import {
  applyCommands,
  applySql,
  at,
  entry,
  execute,
  freshKey,
  newStore,
  openStore,
  prepare,
  query,
  resolve,
  span,
  statement,
  transaction,
  WALL_MS,
} from "./helpers.js";

const YES = { ok: true, vote: "yes", outcomes: [] };
const RETRY = { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null] };
const row = (id: bigint, a: string): RowChange => ({ table: "t", key: [id], row: [id, a] });
const rows = (...changes: RowChange[]) => ({ kind: "rows" as const, changes });
const NOTHING = { kind: "nothing" as const };

function bank(): StoreCore {
  const store = openStore();
  applySql(
    store,
    "create table t(id integer primary key, a unique)",
    "insert into t values (1, 'x'), (2, 'y')",
  );
  return store;
}

const contents = (store: StoreCore) => query(store, "select id, a from t order by id");

describe("prepare", () => {
  it("tries and undoes what resolve applies", () => {
    const store = bank();
    const body = rows({ table: "t", key: [1n], row: undefined }, row(2n, "x"), row(3n, "z"));
    expect(applyCommands(store, prepare(store, "p", body, { writes: [span("t", 1n, 3n)] }))).toMatchObject([
      YES,
    ]);
    expect(contents(store)).toEqual([
      [1n, "x"],
      [2n, "y"],
    ]);
    expect(store.prepared()).toMatchObject([{ transaction: "p", writes: [span("t", 1n, 3n)], body }]);
    expect(store.outcome(transactionId("p"))).toBeUndefined();
    expect(applyCommands(store, resolve("p", "committed"))).toMatchObject([
      { ok: true, decision: "committed" },
    ]);
    expect(contents(store)).toEqual([
      [2n, "x"],
      [3n, "z"],
    ]);
    expect(store.prepared()).toEqual([]);
    expect(store.outcome(transactionId("p"))).toBe("committed");
    // Idempotent, both of them.
    expect(applyCommands(store, resolve("p", "committed"), prepare(store, "p", body))).toMatchObject([
      { ok: true, decision: "committed" },
      { ok: true, repeated: true, decision: "committed" },
    ]);
    expect(contents(store).length).toBe(2);
  });

  it("votes again what it voted, and drops what is aborted", () => {
    const store = bank();
    const command = prepare(store, "p", rows(row(9n, "n")));
    expect(applyCommands(store, command, command)).toMatchObject([
      { ...YES, repeated: false },
      { ...YES, repeated: true },
    ]);
    expect(applyCommands(store, resolve("p", "aborted"), resolve("p", "aborted"))).toMatchObject([
      { ok: true, decision: "aborted" },
      { ok: true, decision: "aborted" },
    ]);
    expect(applyCommands(store, command)).toMatchObject([RETRY]);
    expect(contents(store).length).toBe(2);
    expect(store.outcome(transactionId("p"))).toBe("aborted");
  });

  it("tries texts, and does at the commit what they did", () => {
    const store = bank();
    const told = (sql: string, outcome: Partial<StatementOutcome>) =>
      statement(sql, [], { told: toldDigest({ ...NO_OUTCOME, ...outcome }) });
    const texts = [
      told("update t set a = 'z' where id = 2", { changes: 1, totalChanges: 1 }),
      told("insert into t values (3, 'y')", { changes: 1, totalChanges: 1, lastInsertRowid: 3n }),
    ];
    const body = { kind: "statements" as const, statements: texts };
    // With others in one entry, and so in one batch.
    expect(
      applyCommands(
        store,
        execute("insert into t values (8, 'h')"),
        prepare(store, "p", body),
        execute("insert into t values (9, 'i')"),
      ),
    ).toMatchObject([{ ok: true }, YES, { ok: true }]);
    expect(contents(store).length).toBe(4);
    expect(store.prepared()).toMatchObject([{ transaction: "p", body }]);
    expect(
      applyCommands(store, execute("delete from t where id = 9"), resolve("p", "committed")),
    ).toMatchObject([{ ok: true }, { ok: true, decision: "committed" }]);
    expect(contents(store)).toEqual([
      [1n, "x"],
      [2n, "z"],
      [3n, "y"],
      [8n, "h"],
    ]);
  });

  it("votes no on texts that do not come out as told, or whose constraints wait for COMMIT", () => {
    const store = bank();
    const text = statement("update t set a = 'z' where id = 7", [], {
      told: toldDigest({ ...NO_OUTCOME, changes: 1, totalChanges: 1 }),
    });
    const body = { kind: "statements" as const, statements: [text] };
    expect(applyCommands(store, prepare(store, "p", body))).toMatchObject([RETRY]);
    expect(store.outcome(transactionId("p"))).toBe("aborted");
    const failing = [statement("insert into t values (1, 'q')")];
    expect(
      applyCommands(store, prepare(store, "q", { kind: "statements", statements: failing })),
    ).toMatchObject([
      { ok: false, error: ["user", "SQLITE_CONSTRAINT_PRIMARYKEY", expect.anything(), null] },
    ]);
    applySql(store, "create table c(id integer primary key, p references t deferrable initially deferred)");
    const orphan = [statement("insert into c values (1, 99)")];
    expect(
      applyCommands(store, prepare(store, "r", { kind: "statements", statements: orphan })),
    ).toMatchObject([RETRY]);
    expect(store.prepared()).toEqual([]);
    expect(contents(store).length).toBe(2);
  });

  it("checks foreign keys of texts when it tries them", () => {
    const store = bank();
    applySql(store, "create table c(id integer primary key, p references t)");
    const insert = (parent: number) => [statement(`insert into c values (1, ${parent})`)];
    expect(
      applyCommands(
        store,
        prepare(store, "p", rows(row(5n, "e"))),
        prepare(store, "q", { kind: "statements", statements: insert(99) }),
        prepare(store, "r", { kind: "statements", statements: insert(1) }),
        resolve("r", "committed"),
      ),
    ).toMatchObject([
      YES,
      { ok: false, error: ["user", "SQLITE_CONSTRAINT_FOREIGNKEY", expect.anything(), null] },
      YES,
      { ok: true },
    ]);
    expect(query(store, "select p from c")).toEqual([[1n]]);
  });

  it("votes no on what cannot be applied, and remembers that", () => {
    const store = bank();
    const command = prepare(store, "p", rows(row(3n, "x")));
    expect(applyCommands(store, command)).toMatchObject([
      { ok: false, error: ["user", "SQLITE_CONSTRAINT_UNIQUE", "UNIQUE constraint failed: t.a", null] },
    ]);
    expect(store.outcome(transactionId("p"))).toBe("aborted");
    expect(store.prepared()).toEqual([]);
    expect(applyCommands(store, command)).toMatchObject([RETRY]);
    expect(applyCommands(store, resolve("p", "aborted"))).toMatchObject([{ ok: true }]);
    expect(contents(store).length).toBe(2);
    expect(
      applyCommands(store, prepare(store, "q", rows({ table: "nowhere", key: [1n], row: [1n] }))),
    ).toMatchObject([{ ok: false, error: ["user", "SQLITE_ERROR", "no such table: nowhere", null] }]);
  });

  it("keeps conflict clauses out of final rows", () => {
    const store = openStore();
    applySql(
      store,
      "create table t(id integer primary key, a unique on conflict rollback, b unique on conflict replace)",
      "insert into t values (1, 'x', 'X')",
    );
    const results = applyCommands(
      store,
      execute("insert into t values (2, 'y', 'Y')"),
      prepare(store, "p", rows({ table: "t", key: [3n], row: [3n, "x", "Z"] })),
      prepare(store, "q", rows({ table: "t", key: [3n], row: [3n, "z", "X"] })),
      execute("insert into t values (4, 'z', 'Z')"),
    );
    expect(results.map(({ ok }) => ok)).toEqual([true, false, false, true]);
    expect(query(store, "select id from t")).toEqual([[1n], [2n], [4n]]);
  });

  it("is refused after a decision that came first", () => {
    const store = bank();
    applyCommands(store, resolve("p", "aborted"));
    expect(applyCommands(store, prepare(store, "p", NOTHING))).toMatchObject([RETRY]);
    applyCommands(store, {
      kind: "tombstone",
      key: freshKey(),
      wallMs: WALL_MS,
      transaction: transactionId("q"),
    });
    expect(applyCommands(store, prepare(store, "q", NOTHING))).toMatchObject([RETRY]);
  });

  it("is refused beside a prepared transaction in its way, and on another schema", () => {
    const store = bank();
    const one = { reads: [span("t", 1n, 1n)], writes: [span("t", 2n, 2n)] };
    applyCommands(store, prepare(store, "p", NOTHING, one));
    const votes = applyCommands(
      store,
      prepare(store, "a", NOTHING, { reads: [span("t", 2n, 5n)] }),
      prepare(store, "b", NOTHING, { writes: [span("t", 2n, 2n)] }),
      prepare(store, "c", NOTHING, { writes: [span("t", 1n, 1n)] }),
      prepare(store, "d", NOTHING, { reads: [span("t", 1n, 1n)], writes: [span("t", 3n, 3n)] }),
      prepare(store, "e", NOTHING, { writes: [span("*")] }),
      prepare(store, "f", NOTHING, { schemaVersion: store.schemaVersion + 1 }),
    );
    expect(votes.map(({ ok }) => ok)).toEqual([false, false, false, true, false, false]);
    expect(store.prepared().map(({ transaction }) => transaction)).toEqual(["p", "d"]);
    // Nor does the schema change by itself meanwhile.
    expect(applyCommands(store, execute("create table u(a)"))).toMatchObject([RETRY]);
  });

  it("does not fire triggers, nor lose them", async () => {
    const store = bank();
    applySql(
      store,
      "create table l(a)",
      "create trigger x after insert on t begin insert into l values (new.a); end",
    );
    const before = await store.digest();
    const command = prepare(store, "p", rows(row(3n, "z")));
    applyCommands(store, command, resolve("p", "aborted"));
    applySql(store, "insert into t values (5, 'five')");
    expect(query(store, "select a from l")).toEqual([["five"]]);
    applyCommands(store, prepare(store, "q", rows(row(3n, "z"))), resolve("q", "committed"));
    expect(query(store, "select a from l")).toEqual([["five"]]);
    applySql(store, "insert into t values (6, 'six')");
    expect(query(store, "select a from l")).toEqual([["five"], ["six"]]);
    expect((await store.digest()).digest).not.toBe(before.digest);
  });
});

describe("a schema change", () => {
  it("is tried, and made at the decision with its rows, and counts as on any range", () => {
    const [one, other] = [bank(), bank()];
    const version = one.schemaVersion;
    const body = {
      kind: "schema" as const,
      statements: [statement("create table u(a)"), statement("alter table t rename to v")],
      changes: [{ table: "u", key: [7n], row: ["u"] }],
    };
    for (const store of [one, other]) {
      const index = store.appliedIndex + 1;
      const vote = applyCommands(store, prepare(store, "p", body, { writes: [span("*")] }));
      expect(vote).toMatchObject([YES]);
      expect(store.schemaVersion).toBe(version);
      expect(store.schema().tables).toMatchObject([{ name: "t", id: 1 }]);
      store.apply([entry(index + 1, [resolve("p", "committed")])], at(index + 1));
      expect(store.schemaVersion).toBe(version + 2);
      expect(store.schema().tables).toMatchObject([
        { name: "u", id: 2 },
        { name: "v", id: 1 },
      ]);
      expect(query(store, "select rowid, a from u")).toEqual([[7n, "u"]]);
    }
  });

  it("that fails anywhere is voted down and leaves nothing", async () => {
    const store = bank();
    const before = store.schema();
    const failing = prepare(store, "p", {
      kind: "schema",
      statements: [statement("create table u(a)"), statement("create table t(a)")],
      changes: [],
    });
    expect(applyCommands(store, failing)).toMatchObject([{ ok: false, statement: 1 }]);
    const destroying = prepare(store, "q", {
      kind: "schema",
      statements: [statement("create table u(a)"), statement("insert or rollback into t values (1, 'n')")],
      changes: [],
    });
    expect(applyCommands(store, destroying)).toMatchObject([{ ok: false }]);
    expect(store.outcome(transactionId("q"))).toBe("aborted");
    expect({ ...store.schema(), appliedIndex: 0 }).toEqual({ ...before, appliedIndex: 0 });
    applySql(store, "create table u(a)");
    expect(store.schema().tables).toMatchObject([
      { name: "t", id: 1 },
      { name: "u", id: 2 },
    ]);
  });
});

describe("exactly once", () => {
  it("a prepare answers what its key was answered before", () => {
    const store = bank();
    const write = execute("insert into t values (3, 'z') returning id");
    const [first] = applyCommands(store, write);
    expect(first).toMatchObject({ ok: true, repeated: false });
    const [vote] = applyCommands(store, prepare(store, "p", rows(row(4n, "w")), {}, write.key));
    expect(vote).toEqual({ ...first, repeated: true });
    expect(store.prepared()).toEqual([]);
    const failing = execute("insert into t values (3, 'z')");
    const [failed] = applyCommands(store, failing);
    expect(applyCommands(store, prepare(store, "q", NOTHING, {}, failing.key))).toEqual([failed]);
  });

  it("a write whose key is being decided is neither executed nor given up", () => {
    const store = bank();
    const key = { client: "writer", sequence: 5, lowestUnanswered: 5, issuedMs: WALL_MS };
    const write: Command = {
      ...(execute("insert into t values (3, 'z')") as Command & { kind: "execute" }),
      key,
    };
    applyCommands(store, prepare(store, "p", rows(row(3n, "z")), {}, key));
    const doubt = { ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), "p"] };
    const named = transactionId(`${key.client}:${key.sequence}`);
    expect(
      applyCommands(
        store,
        write,
        prepare(store, "other", NOTHING, {}, key),
        { kind: "tombstone", key, wallMs: WALL_MS, transaction: named },
        { kind: "tombstone", key: freshKey(), wallMs: WALL_MS, transaction: transactionId("p") },
        {
          ...(transaction("p", [statement("insert into t values (3, 'z')")]) as Command & {
            kind: "transaction";
          }),
        },
      ),
    ).toMatchObject([doubt, doubt, doubt, { ok: true, decision: "unknown" }, doubt]);
    expect(contents(store).length).toBe(2);
    applyCommands(store, resolve("p", "committed"));
    expect(applyCommands(store, write, prepare(store, "late", NOTHING, {}, key))).toMatchObject([
      { ok: true, repeated: true, decision: "committed", outcomes: [] },
      { ok: true, repeated: true, decision: "committed", outcomes: [] },
    ]);
    expect(contents(store).length).toBe(3);
  });

  it("a write whose transaction was aborted may come again", () => {
    const store = bank();
    const key = freshKey();
    applyCommands(store, prepare(store, "p", rows(row(3n, "z")), {}, key), resolve("p", "aborted"));
    expect(applyCommands(store, prepare(store, "p2", rows(row(3n, "z")), {}, key))).toMatchObject([YES]);
    applyCommands(store, resolve("p2", "aborted"));
    const write: Command = {
      ...(execute("insert into t values (3, 'z')") as Command & { kind: "execute" }),
      key,
    };
    expect(applyCommands(store, write)).toMatchObject([{ ok: true, repeated: false }]);
    expect(contents(store).length).toBe(3);
  });
});

describe("a decision that contradicts what the range did", () => {
  const committed = (id: string) => transaction(id, [statement("insert into t values (5, 'alone')")]);

  it("is of no effect where an autocommit write was committed here alone, and registered by another gateway", () => {
    const store = bank();
    const id = "c1:7@loyw40qp";
    applyCommands(store, committed(id));
    expect(applyCommands(store, resolve(id, "aborted"))).toMatchObject([{ ok: true, decision: "aborted" }]);
    expect(contents(store)).toHaveLength(3);
    expect(store.outcome(transactionId(id))).toBe("committed");
  });

  it("stops the node in all other cases", () => {
    const store = bank();
    applyCommands(store, committed("client-7@loyw40qp"));
    expect(() => applyCommands(store, resolve("client-7@loyw40qp", "aborted"))).toThrow(
      /aborted by its coordinator/,
    );
    const other = bank();
    const id = "c1:7@loyw40qp";
    applyCommands(other, resolve(id, "aborted"));
    expect(() => applyCommands(other, resolve(id, "committed"))).toThrow(/committed by its coordinator/);
  });
});

describe("prepared transactions", () => {
  it("survive restarts and snapshots, and are part of the digest", async () => {
    const store = bank();
    const twin = bank();
    const body = rows(row(3n, "z"));
    const reads = [span("t", 1n, 1n << 63n), span("")];
    applyCommands(store, prepare(store, "p", body, { reads, writes: [span("t", 3n, 3n)] }));
    applyCommands(twin, execute("select 1"));
    expect((await store.digest()).digest).not.toBe((await twin.digest()).digest);
    const copy = await store.copy();
    const restored = openStore();
    await restored.restore(copy.path);
    await store.close();
    const again = newStore(store.path);
    again.open();
    for (const one of [again, restored]) {
      expect(one.prepared()).toMatchObject([{ transaction: "p", reads, writes: [span("t", 3n, 3n)], body }]);
      applyCommands(one, resolve("p", "committed"));
      expect(contents(one).length).toBe(3);
    }
    expect(await again.digest()).toEqual(await restored.digest());
  });

  it("stop the node when what was voted for cannot be applied", () => {
    const store = bank();
    applyCommands(store, prepare(store, "p", rows(row(3n, "z")), { writes: [span("t", 3n, 3n)] }));
    // Nobody lets this in while the transaction holds the span.
    applySql(store, "insert into t values (4, 'z')");
    expect(() => applyCommands(store, resolve("p", "committed"))).toThrow(
      expect.objectContaining({ code: "OSTRAKA_INVARIANT" }),
    );
    expect(() => applyCommands(store, resolve("p", "aborted"))).not.toThrow();
    expect(() => applyCommands(store, resolve("p", "committed"))).toThrow(
      expect.objectContaining({ code: "OSTRAKA_INVARIANT" }),
    );
  });

  it("end up the same however entries are batched", async () => {
    const setup = [
      execute("create table t(id integer primary key, a unique)"),
      execute("create trigger x after insert on t begin select 1; end"),
      execute("insert into t values (1, 'x')"),
    ];
    const probe = openStore();
    applyCommands(probe, ...setup);
    const log = [
      setup,
      [prepare(probe, "a", rows(row(2n, "y"))), execute("insert into t values (5, 'five')")],
      [
        prepare(probe, "b", rows(row(1n, "five"))),
        resolve("a", "committed"),
        prepare(probe, "c", rows(row(6n, "s"))),
      ],
      [execute("insert or rollback into t values (5, 'n')"), resolve("c", "committed")],
      [
        prepare(probe, "d", {
          kind: "schema",
          statements: [statement("create table u(a)")],
          changes: [{ table: "u", key: [1n], row: ["u"] }],
        }),
      ],
      [
        execute("insert into t values (8, 'e')"),
        resolve("d", "committed"),
        execute("insert into u values (1)"),
      ],
      [resolve("b", "aborted"), resolve("never", "aborted")],
    ].map((commands, i) => entry(i + 1, commands));
    const whole = openStore();
    const answers = whole.apply(log, at(log.length)).results.map(decodeResults);
    const single = openStore();
    const one = log.map((each) => decodeResults(single.apply([each], each.index).results[0]!));
    expect(one).toEqual(answers);
    expect(answers.flat().map(({ ok }) => ok)).toEqual([
      ...[true, true, true],
      ...[true, true],
      ...[false, true, true],
      ...[false, true],
      true,
      ...[true, true, true],
      ...[true, true],
    ]);
    expect(await single.digest()).toEqual(await whole.digest());
  });
});

describe("the generation of an entry", () => {
  it("refuses commands that were admitted under another, and remembers nothing of them", () => {
    const store = bank();
    const write = execute("insert into t values (3, 'z')");
    const stale = store.apply([entry(3, [write, write], 7)], at(3));
    expect(decodeResults(stale.results[0]!)).toMatchObject([
      { ok: false, error: ["route", "OSTRAKA_ROUTE", expect.anything(), null] },
      { ok: false, error: ["route", "OSTRAKA_ROUTE", expect.anything(), null] },
    ]);
    const fresh = store.apply([entry(4, [write], 1)], at(4));
    expect(decodeResults(fresh.results[0]!)).toMatchObject([{ ok: true, repeated: false }]);
    expect(store.appliedIndex).toBe(4);
  });
});
