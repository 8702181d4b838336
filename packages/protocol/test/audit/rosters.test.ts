import { describe, expect, it } from 'vitest';
import { digestOf, utf8 } from '../../src/base/index.ts';
import { BUNDLE_FILES, verifyBundle, type Bundle, type Verified } from '../../src/audit/index.ts';
import { createRetire, encodeFact, factKey } from '../../src/authority/index.ts';
import { encodeHeader, encodeRoster, lateSlots, parseHeader, writtenOff } from '../../src/sealing/index.ts';
import { bundleOf } from '../member/bundle.ts';
import { cheapCrypto, EPOCH_MS, operator, TestCluster } from '../member/harness.ts';
import { codeOf } from '../transparency/support.ts';

/** A founder and two newcomers, of whom one is retired later. */
function bundles(): readonly Bundle[] {
  const test = new TestCluster(2);
  const { founder } = test;
  const [, one] = test.nodes;
  test.run(2 * EPOCH_MS);
  for (const node of test.nodes) node.meter(1);
  test.run(2 * EPOCH_MS);
  const retire = createRetire(founder.cluster.id, one!.replica, operator);
  founder.set([factKey(retire), encodeFact(retire)]);
  test.run(3 * EPOCH_MS);
  expect(founder.disk.seals.flatMap(({ sealed }) => writtenOff(sealed))).toEqual([]);
  expect(founder.disk.seals.flatMap(({ sealed }) => lateSlots(sealed)).every(({ closed }) => closed)).toBe(true);
  return founder.disk.seals.map((record) => bundleOf(founder.cluster, founder.disk, record));
}

describe('the chain of rosters', () => {
  const all = bundles();
  const verify = (bundle: Bundle, after: Verified | null): Verified =>
    verifyBundle(bundle, after, null, cheapCrypto).verified;
  const sizes = (): number[] => {
    let after: Verified | null = null;
    return all.map((bundle) => (after = verify(bundle, after)).chain.roster.length);
  };

  it('is followed from the genesis, through everyone who comes and goes', () => {
    const found = sizes();
    expect(found[0]).toBe(1);
    expect(found).toContain(3);
    expect(found.at(-1)).toBe(2);
  });

  it('is refused where the facts do not say who comes or goes', () => {
    const change = sizes().findIndex((size, i, found) => i > 0 && size !== found[i - 1]);
    const before = all.slice(0, change).reduce<Verified | null>((after, bundle) => verify(bundle, after), null);
    const bundle = all[change]!;
    const header = parseHeader(bundle.get(BUNDLE_FILES.header)!);
    const facts = bundle.get(BUNDLE_FILES.facts)!;
    /** The bundle with other facts and another next roster, under a header that names them. */
    const altered = (said: Uint8Array, roster: Uint8Array): Bundle =>
      new Map([
        ...bundle,
        [BUNDLE_FILES.facts, said],
        [BUNDLE_FILES.nextRoster, roster],
        [
          BUNDLE_FILES.header,
          encodeHeader({ ...header, facts: digestOf(cheapCrypto, said), roster: digestOf(cheapCrypto, roster) }),
        ],
      ]);
    const next = bundle.get(BUNDLE_FILES.nextRoster)!;
    const same = encodeRoster(before!.chain.roster);
    // A signature that is not good; nobody is spoken of; someone is who does not come.
    const forged = utf8(
      Buffer.from(facts)
        .toString()
        .replaceAll(/"signature":"..../g, '"signature":"AAAA'),
    );
    for (const bad of [altered(forged, next), altered(new Uint8Array(), next), altered(facts, same)])
      expect(codeOf(() => verify(bad, before))).toBe('ROSTER_MISMATCH');
  });
});
