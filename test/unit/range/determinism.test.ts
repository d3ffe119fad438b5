import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command, RowChange } from "../../../src/machines/range/types.js";
import type { Entry } from "../../../src/raft/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import {
  at,
  entry,
  execute,
  newStore,
  openStore,
  statement,
  temporaryDirectory,
  WALL_MS,
} from "./helpers.js";

/** Mulberry32, for the test's choices. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const SETUP = [
  "create table t(id integer primary key, a default (random()), b default current_timestamp, c default (hex(randomblob(3))))",
  "create table k(k text primary key, v, n integer default (unixepoch())) without rowid",
  "create table u(a unique on conflict rollback, b)",
  "create table p(id integer primary key autoincrement, s)",
  "create table d(p references p deferrable initially deferred, x)",
  "create table log(what, at, last)",
  "create trigger t_i after insert on t begin insert into log values (new.id, julianday('now'), last_insert_rowid()); end",
  "create trigger t_u after update on t begin insert into log values (random(), strftime('%f'), changes()); end",
  "create trigger t_d before delete on t when old.id % 7 = 0 begin select raise(rollback, 'sevens stay'); end",
  "create view v as select id, datetime('now', '-1 day') as y, random() as r from t",
  "create virtual table f using fts5(body)",
  "create index t_a on t(a)",
];

function randomStatement(pick: (below: number) => number): string {
  const n = pick(40);
  const choices = [
    "insert into t default values",
    `insert into t(id, a) values (${n}, 'x')`,
    `insert or replace into t(id, c) values (${n}, datetime('now', 'localtime'))`,
    `insert into t(a) select random() from t limit ${pick(3)}`,
    "insert into t(a) select y || r from v order by id limit 2",
    `update t set a = random() where id % 5 = ${pick(5)}`,
    `delete from t where id between ${n} and ${n + 2}`,
    `insert into k(k, v) values ('k${n}', printf('%d', random())) on conflict do update set v = excluded.v, n = unixepoch('now', 'subsec') returning v`,
    `insert into u values (${n}, time())`,
    `insert or ignore into u values (${n}, 1)`,
    "insert into p(s) values (changes() || last_insert_rowid())",
    `insert into d values (${pick(6)}, abs(random() % 10))`,
    `insert into p(id) values (${n}) on conflict do nothing`,
    `insert into f values ('word${n} ' || hex(randomblob(2)))`,
    `delete from f where f match 'word${n}'`,
    `create table if not exists x${pick(4)}(a, b default (random()))`,
    `drop table if exists x${pick(4)}`,
    `insert into x${pick(4)} default values`,
    "select nothing from nowhere",
    "insert into t(id) values (9223372036854775807)",
    "delete from t where id = 9223372036854775807",
    "insert or fail into k(k) values ('z1'), ('z2'), ('z1'), ('z3')",
    "delete from p where id = (select max(id) from p)",
  ];
  return choices[pick(choices.length)]!;
}

function randomLog(seed: number, entries: number): Entry[] {
  const pick = random(seed);
  const sequences = new Map<string, number>();
  const repeats: Command[] = [];
  let wallMs = WALL_MS;
  const stampedText = (sql: string) => {
    const flags = [
      0,
      0,
      0,
      0,
      0,
      SessionFlag.RecursiveTriggers,
      SessionFlag.DeferForeignKeys,
      SessionFlag.ForeignKeysOff,
    ][pick(8)]!;
    const stamp = { wallMs, seed: pick(2 ** 31), lastInsertRowid: BigInt(pick(1000)) };
    return statement(sql, [], { flags, stamp });
  };
  const makeKey = (): Command["key"] => {
    const client = `c${pick(5)}`;
    const sequence = (sequences.get(client) ?? 0) + 1;
    sequences.set(client, sequence);
    return {
      client,
      sequence,
      lowestUnanswered: Math.max(1, sequence - pick(4)),
      issuedMs: wallMs - pick(50),
    };
  };
  const makeCommand = (): Command => {
    wallMs += pick(100) === 0 ? 1_000_000 : pick(1000);
    const kind = pick(12);
    if (kind === 0 && repeats.length > 0) return repeats[pick(repeats.length)]!;
    if (kind === 1)
      return { kind: "tombstone", key: makeKey(), wallMs, transaction: transactionId(`x${pick(30)}`) };
    if (kind === 2) {
      const changes: RowChange[] = [
        { table: "t", key: [BigInt(pick(40))], row: undefined },
        { table: "u", key: [BigInt(500 + pick(5))], row: [BigInt(1000 + pick(5)), null] },
      ];
      return {
        kind: "rows",
        key: makeKey(),
        wallMs,
        transaction: transactionId(`r${pick(1000)}`),
        changes,
        outcomes: [],
      };
    }
    if (kind < 5) {
      const statements = Array.from({ length: 1 + pick(3) }, () => stampedText(randomStatement(pick)));
      return {
        kind: "transaction",
        key: makeKey(),
        wallMs,
        transaction: transactionId(`x${pick(30)}`),
        statements,
      };
    }
    return { kind: "execute", key: makeKey(), wallMs, statement: stampedText(randomStatement(pick)) };
  };
  const log = [
    entry(
      1,
      SETUP.map((sql) => ({ kind: "execute" as const, key: makeKey(), wallMs, statement: statement(sql) })),
    ),
  ];
  for (let index = 2; index <= entries; index++) {
    const commands = Array.from({ length: 1 + pick(5) }, makeCommand);
    repeats.push(...commands);
    log.push(entry(index, commands));
  }
  return log;
}

/** Applies the log in pieces of random size; `between` may replace the store. */
async function applyInPieces(
  store: StoreCore,
  log: readonly Entry[],
  largest: number,
  pick: (below: number) => number,
  between: (store: StoreCore) => Promise<StoreCore> = async (same) => same,
): Promise<{ store: StoreCore; results: Uint8Array[] }> {
  const results: Uint8Array[] = [];
  let current = store;
  for (let done = 0; done < log.length; ) {
    const piece = log.slice(done, done + 1 + pick(largest));
    done += piece.length;
    results.push(...current.apply(piece, piece.at(-1)!.index).results);
    current = await between(current);
  }
  return { store: current, results };
}

describe("determinism", () => {
  const seeds = process.env.SEED === undefined ? [1, 2, 3, 4] : [Number(process.env.SEED)];

  it.each(seeds)("replicas agree whatever the batches, snapshots and restarts (SEED=%d)", async (seed) => {
    const log = randomLog(seed, 100);
    const pick = random(seed + 1000);
    const one = openStore();
    const oneByOne = await applyInPieces(one, log, 1, pick);
    const digest = await oneByOne.store.digest();
    expect(digest.appliedIndex).toBe(log.length);

    const large = await applyInPieces(openStore(), log, 40, pick);
    expect(await large.store.digest()).toEqual(digest);
    expect(large.results).toEqual(oneByOne.results);

    const restarting = await applyInPieces(openStore(), log, 10, pick, async (store) => {
      if (pick(3) > 0) return store;
      await store.close();
      const next = newStore(store.path);
      next.open();
      return next;
    });
    expect(await restarting.store.digest()).toEqual(digest);
    expect(restarting.results).toEqual(oneByOne.results);

    const moving = await applyInPieces(openStore(), log, 10, pick, async (store) => {
      if (pick(6) > 0) return store;
      const snapshot = await store.snapshot();
      const file = join(temporaryDirectory(), "snapshot");
      writeFileSync(file, await snapshot.read(0, snapshot.bytes));
      await snapshot.release();
      const next = openStore();
      await next.restore(file);
      return next;
    });
    expect(await moving.store.digest()).toEqual(digest);
    expect(moving.results).toEqual(oneByOne.results);
  });

  it("a crash after any batch leaves a state from which replaying gives the same", async () => {
    const seed = seeds[0]!;
    const log = randomLog(seed + 77, 60);
    const pick = random(seed);
    const reference = await applyInPieces(openStore(), log, 5, pick);
    const digest = await reference.store.digest();
    let images = 0;
    const crashing = await applyInPieces(openStore(), log, 5, pick, async (store) => {
      if (pick(2) === 0) return store;
      // What a killed process leaves: the file and its log as they are.
      const path = join(temporaryDirectory(), "range.db");
      copyFileSync(store.path, path);
      if (existsSync(`${store.path}-wal`)) copyFileSync(`${store.path}-wal`, `${path}-wal`);
      images++;
      const next = newStore(path);
      expect(next.open()).toBe(store.appliedIndex);
      // Raft may hand over entries again.
      const from = Math.max(0, next.appliedIndex - 3);
      next.apply(log.slice(from, next.appliedIndex), at(next.appliedIndex));
      return next;
    });
    expect(images).toBeGreaterThan(3);
    expect(await crashing.store.digest()).toEqual(digest);
  });

  it("what virtual tables would write at the end of a batch does not depend on batches", async () => {
    const legacy = ["create virtual table f4 using fts4(x)", "insert into f4(f4) values ('automerge=2')"];
    for (const [name, schema] of [
      ["f", ["create virtual table f using fts5(x)"]],
      ["f4", legacy],
    ] as const) {
      const log = [
        ...schema,
        ...Array.from({ length: 120 }, (_, i) => `insert into ${name}(x) values ('word${i} and ${i % 7}')`),
      ].map((sql, i) => entry(i + 1, [execute(sql)]));
      const digests = await Promise.all(
        [log.length, 1, 50].map(async (size) => {
          const store = openStore();
          for (let from = 0; from < log.length; from += size) {
            const batch = log.slice(from, from + size);
            store.apply(batch, batch.at(-1)!.index);
          }
          return (await store.digest()).digest;
        }),
      );
      expect(new Set(digests).size, name).toBe(1);
    }
  });

  it("what a statement changes is counted alike, whatever is still to be written to a virtual table", async () => {
    const log = [
      "create table l(a)",
      "create table t(id integer primary key)",
      "create trigger x after insert on t begin insert into l values (new.id); end",
      "create virtual table f using fts5(x)",
      "insert into f values ('one'), ('two')",
      "insert into t values (1)",
      "insert into f values ('three')",
      "insert into t values (2)",
    ].map((sql, i) => entry(i + 1, [execute(sql)]));
    const [together, apart] = [openStore(), openStore()];
    const answers = together.apply(log, at(log.length)).results;
    expect(log.map((one) => apart.apply([one], one.index).results[0]!)).toEqual(answers);
    expect(
      answers.map((bytes) => decodeResults(bytes)[0]).filter((_, i) => i === 5 || i === 7),
    ).toMatchObject([
      { outcomes: [{ changes: 1, totalChanges: 2 }] },
      { outcomes: [{ changes: 1, totalChanges: 2 }] },
    ]);
    expect(await apart.digest()).toEqual(await together.digest());
  });

  it("the digest sees types, signs of zero, and rows in any table", async () => {
    const digests = new Set<string>();
    for (const value of ["1", "1.0", "'1'", "x'31'", "null", "-0.0", "0.0", "2"]) {
      const store = openStore();
      const pieces = ["create table t(a)", `insert into t values (${value})`];
      const commands = pieces.map(
        (sql, i): Command => ({
          kind: "execute",
          key: { client: "c", sequence: i + 1, lowestUnanswered: i + 1, issuedMs: WALL_MS },
          wallMs: WALL_MS,
          statement: statement(sql, [], { stamp: { wallMs: WALL_MS, seed: 1, lastInsertRowid: 0n } }),
        }),
      );
      store.apply([entry(1, commands)], at(1));
      digests.add((await store.digest()).digest);
    }
    expect(digests.size).toBe(8);
  });
});
