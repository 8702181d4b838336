import { type ErrorCode, WaggleError } from '@waggle/protocol/base';

/** What libvips and the codecs below it say when an allocation fails, in their words. */
const MEMORY =
  /out of memory|insufficient memory|memory allocation|failed to allocate|allocating \d+ bytes|bufferpool|ENOMEM|bad_alloc/i;

/** By the first thing that is said. */
const CAUSES: readonly (readonly [RegExp, ErrorCode, string])[] = [
  [/exceeds pixel limit/, 'IMAGE_TOO_LARGE', 'Expected a picture within the pixel limit'],
  [/unsupported image format/, 'IMAGE_UNSUPPORTED', 'Expected a picture in JPEG, PNG, WebP, AVIF or GIF'],
  [
    /Processed image is too large|save|encode|write failed/i,
    'OUTPUT_TOO_LARGE',
    'Expected a result that the format can hold',
  ],
];

/** Longest part of a codec's own words that goes into a message, in characters. */
const DETAIL_LENGTH_MAX = 160;

/** The first line that says something: what follows are consequences, what goes before are libheif's logged seeks. */
function detailOf(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  const first = lines.find((line) => line !== '' && !line.includes('bad seek')) ?? 'no reason given';
  return first.slice(0, DETAIL_LENGTH_MAX);
}

const outOfMemory = (detail: string): WaggleError =>
  new WaggleError('RESIZE_MEMORY', `Expected work that fits into the memory of a worker, received: ${detail}`);

/** The coded error for whatever a codec threw. What cannot be told apart is the source's fault: `IMAGE_CORRUPT`. */
export function failureOf(cause: unknown): WaggleError {
  if (cause instanceof WaggleError) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  const detail = detailOf(text);
  if (MEMORY.test(text)) return outOfMemory(detail);
  const found = CAUSES.find(([pattern]) => pattern.test(detail));
  if (found !== undefined) return new WaggleError(found[1], `${found[2]}, received: ${detail}`, { cause });
  return new WaggleError('IMAGE_CORRUPT', `Expected a whole picture, received: ${detail}`, { cause });
}

/** Why a process ended while it had a picture. GLib and V8 abort when an allocation fails, and say so on stderr. */
export function crashOf(stderr: string, exit: string): WaggleError {
  if (MEMORY.test(stderr)) return outOfMemory(detailOf(stderr));
  return new WaggleError('RESIZE_CRASHED', `Expected a result, the worker ended (${exit})`);
}
