import { defineConfig } from "vitest/config";

const project = (name: string, extra: Record<string, unknown> = {}) => ({
  test: { name, include: [`test/${name}/**/*.test.ts`], ...extra },
});

export default defineConfig({
  test: {
    projects: [
      project("unit", { testTimeout: 60_000 }),
      project("sim", { testTimeout: 300_000 }),
      // Real processes on two cores: one file at a time.
      project("cluster", { testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false }),
      project("client", { testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false }),
    ],
  },
});
