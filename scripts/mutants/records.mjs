/**
 * What earlier runs have found out. `killers.json` says who is known to catch which bug, so that they are tried first; it
 * is a hint, and every run sees for itself. The journal keeps the results of this very tree, for runs in pieces.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

export class Killers {
  #path = resolve("scripts/mutants/killers.json");
  #known = existsSync(this.#path) ? JSON.parse(readFileSync(this.#path, "utf8")) : {};

  get(name) {
    return this.#known[name] ?? {};
  }

  /** Without what is undefined. */
  set(name, killer) {
    this.#known[name] = JSON.parse(JSON.stringify(killer));
  }

  all() {
    return Object.values(this.#known);
  }

  /** In the order of the lists, without what they do not have any more. */
  write(names) {
    const kept = names.filter((name) => name in this.#known).map((name) => [name, this.#known[name]]);
    writeFileSync(this.#path, `${JSON.stringify(Object.fromEntries(kept), undefined, 2)}\n`);
  }
}

export class Journal {
  #path;
  #digest;
  #results = new Map();

  constructor({ from, digest }) {
    this.#path = join(from, ".mutants/journal.jsonl");
    this.#digest = digest;
    mkdirSync(dirname(this.#path), { recursive: true });
    if (!existsSync(this.#path)) return;
    for (const line of readFileSync(this.#path, "utf8").split("\n").filter(Boolean)) {
      const { key, result } = JSON.parse(line);
      this.#results.set(key, result);
    }
  }

  get(what) {
    return this.#results.get(this.#key(what));
  }

  add(what, result) {
    const key = this.#key(what);
    this.#results.set(key, result);
    appendFileSync(this.#path, `${JSON.stringify({ key, result })}\n`);
  }

  #key(what) {
    return createHash("sha256").update(this.#digest).update(JSON.stringify(what)).digest("hex").slice(0, 24);
  }
}
