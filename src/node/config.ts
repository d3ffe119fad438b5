/**
 * What a node is told when it starts: the flags of `ostraka start`, parsed and checked into one typed value. Everything
 * that can be refused is refused here, before a file or socket is touched, with a message that says what to do.
 *
 * Security is the default (rules 1 to 3); `--insecure` is the one way around it, and says so.
 * 1. An address that others can reach (anything but loopback) needs TLS (certificate, key and CA) and a client token,
 *    for gRPC and for HTTP alike. This includes --advertise: an address told to others is meant to be reached.
 * 2. The token is read from a file, never taken from the command line, and never part of what `describe` prints.
 * 3. --tls-cert, --tls-key and --tls-ca come together: nodes check one another's certificates.
 *
 * Pure but for `loadSecrets`, which reads the files named.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { createSecureContext } from "node:tls";
import { UserError } from "../base/errors.js";

export interface Address {
  /** Name or IP address, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string;
}

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface NodeConfig {
  /** Undefined: what the data directory says; without one, 1 for a new cluster of one, or given by meta on --join. */
  readonly nodeId: number | undefined;
  readonly dataDirectory: string;
  /** gRPC, for clients and nodes. Port 0 lets the system choose. */
  readonly listen: Address;
  /** Undefined: no HTTP port. */
  readonly http: Address | undefined;
  /** What other nodes are told to reach this one at; `listen` when left out. */
  readonly advertise: Address | undefined;
  /** Node id → address, this node among them. Counts on the first start only. */
  readonly initialCluster: ReadonlyMap<number, Address> | undefined;
  readonly join: readonly Address[] | undefined;
  readonly rangeMaxBytes: number;
  /** Undefined: ranges split by size alone. */
  readonly rangeMaxRows: number | undefined;
  readonly replicas: number;
  /** How long a node must be silent before its replicas are made anew elsewhere; undefined for the default. */
  readonly nodeDeadMs?: number | undefined;
  readonly electionTimeoutMs: number;
  readonly logLevel: LogLevel;
  readonly authTokenFile: string | undefined;
  /** What nodes show one another where there is no TLS. */
  readonly clusterSecretFile: string | undefined;
  readonly tls: TlsFiles | undefined;
  readonly insecure: boolean;
}

/** The flags as the command line gives them; undefined where a flag was not given. */
export interface NodeFlags {
  readonly nodeId?: string | undefined;
  readonly data?: string | undefined;
  readonly listen?: string | undefined;
  readonly http?: string | undefined;
  readonly advertise?: string | undefined;
  readonly initialCluster?: string | undefined;
  readonly join?: string | undefined;
  readonly rangeMaxBytes?: string | undefined;
  readonly rangeMaxRows?: string | undefined;
  readonly replicas?: string | undefined;
  readonly nodeDeadMs?: string | undefined;
  readonly electionTimeoutMs?: string | undefined;
  readonly logLevel?: string | undefined;
  readonly authTokenFile?: string | undefined;
  readonly clusterSecretFile?: string | undefined;
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsCa?: string | undefined;
  readonly insecure?: boolean | undefined;
}

export const NODE_DEFAULTS = {
  data: "./ostraka-data",
  listen: "127.0.0.1:7400",
  http: "127.0.0.1:7401",
  rangeMaxBytes: "64MiB",
  replicas: "3",
  electionTimeoutMs: "1000",
  logLevel: "info",
} as const;

/** Checks flags into a configuration; throws a UserError (OSTRAKA_CONFIG) that names the flag. */
export function parseNodeConfig(flags: NodeFlags): NodeConfig {
  const http = flags.http ?? NODE_DEFAULTS.http;
  const config: NodeConfig = {
    nodeId: flags.nodeId === undefined ? undefined : parseNodeId("--node-id", flags.nodeId),
    dataDirectory: parseDirectory(flags.data ?? NODE_DEFAULTS.data),
    listen: parseAddress("--listen", flags.listen ?? NODE_DEFAULTS.listen),
    http: http === "off" ? undefined : parseAddress("--http", http),
    advertise: flags.advertise === undefined ? undefined : parseReachable("--advertise", flags.advertise),
    initialCluster:
      flags.initialCluster === undefined ? undefined : parseInitialCluster(flags.initialCluster),
    join: flags.join === undefined ? undefined : parseAddressList("--join", flags.join),
    rangeMaxBytes: parseBytes("--range-max-bytes", flags.rangeMaxBytes ?? NODE_DEFAULTS.rangeMaxBytes, 4096),
    rangeMaxRows: parseRows(flags.rangeMaxRows),
    replicas: parseInteger("--replicas", flags.replicas ?? NODE_DEFAULTS.replicas, 1, 9),
    ...(flags.nodeDeadMs === undefined
      ? {}
      : { nodeDeadMs: parseInteger("--node-dead-ms", flags.nodeDeadMs, 1_000, 7 * 24 * 3_600_000) }),
    electionTimeoutMs: parseInteger(
      "--election-timeout-ms",
      flags.electionTimeoutMs ?? NODE_DEFAULTS.electionTimeoutMs,
      50,
      600_000,
    ),
    logLevel: parseLogLevel(flags.logLevel ?? NODE_DEFAULTS.logLevel),
    authTokenFile: flags.authTokenFile,
    clusterSecretFile: flags.clusterSecretFile,
    tls: parseTls(flags),
    insecure: flags.insecure ?? false,
  };
  checkMembership(config);
  checkAdvertise(config);
  checkSecurity(config);
  return config;
}

function fail(message: string): never {
  throw new UserError("OSTRAKA_CONFIG", message);
}

/** `HOST:PORT` or `[IPV6]:PORT`. Port 0 lets the system choose. */
export function parseAddress(flag: string, text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]\s/@]+)):(\d{1,5})$/.exec(text.trim());
  const host = match?.[1] ?? match?.[2];
  if (match === null || host === undefined) fail(`${flag}: ${quoted(text)} is not HOST:PORT`);
  if (match[1] !== undefined && isIP(match[1]) !== 6) fail(`${flag}: ${quoted(text)} is not [IPV6]:PORT`);
  const port = Number(match[3]);
  if (port > 65_535) fail(`${flag}: ${port} is not a port (0 to 65535)`);
  return { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** An address that others are to connect to: no wildcard, no port 0. */
function parseReachable(flag: string, text: string): Address {
  const address = parseAddress(flag, text);
  if (isWildcard(address.host))
    fail(`${flag}: ${quoted(text)} is a wildcard; name an address others can reach`);
  if (address.port === 0) fail(`${flag}: port 0 cannot be reached`);
  return address;
}

function parseAddressList(flag: string, text: string): Address[] {
  const addresses = text.split(",").map((part) => parseReachable(flag, part));
  const seen = new Set(addresses.map(formatAddress));
  if (seen.size !== addresses.length) fail(`${flag}: an address is named twice`);
  return addresses;
}

function parseInitialCluster(text: string): Map<number, Address> {
  const cluster = new Map<number, Address>();
  const addresses = new Set<string>();
  for (const part of text.split(",")) {
    const equals = part.indexOf("=");
    if (equals < 0) fail(`--initial-cluster: ${quoted(part)} is not ID=HOST:PORT`);
    const id = parseNodeId("--initial-cluster", part.slice(0, equals).trim());
    const address = parseReachable("--initial-cluster", part.slice(equals + 1));
    if (cluster.has(id)) fail(`--initial-cluster: node ${id} is named twice`);
    if (addresses.has(formatAddress(address))) {
      fail(`--initial-cluster: ${formatAddress(address)} is named twice`);
    }
    cluster.set(id, address);
    addresses.add(formatAddress(address));
  }
  return cluster;
}

function parseNodeId(flag: string, text: string): number {
  return parseInteger(flag, text, 1, 2 ** 31 - 1);
}

export function parseInteger(flag: string, text: string, low: number, high: number): number {
  if (!/^\d{1,15}$/.test(text)) fail(`${flag}: ${quoted(text)} is not a whole number`);
  const value = Number(text);
  if (value < low || value > high) fail(`${flag}: ${text} is not between ${low} and ${high}`);
  return value;
}

const UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["b", 1],
  ["kb", 1e3],
  ["mb", 1e6],
  ["gb", 1e9],
  ["tb", 1e12],
  ["k", 2 ** 10],
  ["m", 2 ** 20],
  ["g", 2 ** 30],
  ["t", 2 ** 40],
  ["kib", 2 ** 10],
  ["mib", 2 ** 20],
  ["gib", 2 ** 30],
  ["tib", 2 ** 40],
]);

/** A size: bytes, or a number with a unit (`64MiB`, `1.5GiB`, `10MB`; K, M, G, T are powers of 1024). */
export function parseBytes(flag: string, text: string, low: number): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match === null ? undefined : UNITS.get(match[2]!.toLowerCase());
  if (match === null || unit === undefined)
    fail(`${flag}: ${quoted(text)} is not a size (64MiB, 1GB, 65536)`);
  const bytes = Math.round(Number(match[1]) * unit);
  if (!Number.isSafeInteger(bytes) || bytes < low) fail(`${flag}: ${text} is not at least ${low} bytes`);
  return bytes;
}

function parseRows(text: string | undefined): number | undefined {
  if (text === undefined || text === "off") return undefined;
  return parseInteger("--range-max-rows", text, 1, 1e12);
}

function parseDirectory(text: string): string {
  if (text === "") fail("--data: a directory is needed");
  return text;
}

function parseLogLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === text);
  return level ?? fail(`--log-level: ${quoted(text)} is none of ${LOG_LEVELS.join(", ")}`);
}

function parseTls(flags: NodeFlags): TlsFiles | undefined {
  const { tlsCert, tlsKey, tlsCa } = flags;
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    fail("--tls-cert, --tls-key and --tls-ca are needed together: nodes check one another's certificates");
  }
  return { certFile: tlsCert, keyFile: tlsKey, caFile: tlsCa };
}

function checkMembership(config: NodeConfig): void {
  const { initialCluster, join, nodeId } = config;
  if (initialCluster !== undefined && join !== undefined) {
    fail("--initial-cluster founds a cluster and --join enters one: give one of them");
  }
  if (initialCluster === undefined) return;
  if (nodeId === undefined) fail("--initial-cluster needs --node-id, to say which of them this node is");
  const own = initialCluster.get(nodeId);
  if (own === undefined) fail(`--initial-cluster does not name node ${nodeId}, which --node-id says this is`);
  if (config.advertise !== undefined && formatAddress(config.advertise) !== formatAddress(own)) {
    fail(
      `--advertise ${formatAddress(config.advertise)} is not this node's address in --initial-cluster ` +
        `(${formatAddress(own)}); they must be the same`,
    );
  }
}

function checkAdvertise(config: NodeConfig): void {
  // In --initial-cluster the address that others use stands already.
  if (config.advertise !== undefined || config.initialCluster !== undefined) return;
  if (isWildcard(config.listen.host)) {
    fail(`--listen ${formatAddress(config.listen)} is a wildcard: --advertise HOST:PORT is needed`);
  }
}

function checkSecurity(config: NodeConfig): void {
  if (config.insecure) return;
  const open: [string, Address | undefined][] = [
    ["--listen", config.listen],
    ["--http", config.http],
    ["--advertise", config.advertise],
  ];
  for (const [flag, address] of open) {
    if (address === undefined || isLoopback(address.host)) continue;
    const missing = [
      ...(config.tls === undefined ? ["--tls-cert, --tls-key and --tls-ca"] : []),
      ...(config.authTokenFile === undefined ? ["--auth-token-file"] : []),
    ];
    if (missing.length === 0) continue;
    fail(
      `${flag} ${formatAddress(address)} can be reached from other machines: ${missing.join(" and ")} ` +
        "must be given, or --insecure to run without protection",
    );
  }
}

/** Whether only this machine can reach it. A name other than localhost might resolve to anything. */
export function isLoopback(host: string): boolean {
  const plain = host.toLowerCase();
  if (plain === "localhost") return true;
  if (isIP(plain) === 4) return plain.startsWith("127.");
  return plain === "::1" || /^::ffff:127\.\d+\.\d+\.\d+$/.test(plain);
}

export function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "*" || (isIP(host) === 6 && /^[0:]+$/.test(host));
}

/** The address other nodes reach this one at; undefined when it is `listen` with whatever port the system gives. */
export function advertisedAddress(config: NodeConfig): Address {
  const founded = config.nodeId === undefined ? undefined : config.initialCluster?.get(config.nodeId);
  return config.advertise ?? founded ?? config.listen;
}

export interface NodeSecrets {
  readonly authToken: string | undefined;
  readonly clusterSecret: string | undefined;
  readonly tls: { readonly cert: Uint8Array; readonly key: Uint8Array; readonly ca: Uint8Array } | undefined;
}

/** Reads the files that the configuration names; throws a UserError that names the file and the flag. */
export function loadSecrets(
  config: Pick<NodeConfig, "authTokenFile" | "clusterSecretFile" | "tls">,
): NodeSecrets {
  const { authTokenFile, clusterSecretFile, tls } = config;
  return {
    authToken: authTokenFile === undefined ? undefined : readTokenFile("--auth-token-file", authTokenFile),
    clusterSecret:
      clusterSecretFile === undefined ? undefined : readTokenFile("--cluster-secret-file", clusterSecretFile),
    tls: tls && loadTls(tls),
  };
}

function loadTls({ certFile, keyFile, caFile }: TlsFiles): NodeSecrets["tls"] {
  return { ...readKeyPair(certFile, keyFile), ca: readCertificates("--tls-ca", caFile) };
}

/** --tls-cert and --tls-key; throws a UserError that says which of them cannot be used. */
export function readKeyPair(
  certFile: string,
  keyFile: string,
): { readonly cert: Buffer; readonly key: Buffer } {
  const cert = readCertificates("--tls-cert", certFile);
  const key = readNamedFile("--tls-key", keyFile);
  tryTls(`--tls-key: ${keyFile} holds no PEM key that can be used`, () => createSecureContext({ key }));
  tryTls(`--tls-cert and --tls-key: ${keyFile} is not the key of the certificate in ${certFile}`, () =>
    createSecureContext({ cert, key }),
  );
  return { cert, key };
}

/** An authority's file without a certificate would be taken without a word, and then nobody be trusted. */
export function readCertificates(flag: string, path: string): Buffer {
  const pem = readNamedFile(flag, path);
  tryTls(`${flag}: ${path} holds no PEM certificate`, () => new X509Certificate(pem));
  if (!pem.includes("-----BEGIN ")) fail(`${flag}: ${path} is not in PEM format`);
  return pem;
}

/** OpenSSL's errors name no file. */
function tryTls(message: string, use: () => unknown): void {
  try {
    use();
  } catch (error) {
    fail(`${message} (${error instanceof Error ? error.message : String(error)})`);
  }
}

/** The first line of a token file. */
export function readTokenFile(flag: string, path: string): string {
  const token = readNamedFile(flag, path).toString("utf8").split(/\r?\n/, 1)[0]!.trim();
  if (token === "") fail(`${flag}: ${path} holds no token in its first line`);
  if (!/^[\x21-\x7e]+$/.test(token)) fail(`${flag}: ${path} holds characters that no token may have`);
  return token;
}

export function readNamedFile(flag: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    return fail(`${flag}: cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function quoted(text: string): string {
  return JSON.stringify(text);
}
