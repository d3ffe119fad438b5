/**
 * The HTTP port: /health for load balancers and orchestrators, /metrics for Prometheus. Requests from browsers of
 * other origins are refused (Host and Origin are checked), and where clients need a token so does /metrics.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Registry } from "prom-client";
import { addressError } from "../rpc/address-error.js";
import { sameSecret } from "../rpc/auth.js";
import { type Address, formatAddress, isLoopback, isWildcard } from "./config.js";

export interface HttpOptions {
  readonly address: Address;
  readonly authToken: string | undefined;
  readonly registry: Registry;
  /** The reason why this node cannot serve SQL now, or undefined when it can. */
  readonly unhealthy: () => Promise<string | undefined>;
  readonly describe: () => Readonly<Record<string, unknown>>;
}

export interface HttpServer {
  /** HOST:PORT as bound. */
  readonly address: string;
  close(): Promise<void>;
}

export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, (request, response) => {
    answer(options, request, response).catch((error: unknown) => {
      if (!response.headersSent) reply(response, 500, { error: String(error) });
      else response.destroy();
    });
  });
  server.on("clientError", (_error, socket) => socket.destroy());
  const { host, port: wanted } = options.address;
  await new Promise<void>((resolve, reject) => {
    // Also later ones, of connections that could not be accepted: nobody waits for them, and others go on.
    server.on("error", (error) =>
      reject(addressError("the HTTP address", formatAddress(options.address), error)),
    );
    server.listen(wanted, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return { address: formatAddress({ host, port }), close: () => close(server) };
}

async function answer(
  options: HttpOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const refusal = refuseOrigin(options.address, request);
  if (refusal !== undefined) return reply(response, 403, { error: refusal });
  const path = (request.url ?? "/").split("?", 1)[0];
  if (request.method !== "GET" && request.method !== "HEAD")
    return reply(response, 405, { error: "only GET here" });
  switch (path) {
    case "/health": {
      const reason = await options.unhealthy();
      return reply(response, reason === undefined ? 200 : 503, {
        status: reason === undefined ? "ok" : "unavailable",
        reason,
        ...options.describe(),
      });
    }
    case "/metrics": {
      if (options.authToken !== undefined && !hasToken(request, options.authToken))
        return reply(response, 401, { error: "this node wants an authorization token" });
      const text = await options.registry.metrics();
      response.writeHead(200, { "content-type": options.registry.contentType });
      response.end(text);
      return;
    }
    default:
      return reply(response, 404, { error: "there is /health and /metrics here" });
  }
}

function hasToken(request: IncomingMessage, token: string): boolean {
  const [scheme = "", shown = ""] = (request.headers.authorization ?? "").split(" ", 2);
  return scheme.toLowerCase() === "bearer" && sameSecret(shown, token);
}

/** A page of another origin must not be able to use a browser to get here (DNS rebinding included). */
function refuseOrigin(listen: Address, request: IncomingMessage): string | undefined {
  const host = (request.headers.host ?? "").replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  if (isLoopback(listen.host) && !isWildcard(listen.host) && !isLoopback(host))
    return "the Host header names another host";
  const { origin } = request.headers;
  if (origin === undefined) return undefined;
  try {
    return new URL(origin).host === request.headers.host
      ? undefined
      : "requests from other origins are refused";
  } catch {
    return "the Origin header is not an origin";
  }
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(`${JSON.stringify(body)}\n`);
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
