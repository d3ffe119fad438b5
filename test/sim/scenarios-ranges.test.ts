/**
 * Scenarios over several ranges that must exist by name, each on several seeds (which draw delays, and with them who is
 * how far when it happens). `SEED=n` plays one seed.
 *
 * The database: accounts in two ranges, and transfers between them. Whatever happens, everybody who adds up all
 * accounts finds the same sum, what was told of a transfer is so, and in the end nothing is left in doubt.
 */
import { describe, expect, it } from "vitest";
import { AmbiguousError } from "../../src/base/errors.js";
import {
  COORDINATOR_GROUP,
  FIRST_RANGE_GROUP,
  type GroupId,
  META_GROUP,
  nodeId,
} from "../../src/base/ids.js";
import { Deadline } from "../../src/gateway/deadline.js";
import { collectResult } from "../../src/gateway/outcomes.js";
import type { RangeService } from "../../src/range/types.js";
import type { ExecuteResult } from "../../src/rpc/gateway.js";
import { Accounts, INITIAL } from "./world/accounts.js";
import type { RemoteSession, SimClient, WriteEnd } from "./world/client.js";
import type { Machine } from "./world/process.js";
import { comeToRest, coverKeyspace } from "./world/range-ends.js";
import { type RunSettings, World } from "./world/world.js";

const SEEDS = process.env.SEED === undefined ? [1, 2, 3] : [Number(process.env.SEED)];
const UNIT_MS = 200;
const MOST_TRIES = 40;
/** What is delivered after a transaction was answered is, usually, within this. */
const AFTERMATH_MS = 30;
/** Within this a node has looked which of its replicas have to go. */
const FAREWELL_MS = 1_500;

function scenario(
  name: string,
  script: (world: World, accounts: Accounts, machines: readonly [Machine, Machine, Machine]) => Promise<void>,
  fixed: NonNullable<RunSettings["fixed"]> = {},
): void {
  it(name, async () => {
    for (const seed of SEEDS) {
      const world = new World({
        seed,
        manyRanges: true,
        fixed: { founders: 3, replicas: 3, most: 3, unitMs: UNIT_MS, tuning: {}, rangeMaxRows: 0, ...fixed },
      });
      try {
        await world.play(async () => {
          const accounts = new Accounts(world);
          await accounts.create();
          const [a, b, c] = world.machines;
          await script(world, accounts, [a!, b!, c!]);
          world.heal();
          await world.allServe();
          await world.operator.finish();
          await accounts.check();
          await comeToRest(world, () => world.machines);
          await coverKeyspace(world, () => world.machines);
          await world.compareReplicas();
        });
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
}

/** As whoever merges asks a range, at its leader. */
function persist<T>(
  world: World,
  machine: Machine,
  range: GroupId,
  ask: (range: RangeService) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(world.clock, undefined, MOST_TRIES * UNIT_MS, { signal: undefined });
  return deadline.persist(() => ask(machine.process!.hosting!.view.client(range)));
}

/** Each its own leader: what happens to one node happens to one part. */
async function apart(accounts: Accounts, [a, b, c]: readonly [Machine, Machine, Machine]): Promise<void> {
  await accounts.lead(COORDINATOR_GROUP, a);
  await accounts.lead(FIRST_RANGE_GROUP, b);
  await accounts.lead(accounts.second, c);
}

/** Transfers until the moment comes, and acts then; answers what became of the transfer under way. */
async function atMoment(
  world: World,
  accounts: Accounts,
  at: Machine,
  moment: () => boolean,
  act: () => void | Promise<void>,
): Promise<WriteEnd> {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const ended = accounts.transfer(accounts.client(at));
    let over = false;
    void ended.then(
      () => world.after(AFTERMATH_MS, () => (over = true)),
      () => undefined,
    );
    let came = false;
    await world.when(() => {
      came ||= moment();
      return came || over;
    }, "the moment comes");
    if (came) await act();
    const end = await ended;
    if (came) return end;
  }
  throw new Error("the moment never came");
}

/** Why a transaction of a client on this machine cannot be committed after `during`; undefined when it can. */
function failureOf(
  accounts: Accounts,
  machine: Machine,
  during: (run: (sql: string) => Promise<ExecuteResult>) => Promise<void>,
): Promise<unknown> {
  return accounts.client(machine).request(machine.process!, async (gateway) => {
    const session = gateway.openSession("session");
    const run = (sql: string) =>
      session.execute({ sql, params: [], key: undefined, timeoutMs: undefined, signal: undefined });
    try {
      await run("BEGIN");
      await during(run);
      return await run("COMMIT").then(
        () => undefined,
        (failure: unknown) => failure,
      );
    } finally {
      await session.close();
    }
  });
}

function cutOff(world: World, machine: Machine): void {
  for (const { id } of world.machines)
    if (id !== machine.id) {
      world.wires.cut(machine.id, id);
      world.wires.cut(id, machine.id);
    }
}

describe("the coordinator's leader crashes", () => {
  const moments: readonly [string, (accounts: Accounts) => boolean][] = [
    [
      "before everything is prepared",
      (accounts) => accounts.prepared(FIRST_RANGE_GROUP) + accounts.prepared(accounts.second) > 0,
    ],
    ["with everything prepared", (accounts) => accounts.allPrepared],
    ["with the decision logged", (accounts) => accounts.undelivered > 0],
    [
      "with half of the outbox delivered",
      (accounts) =>
        accounts.undelivered > 0 &&
        accounts.prepared(FIRST_RANGE_GROUP) + accounts.prepared(accounts.second) === 1,
    ],
    [
      "before it has forgotten",
      (accounts) =>
        accounts.undelivered > 0 &&
        accounts.prepared(FIRST_RANGE_GROUP) + accounts.prepared(accounts.second) === 0,
    ],
  ];
  for (const [when, moment] of moments)
    scenario(when, async (world, accounts, machines) => {
      const [coordinator, gateway, other] = machines;
      await apart(accounts, machines);
      // What goes from the one to the other takes its time, so that one range is told before the other.
      if (when.includes("half")) world.wires.clog(coordinator.id, other.id, 40 * AFTERMATH_MS);
      await atMoment(
        world,
        accounts,
        gateway,
        () => moment(accounts),
        () => {
          coordinator.crash("power");
          world.after(3 * UNIT_MS, () => coordinator.start());
        },
      );
      await accounts.add(accounts.client(other));
      await world.sleep(4 * UNIT_MS);
    });

  scenario("and its fsync fails during a decision", async (world, accounts, machines) => {
    const [coordinator, , other] = machines;
    await apart(accounts, machines);
    coordinator.damage.ioErrors = true;
    await atMoment(
      world,
      accounts,
      other,
      () => accounts.allPrepared,
      () => coordinator.disk.failNext("sync", "EIO", /\/log\//),
    );
    await world.sleep(6 * UNIT_MS);
  });
});

describe("a participant's leader changes", () => {
  scenario(
    "between a statement and its prepare: the transaction is refused",
    async (world, accounts, machines) => {
      await apart(accounts, machines);
      const [a, b] = machines;
      const client = accounts.client(a);
      const on = await client.open();
      await client.run(on, "BEGIN");
      await client.run(on, "UPDATE t SET v = v - 1 WHERE id = 1");
      await client.run(on, "UPDATE t SET v = v + 1 WHERE id = 4");
      await accounts.lead(FIRST_RANGE_GROUP, a);
      await accounts.lead(FIRST_RANGE_GROUP, b);
      await expect(client.run(on, "COMMIT")).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
      await client.close(on);
      await world.sleep(UNIT_MS);
    },
  );

  scenario("between prepare and decision: what is held stays held", async (world, accounts, machines) => {
    const [a, b, c] = machines;
    await apart(accounts, machines);
    await atMoment(
      world,
      accounts,
      a,
      () => accounts.allPrepared,
      () => {
        b.crash("power");
        world.after(2 * UNIT_MS, () => b.start());
      },
    );
    await accounts.add(accounts.client(c));
    await world.sleep(4 * UNIT_MS);
  });
});

describe("transactions that read at several ranges", () => {
  const value = async (client: SimClient, on: RemoteSession, id: number) =>
    Number((await client.run(on, "SELECT v FROM t WHERE id = ?", [BigInt(id)])).rows[0]![0]);

  scenario("are told no mixture of two states", async (world, accounts, machines) => {
    await apart(accounts, machines);
    const [a, , c] = machines;
    const client = accounts.client(a);
    const on = await client.open();
    await client.run(on, "BEGIN");
    expect(await value(client, on, 1)).toBe(100);
    let end: WriteEnd | undefined;
    for (let tries = 0; end?.outcome !== "committed" && tries < MOST_TRIES; tries++)
      end = await accounts.transfer(accounts.client(c));
    expect(end?.outcome).toBe("committed");
    // Delivered everywhere: what is asked for next is there to be read.
    await world.sleep(UNIT_MS);
    await expect(value(client, on, 4)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await client.close(on);
  });

  scenario("are refused at COMMIT if any part has changed", async (_, accounts, machines) => {
    await apart(accounts, machines);
    const [a, , c] = machines;
    for (const changed of [1, 4]) {
      const client = accounts.client(a);
      const on = await client.open();
      await client.run(on, "BEGIN");
      for (const id of [1, 4]) await value(client, on, id);
      const written = await accounts
        .client(c)
        .write("UPDATE t SET v = v + 0 WHERE id = ? RETURNING v", [BigInt(changed)]);
      expect(written.outcome).toBe("committed");
      await expect(client.run(on, "COMMIT")).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
      await client.close(on);
    }
  });
});

describe("the ranges change while something is prepared", () => {
  const changes: readonly [string, (accounts: Accounts) => Promise<unknown>][] = [
    ["by a split", (accounts) => accounts.admin("range.split", { table: "t", at: "2" })],
    ["by a merge", (accounts) => accounts.admin("range.merge", { range: FIRST_RANGE_GROUP })],
    ["by a transfer", (accounts) => accounts.lead(FIRST_RANGE_GROUP, accounts.world.machines[2]!)],
  ];
  for (const [how, change] of changes)
    scenario(how, async (world, accounts, machines) => {
      const [a] = machines;
      await apart(accounts, machines);
      let changed: Promise<unknown> | undefined;
      await atMoment(
        world,
        accounts,
        a,
        () => accounts.allPrepared,
        () => {
          changed = change(accounts);
        },
      );
      await changed;
      await accounts.add(accounts.client(a));
    });

  scenario("again at the same key, after a merge", async (_, accounts, machines) => {
    for (let round = 0; round < 3; round++) {
      await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP });
      await accounts.transfer(accounts.client(machines[round]));
      await accounts.split(3);
      await accounts.transfer(accounts.client(machines[round]));
      await accounts.add(accounts.client(machines[2 - round]!));
    }
  });

  scenario("by a merge, with a replica that lags behind", async (world, accounts, [a, , c]) => {
    await accounts.lead(FIRST_RANGE_GROUP, a);
    for (const { id } of world.machines) if (id !== c.id) world.wires.lag(id, c.id, 5 * UNIT_MS);
    await accounts.transfer(accounts.client(a));
    await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP }, a);
    await accounts.transfer(accounts.client(a));
  });
});

describe("a merge that has begun", () => {
  scenario(
    "is gone on with by another neighbour, and the first one comes back while a replica lags behind",
    async (world, accounts, [a, b, c]) => {
      const right = accounts.second;
      const replica = (machine: Machine, range: GroupId) => machine.process!.hosting!.ranges.get(range);
      await persist(world, a, right, (range) => range.freeze(FIRST_RANGE_GROUP));
      const left = await accounts.split(2);
      // Wished for, so that placement leaves it at that.
      await accounts.admin("range.transfer", { range: left, to: a.id });
      await accounts.admin("range.transfer", { range: right, to: b.id });
      await accounts.lead(META_GROUP, b);
      const frozen = await persist(world, b, right, (range) => range.freeze(left));
      await world.when(
        () =>
          replica(c, left)?.filled === true &&
          replica(c, right)!.store.state().descriptor.generation === frozen.generation,
        "every node has a frozen replica",
      );
      // It has the command in its log, and does not learn that it is committed.
      const logged = () => replica(c, left)!.handle.status().lastIndex;
      const before = logged();
      world.wires.lag(a.id, b.id, AFTERMATH_MS);
      const ready = [a, b, c].map(({ id }) => nodeId(id));
      const absorbed = persist(world, a, left, (range) => range.absorb(frozen, ready));
      await world.when(() => logged() > before, "it is in the log");
      world.wires.cut(a.id, c.id);
      await absorbed;
      expect(replica(c, left)!.store.state().absorbed).not.toContain(right);
      await persist(world, b, right, (range) => range.freeze(FIRST_RANGE_GROUP));
      await world.when(
        () => replica(c, right)!.store.appliedIndex() >= (replica(b, right)?.store.appliedIndex() ?? 0),
        "all that was frozen is known",
      );
      // It hears that the range was merged away, and that it is to go.
      await world.when(
        () =>
          replica(b, right) === undefined && c.process!.hosting!.view.directory().get(right) === undefined,
        "others have let go of it",
      );
      await world.sleep(FAREWELL_MS);
      expect(replica(c, left)!.store.state().absorbed).not.toContain(right);
      expect(replica(c, right)).toBeDefined();
      world.wires.heal();
      await world.when(
        () => replica(c, left)!.store.state().absorbed.includes(right),
        "all have taken it in",
      );
      await accounts.transfer(accounts.client(c));
    },
  );

  scenario(
    "is finished without a member that has died, which lets its replica go when it is back",
    async (world, accounts, [a, b, c]) => {
      const right = accounts.second;
      await accounts.lead(FIRST_RANGE_GROUP, a);
      await accounts.lead(right, b);
      c.crash("power");
      await persist(world, b, right, (range) => range.freeze(FIRST_RANGE_GROUP));
      await world.when(() => accounts.ranges.length === 1, "whoever leads meta finishes it");
      await accounts.transfer(accounts.client(a));
      c.start();
      const here = () => c.process?.hosting?.ranges;
      await world.when(
        () => here()?.get(FIRST_RANGE_GROUP)?.filled === true && here()!.get(right) === undefined,
        "it has the one range, and nothing of the other",
      );
      await accounts.transfer(accounts.client(c));
    },
  );

  scenario("ends when another range has come in between", async (world, accounts, [a, b, c]) => {
    const right = accounts.second;
    await accounts.lead(FIRST_RANGE_GROUP, a);
    await accounts.lead(right, b);
    await persist(world, b, right, (range) => range.freeze(FIRST_RANGE_GROUP));
    // It waits for the one that does not answer.
    c.crash("power");
    const merge = accounts.admin("range.merge", { range: FIRST_RANGE_GROUP }, b);
    const ended = expect(merge).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    const left = await accounts.split(2);
    await ended;
    c.start();
    await accounts.admin("range.merge", { range: left }, b);
    await accounts.transfer(accounts.client(c));
  });

  scenario("does not hide what a change of the schema has read in it", async (_, accounts, [a, b]) => {
    const error = await failureOf(accounts, a, async (run) => {
      await run("UPDATE t SET v = v - 5 WHERE id = 1");
      await run("UPDATE t SET v = v + 5 WHERE id = 4");
      await run("CREATE TABLE u(a)");
      const within = "UPDATE t SET v = v + (id - 3.5) * 2 WHERE id IN (3, 4)";
      expect(await accounts.client(b).write(within, [])).toMatchObject({ outcome: "committed" });
      await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP }, b);
    });
    expect(error).toMatchObject({ code: "OSTRAKA_RETRY" });
    await accounts.split(3);
  });

  scenario("of what was split off does not hide what was written there", async (_, accounts, [a, b]) => {
    await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP });
    const error = await failureOf(accounts, a, async (run) => {
      // Endless, as far as anybody can tell.
      const numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4)";
      await collectResult(await run(`${numbers} SELECT v FROM t JOIN n ON id = i`), 1e6);
      await accounts.split(3);
      const within = "UPDATE t SET v = v + (id - 3.5) * 2 WHERE id IN (3, 4)";
      expect(await accounts.client(b).write(within, [])).toMatchObject({ outcome: "committed" });
      await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP }, b);
      await run(`UPDATE t SET v = ${INITIAL} WHERE id = 4`);
    });
    expect(error).toMatchObject({ code: "OSTRAKA_RETRY" });
    await accounts.split(3);
  });
});

describe("readers", () => {
  scenario("that meet what a client who died has prepared", async (world, accounts, machines) => {
    const [a, b, c] = machines;
    // The gateway leads nothing.
    await accounts.lead(COORDINATOR_GROUP, a);
    await accounts.lead(FIRST_RANGE_GROUP, a);
    await accounts.lead(accounts.second, b);
    void accounts.transfer(accounts.client(c)).catch(() => undefined);
    await world.when(() => accounts.allPrepared || accounts.undelivered > 0, "it is prepared");
    c.crash("power");
    accounts.expected = undefined;
    const reader = accounts.client(b);
    let read = false;
    for (let tries = 0; !read && tries < 100; tries++) read = await accounts.add(reader);
    expect(read).toBe(true);
  });

  scenario("of both leaders of a range, one of which was replaced", async (world, accounts, machines) => {
    const [a, b, c] = machines;
    await accounts.lead(COORDINATOR_GROUP, b);
    await accounts.lead(accounts.second, b);
    await accounts.lead(FIRST_RANGE_GROUP, a);
    for (let round = 0; round < 4; round++) {
      const old = world.leader(FIRST_RANGE_GROUP)!;
      const [next, third] = [a, b, c].filter((machine) => machine !== old) as [Machine, Machine];
      // What it says still arrives; what is said to it does not.
      for (const { id } of [next, third]) world.wires.cut(id, old.id);
      const reads = Promise.all([old, next].map((machine) => accounts.add(accounts.client(machine))));
      await world.when(
        () => world.leader(FIRST_RANGE_GROUP) !== undefined && world.leader(FIRST_RANGE_GROUP) !== old,
        "another one leads",
      );
      await accounts.transfer(accounts.client(next));
      await Promise.all([...[old, next].map((machine) => accounts.add(accounts.client(machine))), reads]);
      world.wires.heal();
      await world.sleep(2 * UNIT_MS);
    }
  });

  scenario(
    "over overlapping ranges see independent writes in one order",
    async (world, accounts, machines) => {
      await apart(accounts, machines);
      for (let round = 0; round < 6; round++) {
        const [x, y] = await Promise.all(
          [1, 4].map((id, i) =>
            accounts.client(machines[i + 1]).write("UPDATE t SET v = v + 0 WHERE id = ? RETURNING v", [id]),
          ),
        );
        expect([x!.outcome, y!.outcome]).toEqual(["committed", "committed"]);
        await Promise.all(machines.map((machine) => accounts.add(accounts.client(machine))));
        await Promise.all([
          accounts.transfer(accounts.client(machines[0])),
          ...machines.map((machine) => accounts.add(accounts.client(machine))),
        ]);
        await world.sleep(5);
      }
    },
  );

  scenario(
    "of more ranges than another node has processes to serve them",
    async (world, accounts) => {
      for (let at = 10; at < 150; at += 10) await accounts.split(at);
      const late = world.join()!;
      await world.when(() => late.serving && late.process!.hosting!.view.directory().complete, "it serves");
      const beganMs = world.clock.monotonicMs();
      const read = await Promise.all(Array.from({ length: 6 }, () => accounts.add(accounts.client(late))));
      expect(read).not.toContain(false);
      expect(world.clock.monotonicMs() - beganMs).toBeLessThan(5 * UNIT_MS);
    },
    { most: 4 },
  );

  scenario("with a directory that is several generations old", async (world, accounts, machines) => {
    const [a, b, c] = machines;
    for (const group of [COORDINATOR_GROUP, FIRST_RANGE_GROUP, accounts.second])
      await accounts.lead(group, a);
    cutOff(world, c);
    const ids = [accounts.split(2), accounts.split(4)];
    await Promise.all(ids);
    await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP }, b).catch(() => undefined);
    await accounts.transfer(accounts.client(a));
    world.wires.heal();
    const late = accounts.client(c);
    await accounts.add(late);
    await accounts.transfer(late);
    await accounts.add(late);
  });
});

describe("ranges of a table that is dropped", () => {
  scenario(
    "go into their neighbours, one that somebody has split by hand stays",
    async (world, accounts, machines) => {
      const client = accounts.client();
      const count = () => machines[0].process!.hosting!.view.directory().ranges.length;
      const run = async (sql: string) => expect((await client.write(sql, [])).outcome).toBe("committed");
      for (let round = 0; round < 2; round++) {
        await run("CREATE TABLE u(id INTEGER PRIMARY KEY)");
        await run(`INSERT INTO u VALUES ${Array.from({ length: 40 }, (_, i) => `(${i})`).join()}`);
        await world.when(() => count() > 5, "it was split");
        await accounts.transfer(client);
        await run("DROP TABLE u");
        await world.when(() => count() === 2, "its ranges are gone");
      }
    },
    { rangeMaxRows: 8 },
  );
});

describe("children", () => {
  scenario("are asked for a vote before their split has come", async (world, accounts, [a, b, c]) => {
    await accounts.lead(FIRST_RANGE_GROUP, a);
    for (let round = 0; round < 3; round++) {
      world.wires.lag(a.id, c.id, UNIT_MS);
      const child = await accounts.split(2 + 10 * round);
      if (child === undefined) continue;
      await world.when(() => world.leader(child) !== undefined, "somebody leads the child");
      await accounts.add(accounts.client(b));
    }
    expect(world.sometimes.get("a child was asked for a vote before it was there")).toBeGreaterThan(0);
  });
});

describe("a split whose answer was lost", () => {
  scenario("is made anew where it was merged back meanwhile", async (world, accounts, [a, b]) => {
    await accounts.lead(FIRST_RANGE_GROUP, a);
    const client = b.process!.hosting!.view.client(FIRST_RANGE_GROUP);
    const split = client.split.bind(client);
    client.split = async (key, child) => {
      client.split = split;
      await split(key, child);
      await world.when(() => world.leader(child) !== undefined, "somebody leads the child");
      await accounts.admin("range.merge", { range: FIRST_RANGE_GROUP });
      await accounts.lead(FIRST_RANGE_GROUP, b);
      throw new AmbiguousError("the answer was lost", undefined);
    };
    await accounts.admin("range.split", { table: "t", at: "2" }, b);
    await accounts.add(accounts.client(a));
    await accounts.transfer(accounts.client(b));
  });
});

describe("a replica that leaves a node", () => {
  scenario(
    "whose disk is full stays until it can be recorded, and may come back",
    async (world, accounts) => {
      const range = accounts.second;
      const hosts = (machine: Machine) => machine.process?.hosting?.ranges.get(range) !== undefined;
      const voters = (machine: Machine) =>
        machine.process!.hosting!.ranges.get(range)?.handle.conf.voters.map(Number) ?? [];
      const settled = (machine: Machine) =>
        voters(world.machines.find(hosts)!).includes(machine.id) === hosts(machine);
      await world.when(
        () => world.machines.filter(hosts).length === 3 && world.machines.every(settled),
        "three nodes have the range",
      );
      const from = world.machines.find((machine) => hosts(machine) && world.leader(range) !== machine)!;
      const to = world.machines.find((machine) => !hosts(machine))!;
      from.disk.failNext("write", "ENOSPC", /departed/);
      await accounts.admin("range.move", { range, from: from.id, to: to.id });
      await world.when(() => !hosts(from), "it has left");
      await world.sleep(2 * FAREWELL_MS);
      expect(hosts(from)).toBe(false);
      await accounts.admin("range.move", { range, from: to.id, to: from.id });
      expect(hosts(from)).toBe(true);
      await accounts.transfer(accounts.client(from));
    },
    { founders: 4, most: 4 },
  );
});

describe("writes", () => {
  scenario("over several ranges that failed are not called committed", async (_, accounts, [a, b]) => {
    const client = accounts.client(a);
    const end = await client.write("INSERT INTO t(id, v) VALUES (2000, 0), (4, 0), (3000, 0)", []);
    expect(end).toMatchObject({ outcome: "aborted", error: { code: "SQLITE_CONSTRAINT_PRIMARYKEY" } });
    const told = await accounts
      .client(b)
      .resolve(`${client.name}:1@${client.world.clock.wallMs().toString(36)}`);
    expect(told.outcome).not.toBe("committed");
  });

  scenario("over several ranges whose answer was lost are done once", async (world, accounts, machines) => {
    await apart(accounts, machines);
    for (let round = 0; round < 6; round++) {
      const gateway = machines[round % 3]!;
      const client = accounts.client();
      client.pin(gateway.id);
      const written = client.write(
        "UPDATE t SET v = v + (CASE id WHEN 1 THEN -1 WHEN 4 THEN 1 ELSE 0 END)",
        [],
      );
      await world.sleep(2 + 3 * round);
      world.wires.cut(gateway.id, client.id);
      const end = await written;
      world.wires.heal();
      if (end.outcome === "committed" && accounts.expected !== undefined) accounts.expected--;
      if (end.outcome === "unknown") accounts.expected = undefined;
      await accounts.check();
    }
  });
});
