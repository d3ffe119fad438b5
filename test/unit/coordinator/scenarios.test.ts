/**
 * The coordinator on real Raft: three nodes on simulated disks and network, which crash at each point of a commit across
 * two ranges. Participants are as durable as their ranges would be. Whatever crashes, both end with the same decision, and
 * nothing stays behind.
 */
import { afterEach, beforeEach, expect, it } from "vitest";
import { AmbiguousError, RouteError } from "../../../src/base/errors.js";
import {
  COORDINATOR_GROUP,
  type GroupId,
  groupId,
  type NodeId,
  nodeId,
  type TransactionId,
  transactionId,
} from "../../../src/base/ids.js";
import { CoordinatorLeader, DEFAULT_COORDINATOR_LIMITS } from "../../../src/coordinator/leader.js";
import type { CoordinatorEndpoint } from "../../../src/coordinator/types.js";
import { CoordinatorClient } from "../../../src/gateway/coordinator-client.js";
import { CoordinatorMachine } from "../../../src/machines/coordinator/coordinator.js";
import type { Decision } from "../../../src/txn/coordinator.js";
import { type SimNode, World } from "../../sim/multiraft-world.js";

const A = groupId(3);
const B = groupId(4);
const UNDECIDED_MS = 5_000;
const LATE_MS = 60_000;

interface Range {
  readonly prepared: Set<TransactionId>;
  readonly outcomes: Map<TransactionId, Decision>;
  /** Times that a decision was delivered. */
  told: number;
}

let world: World;
let leaders: Map<NodeId, CoordinatorLeader>;
let ranges: Map<GroupId, Range>;
/** Ranges that cannot be reached. */
let cutOff: Set<GroupId>;
/** Called before a delivery is answered. */
let onDelivered: () => void;
let client: CoordinatorClient;
let t: TransactionId;

beforeEach(async () => {
  leaders = new Map();
  ranges = new Map([A, B].map((range) => [range, { prepared: new Set(), outcomes: new Map(), told: 0 }]));
  cutOff = new Set();
  onDelivered = () => undefined;
  world = await World.start({ groups: [COORDINATOR_GROUP], machine: () => new CoordinatorMachine() });
  for (const node of world.nodes) attach(node);
  client = new CoordinatorClient({
    self: nodeId(9),
    clock: world.clock,
    graceMs: 1_000,
    hosted: undefined,
    candidates: () => world.nodes.map(({ id }) => id),
    remote: (id) => remote(world.node(id)),
    ask: async (id) => world.node(id).group(COORDINATOR_GROUP).leader,
  });
  t = transactionId(`t@${world.clock.wallMs().toString(36)}`);
});
afterEach(() => world.stop());

function attach(node: SimNode): void {
  const leader: CoordinatorLeader = new CoordinatorLeader({
    handle: node.group(COORDINATOR_GROUP),
    machine: node.machines.get(COORDINATOR_GROUP) as CoordinatorMachine,
    clock: node.clock,
    limits: { ...DEFAULT_COORDINATOR_LIMITS, undecidedMs: UNDECIDED_MS },
    resolve: async (range, transaction, decision) => {
      if (!node.up || leaders.get(node.id) !== leader) return new Promise(() => undefined);
      if (cutOff.has(range)) throw new RouteError("no leader is known", undefined);
      resolve(range, transaction, decision);
      onDelivered();
      // A node that died meanwhile hears nothing.
      if (!node.up) return new Promise(() => undefined);
    },
  });
  leaders.set(node.id, leader);
}

function remote(node: SimNode): CoordinatorEndpoint {
  const call = async <T>(work: (leader: CoordinatorLeader) => Promise<T>): Promise<T> => {
    const { starts } = node;
    if (!node.up) throw new AmbiguousError("the node is down", undefined);
    const answer = await work(leaders.get(node.id)!);
    if (!node.up || node.starts !== starts) throw new AmbiguousError("the node died", undefined);
    return answer;
  };
  return {
    register: (...args) => call((leader) => leader.register(...args)),
    decide: (...args) => call((leader) => leader.decide(...args)),
    inquire: (...args) => call((leader) => leader.inquire(...args)),
    list: () => call((leader) => leader.list()),
    outbox: () => call((leader) => leader.outbox()),
  };
}

function resolve(range: GroupId, transaction: TransactionId, decision: Decision): void {
  const { prepared, outcomes } = ranges.get(range)!;
  const before = outcomes.get(transaction);
  expect(before ?? decision).toBe(decision);
  if (decision === "committed" && before === undefined) expect(prepared.has(transaction)).toBe(true);
  prepared.delete(transaction);
  outcomes.set(transaction, decision);
  ranges.get(range)!.told++;
}

function prepare(range: GroupId): boolean {
  const { prepared, outcomes } = ranges.get(range)!;
  if (outcomes.has(t)) return outcomes.get(t) === "committed";
  prepared.add(t);
  return true;
}

/** Until it is answered, as a gateway would. */
async function persist<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await world.during(attempt());
    } catch (error) {
      if (!(error instanceof RouteError || error instanceof AmbiguousError)) throw error;
      await world.run(50);
    }
  }
}

const register = () => persist(() => client.register(t, [A, B]));
const commit = () => persist(() => client.decide(t, "committed", Uint8Array.of(42)));

function crashLeader(): SimNode {
  const node = world.leaderOf(COORDINATOR_GROUP)!;
  world.crash(node);
  return node;
}

async function restart(node: SimNode): Promise<void> {
  await world.restart(node);
  attach(node);
}

/** Both ranges end with this decision, and the coordinator with nothing to do. */
async function endsWith(decision: Decision): Promise<void> {
  const over = () =>
    [A, B].every((range) => ranges.get(range)!.outcomes.has(t)) &&
    world.live().every((node) => {
      const { state } = node.machines.get(COORDINATOR_GROUP) as CoordinatorMachine;
      return state.open === 0 && state.undelivered === 0;
    });
  await world.until(over, "the transaction is over", LATE_MS);
  for (const { prepared, outcomes } of ranges.values())
    expect([prepared.size, outcomes.get(t)]).toEqual([0, decision]);
  expect((await persist(() => client.inquire(t))).decision).toBe(decision);
  await world.converge(COORDINATOR_GROUP);
}

it("coordinator crash before prepare: nobody hears of it any more, and it is aborted", async () => {
  await register();
  const crashed = crashLeader();
  await restart(crashed);
  await endsWith("aborted");
  expect([prepare(A), prepare(B)]).toEqual([false, false]);
});

it("coordinator crash before prepare: the gateway goes on with its successor", async () => {
  await register();
  crashLeader();
  expect(await register()).toEqual({ state: "registered" });
  expect([prepare(A), prepare(B)]).toEqual([true, true]);
  expect(await commit()).toEqual({ decision: "committed", answer: Uint8Array.of(42) });
  await endsWith("committed");
});

it("coordinator crash with all prepared, and the gateway gone: participants ask, and it is aborted", async () => {
  await register();
  prepare(A);
  prepare(B);
  crashLeader();
  const { decision } = await persist(() => client.inquire(t));
  expect(decision).toBe("aborted");
  expect(await commit()).toEqual({ decision: "aborted", answer: undefined });
  await endsWith("aborted");
});

it("coordinator crash with all prepared: the gateway's commit goes to its successor", async () => {
  await register();
  prepare(A);
  prepare(B);
  crashLeader();
  expect((await commit()).decision).toBe("committed");
  expect((await persist(() => client.decide(t, "aborted"))).decision).toBe("committed");
  await endsWith("committed");
});

it("coordinator crash with the decision logged and nobody told", async () => {
  await register();
  prepare(A);
  prepare(B);
  cutOff = new Set([A, B]);
  expect((await commit()).decision).toBe("committed");
  const crashed = crashLeader();
  cutOff.clear();
  await world.leader(COORDINATOR_GROUP, crashed);
  expect(await commit()).toEqual({ decision: "committed", answer: Uint8Array.of(42) });
  await endsWith("committed");
  await restart(crashed);
  await endsWith("committed");
});

it("coordinator crash with the decision logged: the gateway does not hear, and asks the successor", async () => {
  await register();
  prepare(A);
  prepare(B);
  const leader = world.leaderOf(COORDINATOR_GROUP)!;
  const machine = leader.machines.get(COORDINATOR_GROUP) as CoordinatorMachine;
  const asked = client.decide(t, "committed", Uint8Array.of(42)).catch((error: unknown) => error);
  onDelivered = () => world.crash(leader);
  await world.until(() => !leader.up, "the leader crashes as it delivers");
  expect(machine.state.decided(t)?.decision).toBe("committed");
  expect(await asked).toBeInstanceOf(AmbiguousError);
  onDelivered = () => undefined;
  expect(await commit()).toEqual({ decision: "committed", answer: Uint8Array.of(42) });
  await endsWith("committed");
});

it("coordinator crash with half the outbox sent", async () => {
  await register();
  prepare(A);
  prepare(B);
  cutOff = new Set([B]);
  await commit();
  await world.until(() => ranges.get(A)!.outcomes.has(t), "one range is told");
  const crashed = crashLeader();
  expect(ranges.get(B)!.outcomes.has(t)).toBe(false);
  cutOff.clear();
  await world.leader(COORDINATOR_GROUP, crashed);
  await endsWith("committed");
  await restart(crashed);
  await endsWith("committed");
});

it("coordinator crash before forgetting: all are told again, and then it is over", async () => {
  await register();
  prepare(A);
  prepare(B);
  let deliveries = 0;
  const leader = world.leaderOf(COORDINATOR_GROUP)!;
  onDelivered = () => {
    if (++deliveries === 2) world.crash(leader);
  };
  void commit().catch(() => undefined);
  await world.until(() => deliveries >= 2, "both ranges are told");
  const told = [A, B].map((range) => ranges.get(range)!.told);
  expect(told).toEqual([1, 1]);
  await endsWith("committed");
  expect([A, B].map((range) => ranges.get(range)!.told)).toEqual([2, 2]);
});

it("fsync failure on the coordinator's leader during a decision", async () => {
  await register();
  prepare(A);
  prepare(B);
  const leader = world.leaderOf(COORDINATOR_GROUP)!;
  leader.disk.onOperation = (operation, path) => {
    if (path.startsWith("log")) throw new Error(`EIO at ${operation}`);
  };
  let answered = false;
  void client.decide(t, "committed").finally(() => {
    answered = true;
  });
  await world.run(200);
  expect(leader.fatal).toBeDefined();
  expect(answered).toBe(false);
  world.crash(leader);
  leader.disk.onOperation = undefined;
  await world.leader(COORDINATOR_GROUP, leader);
  const { decision } = await persist(() => client.inquire(t));
  // The followers may have had the entry before the leader's own disk failed.
  expect(["committed", "aborted"]).toContain(decision);
  await endsWith(decision as Decision);
});

it("a leader cut off from the others decides nothing", async () => {
  await register();
  prepare(A);
  prepare(B);
  const old = world.leaderOf(COORDINATOR_GROUP)!;
  world.network.isolate(
    old.id,
    world.nodes.map(({ id }) => id),
  );
  const asked = leaders
    .get(old.id)!
    .decide(t, "committed")
    .catch((error: unknown) => error);
  await world.leader(COORDINATOR_GROUP, old);
  const successor = world.leaderOf(COORDINATOR_GROUP)!;
  expect((await world.during(leaders.get(successor.id)!.inquire(t))).decision).toBe("aborted");
  world.network.heal();
  const outcome = await world.during(asked);
  expect(outcome instanceof AmbiguousError || outcome instanceof RouteError).toBe(true);
  await endsWith("aborted");
});

it("comes back from checkpoints and snapshots with everything that is open", async () => {
  await world.stop();
  world = await World.start({
    groups: [COORDINATOR_GROUP],
    machine: () => new CoordinatorMachine(),
    host: { maxLogEntries: 20, tailEntries: 2, tailBytes: 1_000 },
  });
  for (const node of world.nodes) attach(node);
  cutOff = new Set([B]);
  await register();
  prepare(A);
  prepare(B);
  await commit();
  const away = world.nodes.find((node) => node !== world.leaderOf(COORDINATOR_GROUP))!;
  world.crash(away);
  for (let n = 0; n < 60; n++)
    await persist(() => client.inquire(transactionId(`o${n}@${world.clock.wallMs().toString(36)}`)));
  await restart(away);
  await world.converge(COORDINATOR_GROUP);
  for (const node of world.nodes) world.crash(node);
  for (const node of world.nodes) await restart(node);
  await world.leader(COORDINATOR_GROUP);
  cutOff.clear();
  await endsWith("committed");
});
