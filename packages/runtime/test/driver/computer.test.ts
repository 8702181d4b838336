import { describe, expect, it } from 'vitest';
import { hex, utf8, type WaggleError } from '@waggle/protocol/base';
import { compute, type Computed, type Job } from '@waggle/protocol/sealing';
import { Computer } from '../../src/driver/computer.ts';
import { nodeCrypto } from '../../src/index.ts';

const jobOf = (contents: readonly Uint8Array[]): Job => ({
  kind: 'slot',
  rows: { customers: '', skus: [], numbers: new Float64Array(0) },
  contents,
});
const row = utf8(
  '{"bytesIn":1,"bytesOut":2,"cpuMicros":3,"customer":"acme","pixelsIn":4,"pixelsOut":5,"requests":6,"requestsFailed":7,"sku":"inspect"}\n',
);
const fatal = (error: WaggleError): void => expect.unreachable(error.message);

describe('the thread that computes', () => {
  it('gives what is computed here, one job after the other, and what is wrong', async () => {
    const computer = new Computer(fatal);
    const run = (job: Job): Promise<Computed> => new Promise((resolve) => computer.run(job, resolve));
    for (const contents of [[row], [row, row], [], [utf8('{}\n')]]) {
      const result = await run(jobOf(contents));
      const expected = compute(jobOf(contents), nodeCrypto);
      expect(result.kind).toBe(expected.kind);
      if (result.kind === 'slot' && expected.kind === 'slot')
        expect([result.digest, hex.encode(result.bytes)]).toEqual([expected.digest, hex.encode(expected.bytes)]);
      else expect(result).toEqual(expected);
    }
    await computer.stop();
  });

  it('says nothing more once it is stopped, with a job or without one', async () => {
    const idle = new Computer(fatal);
    await idle.stop();
    const busy = new Computer(fatal);
    busy.run(jobOf([row]), () => expect.unreachable('a result'));
    await Promise.all([busy.stop(), busy.stop()]);
  });

  it('ends the node when it fails, once', async () => {
    const errors: WaggleError[] = [];
    const failed = new Promise<void>((resolve) => {
      const computer = new Computer((error) => {
        errors.push(error);
        resolve();
      });
      // No job at all: a mistake of ours, and not of those who wrote a content.
      computer.run({ kind: 'seal' } as unknown as Job, () => expect.unreachable('a result'));
    });
    await failed;
    expect(errors.map(({ code }) => code)).toEqual(['INTERNAL']);
  });
});
