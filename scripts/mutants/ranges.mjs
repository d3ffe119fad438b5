/**
 * Bugs to plant in what makes many ranges one database. Like list.mjs; the simulator divides its databases for these
 * (`npm run sim -- --ranges`). `also` changes a second place, where one alone is caught by the other.
 */
export const RANGE_MUTANTS = [
  // Reads over several ranges
  {
    name: "read a snapshot whose fences fell",
    file: "src/gateway/snapshot.ts",
    find: "if (stood.includes(false)) throw",
    replace: "if (stood.length === 0) throw",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "release a fence without a quorum",
    file: "src/range/fencing.ts",
    find: "    if (!stood || !answered || term !== this.#leadership.term) return false;\n    await this.#context.deps.handle.readIndex();\n",
    replace: "    if (!stood || !answered || term !== this.#leadership.term) return false;\n",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "fence nobody out",
    file: "src/txn/fences.ts",
    find: "for (const { spans } of this.#fences.values()) if (spans.meets(writes)) return true;",
    replace: "for (const { spans } of this.#fences.values()) if (spans.meets(writes)) return false;",
    tests: ["txn", "sim/scenarios-ranges"],
  },
  {
    name: "answer a fence before entries in flight",
    file: "src/range/fencing.ts",
    find: "      await this.#context.settledOn(spans);\n",
    replace: "",
    tests: ["range", "sim/scenarios-ranges"],
  },
  {
    name: "answer a fence over what is held",
    file: "src/range/fencing.ts",
    find: '      if (drained !== "go") throw tooLong();\n',
    replace: "",
    also: {
      file: "src/txn/gate.ts",
      find: '        if (!this.holds.meets(entrant.reads, [])) return "go";\n        break;',
      replace: '        return "go";',
    },
    tests: ["txn", "sim/scenarios-ranges"],
  },
  {
    name: "fence a range that has split",
    file: "src/range/fencing.ts",
    find: 'if (generation !== this.#context.generation) throw this.#context.movedError("the range has changed");',
    replace: "void generation;",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "pin a replica that has split",
    file: "src/gateway/snapshot.ts",
    find: "  if (replica.store.state().descriptor.generation !== descriptor.generation) throw moved();\n",
    replace: "",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "read a replica that has split",
    file: "src/gateway/reads.ts",
    find: "if (current && generation === descriptor.generation) return result;",
    replace: "if (current && generation > 0) return result;",
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "read what is held",
    file: "src/gateway/reads.ts",
    find: 'if (held === undefined || !anyIntersect(held, looked)) return { kind: "outcome", outcome };',
    replace: 'if (held !== looked) return { kind: "outcome", outcome };',
    also: {
      file: "src/gateway/replica.ts",
      find: "anyIntersect(point.held, ",
      replace: "false && anyIntersect(point.held, ",
    },
    tests: ["gateway", "sim/scenarios-ranges"],
  },
  {
    name: "read the rows of the other half",
    file: "src/gateway/scratch.ts",
    find: "      const slice = sliceOf(table, pin.descriptor);\n      const touched",
    replace:
      "      const slice = sliceOf(table, pin.descriptor) && { low: undefined, high: undefined, lowAfter: false, highAfter: false };\n      const touched",
    tests: ["sim/scenarios-ranges"],
  },
  // Votes
  {
    name: "vote yes without validation",
    file: "src/range/participant.ts",
    find: "      conflict = this.#conflict(request);\n",
    replace: "",
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "vote on reads of an earlier term",
    file: "src/range/participant.ts",
    find: 'if (read.some((part) => part.term !== term)) return "leadership changed since the transaction began";',
    replace: "void term;",
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "vote on reads of before a split",
    file: "src/range/participant.ts",
    find: "if (read.some(({ index, spans }) => index < sliceSince && !slice.containsReads(spans)))",
    replace: "if (read.some(({ index, spans }) => index < -sliceSince && !slice.containsReads(spans)))",
    also: {
      file: "src/range/participant.ts",
      find: 'if (body.kind !== "own" && generation !== this.#context.generation)',
      replace: 'if (body.kind !== "own" && generation < 0)',
    },
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "prepare over what is held",
    file: "src/txn/gate.ts",
    find: 'if (this.holds.meets(reads, writes, id))\n      return (this.waitsUntilMs(entrant) ?? untilMs) <= nowMs ? "held" : undefined;',
    replace: "",
    also: {
      file: "src/machines/range/participant.ts",
      find: "if (other !== undefined)\n      return failure(new RetryError(",
      replace: "if (other === prepared.transaction)\n      return failure(new RetryError(",
    },
    tests: ["txn", "sim/scenarios-ranges"],
  },
  {
    name: "write over what is held",
    file: "src/txn/gate.ts",
    find: "if (this.holds.size > 0 && this.holds.meets(entrant.reads, entrant.writes)) return undefined;",
    replace: "",
    tests: ["txn", "sim/scenarios-ranges"],
  },
  {
    name: "forget what is held at a new leader",
    file: "src/range/leadership.ts",
    find: "      this.admission.gate.holds.hold(transaction, reads, writes);",
    replace: "      void [transaction, reads, writes];",
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "let go of a yes before the decision",
    file: "src/range/participant.ts",
    find: "      this.#voted.set(id, { coordinator, askMs });\n      this.#watch();\n    }\n",
    replace:
      "      this.#voted.set(id, { coordinator, askMs });\n      this.#watch();\n    }\n    this.#letGo(id);\n",
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "a commit across ranges is no write",
    file: "src/range/participant.ts",
    find: "() => (committed ? writes : NOTHING),",
    replace: "() => NOTHING,",
    also: {
      file: "src/range/participant.ts",
      find: "        () => writes,\n        changesSchema(writes),",
      replace: "        () => NOTHING,\n        changesSchema(writes),",
    },
    tests: ["range/participant", "sim/scenarios-ranges"],
  },
  {
    name: "never ask the coordinator",
    file: "src/range/participant.ts",
    find: "      this.#ask(id, voted.coordinator).catch(() => {});",
    replace: "      void voted.coordinator;",
    also: {
      file: "src/coordinator/leader.ts",
      find: "    outbox.add(machine.state.rows());\n",
      replace: "",
    },
    tests: ["range/participant", "coordinator"],
  },
  {
    name: "prepare after the abort has come",
    file: "src/machines/range/participant.ts",
    find: 'if (outcome === "aborted") return givenUp(',
    replace: 'if (outcome === "never") return givenUp(',
    also: {
      file: "src/range/participant.ts",
      find: '    if (this.#refused.has(id) || decision === "aborted")\n      return this.#refuse(id, "the transaction was refused before");\n',
      replace: "",
    },
    tests: ["range/participant", "range"],
  },
  {
    name: "forget that a write was decided elsewhere",
    file: "src/machines/range/participant.ts",
    find: "        answers.record(index, command.key, Math.max(wallMs, state.wallMs), answer);\n",
    replace: "        void [index, answers, answer];\n",
    tests: ["range/participant", "range"],
  },
  // The coordinator and the gateway's commit
  {
    name: "commit although a range said no",
    file: "src/gateway/wide-commit.ts",
    find: 'const no = votes.find((vote) => vote.vote === "no");',
    replace:
      'const no = votes.find((vote) => vote.vote === "no" && votes.length === 0) as never as Extract<Vote, { vote: "no" }> | undefined;',
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "tell committed before the coordinator has it",
    file: "src/gateway/wide-commit.ts",
    find: "  const { decision, answer } = await decide(db, commit, wanted);\n",
    replace:
      '  const deciding = decide(db, commit, wanted);\n  if (wanted === "committed") {\n    deciding.catch(() => undefined);\n    return answered(commit.outcomes, false);\n  }\n  const { decision, answer } = await deciding;\n',
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "commit what was never registered",
    file: "src/txn/coordinator.ts",
    find: "    if (outcome !== undefined) return this.#answered(transaction, outcome.decision);\n    return this.#tombstone(transaction);",
    replace:
      '    if (outcome !== undefined) return this.#answered(transaction, outcome.decision);\n    if (decision === "aborted") return this.#tombstone(transaction);\n    this.#outcomes.set(transaction, { decision, decidedMs: this.#wallMs });\n    return { state: decision, changed: true, answer };',
    tests: ["txn/coordinator", "coordinator"],
  },
  {
    name: "change a decision",
    file: "src/txn/coordinator.ts",
    find: '    if (open?.state === "registered") {\n      open.state = decision;',
    replace:
      '    if (open !== undefined && (open.state === "registered" || decision === "aborted")) {\n      open.state = decision;',
    tests: ["txn/coordinator", "coordinator"],
  },
  {
    name: "lose the rows of the outbox",
    file: "src/txn/coordinator.ts",
    find: "    this.#fresh.push(row);\n",
    replace: "",
    also: {
      file: "src/range/participant.ts",
      find: "      this.#ask(id, voted.coordinator).catch(() => {});",
      replace: "      void voted.coordinator;",
    },
    tests: ["txn/coordinator", "coordinator"],
  },
  {
    name: "acknowledge what was not delivered",
    file: "src/coordinator/outbox.ts",
    find: "    } catch {\n      // Whatever it was, it is tried again.\n    }\n    if (this.#stopped) return;",
    replace: "    } catch {\n      delivered = true;\n    }\n    if (this.#stopped) return;",
    also: {
      file: "src/range/participant.ts",
      find: "      this.#ask(id, voted.coordinator).catch(() => {});",
      replace: "      void voted.coordinator;",
    },
    tests: ["coordinator"],
  },
  {
    name: "never give up a transaction whose gateway died",
    file: "src/coordinator/leader.ts",
    find: "if (nowMs - sinceMs >= undecidedMs) abort(transaction).catch(() => undefined);",
    replace: "if (nowMs < sinceMs) abort(transaction).catch(() => undefined);",
    also: {
      file: "src/coordinator/leader.ts",
      find: "const { state, answer } = told(await this.#recover(transaction, this.#leading().term));\n    return { decision: state, answer };",
      replace: 'this.#leading();\n    throw new RetryError("OSTRAKA_UNAVAILABLE", "not decided yet");',
    },
    tests: ["coordinator"],
  },
  // Splits and merges
  {
    name: "split while something is prepared",
    file: "src/machines/range/reshape.ts",
    find: "    if (prepared.size > 0)\n",
    replace: "    if (prepared.size > 99)\n",
    also: {
      file: "src/txn/gate.ts",
      find: '        if (this.holds.size === 0) return "go";',
      replace: '        return "go";',
    },
    tests: ["range/split", "sim/scenarios-ranges"],
  },
  {
    name: "split without the answers",
    file: "src/machines/range/children.ts",
    find: "    writeBeginning(database, child.descriptor, child);\n",
    replace:
      '    writeBeginning(database, child.descriptor, child);\n    database.exec("DELETE FROM _ostraka_answers");\n',
    tests: ["range/split"],
  },
  {
    name: "split without the outcomes of transactions",
    file: "src/machines/range/children.ts",
    find: "    writeBeginning(database, child.descriptor, child);\n",
    replace:
      '    writeBeginning(database, child.descriptor, child);\n    database.exec("DELETE FROM _ostraka_transactions");\n',
    tests: ["range/split", "sim/scenarios-ranges"],
  },
  {
    name: "apply commands of another generation",
    file: "src/machines/range/apply.ts",
    find: "if (generation !== ANY_GENERATION && generation !== this.slice.generation)",
    replace: "if (generation !== ANY_GENERATION && generation < 0)",
    tests: ["range/split"],
  },
  {
    name: "admit to a range what lies in another",
    file: "src/range/leadership.ts",
    find: "    if (!this.isInside({ reads, writes, checks: NOTHING })) throw this.movedError();\n",
    replace: "",
    tests: ["range", "sim/scenarios-ranges"],
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
      find: 'if (generation !== this.#context.generation) throw this.#context.movedError("the range has changed");',
      replace: "void generation;",
    },
    tests: ["sim/scenarios-ranges"],
  },
  {
    name: "let writers in while a range changes",
    file: "src/txn/gate.ts",
    find: '        if (this.#closed === "to writers") return undefined;\n',
    replace: "",
    tests: ["txn", "range"],
  },
  {
    name: "take in a neighbour that is not frozen here yet",
    file: "src/node/operations/merge.ts",
    find: "      const ready = await untilAllApplied(view, right.range, left.range);\n",
    replace: "      void untilAllApplied;\n      const ready = left.replicas as readonly NodeId[];\n",
    tests: ["range/absorb"],
  },
  {
    name: "take in a neighbour without its answers",
    file: "src/machines/range/absorb.ts",
    find: "  answers.adopt(source);\n",
    replace: "  void answers;\n",
    tests: ["range/absorb"],
  },
  {
    name: "begin a child's log after its file is told of",
    file: "src/node/ranges/ranges.ts",
    find: "const begin = (): Promise<void> => host.begin({ group: range, bootstrap: conf, begins: { index, term } });",
    replace:
      "const begin = (): Promise<void> =>\n      new Promise<void>((resolve) => void this.#options.clock.setTimer(50, resolve)).then(() =>\n        host.begin({ group: range, bootstrap: conf, begins: { index, term } }),\n      );",
    tests: [],
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
    tests: ["range/split", "range"],
  },
];
