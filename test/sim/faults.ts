import type { Random } from '../../packages/protocol/src/base/index.ts';
import type { SimNode, World } from './node.ts';
import { EPOCH_MS, FAULTS, type Fault } from './options.ts';

/** How long a fault lasts at most: some epochs, but fewer than a member that was away can follow. */
const FAULT_MS_MAX = 2 * EPOCH_MS;
/** Disks lost in one run at most. */
const LOST_MAX = 2;

/** Causes faults, alone and together, until it is stopped; then everything is put right. */
export class Faults {
  readonly #world: World;
  readonly #random: Random;
  readonly #kinds: readonly Fault[];
  /** Ends what was begun; a fault that comes after the end of all is none. */
  #isOver = false;
  #lost = 0;
  /** Machines that are to be admitted. */
  readonly onReplaced: (node: SimNode) => void;

  constructor(world: World, kinds: readonly Fault[] = FAULTS, onReplaced: (node: SimNode) => void) {
    this.#world = world;
    this.#random = world.random;
    this.#kinds = kinds;
    this.onReplaced = onReplaced;
  }

  /** From now on, one every few seconds. */
  start(): void {
    if (this.#kinds.length === 0) return;
    this.#world.agenda.after(500 + this.#random.below(5_000), () => {
      if (this.#isOver) return;
      this.#cause(this.#kinds[this.#random.below(this.#kinds.length)]!);
      this.start();
    });
  }

  /** No more of it: the network is whole, clocks are right, disks are fast, and everyone runs. */
  heal(): void {
    const { nodes, network, trace } = this.#world;
    trace.add('everything is healed');
    this.#isOver = true;
    network.heal();
    for (const node of nodes) {
      Object.assign(node, { clockOffsetMs: 0, clockDriftPerMille: 0, writeMsMax: 10, isFull: false, isDoomed: false });
      node.pausedUntilMs = Math.min(node.pausedUntilMs, this.#world.agenda.nowMs);
      node.start();
    }
  }

  #node(from = 0): SimNode | undefined {
    const { nodes } = this.#world;
    return from < nodes.length ? nodes[from + this.#random.below(nodes.length - from)] : undefined;
  }

  /** A duration: mostly short. */
  #ms(): number {
    return 100 + this.#random.below(1 + this.#random.below(FAULT_MS_MAX));
  }

  #during(ms: number, end: () => void): void {
    this.#world.agenda.after(ms, () => {
      if (!this.#isOver) end();
    });
  }

  #cause(fault: Fault): void {
    const { nodes, trace } = this.#world;
    const node = this.#node()!;
    const ms = this.#ms();
    const handlers: { readonly [F in Fault]: () => void } = {
      kill: () => this.#kill(node, ms),
      killAll: () => {
        for (const each of nodes) this.#kill(each, this.#ms());
      },
      killAtSeal: () => {
        node.isDoomed = true;
      },
      partition: () => this.#partition(ms, true),
      oneWay: () => this.#partition(ms, false),
      slowLink: () => this.#slowLink(ms),
      breakLinks: () => {
        for (const other of nodes) if (other !== node) this.#world.network.break(node, other);
      },
      loss: () => this.#loss(ms),
      pause: () => {
        node.pausedUntilMs = this.#world.agenda.nowMs + 300 + this.#random.below(8_000);
      },
      jump: () => {
        node.clockOffsetMs = this.#random.below(3 * EPOCH_MS) - 1.5 * EPOCH_MS;
      },
      drift: () => {
        node.clockDriftPerMille = this.#random.below(9) - 4;
      },
      slowDisk: () => {
        node.writeMsMax = 1_000;
        this.#during(ms, () => (node.writeMsMax = 10));
      },
      fullDisk: () => {
        node.isFull = true;
        this.#during(ms, () => (node.isFull = false));
      },
      loseDisk: () => this.#loseDisk(ms),
    };
    trace.add(`fault: ${fault}, perhaps ${node.name}, ${ms} ms`);
    handlers[fault]();
  }

  #kill(node: SimNode, ms: number): void {
    node.kill();
    this.#during(ms, () => node.start());
  }

  #partition(ms: number, bothWays: boolean): void {
    const { nodes, network } = this.#world;
    const isOnThisSide = nodes.map(() => this.#random.below(2) === 0);
    for (const from of nodes)
      for (const to of nodes) {
        if (isOnThisSide[from.index] === isOnThisSide[to.index]) continue;
        if (bothWays || isOnThisSide[from.index] === true) network.cut(from, to);
      }
    this.#during(ms, () => network.heal());
  }

  #slowLink(ms: number): void {
    const [from, to] = [this.#node()!, this.#node()!];
    this.#world.network.slow(from, to, 200 + this.#random.below(3_000));
    this.#during(ms, () => this.#world.network.slow(from, to, 0));
  }

  #loss(ms: number): void {
    const { network } = this.#world;
    Object.assign(network.weather, {
      latencyMs: this.#random.below(100),
      jitterMs: this.#random.below(1_000),
      lossPerMille: this.#random.below(600),
      doublePerMille: this.#random.below(300),
    });
    this.#during(ms, () => network.heal());
  }

  /** The founder alone votes for now: without its disk there would be nothing left to see. */
  #loseDisk(ms: number): void {
    const node = this.#node(1);
    if (node === undefined || this.#lost >= LOST_MAX) return;
    this.#lost++;
    this.#world.trace.add(`${node.name} loses its disk`);
    node.replace(`${node.name}'`, this.#world.nodes[0]!);
    this.onReplaced(node);
    this.#during(ms, () => node.start());
  }
}
