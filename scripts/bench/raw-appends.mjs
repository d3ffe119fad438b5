/**
 * What the disk allows: 256-byte records appended to a zero-filled file opened O_DSYNC, one at a time, and with all
 * that is in flight in one write.
 */
import { closeSync, constants, fdatasyncSync, openSync, promises, writeSync } from "node:fs";
import { join } from "node:path";

const { directory, inFlight, seconds } = JSON.parse(process.argv[2]);
const RECORD_BYTES = 256;
const FILE_BYTES = 64 * 1024 * 1024;
const path = join(directory, `raw-${inFlight}.log`);

const filling = openSync(path, "w");
const zeros = Buffer.alloc(1024 * 1024);
for (let at = 0; at < FILE_BYTES; at += zeros.length) writeSync(filling, zeros, 0, zeros.length, at);
fdatasyncSync(filling);
closeSync(filling);

const file = await promises.open(path, constants.O_WRONLY | constants.O_DSYNC);
const block = Buffer.alloc(RECORD_BYTES * inFlight, 7);
const before = process.cpuUsage();
const start = performance.now();
const end = start + seconds * 1000;
let writes = 0;
let at = 0;
while (performance.now() < end) {
  await file.write(block, 0, block.length, at);
  at = at + 2 * block.length > FILE_BYTES ? 0 : at + block.length;
  writes++;
}
const elapsed = (performance.now() - start) / 1000;
const used = process.cpuUsage(before);
await file.close();
const operations = writes * inFlight;
process.stdout.write(
  `${JSON.stringify({
    operations,
    seconds: elapsed,
    perSecond: operations / elapsed,
    writeMs: (elapsed * 1000) / writes,
    cpuMicros: used.user + used.system,
  })}\n`,
);
