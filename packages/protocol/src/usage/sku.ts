/**
 * The billing categories (SKUs), a fixed list of at most 64. A request that failed before its output format was known
 * counts under `resize.other`.
 */
export const SKUS = [
  'inspect',
  'resize.avif',
  'resize.gif',
  'resize.jpeg',
  'resize.other',
  'resize.png',
  'resize.webp',
] as const;

export type Sku = (typeof SKUS)[number];

const known: ReadonlySet<string> = new Set(SKUS);

/** Whether the text names a billing category. */
export const isSku = (text: string): text is Sku => known.has(text);
