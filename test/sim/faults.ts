import type { Epoch, Random, ReplicaId } from '../../packages/protocol/src/base/index.ts';
import { quorumOf } from '../../packages/protocol/src/sealing/index.ts';
import { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';
import { copyOf, withoutOwn } from './backup.ts';
import type { SimNode, World } from './node.ts';
import type { Operator } from './operator.ts';
import { EPOCH_MS, FAULT_NAMES, type Fault } from './options.ts';

/** How long a fault lasts at most, unless it is a long one. */
const FAULT_MS_MAX = 2 * EPOCH_MS;
/** Longer than the registers of sealed epochs are kept: eight epochs. */
const AWAY_MS = 10 * EPOCH_MS;
/** Of these each is drawn a fourth as often as another: they are most of what there is for epochs. */
const LONG: ReadonlySet<Fault> = new Set(['longPartition', 'longPause', 'fullForLong']);
/** How wrong a clock may be, in ms: some epochs. */
const JUMP_MS_MAX = 150_000;
/** In one run at most: machines that lost their disk or id, and nodes that joined. */
const LOST_MAX = 3;
const JOINED_MAX = 3;
/** Between two backups of some disk, in ms. */
const BACKUP_MS = 10_000;
/** How often to look whether a node that leaves may go, in ms. */
const LEAVE_MS = 1_000;

/** Causes faults, alone and together, until it is stopped; then everything is put right. */
export class Faults {
  readonly #world: World;
  readonly #operator: Operator;
  readonly #random: Random;
  readonly #kinds: readonly Fault[];
  /** Ends what was begun; a fault that comes after the end of all is none. */
  #isOver = false;
  /** Machines that something is wrong with for long. */
  readonly #longUntilMs = new Map<SimNode, number>();
  #lost = 0;
  #joined = 0;
  /** Replicas that are to vote no more, or are gone, and the last epoch whose close may not know it; null while someone does not. */
  readonly #outgoing = new Map<ReplicaId, Epoch | null>();
  /** Another machine. */
  readonly #onJoin: () => SimNode;

  constructor(world: World, operator: Operator, kinds: readonly Fault[] = FAULT_NAMES, onJoin: () => SimNode) {
    this.#world = world;
    this.#operator = operator;
    this.#random = world.random;
    this.#kinds = kinds.flatMap((kind) => (LONG.has(kind) ? [kind] : [kind, kind, kind, kind]));
    this.#onJoin = onJoin;
  }

  /** From now on, one every few seconds. */
  start(): void {
    if (this.#kinds.length === 0) return;
    this.#next();
    this.#backUp();
  }

  /** No more of it: the network is whole, clocks are right, disks are fast, and everyone runs. */
  heal(): void {
    const { nodes, network, trace } = this.#world;
    trace.add('everything is healed');
    this.#isOver = true;
    network.heal();
    for (const node of nodes) {
      Object.assign(node, { clockOffsetMs: 0, clockDriftPerMille: 0, writeMsMax: 10, fullUntilMs: 0, isDoomed: false });
      network.rejoin(node);
      node.resume();
      node.start();
    }
  }

  #next(): void {
    this.#world.agenda.after(500 + this.#random.below(5_000), () => {
      if (this.#isOver) return;
      this.#cause(this.#kinds[this.#random.below(this.#kinds.length)]!);
      this.#next();
    });
  }

  /** Those that belong to the cluster. */
  get #nodes(): SimNode[] {
    return this.#world.nodes.filter(({ standing }) => standing !== 'gone');
  }

  #node(): SimNode {
    const nodes = this.#nodes;
    return nodes[this.#random.below(nodes.length)]!;
  }

  /** A duration: mostly short. */
  #ms(): number {
    return 100 + this.#random.below(1 + this.#random.below(FAULT_MS_MAX));
  }

  /** A duration of many epochs. */
  #longMs(): number {
    return AWAY_MS + this.#random.below(AWAY_MS);
  }

  /** Of a minority at a time: else nothing is sealed meanwhile that it could miss. */
  #forLong(node: SimNode, begin: (ms: number) => void): void {
    const { nowMs } = this.#world.agenda;
    for (const [other, untilMs] of this.#longUntilMs) if (untilMs <= nowMs) this.#longUntilMs.delete(other);
    const others = this.#nodes.filter((other) => other !== node && !this.#longUntilMs.has(other));
    if (this.#longUntilMs.has(node) || (others.length <= this.#nodes.length / 2 && others.length > 0)) return;
    const ms = this.#longMs();
    this.#longUntilMs.set(node, nowMs + ms);
    this.#world.trace.add(`it lasts ${ms} ms for ${node.name}`);
    begin(ms);
  }

  #during(ms: number, end: () => void): void {
    this.#world.agenda.after(ms, () => {
      if (!this.#isOver) end();
    });
  }

  #cause(fault: Fault): void {
    const { trace, agenda } = this.#world;
    const node = this.#node();
    const ms = this.#ms();
    const pauseFor = (pausedMs: number): void => {
      if (node.isUp) node.pausedUntilMs = Math.max(node.pausedUntilMs, agenda.nowMs + pausedMs);
    };
    const fillFor = (fullMs: number): void => {
      node.fullUntilMs = Math.max(node.fullUntilMs, agenda.nowMs + fullMs);
    };
    const handlers: { readonly [F in Fault]: () => void } = {
      kill: () => this.#kill(node, ms),
      killAll: () => this.#killAll(),
      killAtSeal: () => {
        node.isDoomed = true;
      },
      loseMajority: () => this.#loseMajority(ms),
      away: () => this.#kill(node, this.#longMs()),
      partition: () => this.#partition(ms, true),
      longPartition: () => this.#forLong(node, (longMs) => this.#isolate(node, longMs)),
      oneWay: () => this.#partition(ms, false),
      slowLink: () => this.#slowLink(ms),
      breakLinks: () => {
        for (const other of this.#nodes) if (other !== node) this.#world.network.break(node, other);
      },
      loss: () => this.#loss(ms),
      loseMessages: () => {
        this.#world.network.weather.missingPerMille = 1 + this.#random.below(200);
        this.#during(ms, () => this.#world.network.heal());
      },
      corrupt: () => this.#corrupt(ms),
      pause: () => pauseFor(300 + this.#random.below(8_000)),
      longPause: () => this.#forLong(node, pauseFor),
      jump: () => {
        const most = this.#random.below(3) === 0 ? JUMP_MS_MAX : 1.5 * EPOCH_MS;
        node.clockOffsetMs = this.#random.below(2 * most) - most;
      },
      drift: () => {
        node.clockDriftPerMille = this.#random.below(9) - 4;
      },
      slowDisk: () => {
        node.writeMsMax = 1_000;
        this.#during(ms, () => (node.writeMsMax = 10));
      },
      fullDisk: () => fillFor(ms),
      fullForLong: () => this.#forLong(node, fillFor),
      loseDisk: () => this.#loseDisk(node),
      restore: () => this.#restore(node),
      restoreUnnoticed: () => this.#restoreUnnoticed(node, ms),
      join: () => this.#join(),
      leave: () => this.#leave(node),
      retire: () => this.#retire(node),
      ban: () => this.#ban(node),
    };
    trace.add(`fault: ${fault}, perhaps ${node.name}, ${ms} ms`);
    handlers[fault]();
  }

  // Processes

  #kill(node: SimNode, ms: number): void {
    node.kill();
    this.#during(ms, () => node.start());
  }

  #killAll(): void {
    const { agenda } = this.#world;
    const isAtEnd = this.#random.below(2) === 0;
    const leftMs = EPOCH_MS - (agenda.nowMs % EPOCH_MS) - 300 + this.#random.below(600);
    this.#during(isAtEnd ? leftMs : 0, () => {
      for (const each of this.#nodes) this.#kill(each, this.#ms());
    });
  }

  #loseMajority(ms: number): void {
    const nodes = this.#nodes;
    const first = this.#random.below(nodes.length);
    for (let i = 0; i <= nodes.length / 2; i++) this.#kill(nodes[(first + i) % nodes.length]!, ms + EPOCH_MS);
  }

  // The network

  #partition(ms: number, bothWays: boolean): void {
    const { network } = this.#world;
    const nodes = this.#nodes;
    const here = new Set(nodes.filter(() => this.#random.below(2) === 0));
    for (const from of nodes)
      for (const to of nodes) {
        if (here.has(from) === here.has(to)) continue;
        if (bothWays || here.has(from)) network.cut(from, to);
      }
    this.#during(ms, () => network.heal());
  }

  #isolate(node: SimNode, ms: number): void {
    const { network } = this.#world;
    network.isolate(node);
    this.#during(ms, () => network.rejoin(node));
  }

  #slowLink(ms: number): void {
    const [from, to] = [this.#node(), this.#node()];
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

  #corrupt(ms: number): void {
    const { network } = this.#world;
    network.weather.corruptPerMille = 1 + this.#random.below(100);
    this.#during(ms, () => network.heal());
  }

  // Disks and ids

  #backUp(): void {
    const { cluster } = this.#world;
    this.#during(BACKUP_MS, () => {
      const node = this.#node();
      if (node.standing === 'member') node.backup = copyOf(node.disk, cluster);
      this.#backUp();
    });
  }

  #loseDisk(node: SimNode): void {
    if (this.#lost >= LOST_MAX || !this.#mayLose(node)) return;
    const { trace, cluster, watch } = this.#world;
    trace.add(`${node.name} loses its disk`);
    watch.lost(node, null);
    node.formerReplicas.length = 0;
    this.#renew(node, new MemoryDisk(cluster));
  }

  /** The node finds that its directory is a copy, and takes another id for what it has. */
  #restore(node: SimNode): void {
    const { backup } = node;
    if (backup === undefined || this.#lost >= LOST_MAX || !this.#mayLose(node)) return;
    const { trace, watch } = this.#world;
    trace.add(`the directory of ${node.name} is restored from a copy that has sealed ${backup.chain.epoch}`);
    watch.lost(node, backup);
    this.#renew(node, backup);
  }

  /** The node finds nothing, but the other members know better: its id must not be used again. */
  #restoreUnnoticed(node: SimNode, ms: number): void {
    const { backup } = node;
    const { trace, watch, ahead } = this.#world;
    const isVoter = ahead().disk.chain.roster.some(({ replica }) => replica === node.replica);
    // A voter whose disk goes back is outside of what is promised.
    if (isVoter || backup === undefined || this.#lost >= LOST_MAX || !this.#mayLose(node)) return;
    trace.add(`the directory of ${node.name} goes back, unnoticed, to one that has sealed ${backup.chain.epoch}`);
    node.kill();
    watch.lost(node, backup);
    watch.wentBack(node);
    node.disk = backup;
    node.backup = undefined;
    node.onOvertaken = () => {
      // What it is writing may still get to its disk: before its registers are taken off it.
      node.kill();
      this.#renew(node, withoutOwn(node.disk, node.replica));
    };
    this.#during(ms, () => node.start());
  }

  #renew(node: SimNode, disk: MemoryDisk): void {
    const { replica } = node;
    this.#lost++;
    this.#outgoing.set(replica, null);
    node.formerReplicas.push(replica);
    node.renew(disk);
    this.#operator.retire(replica);
    this.#operator.admit(node);
  }

  // Comings and goings

  #join(): void {
    if (this.#joined++ < JOINED_MAX) this.#operator.admit(this.#onJoin());
  }

  #leave(node: SimNode): void {
    if (!this.#mayLose(node)) return;
    node.standing = 'leaving';
    this.#outgoing.set(node.replica, null);
    this.#operator.leave(node);
    this.#seeOff(node);
  }

  /** It goes when it has no vote, and all that it has written is on every other disk. */
  #seeOff(node: SimNode): void {
    const { ahead, trace, agenda } = this.#world;
    agenda.after(LEAVE_MS, () => {
      const others = this.#nodes.filter((other) => other !== node && other.standing === 'member');
      const isVoter = ahead().disk.chain.roster.some(({ replica }) => replica === node.replica);
      const own = [...node.disk.vectors].filter(([, { writer }]) => writer.startsWith(node.replica));
      const isHeld = others.every(({ disk }) =>
        own.every(([key, { upTo }]) => (disk.vectors.get(key)?.upTo ?? 0) >= upTo),
      );
      if (isVoter || !node.isUp || !isHeld || others.length === 0) return this.#seeOff(node);
      trace.add(`${node.name} goes`);
      node.kill();
      node.standing = 'gone';
    });
  }

  #retire(node: SimNode): void {
    if (!this.#mayLose(node)) return;
    this.#outgoing.set(node.replica, null);
    this.#operator.retire(node.replica);
  }

  #ban(node: SimNode): void {
    if (this.#lost >= LOST_MAX || !this.#mayLose(node)) return;
    this.#lost++;
    this.#outgoing.set(node.replica, null);
    node.kill();
    node.standing = 'gone';
    this.#world.watch.lost(node, null);
    this.#operator.ban(node.replica);
  }

  /**
   * Whether a node may go for good: one at a time, and never so that no majority of the roster is left. Sealing survives the loss
   * of a minority; the rest is for the operator to see to.
   */
  #mayLose(node: SimNode): boolean {
    const { chain } = this.#world.ahead().disk;
    for (const [replica, last] of this.#outgoing) this.#settle(replica, last);
    const isVoter = chain.roster.some(({ replica }) => replica === node.replica);
    const members = this.#nodes.filter(({ standing }) => standing === 'member');
    // The last seal may be on its disk alone.
    const voters = members.filter(
      (other) =>
        other !== node &&
        other.disk.chain.epoch === chain.epoch &&
        chain.roster.some(({ replica }) => replica === other.replica),
    );
    return (
      node.standing === 'member' &&
      this.#outgoing.size === 0 &&
      members.length > 1 &&
      (!isVoter || (chain.roster.length >= 3 && voters.length >= quorumOf(chain.roster)))
    );
  }

  /** A replica is out once everyone knows, and all epochs that were closed before that are sealed: their facts could let it in. */
  #settle(replica: ReplicaId, last: Epoch | null): void {
    const { chain } = this.#world.ahead().disk;
    const nodes = this.#nodes.filter(({ standing }) => standing !== 'joining');
    if (last === null) {
      if (!nodes.every(({ disk }) => knowsOut(disk, replica))) return;
      this.#outgoing.set(replica, Math.max(...nodes.map((node) => lastClose(node))) + 1);
    } else if (chain.epoch > last + 1 && !chain.roster.some((entry) => entry.replica === replica))
      this.#outgoing.delete(replica);
  }
}

/** Whether a disk has it that a replica was retired or banned. */
function knowsOut({ control }: MemoryDisk, replica: ReplicaId): boolean {
  const keys = new Set([`roster/${replica}/retire`, `roster/${replica}/ban`]);
  return [...control.values()].some(({ key }) => keys.has(key));
}

/** The last epoch that a replica has closed on its disk; −1 for none. */
function lastClose({ disk, replica }: SimNode): Epoch {
  const closes = [...disk.registersOf(replica).keys()].filter((key) => key.startsWith('close/'));
  return Math.max(-1, ...closes.map((key) => Number(key.slice('close/'.length))));
}
