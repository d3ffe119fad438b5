import type { Target } from "./replay.mjs";

export function ownCluster(
  nodes?: number,
  main?: string,
): Promise<{ fresh(): Promise<string>; stop(): Promise<void> }>;
export function clusterTarget(
  connect: (url: string, options: { intMode: "bigint"; timeoutMs: number }) => Promise<unknown>,
  url: string,
  fresh?: () => Promise<string>,
  timeoutMs?: number,
): Promise<Target>;
export function plainTarget(): Target;
