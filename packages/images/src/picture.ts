import { WaggleError } from '@waggle/protocol/base';
import sharp, { type ResizeOptions, type Sharp, type SharpOptions } from 'sharp';
import { cropsOrPads, type PlannedPicture, planPicture, type SourceHeader, turnsFirst } from './geometry.ts';
import type { Color } from './color.ts';
import { isWholeGif } from './gif.ts';
import type { OutputFormat, ResizePlan } from './plan.ts';

/*
 * What sharp is asked to do. Runs in the worker process only: nothing else may decode a picture.
 */

/** The only loaders: no SVG, TIFF, PDF or ImageMagick, and nothing from files. */
const LOADERS = ['Jpeg', 'Png', 'Webp', 'Heif', 'Nsgif'].map((name) => `VipsForeignLoad${name}Buffer`);

/** Once per process. One thread a process, nothing kept between pictures, closed loaders. */
export function setUpSharp(): void {
  sharp.concurrency(1);
  sharp.cache(false);
  sharp.block({ operation: ['VipsForeignLoad'] });
  sharp.unblock({ operation: LOADERS });
}

/**
 * `error` refuses truncated and damaged pictures. sharp's default (`warning`) also refuses photographs of common
 * telephones for a wrong but harmless marker.
 */
const READ = { failOn: 'error', limitInputPixels: false } as const satisfies SharpOptions;

/** HEVC brands of ISO/IEC 23008-12: the prebuilt decoder reads AV1 only. */
const HEVC_BRANDS = new Set(['heic', 'heix', 'hevc', 'hevx', 'heim', 'heis', 'hevm', 'hevs']);

function refuseHeic(): never {
  throw new WaggleError(
    'IMAGE_UNSUPPORTED',
    'Expected a picture in JPEG, PNG, WebP, AVIF or GIF, received HEIC, which is not read',
  );
}

const isHeic = (body: Buffer): boolean =>
  body.toString('latin1', 4, 8) === 'ftyp' && HEVC_BRANDS.has(body.toString('latin1', 8, 12));

const FORMATS: Partial<Record<string, OutputFormat>> = {
  jpeg: 'jpeg',
  png: 'png',
  webp: 'webp',
  heif: 'avif',
  gif: 'gif',
};

/** Reads the header only: 0.15 ms, no pixel decoded. Throws what sharp throws, and `IMAGE_UNSUPPORTED` for HEIC. */
export async function readHeader(body: Buffer): Promise<SourceHeader> {
  if (isHeic(body)) refuseHeic();
  const metadata = await sharp(body, READ).metadata();
  if (metadata.format === 'heif' && metadata.compression !== 'av1') refuseHeic();
  const format = FORMATS[metadata.format];
  if (format === undefined)
    throw new WaggleError(
      'IMAGE_UNSUPPORTED',
      `Expected a picture in JPEG, PNG, WebP, AVIF or GIF, received ${metadata.format}`,
    );
  return {
    format,
    width: metadata.width,
    height: metadata.height,
    // Of a HEIF collection the primary picture is taken, as viewers do.
    frames: format === 'avif' ? 1 : (metadata.pages ?? 1),
    orientation: metadata.orientation ?? 1,
    space: metadata.space,
    depth: metadata.depth,
    hasAlpha: metadata.hasAlpha,
    progressive: metadata.isProgressive,
    bytes: body.length,
  };
}

const TRANSPARENT: Color = { r: 0, g: 0, b: 0, alpha: 0 };
const WHITE: Color = { r: 255, g: 255, b: 255, alpha: 1 };

/** What lies behind the picture. A format without transparency shows a translucent colour as it looks on white. */
function backgroundOf(plan: ResizePlan, format: OutputFormat): Color {
  if (format !== 'jpeg') return plan.background ?? TRANSPARENT;
  const { r, g, b, alpha } = plan.background ?? WHITE;
  const onWhite = (channel: number): number => Math.round(channel * alpha + 255 * (1 - alpha));
  return { r: onWhite(r), g: onWhite(g), b: onWhite(b), alpha: 1 };
}

/** Low efforts on purpose: sizes within 12 %, at a thirtieth (AVIF), half (WebP) and a quarter (GIF) of the default's time. */
function encode(picture: Sharp, plan: ResizePlan, format: OutputFormat): Sharp {
  const quality = plan.quality;
  switch (format) {
    case 'jpeg':
      return picture.jpeg({ quality: quality ?? 80 });
    case 'png':
      return picture.png();
    case 'webp':
      return plan.lossless
        ? picture.webp({ lossless: true, effort: 0 })
        : picture.webp({ quality: quality ?? 80, effort: 2 });
    case 'avif':
      return plan.lossless
        ? picture.avif({ lossless: true, effort: 0 })
        : picture.avif({ quality: quality ?? 50, effort: 0 });
    case 'gif':
      return picture.gif({ effort: 1 });
  }
}

export interface MadePicture extends PlannedPicture {
  readonly picture: Buffer;
}

/**
 * Resizes and turns, in the cheaper order where there is a choice. Where nothing is cropped or padded sharp gets both
 * sides from the plan: from one side it would work out the other after decoding a JPEG at a rounded fraction of its size.
 */
function resizeAndTurn(picture: Sharp, plan: ResizePlan, planned: PlannedPicture, background: Color): void {
  const sideways = plan.rotate === 90 || plan.rotate === 270;
  const turnFirst = turnsFirst(plan);
  if (turnFirst) picture.rotate(plan.rotate);
  if (plan.width !== undefined || plan.height !== undefined) picture.resize(resizeOptions(plan, planned, background));
  if (plan.rotate !== 0 && !turnFirst) picture.rotate(plan.rotate);
  // sharp mirrors before it turns, the plan after.
  if (sideways ? plan.flop : plan.flip) picture.flip();
  if (sideways ? plan.flip : plan.flop) picture.flop();
}

function resizeOptions(plan: ResizePlan, planned: PlannedPicture, background: Color): ResizeOptions {
  if (!cropsOrPads(plan)) {
    const sideways = plan.rotate === 90 || plan.rotate === 270;
    const [width, height] = sideways ? [planned.height, planned.width] : [planned.width, planned.height];
    return { width, height, fit: 'fill' };
  }
  return {
    ...(plan.width === undefined ? {} : { width: plan.width }),
    ...(plan.height === undefined ? {} : { height: plan.height }),
    fit: plan.fit,
    position: plan.position,
    background,
    withoutEnlargement: !plan.enlarge,
  };
}

/**
 * Makes the picture. The header must be that of the body, and checked against the limits. Colours come out as 8-bit sRGB
 * and metadata is left behind, both by sharp's default. Throws what sharp throws.
 */
export async function makePicture(
  body: Buffer,
  header: SourceHeader,
  plan: ResizePlan,
  inputPixelsMax: number,
): Promise<MadePicture> {
  if (header.format === 'gif' && !isWholeGif(body))
    throw new WaggleError('IMAGE_CORRUPT', 'Expected a whole picture, received a GIF that ends before its trailer');
  const planned = planPicture(plan, header);
  const animated = planned.frames > 1;
  const autoOrient = header.orientation > 1 && !animated;
  const picture = sharp(body, { ...READ, limitInputPixels: inputPixelsMax, animated, autoOrient });
  const background = backgroundOf(plan, planned.format);
  if (background.alpha === 1 && header.hasAlpha) picture.flatten({ background });
  resizeAndTurn(picture, plan, planned, background);
  if (plan.grayscale) picture.grayscale();
  const { data, info } = await encode(picture, plan, planned.format).toBuffer({ resolveWithObject: true });
  const frames = info.pages ?? 1;
  return { picture: data, format: planned.format, width: info.width, height: info.height / frames, frames };
}

/** A picture made of nothing and resized: what readiness exercises, and what warms a new process up. */
export async function makeProbe(): Promise<void> {
  const source = await sharp({ create: { width: 64, height: 64, channels: 3, background: WHITE } })
    .jpeg()
    .toBuffer();
  await sharp(source).resize(32).jpeg().toBuffer();
}
