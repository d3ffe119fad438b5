/** What to say when an address cannot be listened on. */
import { FatalError } from "../base/errors.js";

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "another process listens there",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "this user may not use the port",
  ENOTFOUND: "the name is not known",
  EAI_AGAIN: "the name could not be looked up",
};

/** `address`: HOST:PORT. gRPC tells the cause in its message only. */
export function addressError(what: string, address: string, cause: Error): FatalError {
  const code = /\bE[A-Z]+(?:_[A-Z]+)?\b/.exec(
    `${(cause as NodeJS.ErrnoException).code ?? ""} ${cause.message}`,
  );
  const reason = (code && REASONS[code[0]]) ?? cause.message;
  return new FatalError("OSTRAKA_ADDRESS", `${what} ${address} cannot be had: ${reason}`, { cause });
}
