/** A cluster of three nodes as merges see it: ranges side by side with three replicas each, all led by the first node. */
import { groupId, logIndex, type NodeId, nodeId } from "../../../src/base/ids.js";
import { encodeMetaCommand, type MetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import type { ClusterView } from "../../../src/node/operations/cluster-view.js";
import { MergeKeeper } from "../../../src/node/operations/merge-keeper.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { ManualClock } from "../../sim/manual-clock.js";

const NODES = [1, 2, 3].map(nodeId);
const QUIET = { debug() {}, info() {}, warn() {}, error() {} };

export class MergeWorld {
  readonly clock = new ManualClock();
  readonly meta = new MetaMachine();
  readonly frozen = new Set<number>();
  readonly voters = new Map<number, NodeId[]>();
  /** What was done, each with the second it was done in. */
  readonly log: string[] = [];
  readonly keeper: MergeKeeper;
  readonly view: ClusterView;
  directory: RangeDirectory;
  /** Nodes that do not answer, have no disk space, and answer but do not apply. */
  readonly down = new Set<number>();
  readonly full = new Set<number>();
  readonly stuck = new Set<number>();
  /** Entries that the replicas of the third node have not applied. */
  behind = 0;
  vacant = true;
  refreshSchema = async (): Promise<void> => undefined;
  absorbs = (_left: number): void => undefined;
  freeze = async (_range: number): Promise<void> => undefined;
  onReport = async (): Promise<void> => undefined;
  replace = async (group: number, from: number | null, to: number | null, _withinMs: number) => {
    this.did(`replace ${group} ${from} -> ${to}`);
    const others = this.voters.get(group)!.filter((node) => node !== from);
    this.voters.set(group, to === null ? others : [...others, nodeId(to)]);
  };
  #index = 0;

  constructor(count: number) {
    const start = (i: number): string => (i === 0 ? "" : String.fromCharCode(97 + i));
    const ranges = Array.from({ length: count }, (_, i) => ({
      range: groupId(3 + i),
      start: start(i),
      end: i === count - 1 ? "" : start(i + 1),
      generation: 2,
      replicas: NODES,
    }));
    this.directory = new RangeDirectory(ranges);
    for (const { range } of ranges) this.voters.set(range, NODES);
    for (const id of NODES)
      void this.command({ kind: "register", node: { id, address: "a", http: "off", incarnation: `i${id}` } });
    void this.command({ kind: "report", ranges });
    this.view = this.#makeView();
    this.keeper = new MergeKeeper(this.view, QUIET);
  }

  command = async (command: MetaCommand): Promise<void> => {
    this.meta.apply([{ index: ++this.#index, data: encodeMetaCommand(command) }]);
  };

  did(what: string): void {
    this.log.push(`${Math.round(this.clock.monotonicMs() / 1000)} ${what}`);
  }

  learn(descriptors: readonly RangeDescriptor[]): void {
    this.directory = this.directory.with(descriptors);
    for (const { range } of descriptors) if (!this.voters.has(range)) this.voters.set(range, NODES);
  }

  /** The keeper at work. */
  async run(ms: number, until: () => boolean = () => false): Promise<void> {
    this.keeper.start();
    for (let i = 0; i < ms / 100 && !until(); i++) await this.clock.advance(100);
    this.keeper.stop();
  }

  #status(group: number, node: NodeId) {
    const applied = node === 3 ? 1000 - this.behind : 1000;
    const at = { term: 1, commit: 1000, lastIndex: 1000, applied, leader: 1, leaderReady: node === 1 };
    return { ...at, group, role: node === 1 ? "leader" : "follower" };
  }

  groups = (): number[] => this.directory.ranges.map(({ range }) => range);

  #makeView(): ClusterView {
    const handles = () =>
      this.groups().map((group) => ({
        group,
        leader: 1,
        status: () => ({
          ...this.#status(group, nodeId(1)),
          conf: { voters: this.voters.get(group)!, learners: [] },
        }),
      }));
    const store = (range: number) => ({
      state: () => ({ frozenInto: this.frozen.has(range) ? 3 : undefined, untrimmed: false }),
      size: () => ({ databaseBytes: 1, liveBytes: 1, walBytes: 0 }),
      appliedIndex: () => logIndex(9),
      checkpoint: async () => logIndex(9),
    });
    return {
      self: nodeId(1),
      clock: this.clock,
      meta: this.meta,
      metaClient: { command: this.command },
      statements: {},
      host: {
        diskFull: undefined,
        groups: handles,
        findGroup: (wanted: number) => handles().find(({ group }) => group === wanted),
        group: () => ({ status: () => ({ leaderReady: true }) }),
      },
      calls: { call: (node: NodeId, method: string, [range]: [number]) => this.#call(node, method, range) },
      hosting: {
        calm: { leftMs: 0 },
        frozenRanges: () => new Set([...this.frozen].map(groupId)),
        changes: {
          act: async ({ to }: { readonly to: number }) => this.did(`hand over to ${to}`),
          replace: (...move: Parameters<MergeWorld["replace"]>) => this.replace(...move),
        },
        ranges: { get: (range: number) => ({ filled: true, store: store(range) }) },
        view: {
          refresh: async () => undefined,
          refreshSchema: () => this.refreshSchema(),
          schema: () => ({ snapshot: { tables: this.vacant ? [] : [{ name: "t", id: 1, shard: "rowid" }] } }),
          directory: () => this.#directory(),
          learn: (moved: string) => this.learn(JSON.parse(moved)),
          client: (range: number) => this.#client(range),
        },
      },
    } as unknown as ClusterView;
  }

  /** Where not vacant, every range has rows of the one table. */
  #directory(): RangeDirectory {
    if (this.vacant) return this.directory;
    const { ranges } = this.directory;
    return Object.assign(new RangeDirectory(ranges), { between: () => ranges });
  }

  async #call(node: NodeId, method: string, range: number): Promise<unknown> {
    if (this.down.has(node)) throw new Error("down");
    if (method === "ranges.frozen") return this.frozen.has(range) && !this.stuck.has(node);
    if (method !== "node.report") throw new Error(method);
    await this.onReport();
    const groups = this.groups().map((group) => this.#status(group, node));
    return { node, clusterId: "c", diskFull: this.full.has(node), groups, statements: {} };
  }

  #client(range: number) {
    const own = () => this.directory.get(groupId(range))!;
    return {
      freeze: async () => {
        await this.freeze(range);
        if (!this.frozen.has(range)) this.did(`frozen ${range}`);
        this.frozen.add(range);
        return { ...own(), generation: 3 };
      },
      absorb: async (right: RangeDescriptor) => {
        this.absorbs(range);
        this.frozen.delete(right.range);
        this.did(`absorbed ${right.range}`);
        return { ...own(), end: right.end, generation: own().generation + 2 };
      },
    };
  }
}
