/**
 * What every client command shares: the flags that say which cluster to talk to and who is asking, and the connection.
 *
 * The token comes from a file (or the environment, for containers), never from the command line, where every process
 * on the machine could read it. URLs that carry a user or a password are refused for the same reason.
 */
import { type Command, Option } from "commander";
import { connect } from "../driver/index.js";
import type { ConnectOptions, Database, IntMode, TlsOptions } from "../driver/types.js";
import { readCertificates, readKeyPair, readTokenFile } from "../node/config.js";
import { CommandFailure, describeError, EXIT, errorCode } from "./exit.js";

export const DEFAULT_URL = "ostraka://127.0.0.1:7400";
/** How long to look for a node that answers. */
const CONNECT_TIMEOUT_MS = 10_000;
/** The longest a timer can wait; for calls that end when they end. */
export const NO_TIMEOUT_MS = 2 ** 31 - 1;

export interface ConnectionFlags {
  readonly url?: string | undefined;
  readonly authTokenFile?: string | undefined;
  readonly tlsCa?: string | undefined;
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsServerName?: string | undefined;
  readonly connectTimeoutMs?: string | undefined;
}

export function addConnectionOptions(command: Command): Command {
  return command
    .addOption(new Option("--url <url>", `ostraka://HOST:PORT[,…] (default $OSTRAKA_URL, ${DEFAULT_URL})`))
    .addOption(
      new Option("--auth-token-file <file>", "the client token, in a file").env("OSTRAKA_AUTH_TOKEN_FILE"),
    )
    .addOption(new Option("--tls-ca <file>", "certificates to trust, PEM (ostrakas:// URLs)"))
    .addOption(new Option("--tls-cert <file>", "this client's certificate, PEM"))
    .addOption(new Option("--tls-key <file>", "its key, PEM"))
    .addOption(new Option("--tls-server-name <name>", "the name to expect in the server's certificate"))
    .addOption(new Option("--connect-timeout-ms <ms>", "how long to look for a node that answers"));
}

export function resolveUrl(flags: ConnectionFlags, positional?: string): string {
  if (positional !== undefined && flags.url !== undefined && positional !== flags.url) {
    throw new CommandFailure(EXIT.failure, "the URL is given twice, as an argument and as --url");
  }
  return positional ?? flags.url ?? (process.env.OSTRAKA_URL || DEFAULT_URL);
}

export function connectOptions(flags: ConnectionFlags, intMode: IntMode): ConnectOptions {
  const tls = tlsOptions(flags);
  const timeoutMs =
    flags.connectTimeoutMs === undefined ? CONNECT_TIMEOUT_MS : Number(flags.connectTimeoutMs);
  if (!Number.isInteger(timeoutMs) || timeoutMs <= 0 || timeoutMs > NO_TIMEOUT_MS) {
    throw new CommandFailure(EXIT.failure, "--connect-timeout-ms: not a number of milliseconds");
  }
  return {
    intMode,
    timeoutMs,
    ...(flags.authTokenFile !== undefined && {
      authToken: readTokenFile("--auth-token-file", flags.authTokenFile),
    }),
    ...(tls !== undefined && { tls }),
  };
}

function tlsOptions(flags: ConnectionFlags): TlsOptions | undefined {
  if ((flags.tlsCert === undefined) !== (flags.tlsKey === undefined)) {
    throw new CommandFailure(EXIT.failure, "--tls-cert and --tls-key are needed together");
  }
  const tls: TlsOptions = {
    ...(flags.tlsCa !== undefined && { ca: readCertificates("--tls-ca", flags.tlsCa) }),
    ...(flags.tlsCert !== undefined &&
      flags.tlsKey !== undefined &&
      readKeyPair(flags.tlsCert, flags.tlsKey)),
    ...(flags.tlsServerName !== undefined && { serverName: flags.tlsServerName }),
  };
  return Object.keys(tls).length === 0 ? undefined : tls;
}

/** Connects, with exact integers. Fails with exit code 2 when nobody answers, 1 when the URL is not one. */
export async function openDatabase(flags: ConnectionFlags, url: string): Promise<Database> {
  const options = connectOptions(flags, "bigint");
  try {
    return await connect(url, options);
  } catch (error) {
    const code = error instanceof TypeError ? EXIT.failure : EXIT.noConnection;
    throw new CommandFailure(code, describeError(error), { cause: error });
  }
}

/** How long to look for a node after a failure that a lost connection may have caused. */
const PROBE_MS = 3_000;
const WITHOUT_A_NODE: ReadonlySet<string | undefined> = new Set([
  "OSTRAKA_UNAVAILABLE",
  "OSTRAKA_RETRY",
  "OSTRAKA_UNKNOWN_OUTCOME",
  "OSTRAKA_TIMEOUT",
]);

/** Whether the error came of having no node to talk to: these codes may mean that, and no node answers now either. */
export async function isConnectionLost(
  error: unknown,
  flags: ConnectionFlags,
  url: string,
): Promise<boolean> {
  if (!WITHOUT_A_NODE.has(errorCode(error))) return false;
  const options = connectOptions(flags, "bigint");
  try {
    const timeoutMs = Math.min(options.timeoutMs ?? PROBE_MS, PROBE_MS);
    await (await connect(url, { ...options, timeoutMs })).close();
    return false;
  } catch {
    return true;
  }
}

/** Runs `body` on a connection that is closed afterwards, whatever happens. */
export async function withDatabase<T>(
  flags: ConnectionFlags,
  url: string,
  body: (database: Database) => Promise<T>,
): Promise<T> {
  const database = await openDatabase(flags, url);
  try {
    return await body(database);
  } finally {
    await database.close();
  }
}
