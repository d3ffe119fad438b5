/** Plain better-sqlite3 in this process: WAL, synchronous=FULL, one insert a transaction; and reads by key. */
import { join } from "node:path";
import Database from "better-sqlite3";
import { insertArguments, numbers, READ_ROWS, SQLITE } from "./workload.mjs";

const { directory, kind, seconds } = JSON.parse(process.argv[2]);
const db = new Database(join(directory, "plain.db"));
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec(SQLITE.create);
const next = numbers();
const insert = db.prepare(SQLITE.insert);
const read = db.prepare(SQLITE.read);
if (kind === "read") {
  db.transaction(() => {
    for (let i = 0; i < READ_ROWS; i++) insert.run(...insertArguments(i));
  })();
}
const operation =
  kind === "read" ? () => read.get(1 + (next() % READ_ROWS)) : () => insert.run(...insertArguments(next()));
const before = process.cpuUsage();
const start = performance.now();
const end = start + seconds * 1000;
let operations = 0;
while (performance.now() < end) {
  operation();
  operations++;
}
const elapsed = (performance.now() - start) / 1000;
const used = process.cpuUsage(before);
db.close();
process.stdout.write(
  `${JSON.stringify({
    operations,
    seconds: elapsed,
    perSecond: operations / elapsed,
    cpuMicros: used.user + used.system,
  })}\n`,
);
