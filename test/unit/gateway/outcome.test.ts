/** What became of a transaction, asked at a gateway that does not know of every range. */
import { afterEach, describe, expect, it } from "vitest";
import { UserError } from "../../../src/base/errors.js";
import { type GroupId, groupId, transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { autocommitId, committedBefore } from "../../../src/gateway/attempts.js";
import { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { DEFAULT_LIMITS } from "../../../src/gateway/replica.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { closeWorlds, key, type LeaderWorld, newWorld, run } from "../range/leader-fixture.js";

afterEach(closeWorlds);

const CHILD = groupId(20);

interface Cluster {
  readonly parent: LeaderWorld;
  readonly child: LeaderWorld;
  readonly db: GatewayDatabase;
  readonly deadline: Deadline;
}

/** A range that was split; the gateway has yet to hear of it, and so has meta. `whole`: the gateway has a replica. */
async function split(whole: boolean): Promise<Cluster> {
  const parent = await newWorld();
  await run(parent, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 1), (9, 9)");
  const before: RangeDescriptor = (await parent.leader.describe()).descriptor;
  const { id } = parent.schema.snapshot.tables.find(({ name }) => name === "t")!;
  await parent.leader.split(encodeKey(id, [6n]), CHILD);
  const child = await parent.child();
  let directory = new RangeDirectory([before]);
  const leaders = new Map<GroupId, LeaderWorld>([
    [before.range, parent],
    [CHILD, child],
  ]);
  const ranges = {
    directory: () => directory,
    learn: (moved: string) => {
      directory = directory.with(JSON.parse(moved) as RangeDescriptor[]);
    },
    client: (range: GroupId) => leaders.get(range)!.leader,
    local: (range: GroupId) => (whole && range === before.range ? { store: parent.store } : undefined),
    refresh: async () => undefined,
    refreshSchema: async () => undefined,
    coordinator: { inquire: async () => ({ decision: "aborted", answer: undefined }) },
  };
  const { clock } = parent;
  const options = { clock, limits: DEFAULT_LIMITS, ranges } as unknown;
  const db = new GatewayDatabase(options as ConstructorParameters<typeof GatewayDatabase>[0]);
  const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
  return { parent, child, db, deadline };
}

/** While time goes by. */
async function asked<T>({ parent }: Cluster, answer: Promise<T>): Promise<T> {
  let over = false;
  const settled = answer.finally(() => {
    over = true;
  });
  settled.catch(() => undefined);
  while (!over) await parent.clock.advance(10);
  return settled;
}

describe.each([true, false])(
  "an outcome asked for where a split is not known of (own replica: %s)",
  (whole) => {
    it("is that of a write which the new range has committed", async () => {
      const cluster = await split(whole);
      const { child, db, deadline } = cluster;
      const written = key(child);
      const statement = { sql: "UPDATE t SET v = 10 WHERE id = 9", params: [] };
      const result = await child.leader.write({ key: written, statement, flags: 0, lastInsertRowid: 0n });
      expect(result).toMatchObject({ ok: true });
      const outcome = db.outcome(transactionId(autocommitId(written)), deadline);
      expect(await asked(cluster, outcome)).toBe("committed");
      // Sent again, it fails because of what it has done: what it did then is told.
      const failure = new UserError("SQLITE_CONSTRAINT_UNIQUE", "UNIQUE constraint failed: t.v");
      const before = committedBefore(db, written, failure, deadline);
      expect(await asked(cluster, before)).toMatchObject([{ changes: 1 }]);
    });

    it("is final at the new range", async () => {
      const cluster = await split(whole);
      const { child, db, deadline } = cluster;
      const late = key(child);
      expect(await asked(cluster, db.outcome(transactionId(autocommitId(late)), deadline))).toBe("aborted");
      const statement = { sql: "UPDATE t SET v = 10 WHERE id = 9", params: [] };
      const result = await child.leader.write({ key: late, statement, flags: 0, lastInsertRowid: 0n });
      expect(result).toMatchObject({
        ok: false,
        error: ["retry", "OSTRAKA_RETRY", expect.any(String), autocommitId(late)],
      });
    });
  },
);
