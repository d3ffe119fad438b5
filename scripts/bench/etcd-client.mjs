/**
 * etcd under load, in a process of its own. Its calls are unary gRPC, made by hand over node:http2, which takes a
 * fraction of what a gRPC library takes here: the machine is shared, and what the client uses the servers lack.
 */
import { connect } from "node:http2";
import { closedLoop, NOTE, numbers, READ_ROWS, serveCommands } from "./workload.mjs";

const { endpoints } = JSON.parse(process.argv[2]);
const sessions = endpoints.map((endpoint) => {
  const session = connect(endpoint);
  session.on("error", () => undefined);
  return session;
});
const next = numbers(process.pid);
const VALUE = Buffer.from(NOTE);
let turn = 0;

/** Field `tag` (both of a put's are bytes), its length in one byte or two. */
function field(tag, bytes) {
  const head =
    bytes.length < 128 ? [tag, bytes.length] : [tag, (bytes.length & 127) | 128, bytes.length >> 7];
  return Buffer.concat([Buffer.from(head), bytes]);
}

function frame(...fields) {
  const body = Buffer.concat(fields);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

function call(path, body) {
  const session = sessions[turn++ % sessions.length];
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
    });
    let bytes = 0;
    let status;
    stream.on("data", (chunk) => {
      bytes += chunk.length;
    });
    stream.on("trailers", (headers) => {
      status = headers["grpc-status"];
    });
    stream.on("response", (headers) => {
      status ??= headers["grpc-status"];
    });
    stream.on("error", reject);
    stream.on("end", () => {
      if (status === undefined || String(status) === "0") resolve(bytes);
      else reject(new Error(`etcd answered with status ${status}`));
    });
    stream.end(body);
  });
}

const key = (n) => Buffer.from(`name ${n}`);
const put = (n) => call("/etcdserverpb.KV/Put", frame(field(0x0a, key(n)), field(0x12, VALUE)));
const operations = {
  insert: () => put(next()),
  read: async () => {
    const bytes = await call("/etcdserverpb.KV/Range", frame(field(0x0a, key(next() % READ_ROWS))));
    if (bytes < NOTE.length) throw new Error("a key that was put cannot be read");
  },
};

await serveCommands({
  fill: async () => {
    let at = 0;
    const worker = async () => {
      while (at < READ_ROWS) await put(at++);
    };
    await Promise.all(Array.from({ length: 128 }, worker));
    return {};
  },
  closed: ({ kind, inFlight, seconds }) => closedLoop({ inFlight, seconds, operation: operations[kind] }),
  quit: async () => {
    for (const session of sessions) session.destroy();
    return {};
  },
});
