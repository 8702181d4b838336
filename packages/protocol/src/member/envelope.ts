import { WaggleError, WireReader, WireWriter } from '../base/index.ts';
import { MESSAGE_BYTES_MAX } from '../lattice/index.ts';

/** Which core a message is for: its first byte. */
const CHANNELS = ['replication', 'membership'] as const;
export type Channel = (typeof CHANNELS)[number];

/** A message between members: what a core says, and the sender's clock (Unix ms) when it was sent. */
export interface Envelope {
  readonly channel: Channel;
  readonly wallMs: number;
  readonly frame: Uint8Array;
}

/** `channel ‖ wallMs ‖ frame`. Throws `DECODE_FAILED` above 64 KiB: the cores leave the few bytes that it takes. */
export function encodeEnvelope({ channel, wallMs, frame }: Envelope): Uint8Array<ArrayBuffer> {
  const bytes = new WireWriter().varint(CHANNELS.indexOf(channel)).varint(wallMs).raw(frame).finish();
  if (bytes.length > MESSAGE_BYTES_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected at most ${MESSAGE_BYTES_MAX} bytes, received ${bytes.length}`);
  return bytes;
}

/** Parses what `encodeEnvelope` wrote; the frame is a view of the input. Throws `DECODE_FAILED`. */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  const wire = new WireReader(bytes);
  const channel = CHANNELS[wire.varint(CHANNELS.length - 1)]!;
  return { channel, wallMs: wire.varint(), frame: wire.raw(wire.left) };
}
