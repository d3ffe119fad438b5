/** The way to a group's leader, with and without a replica of the group on this node. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, RouteError, UserError } from "../../../src/base/errors.js";
import { NO_NODE, type NodeId, nodeId } from "../../../src/base/ids.js";
import { GroupRoute } from "../../../src/gateway/group-route.js";
import type { GroupHandle, GroupStatus } from "../../../src/multiraft/types.js";
import { ManualClock } from "../../sim/manual-clock.js";

const GRACE_MS = 500;
const SELF = nodeId(4);

/** A node's service: what it answers, or how it refuses. */
type Service = () => Promise<string>;

let clock: ManualClock;
let candidates: NodeId[];
let asked: number[];
let nodes: Map<number, Service>;
let askedAround: number[];
let leaderBy: Map<number, number>;

beforeEach(() => {
  clock = new ManualClock();
  candidates = [1, 2, 3].map(nodeId);
  asked = [];
  nodes = new Map();
  askedAround = [];
  leaderBy = new Map();
});

const leads =
  (node: number): Service =>
  async () =>
    `from ${node}`;
const follows =
  (leader: number | undefined): Service =>
  async () => {
    throw new RouteError("not the leader", leader === undefined ? undefined : nodeId(leader));
  };
const unreachable: Service = async () => {
  throw new RetryError("OSTRAKA_UNAVAILABLE", "cannot be reached");
};
const lost: Service = async () => {
  throw new AmbiguousError("lost", undefined);
};
const hangs: Service = () => new Promise(() => undefined);

function remote(node: NodeId): Service {
  return () => {
    asked.push(node);
    return (nodes.get(node) ?? unreachable)();
  };
}

function route(hosted?: { handle: GroupHandle; service: Service }): GroupRoute<Service> {
  return new GroupRoute<Service>({
    self: SELF,
    clock,
    graceMs: GRACE_MS,
    hosted,
    candidates: () => candidates,
    remote,
    ask: async (node) => {
      askedAround.push(node);
      return nodeId(leaderBy.get(node) ?? 0);
    },
  });
}

const call = (through: GroupRoute<Service>): Promise<string> => through.call((service) => service());

/** Of the calls just made. */
function asks(): number[] {
  return asked.splice(0);
}

class Handle {
  leader: NodeId = NO_NODE;
  readonly listeners = new Set<(status: GroupStatus) => void>();

  onChange(listener: (status: GroupStatus) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  lead(node: number): void {
    this.leader = nodeId(node);
    for (const listener of this.listeners) listener({ leader: this.leader } as GroupStatus);
  }

  get handle(): GroupHandle {
    return this as unknown as GroupHandle;
  }
}

describe("without a replica", () => {
  it("asks the candidates until one leads, and then that one", async () => {
    nodes = new Map([
      [1, follows(undefined)],
      [2, follows(undefined)],
      [3, leads(3)],
    ]);
    const through = route();
    expect(await call(through)).toBe("from 3");
    expect(asks()).toEqual([1, 2, 3]);
    expect(await call(through)).toBe("from 3");
    expect(asks()).toEqual([3]);
  });

  it("follows whoever a refusal names, also to a node that was not said to have a replica", async () => {
    nodes = new Map([
      [1, follows(9)],
      [9, leads(9)],
    ]);
    const through = route();
    expect(await call(through)).toBe("from 9");
    nodes.set(9, follows(2));
    nodes.set(2, leads(2));
    expect(await call(through)).toBe("from 2");
    expect(asks()).toEqual([1, 9, 9, 2]);
  });

  it("asks each node once, however they name one another, and then refuses", async () => {
    nodes = new Map([
      [1, follows(2)],
      [2, follows(1)],
      [3, follows(4)],
    ]);
    const through = route();
    await expect(call(through)).rejects.toThrow(RouteError);
    expect(asks()).toEqual([1, 2, 3]);
    candidates = [];
    await expect(call(route())).rejects.toThrow(RouteError);
  });

  it("tells of a node that cannot be reached, and begins with another one the next time", async () => {
    nodes = new Map([[2, leads(2)]]);
    const through = route();
    await expect(call(through)).rejects.toThrow(RetryError);
    expect(await call(through)).toBe("from 2");
    nodes.set(2, lost);
    nodes.set(3, leads(3));
    await expect(call(through)).rejects.toThrow(AmbiguousError);
    expect(await call(through)).toBe("from 3");
    expect(asks()).toEqual([1, 2, 2, 3]);
  });

  it("takes a leader's own refusal for an answer", async () => {
    nodes = new Map([
      [1, follows(undefined)],
      [
        2,
        async () => {
          throw new UserError("SQLITE_CONSTRAINT", "no");
        },
      ],
    ]);
    const through = route();
    await expect(call(through)).rejects.toThrow(UserError);
    await expect(call(through)).rejects.toThrow(UserError);
    expect(asks()).toEqual([1, 2, 2]);
  });

  it("leaves it to the caller where the keys have moved", async () => {
    nodes = new Map([
      [
        1,
        async () => {
          throw new RouteError("moved", undefined, "[]");
        },
      ],
      [2, leads(2)],
    ]);
    await expect(call(route())).rejects.toMatchObject({ moved: "[]" });
    expect(asks()).toEqual([1]);
  });

  it("asks around when its leader hangs, and gives its calls up once another one is known", async () => {
    nodes = new Map([[1, leads(1)]]);
    const through = route();
    await call(through);
    nodes.set(1, hangs);
    const waiting = call(through).catch((error: unknown) => error);
    await clock.advance(GRACE_MS);
    expect(askedAround).toHaveLength(1);
    leaderBy = new Map([
      [2, 3],
      [3, 3],
    ]);
    await clock.advance(GRACE_MS);
    nodes.set(3, leads(3));
    expect(await call(through)).toBe("from 3");
    await clock.advance(GRACE_MS);
    expect(await waiting).toBeInstanceOf(AmbiguousError);
    expect(askedAround.includes(1)).toBe(false);
    const times = askedAround.length;
    await clock.advance(10 * GRACE_MS);
    expect(askedAround).toHaveLength(times);
  });

  it("asks nobody around while answers come in time", async () => {
    nodes.set(1, async () => {
      await new Promise<void>((done) => void clock.setTimer(GRACE_MS - 100, done));
      return "in time";
    });
    const through = route();
    const calls: Promise<string>[] = [];
    for (let n = 0; n < 20; n++) {
      calls.push(call(through));
      await clock.advance(GRACE_MS / 2);
    }
    await clock.advance(GRACE_MS);
    expect(new Set(await Promise.all(calls))).toEqual(new Set(["in time"]));
    expect(askedAround).toEqual([]);
  });

  it("lets a slow leader answer where nobody knows of another one", async () => {
    let answer!: (value: string) => void;
    nodes = new Map<number, Service>([
      [
        1,
        () =>
          new Promise((resolve) => {
            answer = resolve;
          }),
      ],
    ]);
    const waiting = call(route());
    leaderBy = new Map([
      [2, 1],
      [3, 0],
    ]);
    await clock.advance(20 * GRACE_MS);
    answer("late");
    expect(await waiting).toBe("late");
  });
});

describe("with a replica", () => {
  let handle: Handle;
  let local: Service;

  beforeEach(() => {
    handle = new Handle();
    local = async () => "from here";
  });

  const hosted = () => ({ handle: handle.handle, service: () => local() });

  it("asks the leader that the replica knows, once, and refuses while it knows none", async () => {
    const through = route(hosted());
    await expect(call(through)).rejects.toThrow(RouteError);
    expect(asks()).toEqual([]);
    handle.lead(SELF);
    expect(through.leadingHere).toBeDefined();
    expect(await call(through)).toBe("from here");
    handle.lead(2);
    nodes.set(2, follows(undefined));
    expect(through.leadingHere).toBeUndefined();
    await expect(call(through)).rejects.toThrow(RouteError);
    expect(asks()).toEqual([2]);
  });

  it("follows a hint for the next call where the replica is behind, until it learns", async () => {
    const through = route(hosted());
    handle.lead(2);
    nodes = new Map([
      [2, follows(3)],
      [3, leads(3)],
      [1, leads(1)],
    ]);
    await expect(call(through)).rejects.toThrow(RouteError);
    expect(await call(through)).toBe("from 3");
    handle.lead(1);
    expect(await call(through)).toBe("from 1");
    expect(asks()).toEqual([2, 3, 1]);
    // It may lead again.
    handle.lead(2);
    await expect(call(through)).rejects.toThrow(RouteError);
    nodes.set(2, leads(2));
    handle.lead(2);
    expect(await call(through)).toBe("from 2");
  });

  it("takes the local refusal's hint while the replica knows no leader", async () => {
    const through = route(hosted());
    handle.lead(SELF);
    local = follows(3);
    nodes.set(3, leads(3));
    await expect(call(through)).rejects.toThrow(RouteError);
    handle.leader = NO_NODE;
    expect(await call(through)).toBe("from 3");
  });

  it("goes on without it when it was moved away, and with it when it comes", async () => {
    const through = route(hosted());
    handle.lead(2);
    nodes = new Map([
      [1, follows(undefined)],
      [2, leads(2)],
    ]);
    expect(await call(through)).toBe("from 2");
    through.detach();
    expect(handle.listeners.size).toBe(0);
    nodes.set(2, follows(undefined));
    nodes.set(3, leads(3));
    expect(await call(through)).toBe("from 3");
    through.attach(hosted());
    handle.lead(SELF);
    expect(await call(through)).toBe("from here");
    expect(asks()).toEqual([2, 1, 2, 3]);
  });
});
