/**
 * Meta as a node uses it: proposals to its leader from any node, answers to strangers that ask what cluster this is or
 * to be let in, and making this node known when it starts.
 */
import { FatalError, RetryError, UserError } from "../base/errors.js";
import { type GroupId, groupId, type LogIndex, nodeId } from "../base/ids.js";
import type { Clock } from "../base/io.js";
import { pause } from "../base/waits.js";
import { Deadline } from "../gateway/deadline.js";
import { DEFAULT_LIMITS } from "../gateway/replica.js";
import {
  type ClusterSettings,
  decodeMetaResult,
  encodeMetaCommand,
  type MetaCommand,
  type MetaMachine,
  type MetaResult,
} from "../machines/meta/meta.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import { bootstrapVoters } from "./founding.js";
import type { Identity } from "./identity.js";
import type { Logger } from "./logger.js";
import type { NodeNetwork } from "./network.js";
import { KNOWN_OTHERWISE, REMOVED } from "./peer-refusal.js";

const REGISTER_PAUSE_MS = 200;
const CALL_MS = 5_000;
const KNOCK_MS = 1_000;
/** Less than a stranger waits for its answer. */
const CATCH_UP_MS = 2_000;

export interface MetaClientOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly handle: GroupHandle;
  readonly machine: MetaMachine;
  readonly network: NodeNetwork;
  /** Of the cluster that this node belongs to. */
  readonly clusterId: string;
  /** What a cluster begins with, for whoever is first to name it. */
  readonly founding: { readonly settings: ClusterSettings; readonly ranges: readonly RangeDescriptor[] };
}

export class MetaClient {
  readonly #options: MetaClientOptions;

  constructor(options: MetaClientOptions) {
    this.#options = options;
  }

  /** Answers other nodes. */
  serve(): void {
    const { network, handle, machine } = this.#options;
    network.calls.serve(
      "meta.propose",
      async ([bytes]) => (await handle.propose(bytes as Uint8Array)).result,
    );
    network.calls.serve("meta.readPoint", () => handle.readIndex());
    network.serveStrangers({
      probe: async () => {
        const caughtUp = machine.state.clusterId === "" ? Promise.reject() : this.catchUp();
        const current = await caughtUp.then(
          () => true,
          () => false,
        );
        return { clusterId: machine.state.clusterId, nodes: machine.state.nodes, current };
      },
      join: async (node) => {
        this.#mayGiveIds();
        return this.propose({ kind: "join", node });
      },
    });
  }

  /**
   * Resolves once this node's replica has all that was committed before the call; rejects when no quorum could be asked
   * in time, by default in the time that a probe has.
   */
  async catchUp(withinMs = CATCH_UP_MS): Promise<void> {
    const { clock, handle, network } = this.#options;
    const deadline = new Deadline(clock, withinMs, withinMs, { signal: undefined });
    try {
      const index = await deadline.persist(async () => {
        const { leader, role } = handle.status();
        if (role === "leader" || leader === 0) return handle.readIndex();
        const options = { timeoutMs: withinMs };
        return (await network.calls.call(leader, "meta.readPoint", [], options)) as LogIndex;
      });
      await deadline.race(handle.waitApplied(index));
    } finally {
      deadline.dispose();
    }
  }

  async propose(command: MetaCommand): Promise<MetaResult> {
    const { clock, handle, network } = this.#options;
    const deadline = new Deadline(clock, undefined, DEFAULT_LIMITS.availabilityMs, { signal: undefined });
    const bytes = encodeMetaCommand(command);
    const result = await deadline.persist(async () => {
      const { leader, role } = handle.status();
      if (role === "leader" || leader === 0) return (await handle.propose(bytes)).result;
      return (await network.calls.call(leader, "meta.propose", [bytes], {
        timeoutMs: CALL_MS,
      })) as Uint8Array;
    });
    return decodeMetaResult(result);
  }

  /** As `propose`; a refusal is a UserError. */
  async command(command: MetaCommand): Promise<Extract<MetaResult, { readonly ok: true }>> {
    const result = await this.propose(command);
    if (!result.ok) throw new UserError("OSTRAKA_REFUSED", result.reason);
    return result;
  }

  /** An id for a new range. */
  async allocate(): Promise<GroupId> {
    this.#mayGiveIds();
    const { range } = await this.command({ kind: "allocate" });
    return groupId(range!);
  }

  /** After a recovery meta learns with its cluster's new name which ids are taken. */
  #mayGiveIds(): void {
    const { machine, clusterId } = this.#options;
    if (machine.state.clusterId !== clusterId)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "this node does not know yet what its cluster has");
  }

  /**
   * Names the cluster if nobody has, and tells meta where this node is. Tries until a quorum answers or `stopping`;
   * refused, the node must not go on: FatalError OSTRAKA_WIPED.
   */
  async introduce(
    identity: Identity,
    where: { readonly address: string; readonly http: string },
    stopping: () => boolean,
  ): Promise<void> {
    const { clock, logger, machine } = this.#options;
    for (;;) {
      if (stopping()) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
      try {
        if (machine.state.clusterId === "" && bootstrapVoters(identity).length > 0)
          await this.#found(identity);
        const { nodeId: id, incarnation, clusterId, recoveredFrom } = identity;
        if (recoveredFrom !== undefined && machine.state.clusterId !== clusterId)
          await this.propose({
            kind: "recover",
            clusterId,
            node: { id, ...where, incarnation },
            firstFreeNodeId: Math.max(id, ...recoveredFrom.lost) + 1,
            ...(recoveredFrom.firstFreeRange === undefined
              ? {}
              : { firstFreeRangeId: recoveredFrom.firstFreeRange }),
          });
        const result = await this.propose({ kind: "register", node: { id, ...where, incarnation } });
        if (!result.ok)
          throw new FatalError(
            result.reason.includes(REMOVED) ? "OSTRAKA_REMOVED" : "OSTRAKA_WIPED",
            result.reason,
          );
        return;
      } catch (error) {
        if (error instanceof FatalError) throw error;
        if (String(error).includes(KNOWN_OTHERWISE)) throw new FatalError("OSTRAKA_WIPED", String(error));
        if (String(error).includes(REMOVED)) throw new FatalError("OSTRAKA_REMOVED", String(error));
        logger.info({ reason: String(error) }, "waiting for a quorum of the cluster");
        await this.#knock(identity);
        await pause(clock, REGISTER_PAUSE_MS);
      }
    }
  }

  /**
   * A node that has left meta's group hears from nobody; whoever it asks refuses it once it was removed. FatalError
   * OSTRAKA_REMOVED. One that was never sent what meta has knows those that it was told of when it joined.
   */
  async #knock({ nodeId: self, founders, seeds = {} }: Identity): Promise<void> {
    const { network, machine } = this.#options;
    const known = new Set(Object.keys({ ...founders, ...seeds }).map(Number));
    for (const { id, state } of machine.state.nodes) {
      if (state === "removed") known.delete(id);
      else known.add(id);
    }
    known.delete(self);
    const asked = [...known].map((id) =>
      network.calls.call(nodeId(id), "meta.readPoint", [], { timeoutMs: KNOCK_MS }),
    );
    for (const answer of await Promise.allSettled(asked)) {
      const refusal = answer.status === "rejected" ? String(answer.reason) : "";
      if (refusal.includes(REMOVED)) throw new FatalError("OSTRAKA_REMOVED", refusal);
    }
  }

  async #found(identity: Identity): Promise<void> {
    const { settings, ranges } = this.#options.founding;
    await this.propose({
      kind: "found",
      clusterId: identity.clusterId,
      settings,
      firstFreeNodeId: Math.max(...bootstrapVoters(identity)) + 1,
      ranges,
    });
  }
}
