/** The coordinator over peer calls: what goes through comes back as it was. */
import { expect, it } from "vitest";
import { fromWireError, RouteError, toWireError, type WireError } from "../../../src/base/errors.js";
import { groupId, nodeId, transactionId } from "../../../src/base/ids.js";
import type { CoordinatorEndpoint } from "../../../src/coordinator/types.js";
import { CoordinatorClient } from "../../../src/gateway/coordinator-client.js";
import { remoteCoordinator, serveCoordinator } from "../../../src/gateway/coordinator-rpc.js";
import type { PeerCalls, PeerMethod } from "../../../src/rpc/peer-calls.js";
import { packMessages, unpackMessages } from "../../../src/rpc/wire.js";
import { ManualClock } from "../../sim/manual-clock.js";

/** Peer calls without sockets: arguments and answers through the bytes they travel as. */
class Wire {
  readonly #methods = new Map<string, PeerMethod>();

  serving(node: number): Pick<PeerCalls, "serve"> {
    return { serve: (method, handler) => void this.#methods.set(`${node} ${method}`, handler) };
  }

  readonly calls: Pick<PeerCalls, "call"> = {
    call: async (node, method, args) => {
      const handler = this.#methods.get(`${node} ${method}`)!;
      const sent = unpackMessages(packMessages([args]))[0] as unknown[];
      const answer = await handler(sent, {
        from: nodeId(9),
        timeoutMs: 1,
        signal: new AbortController().signal,
      })
        .then((value) => [1, value])
        .catch((error: unknown) => [2, toWireError(error)]);
      const [kind, value] = unpackMessages(packMessages([answer]))[0] as [number, unknown];
      if (kind === 1) return value;
      throw fromWireError(value as WireError);
    },
  };
}

const T = transactionId("t@abc");
const UNUSED = async () => {
  throw new Error("not called here");
};

function client(wire: Wire, nodes: readonly number[]): CoordinatorClient {
  return new CoordinatorClient({
    self: nodeId(9),
    clock: new ManualClock(),
    graceMs: 1_000,
    hosted: undefined,
    candidates: () => nodes.map(nodeId),
    remote: (node) => remoteCoordinator(wire.calls, node),
  });
}

it("carries calls and answers", async () => {
  const wire = new Wire();
  const asked: unknown[] = [];
  const row = {
    id: 7,
    transaction: T,
    destination: groupId(3),
    decision: "aborted",
    createdMs: 1.7e12,
  } as const;
  const open = {
    transaction: T,
    state: "registered",
    participants: [groupId(3), groupId(4)],
    pending: [],
    registeredMs: 1.7e12,
  } as const;
  const endpoint: CoordinatorEndpoint = {
    register: async (...args) => {
      asked.push(["register", ...args]);
      return { state: "registered" };
    },
    decide: async (...args) => {
      asked.push(["decide", ...args]);
      return { decision: "committed", answer: args[2] };
    },
    inquire: async (...args) => {
      asked.push(["inquire", ...args]);
      return { decision: "unknown", answer: undefined };
    },
    list: async () => [open],
    outbox: async () => [row],
  };
  serveCoordinator(wire.serving(1), () => endpoint);
  const remote = client(wire, [1]);
  expect(await remote.register(T, [groupId(3), groupId(4)])).toEqual({ state: "registered" });
  const answer = Uint8Array.of(0, 1, 255);
  expect(await remote.decide(T, "committed", answer)).toEqual({ decision: "committed", answer });
  expect(await remote.decide(T, "aborted")).toEqual({ decision: "committed", answer: undefined });
  expect(await remote.inquire(T)).toEqual({ decision: "unknown", answer: undefined });
  expect(await remote.list()).toEqual([open]);
  expect(await remote.outbox()).toEqual([row]);
  expect(asked).toEqual([
    ["register", T, [3, 4]],
    ["decide", T, "committed", answer],
    ["decide", T, "aborted", undefined],
    ["inquire", T],
  ]);
});

it("finds the leader past a node that has no replica and one that follows", async () => {
  const wire = new Wire();
  const refusing: CoordinatorEndpoint = {
    register: UNUSED,
    decide: UNUSED,
    inquire: async () => {
      throw new RouteError("not the leader", nodeId(3));
    },
    list: UNUSED,
    outbox: UNUSED,
  };
  serveCoordinator(wire.serving(1), () => undefined);
  serveCoordinator(wire.serving(2), () => refusing);
  serveCoordinator(wire.serving(3), () => ({
    ...refusing,
    inquire: async () => ({ decision: "aborted", answer: undefined }),
  }));
  expect(await client(wire, [1, 2]).inquire(T)).toEqual({ decision: "aborted", answer: undefined });
});
