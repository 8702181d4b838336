import { verifyBundle, packBundle, unpackBundle, type Verified } from '../../packages/protocol/src/audit/index.ts';
import {
  digestOf,
  fromUtf8,
  hex,
  WaggleError,
  type CustomerId,
  type Digest,
  type Epoch,
  type Random,
  type ReplicaId,
} from '../../packages/protocol/src/base/index.ts';
import { addUsage, atLeast, usageKey, usageWriter, ZERO_USAGE } from '../../packages/protocol/src/lattice/index.ts';
import type { ControlRegister, Usage, UsageRow } from '../../packages/protocol/src/lattice/index.ts';
import type { Batch, MemberEffect, Write } from '../../packages/protocol/src/member/index.ts';
import {
  isCountedClosed,
  parseBallotState,
  parseClose,
  quorumOf,
  unpackStatements,
  type Cluster,
} from '../../packages/protocol/src/sealing/index.ts';
import {
  encodeSlot,
  parseSlot,
  slotName,
  sortRows,
  type Slot,
  type SlotId,
} from '../../packages/protocol/src/usage/index.ts';
import { bundleOf } from '../../packages/protocol/test/member/bundle.ts';
import { MemoryDisk, type SealedRecord } from '../../packages/protocol/test/member/disk.ts';
import { cheapCrypto, sealedUsage } from '../../packages/protocol/test/member/harness.ts';
import { Counted, type Row } from './counted.ts';
import type { SimNode } from './node.ts';
import type { Mutation } from './options.ts';
import { RegisterWatch } from './register-watch.ts';
import { demand, Violation } from './violation.ts';
import { heldBy, Votes } from './votes.ts';

/** One in so many bundles is checked against a change of one byte. */
const FLIPS = 8;

/** Seals of one node that may not be on its disk: one on its way, two that wait, and one more made meanwhile. */
const HELD_SEALS_MAX = 4;

/** A slot as its writer has it on disk. */
interface Truth {
  readonly id: SlotId;
  readonly rows: Map<string, UsageRow>;
  /** What is sure to be there yet, after its disk was lost, or went back. */
  left?: ReadonlyMap<string, UsageRow>;
}

/**
 * All that is true of a simulation, as an onlooker knows it who sees every disk: what was acknowledged, what each writer wrote,
 * what was sealed. Its methods throw `Violation` when a node contradicts it.
 */
export class Watch {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #mutation: Mutation | undefined;
  readonly #counted = new Counted();
  /** Invariants 7, 11 and 12. */
  readonly registers = new RegisterWatch(this.#counted);
  /** Invariant 4. */
  readonly #votes = new Votes();
  /** By replica, the frontier that it computes: of which process, epoch and moment, and what a majority held when it began. */
  readonly #begun = new Map<
    ReplicaId,
    { readonly process: number; readonly epoch: Epoch; readonly moment: string; readonly rows: readonly Row[] }
  >();
  /** Every machine. */
  readonly #nodes: readonly SimNode[];
  /** A disk with the most seals that there ever were. */
  #ahead: MemoryDisk;
  /** Invariant 2: per slot what its writer has on disk. */
  readonly #truth = new Map<string, Truth>();
  readonly #closed = new Map<string, Digest>();
  /** Invariants 1 and 5. */
  readonly #sealed = new Map<Epoch, string>();
  readonly #cosigned = new Map<string, string>();
  /** Invariant 6: how far each node's epochs are verified. */
  readonly #verified = new Map<string, { epoch: Epoch; after: Verified | null }>();
  #bundles = 0;
  /** Invariant 7: what each replica has acknowledged. */
  readonly #metered = new Map<ReplicaId, Map<number, Epoch>>();
  readonly #revoked = new Map<ReplicaId, Set<string>>();
  /** Requests that were asked for. */
  readonly #attempted = new Map<string, number>();

  constructor(cluster: Cluster, nodes: readonly SimNode[], random: Random, mutation: Mutation | undefined) {
    this.#cluster = cluster;
    this.#nodes = nodes;
    this.#ahead = new MemoryDisk(cluster);
    this.#random = random;
    this.#mutation = mutation;
  }

  // What happens

  /** Runs a step of a core: an error there is a violation of its own. */
  guard<T>(node: SimNode, step: () => T): T {
    try {
      return step();
    } catch (error) {
      if (error instanceof Violation) throw error;
      throw new Violation(0, `${node.name} fails: ${(error as Error).stack ?? String(error)}`);
    }
  }

  /** Each seal that is not on disk keeps all contents of its epoch in memory. */
  bounded({ name, member }: SimNode): void {
    const held = member === undefined ? 0 : member.sealingStatus.epoch - member.sealingEpoch;
    demand(held <= HELD_SEALS_MAX, 0, () => `${name} holds ${held} seals that are not on its disk`);
  }

  alarm(node: SimNode, effect: MemberEffect): void {
    if (effect.type === 'alarm') {
      const { what }: { readonly what: string } = effect.alarm;
      // Of a clock that is wrong: this node's, or another's.
      if (what === 'clockAhead' || what === 'clockApart') return;
      if (what === 'overtaken' && this.registers.hasGoneBack(node.replica)) return;
      if ((what === 'retired' || what === 'banned') && this.#isOut(node)) return;
    }
    throw new Violation(0, `${node.name} says ${JSON.stringify(effect)}`);
  }

  started(node: SimNode): void {
    this.registers.started(node.replica, node.disk.run);
    for (const [ticket, epoch] of this.#metered.get(node.replica) ?? [])
      demand(node.disk.metered.get(ticket) === epoch, 7, () => `${node.name} forgot metering ${ticket} in ${epoch}`);
    this.revocations(node);
  }

  /** Whether the operator has taken the vote from a node, as it knows itself. */
  #isOut(node: SimNode): boolean {
    return ['retired', 'banned'].includes(node.member!.authority.statusOf(node.replica));
  }

  /** A disk is gone, or was replaced by an older copy of it. */
  lost({ replica, formerReplicas }: SimNode, copy: MemoryDisk | null): void {
    const rows = [...(copy?.usage.values() ?? [])];
    for (const truth of this.#truth.values()) {
      const { id } = truth;
      if (id.replica !== replica && !formerReplicas.includes(id.replica)) continue;
      truth.left = new Map(
        rows
          .filter((row) => row.replica === id.replica && row.run === id.run && row.epoch === id.epoch)
          .map((row) => {
            const key = usageKey(row.epoch, row.customer, row.sku);
            return [key, { ...row, key }];
          }),
      );
    }
    // What was acknowledged since is not on it.
    const metered = this.#metered.get(replica);
    for (const ticket of metered?.keys() ?? []) if (copy?.metered.has(ticket) !== true) metered?.delete(ticket);
  }

  /** The node does not know that its disk is an older one. */
  wentBack({ replica, name }: SimNode): void {
    this.registers.wentBack(replica);
    this.#verified.delete(name);
    this.#revoked.delete(replica);
  }

  attempted(customer: string, requests: number): void {
    this.#attempted.set(customer, (this.#attempted.get(customer) ?? 0) + requests);
  }

  metered(node: SimNode, ticket: number, epoch: Epoch): void {
    const tickets = this.#metered.get(node.replica) ?? new Map<number, Epoch>();
    this.#metered.set(node.replica, tickets.set(ticket, epoch));
    const onDisk = node.disk.metered.get(ticket);
    demand(onDisk === epoch, 7, () => `${node.name} acknowledged metering ${ticket} in ${epoch}, disk has ${onDisk}`);
  }

  changed(node: SimNode, writes: readonly Write[]): void {
    if (this.registers.hasGoneBack(node.replica)) return;
    for (const { key, value } of writes) {
      // A later write to the same key may be in the same batch.
      const written = this.registers.written('control', node.replica, key).findLast(({ says }) => says === value);
      const onDisk = node.disk.control.get(`${node.replica}/${key}`)?.version ?? 0;
      const isKept = written !== undefined && onDisk >= written.version;
      demand(isKept, 7, () => `${node.name} acknowledged ${key} = ${value}, which is not on disk`);
      const id = /^fact\/key-revoked\/(.*)$/.exec(key)?.[1];
      if (id !== undefined) this.#revoked.set(node.replica, (this.#revoked.get(node.replica) ?? new Set()).add(id));
    }
    this.revocations(node);
  }

  cosigned(replica: ReplicaId, message: Uint8Array): void {
    const [, , origin, size, root] = new TextDecoder().decode(message).split('\n');
    const name = `${origin} ${size}`;
    const before = this.#cosigned.get(name);
    demand(
      before === undefined || before === root,
      5,
      () => `${name}: ${replica} cosigns ${root}, before it was ${before}`,
    );
    this.#cosigned.set(name, root!);
  }

  written(node: SimNode, batch: Batch): void {
    const own = batch.control.filter(({ replica }) => replica === node.replica);
    for (const row of own) this.#writtenControl(node, row);
    for (const { replica, run, epoch, customer, sku, version, usage } of batch.usage) {
      // Its earlier runs write no more: what it has of them may have come back from others.
      if (replica !== node.replica || run !== node.disk.run) continue;
      const row: UsageRow = { key: usageKey(epoch, customer, sku), version, epoch, customer, sku, usage };
      this.#writtenUsage({ replica, run, epoch }, row);
    }
    // After the rows of the batch: a close is over before any of them.
    for (const { key, value } of own) if (key.startsWith('close/')) this.#close(value);
    if (batch.seal !== null) this.#seal(node, node.disk.seals.at(-1)!);
  }

  #writtenControl(node: SimNode, { key, version, value }: ControlRegister): void {
    // Whose disk went back unnoticed may write other things under the versions that it lost; as a voter it counts all the same.
    if (!this.registers.hasGoneBack(node.replica)) {
      const isOnce = /^(close|seal)\//.test(key);
      const [before] = isOnce ? this.registers.written('control', node.replica, key) : [];
      demand(before === undefined, 7, () => `${node.name} says ${key} twice: ${before?.says}, then ${value}`);
      this.registers.record('control', node.replica, { key, version, says: value });
    }
    if (!key.startsWith('ballot/')) return;
    const epoch = Number(key.slice('ballot/'.length));
    const begun = this.#begun.get(node.replica);
    this.#begun.delete(node.replica);
    this.#votes.wrote(epoch, node.replica, parseBallotState(JSON.parse(value) as never), () =>
      begun !== undefined && begun.process === node.process && begun.epoch === epoch
        ? begun.rows
        : this.#heldByMajority(epoch),
    );
  }

  /**
   * A node computes its frontier in another thread: what comes while it does is not in it. It may do so for a while, one slot after
   * the other; what was held at the beginning is in all of them.
   */
  computes(node: SimNode, name: string): void {
    const epoch = /^frontier ([0-9]+) /.exec(name)?.[1];
    const begun = this.#begun.get(node.replica);
    if (epoch === undefined) return;
    if (begun?.process === node.process && name.startsWith(begun.moment)) return;
    const moment = name.slice(0, name.indexOf(':') + 1);
    const rows = this.#heldByMajority(Number(epoch));
    this.#begun.set(node.replica, { process: node.process, epoch: Number(epoch), moment, rows });
  }

  #heldByMajority(epoch: Epoch): Row[] {
    const { chain, seals } = this.#ahead;
    const roster = chain.epoch === epoch ? chain.roster : seals[epoch]?.sealed.roster;
    if (roster === undefined) return [];
    const disks = this.#nodes.filter(({ replica }) => roster.some((entry) => entry.replica === replica));
    return heldBy(
      disks.map(({ disk }) => disk),
      quorumOf(roster),
      epoch,
    );
  }

  #writtenUsage(id: SlotId, row: UsageRow): void {
    this.registers.record('usage', usageWriter(id.replica, id.run), {
      key: row.key,
      version: row.version,
      says: JSON.stringify(row.usage),
    });
    const name = slotName(id);
    demand(!this.#closed.has(name), 2, () => `${name} grows after its close`);
    const slot: Truth = this.#truth.get(name) ?? { id, rows: new Map() };
    this.#truth.set(name, slot);
    const before = slot.rows.get(row.key)?.usage ?? ZERO_USAGE;
    demand(atLeast(row.usage, before), 2, () => `${row.key} of ${name} goes back`);
    slot.rows.set(row.key, row);
  }

  #close(value: string): void {
    const close = parseClose(JSON.parse(value) as never);
    const name = slotName(close);
    demand(!this.#closed.has(name), 2, () => `${name} is closed twice`);
    this.#closed.set(name, close.slot);
    const truth = digestOf(cheapCrypto, encodeSlot(this.#slot(name)));
    demand(close.slot === truth, 2, () => `${name} is closed as ${close.slot}, its content is ${truth}`);
    this.#votes.closed(close.epoch, close.replica, this.#writtenBy(close.replica, close.epoch));
  }

  /**
   * What a replica has acknowledged in the slot that it closes now, and in earlier ones that no close speaks for and no seal has
   * counted in part. (An earlier close that the seal of its epoch left out, and the rest of what was counted in part, may come in a
   * later seal: they are reported when that seal is known, and what it counted was read.)
   */
  #writtenBy(replica: ReplicaId, epoch: Epoch): Row[] {
    const { chain } = this.#ahead;
    return [...this.#truth.entries()]
      .filter(([, { id }]) => id.replica === replica && id.epoch <= epoch && !isCountedClosed(chain, id))
      .filter(([name, { id }]) => id.epoch === epoch || !this.#closed.has(name))
      .filter(([name]) => !chain.counted.has(name))
      .flatMap(([, { id, rows, left }]) =>
        [...(left ?? rows).values()].map(({ key, usage }) => ({ writer: usageWriter(id.replica, id.run), key, usage })),
      );
  }

  #slot(name: string): Slot {
    return sortRows(this.#truth.get(name)?.rows.values() ?? []).map(({ customer, sku, usage }) => ({
      customer,
      sku,
      usage,
    }));
  }

  // Seals

  #seal(node: SimNode, record: SealedRecord): void {
    const { epoch, root, value, treeSize } = record.sealed;
    if (node.disk.chain.epoch > this.#ahead.chain.epoch) this.#ahead = node.disk;
    const said = [hex.encode(root), treeSize, new TextDecoder().decode(value.header)].join('\n');
    const before = this.#sealed.get(epoch) ?? said;
    this.#sealed.set(epoch, before);
    demand(said === before, 1, () => `${node.name} sealed epoch ${epoch} as\n${said}\nand someone else as\n${before}`);
    this.#slotsAreTrue(record);
    this.#countsWhatIsDue(node, record);
    this.#recomputes(node, record);
  }

  /** Invariants 1 and 4. */
  #countsWhatIsDue(node: SimNode, { sealed: { epoch, value, roster } }: SealedRecord): void {
    const header = digestOf(cheapCrypto, value.header);
    const isChosen = this.#votes.isChosen(epoch, header, roster);
    demand(isChosen, 1, () => `${node.name} sealed epoch ${epoch} as ${header}, which no majority accepted`);
    const { ballot, rows } = this.#votes.due(epoch, header, roster);
    for (const row of rows)
      demand(
        this.#counted.has(node.disk, row),
        4,
        () => `the seal of ${epoch}, ballot ${ballot.round}, lacks ${row.key} of ${row.writer}: ${row.usage.requests}`,
      );
  }

  /** Invariant 2. */
  #slotsAreTrue({ sealed }: SealedRecord): void {
    const contents = new Map(sealed.outcome.slots.map(({ id, content }) => [slotName(id), content]));
    for (const entry of sealed.value.slotList) {
      const name = slotName(entry);
      const truth = this.#truth.get(name)?.rows;
      for (const { customer, sku, usage } of parseSlot(contents.get(name)!)) {
        const written = truth?.get(usageKey(entry.epoch, customer, sku))?.usage ?? ZERO_USAGE;
        demand(atLeast(written, usage), 2, () => `${name} has more of ${customer} ${sku} than was written`);
      }
      const closed = this.#closed.get(name);
      demand(
        !entry.closed || entry.digest === closed,
        2,
        () => `${name} is sealed as ${entry.digest}, closed as ${closed}`,
      );
    }
  }

  /** Invariants 6 and 9. */
  #recomputes(node: SimNode, record: SealedRecord): void {
    const { epoch } = record.sealed;
    const at = this.#verified.get(node.name) ?? { epoch: 0, after: null };
    this.#verified.set(node.name, at);
    // Epochs that it took from others are verified with the first one after them.
    for (const each of node.disk.seals.slice(at.epoch, epoch + 1)) {
      const bundle = this.#bundleOf(node, each);
      try {
        at.after = verifyBundle(bundle, at.after, this.#cluster.id, cheapCrypto).verified;
      } catch (error) {
        throw new Violation(6, `epoch ${each.sealed.epoch} of ${node.name}: ${(error as Error).message}`);
      }
    }
    at.epoch = epoch + 1;
    if (++this.#bundles % FLIPS === 0) this.#changesAreFound(node, record);
  }

  #bundleOf(node: SimNode, record: SealedRecord): ReturnType<typeof bundleOf> {
    try {
      return bundleOf(this.#cluster, node.disk, record);
    } catch (error) {
      throw new Violation(6, `epoch ${record.sealed.epoch} of ${node.name}: ${(error as Error).message}`);
    }
  }

  #changesAreFound(node: SimNode, record: SealedRecord): void {
    const archive = packBundle(record.sealed.epoch, bundleOf(this.#cluster, node.disk, record));
    const at = this.#random.below(archive.length);
    archive[at]! ^= 1 + this.#random.below(255);
    let found = false;
    try {
      if (this.#mutation !== 'believeAnything')
        verifyBundle(unpackBundle(archive), null, this.#cluster.id, cheapCrypto);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      found = true;
    }
    demand(found, 9, () => `byte ${at} of the bundle of epoch ${record.sealed.epoch} may be anything`);
  }

  // At any time

  /** Invariant 10. */
  revocations(node: SimNode): void {
    for (const id of [...node.view.revoked, ...(this.#revoked.get(node.replica) ?? [])])
      demand(!node.view.isUsable(id), 10, () => `${node.name} would serve ${id}`);
  }

  // At the end

  /** Invariant 3: each customer's requests, sealed ones and others, are those that the disks that were not lost have ever held. */
  conserved(node: SimNode): void {
    const sealed = new Map<string, Usage>();
    for (const { sealed: each } of node.disk.seals)
      for (const { customer, bytes } of unpackStatements(each.outcome.statements)) {
        const { usage } = JSON.parse(fromUtf8(bytes)) as { usage: Record<string, Usage> };
        const usages = Object.values(usage);
        sealed.set(customer, usages.reduce(addUsage, sealed.get(customer) ?? ZERO_USAGE));
      }
    const { unsealed } = node.member!;
    for (const [customer, attempted] of this.#attempted) {
      const open = unsealed.epochs().map((epoch) => unsealed.usage(epoch, customer as CustomerId));
      const counted = open.reduce(addUsage, sealed.get(customer) ?? ZERO_USAGE);
      const [least, most] = [this.#truthOf(customer, false), this.#truthOf(customer, true)];
      const says = (): string =>
        `${customer} at ${node.name}: counted ${counted.requests}, written ${least.requests} to ${most.requests}`;
      demand(atLeast(counted, least) && atLeast(most, counted), 3, says);
      demand(counted.requests <= attempted * 'requests'.length, 3, () => `${says()}, asked for ${attempted}`);
    }
  }

  #truthOf(customer: string, withLost: boolean): Usage {
    return [...this.#truth.values()]
      .flatMap(({ rows, left }) => [...(withLost ? rows : (left ?? rows)).values()])
      .filter((row) => row.customer === (customer as CustomerId))
      .reduce((sum, { usage }) => addUsage(sum, usage), ZERO_USAGE);
  }

  /** A disk with the most seals that there ever were. */
  get ahead(): MemoryDisk {
    return this.#ahead;
  }

  /** What it comes to, for people. */
  summary(node: SimNode): string {
    const metered = [...this.#metered.values()].reduce((sum, { size }) => sum + size, 0);
    const late = node.disk.seals.flatMap(({ sealed }) =>
      sealed.value.slotList.filter(({ epoch }) => epoch < sealed.epoch),
    );
    const requests = sealedUsage(node.disk.seals).requests / 'requests'.length;
    return `${node.disk.seals.length} epochs sealed, ${metered} meterings acknowledged, ${requests} requests sealed, ${late.length} late slots`;
  }
}
