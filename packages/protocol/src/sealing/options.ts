import type { Crypto, Digest, Epoch, Random, ReplicaId, Run, Signer } from '../base/index.ts';
import type { TileEdge } from '../transparency/index.ts';
import type { NextRoster, ProvenFacts } from './compose.ts';
import type { HeldSlot } from './effects.ts';
import type { Cluster } from './roster.ts';
import type { SealingRules } from './rules.ts';
import type { ChainState } from './value.ts';

/** What sealing is told at its start, and asks when it closes a slot. */
export interface SealingOptions {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly crypto: Crypto;
  readonly random: Random;
  /** Signs as the log (type 0x01) and as cosigner (type 0x04). */
  readonly logSigner: Signer;
  readonly cosigner: Signer;
  /** Every slot of which registers are held, up to an epoch. Rows that a seal has counted may still be among them. */
  readonly slotsUpTo: (epoch: Epoch) => Iterable<HeldSlot>;
  /** The roster facts held: what a close pins of them. */
  readonly facts: () => { readonly bytes: Uint8Array; readonly digest: Digest };
  readonly nextRoster: NextRoster;
  readonly provenFacts: ProvenFacts;
  readonly chain: ChainState;
  readonly edge: TileEdge;
  /** Contents that the chain has counted (`ChainState.counted`) and that are not on disk. */
  readonly lacking?: Iterable<Digest> | undefined;
  /** The epoch that is open if no close of this replica says otherwise. */
  readonly firstEpoch: Epoch;
  /** Whether the disk takes nothing now, or many seals wait for it: no more are made, nor closes far ahead of them. `tick` when that is over. */
  readonly isHeldUp?: () => boolean;
  /** Wrong ones, to see that tests find them. */
  readonly rules?: Partial<SealingRules>;
  /** Jobs that read more bytes than that are not done at once; tests set it. */
  readonly inlineBytes?: number | undefined;
}
