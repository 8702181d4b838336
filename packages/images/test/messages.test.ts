import { WaggleError } from '@waggle/protocol/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameReader, frameHead, type WorkerMessage } from '../src/messages.ts';

const ready = (cpuTotalMicros: number): WorkerMessage => ({ type: 'ready', cpuTotalMicros });

describe('frames', () => {
  it('come out as they went in, however they are cut', () => {
    const frames = fc.array(fc.tuple(fc.nat(), fc.uint8Array({ maxLength: 300 })), { maxLength: 8 });
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (sent, cuts) => {
        const whole = Buffer.concat(sent.flatMap(([n, body]) => [frameHead(ready(n), body.length), body]));
        const got: [number, number[]][] = [];
        const reader = new FrameReader<WorkerMessage>((message, body) => got.push([message.cpuTotalMicros, [...body]]));
        for (let offset = 0, i = 0; offset < whole.length; i++) {
          const length = cuts[i % cuts.length]!;
          reader.push(whole.subarray(offset, offset + length));
          offset += length;
        }
        expect(got).toEqual(sent.map(([n, body]) => [n, [...body]]));
      }),
    );
  });

  it('are refused beyond their bounds before anything is allocated', () => {
    for (const [header, body] of [
      [0, 0],
      [70_000, 0],
      [10, 2 ** 31],
    ]) {
      const prefix = Buffer.alloc(8);
      prefix.writeUInt32LE(header!, 0);
      prefix.writeUInt32LE(body!, 4);
      expect(() => new FrameReader(() => {}).push(prefix)).toThrow(WaggleError);
    }
  });
});
