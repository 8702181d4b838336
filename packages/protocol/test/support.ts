import { createHash, createHmac, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import {
  concat,
  fromUtf8,
  hex,
  utf8,
  type Crypto,
  type CustomerId,
  type Epoch,
  type Signer,
} from '../src/base/index.ts';
import { unpackStatements, type SealedEpoch } from '../src/sealing/index.ts';
import { parseSlot, type Slot, type SlotId } from '../src/usage/index.ts';

/** DER around a raw Ed25519 seed (RFC 8410, PKCS #8) and around a raw public key (SPKI). */
const PKCS8_PREFIX = hex.decode('302e020100300506032b657004220420');
const SPKI_PREFIX = hex.decode('302a300506032b6570032100');

/** The primitives of the core, by node:crypto. */
export const nodeCrypto: Crypto = {
  sha256: (...parts) => {
    const hash = createHash('sha256');
    for (const part of parts) hash.update(part);
    return new Uint8Array(hash.digest());
  },
  hmacSha256: (key, message) => new Uint8Array(createHmac('sha256', key).update(message).digest()),
  ed25519Verify: (publicKey, message, signature) => {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      const der = Buffer.from(concat(SPKI_PREFIX, publicKey));
      return verify(null, message, createPublicKey({ key: der, format: 'der', type: 'spki' }), signature);
    } catch {
      return false;
    }
  },
};

/** A key pair that belongs to a name: the same name gives the same keys, in every run. */
export function testSigner(name: string): Signer {
  const der = Buffer.from(concat(PKCS8_PREFIX, nodeCrypto.sha256(utf8(name))));
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(SPKI_PREFIX.length)),
    sign: (message) => new Uint8Array(sign(null, message, privateKey)),
  };
}

/** The statements of a sealed epoch, as texts. */
export const statementsIn = ({ outcome }: SealedEpoch): { customer: CustomerId; epoch: Epoch; text: string }[] =>
  unpackStatements(outcome.statements).map(({ customer, epoch, bytes }) => ({
    customer,
    epoch,
    text: fromUtf8(bytes),
  }));

/** The slots that a sealed epoch counts, as far as their contents are known. */
export const slotsIn = ({ outcome }: SealedEpoch): { id: SlotId; content: Slot }[] =>
  outcome.slots.flatMap(({ id, content }) => (content === null ? [] : [{ id, content: parseSlot(content) }]));
