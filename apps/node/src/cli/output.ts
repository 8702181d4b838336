import { once } from 'node:events';
import Table from 'cli-table3';
import { WaggleError } from '@waggle/protocol/base';

/** How a command shows its result: a table or lines for people, the API's own answer for programs, or the one thing that counts. */
export interface OutputOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Writes a line to standard output. */
export const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Writes to standard output, no faster than that takes it. */
export async function write(chunk: string | Uint8Array): Promise<void> {
  if (!process.stdout.write(chunk)) await once(process.stdout, 'drain');
}

/** Writes a line to standard error: what is not the result. */
export const note = (line: string): void => void process.stderr.write(`${line}\n`);

const NO_LINES = Object.fromEntries(
  ['top', 'bottom', 'mid'].flatMap((line) => ['', '-mid', '-left', '-right'].map((part) => [`${line}${part}`, ''])),
);

/** Rows under a head, without lines. Control characters, which could drive a terminal, are shown as `?`. */
export function table(head: readonly string[], rows: readonly (readonly unknown[])[]): string {
  const chars = { ...NO_LINES, 'left-mid': '', 'mid-mid': '', 'right-mid': '', left: '', right: '', middle: '  ' };
  const lines = new Table({
    chars,
    head: [...head],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) lines.push(row.map(cell));
  return lines.toString().replace(/ +$/gm, '');
}

/** Names and values below each other. */
export const fields = (entries: Readonly<Record<string, unknown>>): string => {
  const width = Math.max(...Object.keys(entries).map((name) => name.length));
  return Object.entries(entries)
    .map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`)
    .join('\n');
};

function cell(value: unknown): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'number') return value.toLocaleString('en');
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

/** Prints a result as the options ask for it: `quiet` is the one thing that a script wants, if there is one. */
export function show(options: OutputOptions, answer: unknown, human: () => string, quiet?: string): void {
  if (options.json === true) say(JSON.stringify(answer, null, 2));
  else if (options.quiet === true && quiet !== undefined) say(quiet);
  else say(human());
}

const WRONGLY_ASKED: ReadonlySet<string> = new Set(['CONFIG_INVALID', 'INVITE_INVALID']);

/** Says on standard error what went wrong, with its code, and gives the exit code: 2 for what was asked wrongly, else 1. */
export function report(error: unknown): number {
  if (error instanceof WaggleError) {
    note(`waggle: ${error.code}: ${error.message}`);
    return WRONGLY_ASKED.has(error.code) ? 2 : 1;
  }
  if (error instanceof CommandError) {
    note(`waggle: ${error.message}`);
    return error.exitCode;
  }
  note(`waggle: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return 1;
}

/** A command that cannot go on; the message is for people, and names a code where there is one. */
export class CommandError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: 1 | 2 = 1, options?: { cause?: unknown }) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
