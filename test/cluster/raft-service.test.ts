/** Three services in one process over loopback sockets and real disks, with all three samples as their machines. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePorts } from "../../src/cli/free-ports.js";
import {
  Counter,
  CounterMachine,
  encodeCounterCommand,
  Kv,
  KvMachine,
  Lock,
  LockMachine,
  type Service,
  type StateMachine,
  startService,
} from "../../src/node/raft.js";

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

interface Samples {
  readonly [name: string]: StateMachine;
  readonly kv: KvMachine;
  readonly counter: CounterMachine;
  readonly lock: LockMachine;
}

const machines = (): Samples => ({
  kv: new KvMachine(),
  counter: new CounterMachine(),
  lock: new LockMachine(),
});

/** One node of the service and its clients. */
class Member {
  readonly kv: Kv;
  readonly counter: Counter;
  readonly lock: Lock;

  constructor(
    readonly service: Service<Samples>,
    readonly machines: Samples,
  ) {
    this.kv = new Kv(service.group("kv"), machines.kv);
    this.counter = new Counter(service.group("counter"), machines.counter);
    this.lock = new Lock(service.group("lock"), machines.lock);
  }
}

const root = mkdtempSync(join(tmpdir(), "ostraka-service-"));
const open = new Set<Service<Samples>>();

async function start(id: number, cluster: Readonly<Record<number, string>>, home = "trio"): Promise<Member> {
  const own = machines();
  const service = await startService({
    id,
    directory: join(root, `${home}-${id}`),
    cluster,
    machines: own,
    electionTimeoutMs: 500,
    timeoutMs: 30_000,
    logger: silent,
  });
  open.add(service);
  return new Member(service, own);
}

async function stop({ service }: Member): Promise<void> {
  await service.close();
  open.delete(service);
}

afterAll(async () => {
  await Promise.all([...open].map((service) => service.close()));
  rmSync(root, { recursive: true, force: true });
});

describe("three services", () => {
  let cluster: Record<number, string>;
  let members: Map<number, Member>;

  const all = (): Member[] => [...members.values()];

  beforeAll(async () => {
    const ports = await freePorts(3);
    cluster = Object.fromEntries(ports.map((port, i) => [i + 1, `127.0.0.1:${port}`]));
    const started = await Promise.all([1, 2, 3].map((id) => start(id, cluster)));
    members = new Map(started.map((member) => [member.service.id, member]));
  });

  test("each node proposes, and each reads at once what any other wrote", async () => {
    expect([...members.keys()]).toEqual([1, 2, 3]);
    for (const writer of all()) {
      const value = `from ${writer.service.id}`;
      expect(await writer.kv.put("who", value)).toMatchObject({ done: true });
      for (const reader of all()) expect(await reader.kv.get("who")).toBe(value);
    }
    expect(await all()[0]!.kv.compareAndSet("who", "from 3", "x")).toEqual({
      done: true,
      previous: "from 3",
    });
    expect(await all()[1]!.kv.compareAndSet("who", "from 3", "y")).toEqual({ done: false, previous: "x" });
    expect(await all()[2]!.kv.delete("who")).toEqual({ done: true, previous: "x" });
    expect(await all()[0]!.kv.get("who")).toBeNull();
  });

  test("increments from all nodes at once are each counted once, and every answer is another", async () => {
    const answers = await Promise.all(
      all().flatMap(({ counter }) => Array.from({ length: 50 }, () => counter.increment("hits"))),
    );
    const expected = Array.from({ length: 150 }, (_, i) => BigInt(i + 1));
    expect(answers.sort((a, b) => Number(a - b))).toEqual(expected);
    for (const { counter } of all()) expect(await counter.value("hits")).toBe(150n);
  });

  test("a lock is one owner's, whoever asks where, and its tokens grow", async () => {
    const [first, second, third] = all() as [Member, Member, Member];
    const grant = await first.lock.acquire("door", "alice");
    expect(grant).toMatchObject({ done: true, owner: "alice" });
    expect(await second.lock.acquire("door", "bob")).toEqual({ ...grant, done: false });
    expect(await third.lock.holder("door")).toEqual({ owner: "alice", token: grant.token });
    expect(await third.lock.release("door", "bob")).toMatchObject({ done: false });
    expect(await third.lock.release("door", "alice", grant.token)).toMatchObject({ done: true, owner: null });
    const next = await second.lock.acquire("door", "bob");
    expect(next.done).toBe(true);
    expect(next.token).toBeGreaterThan(grant.token);
  });

  test("read looks at this node's replica after it has caught up", async () => {
    const [first, second] = all() as [Member, Member];
    await first.service.propose("counter", encodeCounterCommand(["INCR", "looked", 5n]));
    expect(await second.service.read("counter", (machine) => machine.value("looked"))).toBe(5n);
    expect(second.machines.counter.value("looked")).toBe(5n);
  });

  test("an unknown machine is refused", async () => {
    const { service } = all()[0]!;
    await expect(service.propose("nobody", new Uint8Array(1))).rejects.toMatchObject({
      code: "OSTRAKA_CONFIG",
    });
    expect(() => service.status("nobody")).toThrow("there is no machine called nobody");
  });

  test("the leader closes and starts again: nothing answered is lost, and it catches up", async () => {
    const before = all()[0]!.service.status("counter").leader as number;
    const leader = members.get(before)!;
    await leader.counter.increment("survives", 7n);
    await stop(leader);
    members.delete(before);

    const others = all();
    expect(await others[0]!.counter.increment("survives")).toBe(8n);
    expect(await others[1]!.counter.value("survives")).toBe(8n);
    for (const { service } of others) expect(service.status("counter").leader).not.toBe(before);
    await others[0]!.kv.put("while away", "written");

    const back = await start(before, cluster);
    members.set(before, back);
    expect(await back.counter.value("survives")).toBe(8n);
    expect(await back.counter.value("hits")).toBe(150n);
    expect(await back.kv.get("while away")).toBe("written");
    expect((await back.lock.holder("door"))?.owner).toBe("bob");
    expect(await back.counter.increment("survives")).toBe(9n);
    for (const { counter } of all()) expect(await counter.value("survives")).toBe(9n);
    await expect(leader.service.propose("kv", new Uint8Array(1))).rejects.toMatchObject({
      code: "OSTRAKA_CLOSED",
    });
  });

  test("a node that lost its data is refused", async () => {
    await stop(members.get(3)!);
    members.delete(3);
    await expect(start(3, cluster, "lost")).rejects.toMatchObject({ code: "OSTRAKA_WIPED" });
    members.set(3, await start(3, cluster));
    expect(await members.get(3)!.counter.value("hits")).toBe(150n);
  });

  test("all stop and start again: the state is there", async () => {
    await Promise.all(all().map(stop));
    const started = await Promise.all([1, 2, 3].map((id) => start(id, cluster)));
    members = new Map(started.map((member) => [member.service.id, member]));
    for (const { counter, kv } of all()) {
      expect(await counter.value("survives")).toBe(9n);
      expect(await kv.get("while away")).toBe("written");
    }
  });
});

describe("what is refused at the start", () => {
  const options = { directory: join(root, "refused"), machines: machines(), logger: silent };

  test("a reachable address without TLS", async () => {
    await expect(startService({ ...options, listen: "192.0.2.1:7400" })).rejects.toMatchObject({
      code: "OSTRAKA_CONFIG",
    });
  });

  test("no machines", async () => {
    await expect(startService({ ...options, machines: {} })).rejects.toMatchObject({
      code: "OSTRAKA_CONFIG",
    });
  });

  test("a directory in use", async () => {
    const service = await startService({ ...options, directory: join(root, "one"), machines: machines() });
    open.add(service);
    await expect(startService({ ...options, directory: join(root, "one") })).rejects.toMatchObject({
      code: "OSTRAKA_CONFIG",
    });
    await service.close();
    open.delete(service);
  });
});

test("a machine that throws stops the service, and says so", async () => {
  const broken: StateMachine = {
    apply: () => {
      throw new Error("cannot apply this");
    },
    snapshot: () => new Uint8Array(),
    restore: () => undefined,
  };
  const service = await startService({
    directory: join(root, "broken"),
    machines: { broken },
    timeoutMs: 1_000,
    logger: silent,
  });
  const proposed = service.propose("broken", new Uint8Array(1));
  await expect(proposed).rejects.toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME" });
  expect((await service.failed).message).toContain("cannot apply this");
  await service.close();
});
