import { WaggleError } from '@waggle/protocol/base';
import { type Color, parseColor } from './color.ts';

/** What can be written. All of it can be read too. */
export type OutputFormat = 'jpeg' | 'png' | 'webp' | 'avif' | 'gif';

/** One parameter of a resize request, as the HTTP schema and the documentation show it. Values arrive as text. */
export type Parameter = { readonly description: string } & (
  | { readonly type: 'integer'; readonly minimum: number; readonly maximum: number; readonly default?: number }
  | { readonly type: 'choice'; readonly choices: readonly string[]; readonly default: string }
  | { readonly type: 'boolean'; readonly default: boolean }
  | { readonly type: 'color'; readonly default?: string }
);

const FITS = ['inside', 'cover', 'contain', 'fill', 'outside'] as const;
const POSITIONS = [
  'centre',
  'center',
  'north',
  'northeast',
  'east',
  'southeast',
  'south',
  'southwest',
  'west',
  'northwest',
  'attention',
  'entropy',
] as const;
const FORMATS = ['source', 'auto', 'jpeg', 'jpg', 'png', 'webp', 'avif', 'gif'] as const;

/** Widest and highest result, in pixels. */
const DIMENSION_MAX = 16_384;

/**
 * The closed list of parameters. The default fit is `inside`, as users of imgix (clip), imgproxy (fit) and Cloudflare
 * (scale-down) know it: nothing is cropped, distorted or enlarged unless asked for.
 */
export const RESIZE_PARAMETERS = {
  width: {
    type: 'integer',
    minimum: 1,
    maximum: DIMENSION_MAX,
    description: 'Width of the result in pixels. Alone, the height follows.',
  },
  height: {
    type: 'integer',
    minimum: 1,
    maximum: DIMENSION_MAX,
    description: 'Height of the result in pixels. Alone, the width follows.',
  },
  fit: {
    type: 'choice',
    choices: FITS,
    default: 'inside',
    description:
      'How the picture meets width and height: inside (whole picture, no larger than both), cover (fills both, the rest is cut off), ' +
      'contain (whole picture, padded to both), fill (distorted to both), outside (whole picture, no smaller than both).',
  },
  position: {
    type: 'choice',
    choices: POSITIONS,
    default: 'centre',
    description:
      'What fit=cover keeps and where fit=contain puts the picture; attention (what catches the eye) and entropy (most detail) for fit=cover only.',
  },
  format: {
    type: 'choice',
    choices: FORMATS,
    default: 'source',
    description:
      'Format of the result. source: that of the source; auto: AVIF or WebP if the Accept header names it, else that of the source.',
  },
  quality: {
    type: 'integer',
    minimum: 1,
    maximum: 100,
    description: 'Quality of lossy formats; by default 80, and 50 for AVIF, which looks alike. Not for PNG and GIF.',
  },
  background: {
    type: 'color',
    description:
      'CSS colour (name, hexadecimal digits, rgba) behind transparent pixels and of padding. By default transparent, and white in JPEG.',
  },
  enlarge: { type: 'boolean', default: false, description: 'Whether a result may have more pixels than the source.' },
  rotate: {
    type: 'choice',
    choices: ['auto', '0', '90', '180', '270'],
    default: 'auto',
    description:
      'Degrees clockwise, after the picture was put upright by its EXIF orientation; auto and 0 turn no further. ' +
      'Width and height are those of the turned picture.',
  },
  lossless: { type: 'boolean', default: false, description: 'Lossless compression, for format=webp and format=avif.' },
  flip: { type: 'boolean', default: false, description: 'Mirrored top to bottom, after the rotation.' },
  flop: { type: 'boolean', default: false, description: 'Mirrored left to right, after the rotation.' },
  grayscale: { type: 'boolean', default: false, description: 'Without colours.' },
  frames: {
    type: 'choice',
    choices: ['all', 'first'],
    default: 'all',
    description:
      'Frames of an animated GIF or WebP that are kept if the result is GIF or WebP; other formats hold the first.',
  },
} as const satisfies Record<string, Parameter>;

type ParameterName = keyof typeof RESIZE_PARAMETERS;

/** A validated resize request: plain data, safe to hand to another process. Meanings as in `RESIZE_PARAMETERS`. */
export interface ResizePlan {
  readonly width?: number;
  readonly height?: number;
  readonly fit: (typeof FITS)[number];
  readonly position: Exclude<(typeof POSITIONS)[number], 'center'>;
  readonly format: OutputFormat | 'source' | 'auto';
  /** Formats beyond those every client knows, which the client said it takes; best first. For `auto`. */
  readonly accepts: readonly ('avif' | 'webp')[];
  readonly quality?: number;
  readonly background?: Color;
  readonly enlarge: boolean;
  readonly rotate: 0 | 90 | 180 | 270;
  readonly lossless: boolean;
  readonly flip: boolean;
  readonly flop: boolean;
  readonly grayscale: boolean;
  readonly frames: 'all' | 'first';
}

const quoted = (value: unknown): string => JSON.stringify(value).slice(0, 60);

function invalid(expected: string, name: string, received: unknown): never {
  throw new WaggleError('REQUEST_INVALID', `Expected ${expected} for ${name}, received ${quoted(received)}`);
}

/** Throws `REQUEST_INVALID` unless the text is a value of the parameter; `undefined` is its default. */
function parseValue(name: ParameterName, text: unknown): string | number | boolean | Color | undefined {
  const parameter: Parameter = RESIZE_PARAMETERS[name];
  if (text === undefined) return parameter.default;
  if (typeof text !== 'string') return invalid('one value', name, text);
  switch (parameter.type) {
    case 'integer': {
      const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
      if (value >= parameter.minimum && value <= parameter.maximum) return value;
      return invalid(`an integer from ${parameter.minimum} to ${parameter.maximum}`, name, text);
    }
    case 'choice':
      if (parameter.choices.includes(text)) return text;
      return invalid(`one of ${parameter.choices.join(', ')}`, name, text);
    case 'boolean':
      if (text === 'true' || text === 'false') return text === 'true';
      return invalid('true or false', name, text);
    case 'color':
      return parseColor(text, name);
  }
}

/** Refuses values that contradict each other: they would be ignored in silence. */
function checkTogether(plan: ResizePlan, asked: Readonly<Record<string, unknown>>): void {
  if (asked['position'] !== undefined && plan.fit !== 'cover' && plan.fit !== 'contain')
    invalid('fit=cover or fit=contain', 'fit with a position', plan.fit);
  if ((plan.position === 'attention' || plan.position === 'entropy') && plan.fit !== 'cover')
    invalid('fit=cover', `fit with position=${plan.position}`, plan.fit);
  if (plan.quality !== undefined && (plan.format === 'png' || plan.format === 'gif'))
    invalid('jpeg, webp or avif', 'format with a quality', plan.format);
  if (plan.lossless && plan.format !== 'webp' && plan.format !== 'avif')
    invalid('webp or avif', 'format with lossless=true', plan.format);
  if (plan.lossless && plan.quality !== undefined) invalid('no quality', 'lossless=true', asked['quality']);
}

/** What an Accept header (RFC 9110 section 12.5.1) names of AVIF and WebP. Wildcards do not count: every client sends them. */
function acceptsOf(header: string): ('avif' | 'webp')[] {
  const named = new Set<string>();
  for (const part of header.slice(0, 4096).toLowerCase().split(',')) {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim());
    if (!parameters.some((text) => /^q=0(\.0*)?$/.test(text))) named.add(type);
  }
  return (['avif', 'webp'] as const).filter((format) => named.has(`image/${format}`));
}

/**
 * The plan that query parameters ask for. `accept` is the request's Accept header, for `format=auto`.
 * Throws `REQUEST_INVALID` for an unknown parameter, a value out of range, or values that contradict each other.
 */
export function parsePlan(params: Readonly<Record<string, unknown>>, accept = ''): ResizePlan {
  for (const name of Object.keys(params))
    if (!Object.hasOwn(RESIZE_PARAMETERS, name))
      invalid(`one of ${Object.keys(RESIZE_PARAMETERS).join(', ')}`, 'the name of a parameter', name);
  const value = <T>(name: ParameterName): T => parseValue(name, params[name]) as T;
  const optional = <T>(name: ParameterName, key: string): Record<string, T> =>
    params[name] === undefined ? {} : { [key]: value<T>(name) };
  const position = value<string>('position');
  const format = value<string>('format');
  const rotate = value<string>('rotate');
  const plan = {
    ...optional<number>('width', 'width'),
    ...optional<number>('height', 'height'),
    fit: value('fit'),
    position: position === 'center' ? 'centre' : position,
    format: format === 'jpg' ? 'jpeg' : format,
    accepts: format === 'auto' ? acceptsOf(accept) : [],
    ...optional<number>('quality', 'quality'),
    ...optional<Color>('background', 'background'),
    enlarge: value('enlarge'),
    rotate: rotate === 'auto' ? 0 : Number(rotate),
    lossless: value('lossless'),
    flip: value('flip'),
    flop: value('flop'),
    grayscale: value('grayscale'),
    frames: value('frames'),
  } as ResizePlan;
  checkTogether(plan, params);
  return plan;
}
