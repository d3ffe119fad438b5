/**
 * Who a node is: written once into its data directory, and locked while a process uses it.
 *
 * The incarnation is the data's own name. Peers know a node by id and incarnation together, so that a node that lost
 * its data and comes back with the same flags is told apart from the one that voted.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { FatalError, UserError } from "../base/errors.js";
import type { Disk, Random } from "../base/io.js";

export interface Identity {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly incarnation: string;
  /** The first membership, where this node was one of the founders; empty when it joined. */
  readonly founders: Readonly<Record<string, string>>;
  /** Where other nodes were when this one joined: whom to ask until meta says where they are now. */
  readonly seeds?: Readonly<Record<string, string>>;
  /**
   * The cluster that this one was made of when its quorum was lost, the nodes that it lost, and the first id of a range
   * that nothing of it can name.
   */
  readonly recoveredFrom?: {
    readonly clusterId: string;
    readonly lost: readonly number[];
    readonly firstFreeRange?: number;
  };
  /** While that is under way: the nodes that will have been lost. */
  readonly recovering?: readonly number[];
  readonly format: number;
}

const FORMAT = 1;
const FILE = "identity.json";

export function newIncarnation(random: Random): string {
  return Array.from(random.bytes(8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function readIdentity(disk: Disk, directory: string): Promise<Identity | undefined> {
  const path = join(directory, FILE);
  if (!(await disk.exists(path))) return undefined;
  let identity: Partial<Identity> | null;
  try {
    identity = JSON.parse(new TextDecoder().decode(await disk.readFile(path))) as Partial<Identity> | null;
  } catch (error) {
    throw new FatalError("OSTRAKA_IDENTITY", `${path} is damaged: ${String(error)}`);
  }
  if (identity?.format !== FORMAT) {
    throw new FatalError(
      "OSTRAKA_IDENTITY",
      `${path} is of format ${identity?.format}; this version reads ${FORMAT}`,
    );
  }
  if (!isWhole(identity))
    throw new FatalError("OSTRAKA_IDENTITY", `${path} is damaged: parts of it are missing`);
  return identity;
}

/** Who lacks founders would be taken for a node that joined, and wait for ever for somebody to tell it of its groups. */
function isWhole(identity: Partial<Identity>): identity is Identity {
  const { nodeId, clusterId, incarnation, founders } = identity;
  return (
    Number.isSafeInteger(nodeId) &&
    nodeId! > 0 &&
    [clusterId, incarnation].every((name) => typeof name === "string" && name !== "") &&
    typeof founders === "object" &&
    founders !== null
  );
}

export async function writeIdentity(
  disk: Disk,
  directory: string,
  identity: Omit<Identity, "format">,
): Promise<Identity> {
  const whole: Identity = { ...identity, format: FORMAT };
  await disk.writeFile(
    join(directory, FILE),
    new TextEncoder().encode(`${JSON.stringify(whole, null, 2)}\n`),
  );
  return whole;
}

/** Held by the operating system for as long as the process lives; released by a kill as well. */
export interface DirectoryLock {
  release(): void;
}

function openLock(directory: string): Database.Database {
  try {
    mkdirSync(directory, { recursive: true });
    return new Database(join(directory, "lock.db"), { timeout: 0 });
  } catch (error) {
    throw new UserError("OSTRAKA_CONFIG", `${directory} cannot be used: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

export function lockDirectory(directory: string): DirectoryLock {
  const database = openLock(directory);
  try {
    database.pragma("journal_mode = MEMORY");
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw new UserError(
      "OSTRAKA_CONFIG",
      `${directory} is in use by another process (${(error as Error).message})`,
    );
  }
  return { release: () => database.close() };
}
