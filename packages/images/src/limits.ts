import { WaggleError } from '@waggle/protocol/base';
import type { OutputFormat, ResizePlan } from './plan.ts';
import type { PlannedPicture, SourceHeader } from './geometry.ts';

/** What one job may take. */
export interface Limits {
  /** Bytes of a source. */
  readonly bodyBytesMax: number;
  /** Pixels of a source, summed over the frames that are decoded. */
  readonly inputPixelsMax: number;
  /** Frames that are decoded. */
  readonly framesMax: number;
  /** Pixels of a result, summed over its frames. */
  readonly outputPixelsMax: number;
  /** From submission to result, in ms. */
  readonly deadlineMs: number;
}

export const DEFAULT_LIMITS: Limits = {
  bodyBytesMax: 32 * 2 ** 20,
  inputPixelsMax: 100_000_000,
  framesMax: 500,
  outputPixelsMax: 50_000_000,
  deadlineMs: 30_000,
};

/**
 * Caps below `outputPixelsMax` for formats that are dear to write, in pixels over all frames: about 2 s of AVIF at
 * effort 0 (88 ms a megapixel) and 5 s of GIF (480 ms a megapixel).
 */
const DEAR_PIXELS_MAX: Partial<Record<OutputFormat, number>> = { avif: 25_000_000, gif: 10_000_000 };

/** Largest width and height that a format can hold (libwebp WEBP_MAX_DIMENSION; libvips refuses more than 16384 for AVIF). */
const SIDE_MAX: Record<OutputFormat, number> = { jpeg: 65_535, png: 65_535, gif: 65_535, webp: 16_383, avif: 16_384 };

/**
 * How far an estimate may be above the deadline before the job is refused unseen. The estimate is CPU time on another
 * machine, so only what is hopeless is refused; the rest is for the deadline itself.
 */
const HOPELESS = 4;

/** Longest side of a source: what JPEG and GIF can hold. A PNG of 2 000 000 × 10 would need hundreds of megabytes a line. */
const SOURCE_SIDE_MAX = 65_535;

/** Refuses a source by its header. Throws `IMAGE_TOO_MANY_FRAMES`, `IMAGE_TOO_LARGE`. */
export function checkSource(source: SourceHeader, framesDecoded: number, limits: Limits): void {
  if (framesDecoded > limits.framesMax)
    throw new WaggleError(
      'IMAGE_TOO_MANY_FRAMES',
      `Expected at most ${limits.framesMax} frames, received ${framesDecoded}; frames=first takes the first only`,
    );
  if (Math.max(source.width, source.height) > SOURCE_SIDE_MAX)
    throw new WaggleError(
      'IMAGE_TOO_LARGE',
      `Expected at most ${SOURCE_SIDE_MAX} pixels a side, received ${source.width} × ${source.height}`,
    );
  const pixels = source.width * source.height * framesDecoded;
  if (pixels > limits.inputPixelsMax)
    throw new WaggleError(
      'IMAGE_TOO_LARGE',
      `Expected a picture of at most ${limits.inputPixelsMax} pixels, received ${source.width} × ${source.height}` +
        (framesDecoded > 1 ? ` with ${framesDecoded} frames` : ''),
    );
}

/** Refuses a result before it is made. Throws `OUTPUT_TOO_LARGE`, `REQUEST_INVALID`, `RESIZE_DEADLINE`. */
export function checkResult(
  planned: PlannedPicture,
  plan: ResizePlan,
  limits: Limits,
  estimateMicros: number,
  budgetMs: number,
): void {
  const { format, width, height, frames } = planned;
  const pixelsMax = Math.min(limits.outputPixelsMax, DEAR_PIXELS_MAX[format] ?? Number.POSITIVE_INFINITY);
  const size = `${width} × ${height}${frames > 1 ? ` with ${frames} frames` : ''}`;
  if (width * height * frames > pixelsMax)
    throw new WaggleError(
      'OUTPUT_TOO_LARGE',
      `Expected a result of at most ${pixelsMax} pixels in ${format}, asked for ${size}`,
    );
  if (Math.max(width, height) > SIDE_MAX[format])
    throw new WaggleError(
      'OUTPUT_TOO_LARGE',
      `Expected at most ${SIDE_MAX[format]} pixels a side in ${format}, asked for ${size}`,
    );
  if (frames > 1) checkAnimated(plan);
  if (estimateMicros > HOPELESS * budgetMs * 1000)
    throw new WaggleError(
      'RESIZE_DEADLINE',
      `Expected work that can be done in ${Math.ceil(budgetMs)} ms, estimated ${Math.round(estimateMicros / 1000)} ms`,
    );
}

/** libvips keeps frames as one tall picture, which cannot be turned as a whole, and looks for attention in one picture only. */
function checkAnimated(plan: ResizePlan): void {
  const { position, rotate, flip } = plan;
  const refused =
    position === 'attention' || position === 'entropy'
      ? `position=${position}`
      : rotate !== 0
        ? `rotate=${rotate}`
        : flip
          ? 'flip=true'
          : undefined;
  if (refused !== undefined)
    throw new WaggleError('REQUEST_INVALID', `Expected frames=first with ${refused} for an animated picture`);
}
