import {
  base64,
  digestOf,
  present,
  seededRandom,
  type Digest,
  type ReplicaId,
  type Run,
} from '../../src/base/index.ts';
import type { Bundle } from '../../src/audit/index.ts';
import {
  chainStart,
  clusterOf,
  compute,
  Sealing,
  signSuccessor,
  type Cluster,
  type Genesis,
  type HeldSlot,
  type Predecessor,
  type SealingEffect,
} from '../../src/sealing/index.ts';
import { EMPTY_EDGE } from '../../src/transparency/index.ts';
import { covers, parseSlot, slotName } from '../../src/usage/index.ts';
import type { SealedRecord, TestCluster } from '../sealing/harness.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { bundleOf, holding } from '../member/bundle.ts';

const operator = testSigner('operator');
const keys = { log: testSigner('new log'), cosigner: testSigner('new cosigner') };
/** The one voter of the successor. */
export const founder = {
  replica: 'f'.repeat(32) as ReplicaId,
  transportKey: base64.encode(testSigner('new transport').publicKey),
  logKey: base64.encode(keys.log.publicKey),
  cosignerKey: base64.encode(keys.cosigner.publicKey),
};

/** The genesis of a successor as the operator makes it of what its first node has on its disk, or with another word in it. */
export function successorOf(
  lost: TestCluster,
  changed: Partial<Predecessor> = {},
  of: Partial<Genesis> = {},
  signer = operator,
): Genesis {
  const { disk } = lost.nodes[0]!;
  const { chain } = disk;
  const { sealed } = present(disk.sealed.at(-1), 'a sealed epoch');
  const sorted = <K extends string, T>(map: ReadonlyMap<K, T>): [K, T][] =>
    [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  const predecessor = {
    cluster: lost.cluster.id,
    epoch: chain.epoch,
    previous: chain.previous,
    format: chain.format,
    checkpoint: sealed.checkpoint,
    roster: sealed.roster,
    counted: sorted(chain.counted),
    closed: sorted(chain.closed),
    writers: lost.cluster.genesis.roster.map(({ replica, transportKey }) => ({
      replica,
      transportKey,
      cluster: lost.cluster.id,
    })),
    reason: 'The building burned down.',
    ...changed,
  };
  return signSuccessor({ ...lost.cluster.genesis, roster: [founder], ...of }, predecessor, signer);
}

/** Founds the successor, and seals some epochs of it with one voter over what the first node of the lost cluster holds. */
export function succeed(
  lost: TestCluster,
  count: number,
): { readonly cluster: Cluster; readonly records: readonly SealedRecord[]; readonly bundles: readonly Bundle[] } {
  const cluster = clusterOf(successorOf(lost), nodeCrypto);
  const { disk } = lost.nodes[0]!;
  const contents = new Map<Digest, Uint8Array>(disk.contents);
  const slots = new Map(disk.slots);
  const records: SealedRecord[] = [];
  let [chain, edge] = [chainStart(cluster), EMPTY_EDGE];
  const { replica } = founder;
  const sealing = new Sealing({
    cluster,
    replica,
    run: 1 as Run,
    crypto: nodeCrypto,
    random: seededRandom(7),
    logSigner: keys.log,
    cosigner: keys.cosigner,
    slotsUpTo: (epoch): HeldSlot[] => [...slots.values()].filter(({ id }) => id.epoch <= epoch),
    facts: () => ({ bytes: new Uint8Array(0), digest: digestOf(nodeCrypto, new Uint8Array(0)) }),
    nextRoster: (roster) => roster,
    provenFacts: (content) => content,
    chain,
    edge,
    firstEpoch: chain.epoch,
  });
  const carry = (effects: readonly SealingEffect[], nowMs: number): void => {
    for (const effect of effects)
      if (effect.type === 'content') contents.set(effect.digest, effect.bytes);
      else if (effect.type === 'want') {
        const bytes = present(contents.get(effect.digest), `content ${effect.digest}`);
        carry(sealing.handle({ type: 'content', bytes }, nowMs), nowMs);
      } else if (effect.type === 'compute') {
        const input = { type: 'computed', name: effect.name, result: compute(effect.job, nodeCrypto) } as const;
        carry(sealing.handle(input, nowMs), nowMs);
      } else if (effect.type === 'write') {
        const { key, value } = effect;
        carry(sealing.handle({ type: 'register', replica, key, value }, nowMs), nowMs);
      } else if (effect.type === 'sealed') {
        records.push({ sealed: effect.sealed, chain, edge });
        chain = effect.sealed.outcome.next;
        edge = effect.sealed.edge;
        for (const entry of effect.sealed.value.slotList) {
          const content = parseSlot(present(contents.get(entry.digest), `content ${entry.digest}`));
          if (covers(content, slots.get(slotName(entry))?.rows ?? [])) slots.delete(slotName(entry));
        }
      }
  };
  for (const { epoch } = chain; chain.epoch < epoch + count;) {
    const nowMs = cluster.genesis.startMs + (chain.epoch + 1) * cluster.genesis.epochMs;
    carry(sealing.handle({ type: 'tick', membersClockMs: null }, nowMs), nowMs);
  }
  const bundles = records.map((record) => bundleOf(cluster, holding(contents), record));
  return { cluster, records, bundles };
}
