/** What processes and their threads have used, from /proc; undefined where there is none (only Linux has it). */
import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks of /proc are 10 ms on every Linux that Node runs on. */
const TICK_US = 10_000;
/** Storage workers ask for this priority; that is how they are told from other threads. */
const WORKER_NICE = 10;

function fields(path) {
  const text = readFileSync(path, "utf8");
  // The name in parentheses may hold anything.
  return text.slice(text.lastIndexOf(")") + 2).split(" ");
}

function threadMicros(pid, tid) {
  try {
    // Nanoseconds on the processor, where the kernel keeps them.
    const ns = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "utf8").split(" ")[0]);
    if (ns > 0) return ns / 1000;
  } catch {
    // Ticks will do.
  }
  const stat = fields(`/proc/${pid}/task/${tid}/stat`);
  return (Number(stat[11]) + Number(stat[12])) * TICK_US;
}

/** Processor time in microseconds so far: all, the main thread, the storage worker, the others. */
export function cpuMicros(pid) {
  try {
    const used = { all: 0, main: 0, worker: 0, others: 0 };
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      const micros = threadMicros(pid, tid);
      const nice = Number(fields(`/proc/${pid}/task/${tid}/stat`)[16]);
      used.all += micros;
      if (tid === String(pid)) used.main += micros;
      else if (nice === WORKER_NICE) used.worker += micros;
      else used.others += micros;
    }
    return used;
  } catch {
    return undefined;
  }
}

/** What the children that a process has waited for have used altogether. */
export function childrenMicros(pid) {
  try {
    const stat = fields(`/proc/${pid}/stat`);
    return (Number(stat[13]) + Number(stat[14])) * TICK_US;
  } catch {
    return undefined;
  }
}

export function cpuBetween(before, after, operations) {
  if (before === undefined || after === undefined || operations === 0) return undefined;
  const per = {};
  for (const key of Object.keys(after)) per[key] = (after[key] - before[key]) / operations;
  return per;
}

/** Resident bytes. */
export function residentBytes(pid) {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}
