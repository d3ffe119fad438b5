import { expect, test } from "vitest";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { NodeGateway } from "../../../src/gateway/gateway.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

test("a session goes on counting from where it was at another node", () => {
  const db = { clock: new ManualClock(), random: new SeededRandom(1) } as unknown as GatewayDatabase;
  const options = { db, admin: {} } as unknown as ConstructorParameters<typeof NodeGateway>[0];
  const gateway = new NodeGateway(options);
  const counts = { changes: 2, totalChanges: 30, lastInsertRowid: 77n };
  expect(gateway.openSession("session", counts).counts?.()).toEqual(counts);
  const none = { changes: 0, totalChanges: 0, lastInsertRowid: 0n };
  expect(gateway.openSession("session").counts?.()).toEqual(none);
  expect(gateway.openSession("autocommit").counts?.()).toBeUndefined();
});
