/**
 * Bugs to plant in the ranges themselves: how they split, merge and are found. Like list.mjs; the simulator divides its
 * databases for these (`npm run sim -- --ranges`). `also` changes a second place, where one alone is caught by the other.
 */
export const RANGE_MUTANTS = [
  // Splits and merges
  {
    name: "split while something is prepared",
    file: "src/machines/range/reshape.ts",
    find: "    if (prepared.size > 0)\n",
    replace: "    if (prepared.size > 99)\n",
    tests: ["range/split"],
  },
  {
    name: "split without waiting for what is prepared",
    file: "src/txn/gate.ts",
    find: '        if (this.holds.size === 0) return "go";',
    replace: '        return "go";',
    tests: ["txn/gate", "range/leader-reshaping"],
  },
  {
    name: "split without the answers",
    file: "src/machines/range/children.ts",
    find: "    writeBeginning(database, child);\n",
    replace: '    writeBeginning(database, child);\n    database.exec("DELETE FROM _ostraka_answers");\n',
    tests: ["range/split"],
  },
  {
    name: "split without the outcomes of transactions",
    file: "src/machines/range/children.ts",
    find: "    writeBeginning(database, child);\n",
    replace:
      '    writeBeginning(database, child);\n    database.exec("DELETE FROM _ostraka_transactions");\n',
    tests: ["range/split"],
  },
  {
    name: "apply commands of another generation",
    file: "src/machines/range/apply.ts",
    find: "if (generation !== ANY_GENERATION && generation !== this.slice.generation)",
    replace: "if (generation !== ANY_GENERATION && generation < 0)",
    tests: ["range/split", "range/participant"],
  },
  {
    name: "admit to a range what lies in another",
    file: "src/range/leadership.ts",
    find: "    if (!this.isInside({ reads, writes, checks: NOTHING })) throw this.movedError();\n",
    replace: "",
    tests: ["range/leader-reshaping"],
  },
  {
    name: "checkpoint before the child is durable",
    file: "src/machines/range/children.ts",
    find: "      if (earliest === undefined || child.index < earliest) earliest = child.index;\n",
    replace: "      void child;\n",
    tests: ["range/split", "range/store-core"],
  },
  {
    name: "let a fence stand through a split",
    file: "src/range/reshaping.ts",
    find: "    this.#leadership.admission.gate.fences.endAll();\n",
    replace: "",
    also: {
      file: "src/range/fencing.ts",
      find: "this.#context.checkGeneration(generation);",
      replace: "void generation;",
    },
    tests: ["range/leader-reshaping"],
  },
  {
    name: "let writers in while a range changes",
    file: "src/txn/gate.ts",
    find: '        if (this.#closed === "to writers") return undefined;\n',
    replace: "",
    tests: ["txn/gate", "range/leader-reshaping"],
  },
  {
    name: "take in a neighbour that is not frozen here yet",
    file: "src/node/operations/merge.ts",
    find: "      const ready = await untilAllApplied(view, right, left.range, waiting);\n",
    replace: "      void untilAllApplied;\n      const ready = left.replicas as readonly NodeId[];\n",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "freeze a range again for another one",
    file: "src/range/reshaping.ts",
    find: "if (this.#context.state.frozenInto !== undefined) return this.#context.descriptor();",
    replace: "if (this.#context.state.frozenInto === into) return this.#context.descriptor();",
    also: {
      file: "src/machines/range/apply.ts",
      find: "if (frozenInto === undefined) return undefined;",
      replace: 'if (frozenInto === undefined || command.kind === "freeze") return undefined;',
    },
    tests: ["range/absorb", "range/leader-reshaping", "sim/scenarios-ranges"],
  },
  {
    name: "take in whatever begins where the range ends",
    file: "src/machines/range/reshape.ts",
    find: "if (rightNeighbour !== right.range || descriptor.end !== right.start)",
    replace: "if ((rightNeighbour, descriptor.end !== right.start))",
    tests: ["range/absorb"],
  },
  {
    name: "let go of a frozen replica that is yet to be taken in",
    file: "src/node/ranges/farewell.ts",
    find: "if (other.filled && other.store.state().rightNeighbour === range) return true;",
    replace: "void other;",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "take in a neighbour without its answers",
    file: "src/machines/range/absorb.ts",
    find: "  answers.adopt(source);\n",
    replace: "  void answers;\n",
    tests: ["range/absorb"],
  },
  {
    name: "forget a child with the first checkpoint after it was told of",
    file: "src/machines/range/children.ts",
    find: "      if (checkpoints === 0) continue;\n",
    replace: "",
    tests: ["range/split"],
  },
  {
    name: "make a child again that has left",
    file: "src/machines/range/children.ts",
    find: "    writeNote(this.#path, { ...child, walBytes: null, made: true });\n",
    replace: "    void child;\n",
    tests: ["range/split"],
  },
  {
    name: "tell nobody of a child whose birth a crash cut short",
    file: "src/machines/range/children.ts",
    find: "        this.#tell(note);\n",
    replace: "",
    tests: ["range/split"],
  },
  {
    name: "let SQLite choose a rowid in the middle of a table",
    file: "src/machines/range/append-guard.ts",
    find: "  const slice = sliceOf(table, span);\n  if (slice !== undefined && isWholeTable(slice)) return;",
    replace:
      "  const slice = sliceOf(table, span);\n  if (slice === undefined || !isWholeTable(slice) || isWholeTable(slice)) return;",
    also: {
      file: "src/range/open-transactions.ts",
      find: "if (await this.#hasNoRow(table)) return true;",
      replace: "if (table === undefined) return true;",
    },
    tests: ["range/leader-reshaping", "range/split"],
  },
  {
    name: "give a split that is tried again the id of one that may have been made",
    file: "src/node/operations/ranges.ts",
    find: "if (error instanceof AmbiguousError) unused = undefined;",
    replace: "void AmbiguousError;",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "go by what a removed node has said",
    file: "src/node/placement/driver.ts",
    find: "if (!nodes.some((node) => node.id === id)) this.#known.delete(id);",
    replace: "if (nodes.length === 0) this.#known.delete(id);",
    tests: ["node/placement-driver"],
  },
];
