/** Rows of RETURNING that do not fit one frame: what was written is told in full, however it was asked for. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { connect, type Database, type Executor } from "../../src/driver/index.js";
import { collectResult } from "../../src/gateway/outcomes.js";
import type { Session } from "../../src/rpc/gateway.js";
import { LocalGateway, type LocalServer, startLocalServer } from "./local-gateway.js";

/** Answers writes at once, as ranges do. */
class WholeAnswers extends LocalGateway {
  override openSession(kind: "session" | "autocommit"): Session {
    const session = super.openSession(kind);
    const execute = session.execute.bind(session);
    session.execute = async (request) => {
      const result = await execute(request);
      if (!request.sql.startsWith("update")) return result;
      const outcome = await collectResult(result, Number.POSITIVE_INFINITY);
      return { kind: "outcome", outcome: { ...outcome, changes: outcome.rowCount } };
    };
    return session;
  }
}

let gateway: LocalGateway;
let server: LocalServer;
let db: Database;

beforeEach(async () => {
  gateway = new WholeAnswers();
  server = await startLocalServer({ gateway });
  db = await connect(server.url);
  await db.execute("create table t (id integer primary key, n, b)");
});

afterEach(async () => {
  await db.close();
  await server.close();
  gateway.dispose();
});

const UPDATE = "update t set n = n + 1 returning id, n, b";

it("come as to a query, to the pool, sessions and transactions", async () => {
  for (let i = 0; i < 3; i++) await db.execute("insert into t values (?, 0, zeroblob(12000000))", [10 * i]);
  await db.execute("insert into t values (5, 0, 'small')");
  const session = await db.session();
  const tx = await db.begin();
  let n = 0;
  const told = (): unknown[][] => [0, 5, 10, 20].map((id) => [id, n, id === 5 ? 5 : 12_000_000]);
  const shown = (row: ArrayLike<unknown>): unknown[] => [
    row[0],
    row[1],
    (row[2] as { length: number }).length,
  ];
  for (const executor of [tx, db, session] as Executor[]) {
    n++;
    const { rows, rowsAffected } = await executor.execute(UPDATE);
    expect([Array.from(rows, shown), rowsAffected]).toEqual([told(), 4]);
    n++;
    const streamed: unknown[] = [];
    for await (const row of executor.iterate(UPDATE)) streamed.push(shown(row));
    expect(streamed).toEqual(told());
    if (executor === tx) await tx.commit();
  }
  await session.close();
});

it("say that the statement was carried out when one of them is too large", async () => {
  await db.execute("insert into t values (1, 0, zeroblob(40000000))");
  await expect(db.execute(UPDATE)).rejects.toMatchObject({
    code: "OSTRAKA_TOO_LARGE",
    message: expect.stringMatching(/was carried out, but a row of 4000\d{4} bytes/),
  });
  expect((await db.execute("select n from t")).rows[0]!.n).toBe(1);
});
