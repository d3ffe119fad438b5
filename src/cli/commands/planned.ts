/** Commands that later versions have. They are known by name so that nobody mistakes their absence for a typing error. */
import type { Command } from "commander";
import { notInThisVersion } from "../exit.js";

export function addPlannedCommands(program: Command): void {
  addPlanned(program, "backup", "physical backup");
  addPlanned(program, "restore", "restore a physical backup into an empty cluster");
}

export function addPlanned(parent: Command, name: string, what: string): void {
  parent
    .command(name)
    .description(`${what} (not in this version)`)
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .action(() => {
      const full = parent.parent === null ? name : `${parent.name()} ${name}`;
      throw notInThisVersion(`ostraka ${full}`);
    });
}
