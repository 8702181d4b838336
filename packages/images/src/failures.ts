import { type ErrorCode, WaggleError } from '@waggle/protocol/base';

/** What libvips and the codecs below it say when an allocation fails, in their words. */
const MEMORY = /out of memory|insufficient memory|memory allocation|failed to allocate|allocating \d+ bytes|bufferpool|ENOMEM|bad_alloc/i;

/** In this order: a codec that is out of memory complains about other things too. */
const CAUSES: readonly (readonly [RegExp, ErrorCode, string])[] = [
  [MEMORY, 'RESIZE_MEMORY', 'Expected work that fits into the memory of a worker'],
  [/exceeds pixel limit/, 'IMAGE_TOO_LARGE', 'Expected a picture within the pixel limit'],
  [/unsupported image format/, 'IMAGE_UNSUPPORTED', 'Expected a picture in JPEG, PNG, WebP, AVIF or GIF'],
  [/Processed image is too large|save|unable to encode|write failed/, 'OUTPUT_TOO_LARGE', 'Expected a result that the format can hold'],
];

/** Longest part of a codec's own words that goes into a message, in characters. */
const DETAIL_LENGTH_MAX = 160;

/** The last line that says something; libheif logs every seek on its way to an error. */
function detailOf(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  const last = lines.filter((line) => line !== '' && !line.includes('bad seek')).at(-1) ?? 'no reason given';
  return last.slice(0, DETAIL_LENGTH_MAX);
}

/** The coded error for whatever a codec threw. What cannot be told apart is the source's fault: `IMAGE_CORRUPT`. */
export function failureOf(cause: unknown): WaggleError {
  if (cause instanceof WaggleError) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  const found = CAUSES.find(([pattern]) => pattern.test(text));
  if (found !== undefined) return new WaggleError(found[1], `${found[2]}, received: ${detailOf(text)}`, { cause });
  return new WaggleError('IMAGE_CORRUPT', `Expected a whole picture, received: ${detailOf(text)}`, { cause });
}

/** Why a process ended while it had a picture. GLib and V8 abort when an allocation fails, and say so on stderr. */
export function crashOf(stderr: string, exit: string): WaggleError {
  if (MEMORY.test(stderr)) return new WaggleError('RESIZE_MEMORY', `Expected work that fits into the memory of a worker, received: ${detailOf(stderr)}`);
  return new WaggleError('RESIZE_CRASHED', `Expected a result, the worker ended (${exit})`);
}
