/**
 * `import { open } from "ostraka/embedded"`: a cluster of one inside this process, behind the driver's interface.
 *
 * The same node as `ostraka start` runs, with its log, its range and its processes for long queries, but without a
 * socket: the client protocol goes through memory. A directory opened here can be started as a node later, and the
 * other way round.
 */
import { resolve } from "node:path";
import { OstrakaError as NodeError, UserError } from "../base/errors.js";
import { openThrough } from "../driver/connect.js";
import { OstrakaError } from "../driver/errors.js";
import type { Dial } from "../driver/link.js";
import type { Database, IntMode } from "../driver/types.js";
import { checkIntMode, checkTimeout } from "../driver/url.js";
import { parseNodeConfig } from "../node/config.js";
import { startNode } from "../node/index.js";
import { LocalNetwork } from "../node/network.js";
import { sqliteVersion } from "../node/sqlite-version.js";
import { ClientConnection } from "../rpc/client-service.js";
import type { Gateway } from "../rpc/gateway.js";
import { createLocalPipe } from "../rpc/local-pipe.js";
import { silentLogger } from "../rpc/logger.js";
import { systemClock } from "../rpc/system.js";

export { OstrakaError } from "../driver/errors.js";
export type { Database, ResultSet, Session, Statement, Transaction } from "../driver/types.js";

export interface OpenOptions {
  /** How INTEGERs appear in rows; "number" by default. */
  readonly intMode?: IntMode;
  /** Default deadline of calls. */
  readonly timeoutMs?: number;
}

/**
 * Opens (or creates) the database in `directory`; one process at a time. `close()` ends it and lets the directory go.
 * @example
 * import { open } from "ostraka/embedded";
 * const db = await open("./data");
 * await db.execute("create table if not exists t (id integer primary key, name text)");
 * await db.close();
 */
export async function open(directory: string, options: OpenOptions = {}): Promise<Database> {
  if (typeof directory !== "string" || directory === "") throw new TypeError("open takes a directory");
  if (options.intMode !== undefined) checkIntMode(options.intMode);
  if (options.timeoutMs !== undefined) checkTimeout(options.timeoutMs);
  try {
    return await openNode(directory, options);
  } catch (error) {
    // Users know one class of errors: the driver's.
    if (!(error instanceof NodeError)) throw error;
    throw new OstrakaError(error.code, error.message, { cause: error });
  }
}

async function openNode(directory: string, options: OpenOptions): Promise<Database> {
  const config = parseNodeConfig({ data: resolve(directory), http: "off", logLevel: "silent" });
  let serving: { readonly gateway: Gateway; readonly clusterId: string; readonly nodeId: number } | undefined;
  const network = new LocalNetwork((gateway, clusterId, self) => {
    serving = { gateway, clusterId, nodeId: self };
  });
  const node = await startNode(config, network);
  if (serving === undefined)
    throw new UserError("OSTRAKA_CLOSED", "the database was closed while it was opened");
  const served = { ...serving, sqliteVersion: sqliteVersion(), clock: systemClock, logger: silentLogger };
  const dial: Dial = (handler) => {
    const { client, server } = createLocalPipe();
    server.attach(new ClientConnection(served, server, "embedded"));
    client.attach(handler);
    return client;
  };
  try {
    return await openThrough(
      ["embedded"],
      () => dial,
      options,
      () => node.stop(),
    );
  } catch (error) {
    await node.stop();
    throw error;
  }
}
