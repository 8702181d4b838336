import { readFileSync, writeFileSync } from 'node:fs';
import { Option, type Command } from 'commander';
import { RESIZE_PARAMETERS, type Parameter } from '@waggle/images';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { CommandError, note, say } from './output.ts';

type ResizeOptions = ClientOptions & { readonly out: string } & Readonly<Record<string, string | undefined>>;

const PARAMETERS: readonly (readonly [string, Parameter])[] = Object.entries(RESIZE_PARAMETERS);

/** The flag of a parameter. Ranges and colours are for the node to judge. */
function optionOf([name, parameter]: (typeof PARAMETERS)[number]): Option {
  const { type, description } = parameter;
  if (type === 'choice') return new Option(`--${name} <CHOICE>`, description).choices(parameter.choices);
  if (type === 'boolean') return new Option(`--${name} <BOOLEAN>`, description).choices(['true', 'false']);
  return new Option(`--${name} <${type === 'integer' ? 'N' : 'COLOUR'}>`, description);
}

/** `waggle resize`: for customers. */
export function resizeCommand(program: Command): void {
  const command = asking(program.command('resize <file>'), 'key')
    .description('resize a picture: a file, or - for standard input (customer)')
    .requiredOption('-o, --out <FILE>', 'where the result goes; - for standard output')
    .option('--preset <NAME>', "parameters from a preset of the customer's account")
    .option('-q, --quiet', 'say nothing about it');
  for (const parameter of PARAMETERS) command.addOption(optionOf(parameter));
  command.action(resize);
}

async function resize(file: string, options: ResizeOptions): Promise<void> {
  const client = Client.open(options, 'key');
  const names = ['preset', ...PARAMETERS.map(([name]) => name)];
  const query = queryOf(Object.fromEntries(names.map((name) => [name, options[name]])));
  const body = access(file, () => readFileSync(file === '-' ? 0 : file));
  const response = await client.send('POST', `/v1/resize${query}`, {
    body: new Uint8Array(body),
    type: 'application/octet-stream',
  });
  const picture = new Uint8Array(await response.arrayBuffer());
  access(options.out, () => writeFileSync(options.out === '-' ? 1 : options.out, picture));
  const { headers } = response;
  const done = {
    file: options.out,
    bytes: picture.length,
    type: headers.get('content-type'),
    usage: headers.get('waggle-usage'),
    receipt: headers.get('waggle-receipt'),
  };
  // The picture may be on standard output.
  const tell = options.out === '-' ? note : say;
  if (options.json === true) tell(JSON.stringify(done, null, 2));
  else if (options.quiet !== true)
    tell(`${done.file}: ${done.type}, ${done.bytes.toLocaleString('en')} bytes\nmetered: ${done.usage}`);
}

function access<T>(file: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    throw new CommandError(`Expected to use the file ${file}: ${(cause as Error).message}`, 1, { cause });
  }
}
