import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { clusterCommands } from './cluster.ts';
import { customerCommands } from './customers.ts';
import { epochCommands } from './epochs.ts';
import { keyCommands, tokenCommands } from './keys.ts';
import { report } from './output.ts';
import { recoverCommand } from './recover.ts';
import { resizeCommand } from './resize.ts';
import { startCommands } from './start.ts';
import { statusCommand } from './status.ts';
import { usageCommands } from './usage.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  readonly version: string;
};

function program(): Command {
  const waggle = new Command('waggle')
    .description('An image-resizing service that any number of equal nodes provide together.')
    .version(version)
    .showHelpAfterError('(--help says more)')
    .exitOverride();
  startCommands(waggle);
  statusCommand(waggle);
  clusterCommands(waggle);
  recoverCommand(waggle);
  customerCommands(waggle);
  keyCommands(waggle);
  tokenCommands(waggle);
  usageCommands(waggle);
  epochCommands(waggle);
  resizeCommand(waggle);
  return waggle;
}

/**
 * Runs a command line, without the program's name, and sets the exit code: 0 when done, 1 for an error, 2 for what was asked
 * or configured wrongly. `start` comes back when the node runs.
 */
export async function run(args: readonly string[]): Promise<void> {
  try {
    await program().parseAsync(args, { from: 'user' });
  } catch (error) {
    // commander has printed its message, or the help that was asked for.
    process.exitCode = error instanceof CommanderError ? (error.exitCode === 0 ? 0 : 2) : report(error);
  }
}
