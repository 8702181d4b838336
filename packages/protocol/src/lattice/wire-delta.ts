import { hex, WaggleError, type ReplicaId, type WireReader, type WireWriter } from '../base/index.ts';
import type { Range } from './part.ts';

/** Most bytes of one message between nodes. */
export const MESSAGE_BYTES_MAX = 64 * 1024;
/** A budget for `Registers.delta` that leaves room for the heads of delta and frame. */
export const DELTA_BYTES_MAX = MESSAGE_BYTES_MAX - 1024;

/** First byte of every delta: raised when an encoding changes. */
const FORMAT = 1;
const REPLICA_BYTES = 16;

/** What kind of registers a delta carries: its second byte. Within the class `usage`, other kinds of rows may follow. */
export const SECTIONS = { control: 1, usageRows: 2 } as const;

type Span = Range & { readonly end: number };

/** Throws `DECODE_FAILED` for a message above the bound: the first thing to be done with one. */
export function checkLength(bytes: Uint8Array): void {
  if (bytes.length > MESSAGE_BYTES_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected at most ${MESSAGE_BYTES_MAX} bytes, received ${bytes.length}`);
}

/** `format ‖ section ‖ replica[16]` */
export const writeHead = (wire: WireWriter, section: number, replica: ReplicaId): WireWriter =>
  wire.varint(FORMAT).varint(section).raw(hex.decode(replica));

export function readHead(wire: WireReader, section: number): ReplicaId {
  const [format, received] = [wire.varint(), wire.varint()];
  if (format !== FORMAT || received !== section)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected format ${FORMAT} and section ${section}, received ${format} and ${received}`,
    );
  return hex.encode(wire.raw(REPLICA_BYTES)) as ReplicaId;
}

/** `from ‖ to − from ‖ end − to` */
export const writeSpan = (wire: WireWriter, { from, to, end }: Span): WireWriter =>
  wire
    .varint(from)
    .varint(to - from)
    .varint(end - to);

export function readSpan(wire: WireReader): Span {
  const from = wire.varint();
  const to = from + wire.varint(Number.MAX_SAFE_INTEGER - from);
  return { from, to, end: to + wire.varint(Number.MAX_SAFE_INTEGER - to) };
}

/** Bytes of a varint: 1 to 8. */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++;
  return bytes;
}
