/**
 * `import { startService } from "ostraka/raft"`: replicated services on the engine that carries the database. Write a
 * StateMachine (apply, snapshot, restore: a function of the entries and the state alone), start the same machines on
 * every node, and propose from any of them.
 *
 * Built of a node's own parts (engine.ts, peer-network.ts, meta-client.ts); each machine is a Raft group of its own,
 * beside the meta group, which remembers which node's data is whose.
 *
 * Invariants
 * 1. Every replica applies the same entries in the same order, and an entry that was answered is on a quorum's disks.
 * 2. `read` sees every entry that was answered before it was called, from whichever node.
 * 3. An entry is applied at most once for each call of `propose` that did not fail, and not at all when it failed with
 *    OSTRAKA_UNAVAILABLE. OSTRAKA_UNKNOWN_OUTCOME says that it may have been: a machine that must tell carries a key
 *    in its entries.
 * 4. A machine's group is known by its name: the machine of that name must be the same on every node.
 *
 * Left out: members beyond the founding ones (a service runs on the nodes that `cluster` names), and state larger than
 * memory: a machine lives in memory, its snapshots and its log on disk.
 */
import { join } from "node:path";
import { FatalError, type OstrakaError, RetryError, UserError } from "../base/errors.js";
import { type GroupId, groupId, META_GROUP, type NodeId, nodeId } from "../base/ids.js";
import { Deadline } from "../gateway/deadline.js";
import { MemoryMachine } from "../machines/memory-machine.js";
import { DEFAULT_SETTINGS, MetaMachine } from "../machines/meta/meta.js";
import type { ReplicatedGroup, StateMachine } from "../machines/state-machine.js";
import { AgreedClock } from "../multiraft/agreed-clock.js";
import type { GroupHandle, GroupStatus } from "../multiraft/types.js";
import {
  formatAddress,
  isLoopback,
  loadSecrets,
  type NodeConfig,
  type NodeSecrets,
  parseNodeConfig,
  type TlsFiles,
} from "./config.js";
import { bootstrap, type Engine, handOver, openEngine } from "./engine.js";
import { resolveIdentity } from "./founding.js";
import { type DirectoryLock, type Identity, lockDirectory } from "./identity.js";
import { createLogger, type Logger } from "./logger.js";
import { MetaClient } from "./meta-client.js";
import { PeerNetwork } from "./peer-network.js";
import { RealClock, RealDisk, RealRandom } from "./real-io.js";

export { OstrakaError } from "../base/errors.js";
export {
  Counter,
  type CounterCommand,
  CounterMachine,
  decodeCounterResult,
  encodeCounterCommand,
} from "../machines/samples/counter.js";
export {
  decodeKvResult,
  encodeKvCommand,
  Kv,
  type KvCommand,
  KvMachine,
  type KvResult,
} from "../machines/samples/kv.js";
export {
  decodeLockResult,
  encodeLockCommand,
  Lock,
  type LockCommand,
  LockMachine,
  type LockResult,
} from "../machines/samples/lock.js";
export type { ReplicatedGroup, StateMachine } from "../machines/state-machine.js";
export type { GroupStatus } from "../multiraft/types.js";

export type Machines = Readonly<Record<string, StateMachine>>;

export interface ServiceOptions<M extends Machines> {
  /** This node's id in `cluster`; 1 if there is no cluster. */
  readonly id?: number;
  /** Where this node's log and snapshots are; used by one process at a time. */
  readonly directory: string;
  /** HOST:PORT; with a cluster its own address there by default, else 127.0.0.1 and any free port. */
  readonly listen?: string;
  /** Id → HOST:PORT of all nodes, the same on all of them; one node if left out. Counts on the first start. */
  readonly cluster?: Readonly<Record<number, string>>;
  /** By name; the same machines on every node. The instances are the service's from now on. */
  readonly machines: M;
  /** Files in PEM; needed when others than this machine can reach `listen`. Nodes check one another's certificates. */
  readonly tls?: TlsFiles;
  /** A file whose first line nodes show one another where there is no TLS. */
  readonly secretFile?: string;
  /** Serve other machines without TLS. */
  readonly insecure?: boolean;
  /** How long followers wait for a leader before they elect one; 1000 by default. */
  readonly electionTimeoutMs?: number;
  /** How long `propose`, `read` and `group` look for a leader; 10000 by default. */
  readonly timeoutMs?: number;
  /** pino's shape; warnings and errors on standard error by default. */
  readonly logger?: Logger;
}

export interface Service<M extends Machines> {
  readonly id: number;
  /** HOST:PORT as bound. */
  readonly address: string;
  /** Resolves with the reason should the node have to stop by itself: a machine threw, the disk failed. Close it then. */
  readonly failed: Promise<OstrakaError>;
  /**
   * Appends one entry to a machine's log, through the leader wherever it is, and resolves with what `apply` answered.
   * @throws RetryError OSTRAKA_UNAVAILABLE: nothing was appended, no leader was found in time.
   * @throws AmbiguousError OSTRAKA_UNKNOWN_OUTCOME: it may have been applied, or may yet be.
   * @throws UserError OSTRAKA_CLOSED after `close`; what `failed` resolved with after that.
   */
  propose(name: keyof M & string, data: Uint8Array): Promise<Uint8Array>;
  /**
   * Runs `look` on this node's replica of a machine, linearizably: it sees all that was answered before. `look` must
   * not change the machine nor keep hold of what belongs to it.
   * @throws RetryError OSTRAKA_UNAVAILABLE: no quorum confirmed a leader in time.
   */
  read<N extends keyof M & string, T>(name: N, look: (machine: M[N]) => T): Promise<T>;
  /** A machine's group, for clients such as Kv, Counter and Lock. Errors as above. */
  group(name: keyof M & string): ReplicatedGroup;
  /** What this node knows of a machine's group: role, leader, term, indexes, members. */
  status(name: keyof M & string): GroupStatus;
  /** Hands leadership away and ends everything; idempotent. */
  close(): Promise<void>;
}

/**
 * Starts this node's part of a service; resolves once a quorum of the cluster is there and it serves.
 * @throws UserError OSTRAKA_CONFIG: an option is wrong, or the directory is in use.
 * @throws FatalError OSTRAKA_WIPED: the cluster knows this node with other data; it must not vote again.
 * @example
 * import { Kv, KvMachine, startService } from "ostraka/raft";
 * const machine = new KvMachine();
 * const service = await startService({ directory: "./kv-data", machines: { kv: machine } });
 * const kv = new Kv(service.group("kv"), machine);
 * await kv.put("greeting", "hello");
 * console.log(await kv.get("greeting")); // hello
 * await service.close();
 */
export async function startService<M extends Machines>(options: ServiceOptions<M>): Promise<Service<M>> {
  const groups = groupIds(Object.keys(options.machines));
  const config = configOf(options);
  const secrets = loadSecrets(config);
  const lock = lockDirectory(config.dataDirectory);
  const service = new RaftService<M>(options, { config, secrets, groups, lock });
  try {
    await service.start();
    return service;
  } catch (error) {
    await service.close();
    throw error;
  }
}

const DEFAULT_TIMEOUT_MS = 10_000;
const CALL_MS = 5_000;

function configOf({ id, listen, cluster, ...options }: ServiceOptions<Machines>): NodeConfig {
  const own = id === undefined ? undefined : cluster?.[id];
  const members = Object.entries(cluster ?? {}).map(([member, address]) => `${member}=${address}`);
  const config = parseNodeConfig({
    nodeId: id === undefined ? undefined : String(id),
    data: options.directory,
    listen: listen ?? own ?? "127.0.0.1:0",
    http: "off",
    initialCluster: cluster === undefined ? undefined : members.join(","),
    electionTimeoutMs:
      options.electionTimeoutMs === undefined ? undefined : String(options.electionTimeoutMs),
    clusterSecretFile: options.secretFile,
    tlsCert: options.tls?.certFile,
    tlsKey: options.tls?.keyFile,
    tlsCa: options.tls?.caFile,
    // A node's rules ask for a client token as well; a service has no clients of its own. See below for the rest.
    insecure: true,
  });
  if (!isLoopback(config.listen.host) && options.tls === undefined && options.insecure !== true) {
    throw new UserError(
      "OSTRAKA_CONFIG",
      `listen ${formatAddress(config.listen)} can be reached from other machines: tls must be given, or insecure to run without`,
    );
  }
  return config;
}

/**
 * Group ids from names, so that nodes need not agree on an order: FNV-1a of the name's UTF-8, cut to 30 bits, above
 * those that have a fixed meaning.
 */
function groupIds(names: readonly string[]): ReadonlyMap<string, GroupId> {
  if (names.length === 0) throw new UserError("OSTRAKA_CONFIG", "machines: a service has at least one");
  const ids = new Map<string, GroupId>();
  const taken = new Map<GroupId, string>();
  for (const name of names) {
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
    const id = groupId((hash & 0x3fffffff) + 1024);
    const other = taken.get(id);
    if (other !== undefined)
      throw new UserError(
        "OSTRAKA_CONFIG",
        `machines: ${other} and ${name} cannot be told apart, rename one`,
      );
    taken.set(id, name);
    ids.set(name, id);
  }
  return ids;
}

/** Everything that can be refused has been. */
interface Checked {
  readonly config: NodeConfig;
  readonly secrets: NodeSecrets;
  readonly groups: ReadonlyMap<string, GroupId>;
  readonly lock: DirectoryLock;
}

class RaftService<M extends Machines> implements Service<M> {
  readonly failed: Promise<OstrakaError>;
  readonly #options: ServiceOptions<M>;
  readonly #config: NodeConfig;
  readonly #groupIds: ReadonlyMap<string, GroupId>;
  readonly #lock: DirectoryLock;
  readonly #clock = new AgreedClock(new RealClock());
  readonly #random = new RealRandom();
  readonly #disk = new RealDisk();
  readonly #logger: Logger;
  readonly #network: PeerNetwork;
  readonly #handles = new Map<string, GroupHandle>();
  readonly #meta = new MetaMachine();
  #fail!: (error: OstrakaError) => void;
  #identity: Identity | undefined;
  #engine: Engine | undefined;
  /** Why nothing is asked of the engine any more. */
  #ended: OstrakaError | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ServiceOptions<M>, { config, secrets, groups, lock }: Checked) {
    this.#options = options;
    this.#config = config;
    this.#groupIds = groups;
    this.#lock = lock;
    this.#logger = options.logger ?? createLogger("warn");
    this.#network = new PeerNetwork({
      config,
      secrets,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
    });
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
  }

  get id(): number {
    return this.#identity?.nodeId ?? 0;
  }

  get address(): string {
    return this.#network.address;
  }

  async start(): Promise<void> {
    const network = this.#network;
    await network.listen();
    const identity = await resolveIdentity({
      config: this.#config,
      disk: this.#disk,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
      strangers: network,
      address: network.address,
      http: "off",
    });
    this.#identity = identity;
    network.identify(identity, this.#meta);
    const meta = await this.#openGroups(identity);
    meta.serve();
    this.#serve();
    this.#engine!.host.start();
    await meta.introduce(
      identity,
      { address: this.#advertised(), http: "off" },
      () => this.#ended !== undefined,
    );
    if (this.#meta.state.ranges.length > 0)
      throw new FatalError("OSTRAKA_CONFIG", "the cluster at these addresses is a database, not a service");
  }

  /** The engine has stopped by itself: nothing that waits for it may wait for ever. */
  #stopFor(error: OstrakaError): void {
    this.#logger.error({ code: error.code, reason: error.message }, "the service stops");
    this.#ended ??= error;
    this.#fail(error);
    void this.#engine?.host
      .stop()
      .catch((reason: unknown) =>
        this.#logger.warn({ reason: String(reason) }, "hosting did not end cleanly"),
      );
  }

  #advertised(): string {
    const own = this.#config.initialCluster?.get(this.id);
    return own === undefined ? this.#network.address : formatAddress(own);
  }

  async #openGroups(identity: Identity): Promise<MetaClient> {
    const { dataDirectory: directory, electionTimeoutMs, initialCluster } = this.#config;
    this.#engine = await openEngine({
      self: nodeId(identity.nodeId),
      directory,
      electionTimeoutMs,
      clock: this.#clock,
      random: this.#random,
      disk: this.#disk,
      logger: this.#logger,
      transport: this.#network.transport,
      defer: (run) => setImmediate(run),
      onFatal: (error) => this.#stopFor(error),
    });
    const add = (group: GroupId, machine: StateMachine, folder: string): Promise<GroupHandle> =>
      this.#engine!.host.addGroup({
        group,
        machine: new MemoryMachine({ machine, disk: this.#disk, directory: join(directory, folder) }),
        ...bootstrap(identity),
      });
    const handle = await add(META_GROUP, this.#meta, "meta");
    for (const [name, group] of this.#groupIds) {
      const machine = this.#options.machines[name]!;
      this.#handles.set(name, await add(group, machine, join("machines", String(group))));
    }
    return new MetaClient({
      clock: this.#clock,
      logger: this.#logger,
      handle,
      machine: this.#meta,
      network: this.#network,
      clusterId: identity.clusterId,
      founding: { settings: { ...DEFAULT_SETTINGS, replicas: initialCluster?.size ?? 1 }, ranges: [] },
    });
  }

  /** Other nodes of the service come here when this one leads. */
  #serve(): void {
    const { calls } = this.#network;
    calls.serve(
      "service.propose",
      async ([name, data]) => (await this.#handle(String(name)).propose(data as Uint8Array)).result,
    );
    calls.serve("service.readIndex", ([name]) => this.#handle(String(name)).readIndex());
  }

  #handle(name: string): GroupHandle {
    const handle = this.#handles.get(name);
    if (handle === undefined) throw new UserError("OSTRAKA_CONFIG", `there is no machine called ${name}`);
    return handle;
  }

  async propose(name: keyof M & string, data: Uint8Array): Promise<Uint8Array> {
    return this.#persist(async () => {
      const handle = this.#handle(name);
      const leader = this.#elsewhere(handle);
      if (leader === undefined) return (await handle.propose(data)).result;
      return (await this.#call(leader, "service.propose", [name, data])) as Uint8Array;
    });
  }

  async read<N extends keyof M & string, T>(name: N, look: (machine: M[N]) => T): Promise<T> {
    await this.#readIndex(name);
    return look(this.#options.machines[name]);
  }

  group(name: keyof M & string): ReplicatedGroup {
    this.#handle(name);
    return {
      propose: async (data) => ({ result: await this.propose(name, data) }),
      readIndex: () => this.#readIndex(name),
    };
  }

  async #readIndex(name: string): Promise<void> {
    const deadline = this.#deadline();
    const handle = this.#handle(name);
    // Asking again does no harm, so an answer that was lost is one that was not given.
    await this.#persist(async () => {
      const leader = this.#elsewhere(handle);
      if (leader === undefined) await handle.readIndex();
      else {
        const index = await this.#call(leader, "service.readIndex", [name]).catch((error: unknown) => {
          throw new RetryError("OSTRAKA_UNAVAILABLE", `no read point: ${String(error)}`, { cause: error });
        });
        await this.#within(deadline, handle.waitApplied(index as never));
      }
    }, deadline);
  }

  /** This replica may lag for as long as it likes, the caller's patience does not. */
  #within<T>(deadline: Deadline, work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const late = new RetryError("OSTRAKA_UNAVAILABLE", "this node's replica is behind");
      const timer = this.#clock.setTimer(deadline.availableMs(), () => reject(late));
      work.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  #call(leader: NodeId, method: string, args: readonly unknown[]): Promise<unknown> {
    return this.#network.calls.call(leader, method, args, { timeoutMs: CALL_MS });
  }

  /** The node to ask instead of this one. With no leader in sight this one says so itself, and is asked again. */
  #elsewhere(handle: GroupHandle): NodeId | undefined {
    const { role, leader } = handle.status();
    return role === "leader" || leader === 0 ? undefined : leader;
  }

  #deadline(): Deadline {
    const timeoutMs = this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    return new Deadline(this.#clock, undefined, timeoutMs, { signal: undefined });
  }

  #persist<T>(attempt: () => Promise<T>, deadline = this.#deadline()): Promise<T> {
    return deadline.persist(() => {
      if (this.#ended !== undefined) return Promise.reject(this.#ended);
      return attempt();
    }, NOT_REPEATABLE);
  }

  status(name: keyof M & string): GroupStatus {
    return this.#handle(name).status();
  }

  close(): Promise<void> {
    this.#ended ??= new UserError("OSTRAKA_CLOSED", "the service is closed");
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const host = this.#engine?.host;
    if (host !== undefined) await handOver(host.nodeId, host.groups(), this.#clock);
    await host?.stop();
    await this.#network.close();
    await this.#engine?.closeLog();
    this.#lock.release();
  }
}

/** An entry whose fate is unknown is not proposed again: it might be applied twice. */
const NOT_REPEATABLE = { transaction: "", repeatable: false };
