/**
 * What a node says of the groups that it leads, to whoever leads meta. The whole of it is said again only when something
 * of it has changed: the answer to a question carries a stamp, and the next question brings it back.
 */
import { COORDINATOR_GROUP, type GroupId, META_GROUP, type NodeId } from "../../base/ids.js";
import type { Random } from "../../base/io.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { GroupHandle, GroupStatus } from "../../multiraft/types.js";
import type { CoordinatorHost } from "../ranges/coordinator-host.js";
import type { HostedRange } from "../ranges/hosted-range.js";
import type { Ranges, RangesListener } from "../ranges/ranges.js";

/** A member this close to the leader's last entry has caught up; one that has never answered is not close. */
const CAUGHT_UP_ENTRIES = 256;

export interface GroupFacts {
  readonly group: GroupId;
  readonly term: number;
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
  readonly joint: boolean;
  readonly caughtUp: readonly NodeId[];
  /** Voters that have not. */
  readonly behind: readonly NodeId[];
  /** Its leader is at work on its members already. */
  readonly changing: boolean;
  /** The range that this one is frozen for. */
  readonly frozenInto: GroupId | undefined;
}

export interface NodeFacts {
  readonly stamp: string;
  /** There is no disk space. */
  readonly full: boolean;
  /** Undefined: as when the stamp was given. */
  readonly leads: readonly GroupFacts[] | undefined;
}

export function caughtUp(handle: GroupHandle): NodeId[] {
  const status = handle.status();
  return status.conf.learners.filter((node) => isClose(status, node));
}

function isClose({ match, lastIndex }: GroupStatus, node: NodeId): boolean {
  const matched = match.get(node) ?? 0;
  return matched > 0 && matched + CAUGHT_UP_ENTRIES >= lastIndex;
}

export class NodeFactsKeeper implements RangesListener {
  readonly #host: MultiRaft;
  readonly #ranges: Ranges;
  readonly #coordinator: CoordinatorHost;
  readonly #changing: (group: GroupId) => boolean;
  /** Who was behind when it was told last. */
  #behind = "";
  /** Of this start of the node. */
  readonly #origin: string;
  #version = 0;
  #watched: GroupHandle | undefined;

  constructor(
    host: MultiRaft,
    ranges: Ranges,
    coordinator: CoordinatorHost,
    random: Random,
    changing: (group: GroupId) => boolean,
  ) {
    this.#host = host;
    this.#ranges = ranges;
    this.#coordinator = coordinator;
    this.#changing = changing;
    this.#origin = String(random.uint32());
    ranges.listen(this);
    host.group(META_GROUP).onChange(() => this.changed());
  }

  opened(): void {
    this.#version++;
  }

  changed(): void {
    this.#version++;
  }

  closed(): void {
    this.#version++;
  }

  facts(known: string | undefined): NodeFacts {
    this.#watchCoordinator();
    const leads = this.#leads();
    // How far others have come changes without a sign.
    const learning = leads.some(({ learners, joint }) => learners.length > 0 || joint);
    const behind = leads.flatMap((facts) => facts.behind.map((node) => `${facts.group}/${node}`)).join();
    if (behind !== this.#behind) this.#version++;
    this.#behind = behind;
    const stamp = `${this.#origin}-${this.#version}`;
    const full = this.#host.diskFull !== undefined;
    return { stamp, full, leads: stamp === known && !learning ? undefined : leads };
  }

  /** It may have come or gone. */
  #watchCoordinator(): void {
    const { handle } = this.#coordinator;
    if (handle === this.#watched) return;
    this.#watched = handle;
    this.#version++;
    handle?.onChange(() => {
      if (this.#watched === handle) this.#version++;
    });
  }

  #leads(): GroupFacts[] {
    const facts: GroupFacts[] = [];
    for (const group of [META_GROUP, COORDINATOR_GROUP]) {
      const handle = this.#host.findGroup(group);
      if (handle !== undefined) this.#add(facts, handle, undefined);
    }
    for (const hosted of this.#ranges.all.values()) this.#add(facts, hosted.handle, hosted);
    return facts;
  }

  #add(facts: GroupFacts[], handle: GroupHandle, hosted: HostedRange | undefined): void {
    if (handle.leader !== this.#host.nodeId) return;
    const status = handle.status();
    const { leaderReady, conf, term, group } = status;
    if (!leaderReady) return;
    facts.push({
      group,
      term,
      voters: conf.voters,
      learners: conf.learners,
      joint: conf.votersOutgoing.length > 0,
      caughtUp: conf.learners.filter((node) => isClose(status, node)),
      behind: conf.voters.filter((node) => node !== this.#host.nodeId && !isClose(status, node)),
      changing: this.#changing(group),
      frozenInto: hosted?.store.state().frozenInto,
    });
  }
}
