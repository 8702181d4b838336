import sharp, { type Sharp } from 'sharp';

/** Noise: nothing compresses it away, so that work on it takes its time. */
export const noise = (width: number, height: number): Sharp =>
  sharp({
    create: { width, height, channels: 3, background: 'white', noise: { type: 'gaussian', mean: 128, sigma: 40 } },
  });

export const plain = (width: number, height: number, background = '#c86432'): Sharp =>
  sharp({ create: { width, height, channels: 3, background } });

/** Four quarters: red, lime over blue, white. */
export function quarters(side: number): Sharp {
  const raw = Buffer.alloc(side * side * 3);
  const colors = [
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [255, 255, 255],
  ];
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      raw.set(colors[(y < side / 2 ? 0 : 2) + (x < side / 2 ? 0 : 1)]!, (y * side + x) * 3);
  return sharp(raw, { raw: { width: side, height: side, channels: 3 } });
}

/** Frames of one grey each, from dark to light. */
export function animation(frames: number, width: number, height: number): Sharp {
  const raw = Buffer.alloc(frames * width * height * 3);
  for (let i = 0; i < frames; i++)
    raw.fill(Math.round((255 * i) / frames), i * width * height * 3, (i + 1) * width * height * 3);
  return sharp(raw, { raw: { width, height: height * frames, channels: 3, pageHeight: height } });
}

/** A GIF of any number of frames of one pixel, in 23 bytes a frame. */
export function gifOfFrames(frames: number): Buffer {
  const head = Buffer.from([...Buffer.from('GIF89a'), 1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
  const frame = Buffer.from([0x21, 0xf9, 4, 0, 1, 0, 0, 0, 0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0]);
  return Buffer.concat([head, ...Array.from({ length: frames }, () => frame), Buffer.from([0x3b])]);
}

/** A PNG whose header declares another size than its pixels have, with a right checksum. */
export async function pngDeclaring(width: number, height: number): Promise<Buffer> {
  const png = await plain(8, 8).png().toBuffer();
  png.writeUInt32BE(width, 16);
  png.writeUInt32BE(height, 20);
  png.writeUInt32BE(crc32(png.subarray(12, 29)), 29);
  return png;
}

/** CRC-32 as PNG wants it (ISO 3309). */
function crc32(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** The colour of one pixel, of whatever was made. */
export async function pixel(picture: Buffer, x: number, y: number): Promise<number[]> {
  const { data, info } = await sharp(picture).raw().toBuffer({ resolveWithObject: true });
  const offset = (y * info.width + x) * info.channels;
  return [...data.subarray(offset, offset + info.channels)];
}
