import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import {
  advertisedAddress,
  isLoopback,
  isWildcard,
  loadSecrets,
  type NodeFlags,
  parseAddress,
  parseBytes,
  parseNodeConfig,
} from "../../../src/node/config.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const TLS = { tlsCert: "c", tlsKey: "k", tlsCa: "a" };

test("defaults", () => {
  expect(parseNodeConfig({})).toEqual({
    nodeId: undefined,
    dataDirectory: "./ostraka-data",
    listen: { host: "127.0.0.1", port: 7400 },
    http: { host: "127.0.0.1", port: 7401 },
    advertise: undefined,
    initialCluster: undefined,
    join: undefined,
    rangeMaxBytes: 64 * 1024 * 1024,
    rangeMaxRows: undefined,
    replicas: 3,
    electionTimeoutMs: 1000,
    logLevel: "info",
    authTokenFile: undefined,
    tls: undefined,
    insecure: false,
  });
});

test("addresses and sizes", () => {
  expect(parseAddress("--x", "[::1]:80")).toEqual({ host: "::1", port: 80 });
  expect(parseAddress("--x", "db-1.example:0")).toEqual({ host: "db-1.example", port: 0 });
  for (const bad of [
    "",
    "host",
    ":80",
    "host:",
    "host:70000",
    "::1:80",
    "[host]:80",
    "user@host:1",
    "a b:1",
  ]) {
    expect(() => parseAddress("--x", bad)).toThrow("--x");
  }
  expect(parseBytes("--x", "64MiB", 1)).toBe(67_108_864);
  expect(parseBytes("--x", "1.5 GB", 1)).toBe(1_500_000_000);
  expect(parseBytes("--x", "65536", 1)).toBe(65536);
  for (const bad of ["", "MiB", "64 potatoes", "-1", "0"])
    expect(() => parseBytes("--x", bad, 1)).toThrow("--x");
});

describe("membership", () => {
  const cluster = "1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3";
  test("a founding node is one of those named", () => {
    const config = parseNodeConfig({ nodeId: "2", initialCluster: cluster });
    expect([...config.initialCluster!.keys()]).toEqual([1, 2, 3]);
    expect(advertisedAddress(config)).toEqual({ host: "127.0.0.1", port: 2 });
  });
  test.each<[NodeFlags, string]>([
    [{ initialCluster: cluster }, "--node-id"],
    [{ initialCluster: cluster, nodeId: "4" }, "does not name node 4"],
    [{ initialCluster: cluster, nodeId: "1", join: "127.0.0.1:9" }, "give one of them"],
    [{ initialCluster: "1=127.0.0.1:1,1=127.0.0.1:2", nodeId: "1" }, "named twice"],
    [{ initialCluster: "1=127.0.0.1:1,2=127.0.0.1:1", nodeId: "1" }, "named twice"],
    [{ initialCluster: "1=0.0.0.0:1", nodeId: "1" }, "wildcard"],
    [{ initialCluster: "127.0.0.1:1", nodeId: "1" }, "ID=HOST:PORT"],
    [{ initialCluster: cluster, nodeId: "1", advertise: "127.0.0.1:9" }, "must be the same"],
    [{ nodeId: "0" }, "--node-id"],
    [{ nodeId: "one" }, "--node-id"],
    [{ join: "127.0.0.1:1,127.0.0.1:1" }, "named twice"],
    [{ replicas: "0" }, "--replicas"],
    [{ logLevel: "loud" }, "--log-level"],
    [{ rangeMaxRows: "0" }, "--range-max-rows"],
  ])("%o is refused", (flags, message) => {
    expect(() => parseNodeConfig(flags)).toThrow(message);
  });
});

describe("security", () => {
  test.each<[NodeFlags, string]>([
    [{ listen: "10.0.0.1:7400" }, "--tls-cert, --tls-key and --tls-ca and --auth-token-file"],
    [{ listen: "10.0.0.1:7400", ...TLS }, "--auth-token-file"],
    [{ listen: "10.0.0.1:7400", authTokenFile: "t" }, "--tls-cert"],
    [{ http: "0.0.0.0:7401" }, "--http"],
    [{ advertise: "db.example:7400" }, "--advertise"],
    [{ listen: "db.example:7400" }, "--listen"],
    [{ listen: "0.0.0.0:7400", insecure: true }, "--advertise"],
    [{ tlsCert: "c" }, "needed together"],
  ])("%o is refused", (flags, message) => {
    expect(() => parseNodeConfig(flags)).toThrow(message);
  });
  test.each<NodeFlags>([
    { listen: "10.0.0.1:7400", ...TLS, authTokenFile: "t" },
    { listen: "10.0.0.1:7400", insecure: true },
    { listen: "0.0.0.0:7400", advertise: "10.0.0.1:7400", http: "off", ...TLS, authTokenFile: "t" },
    { listen: "localhost:7400", http: "[::1]:7401" },
    { listen: "127.8.8.8:0" },
  ])("%o is accepted", (flags) => {
    expect(() => parseNodeConfig(flags)).not.toThrow();
  });
  test("what is loopback, what is a wildcard", () => {
    expect(["127.0.0.1", "127.255.0.1", "::1", "localhost", "::ffff:127.0.0.1"].every(isLoopback)).toBe(true);
    expect(["10.0.0.1", "::2", "0.0.0.0", "127.example", "::"].some(isLoopback)).toBe(false);
    expect(["0.0.0.0", "::", "0:0:0:0:0:0:0:0"].every(isWildcard)).toBe(true);
    expect(["::1", "127.0.0.1"].some(isWildcard)).toBe(false);
  });
  test("secrets are read from files, and a missing one is named", () => {
    const token = join(folder, "token");
    writeFileSync(token, "s3cret\n");
    expect(
      loadSecrets({ authTokenFile: token, tls: undefined, clusterSecretFile: undefined }).authToken,
    ).toBe("s3cret");
    writeFileSync(token, "\n");
    expect(() => loadSecrets({ authTokenFile: token, tls: undefined, clusterSecretFile: undefined })).toThrow(
      "holds no token",
    );
    expect(() =>
      loadSecrets({ authTokenFile: join(folder, "none"), tls: undefined, clusterSecretFile: undefined }),
    ).toThrow("--auth-token-file: cannot read");
  });

  test("a TLS file that cannot be used is named, and so are two that do not belong together", () => {
    const pem = (name: string): string => fileURLToPath(new URL(`../rpc/tls/${name}`, import.meta.url));
    const good = { certFile: pem("node.pem"), keyFile: pem("node.key"), caFile: pem("ca.pem") };
    const load = (files: Partial<typeof good>) => () =>
      loadSecrets({ authTokenFile: undefined, clusterSecretFile: undefined, tls: { ...good, ...files } });
    const token = join(folder, "not-pem");
    writeFileSync(token, "s3cret\n");
    const der = join(folder, "ca.der");
    writeFileSync(der, new X509Certificate(readFileSync(good.caFile)).raw);
    expect(load({})().tls?.ca).toEqual(readFileSync(good.caFile));
    for (const [files, message] of [
      [{ certFile: token }, `--tls-cert: ${token} holds no PEM certificate`],
      [{ keyFile: token }, `--tls-key: ${token} holds no PEM key`],
      [{ caFile: token }, `--tls-ca: ${token} holds no PEM certificate`],
      [{ caFile: der }, `--tls-ca: ${der} is not in PEM format`],
      [{ keyFile: pem("stranger.key") }, "--tls-cert and --tls-key: "],
    ] as const)
      expect(load(files)).toThrow(
        expect.objectContaining({ code: "OSTRAKA_CONFIG", message: expect.stringContaining(message) }),
      );
  });
});
