/** Who may talk to a node: tokens, TLS between nodes and to clients, addresses that others can reach, browsers. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { connect, OstrakaError } from "../../src/driver/index.js";
import { Cluster, type ClusterNode } from "./harness.js";

const TOKEN = "a-token-that-only-this-test-knows";

let scratch: string;
let tokenFile: string;
let cluster: Cluster | undefined;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "ostraka-security-"));
  tokenFile = join(scratch, "token");
  writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
afterEach(async () => {
  await cluster?.dispose();
  cluster = undefined;
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof OstrakaError)) return error === undefined ? "none" : String(error);
  return error.code;
}

function canMakeCertificates(): boolean {
  try {
    execFileSync("openssl", ["version"], { stdio: "pipe" });
    return true;
  } catch {
    process.stderr.write("SKIPPED: TLS: there is no openssl to make certificates with\n");
    return false;
  }
}

interface Authority {
  readonly ca: string;
  issue(name: string): { readonly cert: string; readonly key: string };
}

/** A certificate authority, and certificates for 127.0.0.1 and localhost signed by it. */
function makeAuthority(name: string): Authority {
  const file = (suffix: string): string => join(scratch, `${name}${suffix}`);
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { stdio: "pipe" });
  };
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const ca = file("-ca.pem");
  const caKey = file("-ca.key");
  openssl("req", "-x509", ...newKey, "-keyout", caKey, "-out", ca, "-subj", `/CN=${name} CA`, "-days", "2");
  return {
    ca,
    issue: (who) => {
      const [cert, key, csr, extensions] = [".pem", ".key", ".csr", ".ext"].map((s) =>
        file(`-${who}${s}`),
      ) as [string, string, string, string];
      writeFileSync(extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
      openssl("req", ...newKey, "-keyout", key, "-out", csr, "-subj", `/CN=${who}`);
      openssl(
        "x509",
        "-req",
        "-in",
        csr,
        "-CA",
        ca,
        "-CAkey",
        caKey,
        "-CAcreateserial",
        "-out",
        cert,
        "-days",
        "2",
        "-extfile",
        extensions,
      );
      return { cert, key };
    },
  };
}

describe("a token", () => {
  it("is wanted from clients and for metrics, opens nothing between nodes, and is in no log", async () => {
    cluster = await Cluster.create({ start: false, connect: { authToken: TOKEN } });
    for (const node of cluster.nodes)
      node.spawn([...cluster.foundingFlags(node), "--auth-token-file", tokenFile]);
    await Promise.all(cluster.nodes.map((node) => node.ready()));
    const one = cluster.node(1);
    expect(await codeOf(connect(one.url, { timeoutMs: 20_000 }))).toBe("OSTRAKA_UNAUTHENTICATED");
    expect(await codeOf(connect(one.url, { authToken: "wrong", timeoutMs: 20_000 }))).toBe(
      "OSTRAKA_UNAUTHENTICATED",
    );
    const database = await cluster.connect();
    await database.exec("create table t (id integer primary key); insert into t values (1)");
    expect((await database.execute("select count(*) as n from t")).rows[0]!.n).toBe(1);
    expect((await one.get("/metrics")).status).toBe(401);
    expect((await one.get("/metrics", { authorization: "Bearer wrong" })).status).toBe(401);
    expect((await one.get("/metrics", { authorization: `Bearer ${TOKEN}` })).status).toBe(200);
    expect((await one.get("/health")).status).toBe(200);
    await cluster.checkDigests(database);
    for (const node of cluster.nodes) {
      expect(node.log).not.toContain(TOKEN);
      if (process.platform === "linux")
        expect(readFileSync(`/proc/${node.pid}/cmdline`, "utf8")).not.toContain(TOKEN);
    }

    // A node without the token has no secret to show its peers, and is not let in.
    const stranger = await cluster.addNode(4);
    stranger.spawn(["--join", one.address, ...cluster.commonFlags(stranger)]);
    const refused = new Promise<void>((resolve) => {
      const look = setInterval(() => {
        if (!/must show the cluster secret/.test(stranger.log)) return;
        clearInterval(look);
        resolve();
      }, 50);
    });
    await Promise.race([refused, stranger.exit]);
    expect(stranger.log).toMatch(/must show the cluster secret/);
    expect(existsSync(join(stranger.directory, "identity.json"))).toBe(false);
    await stranger.kill();
  });
});

describe.skipIf(!canMakeCertificates())("TLS", () => {
  it("is between nodes and to clients; certificates of others are refused", async () => {
    const ours = makeAuthority("ours");
    const theirs = makeAuthority("theirs");
    cluster = await Cluster.create({ start: false });
    const flags = (node: ClusterNode, authority: Authority): string[] => {
      const { cert, key } = authority.issue(`node-${node.id}`);
      return ["--tls-cert", cert, "--tls-key", key, "--tls-ca", ours.ca, "--auth-token-file", tokenFile];
    };
    for (const node of cluster.nodes) node.spawn([...cluster.foundingFlags(node), ...flags(node, ours)]);
    await Promise.all(cluster.nodes.map((node) => node.ready()));
    const url = cluster.url.replace("ostraka://", "ostrakas://");
    const ca = readFileSync(ours.ca);
    const database = await connect(url, { authToken: TOKEN, tls: { ca } });
    await database.exec("create table t (id integer primary key); insert into t values (1)");
    await cluster.checkDigests(database);
    await database.close();
    const impatient = { authToken: TOKEN, timeoutMs: 5_000 };
    expect(await codeOf(connect(cluster.url, impatient))).toBe("OSTRAKA_UNAVAILABLE");
    const wrongCa = { ...impatient, tls: { ca: readFileSync(theirs.ca) } };
    expect(await codeOf(connect(url, wrongCa))).toBe("OSTRAKA_UNAVAILABLE");
    expect(await codeOf(connect(url, { timeoutMs: 20_000, tls: { ca } }))).toBe("OSTRAKA_UNAUTHENTICATED");

    const stranger = await cluster.addNode(4);
    const join = ["--join", cluster.node(1).address, ...cluster.commonFlags(stranger)];
    stranger.spawn([...join, ...flags(stranger, theirs)]);
    await Promise.race([
      stranger.exit,
      (async () => {
        while (!/join not answered|certificate/.test(stranger.log))
          await new Promise((r) => setTimeout(r, 50));
      })(),
    ]);
    expect(stranger.log).toMatch(/certificate/i);
    expect(existsSync(`${stranger.directory}/identity.json`)).toBe(false);
    await stranger.kill();
  });
});

describe("addresses that others can reach", () => {
  it.each([
    [["--listen", "0.0.0.0:0", "--advertise", "192.0.2.1:7400"], /can be reached from other machines/],
    [["--http", "0.0.0.0:0"], /can be reached from other machines/],
    [["--advertise", "192.0.2.1:7400"], /can be reached from other machines/],
  ])("%j is refused without TLS and token", async (more, message) => {
    cluster = await Cluster.create({ nodes: 1, start: false });
    const node = cluster.node(1);
    const flags = cluster.commonFlags(node);
    const replaced = flags.filter((_, i) => !more.includes(flags[i]!) && !more.includes(flags[i - 1] ?? ""));
    node.spawn([...replaced, ...more]);
    expect(await node.exit).toEqual({ code: 1, signal: null });
    expect(node.log).toMatch(message);
    expect(existsSync(node.directory)).toBe(false);
  });
});

/** `fetch` sets Host itself. */
function statusWith(port: number, headers: Record<string, string>, method = "GET"): Promise<number> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: "127.0.0.1", port, path: "/metrics", method, headers }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    });
    outgoing.on("error", reject).end();
  });
}

describe("a browser", () => {
  it("gets nothing for pages of other origins", async () => {
    cluster = await Cluster.create({ nodes: 1 });
    const { httpPort } = cluster.node(1);
    const host = `127.0.0.1:${httpPort}`;
    expect(await statusWith(httpPort, { host })).toBe(200);
    expect(await statusWith(httpPort, { host, origin: `http://${host}` })).toBe(200);
    expect(await statusWith(httpPort, { host: "evil.example" })).toBe(403);
    expect(await statusWith(httpPort, { host, origin: "http://evil.example" })).toBe(403);
    expect(await statusWith(httpPort, { host, origin: "null" })).toBe(403);
    expect(await statusWith(httpPort, { host }, "POST")).toBe(405);
  });
});
