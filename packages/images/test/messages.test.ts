import { WaggleError } from '@waggle/protocol/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameReader, frameHead, parseWorkerMessage, type WorkerMessage } from '../src/messages.ts';

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

describe('reports of a worker', () => {
  const picture = { format: 'jpeg', width: 4, height: 3, frames: 1, bytes: 100 };
  const figures = { cpuTotalMicros: 5, rssBytes: 1, cpuMicros: 2, pixelsIn: 12, pixelsOut: 12 };
  const done = { type: 'done', ...figures, input: picture, output: picture, estimateMicros: 9 };
  const failed = { type: 'done', ...figures, error: { code: 'IMAGE_CORRUPT', message: 'm' } };

  it('are taken as they are', () => {
    for (const message of [{ type: 'ready', cpuTotalMicros: 0 }, done, failed])
      expect(parseWorkerMessage(message)).toEqual(message);
  });

  it('are refused with any figure that is no count, and with anything else that is not theirs', () => {
    const lies = [-5, 1.5, 'x', null, 2 ** 60, Number.NaN, {}];
    for (const name of Object.keys(figures))
      for (const lie of lies)
        expect(() => parseWorkerMessage({ ...done, [name]: lie }), `${name} ${JSON.stringify(lie)}`).toThrow(
          WaggleError,
        );
    for (const lie of [...lies, { ...picture, format: 'bmp' }, { ...picture, width: -1 }])
      expect(() => parseWorkerMessage({ ...done, output: lie })).toThrow(WaggleError);
    for (const error of [
      { code: 'NO_SUCH', message: 'm' },
      { code: 'toString', message: 'm' },
      { code: 'IMAGE_CORRUPT' },
      'x',
    ])
      expect(() => parseWorkerMessage({ ...failed, error })).toThrow(WaggleError);
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(() => parseWorkerMessage(value)).toThrow(WaggleError);
      }),
    );
  });
});
