import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createPool, type JobOutcome, parsePlan, planPicture, type Pool } from '../src/index.ts';
import { animation, gifOfFrames, noise, pixel, plain, pngDeclaring, quarters } from './pictures.ts';

type Made = Extract<JobOutcome, { ok: true }>;
const FORMATS = ['jpeg', 'png', 'webp', 'avif', 'gif'] as const;

let pool: Pool;
beforeAll(() => {
  pool = createPool({ workers: 2 });
});
afterAll(() => pool.close());

const run = (body: Uint8Array, params: Record<string, string> = {}, accept = ''): Promise<JobOutcome> =>
  pool.run({ op: 'resize', body, plan: parsePlan(params, accept), customer: 'c' });

async function make(body: Uint8Array, params: Record<string, string> = {}, accept = ''): Promise<Made> {
  const outcome = await run(body, params, accept);
  if (!outcome.ok) throw outcome.error;
  return outcome;
}

/** The code of the refusal, and that the work which led to it was metered. */
async function refusal(body: Uint8Array, params: Record<string, string> = {}): Promise<string> {
  const outcome = await run(body, params);
  if (outcome.ok) throw new Error('a picture was made');
  expect(outcome.cpuMicros).toBeGreaterThan(0);
  expect(outcome.pixelsOut).toBe(0);
  return outcome.error.code;
}

const closeTo = (color: readonly number[], expected: readonly number[], tolerance = 12): void => {
  for (const [i, value] of expected.entries())
    expect(Math.abs(color[i]! - value), `${color.join()} is not ${expected.join()}`).toBeLessThanOrEqual(tolerance);
};

describe('formats', () => {
  it.each(FORMATS.flatMap((from) => FORMATS.map((to) => [from, to] as const)))('%s to %s', async (from, to) => {
    const source = await plain(60, 40)[from]().toBuffer();
    const made = await make(source, { width: '30', format: to });
    expect(made.input).toMatchObject({ format: from, width: 60, height: 40, frames: 1, bytes: source.length });
    expect(made.output).toEqual({ format: to, width: 30, height: 20, frames: 1, bytes: made.picture.length });
    expect(made).toMatchObject({ pixelsIn: 2400, pixelsOut: 600 });
    expect(made.cpuMicros).toBeGreaterThan(0);
    expect((await sharp(made.picture).metadata()).format).toBe(to === 'avif' ? 'heif' : to);
    closeTo(await pixel(made.picture, 15, 10), [0xc8, 0x64, 0x32]);
  });

  it('keeps the format of the source unless told otherwise, and chooses for auto what the client takes', async () => {
    const source = await plain(20, 20).png().toBuffer();
    expect((await make(source)).output.format).toBe('png');
    expect((await make(source, { format: 'auto' }, 'image/*')).output.format).toBe('png');
    expect((await make(source, { format: 'auto' }, 'image/webp')).output.format).toBe('webp');
    const moving = await animation(3, 8, 8).gif().toBuffer();
    expect((await make(moving, { format: 'auto' }, 'image/avif,image/webp')).output).toMatchObject({
      format: 'webp',
      frames: 3,
    });
  });

  it('honours quality and lossless', async () => {
    const source = await noise(100, 100).png().toBuffer();
    const sizes = await Promise.all(
      ['5', '95'].map(async (quality) => (await make(source, { format: 'webp', quality })).output.bytes),
    );
    expect(sizes[0]).toBeLessThan(sizes[1]! / 2);
    const lossless = await make(source, { format: 'webp', lossless: 'true' });
    expect(await sharp(lossless.picture).raw().toBuffer()).toEqual(await sharp(source).raw().toBuffer());
  });
});

describe('geometry', () => {
  it('is planned to the pixel', async () => {
    const side = fc.integer({ min: 1, max: 90 });
    const params = fc.record({
      width: fc.option(side, { nil: undefined }),
      height: fc.option(side, { nil: undefined }),
      fit: fc.constantFrom('inside', 'cover', 'contain', 'fill', 'outside'),
      enlarge: fc.constantFrom('true', 'false'),
      rotate: fc.constantFrom('auto', '90', '180', '270'),
    });
    await fc.assert(
      fc.asyncProperty(
        side,
        side,
        fc.integer({ min: 1, max: 8 }),
        params,
        async (width, height, orientation, asked) => {
          const source = await plain(width, height).withMetadata({ orientation }).jpeg().toBuffer();
          const given = Object.fromEntries(
            Object.entries(asked).flatMap(([k, v]) => (v === undefined ? [] : [[k, String(v)]])),
          );
          const made = await make(source, given);
          const planned = planPicture(parsePlan(given), made.input);
          expect([made.output.width, made.output.height]).toEqual([planned.width, planned.height]);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('puts a picture upright by its EXIF orientation, then turns and mirrors it as asked', async () => {
    const upright = await quarters(32).png().toBuffer();
    for (const orientation of [1, 2, 3, 4, 5, 6, 7, 8])
      for (const rotate of ['auto', '90', '180', '270'])
        for (const [flip, flop] of [
          ['false', 'false'],
          ['true', 'false'],
          ['false', 'true'],
        ] as const) {
          const source = await sharp(upright).withMetadata({ orientation }).png().toBuffer();
          const made = await make(source, { width: '16', rotate, flip, flop });
          let expected = await sharp(source).autoOrient().png().toBuffer();
          if (rotate !== 'auto') expected = await sharp(expected).rotate(Number(rotate)).png().toBuffer();
          expected = await sharp(expected)
            .flip(flip === 'true')
            .flop(flop === 'true')
            .png()
            .toBuffer();
          for (const [x, y] of [
            [3, 3],
            [12, 3],
            [3, 12],
          ] as const)
            closeTo(await pixel(made.picture, x, y), await pixel(expected, x * 2, y * 2));
        }
  });

  it('crops where position says, in the turned picture', async () => {
    const source = await quarters(40).png().toBuffer();
    const corner = async (position: string, rotate: string): Promise<number[]> =>
      pixel((await make(source, { width: '20', height: '10', fit: 'cover', position, rotate })).picture, 2, 5);
    closeTo(await corner('north', 'auto'), [255, 0, 0]);
    closeTo(await corner('south', 'auto'), [0, 0, 255]);
    closeTo(await corner('north', '90'), [0, 0, 255]);
    closeTo(await corner('south', '180'), [0, 255, 0]);
  });

  it('pads with the background, white in JPEG and transparent elsewhere by default', async () => {
    const source = await plain(40, 20).png().toBuffer();
    const corner = async (params: Record<string, string>): Promise<number[]> =>
      pixel((await make(source, { width: '40', height: '40', fit: 'contain', ...params })).picture, 1, 1);
    closeTo(await corner({ format: 'jpeg' }), [255, 255, 255]);
    closeTo(await corner({ format: 'jpeg', background: 'rgba(0,0,0,0.5)' }), [128, 128, 128]);
    closeTo(await corner({ format: 'png', background: '#00f' }), [0, 0, 255]);
    expect((await corner({ format: 'png' }))[3]).toBe(0);
  });

  it('lays the background behind transparent pixels', async () => {
    const source = await sharp({
      create: { width: 8, height: 8, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
    })
      .png()
      .toBuffer();
    closeTo(await pixel((await make(source, { format: 'jpeg' })).picture, 4, 4), [255, 255, 255]);
    closeTo(await pixel((await make(source, { background: 'lime' })).picture, 4, 4), [0, 255, 0]);
    expect((await pixel((await make(source)).picture, 4, 4))[3]).toBe(0);
  });
});

describe('colours and metadata', () => {
  it('come out as 8-bit sRGB from CMYK, 16 bits and wide gamuts', async () => {
    const rgb = plain(16, 16, '#a08070');
    const cmyk = await rgb.clone().withIccProfile('cmyk').toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
    const deep = await rgb.clone().toColourspace('rgb16').png().toBuffer();
    const p3 = await rgb.clone().withIccProfile('p3').png().toBuffer();
    expect((await sharp(cmyk).metadata()).space).toBe('cmyk');
    expect((await sharp(deep).metadata()).depth).toBe('ushort');
    for (const source of [cmyk, deep, p3]) {
      const made = await make(source, { format: 'png' });
      expect(await sharp(made.picture).metadata()).toMatchObject({ space: 'srgb', depth: 'uchar', hasProfile: false });
      closeTo(await pixel(made.picture, 8, 8), [0xa0, 0x80, 0x70], 16);
    }
  });

  it('leave EXIF, position and profile behind', async () => {
    const source = await plain(16, 16)
      .withExif({ IFD0: { Copyright: 'nobody' }, IFD3: { GPSLatitudeRef: 'N' } })
      .withXmp('<x:xmpmeta xmlns:x="adobe:ns:meta/"/>')
      .jpeg()
      .toBuffer();
    expect((await sharp(source).metadata()).exif).toBeDefined();
    for (const format of FORMATS) {
      const { exif, xmp, icc } = await sharp((await make(source, { format })).picture).metadata();
      expect([exif, xmp, icc]).toEqual([undefined, undefined, undefined]);
    }
  });

  it('can be without colour', async () => {
    const [r, g, b] = await pixel(
      (await make(await plain(8, 8).png().toBuffer(), { grayscale: 'true' })).picture,
      4,
      4,
    );
    expect(g ?? r).toBe(r);
    expect(b ?? r).toBe(r);
  });
});

describe('animations', () => {
  it.each(['gif', 'webp'] as const)('keep frames and delays in %s', async (to) => {
    for (const from of ['gif', 'webp'] as const) {
      const frames = animation(4, 20, 10);
      const source = await frames[from]({ delay: [100, 200, 300, 400], loop: 3 }).toBuffer();
      const made = await make(source, { width: '10', format: to });
      expect(made.input.frames).toBe(4);
      expect(made.output).toMatchObject({ width: 10, height: 5, frames: 4 });
      expect(made).toMatchObject({ pixelsIn: 800, pixelsOut: 200 });
      expect(await sharp(made.picture).metadata()).toMatchObject({ pages: 4, delay: [100, 200, 300, 400], loop: 3 });
    }
  });

  it('give their first frame to formats that hold one, and on request', async () => {
    const source = await animation(4, 20, 10).gif().toBuffer();
    expect(await make(source, { format: 'png' })).toMatchObject({ pixelsIn: 200, output: { frames: 1, height: 10 } });
    expect(await make(source, { frames: 'first' })).toMatchObject({
      pixelsIn: 200,
      output: { format: 'gif', frames: 1 },
    });
  });

  it('refuse what would mix up their frames', async () => {
    const source = await animation(4, 20, 10).gif().toBuffer();
    expect(await refusal(source, { rotate: '90' })).toBe('REQUEST_INVALID');
    expect(await refusal(source, { flip: 'true' })).toBe('REQUEST_INVALID');
    expect(await refusal(source, { width: '5', height: '5', fit: 'cover', position: 'attention' })).toBe(
      'REQUEST_INVALID',
    );
    expect((await make(source, { rotate: '90', frames: 'first' })).output).toMatchObject({ width: 10, height: 20 });
  });
});

describe('hostile and broken bodies', () => {
  it('are refused if truncated, in every format', async () => {
    for (const format of FORMATS) {
      const whole = await noise(200, 150)[format]().toBuffer();
      expect(
        await refusal(whole.subarray(0, Math.floor(whole.length * 0.6)), { format: 'webp', width: '50' }),
        format,
      ).toBe('IMAGE_CORRUPT');
    }
  });

  it('are refused if an animation ends early, between frames too, and taken with anything behind its end', async () => {
    const frames = await Promise.all([1, 2, 3].map(() => noise(30, 20).png().toBuffer()));
    const whole = await sharp(frames, { join: { animated: true } })
      .gif()
      .toBuffer();
    for (const length of [whole.length - 1, Math.floor(whole.length / 2), 40])
      expect(await refusal(whole.subarray(0, length), { format: 'gif' }), String(length)).toBe('IMAGE_CORRUPT');
    expect((await make(Buffer.concat([whole, Buffer.from('padding')]), { format: 'gif' })).output.frames).toBe(3);
  });

  it.each([
    ['text', Buffer.from('this is not a picture')],
    ['one byte', Buffer.from([0xff])],
    ['HTML', Buffer.from('<!doctype html><html></html>')],
    [
      'SVG',
      Buffer.from(
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><image href="file:///etc/passwd"/></svg>',
      ),
    ],
    ['PDF', Buffer.from('%PDF-1.7\n1 0 obj\n<<>>\nendobj')],
    ['a libvips file', Buffer.concat([Buffer.from([0xb6, 0xa6, 0xf2, 0x08]), Buffer.alloc(100)])],
  ])('are not pictures: %s', async (_name, body) => {
    expect(await refusal(body)).toBe('IMAGE_UNSUPPORTED');
  });

  it('are not TIFF', async () => {
    expect(await refusal(await plain(10, 10).tiff().toBuffer())).toBe('IMAGE_UNSUPPORTED');
  });

  it('are told that HEIC is not read', async () => {
    const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from('ftypheic\0\0\0\0mif1heic'), Buffer.alloc(64)]);
    const outcome = await run(heic);
    expect(outcome.ok ? '' : outcome.error).toMatchObject({
      code: 'IMAGE_UNSUPPORTED',
      message: expect.stringContaining('HEIC') as string,
    });
  });

  it('are refused by their header if they declare too much', async () => {
    expect(await refusal(await pngDeclaring(65_535, 65_535))).toBe('IMAGE_TOO_LARGE');
    expect(await refusal(await pngDeclaring(2_000_000, 10))).toBe('IMAGE_TOO_LARGE');
    expect(await refusal(gifOfFrames(10_000))).toBe('IMAGE_TOO_MANY_FRAMES');
    expect((await make(gifOfFrames(10_000), { frames: 'first' })).output.frames).toBe(1);
    const frames = await animation(20, 100, 100).gif().toBuffer();
    const summed = await pool.run({
      op: 'resize',
      body: frames,
      plan: parsePlan({ width: '5' }),
      customer: 'c',
      limits: { inputPixelsMax: 150_000 },
    });
    expect(summed.ok ? '' : summed.error.code).toBe('IMAGE_TOO_LARGE');
  });

  it('are refused if the result would be too large or too dear', async () => {
    const dot = await plain(2, 2).png().toBuffer();
    expect(await refusal(dot, { width: '12000', enlarge: 'true' })).toBe('OUTPUT_TOO_LARGE');
    expect(await refusal(dot, { width: '4000', enlarge: 'true', format: 'gif' })).toBe('OUTPUT_TOO_LARGE');
    expect(
      await refusal(await plain(2, 1).png().toBuffer(), {
        width: '16384',
        height: '1',
        fit: 'fill',
        enlarge: 'true',
        format: 'webp',
      }),
    ).toBe('OUTPUT_TOO_LARGE');
    const hopeless = await pool.run({
      op: 'resize',
      body: dot,
      plan: parsePlan({ width: '4000', enlarge: 'true', format: 'avif' }),
      customer: 'c',
      limits: { deadlineMs: 200 },
    });
    expect(hopeless).toMatchObject({ ok: false, pixelsIn: 0, error: { code: 'RESIZE_DEADLINE' } });
    expect(pool.stats.replaced).toBe(0);
  });

  it('leave the worker as it was', async () => {
    const source = await plain(10, 10).png().toBuffer();
    const bodies = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 200 }),
      fc.tuple(fc.nat(source.length - 1), fc.uint8Array({ minLength: 1, maxLength: 8 })).map(([at, bytes]) => {
        const broken = Buffer.from(source);
        broken.set(bytes.subarray(0, broken.length - at), at);
        return new Uint8Array(broken);
      }),
    );
    await fc.assert(
      fc.asyncProperty(bodies, async (body) => {
        const outcome = await run(body, { width: '5' });
        if (!outcome.ok) expect(outcome.error.code).toMatch(/^(IMAGE_|RESIZE_MEMORY|OUTPUT_TOO_LARGE)/);
      }),
      { numRuns: 200 },
    );
    expect((await make(source)).output.width).toBe(10);
    expect(pool.stats.replaced).toBe(0);
  });
});

describe('inspect', () => {
  it('reads the header and plans, and makes nothing', async () => {
    const body = await plain(60, 40).withMetadata({ orientation: 6 }).jpeg({ progressive: true }).toBuffer();
    const outcome = await pool.run({
      op: 'inspect',
      body,
      plan: parsePlan({ width: '20', format: 'webp' }),
      customer: 'c',
    });
    expect(outcome).toMatchObject({
      ok: true,
      pixelsIn: 0,
      pixelsOut: 0,
      input: {
        format: 'jpeg',
        width: 60,
        height: 40,
        orientation: 6,
        space: 'srgb',
        depth: 'uchar',
        hasAlpha: false,
        progressive: true,
      },
      output: { format: 'webp', width: 20, height: 30, frames: 1, bytes: 0 },
    });
    expect(outcome.ok && outcome.picture.length === 0 && outcome.estimateMicros > 0).toBe(true);
  });

  it('says what is no picture', async () => {
    const outcome = await pool.run({ op: 'inspect', body: Buffer.from('nothing'), customer: 'c' });
    expect(outcome).toMatchObject({ ok: false, error: { code: 'IMAGE_UNSUPPORTED' } });
  });
});
