import { base64, utf8, WaggleError, WireReader, WireWriter, type ReplicaId } from '../base/index.ts';
import type { ControlRegister } from './register.ts';
import type { Delta } from './registers.ts';
import { checkLength, readHead, readSpan, SECTIONS, writeHead, writeSpan } from './wire-delta.ts';

/** Bounds of a control register, in bytes of UTF-8: one always fits into a message. */
export const CONTROL_KEY_BYTES_MAX = 256;
export const CONTROL_VALUE_BYTES_MAX = 48 * 1024;

const SIGNATURE_BYTES = 64;
/** Version, key and value of one byte and their lengths, signature. */
const REGISTER_BYTES_MIN = 1 + 2 + 2 + SIGNATURE_BYTES;
/** Version, lengths of key and value, signature. */
const REGISTER_BYTES_EXTRA = 8 + 2 + 3 + SIGNATURE_BYTES;

export type ControlDelta = Delta<ControlRegister, ReplicaId>;

/** Bytes that a register takes in a delta, at most. */
export const controlRegisterBytes = ({ key, value }: ControlRegister): number =>
  REGISTER_BYTES_EXTRA + utf8(key).length + utf8(value).length;

/**
 * `head ‖ span ‖ count ‖ (version − previous − 1 ‖ key ‖ value ‖ signature[64])*`, numbers as varints, texts with their length.
 * Throws `DECODE_FAILED` for a delta or register above the bounds.
 */
export function encodeControlDelta(delta: ControlDelta): Uint8Array<ArrayBuffer> {
  const wire = writeSpan(writeHead(new WireWriter(), SECTIONS.control, delta.writer), delta).varint(
    delta.registers.length,
  );
  let last = delta.from;
  for (const { key, version, value, signature } of delta.registers) {
    wire.varint(version - last - 1);
    last = version;
    writeText(wire, key, CONTROL_KEY_BYTES_MAX, 'key');
    writeText(wire, value, CONTROL_VALUE_BYTES_MAX, 'value');
    const signatureBytes = base64.decode(signature);
    if (signatureBytes.length !== SIGNATURE_BYTES)
      throw new WaggleError(
        'DECODE_FAILED',
        `Expected a signature of ${SIGNATURE_BYTES} bytes, received ${signatureBytes.length}`,
      );
    wire.raw(signatureBytes);
  }
  const bytes = wire.finish();
  checkLength(bytes);
  return bytes;
}

/** Parses what `encodeControlDelta` wrote, and nothing else. Signatures are not checked here. Throws `DECODE_FAILED`. */
export function decodeControlDelta(bytes: Uint8Array): ControlDelta {
  checkLength(bytes);
  const wire = new WireReader(bytes);
  const writer = readHead(wire, SECTIONS.control);
  const span = readSpan(wire);
  const count = wire.varint(Math.floor(wire.left / REGISTER_BYTES_MIN));
  const registers: ControlRegister[] = [];
  let last = span.from;
  for (let i = 0; i < count; i++) {
    last += 1 + wire.varint(span.to - last - 1);
    const key = readText(wire, CONTROL_KEY_BYTES_MAX, 'key');
    const value = readText(wire, CONTROL_VALUE_BYTES_MAX, 'value');
    registers.push({ key, version: last, value, signature: base64.encode(wire.raw(SIGNATURE_BYTES)) });
  }
  wire.end();
  return { writer, ...span, registers };
}

function checkText(length: number, max: number, what: string): void {
  if (length < 1 || length > max)
    throw new WaggleError('DECODE_FAILED', `Expected 1 to ${max} bytes for a register's ${what}, received ${length}`);
}

function writeText(wire: WireWriter, text: string, max: number, what: string): void {
  const bytes = utf8(text);
  checkText(bytes.length, max, what);
  wire.bytes(bytes);
}

function readText(wire: WireReader, max: number, what: string): string {
  const text = wire.text(max);
  checkText(text.length, max, what);
  return text;
}
