/** A progress bar on a terminal, nothing elsewhere. It is drawn on standard error, never among results. */
import { SingleBar } from "cli-progress";

export interface Progress {
  update(done: number, rows: number): void;
  stop(): void;
}

const SILENT: Progress = { update: () => undefined, stop: () => undefined };

/** `totalBytes` of work; `label` says what is being done. */
export function startProgress(label: string, totalBytes: number): Progress {
  if (process.stderr.isTTY !== true || totalBytes === 0) return SILENT;
  const bar = new SingleBar({
    format: `${label} {bar} {percentage}% · {rows} rows · {eta_formatted} left`,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    hideCursor: true,
    clearOnComplete: true,
    fps: 5,
    stream: process.stderr,
  });
  bar.start(totalBytes, 0, { rows: 0 });
  return {
    update: (done, rows) => bar.update(Math.min(done, totalBytes), { rows }),
    stop: () => bar.stop(),
  };
}
