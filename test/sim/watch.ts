import { verifyBundle, packBundle, unpackBundle, type Verified } from '../../packages/protocol/src/audit/index.ts';
import {
  digestOf,
  hex,
  present,
  WaggleError,
  type CustomerId,
  type Digest,
  type Epoch,
  type Random,
  type ReplicaId,
} from '../../packages/protocol/src/base/index.ts';
import {
  addUsage,
  atLeast,
  parseUsageWriter,
  usageKey,
  usageWriter,
  ZERO_USAGE,
} from '../../packages/protocol/src/lattice/index.ts';
import type { ControlRegister, Usage, UsageRow, WriterId } from '../../packages/protocol/src/lattice/index.ts';
import type { Batch, MemberEffect, Write } from '../../packages/protocol/src/member/index.ts';
import { isCountedClosed, parseClose, type Cluster } from '../../packages/protocol/src/sealing/index.ts';
import {
  encodeSlot,
  parseSlot,
  slotName,
  sortRows,
  type Slot,
  type SlotId,
} from '../../packages/protocol/src/usage/index.ts';
import { bundleOf } from '../../packages/protocol/test/member/bundle.ts';
import type { SealedRecord } from '../../packages/protocol/test/member/disk.ts';
import { cheapCrypto, sealedUsage } from '../../packages/protocol/test/member/harness.ts';
import type { SimNode } from './node.ts';
import type { Mutation } from './options.ts';
import { demand, Violation } from './violation.ts';

/** A register as its writer wrote it. */
interface Written {
  readonly key: string;
  readonly version: number;
  /** What it says, to be compared. */
  readonly says: string;
}

/** Sealed epochs whose registers are still shown. */
const KEPT_EPOCHS = 8;
/** One in so many bundles is checked against a change of one byte. */
const FLIPS = 8;

/**
 * All that is true of a simulation, as an onlooker knows it who sees every disk: what was acknowledged, what each writer wrote,
 * what was sealed. Its methods throw `Violation` when a node contradicts it.
 */
export class Watch {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #mutation: Mutation | undefined;
  /** Invariants 7 and 12: per writer what it wrote, by version. */
  readonly #written = { control: new Map<string, Written[]>(), usage: new Map<string, Written[]>() };
  /** Invariant 2: per slot what its writer has on disk. */
  readonly #truth = new Map<string, { readonly id: SlotId; readonly rows: Map<string, UsageRow> }>();
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
  readonly #lost = new Set<ReplicaId>();
  /** Invariant 12: the vectors last seen of each process. */
  readonly #vectors = new Map<string, ReadonlyMap<string, number>>();
  readonly #contents = new Map<string, ReadonlyMap<string, Usage>>();

  constructor(cluster: Cluster, random: Random, mutation: Mutation | undefined) {
    this.#cluster = cluster;
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

  alarm(node: SimNode, effect: MemberEffect): void {
    if (effect.type === 'alarm' && effect.alarm.what === 'clockAhead') return;
    throw new Violation(0, `${node.name} says ${JSON.stringify(effect)}`);
  }

  started(node: SimNode): void {
    for (const [ticket, epoch] of this.#metered.get(node.replica) ?? [])
      demand(node.disk.metered.get(ticket) === epoch, 7, () => `${node.name} forgot metering ${ticket} in ${epoch}`);
    this.revocations(node);
  }

  lost(node: SimNode): void {
    this.#lost.add(node.replica);
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
    for (const { key, value } of writes) {
      // A later write to the same key may be in the same batch.
      const written = this.#written.control
        .get(node.replica)
        ?.findLast((each) => each.key === key && each.says === value);
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
    for (const row of batch.control) if (row.replica === node.replica) this.#writtenControl(node, row);
    for (const { replica, run, epoch, customer, sku, version, usage } of batch.usage) {
      // Its earlier runs write no more: what it has of them may have come back from others.
      if (replica !== node.replica || run !== node.disk.run) continue;
      const row: UsageRow = { key: usageKey(epoch, customer, sku), version, epoch, customer, sku, usage };
      this.#writtenUsage({ replica, run, epoch }, row);
    }
    // After the rows of the batch: a close is over before any of them.
    for (const { replica, key, value } of batch.control)
      if (replica === node.replica && key.startsWith('close/')) this.#close(value);
    if (batch.seal !== null) this.#seal(node, node.disk.seals.at(-1)!);
  }

  #writtenControl(node: SimNode, { key, version, value }: ControlRegister): void {
    const isOnce = /^(close|seal)\//.test(key);
    const before = isOnce ? this.#written.control.get(node.replica)?.find((each) => each.key === key) : undefined;
    demand(before === undefined, 7, () => `${node.name} says ${key} twice: ${before?.says}, then ${value}`);
    this.#record('control', node.replica, { key, version, says: value });
  }

  #writtenUsage(id: SlotId, row: UsageRow): void {
    this.#record('usage', usageWriter(id.replica, id.run), {
      key: row.key,
      version: row.version,
      says: JSON.stringify(row.usage),
    });
    const name = slotName(id);
    demand(!this.#closed.has(name), 2, () => `${name} grows after its close`);
    const slot = this.#truth.get(name) ?? { id, rows: new Map<string, UsageRow>() };
    this.#truth.set(name, slot);
    const before = slot.rows.get(row.key)?.usage ?? ZERO_USAGE;
    demand(atLeast(row.usage, before), 2, () => `${row.key} of ${name} goes back`);
    slot.rows.set(row.key, row);
  }

  #record(name: 'control' | 'usage', writer: string, register: Written): void {
    const written = this.#written[name].get(writer) ?? [];
    this.#written[name].set(writer, written);
    demand(
      register.version === written.length + 1,
      7,
      () => `${writer} writes ${register.key} as version ${register.version} after ${written.length}`,
    );
    written.push(register);
  }

  #close(value: string): void {
    const close = parseClose(JSON.parse(value) as never);
    const name = slotName(close);
    demand(!this.#closed.has(name), 2, () => `${name} is closed twice`);
    this.#closed.set(name, close.slot);
    const truth = digestOf(cheapCrypto, encodeSlot(this.#slot(name)));
    demand(close.slot === truth, 2, () => `${name} is closed as ${close.slot}, its content is ${truth}`);
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
    const { epoch, root, value, treeSize, checkpoint } = record.sealed;
    const said = [hex.encode(root), treeSize, checkpoint, new TextDecoder().decode(value.header)].join('\n');
    const before = this.#sealed.get(epoch) ?? said;
    this.#sealed.set(epoch, before);
    demand(said === before, 1, () => `${node.name} sealed epoch ${epoch} as\n${said}\nand someone else as\n${before}`);
    this.#slotsAreTrue(record);
    this.#recomputes(node, record);
  }

  /** Invariant 2. */
  #slotsAreTrue({ sealed }: SealedRecord): void {
    const contents = new Map(sealed.outcome.slots.map(({ id, content }) => [slotName(id), content]));
    for (const entry of sealed.value.slotList) {
      const name = slotName(entry);
      const truth = this.#truth.get(name)?.rows;
      for (const { customer, sku, usage } of contents.get(name)!) {
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

  /** Invariant 12. */
  vectors(node: SimNode, ahead: SimNode): void {
    const { control, usage } = node.member!.registers;
    const process = `${node.name} ${node.process}`;
    const now = new Map<string, number>([...control.vector(), ...usage.vector()]);
    for (const [writer, upTo] of this.#vectors.get(process) ?? [])
      demand((now.get(writer) ?? 0) >= upTo, 12, () => `${process}: ${writer} went back from ${upTo}`);
    this.#vectors.set(process, now);
    // Dropped by those who hold the seal, never to come to those who do not yet.
    const { chain } = ahead.disk;
    for (const [writer, upTo] of control.vector())
      this.#isHeld(
        process,
        'control',
        writer,
        upTo,
        (key) => control.get(writer, key)?.version,
        (written) => isExpired(written.key, chain.epoch),
      );
    for (const [writer, upTo] of usage.vector())
      this.#isHeld(
        process,
        'usage',
        writer,
        upTo,
        (key) => usage.get(writer, key)?.version,
        (written) => this.#isCounted(ahead, writer, written),
      );
  }

  #isHeld(
    process: string,
    name: 'control' | 'usage',
    writer: string,
    upTo: number,
    held: (key: string) => number | undefined,
    mayBeGone: (written: Written) => boolean,
  ): void {
    const written = this.#written[name].get(writer) ?? [];
    demand(upTo <= written.length, 12, () => `${process} claims ${upTo} of ${writer}, who wrote ${written.length}`);
    const newest = new Map(written.map((register) => [register.key, register]));
    for (const register of written.slice(0, upTo)) {
      if (newest.get(register.key) !== register) continue;
      const isHeld = (held(register.key) ?? 0) >= register.version;
      demand(
        isHeld || mayBeGone(register),
        12,
        () => `${process} claims ${upTo} of ${writer} and lacks ${register.key}`,
      );
    }
  }

  /** Whether a seal counts what was written; `ahead` is the node with the most seals on disk. */
  #isCounted(ahead: SimNode, writer: WriterId, { key, says }: Written): boolean {
    const { chain } = ahead.disk;
    const id = { ...parseUsageWriter(writer), epoch: Number(key.slice(0, key.indexOf('/'))) };
    if (isCountedClosed(chain, id)) return true;
    const digest = chain.counted.get(slotName(id));
    const counted = digest === undefined ? undefined : this.#content(ahead, digest, id.epoch).get(key);
    return counted !== undefined && atLeast(counted, JSON.parse(says) as Usage);
  }

  #content(node: SimNode, digest: Digest, epoch: Epoch): ReadonlyMap<string, Usage> {
    // Two slots of two epochs may have one content.
    const name = `${digest} ${epoch}`;
    let content = this.#contents.get(name);
    if (content === undefined) {
      const rows = parseSlot(present(node.disk.content(digest), `content ${digest}`));
      content = new Map(rows.map(({ customer, sku, usage }) => [usageKey(epoch, customer, sku), usage]));
      this.#contents.set(name, content);
    }
    return content;
  }

  /** Invariant 11. */
  equals(a: SimNode, b: SimNode, ahead: SimNode): void {
    const [left, right] = [a.member!.registers, b.member!.registers];
    if (left.control.digest(cheapCrypto) === right.control.digest(cheapCrypto)) {
      const sealing = ahead.disk.chain.epoch;
      const dump = (node: SimNode): string =>
        dumpOf(
          node.member!.registers.control,
          ({ key }) => !isExpired(key, sealing),
          ({ value }) => value,
        );
      demand(dump(a) === dump(b), 11, () => difference(`control of ${a.name} and ${b.name}`, dump(a), dump(b)));
      if (a.view.quarantined + b.view.quarantined === 0)
        demand(
          a.view.dump() === b.view.dump(),
          11,
          () => `views of ${a.name} and ${b.name}: ${a.view.dump()} ${b.view.dump()}`,
        );
    }
    if (left.usage.digest(cheapCrypto) !== right.usage.digest(cheapCrypto)) return;
    const dump = (node: SimNode): string =>
      dumpOf(
        node.member!.registers.usage,
        (row, writer) => !this.#isCounted(ahead, writer, { ...row, says: JSON.stringify(row.usage) }),
        ({ usage }) => JSON.stringify(usage),
      );
    demand(dump(a) === dump(b), 11, () => difference(`usage of ${a.name} and ${b.name}`, dump(a), dump(b)));
  }

  // At the end

  /** Invariant 3: each customer's requests, sealed ones and others, are those that the disks that were not lost have ever held. */
  conserved(node: SimNode): void {
    const sealed = new Map<string, Usage>();
    for (const { sealed: each } of node.disk.seals)
      for (const { customer, text } of each.outcome.statements) {
        const usages = Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage);
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
      .filter(({ id }) => withLost || !this.#lost.has(id.replica))
      .flatMap(({ rows }) => [...rows.values()])
      .filter((row) => row.customer === (customer as CustomerId))
      .reduce((sum, { usage }) => addUsage(sum, usage), ZERO_USAGE);
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

function isExpired(key: string, sealingEpoch: Epoch): boolean {
  const epoch = /^(?:close|ballot|seal)\/([0-9]+)$/.exec(key)?.[1];
  return epoch !== undefined && Number(epoch) < sealingEpoch - KEPT_EPOCHS;
}

function dumpOf<R extends { readonly key: string; readonly version: number }, W extends string>(
  registers: { writers(): W[]; of(writer: W): Iterable<R> },
  isKept: (register: R, writer: W) => boolean,
  says: (register: R) => string,
): string {
  return registers
    .writers()
    .flatMap((writer) =>
      [...registers.of(writer)]
        .filter((register) => isKept(register, writer))
        .sort((a, b) => a.version - b.version)
        .map((register) => `${writer} ${register.version} ${register.key} ${says(register)}`),
    )
    .join('\n');
}

/** The first lines that two texts do not share. */
function difference(what: string, a: string, b: string): string {
  const [left, right] = [a.split('\n'), b.split('\n')];
  const only = (lines: readonly string[], others: readonly string[]): string =>
    lines
      .filter((line) => !others.includes(line))
      .slice(0, 3)
      .join('; ');
  return `${what}: only the one has ${only(left, right)}; only the other has ${only(right, left)}`;
}
