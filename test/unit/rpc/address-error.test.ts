import { once } from "node:events";
import { createServer } from "node:net";
import { Registry } from "prom-client";
import { describe, expect, it } from "vitest";
import { startHttp } from "../../../src/node/http.js";
import { addressError } from "../../../src/rpc/address-error.js";

describe("an address that cannot be had", () => {
  it("is told with the reason, also where gRPC has it in its text", () => {
    const grpc = new Error(
      "No address added out of total 1 resolved errors: [listen EADDRINUSE: address already in use 127.0.0.1:1]",
    );
    expect(addressError("the address", "127.0.0.1:1", grpc)).toMatchObject({
      code: "OSTRAKA_ADDRESS",
      message: "the address 127.0.0.1:1 cannot be had: another process listens there",
    });
    expect(addressError("the address", "nowhere:1", new Error("odd")).message).toBe(
      "the address nowhere:1 cannot be had: odd",
    );
  });

  it("because another process has it", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    const started = startHttp({
      address: { host: "127.0.0.1", port },
      authToken: undefined,
      registry: new Registry(),
      unhealthy: async () => undefined,
      describe: () => ({}),
    });
    await expect(started).rejects.toMatchObject({
      message: `the HTTP address 127.0.0.1:${port} cannot be had: another process listens there`,
    });
    other.close();
  });
});
