/**
 * How a node comes to know who it is: from its data directory; as a founder named by --initial-cluster; by joining a
 * running cluster; or as a cluster of one.
 *
 * A node with an empty directory first asks its peers. If the cluster already exists and knows the node's id, the
 * node's data was lost, and what it voted with it: it must not vote again under that id, and is refused.
 */

import { FatalError, RetryError, UserError } from "../base/errors.js";
import { type NodeId, nodeId } from "../base/ids.js";
import type { Clock, Disk, Random } from "../base/io.js";
import { pause } from "../base/waits.js";
import { foundingClusterId, type MetaNode, type MetaResult, type NodeRecord } from "../machines/meta/meta.js";
import { type Address, formatAddress, type NodeConfig } from "./config.js";
import { type Identity, newIncarnation, readIdentity, writeIdentity } from "./identity.js";
import type { Logger } from "./logger.js";

/** What a node says of its cluster to one that does not belong to it yet. */
export interface ClusterProbe {
  readonly clusterId: string;
  readonly nodes: readonly MetaNode[];
  /** A quorum confirmed that there is nothing newer: whoever is not among `nodes` is not known. */
  readonly current: boolean;
}

/** Calls to nodes before this one has an identity. */
export interface Strangers {
  probe(address: Address): Promise<ClusterProbe>;
  join(address: Address, node: NodeRecord): Promise<MetaResult>;
}

export interface FoundingContext {
  readonly config: NodeConfig;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly strangers: Strangers;
  /** Where this node listens, as others reach it. */
  readonly address: string;
  readonly http: string;
}

const JOIN_MS = 60_000;
const JOIN_PAUSE_MS = 500;

export async function resolveIdentity(context: FoundingContext): Promise<Identity> {
  const { config, disk } = context;
  const known = await readIdentity(disk, config.dataDirectory);
  if (known !== undefined) {
    if (config.nodeId !== undefined && config.nodeId !== known.nodeId) {
      throw new UserError(
        "OSTRAKA_CONFIG",
        `${config.dataDirectory} belongs to node ${known.nodeId}, not ${config.nodeId}`,
      );
    }
    return known;
  }
  if (config.join !== undefined) return join(context, config.join);
  if (config.initialCluster !== undefined && config.initialCluster.size > 1)
    return found(context, config.initialCluster);
  const id = config.nodeId ?? 1;
  const incarnation = newIncarnation(context.random);
  return writeIdentity(disk, config.dataDirectory, {
    nodeId: id,
    clusterId: `${incarnation}${newIncarnation(context.random)}`,
    incarnation,
    founders: { [id]: context.address },
  });
}

async function found(context: FoundingContext, members: ReadonlyMap<number, Address>): Promise<Identity> {
  const { config } = context;
  const id = config.nodeId;
  if (id === undefined || !members.has(id))
    throw new UserError("OSTRAKA_CONFIG", "--node-id must be one of --initial-cluster");
  await askWhetherKnown(context, id, members);
  const founders = Object.fromEntries(
    [...members].map(([member, address]) => [member, formatAddress(address)]),
  );
  const clusterId = foundingClusterId(
    new Map([...members].map(([member, address]) => [member, formatAddress(address)])),
  );
  return writeIdentity(context.disk, config.dataDirectory, {
    nodeId: id,
    clusterId,
    incarnation: newIncarnation(context.random),
    founders,
  });
}

/**
 * Returns when no reachable peer belongs to a cluster yet, or the cluster says by a quorum that it does not know this
 * node. A peer that is behind may not have heard of the node that this one, without its data, would impersonate.
 */
async function askWhetherKnown(
  { config, strangers, logger, clock }: FoundingContext,
  id: number,
  members: ReadonlyMap<number, Address>,
): Promise<void> {
  const others = [...members].filter(([other]) => other !== id);
  for (;;) {
    const asked = others.map(([other, address]) =>
      strangers.probe(address).catch((error: unknown) => {
        logger.info(
          { node: other, address: formatAddress(address), reason: String(error) },
          "founding peer not reached yet",
        );
        return undefined;
      }),
    );
    const found = (await Promise.all(asked)).filter((probe) => probe !== undefined && probe.clusterId !== "");
    for (const probe of found) {
      const mine = probe?.nodes.find((node) => node.id === id);
      if (mine === undefined) continue;
      throw new FatalError(
        "OSTRAKA_WIPED",
        `the cluster ${probe!.clusterId} already knows node ${id} (incarnation ${mine.incarnation}), but ${config.dataDirectory} is empty. ` +
          `A node that lost its data must not vote again under its old id: remove node ${id} and start with --join and a new id`,
      );
    }
    if (found.length === 0 || found.some((probe) => probe?.current === true)) return;
    logger.info(
      {},
      "the cluster exists, but no quorum of it can say whether it knows this node; asking again",
    );
    await pause(clock, JOIN_PAUSE_MS);
  }
}

async function join(context: FoundingContext, addresses: readonly Address[]): Promise<Identity> {
  const { config, strangers, logger, clock } = context;
  const incarnation = newIncarnation(context.random);
  const startedMs = clock.monotonicMs();
  const wanted = { id: config.nodeId ?? 0, address: context.address, http: context.http, incarnation };
  for (let tries = 0; ; tries++) {
    const address = addresses[tries % addresses.length]!;
    try {
      const result = await strangers.join(address, wanted);
      if (!result.ok) throw new FatalError("OSTRAKA_JOIN_REFUSED", result.reason);
      const { nodes } = await strangers.probe(address);
      logger.info({ node: result.nodeId, clusterId: result.clusterId }, "joined the cluster");
      return await writeIdentity(context.disk, config.dataDirectory, {
        nodeId: result.nodeId,
        clusterId: result.clusterId,
        incarnation,
        founders: {},
        seeds: Object.fromEntries(nodes.map((node) => [node.id, node.address])),
      });
    } catch (error) {
      if (error instanceof FatalError) throw error;
      logger.warn(
        { address: formatAddress(address), reason: String(error) },
        "join not answered, will try again",
      );
      if (clock.monotonicMs() - startedMs > JOIN_MS) {
        throw new RetryError(
          "OSTRAKA_UNAVAILABLE",
          `no node at ${addresses.map(formatAddress).join(", ")} let this one join within ${JOIN_MS} ms: ${String(error)}`,
        );
      }
      await pause(clock, JOIN_PAUSE_MS);
    }
  }
}

/** Founders start with all of them as voters; a node that joined waits for a leader's snapshot. */
export function bootstrapVoters(identity: Identity): readonly NodeId[] {
  return Object.keys(identity.founders)
    .map((id) => nodeId(Number(id)))
    .sort((a, b) => a - b);
}
