/**
 * One stream to one node: gives requests their ids, gathers those of a turn into a frame, and takes answers to the
 * calls they belong to.
 *
 * Invariants
 * 1. A call is sent only after the node said welcome, so a call that waits has surely not been executed.
 * 2. When the link goes down every call in flight hears `lost` exactly once, and nothing after it.
 */
import { IdTable } from "../base/id-table.js";
import { type FramePipe, FrameWriter, type PipeHandler } from "../rpc/pipe.js";
import { ClientOp, PROTOCOL_VERSION, ServerOp, type WireCounts } from "../rpc/protocol.js";
import { MalformedFrame, unpackMessages } from "../rpc/wire.js";
import type { ServerInfo } from "./types.js";

/** Something asked of a node, from the link's point of view. */
export interface Call {
  /** Set by the link that carries it. */
  id: number;
  /** The request with that id. */
  message(id: number): readonly unknown[];
  readonly bytes: number;
  /** True when this was the last message for it. */
  receive(message: readonly unknown[]): boolean;
  lost(link: Link, reason: string): void;
}

export type Dial = (handler: PipeHandler) => FramePipe;

export interface LinkOwner {
  ready(link: Link): void;
  /** `refused`: by the credentials. */
  down(link: Link, reason: string, refused: boolean): void;
  /** The node passes most writes on to `node`. */
  prefer(link: Link, node: number): void;
  /** The node's clock shows `wallMs`. */
  told?(wallMs: number): void;
}

export class Link implements PipeHandler {
  readonly #pipe: FramePipe;
  readonly #writer: FrameWriter;
  readonly #calls = new IdTable<Call>();
  #owner: LinkOwner;
  #nextId = 1;
  #nextSession = 1;
  #users = 0;
  #retired = false;
  #down = false;
  server: ServerInfo | undefined;
  /** The version of the schema as the node told it last; 0 when it has not. */
  schemaVersion = 0;

  constructor(
    readonly host: string,
    dial: Dial,
    owner: LinkOwner,
  ) {
    this.#owner = owner;
    this.#pipe = dial(this);
    this.#writer = new FrameWriter(this.#pipe);
    this.#writer.push([ClientOp.Hello, PROTOCOL_VERSION], 8);
  }

  /** From now on `owner` hears of it. */
  handOver(owner: LinkOwner): void {
    this.#owner = owner;
  }

  get isDown(): boolean {
    return this.#down;
  }

  send(call: Call): void {
    const id = this.#nextId++;
    call.id = id;
    this.#calls.set(id, call);
    this.#writer.push(call.message(id), call.bytes);
  }

  /** A message that nothing answers, or whose answer nobody awaits. */
  tell(message: readonly unknown[]): void {
    if (!this.#down) this.#writer.push(message, 16);
  }

  /** From now on `heir` hears what is answered to `call`. */
  bequeath(call: Call, heir: Call): void {
    heir.id = call.id;
    this.#calls.set(call.id, heir);
  }

  /** The call is over for its owner; answers that still come are dropped. */
  forget(call: Call): void {
    if (this.#calls.get(call.id) !== call) return;
    this.#calls.delete(call.id);
    this.#closeIfIdle();
  }

  cancel(call: Call): void {
    if (this.#calls.get(call.id) === call) this.tell([ClientOp.Cancel, call.id]);
  }

  /**
   * Opens a session at the node, without waiting; it keeps the link until `closeSession`. `counts`: of a session that was
   * at another node before.
   */
  openSession(counts?: WireCounts): number {
    const session = this.#nextSession++;
    this.#users++;
    const message = [ClientOp.OpenSession, this.#nextId++, session];
    this.tell(counts === undefined ? message : [...message, counts]);
    return session;
  }

  closeSession(session: number): void {
    this.#users--;
    this.tell([ClientOp.CloseSession, this.#nextId++, session]);
    this.#closeIfIdle();
  }

  /** No new work comes; it closes once what it carries is done. */
  retire(): void {
    this.#retired = true;
    this.#closeIfIdle();
  }

  #closeIfIdle(): void {
    if (!this.#retired || this.#calls.size > 0 || this.#users > 0 || this.#down) return;
    setImmediate(() => this.close("retired"));
  }

  close(reason: string): void {
    if (this.#down) return;
    // Sessions' last words first.
    this.#writer.flush();
    this.#goDown(reason);
    this.#pipe.end();
  }

  onFrame(body: Uint8Array): void {
    let messages: unknown[];
    try {
      messages = unpackMessages(body);
    } catch (error) {
      if (!(error instanceof MalformedFrame)) throw error;
      this.#pipe.end();
      this.#goDown(`the node sent what is no frame: ${error.message}`);
      return;
    }
    for (const message of messages) {
      if (this.#down) return;
      if (Array.isArray(message)) this.#receive(message);
    }
  }

  #receive(message: unknown[]): void {
    const id = message[1] as number;
    if (id === 0) {
      if (this.server === undefined) this.#handshake(message);
      else if (message[0] === ServerOp.Prefer) this.#owner.prefer(this, message[2] as number);
      else if (message[0] === ServerOp.Present) this.#learn(message[2], message[3]);
      return;
    }
    const call = this.#calls.get(id);
    if (call === undefined || !call.receive(message) || this.#calls.get(id) !== call) return;
    this.#calls.delete(id);
    this.#closeIfIdle();
  }

  #handshake(message: unknown[]): void {
    if (message[0] !== ServerOp.Welcome || message[2] !== PROTOCOL_VERSION) {
      this.#pipe.end();
      this.#goDown("the node speaks another protocol");
      return;
    }
    const [, , , clusterId, nodeId, sqliteVersion] = message as [0, 0, 0, string, number, string];
    this.server = { clusterId, nodeId, sqliteVersion };
    this.#learn(message[6], message[7]);
    this.#owner.ready(this);
  }

  #learn(wallMs: unknown, schemaVersion: unknown): void {
    if (typeof schemaVersion === "number") this.schemaVersion = schemaVersion;
    if (typeof wallMs === "number") this.#owner.told?.(wallMs);
  }

  onDrain(): void {
    this.#writer.drained();
  }

  onClose(reason: string, refused = false): void {
    this.#goDown(plainReason(reason), refused);
  }

  #goDown(reason: string, refused = false): void {
    if (this.#down) return;
    this.#down = true;
    this.#writer.close();
    const calls = this.#calls.values();
    this.#calls.clear();
    this.#owner.down(this, reason, refused);
    for (const call of calls) call.lost(this, reason);
  }
}

/** gRPC's words for why there is no connection, without its own details and OpenSSL's: one line for a user. */
function plainReason(reason: string): string {
  if (/\bSSL routines:.*:wrong version number\b/.test(reason)) return "the port does not speak TLS";
  const cause = reason.replace(/^No connection established\. Last error: (?:Error: )?/, "");
  return cause
    .replace(/\.?\s*Resolution note:.*$/s, "")
    .replace(/\s+/g, " ")
    .trim();
}
