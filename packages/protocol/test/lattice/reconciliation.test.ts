import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { present } from '../../src/base/index.ts';
import { Registers } from '../../src/lattice/index.ts';
import { nodeCrypto } from '../support.ts';
import type { Note } from './support.ts';

type Node = Registers<Note, string>;
type Held = Map<string, Note>;

const NODES = 4;
const WRITERS = ['n0', 'n1'];

type Step =
  | { readonly kind: 'write'; readonly writer: number; readonly key: string }
  | {
      readonly kind: 'rumor';
      readonly writer: number;
      readonly version: number;
      readonly from: number;
      readonly to: number;
    }
  | {
      readonly kind: 'exchange';
      readonly from: number;
      readonly to: number;
      readonly budget: number;
      readonly lost: boolean;
    }
  | {
      readonly kind: 'blind';
      readonly from: number;
      readonly to: number;
      readonly since: number;
      readonly budget: number;
    }
  | { readonly kind: 'restart'; readonly node: number };

const node = fc.nat(NODES - 1);
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      writer: fc.nat(1),
      key: fc.constantFrom('a', 'b', 'c', 'd'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('rumor' as const),
      writer: fc.nat(1),
      version: fc.nat(15),
      from: node,
      to: node,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('exchange' as const),
      from: node,
      to: node,
      budget: fc.integer({ min: 1, max: 4 }),
      lost: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('blind' as const),
      from: node,
      to: node,
      since: fc.nat(8),
      budget: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const), node }) },
);

function put(held: Held, register: Note): Held {
  if ((held.get(register.key)?.version ?? 0) < register.version) held.set(register.key, register);
  return held;
}
const contents = (registers: Node): Map<string, Held> =>
  new Map(WRITERS.map((writer) => [writer, [...registers.of(writer)].reduce(put, new Map())]));
const sorted = (held: Held): Note[] => [...held.values()].sort((a, b) => a.version - b.version);
const plain = (all: Map<string, Held>): Note[][] => [...all.values()].map(sorted);

/** One direction of an exchange: what `to` lacks, within a budget per writer, and what is pending at `from`. */
function exchange(from: Node, to: Node, budget: number): void {
  for (const writer of from.writers()) {
    const delta = from.delta(writer, to.wanted(writer), budget, () => 1);
    if (delta !== null) to.join(delta);
    const known = new Set(to.pendingVersions(writer));
    for (const version of from.pendingVersions(writer))
      if (version > to.upTo(writer) && !known.has(version))
        to.join(present(from.pendingDelta(writer, version), 'what is pending'));
  }
}

class Cluster {
  readonly nodes: readonly Node[] = Array.from(
    { length: NODES },
    () => new Registers({ keysMax: 100, equal: (a, b) => a.value === b.value }),
  );
  readonly histories = WRITERS.map((): Note[] => []);
  readonly #vectors: Map<string, number>[] = this.nodes.map(() => new Map());

  run(step: Step): void {
    if (step.kind === 'write') {
      const history = this.histories[step.writer]!;
      const version = history.length + 1;
      const register = { key: step.key, version, value: `${step.key}@${version}` };
      history.push(register);
      this.nodes[step.writer]!.apply(WRITERS[step.writer]!, [register]);
    } else if (step.kind === 'rumor') {
      // Goes from whoever holds exactly that version.
      const register = this.histories[step.writer]![step.version];
      const writer = WRITERS[step.writer]!;
      if (register === undefined || this.nodes[step.from]!.get(writer, register.key)?.version !== register.version)
        return;
      const { version } = register;
      this.nodes[step.to]!.join({ writer, from: version - 1, to: version, end: version, registers: [register] });
    } else if (step.kind === 'exchange') {
      exchange(this.nodes[step.from]!, this.nodes[step.to]!, step.budget);
      if (!step.lost) exchange(this.nodes[step.to]!, this.nodes[step.from]!, step.budget);
    } else if (step.kind === 'blind') {
      // A delta made for someone else, or a repeat of an old one.
      for (const writer of WRITERS) {
        const delta = this.nodes[step.from]!.delta(writer, step.since, step.budget, () => 1);
        if (delta !== null) this.nodes[step.to]!.join(delta);
      }
    } else for (const writer of WRITERS) if (writer !== `n${step.node}`) this.nodes[step.node]!.restart(writer);
  }

  /** Invariants 11 and 12. */
  check(): void {
    const byDigest = new Map<string, Note[][]>();
    this.nodes.forEach((registers, i) => {
      for (const [w, writer] of WRITERS.entries()) {
        const upTo = registers.upTo(writer);
        expect(upTo).toBeGreaterThanOrEqual(this.#vectors[i]!.get(writer) ?? 0);
        this.#vectors[i]!.set(writer, upTo);
        // Holds exactly the writer's history up to there, joined with what is pending.
        const claimed = this.histories[w]!.slice(0, upTo);
        const pending = registers.pendingVersions(writer).map((version) => this.histories[w]![version - 1]!);
        expect(sorted(contents(registers).get(writer)!)).toEqual(
          sorted([...claimed, ...pending].reduce(put, new Map())),
        );
      }
      const digest = registers.digest(nodeCrypto);
      const mine = plain(contents(registers));
      expect(byDigest.get(digest) ?? mine).toEqual(mine);
      byDigest.set(digest, mine);
    });
  }

  /** Exchanges among some of the nodes until nothing changes; catch-ups that got stuck start over. */
  heal(alive: readonly number[], budget: number): void {
    const state = (): string =>
      JSON.stringify(
        alive.map((i) => [this.nodes[i]!.digest(nodeCrypto), WRITERS.map((writer) => this.nodes[i]!.wanted(writer))]),
      );
    for (let round = 0; round < 200; round++) {
      const before = state();
      for (const from of alive) for (const to of alive) exchange(this.nodes[from]!, this.nodes[to]!, budget);
      this.check();
      if (state() !== before) continue;
      const stuck = alive.flatMap((i) =>
        WRITERS.filter((writer) => this.nodes[i]!.wanted(writer) > this.nodes[i]!.upTo(writer)).map((writer) => ({
          i,
          writer,
        })),
      );
      if (stuck.length === 0) return;
      for (const { i, writer } of stuck) this.nodes[i]!.restart(writer);
    }
    expect.unreachable('the nodes do not come to rest');
  }
}

describe('reconciliation', () => {
  it('keeps invariants 11 and 12 under loss, repeats, cuts and any order, and converges on all that the living hold', () => {
    const scenario = fc.record({
      steps: fc.array(anyStep, { maxLength: 60, size: 'max' }),
      alive: fc.subarray([0, 1, 2, 3], { minLength: 1 }),
      budget: fc.integer({ min: 1, max: 5 }),
    });
    fc.assert(
      fc.property(scenario, ({ steps, alive, budget }) => {
        const cluster = new Cluster();
        for (const each of steps) {
          cluster.run(each);
          cluster.check();
        }
        const together = new Map(WRITERS.map((writer) => [writer, new Map() as Held]));
        for (const i of alive)
          for (const [writer, held] of contents(cluster.nodes[i]!))
            for (const register of held.values()) put(together.get(writer)!, register);
        cluster.heal(alive, budget);
        const digests = new Set(alive.map((i) => cluster.nodes[i]!.digest(nodeCrypto)));
        expect(digests.size).toBe(1);
        for (const i of alive) expect(plain(contents(cluster.nodes[i]!))).toEqual(plain(together));
      }),
      { numRuns: 400 },
    );
  });
});
