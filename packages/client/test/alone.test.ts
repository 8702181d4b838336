import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { RESIZE_PARAMETERS } from '@waggle/images';
import type { DIMENSIONS } from '@waggle/protocol/lattice';
import type { ResizeParams, Usage } from '../src/types.ts';

const source = new URL('../src/', import.meta.url);
const files = readdirSync(source).map((name) => [name, readFileSync(new URL(name, source), 'utf8')] as const);

/** What a browser does not have, and packages of others. */
const foreign = (text: string): string[] =>
  [
    ...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'((?!\.\/)[^']+)'|\b(Buffer|process|require|setImmediate)\b[.(]/g),
  ].map((match) => match[0]);

it('the sources import nothing but each other, and use nothing that only Node has', () => {
  expect(files.length).toBeGreaterThan(5);
  for (const [name, text] of files) expect(foreign(text), name).toEqual([]);
});

it('and that would be seen', () => {
  expect(foreign("import { x } from 'node:fs';")).toHaveLength(1);
  expect(foreign("await import('undici')")).toHaveLength(1);
  expect(foreign('Buffer.from(x)')).toHaveLength(1);
});

it('the types have every parameter of a resize and every dimension of usage, and no others', () => {
  type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : never) : never;
  const params: Same<keyof ResizeParams, keyof typeof RESIZE_PARAMETERS | 'preset'> = true;
  const dimensions: Same<keyof Usage, (typeof DIMENSIONS)[number]> = true;
  // The compiler is what checks it.
  expect([params, dimensions]).toEqual([true, true]);
});
