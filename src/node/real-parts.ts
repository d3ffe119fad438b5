/** The real clock, disk, network, threads and processes of a node. */

import { existsSync } from "node:fs";
import { UserError } from "../base/errors.js";
import { createRunnerPool, type RunnerPoolOptions } from "../machines/range/runner/pool.js";
import { openStoreWorker } from "../machines/range/store.js";
import { loadSecrets, type NodeConfig } from "./config.js";
import { lockDirectory } from "./identity.js";
import { createLogger } from "./logger.js";
import type { NodeNetwork } from "./network.js";
import { assembleNode, type NodeParts, type RunnerPurpose, type RunningNode } from "./node.js";
import { PeerNetwork } from "./peer-network.js";
import { RealClock, RealDisk, RealRandom } from "./real-io.js";
import { type Recovery, recover } from "./recover.js";

const RUNNERS: Readonly<Record<RunnerPurpose, Omit<RunnerPoolOptions, "clock">>> = {
  /** They run single statements; more would only share two or four cores. */
  statements: { size: 4, warm: 1 },
  /** Sessions with a read-only transaction, a private copy or TEMP objects open at once. */
  sessions: { size: 32, warm: 0 },
  /** Single statements over several ranges, and writes that may take long. */
  gathering: { size: 32, warm: 0 },
  /** Snapshots of other nodes, whose fences stand for a second: who would wait longer asks another node. */
  sources: { size: 32, warm: 0, maxWaitMs: 1_000 },
};

/** Starts a node; `network` instead of the sockets that the configuration asks for. */
export async function startNode(config: NodeConfig, network?: NodeNetwork): Promise<RunningNode> {
  const secrets = loadSecrets(config);
  const lock = lockDirectory(config.dataDirectory);
  const clock = new RealClock();
  const random = new RealRandom();
  const logger = createLogger(config.logLevel);
  const parts: NodeParts = {
    clock,
    random,
    logger,
    lock,
    disk: new RealDisk(),
    network: network ?? new PeerNetwork({ config, secrets, clock, random, logger }),
    openStores: () => openStoreWorker({ clock }),
    openRunners: (purpose) => createRunnerPool({ clock, ...RUNNERS[purpose] }),
    defer: (run) => setImmediate(run),
  };
  return assembleNode(config, parts);
}

/** `ostraka recover --quorum-lost`, on a data directory that no node uses. */
export async function recoverDirectory(directory: string): Promise<Recovery> {
  if (!existsSync(directory)) throw new UserError("OSTRAKA_CONFIG", `there is no directory ${directory}`);
  const lock = lockDirectory(directory);
  try {
    return await recover({
      clock: new RealClock(),
      random: new RealRandom(),
      disk: new RealDisk(),
      directory,
    });
  } finally {
    lock.release();
  }
}
