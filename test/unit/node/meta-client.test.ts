/** How a node makes itself known to meta. */
import { expect, it } from "vitest";
import { RetryError, RouteError } from "../../../src/base/errors.js";
import { encodeMetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import type { GroupHandle } from "../../../src/multiraft/types.js";
import { MetaClient } from "../../../src/node/meta-client.js";
import type { NodeNetwork } from "../../../src/node/network.js";
import { peerRefusal } from "../../../src/node/peer-refusal.js";
import { ManualClock } from "../../sim/manual-clock.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };

const CASES = [
  ["it is no member of meta", true, {}],
  ["it was never sent what meta has", false, { 1: "h1:1", 2: "h2:1" }],
] as const;

it.each(CASES)(
  "a node that was removed while it was down is told so by those it asks, though %s",
  async (_, knew, seeds) => {
    const clock = new ManualClock();
    const [here, there] = [new MetaMachine(), new MetaMachine()];
    let index = 0;
    for (const id of [1, 2, 3]) {
      const node = { id, address: `h${id}:1`, http: "off", incarnation: `i${id}` };
      const entry = { index: ++index, data: encodeMetaCommand({ kind: "register", node }) };
      for (const meta of knew ? [here, there] : [there]) meta.apply([entry]);
    }
    for (const state of ["removing", "removed"] as const)
      there.apply([{ index: ++index, data: encodeMetaCommand({ kind: "node", id: 3, state }) }]);
    const met = { get: () => undefined, remember() {} };
    const client = new MetaClient({
      clock,
      logger: QUIET,
      handle: {
        status: () => ({ leader: 0, role: "follower" }),
        propose: async () => {
          throw new RouteError("node 3 does not lead group 1", undefined);
        },
      } as unknown as GroupHandle,
      machine: here,
      network: {
        calls: {
          call: async () => {
            throw new RetryError(
              "OSTRAKA_UNAVAILABLE",
              `refused: ${peerRefusal({ node: 3, incarnation: "i3" }, there, met)}`,
            );
          },
        },
      } as unknown as NodeNetwork,
      clusterId: "c",
      founding: { settings: here.state.settings, ranges: [] },
    });
    const identity = {
      format: 1 as const,
      nodeId: 3,
      clusterId: "c",
      incarnation: "i3",
      founders: {},
      seeds,
    };
    let ended: unknown;
    client
      .introduce(identity, { address: "h3:1", http: "off" }, () => false)
      .catch((error: unknown) => {
        ended = error;
      });
    for (let waitedMs = 0; ended === undefined && waitedMs < 60_000; waitedMs += 500)
      await clock.advance(500);
    expect(ended).toMatchObject({ code: "OSTRAKA_REMOVED", family: "fatal" });
  },
);
