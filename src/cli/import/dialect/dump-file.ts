/** What the first and last bytes of a file tell: other formats, another database, and a dump that was cut short. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { CommandFailure, describeError, EXIT } from "../../exit.js";
import type { Report } from "./report.js";
import type { Dialect } from "./session.js";

const FORMATS: readonly (readonly [start: string, message: string])[] = [
  ["PGDMP", "is in pg_dump's own format; pg_restore --file=dump.sql makes SQL of it"],
  ["\x1f\x8b", "is compressed; gunzip it first"],
  ["BZh", "is compressed; bunzip2 it first"],
  ["\x28\xb5\x2f\xfd", "is compressed; unzstd it first"],
  ["\xfd7zXZ", "is compressed; unxz it first"],
  ["PK\x03\x04", "is compressed; unzip it first"],
  ["\xff\xfe", "is UTF-16 text; dump it with --result-file or --file instead of through a shell's >"],
  ["\xfe\xff", "is UTF-16 text; dump it with --result-file or --file instead of through a shell's >"],
  ["SQLite format 3\0", "is a SQLite file; leave out --dialect"],
];

export function checkFile(path: string, dialect: Dialect, report: Report): void {
  const { head, tail } = readEnds(path);
  const other = FORMATS.find(([start]) => head.startsWith(start));
  if (other !== undefined) throw new CommandFailure(EXIT.failure, `${path} ${other[1]}`);
  const mysql = /^-- (?:MySQL|MariaDB) dump\b/m.test(head);
  const postgres = /^-- PostgreSQL database (?:cluster )?dump\r?$/m.test(head);
  if (postgres && dialect !== "postgresql") {
    throw new CommandFailure(EXIT.failure, `${path} is a dump of PostgreSQL: --dialect postgresql`);
  }
  if (mysql && dialect === "postgresql") {
    throw new CommandFailure(
      EXIT.failure,
      `${path} is a dump of MySQL or MariaDB: --dialect mysql or mariadb`,
    );
  }
  const complete = mysql
    ? /^-- Dump completed/m.test(tail)
    : /^-- PostgreSQL database (?:cluster )?dump complete/m.test(tail);
  if ((mysql || postgres) && !complete) {
    report.missing("end of the dump (it lacks the last line, so it may have been cut short)", 0);
  }
}

function readEnds(path: string): { readonly head: string; readonly tail: string } {
  let file: number;
  try {
    if (statSync(path).isDirectory()) throw new Error("it is a directory");
    file = openSync(path, "r");
  } catch (error) {
    throw new CommandFailure(EXIT.failure, `cannot read ${path}: ${describeError(error)}`);
  }
  try {
    const part = Buffer.alloc(4096);
    const at = (position: number): string =>
      part.toString("latin1", 0, readSync(file, part, 0, part.length, position));
    return { head: at(0), tail: at(Math.max(0, statSync(path).size - part.length)) };
  } finally {
    closeSync(file);
  }
}
