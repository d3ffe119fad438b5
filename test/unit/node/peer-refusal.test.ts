import { expect, test } from "vitest";
import { KNOWN_OTHERWISE, type MetPeers, peerRefusal, REMOVED } from "../../../src/node/peer-refusal.js";

type Meta = Parameters<typeof peerRefusal>[1];

function met(): MetPeers {
  const known = new Map<number, string>();
  return {
    get: (node) => known.get(node),
    remember: (node, incarnation) => void known.set(node, incarnation),
  };
}

function registered(incarnation: string, state: "up" | "removed" = "up"): Meta {
  return { node: () => ({ id: 2, address: "", http: "", incarnation, state }) } as unknown as Meta;
}

test("the first incarnation that a peer shows is the only one that is ever let in", () => {
  const peers = met();
  expect(peerRefusal({ node: 2, incarnation: "a" }, undefined, peers)).toBeUndefined();
  expect(peerRefusal({ node: 2, incarnation: "b" }, undefined, peers)).toContain(KNOWN_OTHERWISE);
  expect(peerRefusal({ node: 2, incarnation: "a" }, undefined, peers)).toBeUndefined();
  expect(peerRefusal({ node: 3, incarnation: "b" }, undefined, peers)).toBeUndefined();
});

test("whom meta knows otherwise is refused, and not remembered", () => {
  const peers = met();
  expect(peerRefusal({ node: 2, incarnation: "b" }, registered("a"), peers)).toContain(KNOWN_OTHERWISE);
  expect(peers.get(2)).toBeUndefined();
  expect(peerRefusal({ node: 2, incarnation: "a" }, registered("a"), peers)).toBeUndefined();
});

test("who was removed stays out, whatever data it has", () => {
  expect(peerRefusal({ node: 2, incarnation: "a" }, registered("a", "removed"), met())).toContain(REMOVED);
});

test("who cannot be remembered is not let in", () => {
  const peers: MetPeers = {
    get: () => undefined,
    remember: () => {
      throw new Error("no space left");
    },
  };
  expect(peerRefusal({ node: 2, incarnation: "a" }, undefined, peers)).toContain("no space left");
});
