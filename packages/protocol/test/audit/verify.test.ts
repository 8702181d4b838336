import { describe, expect, it } from 'vitest';
import {
  equalBytes,
  fromUtf8,
  jcs,
  present,
  utf8,
  WaggleError,
  type ErrorCode,
  type Json,
} from '../../src/base/index.ts';
import {
  BUNDLE_FILES,
  packBundle,
  totalsOf,
  unpackBundle,
  verifyBundle,
  verifyStatement,
  type Bundle,
  type EpochReport,
  type Verified,
} from '../../src/audit/index.ts';
import { clusterOf, encodeGenesis, encodeRoster, parseHeader, parseSlotList } from '../../src/sealing/index.ts';
import { formatNote, parseLogProof, parseNote, formatLogProof } from '../../src/transparency/index.ts';
import { TestCluster } from '../sealing/harness.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { codeOf } from '../transparency/support.ts';
import { eventfulCluster, publish, type Published } from './support.ts';

/** Goes through bundles one after the other, as an auditor does. */
function verifyAll(
  bundles: readonly Bundle[],
  pinned: Published['cluster']['id'] | null = null,
): { reports: EpochReport[]; verified: Verified } {
  let verified: Verified | null = null;
  const reports: EpochReport[] = [];
  for (const bundle of bundles) {
    const found = verifyBundle(bundle, verified, pinned, nodeCrypto);
    verified = found.verified;
    reports.push(found.report);
  }
  return { reports, verified: present(verified, 'a bundle') };
}

const alone = await publish(eventfulCluster({ members: 1 }));
const threeCluster = eventfulCluster({ members: 3 });
const three = await publish(threeCluster);
const other = await publish(eventfulCluster({ members: 1, seed: 2, scale: 2 }));
const bundle = present(alone.bundles[2], 'epoch 2');
const before = verifyAll(alone.bundles.slice(0, 2)).verified;

describe('bundles', () => {
  it('verify one after the other from the genesis, and give the sums', () => {
    for (const published of [alone, three]) {
      const { reports, verified } = verifyAll(published.bundles, published.cluster.id);
      expect(reports.map(({ epoch, statements, late }) => [epoch, statements, late])).toEqual([
        [0, 2, 0],
        [1, 0, 0],
        [2, 1, 1],
        [3, published === alone ? 1 : 3, 0],
      ]);
      expect(verified.fromGenesis).toBe(true);
      expect(verified.chain.epoch).toBe(4);
      expect(verified.frontier.size).toBe(reports.at(-1)!.treeSize);
      const quorum = published === alone ? 1 : 2;
      for (const { cosigners } of reports) {
        expect(cosigners).toHaveLength(quorum);
        for (const prefix of cosigners)
          expect(published.cluster.genesis.roster.some(({ replica }) => replica.startsWith(prefix))).toBe(true);
      }
    }
    const requests = totalsOf(verifyAll(three.bundles).reports.map(({ totals }) => totals)).requests;
    // `eventfulCluster` puts in 5 + 2 + 1 requests, 3 late ones and 1 + 2 + 3, each times the 8 letters of `requests` but the late ones.
    expect(requests).toBe(BigInt((5 + 2 + 1 + 1 + 2 + 3) * 8 + 3));
  });

  it('verify alone, too, and after one that verified alone', () => {
    for (const [i, each] of alone.bundles.entries()) {
      const found = verifyBundle(each, null, null, nodeCrypto);
      expect(found.report.epoch).toBe(i);
      expect(found.verified.fromGenesis).toBe(i === 0);
    }
    // From 1 on nobody has said what was counted in 0 until 2 does.
    expect(verifyAll(alone.bundles.slice(1)).reports).toEqual(verifyAll(alone.bundles).reports.slice(1));
    expect(verifyAll(alone.bundles.slice(1)).verified.fromGenesis).toBe(false);
  });

  it('are the same figures, header and root at every member', async () => {
    const published = await Promise.all(threeCluster.nodes.map((node) => publish(threeCluster, node)));
    const all = published.map(({ bundles }) =>
      verifyAll(bundles).reports.map((report) => ({ ...report, cosigners: report.cosigners.length })),
    );
    for (const reports of all) expect(reports).toEqual(all[0]);
    for (const { bundles } of published)
      for (const [i, files] of bundles.entries())
        for (const [name, bytes] of files)
          if (name !== BUNDLE_FILES.checkpoint) expect(bytes).toEqual(three.bundles[i]!.get(name));
  });

  it('are refused when one is left out, comes twice, or is of another history', () => {
    const [, one, two, last] = alone.bundles as [Bundle, Bundle, Bundle, Bundle];
    const after = (n: number): Verified => verifyAll(alone.bundles.slice(0, n)).verified;
    expect(codeOf(() => verifyBundle(two, after(1), null, nodeCrypto))).toBe('HISTORY_CHANGED');
    expect(codeOf(() => verifyBundle(one, after(2), null, nodeCrypto))).toBe('HISTORY_CHANGED');
    expect(codeOf(() => verifyBundle(last, after(2), null, nodeCrypto))).toBe('HISTORY_CHANGED');
    // The same cluster, but another seal of epoch 0: salts are drawn anew.
    const again = other.bundles[1]!;
    expect(other.cluster.id).toBe(alone.cluster.id);
    expect(codeOf(() => verifyBundle(again, after(1), null, nodeCrypto))).toBe('HISTORY_CHANGED');
    // Of another cluster.
    expect(codeOf(() => verifyBundle(three.bundles[1]!, after(1), null, nodeCrypto))).toBe('GENESIS_MISMATCH');
    expect(codeOf(() => verifyBundle(three.bundles[0]!, null, alone.cluster.id, nodeCrypto))).toBe('GENESIS_MISMATCH');
  });

  it('do not count a slot again that was counted as closed', () => {
    const entries = parseSlotList(present(alone.bundles[0]!.get(BUNDLE_FILES.slotList), 'slot list'));
    const closed = before.chain.closed;
    expect([...present(closed, 'closed')]).toEqual([[`${entries[1]!.replica}/${entries[1]!.run}`, [[0, 1]]]]);
    const entry = parseSlotList(present(bundle.get(BUNDLE_FILES.slotList), 'slot list')).find((slot) => slot.closed)!;
    const again: Verified = {
      ...before,
      chain: { ...before.chain, closed: new Map([[`${entry.replica}/${entry.run}` as never, [[0, 2]]]]) },
    };
    expect(codeOf(() => verifyBundle(bundle, again, null, nodeCrypto))).toBe('CONSERVATION_BROKEN');
  });
});

/** The bundle with one file changed, added or, with null, taken away. */
const changed = (name: string, bytes: Uint8Array | null): Bundle => {
  const files = new Map(bundle);
  if (bytes === null) files.delete(name);
  else files.set(name, bytes);
  return files;
};

/** The codes with which it is refused after what was verified before, alone but pinned, and alone and unpinned. */
const codesOf = (files: Bundle): ErrorCode[] =>
  [
    () => verifyBundle(files, before, null, nodeCrypto),
    () => verifyBundle(files, null, alone.cluster.id, nodeCrypto),
    () => verifyBundle(files, null, null, nodeCrypto),
  ].map((verify) => codeOf(verify) as ErrorCode);

/** Per kind of file, the codes by which a change of one byte is named; pinned and after what was verified, and (last) unpinned and alone. */
const CODES: readonly (readonly [RegExp, readonly ErrorCode[], readonly ErrorCode[]])[] = [
  [/^genesis\.json$/, ['GENESIS_MISMATCH'], ['GENESIS_MISMATCH', 'ROSTER_MISMATCH', 'HEADER_MISMATCH']],
  [
    /^chain\.json$/,
    ['BUNDLE_MALFORMED', 'HISTORY_CHANGED', 'HEADER_MISMATCH', 'SLOT_MISMATCH', 'ROOT_MISMATCH'],
    ['BUNDLE_MALFORMED', 'HEADER_MISMATCH', 'SLOT_MISMATCH', 'ROOT_MISMATCH'],
  ],
  [/^header\.json$/, ['HEADER_MISMATCH', 'ROSTER_MISMATCH'], ['HEADER_MISMATCH', 'ROSTER_MISMATCH']],
  [/^checkpoint$/, ['CHECKPOINT_INVALID'], ['CHECKPOINT_INVALID']],
  [/^(next-)?roster\.json$/, ['ROSTER_MISMATCH'], ['ROSTER_MISMATCH']],
  [/^slots\.jsonl$/, ['HEADER_MISMATCH'], ['HEADER_MISMATCH']],
  [/^statements\.jsonl$/, ['STATEMENT_MISMATCH'], ['STATEMENT_MISMATCH']],
  [/^(slots|counted)\//, ['SLOT_MISMATCH'], ['SLOT_MISMATCH']],
];

describe('any one-byte change (invariant 9)', () => {
  it('of a file is found, and named after what it is in', () => {
    expect(codesOf(bundle)).toEqual(['none', 'none', 'none']);
    for (const [name, bytes] of bundle) {
      for (let at = 0; at < bytes.length; at++) {
        const copy = Uint8Array.from(bytes);
        copy[at]! ^= [1, 2, 16, 32, 128][at % 5]!;
        const [, expected, unpinned] = CODES.find(([pattern]) => pattern.test(name))!;
        const [after, pinned, free] = codesOf(changed(name, copy));
        const where = `byte ${at} of ${name}: ${fromUtf8(bytes).slice(at - 10, at + 10)}`;
        expect(expected, where).toContain(after);
        expect(expected, where).toContain(pinned);
        expect(unpinned, where).toContain(free);
      }
    }
  });

  it('of the archive is found', () => {
    const archive = packBundle(2, bundle);
    for (let at = 0; at < archive.length; at++) {
      archive[at]! ^= [1, 4, 64, 255][at % 4]!;
      const code = codeOf(() => verifyBundle(unpackBundle(archive), before, null, nodeCrypto));
      archive[at]! ^= [1, 4, 64, 255][at % 4]!;
      expect(code, `byte ${at}`).not.toBe('none');
    }
    expect(equalBytes(archive, packBundle(2, bundle))).toBe(true);
  });
});

describe('a bundle', () => {
  it('names the file that is missing, that is too many, or that has another name', () => {
    const slot = [...bundle.keys()].find((name) => name.startsWith('slots/'))!;
    for (const name of bundle.keys()) {
      const error = ((): unknown => {
        try {
          return verifyBundle(changed(name, null), before, null, nodeCrypto);
        } catch (caught) {
          return caught;
        }
      })();
      expect(error).toMatchObject({ code: 'BUNDLE_MALFORMED', message: expect.stringContaining(name) as string });
    }
    for (const name of ['extra', 'slots/extra.jsonl', slot.replace('slots/', 'counted/'), `${slot}x`])
      if (!bundle.has(name))
        expect(codesOf(changed(name, new Uint8Array(0))), name).toEqual(Array(3).fill('BUNDLE_MALFORMED'));
    const renamed = new Map([...bundle].map(([name, bytes]) => [name === slot ? `${slot}2` : name, bytes]));
    expect(codesOf(renamed)).toEqual(Array(3).fill('BUNDLE_MALFORMED'));
    const folder = packBundle(3, bundle);
    expect(codeOf(() => unpackBundle(folder))).toBe('BUNDLE_MALFORMED');
  });

  it('is refused when lines are swapped, doubled or cut', () => {
    for (const name of [BUNDLE_FILES.slotList, BUNDLE_FILES.statements]) {
      const files = present(alone.bundles[0], 'epoch 0');
      const lines = fromUtf8(present(files.get(name), name)).split('\n');
      const [a, b] = lines as [string, string];
      for (const text of [`${b}\n${a}\n`, `${a}\n${a}\n${b}\n`, `${a}\n`, `${a}\n${b}`, `${a}\n${b}\n\n`, '']) {
        const code = codeOf(() => verifyBundle(new Map([...files, [name, utf8(text)]]), null, null, nodeCrypto));
        expect(code).toBe(name === BUNDLE_FILES.slotList ? 'HEADER_MISMATCH' : 'STATEMENT_MISMATCH');
      }
    }
  });

  it('must say of the chain what is so, no less and no more', () => {
    const text = fromUtf8(present(bundle.get(BUNDLE_FILES.chain), 'chain'));
    const chain = JSON.parse(text) as { counted: Json[]; [key: string]: Json };
    const said = (change: Record<string, Json>): ErrorCode[] =>
      codesOf(changed(BUNDLE_FILES.chain, utf8(jcs({ ...chain, ...change }))));
    // What was counted before is left out: its file is one too many, or the rest does not fit.
    expect(said({ counted: [] })).toEqual(['BUNDLE_MALFORMED', 'BUNDLE_MALFORMED', 'BUNDLE_MALFORMED']);
    const [counted] = chain.counted as [{ [key: string]: Json }];
    expect(said({ counted: [counted, { ...counted, epoch: 1 }] })[0]).toBe('HISTORY_CHANGED');
    expect(said({ counted: [counted, { ...counted, epoch: 1 }] })[1]).toBe('BUNDLE_MALFORMED');
    expect(said({ counted: [{ ...counted, digest: '0'.repeat(64) }] })[0]).toBe('HISTORY_CHANGED');
    expect(said({ previous: null })).toEqual(['HISTORY_CHANGED', 'HEADER_MISMATCH', 'HEADER_MISMATCH']);
    const frontier = chain['frontier'] as { size: number; hashes: string[] };
    const hashes = frontier.hashes.map(() => '0'.repeat(64));
    expect(said({ frontier: { ...frontier, hashes } })).toEqual(['HISTORY_CHANGED', 'ROOT_MISMATCH', 'ROOT_MISMATCH']);
    expect(said({ epoch: 3 })).toEqual(['HISTORY_CHANGED', 'HEADER_MISMATCH', 'HEADER_MISMATCH']);
    expect(said({ epoch: 0 })[1]).toBe('HEADER_MISMATCH');
    expect(said({ epoch: Number.MAX_SAFE_INTEGER })[1]).toBe('HEADER_MISMATCH');
    expect(said({ format: 2 })).toEqual(['HISTORY_CHANGED', 'HEADER_MISMATCH', 'HEADER_MISMATCH']);
    // Nothing stood before epoch 0.
    const first = present(alone.bundles[0], 'epoch 0');
    const start = JSON.parse(fromUtf8(present(first.get(BUNDLE_FILES.chain), 'chain'))) as { [key: string]: Json };
    for (const change of [
      { previous: '0'.repeat(64) },
      { format: 2 },
      { frontier: { size: 1, hashes: ['0'.repeat(64)] } },
      { counted: [counted] },
    ])
      expect(
        codeOf(() =>
          verifyBundle(
            new Map([...first, [BUNDLE_FILES.chain, utf8(jcs({ ...start, ...change } as Json))]]),
            null,
            null,
            nodeCrypto,
          ),
        ),
      ).toBe('HEADER_MISMATCH');
  });

  it('needs an epoch that ends before the year 10 000', () => {
    const epoch = 2 ** 52;
    const header = { ...parseHeader(present(bundle.get(BUNDLE_FILES.header), 'header')), epoch };
    const chain = JSON.parse(fromUtf8(present(bundle.get(BUNDLE_FILES.chain), 'chain'))) as { [key: string]: Json };
    const files = new Map([
      ...bundle,
      [BUNDLE_FILES.header, utf8(jcs(header as unknown as Json))],
      [BUNDLE_FILES.chain, utf8(jcs({ ...chain, epoch }))],
    ]);
    expect(codeOf(() => verifyBundle(files, null, null, nodeCrypto))).toBe('HEADER_MISMATCH');
  });
});

describe('a checkpoint', () => {
  const files = present(three.bundles[0], 'epoch 0');
  const note = parseNote(fromUtf8(present(files.get(BUNDLE_FILES.checkpoint), 'checkpoint')));
  const code = (signatures: typeof note.signatures): ErrorCode | 'none' =>
    codeOf(() =>
      verifyBundle(
        new Map([...files, [BUNDLE_FILES.checkpoint, utf8(formatNote({ ...note, signatures }))]]),
        null,
        null,
        nodeCrypto,
      ),
    );
  const isCosigner = ({ name }: { name: string }): boolean => name !== three.cluster.origin;

  it('needs the cosignatures of a majority, and one of the log', () => {
    expect(note.signatures).toHaveLength(4);
    expect(code(note.signatures)).toBe('none');
    const first = note.signatures.find(isCosigner);
    expect(code(note.signatures.filter((line) => line !== first))).toBe('QUORUM_MISSING');
    expect(code(note.signatures.filter((line) => !isCosigner(line)))).toBe('QUORUM_MISSING');
    expect(code(note.signatures.filter(isCosigner))).toBe('CHECKPOINT_INVALID');
  });

  it('takes nobody twice, and nobody from outside', () => {
    const cosigner = note.signatures.find(isCosigner)!;
    const log = note.signatures.find((line) => !isCosigner(line));
    expect(code([log!, cosigner, cosigner])).toBe('CHECKPOINT_INVALID');
    expect(
      code([...note.signatures, { name: 'stranger.example', keyId: '00000000', payload: new Uint8Array(64) }]),
    ).toBe('CHECKPOINT_INVALID');
  });

  it('of a roster of others is refused', () => {
    const genesis = { ...three.cluster.genesis, roster: alone.cluster.genesis.roster };
    const changes = new Map([
      ...files,
      [BUNDLE_FILES.genesis, utf8(encodeGenesis(genesis))],
      [BUNDLE_FILES.roster, encodeRoster(genesis.roster)],
    ]);
    expect(['HEADER_MISMATCH', 'ROSTER_MISMATCH']).toContain(
      codeOf(() => verifyBundle(changes, null, null, nodeCrypto)),
    );
  });
});

describe('a statement with its proof', () => {
  const { cluster, proven } = three;
  const { roster } = cluster.genesis;
  const verify = (statement: Uint8Array, proof: Uint8Array, of = cluster): ErrorCode | 'none' =>
    codeOf(() => verifyStatement(statement, proof, of, roster, nodeCrypto));

  it('leads to the checkpoint, each to its own', () => {
    expect(proven).toHaveLength(6);
    for (const { customer, statement, proof } of proven) {
      const report = verifyStatement(statement, proof, cluster, roster, nodeCrypto);
      const said = JSON.parse(fromUtf8(statement)) as { customer: string; epoch: number; sealedIn: number };
      expect(report).toMatchObject({ customer, epoch: said.epoch, sealedIn: said.sealedIn });
      expect(report.cosigners).toHaveLength(2);
    }
    expect(
      proven.map(({ statement }, i) => proven.filter((each, j) => i !== j && verify(statement, each.proof) === 'none')),
    ).toEqual(proven.map(() => []));
  });

  it('is refused with any byte of the statement changed', () => {
    const { statement, proof } = proven[0]!;
    for (let at = 0; at < statement.length; at++)
      for (const flip of [1, 2, 128]) {
        const copy = Uint8Array.from(statement);
        copy[at]! ^= flip;
        expect(['PROOF_INVALID', 'GENESIS_MISMATCH'], `byte ${at}`).toContain(verify(copy, proof));
      }
  });

  it('is refused with any byte of the proof changed', () => {
    const { statement, proof } = proven[1]!;
    for (let at = 0; at < proof.length; at++)
      for (const flip of [1, 2, 128]) {
        const copy = Uint8Array.from(proof);
        copy[at]! ^= flip;
        expect(['PROOF_INVALID', 'CHECKPOINT_INVALID'], `byte ${at}`).toContain(verify(statement, copy));
      }
    const parsed = parseLogProof(fromUtf8(proof));
    expect(verify(statement, utf8(formatLogProof({ ...parsed, extra: utf8('hidden') })))).toBe('PROOF_INVALID');
  });

  it('is refused for another genesis', () => {
    const { statement, proof } = proven[0]!;
    expect(verify(statement, proof, alone.cluster)).toBe('GENESIS_MISMATCH');
    expect(codeOf(() => verifyStatement(statement, proof, cluster, alone.cluster.genesis.roster, nodeCrypto))).toBe(
      'CHECKPOINT_INVALID',
    );
    // Another cluster with the same members: their keys are good, the statement's cluster is not.
    const twin = clusterOf({ ...cluster.genesis, operatorKey: alone.cluster.genesis.roster[0]!.logKey }, nodeCrypto);
    expect(verify(statement, proof, twin)).toBe('GENESIS_MISMATCH');
    expect(testSigner('operator').publicKey).toHaveLength(32);
  });

  it('is refused when it is no statement at all', () => {
    const { statement, proof } = proven[0]!;
    const said = JSON.parse(fromUtf8(statement)) as { [key: string]: Json };
    const bad: Json[] = [
      null,
      [],
      {},
      7,
      { ...said, more: 1 },
      { ...said, format: 2 },
      { ...said, usage: null },
      { ...said, usage: { 'resize.tiff': {} } },
      { ...said, epoch: Number.MAX_SAFE_INTEGER, sealedIn: Number.MAX_SAFE_INTEGER },
      { ...said, sealedIn: 0, epoch: 1 },
      { ...said, start: 'yesterday' },
      { ...said, salt: 7 },
    ];
    for (const value of bad) expect(verify(utf8(jcs(value)), proof), jcs(value)).toBe('PROOF_INVALID');
    for (const text of ['', 'x', '\ud800']) {
      expect(verify(utf8(text), proof)).toBe('PROOF_INVALID');
      expect(verify(statement, utf8(text))).toBe('PROOF_INVALID');
    }
    expect(verify(Uint8Array.of(0xff), proof)).toBe('PROOF_INVALID');
  });
});

describe('errors', () => {
  it('say what was expected and what came', () => {
    const test = new TestCluster({ members: 1 });
    test.sealUpTo(0);
    const error = ((): unknown => {
      try {
        return verifyBundle(
          bundle,
          { ...before, cluster: test.cluster, chain: { ...before.chain, epoch: 7 } },
          null,
          nodeCrypto,
        );
      } catch (caught) {
        return caught;
      }
    })() as WaggleError;
    expect(error.code).toBe('HISTORY_CHANGED');
    expect(error.message).toMatch(/^Expected epoch 7 .*received epoch 2 /);
  });
});
