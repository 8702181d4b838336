import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, concat, hex, utf8, type ReplicaId } from '../../src/base/index.ts';
import {
  checkpointText,
  cosignCheckpoint,
  cosignerKey,
  cosignNote,
  COSIGNATURE,
  formatNote,
  formatSignatureLine,
  formatVerifierKey,
  LOG_SIGNATURE,
  logKey,
  openCheckpoint,
  openNote,
  originOf,
  parseCheckpoint,
  parseKeyName,
  parseNote,
  parseVerifierKey,
  SIGNATURES_MAX,
  signCheckpoint,
  signNote,
  verifierKey,
  type VerifierKey,
} from '../../src/transparency/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { codeOf, mutations, valueOr } from './support.ts';

/** Test vectors of c2sp.org/signed-note and c2sp.org/tlog-cosignature. */
const EXAMPLE_KEY = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k';
const EXAMPLE_NOTE = `This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
`;
const SOFA = `example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
`;

const ORIGIN = 'waggle.example/0123456789abcdef';
const REPLICA = 'a1b2c3d4e5f60718a1b2c3d4e5f60718' as ReplicaId;
const log = testSigner('log');
const witness = testSigner('witness');
const logVerifier = logKey(nodeCrypto, ORIGIN, log.publicKey);
const witnessVerifier = cosignerKey(nodeCrypto, ORIGIN, REPLICA, witness.publicKey);
const checkpoint = { origin: ORIGIN, size: 5, root: nodeCrypto.sha256(utf8('root')) };
const text = checkpointText(checkpoint);
const logLine = signCheckpoint(nodeCrypto, text, ORIGIN, log);
const witnessLine = cosignCheckpoint(nodeCrypto, text, ORIGIN, REPLICA, witness, 1_700_000_000);
const signed = `${text}\n${logLine}${witnessLine}`;
const open = (note: string, keys: readonly VerifierKey[] = [logVerifier, witnessVerifier]) =>
  openNote(nodeCrypto, note, keys);

describe('c2sp.org/signed-note', () => {
  it('opens the example with the example key', () => {
    const key = parseVerifierKey(nodeCrypto, EXAMPLE_KEY);
    expect(key).toMatchObject({ name: 'example.com/foo', type: LOG_SIGNATURE, keyId: '530d903a' });
    const opened = open(EXAMPLE_NOTE, [key]);
    expect(opened.text).toBe('This is an example message.\n');
    expect(opened.verified.map((signature) => signature.key)).toEqual([key]);
    expect(opened.unknown).toEqual([]);
    expect(formatVerifierKey(key)).toBe(EXAMPLE_KEY);
    expect(formatNote(parseNote(EXAMPLE_NOTE))).toBe(EXAMPLE_NOTE);
  });

  it('splits at the last blank line', () => {
    const body = 'one\n\n— not a signature, but text\n\n\ntwo\n';
    const note = formatNote({ text: body, signatures: [signNote(log, logVerifier, body)] });
    expect(parseNote(note).text).toBe(body);
    expect(open(note).text).toBe(body);
  });

  it('refuses a bad signature of a known key, ignores unknown keys, and needs one known key', () => {
    const bad = { ...signNote(log, logVerifier, 'another text\n') };
    const good = cosignNote(witness, witnessVerifier, text, 1);
    expect(codeOf(() => open(formatNote({ text, signatures: [good, bad] })))).toBe('CHECKPOINT_INVALID');
    expect(open(formatNote({ text, signatures: [good, bad] }), [witnessVerifier]).unknown).toEqual([bad]);
    expect(codeOf(() => open(signed, []))).toBe('CHECKPOINT_INVALID');
    expect(codeOf(() => open(signed, [verifierKey(nodeCrypto, 'other', LOG_SIGNATURE, log.publicKey)]))).toBe(
      'CHECKPOINT_INVALID',
    );
  });

  it('counts no key twice', () => {
    const signatures = [1, 2, 2].map((seconds) => cosignNote(witness, witnessVerifier, text, seconds));
    const opened = open(formatNote({ text, signatures }), [witnessVerifier, witnessVerifier]);
    expect(opened.verified.map(({ unixSeconds }) => unixSeconds)).toEqual([1]);
  });

  it('is not confused by two known keys with one name and id', () => {
    // A collision costs 2^32 tries; here it is pretended.
    const other = { ...logVerifier, publicKey: testSigner('other').publicKey };
    expect(open(signed, [other, logVerifier]).verified.map(({ key }) => key)).toEqual([logVerifier]);
    expect(codeOf(() => open(signed, [other]))).toBe('CHECKPOINT_INVALID');
  });

  it('takes 100 signatures and not 101', () => {
    const line = signNote(log, logVerifier, text);
    const many = (count: number) => ({ text, signatures: Array.from({ length: count }, () => line) });
    expect(parseNote(formatNote(many(SIGNATURES_MAX))).signatures).toHaveLength(SIGNATURES_MAX);
    expect(codeOf(() => formatNote(many(SIGNATURES_MAX + 1)))).toBe('DECODE_FAILED');
  });

  it('bounds the size of a note', () => {
    expect(codeOf(() => parseNote(`${'x'.repeat(1_000_000)}\n\n${logLine}`))).toBe('DECODE_FAILED');
  });

  it.each([
    ['nothing', ''],
    ['no signatures', 'text\n\n'],
    ['no blank line', `text\n${logLine}`],
    ['no newline at the end', signed.slice(0, -1)],
    ['an empty signature line', `text\n\n${logLine}\n`],
    ['a hyphen', `text\n\n${logLine.replace('—', '-')}`],
    ['two spaces', `text\n\n${logLine.replace('— ', '—  ')}`],
    ['a trailing space', `text\n\n${logLine.replace('\n', ' \n')}`],
    ['a name with a plus', `text\n\n${logLine.replace('waggle', 'wag+gle')}`],
    ['a name with a Unicode space', `text\n\n${logLine.replace('waggle', 'wag\u00a0gle')}`],
    ['a carriage return', `text\n\n${logLine.replace('\n', '\r\n')}`],
    ['a tab in the text', `te\txt\n\n${logLine}`],
    ['half a character', `te\ud800xt\n\n${logLine}`],
    ['a key id alone', `text\n\n— name AAAAAA==\n`],
    ['base64 with bits left over', `text\n\n— name AAAAAAF=\n`],
    ['base64 without padding', `text\n\n— name AAAAAAE\n`],
  ])('refuses %s', (_, note) => {
    expect(codeOf(() => parseNote(note))).toBe('DECODE_FAILED');
  });

  it('has one text for one note, whatever is parsed', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), mutations(signed), mutations(SOFA)), (note) => {
        const parsed = valueOr(['DECODE_FAILED'], () => parseNote(note));
        if (parsed !== undefined) expect(formatNote(parsed)).toBe(note);
      }),
      { numRuns: 2_000 },
    );
  });

  it('opens nothing that was not signed, whatever is changed', () => {
    fc.assert(
      fc.property(mutations(signed), (note) => {
        const opened = valueOr(['DECODE_FAILED', 'CHECKPOINT_INVALID'], () => open(note));
        if (opened !== undefined) expect(opened.text).toBe(text);
      }),
      { numRuns: 500 },
    );
  });

  it('notices every changed character of the text and of the one signature', () => {
    const note = `${text}\n${logLine}`;
    for (let i = 0; i < note.length; i++) {
      const changed = note.slice(0, i) + (note[i] === 'x' ? 'y' : 'x') + note.slice(i + 1);
      expect(['DECODE_FAILED', 'CHECKPOINT_INVALID']).toContain(codeOf(() => open(changed)));
    }
  });
});

describe('verifier keys', () => {
  it('come back as they went', () => {
    const name = fc.string({ minLength: 1, maxLength: 40 }).filter((each) => !/[\s+]/.test(each));
    const type = fc.constantFrom(LOG_SIGNATURE, COSIGNATURE);
    fc.assert(
      fc.property(name, type, fc.uint8Array({ minLength: 32, maxLength: 32 }), (keyName, keyType, publicKey) => {
        const key = verifierKey(nodeCrypto, keyName, keyType, publicKey);
        expect(parseVerifierKey(nodeCrypto, formatVerifierKey(key))).toEqual(key);
      }),
    );
  });

  it('are refused with any character changed, and with any other text', () => {
    for (let i = 0; i < EXAMPLE_KEY.length; i++) {
      const changed = EXAMPLE_KEY.slice(0, i) + (EXAMPLE_KEY[i] === '5' ? '6' : '5') + EXAMPLE_KEY.slice(i + 1);
      expect(codeOf(() => parseVerifierKey(nodeCrypto, changed))).toBe('DECODE_FAILED');
    }
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), mutations(EXAMPLE_KEY)), (changed) => {
        const key = valueOr(['DECODE_FAILED'], () => parseVerifierKey(nodeCrypto, changed));
        if (key !== undefined) expect(formatVerifierKey(key)).toBe(changed);
      }),
    );
  });

  it('of other types are refused', () => {
    const key = concat(new Uint8Array([2]), log.publicKey);
    const id = nodeCrypto.sha256(utf8('name\n'), key).subarray(0, 4);
    expect(codeOf(() => parseVerifierKey(nodeCrypto, `name+${hex.encode(id)}+${base64.encode(key)}`))).toBe(
      'DECODE_FAILED',
    );
  });

  it.each(['', 'a b', 'a+b', 'a\u0085b', 'a\u2003b', 'a\u3000b', 'a\nb', 'a\u0000b', 'a\udc00', 'x'.repeat(256)])(
    'are not named %j',
    (name) => {
      expect(codeOf(() => parseKeyName(name))).toBe('DECODE_FAILED');
    },
  );
});

describe('c2sp.org/tlog-checkpoint and tlog-cosignature', () => {
  it('parses the cosigned checkpoint of the specification', () => {
    const note = parseNote(SOFA);
    expect(parseCheckpoint(note.text)).toEqual({
      origin: 'example.com/behind-the-sofa',
      size: 20_852_163,
      root: base64.decode('CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I='),
    });
    expect(note.signatures.map(({ name, payload }) => [name, payload.length])).toEqual([
      ['example.com/behind-the-sofa', 64],
      ['witness.example.com/w1', 8 + 64],
    ]);
    expect(formatNote(note)).toBe(SOFA);
  });

  it('names keys and origin as the protocol says', () => {
    const cluster = `0123456789abcdef${'0'.repeat(48)}` as Parameters<typeof originOf>[1];
    expect(originOf('waggle.example', cluster)).toBe(ORIGIN);
    expect(codeOf(() => originOf('two words', cluster))).toBe('DECODE_FAILED');
    expect([logVerifier.name, witnessVerifier.name]).toEqual([ORIGIN, `${ORIGIN}/a1b2c3d4`]);
  });

  it('opens what was signed and cosigned', () => {
    const opened = openCheckpoint(nodeCrypto, signed, [logVerifier, witnessVerifier]);
    expect(opened.checkpoint).toEqual(checkpoint);
    expect(opened.verified.map(({ key, unixSeconds }) => [key.name, unixSeconds])).toEqual([
      [ORIGIN, null],
      [`${ORIGIN}/a1b2c3d4`, 1_700_000_000],
    ]);
  });

  it('signs over the message of the specification', () => {
    const [logSignature, cosignature] = parseNote(signed).signatures.map(({ payload }) => payload);
    expect(nodeCrypto.ed25519Verify(log.publicKey, utf8(text), logSignature!)).toBe(true);
    expect(hex.encode(cosignature!.subarray(0, 8))).toBe('000000006553f100');
    const message = utf8(`cosignature/v1\ntime 1700000000\n${text}`);
    expect(nodeCrypto.ed25519Verify(witness.publicKey, message, cosignature!.subarray(8))).toBe(true);
  });

  it('refuses a cosignature whose time was changed, or is beyond any clock', () => {
    const { name, keyId, payload } = cosignNote(witness, witnessVerifier, text, 1);
    for (const [at, value] of [
      [7, 2],
      [0, 0x80],
      [1, 0x20],
    ] as const) {
      const line = formatSignatureLine({ name, keyId, payload: payload.with(at, value) });
      expect(codeOf(() => open(`${text}\n${line}`))).toBe('CHECKPOINT_INVALID');
    }
    const short = formatSignatureLine({ name, keyId, payload: payload.subarray(1) });
    expect(codeOf(() => open(`${text}\n${short}`))).toBe('CHECKPOINT_INVALID');
  });

  it('wants the signature of the log itself', () => {
    const cosigned = `${text}\n${witnessLine}`;
    expect(codeOf(() => openCheckpoint(nodeCrypto, cosigned, [logVerifier, witnessVerifier]))).toBe(
      'CHECKPOINT_INVALID',
    );
    const elsewhere = logKey(nodeCrypto, 'elsewhere', log.publicKey);
    const line = signCheckpoint(nodeCrypto, text, 'elsewhere', log);
    expect(codeOf(() => openCheckpoint(nodeCrypto, `${text}\n${line}`, [elsewhere]))).toBe('CHECKPOINT_INVALID');
  });

  it.each([
    ['an extension line', `${text}more\n`],
    ['a missing newline', text.slice(0, -1)],
    ['a missing root', text.split('\n').slice(0, 2).join('\n') + '\n'],
    ['a blank line', text.replace('\n', '\n\n')],
    ['a leading zero', text.replace('\n5\n', '\n05\n')],
    ['a sign', text.replace('\n5\n', '\n+5\n')],
    ['an exponent', text.replace('\n5\n', '\n5e0\n')],
    ['no size', text.replace('\n5\n', '\n\n')],
    ['a size beyond 2^53', text.replace('\n5\n', '\n9007199254740992\n')],
    ['a short root', `${ORIGIN}\n5\n${base64.encode(new Uint8Array(31))}\n`],
    ['no origin', text.replace(ORIGIN, '')],
    ['an origin with a space', text.replace('waggle', 'wag gle')],
  ])('refuses %s', (_, changed) => {
    expect(codeOf(() => parseCheckpoint(changed))).toBe('DECODE_FAILED');
  });

  it('has one text for one checkpoint, whatever is parsed', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), mutations(text)), (changed) => {
        const parsed = valueOr(['DECODE_FAILED'], () => parseCheckpoint(changed));
        if (parsed !== undefined) expect(checkpointText(parsed)).toBe(changed);
      }),
      { numRuns: 1_000 },
    );
  });
});
