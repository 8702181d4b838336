import { describe, expect, it } from 'vitest';
import { parseCpuTime } from '../src/child.ts';
import { estimateCpuMicros, guessCpuMicros } from '../src/estimate.ts';
import { failureOf } from '../src/failures.ts';
import type { SourceHeader } from '../src/geometry.ts';
import { parsePlan } from '../src/plan.ts';

const photo: SourceHeader = {
  format: 'jpeg',
  width: 1600,
  height: 1200,
  frames: 1,
  orientation: 1,
  space: 'srgb',
  depth: 'uchar',
  hasAlpha: false,
  progressive: false,
  bytes: 263_000,
};
const small = { width: '400', height: '300' };
const cost = (params: Record<string, string>, source: Partial<SourceHeader> = {}): number =>
  estimateCpuMicros(parsePlan({ ...small, ...params }), { ...photo, ...source });

describe('estimateCpuMicros', () => {
  it('orders what was measured: JPEG, WebP, AVIF, GIF', () => {
    const costs = ['jpeg', 'webp', 'avif', 'gif'].map((format) => cost({ format }));
    expect(costs).toEqual([...costs].sort((a, b) => a - b));
    expect(costs[3]! / costs[0]!).toBeGreaterThan(5);
  });

  it('is the 7 ms of a common photograph within a factor of two', () => {
    expect(cost({})).toBeGreaterThan(3_500);
    expect(cost({})).toBeLessThan(14_000);
    expect(guessCpuMicros(parsePlan(small), photo.bytes)).toBeGreaterThan(3_500);
    expect(guessCpuMicros(parsePlan(small), photo.bytes)).toBeLessThan(14_000);
  });

  it('grows with pixels, frames and progressive scans', () => {
    expect(cost({}, { progressive: true })).toBeGreaterThan(cost({}));
    expect(cost({}, { width: 4000, height: 3000 })).toBeGreaterThan(cost({}));
    const moving: Partial<SourceHeader> = { format: 'gif', frames: 50 };
    expect(cost({}, moving)).toBeGreaterThan(20 * cost({ frames: 'first' }, moving));
    expect(cost({ format: 'jpeg' }, moving)).toBeLessThan(cost({ frames: 'first', format: 'gif' }, moving));
  });
});

describe('parseCpuTime', () => {
  it.each([
    ['0:01.25', 1_250_000],
    ['00:00:07', 7_000_000],
    ['2-01:00:00', 176_400_000_000],
    ['', 0],
  ])('reads %j', (text, micros) => {
    expect(parseCpuTime(text)).toBe(micros);
  });
});

describe('failureOf', () => {
  it.each([
    ['vips_tracked: out of memory -- size == 732MB', 'RESIZE_MEMORY'],
    [
      'heif: Memory allocation error: Unspecified: Allocating 192000015 bytes failed (6.0)\nwbuffer_write: write failed',
      'RESIZE_MEMORY',
    ],
    ['Input image exceeds pixel limit', 'IMAGE_TOO_LARGE'],
    ['Input buffer contains unsupported image format', 'IMAGE_UNSUPPORTED'],
    ['source: bad seek to 128\nheif: Invalid input: Unexpected end of file', 'IMAGE_CORRUPT'],
    ['vipspng: libpng read error\nwebpsave: unable to encode', 'IMAGE_CORRUPT'],
    ['webpsave: unable to encode\nwbuffer_write: write failed', 'OUTPUT_TOO_LARGE'],
  ])('maps %j', (text, code) => {
    expect(failureOf(new Error(text)).code).toBe(code);
  });
});
