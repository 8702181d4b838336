import { assert } from './assert.ts';

/** Chance as an argument. */
export interface Random {
  /** A whole number from 0 to n − 1, each equally likely; n from 1 to 2^32. */
  below(n: number): number;
  /** That many bytes. */
  bytes(length: number): Uint8Array;
}

/**
 * A seeded generator for simulations and tests, never for secrets (sfc32, PractRand-tested; seeded by splitmix32).
 * The same seed gives the same sequence on every machine.
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const splitmix = (): number => {
    state = (state + 0x9e3779b9) | 0;
    let t = state ^ (state >>> 16);
    t = Math.imul(t, 0x21f0aaad);
    t ^= t >>> 15;
    t = Math.imul(t, 0x735a2d97);
    return t ^ (t >>> 15);
  };
  let a = splitmix();
  let b = splitmix();
  let c = splitmix();
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return {
    below(n) {
      assert(Number.isInteger(n) && n >= 1 && n <= 2 ** 32, `a bound from 1 to 2^32, not ${n}`);
      const limit = 2 ** 32 - (2 ** 32 % n);
      let value = next();
      while (value >= limit) value = next();
      return value % n;
    },
    bytes(length) {
      const bytes = new Uint8Array(length);
      for (let i = 0; i < length; i++) bytes[i] = next() & 0xff;
      return bytes;
    },
  };
}
