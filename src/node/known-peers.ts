/**
 * Which data each peer had when this node first met it, on this node's own disk.
 *
 * Meta knows the same, but only once a quorum has let its log apply again: until then a voter that lost its data could
 * come back under its old id, vote again, and make a quorum forget what it had promised. So the first incarnation that
 * a peer shows is remembered here before anything it says is heard, and no other is let in under that id, ever.
 *
 * Written synchronously: it happens once for each peer this node will ever have.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { FatalError } from "../base/errors.js";
import type { MetPeers } from "./peer-refusal.js";

const FORMAT = 1;

interface PeersFile {
  readonly format: number;
  readonly incarnations: Readonly<Record<string, string>>;
}

export class KnownPeers implements MetPeers {
  readonly #path: string;
  readonly #incarnations: Map<number, string>;

  /** Reads what is there; a file that cannot be understood is a FatalError. */
  constructor(path: string) {
    this.#path = path;
    this.#incarnations = existsSync(path) ? read(path) : new Map();
  }

  get(node: number): string | undefined {
    return this.#incarnations.get(node);
  }

  remember(node: number, incarnation: string): void {
    const incarnations = Object.fromEntries(this.#incarnations);
    write(this.#path, { format: FORMAT, incarnations: { ...incarnations, [node]: incarnation } });
    this.#incarnations.set(node, incarnation);
  }
}

function read(path: string): Map<number, string> {
  try {
    const { format, incarnations } = JSON.parse(readFileSync(path, "utf8")) as PeersFile;
    if (format !== FORMAT) throw new Error(`format ${format}; this version reads ${FORMAT}`);
    return new Map(Object.entries(incarnations).map(([node, incarnation]) => [Number(node), incarnation]));
  } catch (error) {
    throw new FatalError("OSTRAKA_IDENTITY", `${path} is damaged: ${String(error)}`, { cause: error });
  }
}

function write(path: string, file: PeersFile): void {
  const temporary = `${path}.tmp`;
  const fd = openSync(temporary, "w");
  try {
    writeSync(fd, `${JSON.stringify(file, null, 2)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
  const directory = openSync(dirname(path), "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
