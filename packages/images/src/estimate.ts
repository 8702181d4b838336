import { type PlannedPicture, planPicture, type SourceHeader, turnsFirst } from './geometry.ts';
import type { OutputFormat, ResizePlan } from './plan.ts';

/*
 * CPU time in microseconds, measured with sharp 0.35.5 on one core of the machine that docs/PERFORMANCE.md names. A
 * model of this kind is right within a factor of two or so: enough to tell 8 ms from 2 s, which is what it is for.
 */

/** Per job, whatever the picture. */
const JOB_MICROS = 1_000;
/** Entropy decoding of JPEG goes by bytes, not by pixels. */
const JPEG_MICROS_PER_KB = 12;
/** A progressive JPEG is read whole before the first line comes out; an interlaced PNG likewise. */
const PROGRESSIVE_MICROS_PER_MP = 6_000;
/** Of a JPEG, the work that remains however small it is decoded. */
const JPEG_SCAN_MICROS_PER_MP = 250;
const DECODE_MICROS_PER_MP: Record<OutputFormat, number> = {
  jpeg: 3_500,
  png: 9_000,
  webp: 10_000,
  gif: 8_000,
  avif: 33_000,
};
const RESIZE_MICROS_PER_MP = 2_500;
/** At the efforts of `picture.ts`. GIF is the palette's doing. */
const ENCODE_MICROS_PER_MP: Record<OutputFormat, number> = {
  jpeg: 10_000,
  png: 50_000,
  webp: 45_000,
  avif: 85_000,
  gif: 480_000,
};
const LOSSLESS_MICROS_PER_MP: Partial<Record<OutputFormat, number>> = { webp: 100_000, avif: 250_000 };

/** A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result is that small (libjpeg's scaled DCT). */
function jpegShrink(source: SourceHeader, planned: PlannedPicture): number {
  const scale = Math.sqrt((source.width * source.height) / (planned.width * planned.height));
  return scale >= 8 ? 8 : scale >= 4 ? 4 : scale >= 2 ? 2 : 1;
}

/** Estimated CPU time of a job in whole µs, from the source's header and the plan. Pure; decodes nothing. */
export function estimateCpuMicros(plan: ResizePlan, source: SourceHeader): number {
  const planned = planPicture(plan, source);
  const sourceMp = (source.width * source.height * planned.frames) / 1e6;
  const resultMp = (planned.width * planned.height * planned.frames) / 1e6;
  const shrink = source.format === 'jpeg' && !turnsFirst(plan) ? jpegShrink(source, planned) : 1;
  const decodedMp = sourceMp / shrink ** 2;
  let micros = JOB_MICROS + decodedMp * (DECODE_MICROS_PER_MP[source.format] + RESIZE_MICROS_PER_MP);
  if (source.format === 'jpeg')
    micros += (source.bytes / 1000) * JPEG_MICROS_PER_KB + sourceMp * JPEG_SCAN_MICROS_PER_MP;
  if (source.progressive) micros += sourceMp * PROGRESSIVE_MICROS_PER_MP;
  const encode =
    (plan.lossless ? LOSSLESS_MICROS_PER_MP[planned.format] : undefined) ?? ENCODE_MICROS_PER_MP[planned.format];
  return Math.round(micros + resultMp * (RESIZE_MICROS_PER_MP + encode));
}

/** Pixels per byte of a photograph as a camera or a browser writes it. */
const PIXELS_PER_BYTE = 6;

/**
 * A first guess in µs from the size of the body alone, for who has not read the header: taken for a photograph in JPEG,
 * 4 to 3. Fair queuing starts with it and is put right by the measured time.
 */
export function guessCpuMicros(plan: ResizePlan, bytes: number): number {
  const width = Math.max(1, Math.round(Math.sqrt(bytes * PIXELS_PER_BYTE * (4 / 3))));
  const height = Math.max(1, Math.round(width * 0.75));
  return estimateCpuMicros(plan, {
    format: 'jpeg',
    width,
    height,
    frames: 1,
    orientation: 1,
    space: 'srgb',
    depth: 'uchar',
    hasAlpha: false,
    progressive: false,
    bytes,
  });
}
