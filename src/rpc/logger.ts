/** Structured log lines, in pino's order of arguments; injected. Details never hold tokens or secrets. */
export interface RpcLogger {
  info(details: Readonly<Record<string, unknown>>, message: string): void;
  warn(details: Readonly<Record<string, unknown>>, message: string): void;
}

export const silentLogger: RpcLogger = { info: () => undefined, warn: () => undefined };
