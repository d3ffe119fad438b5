/** Writes that are sent again under their key: what the first one did is told, also where it is why the second fails. */
import { describe, expect, it } from "vitest";
import { OstrakaError } from "../../src/base/errors.js";
import { decodeRows, type SqlValue } from "../../src/base/values.js";
import { collectResult } from "../../src/gateway/outcomes.js";
import type { IdempotencyKey } from "../../src/machines/range/types.js";
import type { Session } from "../../src/rpc/gateway.js";
import { Accounts } from "./world/accounts.js";
import type { SimClient } from "./world/client.js";
import type { Machine } from "./world/process.js";
import { World } from "./world/world.js";

const MAX_BYTES = 1e6;

type Told = { readonly rows: readonly (readonly SqlValue[])[]; readonly changes: number } | string;
type Send = (session: Session, key: IdempotencyKey | undefined, sentUnder?: number) => Promise<Told>;

const one =
  (sql: string): Send =>
  async (session, key, sentUnder) => {
    const { rows, changes } = await collectResult(
      await session.execute({ sql, params: [], key, sentUnder, timeoutMs: undefined, signal: undefined }),
      MAX_BYTES,
    );
    return { rows: decodeRows(rows), changes };
  };

const several =
  (...texts: string[]): Send =>
  async (session, key, sentUnder) => {
    const statements = texts.map((sql) => ({ sql, params: [] }));
    const request = { key, sentUnder, timeoutMs: undefined, signal: undefined };
    const outcomes = await session.batch(statements, request);
    return { rows: [], changes: outcomes.reduce((sum, { changes }) => sum + changes, 0) };
  };

const batch = several(
  "INSERT INTO t SELECT id + 20, v FROM t WHERE id < 3",
  "INSERT INTO t SELECT 40, count(*) FROM t",
);

/** Endless, as far as anybody can tell. */
const UP_TO_FOUR =
  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT i FROM n";

const error = (text: string) => text.match(/^[A-Z_]+: /)?.[0] ?? "";

class Desk {
  #sequence = 0;
  constructor(
    readonly client: SimClient,
    readonly machine: Machine,
    readonly name = "desk",
  ) {}

  key(): IdempotencyKey {
    this.#sequence++;
    return {
      client: this.name,
      sequence: this.#sequence,
      lowestUnanswered: 1,
      issuedMs: this.client.world.clock.wallMs(),
    };
  }

  /** What the node would tell a client with its welcome. */
  async schemaVersion(): Promise<number> {
    const version = await this.client.request(this.machine.process!, async (gateway) =>
      gateway.schemaVersion?.(),
    );
    return version as number;
  }

  send(send: Send, key = this.key(), kind?: "autocommit" | "session", sentUnder?: number): Promise<Told> {
    return this.sendUnder(key, send, kind, sentUnder);
  }

  async sendUnder(
    key: IdempotencyKey | undefined,
    send: Send,
    kind: "autocommit" | "session" = "autocommit",
    sentUnder?: number,
  ): Promise<Told> {
    return this.client.request(this.machine.process!, async (gateway) => {
      const session = gateway.openSession(kind);
      try {
        return await send(session, key, sentUnder);
      } catch (failure) {
        if (!(failure instanceof OstrakaError)) throw failure;
        return `${failure.code}: ${failure.message}`;
      } finally {
        await session.close();
      }
    });
  }
}

async function atDesk(manyRanges: boolean, script: (desk: Desk) => Promise<void>, seed = 3): Promise<void> {
  const world = new World({
    seed,
    manyRanges: true,
    fixed: { founders: 3, replicas: 3, most: 3, tuning: {}, rangeMaxRows: 0 },
  });
  await world.play(async () => {
    const accounts = new Accounts(world);
    await accounts.create();
    if (!manyRanges) await accounts.admin("range.merge", { range: accounts.ranges[0] });
    expect(accounts.ranges).toHaveLength(manyRanges ? 2 : 1);
    const machine = world.machines[0] as Machine;
    await script(new Desk(accounts.client(machine), machine));
    world.heal();
  });
}

describe.each([
  ["one range", false],
  ["two ranges", true],
])("in %s", (_, manyRanges) => {
  const cases: readonly [string, Send, Told][] = [
    ["a column", one("ALTER TABLE t ADD COLUMN c"), { rows: [], changes: 0 }],
    ["a table", one("CREATE TABLE u(a)"), { rows: [], changes: 0 }],
    [
      "rows with keys, written by a query",
      one("INSERT INTO t SELECT id + 10, v FROM t WHERE v > 0 ORDER BY id RETURNING id"),
      { rows: [[11n], [12n], [13n], [14n]], changes: 4 },
    ],
    [
      "the same, in a statement that could also keep a part of them",
      one("INSERT OR FAIL INTO t SELECT id + 10, v FROM t WHERE v > 0 ORDER BY id RETURNING id"),
      { rows: [[11n], [12n], [13n], [14n]], changes: 4 },
    ],
    ["a batch of such", batch, { rows: [], changes: 3 }],
  ];

  it.each(cases)("%s: the second attempt is told what the first did", async (_name, send, told) => {
    await atDesk(manyRanges, async (desk) => {
      const key = desk.key();
      expect(await desk.send(send, key)).toEqual(told);
      const again = await desk.send(send, key);
      // Nobody keeps what the statements of a batch over several ranges did.
      if (manyRanges && send === batch)
        expect(again).toMatch(/^OSTRAKA_UNKNOWN_OUTCOME: the write was committed/);
      else expect(again).toEqual(told);
      // Under a key of its own it fails, again and again.
      const another = desk.key();
      const failed = await desk.send(send, another);
      expect(error(failed as string)).toMatch(/^SQLITE_/);
      expect(await desk.send(send, another)).toEqual(expect.stringMatching(/^(SQLITE_|OSTRAKA_RETRY)/));
    });
  });

  it("what fails and keeps what it did is told to have failed", async () => {
    await atDesk(manyRanges, async (desk) => {
      const insert = one("INSERT OR FAIL INTO t SELECT id + 3, 1 FROM t WHERE id <> 2 ORDER BY id DESC");
      const key = desk.key();
      for (let attempt = 0; attempt < 2; attempt++)
        expect(await desk.send(insert, key)).toMatch(/^SQLITE_CONSTRAINT_PRIMARYKEY: /);
      const more = one("INSERT OR FAIL INTO t SELECT id + 3, 1 FROM t WHERE id IN (1, 2) ORDER BY id DESC");
      const ofMore = desk.key();
      // The second time it fails at once.
      for (let attempt = 0; attempt < 2; attempt++)
        expect(await desk.send(more, ofMore)).toMatch(/^SQLITE_CONSTRAINT_PRIMARYKEY: /);
      const ids = await desk.send(one("SELECT id FROM t ORDER BY id"));
      expect(ids).toMatchObject({ rows: [[1n], [2n], [3n], [4n], [5n], [6n], [7n]] });
    });
  });

  it("a batch that would do something else now is told as it was, or not at all", async () => {
    await atDesk(manyRanges, async (desk) => {
      const key = desk.key();
      const turn = several(
        `UPDATE t SET v = -v WHERE v > 0 AND id IN (${UP_TO_FOUR})`,
        `UPDATE t SET v = v - 1 WHERE v >= 0 AND id IN (${UP_TO_FOUR})`,
      );
      expect(await desk.send(turn, key)).toEqual({ rows: [], changes: 4 });
      const again = await desk.send(turn, key);
      if (manyRanges) expect(again).toMatch(/^OSTRAKA_UNKNOWN_OUTCOME: the write was committed/);
      else expect(again).toEqual({ rows: [], changes: 4 });
    });
  });

  it("a write whose answer was too long to keep is not told what it would do now", async () => {
    await atDesk(manyRanges, async (desk) => {
      const key = desk.key();
      const grow = one("UPDATE t SET v = v + 1 WHERE v >= 0 RETURNING v, hex(zeroblob(20000))");
      expect(await desk.send(grow, key)).toMatchObject({ changes: 4 });
      expect(await desk.send(grow, key)).toMatch(/^OSTRAKA_UNKNOWN_OUTCOME: /);
    });
  });

  it("a session outside a transaction is told what its write did before", async () => {
    await atDesk(manyRanges, async (desk) => {
      const key = desk.key();
      const alter = one("ALTER TABLE t ADD COLUMN c");
      expect(await desk.send(alter, key, "session")).toEqual({ rows: [], changes: 0 });
      expect(await desk.send(alter, key, "session")).toEqual({ rows: [], changes: 0 });
      expect(await desk.send(alter, desk.key(), "session")).toMatch(/^SQLITE_ERROR: duplicate column/);
    });
  });

  it("a write is told as it was by a node that has yet to hear that it does not compile any more", async () => {
    await atDesk(manyRanges, async (desk) => {
      await desk.send(one("ALTER TABLE t ADD COLUMN c"));
      for (const [i, machine] of desk.client.world.machines.entries()) {
        const late = new Desk(desk.client, machine, `late${i}`);
        const sends = [one(`UPDATE t SET c = 1 WHERE id = 1`), several("UPDATE t SET c = 2 WHERE id = 1")];
        const keys = sends.map(() => late.key());
        for (const [at, send] of sends.entries())
          expect(await late.send(send, keys[at])).toEqual({ rows: [], changes: 1 });
        for (const [at, send] of sends.entries()) {
          await desk.send(one("ALTER TABLE t DROP COLUMN c"));
          expect(await late.send(send, keys[at])).toEqual({ rows: [], changes: 1 });
          await desk.send(one("ALTER TABLE t ADD COLUMN c"));
          await late.send(one("SELECT c FROM t"));
        }
      }
    });
  });

  it.each([1, 3, 4])(
    "a write that several nodes run at once is done and told as one (SEED=%i)",
    async (seed) => {
      await atDesk(
        manyRanges,
        async (desk) => {
          const { world } = desk.client;
          for (let round = 0; round < 8; round++) {
            const key = desk.key();
            const once = one(`UPDATE t SET v = (SELECT random()) WHERE id IN (${UP_TO_FOUR}) RETURNING v`);
            const told = await Promise.all(
              world.machines.slice(0, 3).map(async (machine, i) => {
                await new Promise<void>((go) => world.clock.setTimer(i * (round % 4), () => go()));
                return new Desk(desk.client, machine).send(once, key);
              }),
            );
            const done = await desk.send(one("SELECT v FROM t ORDER BY id"));
            const { rows } = done as Exclude<Told, string>;
            expect(new Set(rows.map(([v]) => v)).size).toBe(1);
            for (const one of told)
              if (typeof one === "string")
                expect(one).toMatch(/^OSTRAKA_(RETRY|UNAVAILABLE|UNKNOWN_OUTCOME)/);
              else expect(one.rows).toEqual(rows);
          }
        },
        seed,
      );
    },
  );

  const elsewhere: readonly [string, Send, number, "autocommit" | "session"][] = [
    ["a write", one("INSERT INTO t VALUES (-1, 9)"), 1, "autocommit"],
    ["a session's write", one("INSERT INTO t VALUES (-1, 9)"), 1, "session"],
    ["a write by a query", one("INSERT INTO t SELECT id - 10, v FROM t WHERE id < 3"), 2, "autocommit"],
    ["what may keep a part", one("INSERT OR FAIL INTO t SELECT -1, 9"), 1, "autocommit"],
    ["a batch", several("INSERT INTO t VALUES (-1, 9)", "INSERT INTO t VALUES (-2, 9)"), 2, "autocommit"],
    [
      "a session's batch",
      several("INSERT INTO t VALUES (-1, 9)", "DELETE FROM t WHERE id = -9"),
      1,
      "session",
    ],
  ];

  it.each(elsewhere)(
    "%s whose table goes by another name since is not done to its successor",
    async (_name, send, changes, kind) => {
      await atDesk(manyRanges, async (desk) => {
        const sentUnder = await desk.schemaVersion();
        const key = desk.key();
        expect(await desk.send(send, key, kind)).toMatchObject({ changes });
        await desk.send(one("ALTER TABLE t RENAME TO former"));
        await desk.send(one("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)"));
        const again = await desk.send(send, key, kind, sentUnder);
        if (typeof again === "string")
          expect(again).toMatch(/^OSTRAKA_UNKNOWN_OUTCOME: the write was committed/);
        else expect(again).toMatchObject({ changes });
        expect(await desk.send(one("SELECT count(*) FROM t"))).toMatchObject({ rows: [[0n]] });
        const former = await desk.send(one("SELECT count(*) FROM former"));
        expect(former).toMatchObject({ rows: [[4n + BigInt(changes)]] });
        // What has not been done is done, under the schema of now.
        const first = await desk.send(send, desk.key(), kind, sentUnder);
        if (typeof first !== "string") return;
        expect(first).toMatch(/^OSTRAKA_RETRY: the write was given up/);
        expect(await desk.send(send, desk.key(), kind)).toBeTypeOf("object");
      });
    },
  );

  it.each([
    ["a write", one("INSERT INTO t(v) SELECT v FROM t WHERE id = 1"), "autocommit"],
    ["a session's write", one("INSERT INTO t(v) SELECT v FROM t WHERE id = 1"), "session"],
    ["a batch", several("INSERT INTO t(v) SELECT v FROM t WHERE id = 1"), "autocommit"],
    ["a session's batch", several("INSERT INTO t(v) SELECT v FROM t WHERE id = 1"), "session"],
  ] as const)(
    "%s that may be under way elsewhere is given up there before it is run",
    async (_, send, kind) => {
      await atDesk(manyRanges, async (desk) => {
        const key = desk.key();
        const again = await desk.send(send, key, kind, await desk.schemaVersion());
        // What it touches is found out by running it, and may be another range each time; a single one knows of both.
        if (!manyRanges) return void expect(again).toMatchObject({ changes: 1 });
        expect(again).toMatch(/^OSTRAKA_RETRY: the write was given up/);
        expect(await desk.send(send, key, kind)).toMatch(/^OSTRAKA_RETRY: .*given up/);
        expect(await desk.send(one("SELECT count(*) FROM t"))).toMatchObject({ rows: [[4n]] });
        expect(await desk.send(send, desk.key(), kind)).toMatchObject({ changes: 1 });
      });
    },
  );

  it("writes without a key that run side by side are told as if each were alone", async () => {
    await atDesk(manyRanges, async (desk) => {
      const slow = one(`UPDATE t SET v = (SELECT max(i) FROM (${UP_TO_FOUR})) WHERE id = 1`);
      for (let i = 0; i < 3; i++) {
        const both = [slow, one(`UPDATE t SET v = ${i} WHERE id = 2`)];
        const told = await Promise.all(both.map((send) => desk.sendUnder(undefined, send)));
        expect(told).toMatchObject([{ changes: 1 }, { changes: 1 }]);
      }
    });
  });

  it("a write whose table has gone since is told as it was", async () => {
    await atDesk(manyRanges, async (desk) => {
      await desk.send(one("CREATE TABLE u(a)"));
      const key = desk.key();
      const insert = one("INSERT INTO u SELECT id FROM t");
      expect(await desk.send(insert, key)).toEqual({ rows: [], changes: 4 });
      expect(await desk.send(one("DROP TABLE u"))).toEqual({ rows: [], changes: 0 });
      expect(await desk.send(insert, key)).toEqual({ rows: [], changes: 4 });
      expect(await desk.send(insert)).toBe("SQLITE_ERROR: no such table: u");
    });
  });
});
