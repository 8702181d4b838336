import { EventEmitter } from 'node:events';
import type { SecretStream } from 'hyperdht';
import type { MuxStream } from 'protomux';
import { MESSAGE_BYTES_MAX } from './transport.ts';

/** Bytes that Protomux puts before a message, with room to spare. */
const HEAD_BYTES_MAX = 16;
/** Frames that open or close channels, of one connection: a correct node sends two. */
const CONTROL_FRAMES_MAX = 16;
/** First bytes of a frame: channel 0 is the control channel, type 0 on it a batch. */
const CONTROL = 0;
const BATCH = 0;
/** compact-encoding writes whole numbers up to this as one byte. Channels and types have small numbers. */
const ONE_BYTE_MAX = 0xfc;

/**
 * What of a secure stream Protomux gets to see. Frames that no node of ours sends are kept from it: nested batches overflow its
 * stack, and an error of that kind it throws into the process; openings without end it answers without end.
 */
export function guarded(stream: SecretStream, malformed: () => void): MuxStream {
  let controlFrames = 0;
  const isSound = (frame: Uint8Array): boolean => {
    if (frame.length > MESSAGE_BYTES_MAX + HEAD_BYTES_MAX) return false;
    const [channel, type] = frame;
    if (channel === undefined || type === undefined || channel > ONE_BYTE_MAX || type > ONE_BYTE_MAX) return false;
    return channel !== CONTROL || (type !== BATCH && ++controlFrames <= CONTROL_FRAMES_MAX);
  };
  const seen: MuxStream = Object.assign(new EventEmitter(), {
    userData: null,
    destroyed: false,
    alloc: (length: number) => stream.alloc(length),
    write: (bytes: Uint8Array) => stream.write(bytes),
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    end: () => stream.end(),
    destroy: (error?: Error) => stream.destroy(error),
  });
  Object.defineProperty(seen, 'destroyed', { get: () => stream.destroyed });
  stream.on('data', (frame: Uint8Array) => {
    if (stream.destroyed) return;
    if (isSound(frame)) seen.emit('data', frame);
    else malformed();
  });
  for (const name of ['drain', 'end', 'close']) stream.on(name, () => seen.emit(name));
  return seen;
}
