/**
 * Scenarios that must exist by name: what other systems got wrong, played on whole nodes in a simulated world, each on
 * several seeds (which draw delays, and with them who is how far when it happens). `SEED=n` plays one seed.
 *
 * test/unit/raft/checklist.md says where each of the bugs that others shipped is tested, here or elsewhere.
 */
import { describe, expect, it } from "vitest";
import { FIRST_RANGE_GROUP, nodeId } from "../../src/base/ids.js";
import type { NodeTuning } from "../../src/node/node.js";
import { type SimClient, scriptedClient, type WriteEnd } from "./world/client.js";
import type { Machine } from "./world/process.js";
import { type RunSettings, World } from "./world/world.js";

const SEEDS = process.env.SEED === undefined ? [1, 2, 3, 4, 5] : [Number(process.env.SEED)];
const UNIT_MS = 200;
/** After this no node goes by what a peer's clock showed before it was set. */
const CORRECTED_MS = 25_000;
/** Logs are cut soon, so that whoever was away for a moment needs a snapshot. */
const SHORT_LOGS: NodeTuning = {
  segmentBytes: 16 * 1024,
  host: { maxLogEntries: 20, tailEntries: 0, maxLogBytes: 256 * 1024, tailBytes: 64 * 1024 },
};

/** One row that is raised by one, again and again, by writes that are acknowledged one after the other. */
class Register {
  value = 0;
  #clients = 200;

  constructor(readonly world: World) {}

  client(node: Machine | undefined): SimClient {
    return scriptedClient(this.world, ++this.#clients, node);
  }

  async create(): Promise<void> {
    const client = this.client(undefined);
    for (const sql of [
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, at TEXT DEFAULT CURRENT_TIMESTAMP, dice DEFAULT (random()))",
      "INSERT INTO t(id, v) VALUES (1, 0)",
    ])
      expect((await client.write(sql, [])).outcome).toBe("committed");
  }

  /** Raises it through `client`; only what is acknowledged counts. */
  async raise(client: SimClient): Promise<WriteEnd> {
    const end = await client.write("UPDATE t SET v = v + 1 WHERE id = 1", []);
    if (end.outcome === "committed") this.value++;
    expect(end.outcome).not.toBe("unknown");
    return end;
  }

  async acknowledged(client: SimClient): Promise<void> {
    expect((await this.raise(client)).outcome).toBe("committed");
  }

  /** What a client reads, where it is answered, is never older than what was acknowledged before. */
  async read(client: SimClient): Promise<number | undefined> {
    const { value } = this;
    const rows = await client.read("SELECT v FROM t WHERE id = 1");
    if (rows === undefined) return undefined;
    expect(Number(rows[0]![0])).toBeGreaterThanOrEqual(value);
    return Number(rows[0]![0]);
  }
}

function scenario(
  name: string,
  script: (world: World, register: Register) => Promise<void>,
  fixed: NonNullable<RunSettings["fixed"]> = {},
): void {
  it(name, async () => {
    for (const seed of SEEDS) {
      const world = new World({ seed, fixed: { unitMs: UNIT_MS, tuning: {}, ...fixed } });
      try {
        await world.play(async () => {
          const register = new Register(world);
          await register.create();
          await script(world, register);
          world.heal();
          await world.allServe();
          await world.compareReplicas();
        });
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
}

function leaderOf(world: World): Machine {
  return world.leader()!;
}

/** Neither its peers nor clients reach it, nor it them. */
function cutOff(world: World, machine: Machine): void {
  for (const { id } of world.machines)
    if (id !== machine.id) {
      world.wires.cut(machine.id, id);
      world.wires.cut(id, machine.id);
    }
}

/** The node that leads after another one did, at the first moment at which it thinks so. */
async function nextLeader(world: World, before: Machine): Promise<Machine> {
  await world.when(() => world.leader() !== undefined && world.leader() !== before, "another one leads");
  return leaderOf(world);
}

async function transfer(world: World, to: Machine): Promise<void> {
  const leader = leaderOf(world);
  await leader.process!.host!.group(FIRST_RANGE_GROUP).transferLeadership(nodeId(to.id));
}

function otherThan(world: World, ...machines: Machine[]): Machine {
  return world.machines.find((machine) => !machines.includes(machine))!;
}

describe("reads", () => {
  scenario(
    "right after an election, before the term's first commit, show what the last leader acknowledged",
    async (world, register) => {
      for (let round = 0; round < 3; round++) {
        const leader = leaderOf(world);
        await register.acknowledged(register.client(leader));
        cutOff(world, leader);
        const next = await nextLeader(world, leader);
        expect(await register.read(register.client(next))).toBe(register.value);
        world.wires.heal();
        await world.sleep(2 * UNIT_MS);
      }
    },
  );

  scenario(
    "of a single voter after a crash show what it acknowledged, though its commit index was not written with it",
    async (world, register) => {
      const only = leaderOf(world);
      for (let round = 0; round < 5; round++) {
        await register.acknowledged(register.client(only));
        only.crash("power");
        only.start();
        await world.when(() => only.serving, "it serves again");
        expect(await register.read(register.client(only))).toBe(register.value);
      }
    },
    { founders: 1 },
  );

  scenario(
    "at a leader that gave its leadership away are not answered from a lease",
    async (world, register) => {
      for (let round = 0; round < 4; round++) {
        const leader = leaderOf(world);
        await register.acknowledged(register.client(leader));
        const next = otherThan(world, leader);
        await transfer(world, next);
        await register.acknowledged(register.client(next));
        expect(await register.read(register.client(leader))).toBe(register.value);
      }
    },
  );

  scenario(
    "at a leader that was stopped, and goes on after it was replaced, are not old",
    async (world, register) => {
      const leader = leaderOf(world);
      await register.acknowledged(register.client(leader));
      leader.clock.pause(8 * UNIT_MS);
      const next = await nextLeader(world, leader);
      await register.acknowledged(register.client(next));
      // Asked while it is stopped, and answered by it when it goes on, if at all.
      const asked = Array.from({ length: 5 }, () => register.read(register.client(leader)));
      await world.sleep(6 * UNIT_MS);
      await Promise.all(asked);
      await register.read(register.client(leader));
    },
  );

  scenario(
    "at a leader that is cut off are not answered, whatever its wall clock says",
    async (world, register) => {
      const leader = leaderOf(world);
      await register.acknowledged(register.client(leader));
      cutOff(world, leader);
      leader.clock.wallErrorMs = -3_600_000;
      leader.clock.setRate(0.5);
      const next = await nextLeader(world, leader);
      await register.acknowledged(register.client(next));
      const reader = register.client(leader);
      const early = register.read(reader);
      await world.sleep(4 * UNIT_MS);
      await register.read(reader);
      world.wires.heal();
      await early;
    },
  );
});

describe("reads at a follower that lags behind", () => {
  scenario("wait for what was acknowledged before they began", async (world, register) => {
    const leader = leaderOf(world);
    const follower = otherThan(world, leader);
    const client = register.client(leader);
    for (let round = 0; round < 4; round++) {
      world.wires.lag(leader.id, follower.id, UNIT_MS / 2);
      await register.acknowledged(client);
      expect(await register.read(register.client(follower))).toBe(register.value);
    }
  });

  scenario(
    "share no round with reads that began before a write was acknowledged",
    async (world, register) => {
      const leader = leaderOf(world);
      const follower = otherThan(world, leader);
      const client = register.client(leader);
      for (let round = 0; round < 4; round++) {
        // Its answer is under way for a while, and what is replicated for longer.
        world.wires.clog(leader.id, follower.id, UNIT_MS / 4);
        world.wires.lag(leader.id, follower.id, UNIT_MS / 2);
        const early = register.read(register.client(follower));
        await world.sleep(3);
        await register.acknowledged(client);
        expect(await register.read(register.client(follower))).toBe(register.value);
        await early;
        await world.sleep(UNIT_MS);
      }
    },
  );
});

describe("transactions", () => {
  scenario("of a leader that lost its leadership and has it again are refused", async (world, register) => {
    for (const readonly of [false, true]) {
      const leader = leaderOf(world);
      const client = register.client(leader);
      const on = await client.open();
      await client.run(on, "BEGIN");
      const { rows } = await client.run(on, "SELECT v FROM t WHERE id = 1");
      expect(Number(rows[0]![0])).toBe(register.value);
      const other = otherThan(world, leader);
      await transfer(world, other);
      await register.acknowledged(register.client(other));
      await transfer(world, leader);
      await world.when(
        () => leader.process!.host!.group(FIRST_RANGE_GROUP).status().leaderReady,
        "it leads again",
      );
      const committed = async (): Promise<unknown> => {
        if (!readonly) await client.run(on, "UPDATE t SET v = ? WHERE id = 1", [register.value]);
        return client.run(on, "COMMIT");
      };
      await expect(committed()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
      await client.close(on);
      expect(await register.read(client)).toBe(register.value);
    }
  });
});

describe("transactions whose COMMIT was on its way when its leader was lost", () => {
  scenario("are told as what they have become", async (world, register) => {
    for (let round = 0; round < 3; round++) {
      const leader = leaderOf(world);
      const other = otherThan(world, leader);
      const logged = () => other.process!.host!.group(FIRST_RANGE_GROUP).status().lastIndex;
      let before = Number.POSITIVE_INFINITY;
      const client = register.client(other);
      const ended = client.transaction(
        "BEGIN",
        async (run) => {
          await run("UPDATE t SET v = v + 1 WHERE id = 1");
          before = logged();
        },
        undefined,
      );
      await world.when(() => logged() > before, "its entry is on the way");
      leader.crash("power");
      const { outcome } = (await ended).end;
      leader.start();
      await world.allServe();
      const value = await register.read(client);
      if (outcome === "unknown") register.value = value!;
      else if (outcome === "committed") register.value++;
      expect(value).toBe(register.value);
    }
  });
});

describe("writes", () => {
  scenario(
    "repeated to a new leader by a client that lost the answer are done once",
    async (world, register) => {
      for (let delayMs = 0.3; delayMs < 6; delayMs += 0.5) {
        const leader = leaderOf(world);
        const client = register.client(undefined);
        client.pin(leader.id);
        const raised = register.raise(client);
        await world.sleep(delayMs);
        cutOff(world, leader);
        world.wires.cut(leader.id, client.id);
        await nextLeader(world, leader);
        await raised;
        expect(await register.read(register.client(leaderOf(world)))).toBe(register.value);
        world.wires.heal();
        await world.sleep(UNIT_MS);
      }
      expect(world.sometimes.get("a write was sent again after its answer was lost")).toBeGreaterThan(0);
    },
  );

  scenario(
    "acknowledged before the leader's fsync failed are kept, and the leader stops",
    async (world, register) => {
      const leader = leaderOf(world);
      await register.acknowledged(register.client(leader));
      leader.damage.ioErrors = true;
      leader.wanted = false;
      leader.disk.failNext("sync", "EIO", /\/log\//);
      const client = register.client(undefined);
      client.pin(leader.id);
      await register.raise(client);
      await world.when(() => leader.process === undefined, "the leader stops");
      expect(world.sometimes.get("a node went down by itself: OSTRAKA_IO")).toBe(1);
      const next = await nextLeader(world, leader);
      expect(await register.read(register.client(next))).toBe(register.value);
      leader.wanted = true;
      leader.start();
      await world.when(() => leader.serving, "it serves again");
      expect(await register.read(register.client(leader))).toBe(register.value);
    },
  );

  scenario(
    "fail while all disks are full, lose nothing, and go on once there is room",
    async (world, register) => {
      await register.acknowledged(register.client(leaderOf(world)));
      for (const { disk } of world.machines) disk.capacityBytes = disk.usedBytes();
      const ends: Promise<WriteEnd>[] = [];
      const clients = world.machines.map(() => register.client(undefined));
      for (const client of clients) {
        const row = client.write("INSERT INTO t(v) VALUES (?)", [client.id]);
        ends.push(row);
      }
      await world.sleep(10 * UNIT_MS);
      for (const { disk } of world.machines) disk.capacityBytes = Number.POSITIVE_INFINITY;
      const rows = await Promise.all(ends);
      await register.acknowledged(register.client(undefined));
      const found = (await register.client(undefined).read("SELECT v FROM t WHERE id <> 1"))!.map(([v]) =>
        Number(v),
      );
      for (const [i, { outcome }] of rows.entries())
        if (outcome !== "unknown")
          expect(found.includes(clients[i]!.id), outcome).toBe(outcome === "committed");
    },
  );
});

describe("clocks", () => {
  scenario(
    "that jump by hours, all of them, forth and back, keep nobody from writing",
    async (world, register) => {
      const raise = async (): Promise<void> => {
        for (const node of world.machines) await register.acknowledged(register.client(node));
      };
      await raise();
      // Clients that have not been told of it yet go by the time that was.
      for (const hours of [5, 0, -5, 0]) {
        for (const { clock } of world.machines) clock.wallErrorMs = hours * 3_600_000;
        await raise();
        await world.sleep(CORRECTED_MS);
        const leader = leaderOf(world);
        await transfer(world, otherThan(world, leader));
        await nextLeader(world, leader);
        await raise();
      }
      expect(await register.read(register.client(undefined))).toBe(register.value);
    },
  );
});

describe("replicas", () => {
  scenario(
    "that lost their data are refused under their old flags, and never vote again",
    async (world, register) => {
      const leader = leaderOf(world);
      await register.acknowledged(register.client(leader));
      const wiped = otherThan(world, leader);
      const third = otherThan(world, leader, wiped);
      wiped.wipe();
      world.invariants.forgotten(wiped);
      wiped.start();
      await world.when(() => wiped.process === undefined, "the wiped node is refused");
      expect(world.sometimes.get("a node went down by itself: OSTRAKA_WIPED")).toBe(1);
      // One of the two that are left goes: whatever the wiped one does, there is no quorum.
      third.crash("power");
      wiped.start();
      const refused = register.raise(register.client(leader));
      await world.sleep(20 * UNIT_MS);
      expect(await register.read(register.client(leader))).toBe(undefined);
      third.start();
      await refused;
      await world.when(() => third.serving, "it serves again");
      await register.acknowledged(register.client(leader));
      expect(await register.read(register.client(third))).toBe(register.value);
      wiped.crash("process");
      wiped.wanted = false;
    },
  );

  scenario(
    "just restored and long running ones have the same state after the same commands",
    async (world, register) => {
      const leader = leaderOf(world);
      const away = otherThan(world, leader);
      const client = register.client(leader);
      const insert = async (count: number): Promise<void> => {
        for (let i = 0; i < count; i++)
          await client.write("INSERT INTO t(v) VALUES (?), (random()) RETURNING id, at, dice", [i]);
        await client.write("UPDATE t SET dice = random(), at = datetime('now') WHERE id % 3 = 0", []);
        await client.write("DELETE FROM t WHERE id % 5 = 2", []);
        await client.write(
          "INSERT OR REPLACE INTO t(id, v) SELECT id, v + changes() FROM t WHERE id % 7 = 3",
          [],
        );
      };
      for (let round = 0; round < 2; round++) {
        await insert(10);
        cutOff(world, away);
        await insert(40);
        world.wires.heal();
        await insert(10);
      }
      await world.sleep(2 * UNIT_MS);
      await world.compareReplicas();
      expect(away.process!.host!.stats().snapshotsInstalled).toBeGreaterThan(0);
    },
    { tuning: SHORT_LOGS },
  );
});

describe("members", () => {
  scenario(
    "that join become learners, then voters, and the founder can go",
    async (world, register) => {
      const founder = leaderOf(world);
      const group = (machine: Machine) => machine.process!.host!.group(FIRST_RANGE_GROUP);
      for (const voters of [2, 3]) {
        const joined = world.join()!;
        let learner = false;
        await world.when(() => {
          const { conf } = group(founder).status();
          learner ||= conf.learners.includes(nodeId(joined.id));
          return conf.voters.length === voters && conf.votersOutgoing.length === 0;
        }, "it is a voter");
        expect(learner).toBe(true);
        await world.when(() => joined.serving, "it serves");
        await register.acknowledged(register.client(joined));
      }
      founder.crash("power");
      const next = await nextLeader(world, founder);
      await register.acknowledged(register.client(next));
      for (const machine of world.machines)
        if (machine !== founder) expect(await register.read(register.client(machine))).toBe(register.value);
    },
    { founders: 1, replicas: 3 },
  );
});
