/** Results as a table for people; the JSON beside it has everything. */
import Table from "cli-table3";

const NO_BORDERS = Object.fromEntries(
  [
    ...["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"],
    ...["left", "left-mid", "mid", "mid-mid", "right", "right-mid", "middle"],
  ].map((part) => [part, part === "middle" ? "  " : ""]),
);

function table(head, rows) {
  const made = new Table({
    head,
    chars: NO_BORDERS,
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
  });
  made.push(...rows);
  return made.toString();
}

const rate = (n) => (n === undefined ? "" : Math.round(n).toLocaleString("en"));
const micros = (n) => (n === undefined ? "" : n.toFixed(1));
const ms = (n) => (n === undefined ? "" : n < 10 ? n.toFixed(2) : n.toFixed(0));
const mib = (n) => (n === undefined ? "" : (n / 1024 / 1024).toFixed(0));

/** Everything measured as a rate, with latencies and what an operation costs. */
export function rateTable(results) {
  const rows = results.map(({ name, perSecond, latencyMs = {}, cpu }) => [
    name,
    rate(perSecond),
    ...["p50", "p99", "p999", "max"].map((key) =>
      ms(latencyMs[key] ?? (key === "p50" ? latencyMs.average : undefined)),
    ),
    micros(sum(cpu?.nodes, "main")),
    micros(sum(cpu?.nodes, "worker")),
    micros(sum(cpu?.nodes, "others")),
    micros(cpu?.server ?? sum(cpu?.nodes, "all")),
    micros(cpu?.client),
  ]);
  const head = [
    "",
    "op/s",
    "p50 ms",
    "p99",
    "p99.9",
    "max",
    "node: main µs/op",
    "worker",
    "others",
    "all servers",
    "client µs/op",
  ];
  return table(head, rows);
}

function sum(nodes, key) {
  if (nodes === undefined || nodes.some((node) => node === undefined)) return undefined;
  return nodes.reduce((total, node) => total + node[key], 0);
}

export function ratioTable(ratios) {
  const rows = ratios.map(({ what, ratio, bar }) => {
    const verdict = bar === undefined ? "" : ratio >= bar ? `bar ${bar}: met` : `bar ${bar}: missed`;
    return [what, ratio.toFixed(2), verdict];
  });
  return table(["ratio", "", ""], rows);
}

export function memoryTable(samples) {
  const rows = samples.map(({ seconds, operations, heapBytes, residentBytes }) => [
    seconds.toFixed(0),
    rate(operations),
    mib(heapBytes),
    mib(residentBytes),
  ]);
  return table(["after s", "writes", "heap MiB", "resident MiB"], rows);
}

export function streamTable(streams) {
  const rows = streams.map(({ name, rows: count, seconds, mostBytes, nodeBytes, beside }) => [
    name,
    rate(count / seconds),
    mib(mostBytes),
    mib(nodeBytes),
    beside === undefined ? "" : rate(beside.perSecond),
    ms(beside?.latencyMs?.p99),
  ]);
  return table(
    ["a result of many rows", "rows/s", "client MiB", "node MiB", "reads/s beside it", "p99 ms"],
    rows,
  );
}
