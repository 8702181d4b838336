import { base64, seededRandom } from '../../packages/protocol/src/base/index.ts';
import {
  createAdmit,
  createInvite,
  encodeFact,
  factKey,
  INVITE_MS_MAX,
  parseInvite,
} from '../../packages/protocol/src/authority/index.ts';
import { ZERO_USAGE, equalUsage } from '../../packages/protocol/src/lattice/index.ts';
import {
  cheapCrypto,
  cheapSigner,
  foundCluster,
  FOUNDER,
  keysOf,
  operator,
} from '../../packages/protocol/test/member/harness.ts';
import { Agenda } from './agenda.ts';
import { Faults } from './faults.ts';
import { Network } from './network.ts';
import { SimNode, type World } from './node.ts';
import { EPOCH_MS, START_MS, type SimOptions } from './options.ts';
import { Trace } from './trace.ts';
import { demand, Violation } from './violation.ts';
import { Watch } from './watch.ts';

/** How long a cluster may take to be of one mind again, in ms. */
const HEAL_MS_MAX = 20 * EPOCH_MS;
/** Members that are further behind cannot follow and take the sealed epochs of another. */
const FOLLOW_EPOCHS_MAX = 6;

export interface SimResult {
  /** Equal for equal options. */
  readonly fingerprint: string;
  readonly summary: string;
  readonly violation: Violation | null;
  /** The last events before the end. */
  readonly last: readonly string[];
}

/** The command that runs it again. */
export const replayCommand = ({ seed, nodes, minutes, faults, mutation }: SimOptions): string =>
  [
    `npm run sim -- --seed ${seed} --nodes ${nodes} --minutes ${minutes}`,
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
  readonly #faults: Faults;
  #isWorking = true;

  constructor(options: SimOptions) {
    const random = seededRandom(options.seed);
    const agenda = new Agenda();
    const cluster = foundCluster(EPOCH_MS, START_MS);
    this.#options = options;
    this.#world = {
      agenda,
      random,
      cluster,
      network: new Network(agenda, random),
      trace: new Trace(agenda, options.onLine),
      watch: new Watch(cluster, seededRandom(options.seed + 1), options.mutation),
      nodes: [],
      mutation: options.mutation,
    };
    this.#faults = new Faults(this.#world, options.faults, (node) => this.#admit(node));
    for (let index = 0; index < options.nodes; index++) {
      const node = new SimNode(this.#world, index, index === 0 ? FOUNDER : `n${index}`);
      this.#world.nodes.push(node);
      this.#world.network.add(node);
    }
  }

  get result(): Omit<SimResult, 'violation'> {
    const { trace, watch, nodes } = this.#world;
    return { fingerprint: trace.fingerprint, summary: watch.summary(nodes[0]!), last: trace.last };
  }

  run(): void {
    const { agenda, nodes } = this.#world;
    for (const node of nodes) {
      node.start();
      if (node.index > 0) this.#admit(node);
      this.#work(node);
    }
    this.#dial();
    this.#check();
    this.#faults.start();
    agenda.runUntil(this.#options.minutes * 60_000);
    this.#faults.heal();
    this.#catchUp();
    this.#isWorking = false;
    this.#comeToRest();
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
        watch.vectors(one, this.#ahead);
        watch.revocations(one);
        watch.equals(one, other, this.#ahead);
      },
    );
  }

  /** The node with the most seals on disk: the founder's own write may be the last of all. */
  get #ahead(): SimNode {
    return this.#world.nodes.reduce((most, node) => (node.disk.chain.epoch > most.disk.chain.epoch ? node : most));
  }

  /** The operator lets a machine in: the founder is told until it has it on disk. */
  #admit(node: SimNode): void {
    const { agenda, cluster, random, nodes, trace } = this.#world;
    const founder = nodes[0]!;
    const created = createInvite({
      cluster,
      operator,
      addresses: [{ transportKey: base64.encode(keysOf(FOUNDER).transport.publicKey), host: '10.0.0.1', port: 7000 }],
      expiresInMs: INVITE_MS_MAX,
      nowMs: START_MS,
      crypto: cheapCrypto,
      random,
      signerFromSeed: cheapSigner,
    });
    const invite = parseInvite(created.invite, cheapCrypto, cheapSigner);
    const fact = createAdmit(invite, keysOf(node.name), START_MS, cheapCrypto);
    const { replica, name } = node;
    trace.add(`the operator admits ${name}`);
    const tell = (): void => {
      if (founder.disk.control.has(`${founder.replica}/${factKey(fact)}`)) return;
      if (founder.isUp) founder.write([{ key: factKey(fact), value: encodeFact(fact) }]);
      agenda.after(1_000, tell);
    };
    if (replica === fact.replica) tell();
  }

  /** Members that were away for too long to follow take the sealed epochs as they are. */
  #catchUp(): void {
    const { nodes, trace } = this.#world;
    const [founder] = nodes;
    for (const node of nodes) {
      if (node.disk.chain.epoch >= founder!.disk.chain.epoch - FOLLOW_EPOCHS_MAX) continue;
      trace.add(`${node.name} takes ${founder!.disk.chain.epoch - node.disk.chain.epoch} sealed epochs`);
      node.kill();
      node.adopt(founder!);
      node.start();
    }
  }

  /** Invariants 3, 8 and 11: everything is sealed, everyone holds and counts the same. */
  #comeToRest(): void {
    const { agenda, nodes, watch } = this.#world;
    const deadlineMs = agenda.nowMs + HEAL_MS_MAX;
    let missing = this.#missing();
    for (; missing !== null && agenda.nowMs < deadlineMs; missing = this.#missing()) {
      agenda.runUntil(agenda.nowMs + 1_000);
      this.#catchUp();
    }
    demand(missing === null, 8, () => missing ?? '');
    for (const node of nodes) {
      watch.vectors(node, this.#ahead);
      watch.revocations(node);
      watch.conserved(node);
      watch.equals(node, nodes[0]!, this.#ahead);
    }
  }

  /** What is still to come, or null. */
  #missing(): string | null {
    const { nodes } = this.#world;
    const opens = nodes.map(({ member }) => member?.openEpoch ?? -1);
    const [founder] = nodes;
    for (const { name, member, disk } of nodes) {
      if (member === undefined) return `${name} is not up`;
      if (new Set(opens).size > 1) return `the open epochs are ${opens.join()}`;
      if (disk.chain.epoch < member.openEpoch) return `${name} has sealed ${disk.chain.epoch} of ${member.openEpoch}`;
      for (const epoch of member.unsealed.epochs())
        if (!equalUsage(member.unsealed.usage(epoch), ZERO_USAGE)) return `usage of epoch ${epoch} open at ${name}`;
      for (const kind of ['control', 'usage'] as const)
        if (member.registers[kind].digest(cheapCrypto) !== founder!.member!.registers[kind].digest(cheapCrypto))
          return `${name} and ${founder!.name} differ in ${kind}`;
    }
    return null;
  }
}
