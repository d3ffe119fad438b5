import { describe, expect, it } from "vitest";
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { readHeartbeats } from "../../../src/multiraft/heartbeats.js";
import { Peers } from "../../../src/multiraft/peers.js";
import type { PeerFrame } from "../../../src/multiraft/types.js";
import { type Message, MessageType } from "../../../src/raft/types.js";

const ME = nodeId(1);
const PEER = nodeId(2);

function message(fields: Partial<Message>): Message {
  return {
    type: MessageType.Heartbeat,
    from: ME,
    to: PEER,
    term: term(3),
    index: logIndex(0),
    logTerm: term(0),
    entries: [],
    commit: logIndex(9),
    reject: false,
    rejectHint: logIndex(0),
    context: 5,
    snapshot: undefined,
    ...fields,
  };
}

function make(): { peers: Peers; sent: { to: number; frame: PeerFrame }[] } {
  const sent: { to: number; frame: PeerFrame }[] = [];
  const peers = new Peers(
    { send: (to, frame) => void sent.push({ to, frame }), sendSnapshot: async () => {}, receive() {} },
    77,
    () => 5000,
  );
  peers.setMembers(new Set([PEER]));
  return { peers, sent };
}
const frame = (fields: Partial<PeerFrame> = {}): PeerFrame => ({
  messages: [],
  heartbeats: [],
  quiesced: [],
  incarnation: 1,
  wallMs: 5000,
  diskFull: false,
  alive: true,
  ...fields,
});

describe("frames", () => {
  it("carry heartbeats and their answers as columns that read back as they were", () => {
    const { peers, sent } = make();
    const beat = message({});
    const answer = message({ type: MessageType.HeartbeatResponse, context: 6 });
    const append = message({ type: MessageType.Append, index: logIndex(4) });
    peers.queue(groupId(10), beat);
    peers.queue(groupId(11), answer);
    peers.queue(groupId(12), append);
    peers.flush();
    expect(sent).toHaveLength(1);
    const { heartbeats, messages } = (sent[0] as (typeof sent)[0]).frame;
    expect([...readHeartbeats(heartbeats, ME, PEER)]).toEqual([
      { group: 10, message: beat },
      { group: 11, message: answer },
    ]);
    expect(messages).toEqual([{ group: 12, message: append }]);
    peers.flush();
    expect(sent).toHaveLength(1);
  });

  it("keep a heartbeat that has more to say as a message", () => {
    const { peers, sent } = make();
    const rejecting = message({ type: MessageType.HeartbeatResponse, reject: true });
    peers.queue(groupId(10), rejecting);
    peers.flush();
    expect(sent[0]?.frame).toMatchObject({ heartbeats: [], messages: [{ message: rejecting }] });
  });

  it("are sent every tick to whoever was sent nothing", () => {
    const { peers, sent } = make();
    peers.tick(10);
    expect(sent).toHaveLength(1);
    expect(sent[0]?.frame).toEqual(frame({ incarnation: 77 }));
    peers.queue(groupId(10), message({}));
    peers.flush();
    peers.tick(10);
    expect(sent).toHaveLength(2);
  });
});

describe("a peer", () => {
  it("falls silent once, and is heard again", () => {
    const { peers } = make();
    peers.heard(PEER, frame());
    const silentAt = Array.from({ length: 8 }, () => peers.tick(5).length);
    expect(silentAt).toEqual([0, 0, 0, 0, 1, 0, 0, 0]);
    expect(peers.mayLead(PEER)).toBe(false);
    peers.heard(PEER, frame());
    expect(peers.mayLead(PEER)).toBe(true);
  });

  it("that has restarted is told by its incarnation", () => {
    const { peers } = make();
    expect(peers.heard(PEER, frame({ incarnation: 1 }))).toBe(false);
    expect(peers.heard(PEER, frame({ incarnation: 1 }))).toBe(false);
    expect(peers.heard(PEER, frame({ incarnation: 2 }))).toBe(true);
    expect(peers.heard(PEER, frame({ incarnation: 2 }))).toBe(false);
  });

  it("with a full disk is not to lead", () => {
    const { peers } = make();
    peers.heard(PEER, frame({ diskFull: true }));
    expect(peers.mayLead(PEER)).toBe(false);
  });
});
