/**
 * ostraka://host[:port][,host[:port]…][/][?parameters], or ostrakas:// for TLS. Parameters: `intMode`, `timeoutMs`;
 * options given to `connect` win over them. Tokens are not taken from URLs, which end up in logs and process lists.
 */
import type { ConnectOptions, IntMode } from "./types.js";

export const DEFAULT_PORT = 7400;

export interface ParsedUrl {
  readonly tls: boolean;
  /** "host:port", IPv6 in brackets. */
  readonly hosts: readonly string[];
  readonly options: Pick<ConnectOptions, "intMode" | "timeoutMs">;
}

const INT_MODES: readonly string[] = ["number", "bigint", "string"];

/** Throws a TypeError that says what is wrong, never repeating credentials. */
export function parseUrl(url: string): ParsedUrl {
  const match = /^(ostrakas?):\/\/([^/?#]*)(\/?)(?:\?([^#]*))?$/i.exec(url);
  if (match === null)
    throw new TypeError("a cluster's URL looks like ostraka://host:port[,host:port…] or ostrakas://…");
  const [, scheme = "", authority = "", , query = ""] = match;
  if (authority.includes("@"))
    throw new TypeError("credentials do not belong in a URL; give connect() an authToken");
  const hosts = authority.split(",").map((part) => parseHost(part.trim()));
  return { tls: scheme.toLowerCase() === "ostrakas", hosts: [...new Set(hosts)], options: parseQuery(query) };
}

function parseHost(text: string): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+)(?::(\d{1,5}))?$/.exec(text);
  if (match === null) throw new TypeError(`"${text}" is not host or host:port`);
  const port = match[2] === undefined ? DEFAULT_PORT : Number(match[2]);
  if (port < 1 || port > 65535) throw new TypeError(`port ${port} is not between 1 and 65535`);
  return `${match[1]}:${port}`;
}

function parseQuery(query: string): Pick<ConnectOptions, "intMode" | "timeoutMs"> {
  const options: { intMode?: IntMode; timeoutMs?: number } = {};
  for (const pair of query.split("&")) {
    if (pair === "") continue;
    const [name = "", value = ""] = pair.split("=", 2).map(decodeURIComponent);
    if (name === "intMode") {
      if (!INT_MODES.includes(value))
        throw new TypeError(`intMode is number, bigint or string, not "${value}"`);
      options.intMode = value as IntMode;
    } else if (name === "timeoutMs") {
      options.timeoutMs = checkTimeout(Number(value));
    } else throw new TypeError(`unknown URL parameter "${name}"`);
  }
  return options;
}

export function checkIntMode(intMode: IntMode): IntMode {
  if (!INT_MODES.includes(intMode)) throw new TypeError('intMode is "number", "bigint" or "string"');
  return intMode;
}

export function checkTimeout(timeoutMs: number): number {
  if (typeof timeoutMs !== "number" || !(timeoutMs > 0))
    throw new TypeError("timeoutMs must be a positive number of milliseconds");
  return timeoutMs;
}

/** It travels in a header. Never repeated in what is thrown. */
export function checkToken(token: string | undefined): void {
  if (token !== undefined && (typeof token !== "string" || !/^[\x20-\x7e]*$/.test(token)))
    throw new TypeError("authToken must be a text of printable ASCII characters");
}
