import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { packBundle, type Bundle } from '@waggle/protocol/audit';
import { fromUtf8, utf8 } from '@waggle/protocol/base';
import { encodeGenesis } from '@waggle/protocol/sealing';
import { openNote, packTar, parseCheckpoint, parseVerifierKey, unpackTar } from '@waggle/protocol/transparency';
import { eventfulCluster, publish } from '../../../packages/protocol/test/audit/support.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { runVerifier, scratch, type Ran } from './support.ts';

/* What the verifier says about bundles that are not what they should be, and what it can do with less than all of them. */

const at = scratch();

const verify = (...args: readonly string[]): Promise<Ran> => runVerifier(args);

interface Result {
  readonly ok: boolean;
  readonly finding: {
    readonly code: string;
    readonly epoch: number | null;
    readonly message: string;
    readonly misbehaviour?: {
      readonly key: string;
      readonly treeSize: number;
      readonly checkpoints: readonly { readonly note: string; readonly where: string }[];
    };
  } | null;
  readonly notRecomputed: readonly number[];
  readonly stateEpoch: number | null;
}
const resultOf = async (...args: string[]): Promise<Result> =>
  JSON.parse((await verify('--json', ...args)).out.trimEnd().split('\n').at(-1)!) as Result;

const good = await publish(eventfulCluster({ members: 3 }));
/** Another history that the same members have signed. */
const forked = await publish(eventfulCluster({ members: 3, seed: 5 }));

function archives(name: string, bundles: readonly (Bundle | undefined)[]): string {
  mkdirSync(at(name));
  for (const [epoch, bundle] of bundles.entries())
    if (bundle !== undefined) writeFileSync(at(name, `${epoch}.tar`), packBundle(epoch, bundle));
  return at(name);
}
const genesis = at('genesis.json');
writeFileSync(genesis, encodeGenesis(good.cluster.genesis));
const all = archives('all', good.bundles);

/** A proof must convince whoever has the key and nothing else. */
function expectProof({ finding }: Result): void {
  expect(finding).toMatchObject({
    code: 'HISTORY_CHANGED',
    message: expect.stringContaining('one key signed') as string,
  });
  const { key, treeSize, checkpoints } = finding!.misbehaviour!;
  const verifier = parseVerifierKey(nodeCrypto, key);
  const opened = checkpoints.map(({ note }) => parseCheckpoint(openNote(nodeCrypto, note, [verifier]).text));
  expect(opened.map(({ size }) => size)).toEqual([treeSize, treeSize]);
  expect(Buffer.from(opened[0]!.root).equals(opened[1]!.root)).toBe(false);
}

describe('two checkpoints of one size with different roots', () => {
  const note = forked.bundles[3]!.get('checkpoint')!;
  writeFileSync(at('theirs'), note);

  it('prove that their signer showed two histories: from what somebody else was shown', async () => {
    expectProof(await resultOf(all, '--genesis', genesis, '--checkpoint', at('theirs')));
    const { code, err } = await verify(all, '--genesis', genesis, '--checkpoint', at('theirs'));
    expect(code).toBe(1);
    expect(err).toContain('PROOF OF MISBEHAVIOUR');
    expect(err).toContain(fromUtf8(note).trimEnd());
    expect(err).toContain(fromUtf8(good.bundles[3]!.get('checkpoint')!).trimEnd());
    // The same one says nothing, nor does one that nobody known has signed.
    writeFileSync(at('ours'), good.bundles[3]!.get('checkpoint')!);
    writeFileSync(at('unsigned'), fromUtf8(note).replaceAll(/ [A-Za-z0-9+/=]{60,}\n/g, ` ${'A'.repeat(96)}\n`));
    for (const name of ['ours', 'unsigned'])
      expect(await resultOf(all, '--genesis', genesis, '--checkpoint', at(name)), name).toMatchObject({ ok: true });
  });

  it('from a state, and from two bundles of one epoch', async () => {
    expect((await verify(all, '--genesis', genesis, '--state', at('state'))).code).toBe(0);
    const last = archives('last', [undefined, undefined, undefined, forked.bundles[3]]);
    expectProof(await resultOf(last, '--state', at('state')));
    const twice = archives('twice', good.bundles);
    writeFileSync(join(twice, 'again.tar'), packBundle(3, forked.bundles[3]!));
    expectProof(await resultOf(twice, '--genesis', genesis));
    cpSync(join(twice, '3.tar'), join(twice, 'again.tar'));
    expect((await resultOf(twice, '--genesis', genesis)).finding).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      message: expect.stringContaining('one bundle for each epoch') as string,
    });
  });

  it('are nothing if they are of different sizes', async () => {
    writeFileSync(at('short'), forked.bundles[0]!.get('checkpoint')!);
    const sizes = [forked, good].map(({ bundles }) => fromUtf8(bundles[0]!.get('checkpoint')!).split('\n')[1]);
    expect(sizes[0]).toBe(sizes[1]);
    const rest = archives('rest', good.bundles.slice(0, 1));
    expectProof(await resultOf(rest, '--genesis', genesis, '--checkpoint', at('short')));
    expect(await resultOf(rest, '--genesis', genesis, '--checkpoint', at('theirs'))).toMatchObject({ ok: true });
  });

  it('are kept in the state, which an older version may have written without', async () => {
    const path = at('state', 'waggle-verify.json');
    const state = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    expect(state).toMatchObject({ format: 2, checkpoint: fromUtf8(good.bundles[3]!.get('checkpoint')!) });
    const { checkpoint: _, rosters, ...old } = state;
    expect(rosters).toEqual([[0, old['roster']]]);
    mkdirSync(at('old'));
    writeFileSync(at('old', 'waggle-verify.json'), JSON.stringify({ ...old, format: 1 }));
    expect(await resultOf(all, '--state', at('old'))).toMatchObject({ ok: true, stateEpoch: 4 });
    expect((await resultOf(archives('fork', forked.bundles), '--state', at('old'))).finding).toMatchObject({
      code: 'HISTORY_CHANGED',
    });
  });
});

describe('a state', () => {
  it('knows who could sign when: statements of later rosters are checked with it', async () => {
    const { statement, proof } = good.proven.at(-1)!;
    writeFileSync(at('statement.json'), statement);
    writeFileSync(at('statement.proof'), proof);
    const args = ['--statement', at('statement.json'), '--proof', at('statement.proof'), '--genesis', genesis];
    expect((await verify('--json', ...args, '--state', at('state'))).code).toBe(0);
    expect((await verify('--json', ...args, '--state', at('nowhere'))).code).toBe(0);
    // As if another roster had been decided for epoch 2, and for 5: that of 2 has not signed what 3 sealed.
    const path = at('state', 'waggle-verify.json');
    const state = JSON.parse(readFileSync(path, 'utf8')) as { rosters: [number, string][] };
    const others = JSON.stringify((JSON.parse(state.rosters[0]![1]) as object[]).slice(0, 1));
    mkdirSync(at('later'));
    for (const [from, code] of [
      [2, 1],
      [5, 0],
    ] as const) {
      const { rosters, ...rest } = state;
      const changed = { ...rest, rosters: [...rosters, [from, others]] };
      const sorted = Object.fromEntries(Object.entries(changed).sort(([a], [b]) => (a < b ? -1 : 1)));
      writeFileSync(at('later', 'waggle-verify.json'), JSON.stringify(sorted));
      expect((await verify('--json', ...args, '--state', at('later'))).code, `roster from ${from}`).toBe(code);
    }
  });
});

describe('a bundle', () => {
  const folder = `epoch-3/`;
  const files = unpackTar(packBundle(3, good.bundles[3]!));
  const lines = fromUtf8(good.bundles[3]!.get('statements.jsonl')!).trimEnd().split('\n');
  const name = (line: string): string => {
    const { customer, epoch } = JSON.parse(line) as { customer: string; epoch: number };
    return `the statement of ${customer} for epoch ${epoch}`;
  };
  const refusedTar = async (bytes: Uint8Array): Promise<Result['finding']> => {
    writeFileSync(at('bad.tar'), bytes);
    return (await resultOf(at('bad.tar'))).finding;
  };
  const refused = (changed: readonly string[]): Promise<Result['finding']> =>
    refusedTar(
      packBundle(3, new Map([...good.bundles[3]!, ['statements.jsonl', utf8(changed.map((l) => `${l}\n`).join(''))]])),
    );

  it('is refused with the name of the file that is missing, too many, twice or in the wrong place', async () => {
    const at1 = files.findIndex((file) => file.name === `${folder}slots.jsonl`);
    const tar = (parts: typeof files): Uint8Array => packTar(parts);
    expect(await refusedTar(tar(files.toSpliced(at1, 1)))).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      message: expect.stringContaining('slots.jsonl') as string,
    });
    const more = { name: `${folder}zeros`, bytes: new Uint8Array(3) };
    expect(await refusedTar(tar([...files, more]))).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      message: expect.stringContaining('zeros') as string,
    });
    const swapped = files.with(at1, files[at1 - 1]!).with(at1 - 1, files[at1]!);
    expect(await refusedTar(tar(swapped))).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      message: expect.stringMatching(/epoch-3\/\S+ stands after epoch-3\/slots\.jsonl/) as string,
    });
    // Our own packer makes none with a name twice.
    const end = 2 * 512;
    const one = packTar([files[at1]!]);
    const whole = packTar(files);
    const twice = Buffer.concat([whole.subarray(0, whole.length - end), one]);
    expect(await refusedTar(twice)).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      message: expect.stringContaining('epoch-3/slots.jsonl is in it twice') as string,
    });
  });

  it('is refused with the name of the statement that is missing, too many, twice or in the wrong place', async () => {
    expect(lines.length).toBeGreaterThan(2);
    const [first, second] = lines as [string, string];
    const other = first.replace(/"customer":"[^"]+"/, '"customer":"aaa"');
    for (const [changed, why] of [
      [lines.toSpliced(1, 1), `${name(second)} is missing`],
      [[other, ...lines], 'the statement of aaa for epoch 3 is too many'],
      [lines.toSpliced(1, 0, first), `line 2 repeats ${name(first)} in line 1`],
      [lines.with(0, second).with(1, first), `line 2 has ${name(first)}`],
    ] as const)
      expect(await refused(changed), why).toMatchObject({
        code: 'STATEMENT_MISMATCH',
        message: expect.stringContaining(why) as string,
      });
    const wrong = first.replace(/"requests":\d+/, '"requests":77');
    expect(await refused(lines.with(0, wrong))).toMatchObject({ code: 'STATEMENT_MISMATCH' });
    expect(await refused(lines.with(0, '{}'))).toMatchObject({ code: 'STATEMENT_MISMATCH' });
  });
});

describe('an archive in gzip', () => {
  it('is what it was before, alone and among others; cut or as something else it is refused', async () => {
    const folder = at('compressed');
    mkdirSync(folder);
    for (const [epoch, bundle] of good.bundles.entries()) {
      const tar = packBundle(epoch, bundle);
      if (epoch % 2 === 0) writeFileSync(join(folder, `${epoch}.tar.gz`), gzipSync(tar));
      else writeFileSync(join(folder, `${epoch}.tar`), tar);
    }
    expect(await resultOf(folder, '--genesis', genesis)).toMatchObject({ ok: true, epochs: 4 });
    const path = join(folder, '2.tar.gz');
    expect(await resultOf(path, '--genesis', genesis)).toMatchObject({ ok: true, epochs: 1 });
    const bytes = readFileSync(path);
    for (const bad of [
      bytes.subarray(0, bytes.length - 20),
      bytes.subarray(0, 9),
      Buffer.from('gz'),
      packBundle(2, good.bundles[2]!),
    ]) {
      writeFileSync(path, bad);
      expect((await resultOf(path, '--genesis', genesis)).finding).toMatchObject({ code: 'BUNDLE_MALFORMED' });
    }
  });
});

describe('bundles without slots', () => {
  const outline = (bundle: Bundle): Bundle =>
    new Map([...bundle].filter(([name]) => !name.startsWith('slots/') && !name.startsWith('counted/')));
  const outlines = archives('outlines', good.bundles.map(outline));

  it('are refused unless they are asked for', async () => {
    const refused = await verify(outlines, '--genesis', genesis);
    expect(refused.code).toBe(2);
    expect(refused.err).toContain('--without-slots checks the rest');
    expect((await resultOf(outlines, '--genesis', genesis)).finding).toMatchObject({ code: 'SLOTS_EXPIRED' });
    // One that is there in part is no such bundle.
    const part = new Map(good.bundles[3]);
    part.delete([...part.keys()].find((name) => name.startsWith('slots/'))!);
    const partly = archives('partly', [...good.bundles.slice(0, 3), part]);
    expect((await resultOf(partly, '--genesis', genesis, '--without-slots')).finding).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      epoch: 3,
    });
  });

  it('are verified but for the sums, which is said; and later ones with slots go on from there', async () => {
    const ran = await verify(outlines, '--genesis', genesis, '--without-slots');
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toContain('NOT RECOMPUTED: 4 epochs (0 to 3)');
    const whole = await verify(all, '--genesis', genesis);
    const same = (out: string): string[] => out.split('\n').filter((line) => /^epoch|^totals|late usage/.test(line));
    expect(same(ran.out)).toEqual(same(whole.out));
    const mixed = archives('mixed', [...good.bundles.slice(0, 2).map(outline), ...good.bundles.slice(2)]);
    expect(await resultOf(mixed, '--genesis', genesis, '--without-slots', '--state', at('mixed-state'))).toMatchObject({
      ok: true,
      notRecomputed: [0, 1],
      stateEpoch: 4,
    });
    expect((await verify(all, '--genesis', genesis, '--state', at('whole-state'))).code).toBe(0);
    expect(readFileSync(at('mixed-state', 'waggle-verify.json'), 'utf8')).toBe(
      readFileSync(at('whole-state', 'waggle-verify.json'), 'utf8'),
    );
  });

  it('are refused for any other statement, list, roster, signature or past', async () => {
    const spoilt = (epoch: number, file: string, change: (text: string) => string): string => {
      const name = `spoilt-${file}-${epoch}`;
      const bundles = good.bundles.map(outline);
      bundles[epoch] = new Map([...bundles[epoch]!, [file, utf8(change(fromUtf8(bundles[epoch]!.get(file)!)))]]);
      return archives(name, bundles);
    };
    for (const [file, code, change] of [
      ['statements.jsonl', 'ROOT_MISMATCH', (text) => text.replace(/"requests":\d+/, '"requests":77')],
      [
        'slots.jsonl',
        'HEADER_MISMATCH',
        (text) => text.replace('"closed":true', '"closed":false').replace(/"salt":"[^"]+"/, '"salt":null'),
      ],
      ['header.json', 'HEADER_MISMATCH', (text) => text.replace(/"previous":"[0-9a-f]{4}/, '"previous":"0000')],
      ['next-roster.json', 'ROSTER_MISMATCH', (text) => text.replace(/"replica":"[0-9a-f]{4}/, '"replica":"0000')],
      ['roster.json', 'ROSTER_MISMATCH', (text) => text.replace(/"replica":"[0-9a-f]{4}/, '"replica":"0000')],
      ['checkpoint', 'QUORUM_MISSING', (text) => text.split('\n').toSpliced(-2, 1).join('\n')],
      ['chain.json', 'HISTORY_CHANGED', (text) => text.replace(/"previous":"[0-9a-f]{4}/, '"previous":"0000')],
      ['genesis.json', 'GENESIS_MISMATCH', (text) => text.replace('"sealGraceMs":', '"sealGraceMs":1')],
    ] as [string, string, (text: string) => string][]) {
      const result = await resultOf(spoilt(3, file, change), '--genesis', genesis, '--without-slots');
      expect([file, result.finding?.code, result.finding?.epoch]).toEqual([file, code, 3]);
    }
  });
});
