import sharp, { type Sharp } from 'sharp';
import { seededRandom } from '@waggle/protocol/base';

/** A source picture and what is true of it. */
export interface Picture {
  readonly name: string;
  readonly bytes: Buffer;
  readonly type: string;
  /** Upright, one frame. */
  readonly width: number;
  readonly height: number;
}

/** Raw pixels with the structure of a photograph: soft gradients, edges and a little noise. */
function raw(width: number, height: number, channels: 3 | 4, seed: number): Sharp {
  const random = seededRandom(seed);
  const pixels = Buffer.alloc(width * height * channels);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const edge = ((x >> 5) + (y >> 5)) % 2 === 0 ? 24 : 0;
      for (let channel = 0; channel < channels; channel++, i++) {
        const wave = 96 + 80 * Math.sin(x / (30 + 9 * channel) + seed) * Math.cos(y / (40 + 5 * channel));
        pixels[i] = channel === 3 ? (x * 255) / width : Math.max(0, Math.min(255, wave + edge + random.below(8)));
      }
    }
  return sharp(pixels, { raw: { width, height, channels } });
}

/** One of every kind that a customer sends. */
export async function makePictures(): Promise<Picture[]> {
  const frames = await Promise.all([1, 2, 3].map((seed) => raw(120, 90, 3, seed).png().toBuffer()));
  const photo = raw(640, 480, 3, 7);
  const make = async (
    name: string,
    type: string,
    width: number,
    height: number,
    bytes: Promise<Buffer>,
  ): Promise<Picture> => ({
    name,
    type,
    width,
    height,
    bytes: await bytes,
  });
  return Promise.all([
    make('photograph', 'image/jpeg', 640, 480, photo.clone().jpeg({ quality: 90 }).toBuffer()),
    make('alpha', 'image/png', 300, 200, raw(300, 200, 4, 3).png().toBuffer()),
    make('webp', 'image/webp', 400, 300, raw(400, 300, 3, 4).webp().toBuffer()),
    make('avif', 'image/avif', 320, 240, raw(320, 240, 3, 5).avif({ effort: 0 }).toBuffer()),
    make(
      'animated',
      'image/gif',
      120,
      90,
      sharp(frames, { join: { animated: true } })
        .gif({ loop: 0, delay: [80, 80, 80] })
        .toBuffer(),
    ),
    make('cmyk', 'image/jpeg', 640, 480, photo.clone().toColourspace('cmyk').jpeg().toBuffer()),
    make('deep', 'image/png', 200, 160, raw(200, 160, 3, 6).toColourspace('rgb16').png().toBuffer()),
    // Stored lying down, shown upright: 480 wide and 640 high.
    make('rotated', 'image/jpeg', 480, 640, photo.clone().withMetadata({ orientation: 6 }).jpeg().toBuffer()),
  ]);
}
