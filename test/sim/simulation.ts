import { seededRandom } from '../../packages/protocol/src/base/index.ts';
import { ZERO_USAGE, equalUsage } from '../../packages/protocol/src/lattice/index.ts';
import { REGISTERS_KEPT_EPOCHS, type SealedEpoch } from '../../packages/protocol/src/sealing/index.ts';
import { cheapCrypto } from '../../packages/protocol/test/member/harness.ts';
import { Agenda } from './agenda.ts';
import { foundCluster, nameOf } from './cluster.ts';
import { Faults } from './faults.ts';
import { Network } from './network.ts';
import { SimNode, type World } from './node.ts';
import { Operator } from './operator.ts';
import { EPOCH_MS, type SimOptions } from './options.ts';
import { Trace } from './trace.ts';
import { demand, Violation } from './violation.ts';
import { Watch } from './watch.ts';

/** How long a cluster may take to be of one mind again, in ms. */
const HEAL_MS_MAX = 30 * EPOCH_MS;

export interface SimResult {
  /** Equal for equal options. */
  readonly fingerprint: string;
  readonly summary: string;
  /** Virtual hours, times machines. */
  readonly nodeHours: number;
  readonly violation: Violation | null;
  /** The last events before the end. */
  readonly last: readonly string[];
}

/** The command that runs it again. */
export const replayCommand = ({ seed, nodes, voters = 1, minutes, faults, mutation }: SimOptions): string =>
  [
    `npm run sim -- --seed ${seed} --nodes ${nodes} --voters ${voters} --minutes ${minutes}`,
    ...(faults === undefined ? [] : [`--faults ${faults.join()}`]),
    ...(mutation === undefined ? [] : [`--mutation ${mutation}`]),
  ].join(' ');

/**
 * One run: a cluster lives through faults while checkers watch what must never happen, then everything is healed, and it must
 * come to rest as one. The same options give the same run.
 */
export function simulate(options: SimOptions): SimResult {
  const simulation = new Simulation(options);
  let violation: Violation | null = null;
  try {
    simulation.run();
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    violation = error;
  }
  return { ...simulation.result, violation };
}

class Simulation {
  readonly #options: SimOptions;
  readonly #world: World;
  readonly #operator: Operator;
  readonly #faults: Faults;
  #isWorking = true;

  constructor(options: SimOptions) {
    const { seed, voters = 1, mutation } = options;
    const random = seededRandom(seed);
    const agenda = new Agenda();
    const cluster = foundCluster(voters);
    const nodes: SimNode[] = [];
    this.#options = options;
    this.#world = {
      agenda,
      random,
      cluster,
      network: new Network(agenda, random, mutation === 'openAnything'),
      trace: new Trace(agenda, options.onLine),
      watch: new Watch(cluster, nodes, seededRandom(seed + 1), mutation),
      nodes,
      ahead: () => this.#ahead,
      mutation,
    };
    this.#operator = new Operator(this.#world);
    this.#faults = new Faults(this.#world, this.#operator, options.faults, () => this.#add(false));
    for (let index = 0; index < options.nodes; index++) this.#add(index < voters);
  }

  get result(): Omit<SimResult, 'violation'> {
    const { agenda, network, trace, watch, nodes } = this.#world;
    return {
      fingerprint: trace.fingerprint,
      summary: `${watch.summary(this.#ahead)}, ${network.refused} changed messages refused`,
      last: trace.last,
      nodeHours: (agenda.nowMs / 3_600_000) * nodes.length,
    };
  }

  run(): void {
    const { agenda, nodes } = this.#world;
    for (const node of nodes)
      if (node.standing === 'member') node.start();
      else this.#operator.admit(node);
    this.#dial();
    this.#check();
    this.#faults.start();
    agenda.runUntil(this.#options.minutes * 60_000);
    this.#faults.heal();
    this.#isWorking = false;
    this.#comeToRest();
  }

  /** Another machine, a founder or not. */
  #add(isFounder: boolean): SimNode {
    const { nodes, network } = this.#world;
    const node = new SimNode(this.#world, nodes.length, nameOf(nodes.length), isFounder ? 'member' : 'joining');
    nodes.push(node);
    network.add(node);
    this.#work(node);
    return node;
  }

  #every(ms: () => number, act: () => void): void {
    this.#world.agenda.after(ms(), () => {
      act();
      this.#every(ms, act);
    });
  }

  #work(node: SimNode): void {
    const { random } = this.#world;
    this.#every(
      () => 50 + random.below(800),
      () => {
        if (this.#isWorking) node.work();
      },
    );
  }

  #dial(): void {
    this.#every(
      () => 200,
      () => this.#world.network.dial(),
    );
  }

  #check(): void {
    const { random, nodes, watch } = this.#world;
    this.#every(
      () => 1_000,
      () => {
        const up = nodes.filter(({ isUp }) => isUp);
        const one = up[random.below(Math.max(1, up.length))];
        const other = up[random.below(Math.max(1, up.length))];
        if (one === undefined || other === undefined) return;
        watch.registers.vectors(one, watch.ahead);
        watch.revocations(one);
        watch.bounded(one);
        watch.registers.equals(one, other, watch.ahead);
      },
    );
  }

  /** Of those that belong to the cluster, the one with the most seals on disk: the founder's own write may be the last of all. */
  get #ahead(): SimNode {
    return this.#nodes.reduce((most, node) => (node.disk.chain.epoch > most.disk.chain.epoch ? node : most));
  }

  get #nodes(): SimNode[] {
    return this.#world.nodes.filter(({ standing }) => standing !== 'gone');
  }

  /** Invariants 3, 8 and 11: everything is sealed, everyone holds and counts the same. */
  #comeToRest(): void {
    const { agenda, trace, watch } = this.#world;
    const deadlineMs = agenda.nowMs + HEAL_MS_MAX;
    let missing = this.#missing();
    while (missing !== null && agenda.nowMs < deadlineMs) {
      agenda.runUntil(agenda.nowMs + 1_000);
      const before = missing;
      missing = this.#missing();
      if (missing !== before) trace.add(`missing: ${missing ?? 'nothing'}`);
    }
    demand(missing === null, 8, () => missing ?? '');
    for (const node of this.#nodes) {
      watch.registers.vectors(node, watch.ahead);
      watch.revocations(node);
      watch.conserved(node);
      watch.registers.equals(node, this.#ahead, watch.ahead);
    }
  }

  /** What is still to come, or null. */
  #missing(): string | null {
    const nodes = this.#nodes;
    const opens = nodes.map(({ member }) => member?.openEpoch ?? -1);
    const [first] = nodes;
    const notes = new Map(first!.disk.seals.map(({ sealed }) => [sealed.epoch, sealed.checkpoint]));
    const isSame = ({ epoch, checkpoint }: SealedEpoch): boolean => checkpoint === notes.get(epoch);
    for (const { name, member, disk } of nodes) {
      if (member === undefined) return `${name} is not up`;
      if (new Set(opens).size > 1) return `the open epochs are ${opens.join()}`;
      if (disk.chain.epoch < member.openEpoch) return `${name} has sealed ${disk.chain.epoch} of ${member.openEpoch}`;
      for (const epoch of member.unsealed.epochs())
        if (!equalUsage(member.unsealed.usage(epoch), ZERO_USAGE)) return `usage of epoch ${epoch} open at ${name}`;
      if (member.wanted > 0) return `${name} still looks for ${member.wanted} contents`;
      for (const kind of ['control', 'usage'] as const)
        if (member.registers[kind].digest(cheapCrypto) !== first!.member!.registers[kind].digest(cheapCrypto))
          return `${name} and ${first!.name} differ in ${kind}`;
      const other = disk.seals.slice(-REGISTERS_KEPT_EPOCHS).find(({ sealed }) => !isSame(sealed));
      if (other !== undefined)
        return `${name} and ${first!.name} have other signatures under epoch ${other.sealed.epoch}`;
    }
    return null;
  }
}
