import { WaggleError } from '@waggle/protocol/base';

/** One limit of a customer, as the HTTP schema and the documentation show it. */
export interface LimitEntry {
  readonly unit: string;
  readonly min: number;
  readonly max: number;
  readonly default: number;
  readonly description: string;
}

const MIB = 2 ** 20;

/** Every limit of a customer: unit, range (whole numbers, both ends included), default. */
export const LIMITS = {
  bodyBytesMax: { unit: 'bytes', min: 1, max: 256 * MIB, default: 32 * MIB, description: 'size of a request body' },
  inputPixelsMax: {
    unit: 'pixels',
    min: 1,
    max: 2 ** 30,
    default: 100_000_000,
    description: 'width times height of a source, summed over its frames',
  },
  framesMax: { unit: 'frames', min: 1, max: 10_000, default: 500, description: 'frames of an animated source' },
  outputPixelsMax: {
    unit: 'pixels',
    min: 1,
    max: 2 ** 30,
    default: 50_000_000,
    description: 'width times height of a result, summed over its frames',
  },
  deadlineMs: {
    unit: 'ms',
    min: 10,
    max: 300_000,
    default: 30_000,
    description: 'time for a request, waiting included',
  },
  concurrentRequestsMax: {
    unit: 'requests',
    min: 1,
    max: 100_000,
    default: 256,
    description: 'requests in flight at one node',
  },
  requestsPerSecond: { unit: 'requests/s', min: 1, max: 1_000_000, default: 1_000, description: 'requests per second' },
} as const satisfies Record<string, LimitEntry>;

/** The name of a limit. */
export type LimitName = keyof typeof LIMITS;

/** The limits in force for a customer, in the units of `LIMITS`. */
export type Limits = { readonly [Name in LimitName]: number };

/** A change of limits: a number sets the customer's own, `null` goes back to the node's default. */
export type LimitsPatch = { readonly [Name in LimitName]?: number | null };

/** The names of all limits, in the order of the table. */
export const LIMIT_NAMES = Object.keys(LIMITS) as readonly LimitName[];

/** Whether there is a limit of that name. */
export const isLimitName = (name: string): name is LimitName => Object.hasOwn(LIMITS, name);

/** The defaults of the table. */
export const LIMIT_DEFAULTS: Limits = Object.fromEntries(
  LIMIT_NAMES.map((name) => [name, LIMITS[name].default]),
) as Limits;

/** Whether a value is in the range of the limit. */
export const isLimit = (name: LimitName, value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= LIMITS[name].min && (value as number) <= LIMITS[name].max;

/** Checks a change of limits as it came from outside. Throws `REQUEST_INVALID` for unknown names and values out of range. */
export function parseLimitsPatch(input: Readonly<Record<string, unknown>>): LimitsPatch {
  for (const [name, value] of Object.entries(input)) {
    if (!isLimitName(name))
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected one of ${LIMIT_NAMES.join(', ')}, received ${JSON.stringify(name.slice(0, 60))}`,
      );
    if (value !== null && !isLimit(name, value))
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected a whole number from ${LIMITS[name].min} to ${LIMITS[name].max}, or null, for ${name}, received ${JSON.stringify(value)?.slice(0, 60)}`,
      );
  }
  return input;
}
