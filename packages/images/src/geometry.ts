import type { OutputFormat, ResizePlan } from './plan.ts';

/** What the header of a picture says, before any pixel is decoded. */
export interface SourceHeader {
  readonly format: OutputFormat;
  /** Pixels as stored, before the EXIF orientation is applied. */
  readonly width: number;
  readonly height: number;
  /** 1, or the frames of an animated GIF or WebP. */
  readonly frames: number;
  /** EXIF orientation, 1 to 8; 1 if there is none. */
  readonly orientation: number;
  /** Colour space in libvips' names: `srgb`, `cmyk`, `b-w`, `rgb16`, … */
  readonly space: string;
  /** Sample format in libvips' names: `uchar` is 8 bits, `ushort` 16. */
  readonly depth: string;
  readonly hasAlpha: boolean;
  /** Progressive JPEG or interlaced PNG: dearer to decode. */
  readonly progressive: boolean;
  /** Size of the whole source. */
  readonly bytes: number;
}

/** A result before it is made: pixels of one frame, and frames. */
export interface PlannedPicture {
  readonly format: OutputFormat;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
}

const ANIMATED: ReadonlySet<OutputFormat> = new Set(['gif', 'webp']);

/** `auto` prefers what the client takes, but never at the price of the animation. */
function outputFormat(plan: ResizePlan, source: SourceHeader): OutputFormat {
  if (plan.format !== 'source' && plan.format !== 'auto') return plan.format;
  const moving = source.frames > 1 && plan.frames === 'all';
  return plan.accepts.find((format) => !moving || ANIMATED.has(format)) ?? source.format;
}

/** Width and height after EXIF orientation and rotation. Orientation is not applied to animations. */
function turned(plan: ResizePlan, source: SourceHeader, frames: number): [number, number] {
  const byExif = frames === 1 && source.orientation >= 5;
  const byPlan = plan.rotate === 90 || plan.rotate === 270;
  return byExif === byPlan ? [source.width, source.height] : [source.height, source.width];
}

function fitted(plan: ResizePlan, from: readonly [number, number]): [number, number] {
  const [width, height] = from;
  const x = plan.width === undefined ? undefined : plan.width / width;
  const y = plan.height === undefined ? undefined : plan.height / height;
  if (x === undefined && y === undefined) return [width, height];
  const scaled = (scale: number): [number, number] => {
    const factor = plan.enlarge ? scale : Math.min(1, scale);
    return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
  };
  const capped = (asked: number | undefined, have: number): number =>
    plan.enlarge ? (asked ?? have) : Math.min(asked ?? have, have);
  if (plan.fit === 'fill') return [capped(plan.width, width), capped(plan.height, height)];
  if (x === undefined || y === undefined) return scaled(x ?? y!);
  switch (plan.fit) {
    case 'inside':
      return scaled(Math.min(x, y));
    case 'outside':
      return scaled(Math.max(x, y));
    case 'contain':
      return [plan.width!, plan.height!];
    case 'cover':
      return [capped(plan.width, width), capped(plan.height, height)];
  }
}

/** Whether the picture is cropped or padded and not only scaled. From one side the other follows: nothing to crop or pad. */
export const cropsOrPads = (plan: ResizePlan): boolean =>
  (plan.fit === 'contain' || plan.fit === 'cover') && plan.width !== undefined && plan.height !== undefined;

/**
 * Whether the source is turned before it is resized. That holds all of it in memory and decodes a JPEG at full size (12
 * megapixels: ten times the CPU), so only where sharp would otherwise crop or pad to the sides from before the turn.
 */
export const turnsFirst = (plan: ResizePlan): boolean =>
  (plan.rotate === 90 || plan.rotate === 270) && cropsOrPads(plan);

/** What a plan makes of a source, to the pixel. Pure. */
export function planPicture(plan: ResizePlan, source: SourceHeader): PlannedPicture {
  const format = outputFormat(plan, source);
  const frames = plan.frames === 'all' && ANIMATED.has(format) ? source.frames : 1;
  const [width, height] = fitted(plan, turned(plan, source, frames));
  return { format, width, height, frames };
}
