/**
 * What this node knows of its peers and gathers for them: one frame a peer a turn, and the node-level heartbeat that
 * keeps sleeping groups asleep.
 *
 * Invariants:
 * 1. Everything gathered for a peer in a turn leaves in one frame, heartbeats first in it.
 * 2. Time is counted in this node's own ticks, of which a stall gives only one: a node that was stopped for a minute
 *    does not conclude that its peers were.
 */
import type { GroupId, LogIndex, NodeId, Term } from "../base/ids.js";
import type { Message } from "../raft/types.js";
import { isPlainHeartbeat, pushHeartbeat } from "./heartbeats.js";
import type { GroupMessage, PeerFrame, PeerTransport } from "./types.js";

class Peer {
  messages: GroupMessage[] = [];
  heartbeats: number[] = [];
  quiesced: number[] = [];
  queued = false;
  sentSinceTick = false;
  heardAtTick: number;
  incarnation: number | undefined = undefined;
  diskFull = false;
  /** Whether the groups it leads were already woken for its silence. */
  silent = false;

  constructor(
    readonly id: NodeId,
    tick: number,
  ) {
    this.heardAtTick = tick;
  }
}

export class Peers {
  readonly #transport: PeerTransport;
  readonly #incarnation: number;
  readonly #wallMs: () => number;
  readonly #peers = new Map<NodeId, Peer>();
  #members = new Set<NodeId>();
  #outgoing: Peer[] = [];
  #tick = 0;
  framesSent = 0;
  /** Told to all peers in every frame. */
  diskFull = false;

  /** `wallMs`: this node's own wall clock. */
  constructor(transport: PeerTransport, incarnation: number, wallMs: () => number) {
    this.#transport = transport;
    this.#incarnation = incarnation;
    this.#wallMs = wallMs;
  }

  /** Which nodes share a group with this one: they get the node-level heartbeat. */
  setMembers(members: Set<NodeId>): void {
    this.#members = members;
  }

  queue(group: GroupId, message: Message): void {
    const peer = this.#outgoingTo(message.to);
    if (isPlainHeartbeat(message)) pushHeartbeat(peer.heartbeats, group, message);
    else peer.messages.push({ group, message });
  }

  queueQuiesced(to: NodeId, group: GroupId, term: Term, commit: LogIndex): void {
    this.#outgoingTo(to).quiesced.push(group, term, commit);
  }

  /** Sends what the turn has gathered. */
  flush(): void {
    if (this.#outgoing.length === 0) return;
    const outgoing = this.#outgoing;
    this.#outgoing = [];
    for (const peer of outgoing) {
      peer.queued = false;
      this.#send(peer, peer.messages, peer.heartbeats, peer.quiesced);
      peer.messages = [];
      peer.heartbeats = [];
      peer.quiesced = [];
    }
  }

  /** Notes that a frame came; true when the groups this peer leads must not sleep on (its process is a new one). */
  heard(from: NodeId, frame: PeerFrame): boolean {
    const peer = this.#peer(from);
    peer.heardAtTick = this.#tick;
    peer.silent = false;
    peer.diskFull = frame.diskFull;
    const restarted = peer.incarnation !== undefined && peer.incarnation !== frame.incarnation;
    peer.incarnation = frame.incarnation;
    return restarted;
  }

  /**
   * Advances the count of ticks, sends the node-level heartbeat where nothing else was sent, and answers the peers that
   * have now been silent for `silentTicks` (each once).
   */
  tick(silentTicks: number): NodeId[] {
    this.#tick++;
    const silent: NodeId[] = [];
    for (const id of this.#members) {
      const peer = this.#peer(id);
      if (!peer.sentSinceTick && !peer.queued) this.#send(peer, [], [], []);
      peer.sentSinceTick = false;
      if (!peer.silent && this.#tick - peer.heardAtTick >= silentTicks) {
        peer.silent = true;
        silent.push(id);
      }
    }
    return silent;
  }

  /** Whether a peer is heard from and has disk space. */
  mayLead(id: NodeId): boolean {
    const peer = this.#peers.get(id);
    return peer !== undefined && !peer.silent && !peer.diskFull;
  }

  #send(
    peer: Peer,
    messages: readonly GroupMessage[],
    heartbeats: readonly number[],
    quiesced: readonly number[],
  ): void {
    peer.sentSinceTick = true;
    this.framesSent++;
    this.#transport.send(peer.id, {
      messages,
      heartbeats,
      quiesced,
      incarnation: this.#incarnation,
      wallMs: this.#wallMs(),
      diskFull: this.diskFull,
      alive: true,
    });
  }

  #outgoingTo(id: NodeId): Peer {
    const peer = this.#peer(id);
    if (!peer.queued) {
      peer.queued = true;
      this.#outgoing.push(peer);
    }
    return peer;
  }

  #peer(id: NodeId): Peer {
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      peer = new Peer(id, this.#tick);
      this.#peers.set(id, peer);
    }
    return peer;
  }
}
