import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { transactionId } from "../../../src/base/ids.js";
import { encodeVector } from "../../../src/base/values.js";
import { Answers } from "../../../src/machines/range/answers.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import { MAX_TOLD_OUTCOMES, toldDigest } from "../../../src/machines/range/told.js";
import type { Command, RowChange, StatementOutcome } from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import {
  applyCommands,
  applySql,
  at,
  entry,
  execute,
  freshKey,
  newStore,
  openStore,
  query,
  statement,
  temporaryDirectory,
  transaction,
  WALL_MS,
} from "./helpers.js";

describe("applying", () => {
  it("answers what each statement did", () => {
    const store = openStore();
    const results = applyCommands(
      store,
      execute("create table t(id integer primary key, a)"),
      execute("insert into t(a) values (?), (?)", [1n, "x"]),
      execute("insert into t(a) values (3) returning id, a"),
      execute("update t set a = 0 where id > 1"),
    );
    expect(results).toMatchObject([
      { ok: true, outcomes: [{ changes: 0 }] },
      { ok: true, outcomes: [{ changes: 2, lastInsertRowid: 2n }] },
      {
        ok: true,
        outcomes: [{ changes: 1, rowCount: 1, columns: ["id", "a"], columnTypes: ["INTEGER", null] }],
      },
      { ok: true, outcomes: [{ changes: 2 }] },
    ]);
    expect(query(store, "select * from t")).toEqual([
      [1n, 1n],
      [2n, 0n],
      [3n, 0n],
    ]);
  });

  it("starts each statement with the stamp's last_insert_rowid()", () => {
    const store = openStore();
    applySql(store, "create table t(a)", "insert into t values (1)");
    const stamp = { wallMs: WALL_MS, seed: 1, lastInsertRowid: 55n };
    for (let i = 0; i < 3; i++) {
      const [one, two] = applyCommands(
        store,
        execute("update t set a = a + 1", [], { stamp }),
        execute("update t set a = a + 1", [], { stamp }),
      );
      expect([one, two]).toMatchObject([
        { outcomes: [{ lastInsertRowid: 55n }] },
        { outcomes: [{ lastInsertRowid: 55n }] },
      ]);
    }
    const [inserted] = applyCommands(
      store,
      execute("insert into t values (last_insert_rowid())", [], { stamp }),
    );
    expect(inserted).toMatchObject({ outcomes: [{ lastInsertRowid: 2n }] });
    expect(query(store, "select a from t")).toEqual([[7n], [55n]]);
  });

  it("lets a failing command fail alone", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)");
    const results = applyCommands(
      store,
      execute("insert into t values (1)"),
      execute("insert into t values (2), (1)"),
      execute("insert into nowhere values (1)"),
      execute("insert into t values (3)"),
    );
    expect(results.map((r) => r.ok)).toEqual([true, false, false, true]);
    expect(results[1]).toMatchObject({
      error: ["user", "SQLITE_CONSTRAINT_PRIMARYKEY", "UNIQUE constraint failed: t.a", null],
      statement: 0,
    });
    expect(query(store, "select a from t")).toEqual([[1n], [3n]]);
  });

  it("keeps what OR FAIL had done, as SQLite does", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)", "insert into t values (3)");
    const [result] = applyCommands(store, execute("insert or fail into t values (1), (3), (5)"));
    expect(result!.ok).toBe(false);
    expect(query(store, "select a from t order by a")).toEqual([[1n], [3n]]);
    const [told] = applyCommands(store, execute("insert or fail into t values (2), (3), (5) returning a"));
    expect(told!.ok).toBe(false);
    expect(query(store, "select a from t order by a")).toEqual([[1n], [2n], [3n]]);
  });

  it.each([
    ["OR ROLLBACK", [], "insert or rollback into t values (1)"],
    [
      "RAISE(ROLLBACK)",
      ["create trigger x before insert on t when new.a = 9 begin select raise(rollback, 'no nines'); end"],
      "insert into t values (9)",
    ],
    [
      "ON CONFLICT ROLLBACK",
      ["create table u(a unique on conflict rollback)", "insert into u values (1)"],
      "insert into u values (1)",
    ],
  ])("survives a batch destroyed by %s", (_name, setup, destroyer) => {
    const store = openStore();
    applySql(store, "create table t(a primary key)", "insert into t values (1)", ...setup);
    const { results } = store.apply(
      [
        entry(store.appliedIndex + 1, [
          execute("insert into t values (2)"),
          execute("insert into t values (3)"),
        ]),
        entry(store.appliedIndex + 2, [
          execute("insert into t values (4)"),
          execute(destroyer),
          execute("insert into t values (5)"),
        ]),
        entry(store.appliedIndex + 3, [execute("insert into t values (6)")]),
      ],
      at(store.appliedIndex + 3),
    );
    expect(results.map((r) => decodeResults(r).map((one) => one.ok))).toEqual([
      [true, true],
      [true, false, true],
      [true],
    ]);
    expect(query(store, "select a from t")).toEqual([[1n], [2n], [3n], [4n], [5n], [6n]]);
    expect(store.appliedIndex).toBe(4);
  });

  it("refuses what would break the batch or differ between replicas", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    for (const sql of [
      "commit",
      "/* x */ rollback",
      "begin",
      "savepoint a",
      "release _ostraka_command",
      "pragma foreign_keys = off",
      "attach 'x' as y",
      "vacuum",
      "insert into t select total_changes()",
      "insert into t select total_changes/* */(*)",
      'create trigger x after insert on t begin update t set a = "total_changes"(); end',
      "create table \"it's\"(a default (total_changes()), b default ('x'))",
      "insert into t select name from pragma_table_info('t')",
      "insert into t select * from 'pragma_page_count'",
      "insert into t select name from 'pragma_table_info'('t')",
      "insert into t select pageno from 'dbstat'",
      "delete from '_ostraka_state'",
      "insert into t select pageno from dbstat",
      "delete from _ostraka_state",
      'update "_ostraka_answers" set age_ms = 0',
      "explain insert into t values (1)",
      "insert into t values (1); insert into t values (2)",
      "",
    ])
      expect(applyCommands(store, execute(sql))).toMatchObject([
        { ok: false, error: ["user", expect.anything(), expect.anything(), null] },
      ]);
    expect(
      applyCommands(store, execute("insert into t values ('total_changes() pragma_x _ostraka_state')")),
    ).toMatchObject([{ ok: true }]);
    expect(query(store, "select count(*) from t")).toEqual([[1n]]);
  });

  it("checks deferred foreign keys when the command ends, not the batch", () => {
    const store = openStore();
    applySql(
      store,
      "create table p(id integer primary key)",
      "create table c(p references p deferrable initially deferred)",
      "create table i(p references p)",
    );
    const results = applyCommands(
      store,
      execute("insert into p values (1)"),
      execute("insert into c values (2)"),
      execute("insert into p values (2)"),
      transaction("t1", [statement("insert into c values (7)"), statement("insert into p values (7)")]),
      transaction("t2", [statement("insert into p values (8)"), statement("insert into c values (9)")]),
      transaction("t3", [
        statement("insert into i values (10)", [], { flags: SessionFlag.DeferForeignKeys }),
        statement("insert into p values (10)", [], { flags: SessionFlag.DeferForeignKeys }),
      ]),
      execute("insert into i values (11)"),
    );
    expect(results.map((r) => r.ok)).toEqual([true, false, true, true, false, true, false]);
    expect(results[4]).toMatchObject({
      error: ["user", "SQLITE_CONSTRAINT_FOREIGNKEY", "FOREIGN KEY constraint failed", null],
    });
    expect(query(store, "select id from p")).toEqual([[1n], [2n], [7n], [10n]]);
    expect(query(store, "select p from c")).toEqual([[7n]]);
    expect(store.outcome(transactionId("t1"))).toBe("committed");
    // Still open as far as the log knows: it may be committed yet.
    expect(store.outcome(transactionId("t2"))).toBeUndefined();
  });

  it("applies session flags to their own command only", () => {
    const store = openStore();
    applySql(
      store,
      "create table p(id integer primary key)",
      "create table c(p references p, check (p > 0))",
      "create table w(a)",
    );
    const results = applyCommands(
      store,
      execute("insert into c values (5)", [], { flags: SessionFlag.ForeignKeysOff }),
      execute("insert into c values (6)"),
      execute("insert into c values (-1)", [], {
        flags: SessionFlag.ForeignKeysOff | SessionFlag.IgnoreCheckConstraints,
      }),
      execute("insert into c values (-2)", [], { flags: SessionFlag.ForeignKeysOff }),
      execute("insert into w values (7)", [], { flags: SessionFlag.CaseSensitiveLike }),
      execute("insert into w values ('A' like 'a')", [], { flags: SessionFlag.CaseSensitiveLike }),
      execute("insert into w values ('A' like 'a')"),
    );
    expect(results.map((r) => r.ok)).toEqual([true, false, true, false, true, false, true]);
    expect(query(store, "select a from w")).toEqual([[7n], [1n]]);
  });

  it.each([
    ["with others", [], {}],
    ["under settings of its own", [], { flags: SessionFlag.ForeignKeysOff }],
    [
      "because of a deferred constraint",
      ["create table c(x references t deferrable initially deferred)"],
      {},
    ],
  ])(
    "never lets SQLite choose a rowid at random within a command that takes the last (%s)",
    async (_, more, flags) => {
      const log = [
        ...["create table t(id integer primary key, a)", "create table w(a)", ...more].map((sql) =>
          execute(sql),
        ),
        execute("insert into t(id) values (9223372036854775807), (null)", [], flags),
        transaction("b", [
          statement("insert into t(id) values (9223372036854775807)", [], flags),
          statement("insert into t(a) values (1)", [], flags),
        ]),
        execute("insert into t(id) values (1)"),
      ];
      const full = { error: ["user", "SQLITE_FULL", expect.anything(), null] };
      const digests: string[] = [];
      for (let replica = 0; replica < 2; replica++) {
        const store = openStore();
        const [results] = store.apply([entry(1, log)], at(1)).results;
        expect(decodeResults(results!).slice(-3)).toMatchObject([full, full, { ok: true }]);
        expect(query(store, "select id from t")).toEqual([[1n]]);
        digests.push((await store.digest()).digest);
      }
      expect(digests[0]).toBe(digests[1]);
    },
  );

  it.each(["alone", "with what brought the last one there"])(
    "never lets SQLite choose a rowid at random in place of the last one (%s)",
    (how) => {
      const store = openStore();
      applySql(store, "create table t(id integer primary key, a unique)", "insert into t values (4, 3)");
      const move = execute("update t set id = 9223372036854775807 where id = 4");
      const replace = execute("insert or replace into t(id, a) values (0, 2), (null, 3)");
      const results =
        how === "alone"
          ? [...applyCommands(store, move), ...applyCommands(store, replace)]
          : applyCommands(store, move, replace);
      expect(results).toMatchObject([
        { ok: true },
        { error: ["user", "SQLITE_FULL", expect.anything(), null] },
      ]);
      expect(query(store, "select id, a from t")).toEqual([[9223372036854775807n, 3n]]);
    },
  );

  it("tells a table that is full from a disk that is, also where the table is as new as that", () => {
    const full = { error: ["user", "SQLITE_FULL", "database or disk is full", null] };
    const make = "create table a(id integer primary key autoincrement, b)";
    const texts = ["insert into a values (9223372036854775807, 1)", "insert into a(b) values (2)"];
    const store = openStore();
    expect(applyCommands(store, ...[make, ...texts].map((sql) => execute(sql)))).toMatchObject([
      { ok: true },
      { ok: true },
      full,
    ]);
    const within = [
      make.replace("table a", "table n"),
      ...texts.map((sql) => sql.replace("into a", "into n")),
    ];
    const other = openStore();
    const results = applyCommands(
      other,
      transaction(
        "x",
        within.map((sql) => statement(sql)),
      ),
      execute("create table n(a)"),
    );
    expect(results).toMatchObject([{ ...full, statement: 2 }, { ok: true }]);
  });

  it("never lets SQLite choose a rowid at random", () => {
    const store = openStore();
    const last = 9223372036854775807n;
    const full = { ok: false, error: ["user", "SQLITE_FULL", "database or disk is full", null] };
    applySql(
      store,
      "create table t(a)",
      "create table a(id integer primary key autoincrement, b)",
      "create table u(a)",
    );
    const results = applyCommands(
      store,
      execute("insert into t values (1)"),
      execute("insert into t(rowid, a) values (?, 2)", [last]),
      execute("insert into t values (3)"),
      execute("insert into t(rowid, a) values (5, 4)"),
      execute("insert into t(rowid, a) values (?, 5)", [6n]),
      execute("insert into t(a) select 6 union select 7"),
      execute("update t set a = 0 where rowid = 1"),
      execute("insert into u values (1)"),
      execute("insert into a values (?, 1)", [last]),
      execute("insert into a(b) values (2)"),
      transaction("x", [statement("insert into u values (2)"), statement("insert into t values (8)")]),
      execute("delete from t where rowid = ?", [last]),
      execute("insert into t values (9)"),
    );
    expect(results.map((r) => r.ok)).toEqual([
      true,
      true,
      false,
      true,
      true,
      false,
      true,
      true,
      true,
      false,
      false,
      true,
      true,
    ]);
    for (const i of [2, 5, 9, 10]) expect(results[i]).toMatchObject(full);
    expect(query(store, "select rowid, a from t")).toEqual([
      [1n, 0n],
      [5n, 4n],
      [6n, 5n],
      [7n, 9n],
    ]);
    expect(query(store, "select count(*) from u")).toEqual([[1n]]);
    expect(query(store, "select id from a")).toEqual([[last]]);
    // In one statement, and by AUTOINCREMENT with nothing committed at the limit before.
    const store2 = openStore();
    applySql(store2, "create table t(a)", "create table a(id integer primary key autoincrement, b)");
    expect(
      applyCommands(store2, execute("insert into t(rowid, a) values (9223372036854775807, 1), (null, 2)")),
    ).toMatchObject([full]);
    const within = [
      statement("insert into a values (9223372036854775807, 1)"),
      statement("insert into a(b) values (2)"),
    ];
    expect(
      applyCommands(store2, transaction("y", within), execute("insert into a(b) values (3)")),
    ).toMatchObject([full, { ok: true }]);
    expect(query(store2, "select id from a")).toEqual([[1n]]);
  });

  it("nor while a row is at the largest rowid within a batch only", async () => {
    const log = [
      entry(1, [
        execute("create table t(id integer primary key, a)"),
        execute("insert into t values (5, 0)"),
      ]),
      entry(2, [execute("update t set id = 9223372036854775807 where id = 5")]),
      entry(3, [execute("insert into t(a) values (1)")]),
      entry(4, [execute("delete from t where id = 9223372036854775807")]),
    ];
    const whole = openStore();
    const { results } = whole.apply(log, at(4));
    const inSteps = openStore();
    for (const one of log) inSteps.apply([one], one.index);
    expect(await whole.digest()).toEqual(await inSteps.digest());
    expect(results.map((result) => decodeResults(result).at(-1)!.ok)).toEqual([true, true, false, true]);
    expect(query(whole, "select id from t")).toEqual([]);
  });

  it("sets user_version and application_id", () => {
    const store = openStore();
    const pragma = (name: "user_version" | "application_id", value: number): Command => ({
      kind: "pragma",
      key: freshKey(),
      wallMs: WALL_MS,
      name,
      value,
    });
    applyCommands(store, pragma("user_version", 7), pragma("application_id", -5));
    expect(query(store, "select * from pragma_user_version, pragma_application_id")).toEqual([[7n, -5n]]);
  });
});

describe("transactions", () => {
  it("are all or nothing and say which statement failed", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)");
    const [result] = applyCommands(
      store,
      transaction("x", [
        statement("insert into t values (1)"),
        statement("create table u(a)"),
        statement("insert into t values (1)"),
      ]),
    );
    expect(result).toMatchObject({ ok: false, statement: 2 });
    expect(query(store, "select count(*) from t")).toEqual([[0n]]);
    expect(store.outcome(transactionId("x"))).toBe("aborted");
    expect(applyCommands(store, execute("create table u(b)"))).toMatchObject([{ ok: true }]);
  });

  it("fail with OSTRAKA_RETRY when a statement no longer does what was told", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)", "insert into t values (1), (2)");
    const told: StatementOutcome = {
      columns: [],
      columnTypes: [],
      rows: new Uint8Array(0),
      rowCount: 0,
      changes: 2,
      totalChanges: 2,
      lastInsertRowid: 0n,
    };
    const updated = statement("update t set a = a + 10", [], { told: toldDigest(told) });
    const failing = statement("insert into t values (11)", [], {
      told: toldDigest(["user", "SQLITE_CONSTRAINT_PRIMARYKEY", "UNIQUE constraint failed: t.a", null]),
    });
    expect(applyCommands(store, transaction("a", [updated, failing]))).toMatchObject([{ ok: true }]);
    applySql(store, "insert into t values (3)");
    expect(applyCommands(store, transaction("b", [updated]))).toMatchObject([
      { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null], statement: 0 },
    ]);
    expect(query(store, "select a from t")).toEqual([[11n], [12n], [3n]]);
    const unexpected = { ...failing, sql: "insert into t values (99)" };
    expect(applyCommands(store, transaction("c", [unexpected]))).toMatchObject([
      { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null] },
    ]);
    expect(store.outcome(transactionId("c"))).toBe("aborted");
  });

  it("never commit once a tombstone stands, and keep standing once committed", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const tombstone = (id: string): Command => ({
      kind: "tombstone",
      key: freshKey(),
      wallMs: WALL_MS,
      transaction: transactionId(id),
    });
    expect(applyCommands(store, tombstone("a"))).toMatchObject([{ ok: true, decision: "aborted" }]);
    expect(applyCommands(store, transaction("a", [statement("insert into t values (1)")]))).toMatchObject([
      { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null] },
    ]);
    expect(
      applyCommands(store, transaction("b", [statement("insert into t values (2)")]), tombstone("b")),
    ).toMatchObject([{ ok: true }, { ok: true, decision: "committed" }]);
    expect(query(store, "select a from t")).toEqual([[2n]]);
  });

  it("have outcomes that are known for longer than answers are", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    applyCommands(store, transaction("a", [statement("insert into t values (1)")]));
    const wallMs = WALL_MS + 2 * 60 * 60 * 1000;
    applyCommands(
      store,
      execute("insert into t values (2)", [], { stamp: { ...statement("").stamp, wallMs } }),
    );
    const asked = (id: string): Command => ({
      kind: "tombstone",
      key: { client: `outcome-${id}`, sequence: 0, lowestUnanswered: 0, issuedMs: WALL_MS },
      wallMs,
      transaction: transactionId(id),
    });
    const told = [
      { ok: true, decision: "committed" },
      { ok: true, decision: "aborted" },
      { ok: true, decision: "aborted" },
    ];
    expect(applyCommands(store, asked("a"), asked("b"), asked("b"))).toMatchObject(told);
    expect(store.outcome(transactionId("b"))).toBe("aborted");
  });
});

describe("answers", () => {
  const many = (told: boolean): Command => {
    const statements = [];
    for (let i = 1; i <= MAX_TOLD_OUTCOMES + 1; i++) {
      const insert = statement("insert into t values (1)");
      statements.push(told ? { ...insert, told: `1 1 ${i}` } : insert);
    }
    return transaction(told ? "told" : "fresh", statements);
  };

  it("of many statements are not told twice, but those of a batch are told", () => {
    for (const told of [true, false]) {
      const store = openStore();
      applySql(store, "create table t(a)");
      const command = many(told);
      const [result] = applyCommands(store, command);
      const [repeated] = applyCommands(store, command);
      expect(result).toMatchObject({ ok: true, repeated: false });
      expect(repeated).toMatchObject({ ok: true, repeated: true });
      for (const answer of [result, repeated])
        expect(answer?.ok === true && answer.outcomes.length).toBe(told ? 0 : MAX_TOLD_OUTCOMES + 1);
      expect(query(store, "select count(*) from t")).toEqual([[BigInt(MAX_TOLD_OUTCOMES + 1)]]);
    }
  });
});

describe("row images", () => {
  const rows = (changes: readonly RowChange[], id = "r"): Command => ({
    kind: "rows",
    key: freshKey(),
    wallMs: WALL_MS,
    transaction: transactionId(`${id}-${freshKey().sequence}`),
    changes,
    outcomes: [],
  });

  it("replace, insert and delete rows without triggers or foreign key actions", () => {
    const store = openStore();
    applySql(
      store,
      "create table p(id integer primary key, a unique)",
      "create table c(p references p on delete cascade)",
      "create table w(k text primary key, v, g as (v || '!')) without rowid",
      "create table log(a)",
      "create trigger one after insert on p begin insert into log values ('one'); end",
      "create trigger two after delete on p begin insert into log values ('two'); end",
      "insert into p values (1, 'x'), (2, 'y')",
      "insert into c values (1), (2)",
      "insert into w(k, v) values ('a', 1), ('b', 2)",
      "delete from log",
    );
    const triggers = "select name from _ostraka_schema_view where type = 'trigger'";
    const before = query(store, triggers);
    const version = store.schemaVersion;
    const [result] = applyCommands(
      store,
      rows([
        // The unique values change places.
        { table: "p", key: [1n], row: [1n, "y"] },
        { table: "p", key: [2n], row: [2n, "x"] },
        { table: "p", key: [3n], row: [3n, "z"] },
        { table: "c", key: [2n], row: undefined },
        { table: "c", key: [9n], row: [77n] },
        { table: "w", key: ["a"], row: undefined },
        { table: "w", key: ["b"], row: ["b", new Uint8Array([1])] },
        { table: "w", key: ["c"], row: ["c", null] },
      ]),
    );
    expect(result).toMatchObject({ ok: true });
    expect(query(store, "select * from p")).toEqual([
      [1n, "y"],
      [2n, "x"],
      [3n, "z"],
    ]);
    expect(query(store, "select rowid, p from c")).toEqual([
      [1n, 1n],
      [9n, 77n],
    ]);
    expect(query(store, "select k, v from w")).toEqual([
      ["b", new Uint8Array([1])],
      ["c", null],
    ]);
    expect(query(store, "select * from log")).toEqual([]);
    expect(query(store, triggers)).toEqual(before);
    expect(store.schemaVersion).toBe(version);
    applySql(store, "insert into p values (4, 'q')");
    expect(query(store, "select * from log")).toEqual([["one"]]);
  });

  it("carry sqlite_sequence", () => {
    const store = openStore();
    applySql(store, "create table t(id integer primary key autoincrement)");
    applyCommands(
      store,
      rows([
        { table: "sqlite_sequence", key: [1n], row: ["t", 50n] },
        { table: "t", key: [7n], row: [7n] },
      ]),
    );
    applySql(store, "insert into t values (null)");
    expect(query(store, "select id from t")).toEqual([[7n], [51n]]);
  });

  it("fail as a whole, deterministically", () => {
    const store = openStore();
    applySql(
      store,
      "create table t(a unique)",
      "create trigger x after insert on t begin select 1; end",
      "insert into t values (1)",
    );
    const [result] = applyCommands(
      store,
      rows([
        { table: "t", key: [5n], row: [5n] },
        { table: "t", key: [6n], row: [1n] },
      ]),
    );
    expect(result).toMatchObject({
      ok: false,
      error: ["user", "SQLITE_CONSTRAINT_UNIQUE", expect.anything(), null],
    });
    expect(query(store, "select a from t")).toEqual([[1n]]);
    expect(query(store, "select count(*) from _ostraka_schema_view where type = 'trigger'")).toEqual([[1n]]);
    expect(applyCommands(store, rows([{ table: "nowhere", key: [1n], row: [1n] }]))).toMatchObject([
      { ok: false },
    ]);
  });
});

describe("idempotency", () => {
  const keyed = (
    sequence: number,
    lowestUnanswered: number,
    sql: string,
    wallMs = WALL_MS,
    issuedMs = wallMs,
  ): Command => ({
    kind: "execute",
    key: { client: "c", sequence, lowestUnanswered, issuedMs },
    wallMs,
    statement: statement(sql),
  });

  it("answers a repetition with the recorded result", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)");
    const first = keyed(1, 1, "insert into t values (1) returning a");
    const failing = keyed(2, 1, "insert into t values (1)");
    const original = applyCommands(store, first, failing);
    expect(original).toMatchObject([{ ok: true, repeated: false }, { ok: false }]);
    applySql(store, "delete from t");
    const repeated = [{ ...original[0], repeated: true }, original[1]];
    expect(applyCommands(store, first, failing)).toEqual(repeated);
    expect(query(store, "select count(*) from t")).toEqual([[0n]]);
    const path = store.path;
    return store.close().then(() => {
      expect(applyCommands(openStore(path), first, failing)).toEqual(repeated);
    });
  });

  it("recognises a repetition within one entry", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const command = keyed(1, 1, "insert into t values (1)");
    expect(applyCommands(store, command, command)).toMatchObject([{ repeated: false }, { repeated: true }]);
    expect(query(store, "select count(*) from t")).toEqual([[1n]]);
  });

  it("does not remember that a write lost a race: it is run again under its key", () => {
    const store = openStore();
    applySql(store, "create table t(id integer primary key, a unique)", "insert into t values (1, 'x')");
    const outcome = { ...NO_OUTCOME, changes: 1, totalChanges: 1, lastInsertRowid: 2n };
    const attempt = (id: string, sql: string): Command => ({
      kind: "transaction",
      key: { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: WALL_MS },
      wallMs: WALL_MS,
      transaction: transactionId(id),
      statements: [statement(sql, [], { told: toldDigest(outcome) })],
    });
    const lost = attempt("c:1@0", "insert into t values (2, 'x')");
    const retry = { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null] };
    expect(applyCommands(store, lost, lost)).toMatchObject([retry, retry]);
    // An entry that is applied already answers so, too.
    const again = store.apply([entry(store.appliedIndex, [lost])], at(store.appliedIndex));
    expect(decodeResults(again.results[0]!)).toMatchObject([retry]);
    const won = attempt("c:1~1@0", "insert into t values (2, 'y')");
    expect(applyCommands(store, won, won)).toMatchObject([
      { ok: true, repeated: false },
      { ok: true, repeated: true },
    ]);
    expect(query(store, "select id, a from t")).toEqual([
      [1n, "x"],
      [2n, "y"],
    ]);
  });

  it("drops answers below the low-water mark and refuses their commands", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const rowCount = (): number =>
      Number(
        store.read({ statement: statement("select count(*) from _ostraka_answers"), maxBytes: 100 })
          .rows[1]! - 64,
      );
    const one = keyed(1, 1, "insert into t values (1)");
    applyCommands(store, one);
    applyCommands(store, keyed(2, 1, "insert into t values (2)"));
    expect(rowCount()).toBe(3);
    applyCommands(store, keyed(3, 3, "insert into t values (3)"));
    expect(rowCount()).toBe(2);
    expect(applyCommands(store, one)).toMatchObject([
      { ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null] },
    ]);
    expect(query(store, "select count(*) from t")).toEqual([[3n]]);
  });

  it("drops answers by age and refuses keys older than that", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const old = keyed(1, 1, "insert into t values (1)");
    applyCommands(store, old);
    const later = WALL_MS + 3_600_001;
    applyCommands(store, {
      ...keyed(1, 1, "insert into t values (2)", later),
      key: { client: "d", sequence: 1, lowestUnanswered: 1, issuedMs: later },
    });
    expect(applyCommands(store, old)).toMatchObject([
      { ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null] },
    ]);
    const neverSeen = keyed(5, 5, "insert into t values (3)", later, WALL_MS);
    expect(applyCommands(store, neverSeen)).toMatchObject([
      { ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null] },
    ]);
    const fromTheFuture = keyed(6, 6, "insert into t values (4)", later, later + 100_000);
    expect(applyCommands(store, fromTheFuture)).toMatchObject([
      { ok: false, error: ["retry", "OSTRAKA_UNAVAILABLE", expect.anything(), null] },
    ]);
    expect(query(store, "select a from t")).toEqual([[1n], [2n]]);
  });

  it("keeps long answers only by name", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const long = keyed(1, 1, "insert into t values (zeroblob(20000)) returning a");
    expect(applyCommands(store, long)).toMatchObject([{ ok: true, outcomes: [{ rowCount: 1 }] }]);
    expect(applyCommands(store, long)).toMatchObject([
      { ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null] },
    ]);
    expect(query(store, "select count(*) from t")).toEqual([[1n]]);
  });
});

describe("marks and pieces", () => {
  it("a client's low-water mark does not sink when older answers go, restarted or not", async () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const minutes = (n: number): number => WALL_MS + n * 60_000;
    const command = (
      client: string,
      sequence: number,
      lowestUnanswered: number,
      wallMs: number,
    ): Command => ({
      kind: "execute",
      key: { client, sequence, lowestUnanswered, issuedMs: wallMs },
      wallMs,
      statement: statement("insert into t values (?)", [BigInt(sequence)]),
    });
    applyCommands(store, command("c", 9, 9, minutes(0)));
    applyCommands(store, command("c", 10, 3, minutes(30)));
    applyCommands(store, command("d", 1, 1, minutes(61)));
    const refused = [{ ok: false, error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null] }];
    expect(applyCommands(store, command("c", 4, 3, minutes(62)))).toMatchObject(refused);
    await store.close();
    expect(applyCommands(openStore(store.path), command("c", 4, 3, minutes(62)))).toMatchObject(refused);
  });

  it("an entry that was cut short in the middle goes on where it was", async () => {
    const setup = entry(1, [execute("create table t(a)")]);
    const commands = [
      execute("insert into t values (1)", [], { flags: SessionFlag.ForeignKeysOff }),
      execute("insert into t values (2) returning a"),
      execute("insert into t values (3)", [], { flags: SessionFlag.ForeignKeysOff }),
      execute("insert into t values (4)"),
      // None of them has been answered yet.
    ].map((command) => ({ ...command, key: { ...command.key, lowestUnanswered: 1 } }));
    const whole = openStore();
    whole.apply([setup], at(1));
    const expected = whole.apply([entry(2, commands)], at(2)).results;
    const digest = await whole.digest();

    const cut = openStore();
    cut.apply([setup], at(1));
    const full = new FatalError("OSTRAKA_DISK_FULL", "no room");
    const spy = vi.spyOn(Answers.prototype, "endEntry").mockImplementationOnce(() => {
      throw full;
    });
    expect(() => cut.apply([entry(2, commands)], at(2))).toThrow(full);
    spy.mockRestore();
    expect(query(cut, "select a from t")).toEqual([[1n], [2n], [3n]]);
    expect(cut.appliedIndex).toBe(1);
    const path = join(temporaryDirectory(), "range.db");
    copyFileSync(cut.path, path);
    copyFileSync(`${cut.path}-wal`, `${path}-wal`);
    for (const store of [cut, openStore(path)]) {
      const { results } = store.apply([entry(2, commands)], at(2));
      const repeated = decodeResults(expected[0]!).map((result, i) =>
        result.ok ? { ...result, repeated: i < 3 } : result,
      );
      expect(decodeResults(results[0]!)).toEqual(repeated);
      expect(await store.digest()).toEqual(digest);
    }
  });

  it("answers the same when its batch is tried again after the disk was full as its answers were kept", () => {
    const store = openStore();
    // A fresh session's stamp: the last rowid is 0, before as after.
    applySql(store, "create table t(a)", "insert into t values (1)", "update t set a = 2");
    const flush = Answers.prototype.endEntry;
    const spy = vi.spyOn(Answers.prototype, "endEntry").mockImplementationOnce(function (this: Answers) {
      flush.call(this);
      throw new FatalError("OSTRAKA_DISK_FULL", "no room");
    });
    const again = entry(4, [execute("update t set a = 3")]);
    expect(() => store.apply([again], at(4))).toThrow("no room");
    spy.mockRestore();
    const [results] = store.apply([again], at(4)).results;
    expect(decodeResults(results!)).toMatchObject([
      { ok: true, outcomes: [{ changes: 1, lastInsertRowid: 0n }] },
    ]);
  });
});

it("what a replica has no memory for is not answered: others have", () => {
  const store = openStore();
  applySql(store, "create table t(a)");
  const add = entry(2, [execute("insert into t values (zeroblob(100))")]);
  const spy = vi.spyOn(Buffer, "alloc").mockImplementation(() => {
    throw new RangeError("Array buffer allocation failed");
  });
  try {
    expect(() => store.apply([add], at(2))).toThrow(FatalError);
  } finally {
    spy.mockRestore();
  }
  expect(store.appliedIndex).toBe(1);
  // An error of that name may be the user's own.
  applySql(
    store,
    "create trigger b before insert on t begin select raise(abort, 'Array buffer allocation failed'); end",
  );
  const [raised] = applyCommands(store, execute("insert into t values (1)"));
  const error = ["user", "SQLITE_CONSTRAINT_TRIGGER", "Array buffer allocation failed", null];
  expect(raised).toMatchObject({ ok: false, error });
});

describe("the applied index", () => {
  it("[89] is one write with the effects, and entries below it answer again and are not run", async () => {
    const store = openStore();
    const entries = [
      entry(1, [execute("create table t(a)")]),
      entry(3, [execute("insert into t values (1)")]),
    ];
    store.apply(entries, at(4));
    expect(store.appliedIndex).toBe(4);
    const again = store.apply([...entries, entry(5, [execute("insert into t values (2)")])], at(5));
    expect(again.results.map((r) => decodeResults(r).length)).toEqual([1, 1, 1]);
    expect(query(store, "select a from t")).toEqual([[1n], [2n]]);
    await store.close();
    expect(newStore(store.path).open()).toBe(5);
  });

  it("refuses a file of another apply version", async () => {
    const store = openStore();
    await store.close();
    const { default: Database } = await import("better-sqlite3");
    const raw = new Database(store.path);
    raw.exec("update _ostraka_state set apply_version = 'another'");
    raw.close();
    expect(() => newStore(store.path).open()).toThrow(
      expect.objectContaining({ code: "OSTRAKA_APPLY_VERSION", family: "fatal" }),
    );
  });

  it("keeps values exact through the log", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const values = [
      null,
      2n ** 63n - 1n,
      -(2n ** 63n),
      -0,
      0.1,
      Number.POSITIVE_INFINITY,
      "é\0🎈",
      new Uint8Array([0, 255]),
    ];
    applyCommands(store, ...values.map((v) => execute("insert into t values (?)", [v])));
    expect(query(store, "select a from t").flat()).toEqual(values);
    applyCommands(
      store,
      execute("insert into t values (?)", [Number.NaN]),
      execute("insert into t values (?)", ["\ud800"]),
    );
    expect(query(store, "select a from t order by rowid desc limit 2")).toEqual([["\ufffd"], [null]]);
    expect(encodeVector([1n]).length).toBeGreaterThan(0);
  });
});
