/** Opens a Database on a running cluster. */
import { ChannelCredentials, Client, Metadata, status, type VerifyOptions } from "@grpc/grpc-js";
import { type CallerHandler, GrpcCallerPipe } from "../rpc/client-pipe.js";
import type { FramePipe, PipeHandler } from "../rpc/pipe.js";
import { systemClock, systemRandom } from "../rpc/system.js";
import { CHANNEL_OPTIONS, CLIENT_CONNECT } from "../rpc/wire.js";
import { PooledDatabase } from "./database.js";
import { unavailable } from "./errors.js";
import type { Dial } from "./link.js";
import { Pool } from "./pool.js";
import { LinkWait } from "./session-call.js";
import type { ConnectOptions, Database, IntMode, TlsOptions } from "./types.js";
import { checkIntMode, checkTimeout, checkToken, parseUrl } from "./url.js";

const DEFAULT_TIMEOUT_MS = 30_000;
/** A node that hangs is noticed, and its calls sent elsewhere, well within the default deadline. */
const KEEPALIVE = { "grpc.keepalive_time_ms": 4_000, "grpc.keepalive_timeout_ms": 4_000 };

/**
 * Connects to a cluster through any of its nodes.
 *
 * Rejects with a TypeError for a malformed URL, with OSTRAKA_UNAVAILABLE when no host answers within `timeoutMs`, and
 * with OSTRAKA_UNAUTHENTICATED when the token is missing or wrong.
 * @example
 * import { connect } from "ostraka";
 * const db = await connect("ostraka://127.0.0.1:7400,127.0.0.1:7410", { intMode: "bigint" });
 * await db.close();
 */
export async function connect(url: string, options: ConnectOptions = {}): Promise<Database> {
  const parsed = parseUrl(url);
  const intMode = checkIntMode(options.intMode ?? parsed.options.intMode ?? "number");
  const timeoutMs = checkTimeout(options.timeoutMs ?? parsed.options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  if (options.tls !== undefined && !parsed.tls) throw new TypeError("tls needs an ostrakas:// URL");
  checkToken(options.authToken);
  const dial = dialer(parsed.tls ? (options.tls ?? {}) : undefined, options.authToken);
  return openThrough(parsed.hosts, dial, { intMode, timeoutMs }, () => undefined);
}

/** Opens a Database on hosts reached by `dial`; `onClose` runs once it is closed. */
export async function openThrough(
  hosts: readonly string[],
  dial: (host: string) => Dial,
  options: { readonly intMode?: IntMode | undefined; readonly timeoutMs?: number | undefined },
  onClose: () => Promise<void> | void,
): Promise<Database> {
  const { intMode = "number", timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const pool = new Pool({ hosts, dial, clock: systemClock, random: systemRandom });
  const deadlineMs = pool.clock.monotonicMs() + timeoutMs;
  try {
    const late = () => unavailable(`no node could be reached: ${pool.lastFailure}`);
    await new LinkWait(pool, deadlineMs, late).run();
  } catch (error) {
    pool.close();
    throw error;
  }
  return new PooledDatabase(pool, intMode, timeoutMs, onClose);
}

function dialer(tls: TlsOptions | undefined, authToken: string | undefined): (host: string) => Dial {
  const credentials = tls === undefined ? ChannelCredentials.createInsecure() : secureCredentials(tls);
  const name = tls?.serverName === undefined ? {} : { "grpc.ssl_target_name_override": tls.serverName };
  return (host) =>
    (handler: PipeHandler): FramePipe => {
      const client = new Client(host, credentials, { ...CHANNEL_OPTIONS, ...KEEPALIVE, ...name });
      const metadata = new Metadata();
      if (authToken !== undefined) metadata.set("authorization", `Bearer ${authToken}`);
      const caller: CallerHandler = {
        onAccepted: () => undefined,
        onFrame: (body) => handler.onFrame(body),
        onDrain: () => handler.onDrain(),
        onClose: (reason, code) => {
          handler.onClose(reason, code === status.UNAUTHENTICATED);
          client.close();
        },
      };
      return new GrpcCallerPipe(client, CLIENT_CONNECT, metadata, caller);
    };
}

function secureCredentials(tls: TlsOptions): ChannelCredentials {
  const pem = (bytes: Uint8Array | string | undefined): Buffer | null =>
    bytes === undefined ? null : Buffer.from(bytes as string);
  const verify: VerifyOptions = {};
  return ChannelCredentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert), verify);
}
