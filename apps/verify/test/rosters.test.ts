import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { packBundle, type Bundle } from '@waggle/protocol/audit';
import { fromUtf8, present, utf8 } from '@waggle/protocol/base';
import { encodeGenesis, placedStatements } from '@waggle/protocol/sealing';
import { formatLogProof, formatNote, inclusionProof, parseNote } from '@waggle/protocol/transparency';
import { grown, rosterLines, tilesOf } from '../../../packages/protocol/test/audit/grown.ts';
import { bundleOf } from '../../../packages/protocol/test/member/bundle.ts';
import { cheapCrypto } from '../../../packages/protocol/test/member/harness.ts';
import { run } from '../src/main.ts';
import { scratch } from './support.ts';

/* A cluster whose voters came and went, and who only sees a part of it: a customer with its statement, an auditor with one bundle. */

// The cluster of the tests signs cheaply.
vi.mock('../src/node-crypto.ts', async () => ({
  nodeCrypto: (await import('../../../packages/protocol/test/member/harness.ts')).cheapCrypto,
}));

const at = scratch();
const write = (name: string, bytes: string | Uint8Array): string => {
  writeFileSync(at(name), bytes);
  return at(name);
};

async function verify(
  ...args: string[]
): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const written = { out: '', err: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name === 'stdout' ? 'out' : 'err'] += String(text);
      return true;
    }),
  );
  const code = await run(args, {}).finally(() => spies.forEach((spy) => spy.mockRestore()));
  return { code, ...written };
}

const { cluster, disk } = grown().founder;
const lines = await rosterLines(disk.seals);
const bundles = disk.seals.map((record): Bundle => bundleOf(cluster, disk, record));
const genesis = write('genesis.json', encodeGenesis(cluster.genesis));
const rosters = write('rosters.jsonl', lines.map((line) => `${line}\n`).join(''));
/** The last epoch with a statement: sealed by others than the founder alone. */
const late = present(
  disk.seals.findLast(({ sealed }) => placedStatements(sealed).length > 0),
  'an epoch',
).sealed;
const tar = write('late.tar', packBundle(late.epoch, bundles[late.epoch]!));
const [placed] = placedStatements(late);
const path = await inclusionProof(cheapCrypto, tilesOf(disk.seals), placed!.leaf, late.treeSize);
const proofWith = (checkpoint: string): Uint8Array =>
  utf8(formatLogProof({ index: path.index, hashes: path.hashes, checkpoint }));
const statement = ['--statement', write('statement.json', placed!.bytes)];
const proof = ['--proof', write('proof', proofWith(late.checkpoint))];

/** A folder with the bundles of these epochs. */
function folder(name: string, epochs: readonly number[]): string {
  mkdirSync(at(name));
  for (const epoch of epochs) writeFileSync(at(name, `${epoch}.tar`), packBundle(epoch, bundles[epoch]!));
  return at(name);
}
const all = folder('all', [...bundles.keys()]);

it('the tests have a late epoch that others signed', () => expect(late.roster.length).toBeGreaterThan(1));

describe('a statement of a grown cluster', () => {
  it('is verified with the chain of rosters', async () => {
    const ran = await verify(...statement, ...proof, '--genesis', genesis, '--rosters', rosters);
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toMatch(new RegExp(`sealed in ${late.epoch}, cosigned by .*\\n.*\\nOK: `));
  });

  it('is not called forged without it: who had to sign is not known, and what to do is said', async () => {
    for (const more of [[], ['--rosters', write('early.jsonl', `${lines[0]}\n`)]]) {
      const ran = await verify(...statement, ...proof, '--genesis', genesis, ...more);
      expect(ran).toMatchObject({ code: 2, out: '', err: expect.stringContaining('/v1/rosters.jsonl') as string });
      expect(ran.err).not.toContain('FAILED');
      expect(ran.err).toContain('has changed since');
    }
  });

  it('is refused where it is forged, whoever knows the rosters', async () => {
    const args = ['--genesis', genesis, '--rosters', rosters];
    const other = write('changed.json', fromUtf8(placed!.bytes).replace('"requests":', '"requests":1'));
    const changed = await verify('--statement', other, ...proof, ...args);
    expect(changed).toMatchObject({ code: 1, err: expect.stringContaining('FAILED PROOF_INVALID') as string });
    const none = await verify('--statement', write('none.json', 'null'), ...proof, ...args);
    expect(none).toMatchObject({ code: 1, err: expect.stringContaining('FAILED PROOF_INVALID') as string });
    const { text, signatures } = parseNote(late.checkpoint);
    const few = write('few', proofWith(formatNote({ text, signatures: signatures.slice(0, 2) })));
    const minority = await verify(...statement, '--proof', few, '--state', at('state'), ...args);
    expect(minority.code).toBe(2);
    expect((await verify(all, '--genesis', genesis, '--state', at('state'))).code).toBe(0);
    const known = await verify(...statement, '--proof', few, '--genesis', genesis, '--state', at('state'));
    expect(known).toMatchObject({ code: 1, err: expect.stringContaining('FAILED QUORUM_MISSING') as string });
    const byState = await verify(...statement, ...proof, '--genesis', genesis, '--state', at('state'));
    expect(byState).toMatchObject({ code: 0, err: '' });
  });

  it('is not looked at with a chain of rosters that does not hold', async () => {
    const broken = write('broken.jsonl', `${lines[0]!.replace('"index":', '"index":1')}\n`);
    for (const args of [[...statement, ...proof], [tar]])
      expect(await verify(...args, '--genesis', genesis, '--rosters', broken)).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringMatching(
          /^FAILED PROOF_INVALID: .*\n.*broken.jsonl: The change of the roster in epoch/,
        ) as string,
      });
    expect(await verify(tar, '--rosters', rosters)).toMatchObject({
      code: 2,
      err: expect.stringContaining('--genesis') as string,
    });
    expect((await verify(tar, '--genesis', genesis, '--rosters', at('nowhere'))).code).toBe(2);
  });
});

describe('a later bundle by itself', () => {
  it('is checked in itself, with the roster that a chain or a state knows', async () => {
    const chained = await verify(tar, '--genesis', genesis, '--rosters', rosters);
    expect(chained).toMatchObject({ code: 0, err: '' });
    expect(chained.out).toContain(`UNANCHORED: nothing before epoch ${late.epoch} `);
    // A state that has seen it sealed, and one that ended just before it.
    expect((await verify(all, '--genesis', genesis, '--state', at('whole'))).code).toBe(0);
    expect(await verify(tar, '--state', at('whole'))).toMatchObject({ code: 0, err: '' });
    const before = folder('before', [...bundles.keys()].slice(0, late.epoch));
    expect((await verify(before, '--genesis', genesis, '--state', at('before-state'))).code).toBe(0);
    expect((await verify(tar, '--state', at('before-state'))).out).not.toContain('UNANCHORED');
    const gap = folder('gap', [0, late.epoch]);
    expect(await verify(gap, '--genesis', genesis, '--rosters', rosters)).toMatchObject({ code: 0, err: '' });
  });

  it('is not called forged where nobody knows its roster, and what was verified before is kept', async () => {
    for (const args of [[tar], [tar, '--genesis', genesis]]) {
      const ran = await verify(...args);
      expect(ran).toMatchObject({ code: 2, err: expect.stringContaining('/v1/rosters.jsonl') as string });
      expect(ran.err).not.toContain('FAILED');
    }
    const ran = await verify(folder('hole', [0, late.epoch]), '--genesis', genesis, '--state', at('hole-state'));
    expect(ran.code).toBe(2);
    expect(ran.out).toMatch(/^epoch 0: /);
    expect((await verify(all, '--state', at('hole-state'))).out).toMatch(/^epoch 1: /m);
  });

  it('is refused for what is wrong in itself, or with the roster that is known', async () => {
    const forged = (name: string, change: (text: string) => string, of = bundles[late.epoch]!): string => {
      const changed = new Map([...of, [name, utf8(change(fromUtf8(of.get(name)!)))]]);
      return write(`forged-${name}.tar`, packBundle(late.epoch, changed));
    };
    const statements = forged('statements.jsonl', (text) => text.replace('"requests":', '"requests":1'));
    expect(await verify(statements, '--genesis', genesis)).toMatchObject({
      code: 1,
      err: expect.stringContaining('FAILED STATEMENT_MISMATCH') as string,
    });
    const roster = forged('roster.json', (text) => text.replace(/"logKey":"..../, '"logKey":"AAAA'));
    expect((await verify(roster, '--genesis', genesis)).code).toBe(1);
    const founders = forged('roster.json', () => fromUtf8(bundles[0]!.get('roster.json')!));
    expect((await verify(founders, '--genesis', genesis)).code).toBe(1);
    // Certain is the roster of each epoch before the last change.
    const early = present(
      disk.seals.find(({ sealed }) => sealed.roster.length > 1),
      'an epoch',
    ).sealed.epoch;
    const other = new Map([...bundles[early]!, ['roster.json', bundles[0]!.get('roster.json')!]]);
    expect(
      await verify(write('other.tar', packBundle(early, other)), '--genesis', genesis, '--rosters', rosters),
    ).toMatchObject({ code: 1, err: expect.stringContaining('FAILED ROSTER_MISMATCH') as string });
  });

  it('without slots needs the epochs before it, which is not its fault', async () => {
    const files = [...bundles[late.epoch]!].filter(([name]) => !/^(slots|counted)\//.test(name));
    const outline = write('outline.tar', packBundle(late.epoch, new Map(files)));
    expect(await verify(outline, '--genesis', genesis, '--rosters', rosters, '--without-slots')).toMatchObject({
      code: 2,
      err: expect.stringContaining('in sequence') as string,
    });
  });
});
