// The package ships no types, and those of `src` are not part of the test project.
// oxlint-disable-next-line typescript/triple-slash-reference -- the packages ship no types; ours are not imported by anything
/// <reference path="../../src/transport/hyperswarm.d.ts" />
import { once } from 'node:events';
import DHT, { type SecretStream } from 'hyperdht';
import Protomux from 'protomux';
import { hex } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import { CHANNELS, type ChannelKind } from '../../src/transport/connection.ts';
import { publicKeyOf, type Address } from '../../src/transport/index.ts';
import { CLUSTER, seedOf } from './network.ts';
import { freePort } from './real.ts';

/** A node with a key of a member's that keeps to no rules. */
export interface Hostile {
  /** A connection to that node, after the handshake. */
  connect(key: MemberKey, address: Address): Promise<SecretStream>;
  close(): Promise<void>;
}

export async function hostileNode(n: number): Promise<Hostile> {
  const keyPair = DHT.keyPair(Buffer.from(seedOf(n)));
  const host = '127.0.0.1';
  const options = { host, keyPair, bootstrap: [], connectionKeepAlive: 1_000, maxSize: 100 };
  const dht = DHT.bootstrapper(await freePort(), host, options);
  await dht.bind();
  return {
    connect: async (key, address) => {
      const relayAddresses = [address];
      const stream = dht.connect(Buffer.from(publicKeyOf(key)), { keyPair, localConnection: false, relayAddresses });
      stream.on('error', () => undefined);
      await once(stream, 'open');
      return stream;
    },
    close: () => dht.destroy({ force: true }),
  };
}

/** Resolves when it has ended, however it did. */
export const ended = (stream: SecretStream): Promise<void> =>
  new Promise((resolve) => {
    if (stream.destroyed) resolve();
    else stream.once('close', resolve);
  });

/** Opens the channel on it, as a correct node would, and resolves when the other side has, too. */
export function openChannel(stream: SecretStream, kind: ChannelKind): Promise<void> {
  return new Promise((resolve) => {
    new Protomux(Object.assign(stream, { userData: null }))
      .createChannel({
        protocol: CHANNELS[kind],
        id: Buffer.from(hex.decode(CLUSTER)),
        messages: [{ onmessage: () => undefined }],
        onopen: resolve,
        onclose: () => undefined,
        ondrain: () => undefined,
      })!
      .open();
  });
}

/** A batch in a batch in a batch … of about so many bytes: Protomux alone would overflow its stack and end the process. */
export function nestedBatch(bytes: number): Buffer {
  const heads: Buffer[] = [];
  let inner = 1;
  while (inner < bytes) {
    const length = inner <= 0xfc ? Buffer.from([inner]) : Buffer.from([0xfd, inner & 0xff, inner >> 8]);
    heads.push(Buffer.concat([Buffer.from([0, 0]), length]));
    inner += length.length + 2;
  }
  return Buffer.concat([Buffer.from([0]), ...heads.reverse(), Buffer.from([0])]);
}
