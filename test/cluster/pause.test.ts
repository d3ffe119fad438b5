/**
 * A leader that is stopped for longer than its election timeout (SIGSTOP) does not know that it was replaced when it
 * goes on: readers on all nodes must never be shown what was true before, by it or by anybody.
 */
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { checkMonotonic, type MonotonicEvent } from "../sim/checkers/monotonic.js";
import { checkRegisters, type RegisterOperation } from "../sim/checkers/register.js";
import { Cluster, until } from "./harness.js";

const ROUNDS = Number(process.env.OSTRAKA_TEST_PAUSES ?? 2);
const READERS_PER_NODE = 3;

let cluster: Cluster;
beforeEach(async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 500 });
});
afterEach(() => cluster.dispose());

/** Reads and writes of one row, with the times of their calls and answers. */
class Register {
  readonly history: MonotonicEvent[] = [];
  stopped = false;
  #value = 0;

  async raise(database: Database): Promise<void> {
    const value = ++this.#value;
    const startMs = performance.now();
    // Kept with an open end until it is answered: a failed call may have been applied all the same.
    const at = this.history.push({
      kind: "write",
      client: "writer",
      value,
      startMs,
      endMs: Number.POSITIVE_INFINITY,
    });
    await database.execute("update register set value = ? where id = 1", [value]);
    this.history[at - 1] = { ...this.history[at - 1]!, endMs: performance.now() };
  }

  async read(database: Database, client: string): Promise<void> {
    while (!this.stopped) {
      const startMs = performance.now();
      const row = (await database.execute("select value from register where id = 1")).rows[0]!;
      this.history.push({
        kind: "read",
        client,
        value: Number(row.value),
        startMs,
        endMs: performance.now(),
      });
    }
  }
}

it("never shows a stale value when a stopped leader goes on", async () => {
  const register = new Register();
  const first = await cluster.connect();
  await first.exec(
    "create table register (id integer primary key, value integer not null); insert into register values (1, 0)",
  );
  register.history.push({ kind: "write", client: "setup", value: 0, startMs: 0, endMs: performance.now() });
  // Each reader talks to its own node only, the stopped one too: what is asked meanwhile is answered when it goes on.
  const readers: Promise<void>[] = [];
  for (const node of cluster.nodes)
    for (let i = 0; i < READERS_PER_NODE; i++)
      readers.push(register.read(await cluster.connect([node]), `reader ${i} on node ${node.id}`));
  const pauses: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const leader = await cluster.leader();
    const others = await cluster.connect(cluster.others(leader));
    await register.raise(others);
    leader.signal("SIGSTOP");
    const stoppedMs = performance.now();
    let pauseMs: number | undefined;
    try {
      // Acknowledged by the others: the stopped one has been replaced.
      for (let i = 0; i < 20; i++) {
        await register.raise(others);
        pauseMs ??= performance.now() - stoppedMs;
      }
    } finally {
      leader.signal("SIGCONT");
    }
    pauses.push((pauseMs ?? Number.NaN) / cluster.electionTimeoutMs);
    const before = register.history.length;
    await register.raise(others);
    const name = `on node ${leader.id}`;
    await until("the node that was stopped answers again", () =>
      register.history.slice(before).some(({ client }) => client.endsWith(name)),
    );
    await register.raise(others);
  }
  register.stopped = true;
  await Promise.all(readers);
  expect(checkMonotonic(register.history)).toEqual({ verdict: "valid", problems: [] });
  expect(checkRegisters(register.history.map(asOperation), { initial: null })).toEqual({
    verdict: "valid",
    problems: [],
  });
  await cluster.checkDigests(first);
  const told = pauses.map((pause) => pause.toFixed(2)).join(" ");
  process.stderr.write(`pauses of writes after a leader hangs, in election timeouts: ${told}\n`);
});

function asOperation({ kind, client, value, startMs, endMs }: MonotonicEvent): RegisterOperation {
  return { key: "register", client, action: { kind, value }, startMs, endMs };
}
