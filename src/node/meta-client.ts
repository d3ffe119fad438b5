/**
 * Meta as a node uses it: proposals to its leader from any node, answers to strangers that ask what cluster this is or
 * to be let in, and making this node known when it starts.
 */
import { FatalError, RetryError } from "../base/errors.js";
import type { LogIndex } from "../base/ids.js";
import type { Clock } from "../base/io.js";
import { Deadline } from "../gateway/deadline.js";
import { DEFAULT_LIMITS } from "../gateway/replica.js";
import {
  decodeMetaResult,
  encodeMetaCommand,
  type MetaCommand,
  type MetaMachine,
  type MetaResult,
  type RangeDescriptor,
} from "../machines/meta/meta.js";
import type { GroupHandle } from "../multiraft/types.js";
import { bootstrapVoters } from "./founding.js";
import type { Identity } from "./identity.js";
import type { Logger } from "./logger.js";
import type { NodeNetwork } from "./network.js";
import { KNOWN_OTHERWISE } from "./peer-network.js";

const REGISTER_PAUSE_MS = 200;
const CALL_MS = 5_000;
/** Less than a stranger waits for its answer. */
const CATCH_UP_MS = 2_000;

export interface MetaClientOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly handle: GroupHandle;
  readonly machine: MetaMachine;
  readonly network: NodeNetwork;
  /** What a cluster begins with, for whoever is first to name it. */
  readonly founding: { readonly replicas: number; readonly ranges: readonly RangeDescriptor[] };
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
        const current = machine.state.clusterId !== "" && (await this.#catchUp());
        return { clusterId: machine.state.clusterId, nodes: machine.state.nodes, current };
      },
      join: (node) => this.propose({ kind: "join", node }),
    });
  }

  /** False when no quorum could be asked within the time that a probe has. */
  async #catchUp(): Promise<boolean> {
    const { clock, handle, network } = this.#options;
    const deadline = new Deadline(clock, CATCH_UP_MS, CATCH_UP_MS, { signal: undefined });
    try {
      const index = await deadline.persist(async () => {
        const { leader, role } = handle.status();
        if (role === "leader" || leader === 0) return handle.readIndex();
        const options = { timeoutMs: CATCH_UP_MS };
        return (await network.calls.call(leader, "meta.readPoint", [], options)) as LogIndex;
      });
      await deadline.race(handle.waitApplied(index));
      return true;
    } catch {
      return false;
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
        const { nodeId: id, incarnation } = identity;
        const result = await this.propose({ kind: "register", node: { id, ...where, incarnation } });
        if (!result.ok) throw new FatalError("OSTRAKA_WIPED", result.reason);
        return;
      } catch (error) {
        if (error instanceof FatalError) throw error;
        if (String(error).includes(KNOWN_OTHERWISE)) throw new FatalError("OSTRAKA_WIPED", String(error));
        logger.info({ reason: String(error) }, "waiting for a quorum of the cluster");
        await new Promise<void>((resolve) => clock.setTimer(REGISTER_PAUSE_MS, resolve));
      }
    }
  }

  async #found(identity: Identity): Promise<void> {
    const { replicas, ranges } = this.#options.founding;
    await this.propose({
      kind: "found",
      clusterId: identity.clusterId,
      replicas,
      firstFreeNodeId: Math.max(...bootstrapVoters(identity)) + 1,
      ranges,
    });
  }
}
