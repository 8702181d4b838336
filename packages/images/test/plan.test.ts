import { ERRORS, WaggleError } from '@waggle/protocol/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parsePlan, RESIZE_PARAMETERS } from '../src/plan.ts';

const refused = (params: Record<string, string>): string => {
  try {
    parsePlan(params);
  } catch (error) {
    expect(error).toBeInstanceOf(WaggleError);
    expect((error as WaggleError).code).toBe('REQUEST_INVALID');
    return (error as WaggleError).message;
  }
  throw new Error(`accepted ${JSON.stringify(params)}`);
};

describe('parsePlan', () => {
  it('has defaults that change nothing but the encoding', () => {
    expect(parsePlan({})).toEqual({
      fit: 'inside',
      position: 'centre',
      format: 'source',
      accepts: [],
      enlarge: false,
      rotate: 0,
      lossless: false,
      flip: false,
      flop: false,
      grayscale: false,
      frames: 'all',
    });
  });

  it('reads every parameter', () => {
    const plan = parsePlan({
      width: '400',
      height: '300',
      fit: 'contain',
      position: 'northeast',
      format: 'jpg',
      quality: '80',
      background: 'rebeccapurple',
      enlarge: 'true',
      rotate: '270',
      flip: 'true',
      flop: 'true',
      grayscale: 'true',
      frames: 'first',
    });
    expect(plan).toMatchObject({
      width: 400,
      height: 300,
      fit: 'contain',
      position: 'northeast',
      format: 'jpeg',
      quality: 80,
    });
    expect(plan).toMatchObject({
      enlarge: true,
      rotate: 270,
      flip: true,
      flop: true,
      grayscale: true,
      frames: 'first',
    });
    expect(plan.background).toEqual({ r: 0x66, g: 0x33, b: 0x99, alpha: 1 });
  });

  it.each([
    [{ width: '-1' }, 'Expected an integer from 1 to 16384 for width, received "-1"'],
    [{ width: '0' }, 'Expected an integer from 1 to 16384 for width, received "0"'],
    [{ height: '16385' }, 'for height, received "16385"'],
    [{ width: '1e3' }, 'for width, received "1e3"'],
    [{ width: '' }, 'for width, received ""'],
    [{ quality: '101' }, 'Expected an integer from 1 to 100 for quality'],
    [{ fit: 'crop' }, 'Expected one of inside, cover, contain, fill, outside for fit, received "crop"'],
    [{ enlarge: 'yes' }, 'Expected true or false for enlarge'],
    [{ rotate: '45' }, 'for rotate, received "45"'],
    [{ format: 'tiff' }, 'for format, received "tiff"'],
    [{ background: 'bluish' }, 'for background, received "bluish"'],
    [{ background: 'rgb(256,0,0)' }, 'for background'],
    [{ widht: '3' }, 'for the name of a parameter, received "widht"'],
    [{ constructor: '3' }, 'for the name of a parameter, received "constructor"'],
    [{ position: 'north' }, 'Expected fit=cover or fit=contain for fit with a position'],
    [{ position: 'entropy', fit: 'contain' }, 'Expected fit=cover for fit with position=entropy'],
    [{ format: 'png', quality: '80' }, 'for format with a quality, received "png"'],
    [{ format: 'jpeg', lossless: 'true' }, 'for format with lossless=true, received "jpeg"'],
    [{ format: 'webp', lossless: 'true', quality: '5' }, 'Expected no quality for lossless=true'],
  ] as [Record<string, string>, string][])('refuses %j', (params, message) => {
    expect(refused(params)).toContain(message);
  });

  it.each([
    ['red', { r: 255, g: 0, b: 0, alpha: 1 }],
    ['F80', { r: 255, g: 0x88, b: 0, alpha: 1 }],
    ['#ff880080', { r: 255, g: 0x88, b: 0, alpha: 128 / 255 }],
    ['rgba(1, 2, 3, 0.5)', { r: 1, g: 2, b: 3, alpha: 0.5 }],
    ['transparent', { r: 0, g: 0, b: 0, alpha: 0 }],
  ])('reads the colour %s', (text, color) => {
    expect(parsePlan({ background: text }).background).toEqual(color);
  });

  it('takes from Accept what is named and not refused', () => {
    const accepts = (accept: string): readonly string[] => parsePlan({ format: 'auto' }, accept).accepts;
    expect(accepts('text/html,image/webp,image/avif;q=0.8,*/*')).toEqual(['avif', 'webp']);
    expect(accepts('image/avif;q=0, image/webp')).toEqual(['webp']);
    expect(accepts('*/*')).toEqual([]);
    expect(parsePlan({}, 'image/avif').accepts).toEqual([]);
  });

  it('gives a plan or a coded error for any text whatever', () => {
    const names = fc.oneof(fc.constantFrom(...Object.keys(RESIZE_PARAMETERS)), fc.string());
    const choices = Object.values(RESIZE_PARAMETERS).flatMap((p) =>
      'choices' in p ? p.choices : ['7', 'true', '#fff'],
    );
    const values = fc.oneof(fc.constantFrom<string>(...choices), fc.string(), fc.nat().map(String));
    fc.assert(
      fc.property(fc.dictionary(names, values), fc.string(), (params, accept) => {
        try {
          const plan = parsePlan(params, accept);
          expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
        } catch (error) {
          expect(Object.keys(ERRORS)).toContain((error as WaggleError).code);
        }
      }),
    );
  });
});
