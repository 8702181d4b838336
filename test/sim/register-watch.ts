import type { Epoch, ReplicaId } from '../../packages/protocol/src/base/index.ts';
import { parseUsageWriter, type Usage, type WriterId } from '../../packages/protocol/src/lattice/index.ts';
import type { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';
import { cheapCrypto } from '../../packages/protocol/test/member/harness.ts';
import type { Counted } from './counted.ts';
import type { SimNode } from './node.ts';
import { demand } from './violation.ts';

/** A register as its writer wrote it. */
interface Written {
  readonly key: string;
  readonly version: number;
  /** What it says, to be compared. */
  readonly says: string;
}

/** Sealed epochs whose registers are still shown. */
const KEPT_EPOCHS = 8;

/** What each writer wrote, by version, and what nodes claim and hold of it: invariants 7, 11 and 12. */
export class RegisterWatch {
  readonly #counted: Counted;
  readonly #written = { control: new Map<string, Written[]>(), usage: new Map<string, Written[]>() };
  /** Replicas whose disk went back: what they write again into control registers is not for others to see. */
  readonly #wentBack = new Set<ReplicaId>();
  /** The last run of each replica. */
  readonly #runs = new Map<ReplicaId, number>();
  /** The vectors last seen of each process. */
  readonly #vectors = new Map<string, ReadonlyMap<string, number>>();

  constructor(counted: Counted) {
    this.#counted = counted;
  }

  wentBack(replica: ReplicaId): void {
    this.#wentBack.add(replica);
  }

  hasGoneBack(replica: ReplicaId): boolean {
    return this.#wentBack.has(replica);
  }

  started(replica: ReplicaId, run: number): void {
    this.#runs.set(replica, run);
  }

  /** What a writer has written under a key, in order. */
  written(name: 'control' | 'usage', writer: string, key: string): readonly Written[] {
    return (this.#written[name].get(writer) ?? []).filter((register) => register.key === key);
  }

  /** Invariant 7: no version is ever given to two values, and none is left out. */
  record(name: 'control' | 'usage', writer: string, register: Written): void {
    const written = this.#written[name].get(writer) ?? [];
    this.#written[name].set(writer, written);
    demand(
      register.version === written.length + 1,
      7,
      () => `${writer} writes ${register.key} as version ${register.version} after ${written.length}`,
    );
    written.push(register);
  }

  /** Invariant 12. */
  vectors(node: SimNode, ahead: MemoryDisk): void {
    const { control, usage } = node.member!.registers;
    const process = `${node.name} ${node.process}`;
    const now = new Map<string, number>([...control.vector(), ...usage.vector()]);
    for (const [writer, upTo] of this.#vectors.get(process) ?? [])
      demand(
        (now.get(writer) ?? 0) >= upTo || this.#isForgotten(ahead, writer, upTo),
        12,
        () => `${process}: ${writer} went back from ${upTo}`,
      );
    this.#vectors.set(process, now);
    // Dropped by those who hold the seal, never to come to those who do not yet.
    const { chain } = ahead;
    for (const [writer, upTo] of control.vector())
      if (!this.#wentBack.has(writer))
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

  /** Whether a writer may leave the vectors: a run with a successor, of which all is counted. */
  #isForgotten(ahead: MemoryDisk, writer: string, upTo: number): boolean {
    // What was written beyond is not held here: it brings the run back when it comes.
    const written = this.#written.usage.get(writer)?.slice(0, upTo);
    if (written === undefined) return false;
    const { replica, run } = parseUsageWriter(writer);
    const newest = new Map(written.map((register) => [register.key, register]));
    return (
      run < (this.#runs.get(replica) ?? run) &&
      [...newest.values()].every((register) => this.#isCounted(ahead, writer as WriterId, register))
    );
  }

  /** Whether a seal on disk `ahead` counts what was written. */
  #isCounted(ahead: MemoryDisk, writer: WriterId, { key, says }: Pick<Written, 'key' | 'says'>): boolean {
    return this.#counted.has(ahead, { writer, key, usage: JSON.parse(says) as Usage });
  }

  /** Invariant 11. */
  equals(a: SimNode, b: SimNode, ahead: MemoryDisk): void {
    const [left, right] = [a.member!.registers, b.member!.registers];
    if (left.control.digest(cheapCrypto) === right.control.digest(cheapCrypto)) {
      const sealing = ahead.chain.epoch;
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
}

function isExpired(key: string, sealingEpoch: Epoch): boolean {
  const epoch = /^(?:close|ballot|seal)\/([0-9]+)$/.exec(key)?.[1];
  return epoch !== undefined && Number(epoch) < sealingEpoch - KEPT_EPOCHS;
}

function dumpOf<R extends { readonly key: string; readonly version: number }, W extends string>(
  registers: { writers(): readonly W[]; of(writer: W): Iterable<R> },
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
