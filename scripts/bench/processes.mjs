/**
 * What a benchmark leaves behind: nothing. Every child and directory is made through here and ended here, on the way
 * out too.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const children = new Set();
const directories = new Set();

export function temporaryDirectory(parent = tmpdir()) {
  const directory = mkdtempSync(join(parent, "ostraka-bench-"));
  directories.add(directory);
  return directory;
}

export function removeDirectory(directory) {
  rmSync(directory, { recursive: true, force: true });
  directories.delete(directory);
}

/** A child in our care. `last words` are kept for error messages. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], ...options });
  children.add(child);
  child.lastWords = "";
  child.stderr?.on("data", (text) => {
    child.lastWords = (child.lastWords + text).slice(-2000);
  });
  child.stdin?.on("error", () => undefined);
  child.once("exit", () => children.delete(child));
  child.once("error", (error) => {
    children.delete(child);
    child.lastWords += error.message;
  });
  return child;
}

export async function stop(child, signal = "SIGTERM") {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, "exit");
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
  await ended;
  clearTimeout(timer);
}

/** Runs to the end; answers what it printed. */
export async function run(command, args, options) {
  const child = start(command, args, options);
  let out = "";
  child.stdout.on("data", (text) => {
    out += text;
  });
  const code = await ended(child);
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${child.lastWords || out}`);
  return out;
}

function ended(child) {
  return new Promise((resolve) => {
    child.once("close", (code, signal) => resolve(code ?? signal));
    child.once("error", () => resolve("no start"));
  });
}

/** A script of this folder in a process of its own; it says `go`, is measured, and answers one line of JSON. */
export function startScript(name, parameters) {
  const script = fileURLToPath(new URL(name, import.meta.url));
  const child = start(process.execPath, [script, JSON.stringify(parameters)]);
  const lines = createInterface({ input: child.stdout });
  const waiting = [];
  const read = [];
  let over = false;
  lines.on("line", (line) => {
    const waiter = waiting.shift();
    if (waiter === undefined) read.push(line);
    else waiter.resolve(line);
  });
  lines.on("close", async () => {
    over = true;
    await ended(child);
    for (const { reject } of waiting) reject(new Error(`${name} ended early: ${child.lastWords}`));
  });
  const next = () => {
    if (read.length > 0) return Promise.resolve(read.shift());
    if (over) return Promise.reject(new Error(`${name} ended early: ${child.lastWords}`));
    return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  };
  return {
    pid: child.pid,
    /** The next line, parsed. */
    answer: async () => JSON.parse(await next()),
    tell: (line) => child.stdin.write(`${line}\n`),
    stop: () => stop(child),
  };
}

/** The answer of a script that needs no companion. */
export async function runScript(name, parameters) {
  const script = startScript(name, parameters);
  try {
    return await script.answer();
  } finally {
    await script.stop();
  }
}

export async function freePorts(count) {
  const servers = [];
  for (let i = 0; i < count; i++) {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  return ports;
}

export async function until(what, check, timeoutMs = 30_000) {
  const end = performance.now() + timeoutMs;
  let last;
  while (performance.now() < end) {
    try {
      const value = await check();
      if (value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    await delay(50);
  }
  throw new Error(`${what}: not within ${timeoutMs} ms${last === undefined ? "" : ` (${last.message})`}`);
}

export async function cleanUp() {
  await Promise.all([...children].map((child) => stop(child)));
  for (const directory of [...directories]) removeDirectory(directory);
}

function cleanUpAtOnce() {
  for (const child of children) child.kill("SIGKILL");
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
}

process.on("exit", cleanUpAtOnce);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
