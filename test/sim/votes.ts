import { present, type Digest, type Epoch, type ReplicaId } from '../../packages/protocol/src/base/index.ts';
import { usageKey, usageWriter } from '../../packages/protocol/src/lattice/index.ts';
import {
  compareBallots,
  quorumOf,
  type Ballot,
  type BallotState,
  type Roster,
} from '../../packages/protocol/src/sealing/index.ts';
import type { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';
import type { Row } from './counted.ts';

/** A value that was proposed at a ballot, and who has ever accepted it there. */
interface Proposal {
  readonly ballot: Ballot;
  readonly value: Digest;
  readonly by: Set<ReplicaId>;
}

const nameOf = (epoch: Epoch, { round, replica }: Ballot): string => `${epoch} ${round} ${replica}`;

/**
 * Invariant 4: what the seal of an epoch must count, by how it was decided. At ballot 0 all that each roster member had
 * acknowledged when it closed; else what a majority had on disk when the ballot was prepared at which the value was proposed for
 * the first time: from there on it was only repeated.
 */
export class Votes {
  readonly #proposals = new Map<Epoch, Map<string, Proposal>>();
  readonly #closed = new Map<Epoch, Map<ReplicaId, readonly Row[]>>();
  readonly #prepared = new Map<string, readonly Row[]>();

  /** A replica has written its close, and had acknowledged so much. */
  closed(epoch: Epoch, replica: ReplicaId, rows: readonly Row[]): void {
    const closes = this.#closed.get(epoch) ?? new Map<ReplicaId, readonly Row[]>();
    this.#closed.set(epoch, closes.set(replica, rows));
  }

  /** A replica has written its ballot register. `held` says what a majority has on disk. */
  wrote(epoch: Epoch, replica: ReplicaId, { promised, accepted }: BallotState, held: () => readonly Row[]): void {
    const name = nameOf(epoch, promised);
    if (promised.round > 0 && !this.#prepared.has(name)) this.#prepared.set(name, held());
    if (accepted === null) return;
    const proposals = this.#proposals.get(epoch) ?? new Map<string, Proposal>();
    this.#proposals.set(epoch, proposals);
    const id = `${nameOf(epoch, accepted.ballot)} ${accepted.value}`;
    const proposal = proposals.get(id) ?? { ...accepted, by: new Set() };
    proposals.set(id, proposal);
    proposal.by.add(replica);
  }

  /** Whether a majority accepted a value at one ballot. */
  isChosen(epoch: Epoch, value: Digest, roster: Roster): boolean {
    return this.#of(epoch, value).some(
      ({ by }) => roster.filter(({ replica }) => by.has(replica)).length >= quorumOf(roster),
    );
  }

  /** The ballot at which the value was proposed for the first time, and what its seal must count. */
  due(epoch: Epoch, value: Digest, roster: Roster): { readonly ballot: Ballot; readonly rows: readonly Row[] } {
    const [first] = this.#of(epoch, value).sort((a, b) => compareBallots(a.ballot, b.ballot));
    const { ballot } = present(first, `a proposal of ${value}`);
    if (ballot.round > 0) return { ballot, rows: this.#prepared.get(nameOf(epoch, ballot)) ?? [] };
    const closes = this.#closed.get(epoch);
    return { ballot, rows: roster.flatMap(({ replica }) => closes?.get(replica) ?? []) };
  }

  #of(epoch: Epoch, value: Digest): Proposal[] {
    return [...(this.#proposals.get(epoch)?.values() ?? [])].filter((proposal) => proposal.value === value);
  }
}

/** What at least so many of these disks have of the usage up to an epoch, row by row. */
export function heldBy(disks: readonly MemoryDisk[], least: number, epoch: Epoch): Row[] {
  const held = new Map<string, (Row & { readonly version: number })[]>();
  for (const disk of disks)
    for (const { replica, run, epoch: since, customer, sku, version, usage } of disk.usage.values()) {
      const row = { writer: usageWriter(replica, run), key: usageKey(since, customer, sku), version, usage };
      if (since > epoch) continue;
      const name = `${row.writer} ${row.key}`;
      const rows = held.get(name) ?? [];
      held.set(name, rows);
      rows.push(row);
    }
  return [...held.values()].flatMap((rows) => rows.sort((a, b) => b.version - a.version)[least - 1] ?? []);
}
