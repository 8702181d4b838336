import type { Command } from 'commander';
import {
  demandStartable,
  flagOf,
  loadConfig,
  SETTING_NAMES,
  settingsMarkdown,
  SETTINGS,
  showSetting,
  type Config,
  type Setting,
  type SettingName,
  type Sources,
} from '../config.ts';
import { say, table } from './output.ts';

type Flags = Sources['flags'];

/** Adds a flag for each setting. They have no defaults here, so that those not given are told apart. */
function withSettings(command: Command): Command {
  command.option('--config <FILE>', 'the file of settings (WAGGLE_CONFIG; default: waggle.json, if there is one)');
  for (const name of SETTING_NAMES) {
    const { form, description, fallback, shown, firstStartOnly } = SETTINGS[name] as Setting<unknown>;
    const first = firstStartOnly === true ? '; first start of a new cluster only' : '';
    command.option(`${flagOf(name)} <${form}>`, `${description}${first} (default: ${shown ?? fallback})`);
  }
  return command;
}

/** A value as waggle.json would have it, secrets masked. */
function jsonOf(config: Config, name: SettingName): unknown {
  const value = config[name];
  return typeof value === 'number' || typeof value === 'boolean' || value === null ? value : showSetting(config, name);
}

const sources = (flags: Flags): Sources => ({ flags, env: process.env, directory: process.cwd() });

/** `waggle start` and `waggle config`. */
export function startCommands(program: Command): void {
  withSettings(program.command('start'))
    .description('start a node and run it until SIGTERM or Ctrl-C')
    .action(async (flags: Flags) => {
      const { config } = loadConfig(sources(flags));
      demandStartable(config);
      // Only here: the other commands need no image library and no database.
      const { start } = await import('../main.ts');
      await start(config);
    });
  withSettings(program.command('config'))
    .description('print the effective settings and where each comes from')
    .option('--json', 'print them as JSON')
    .option('--markdown', 'print the table of all settings for the documentation')
    .action(({ json, markdown, ...flags }: Flags & { readonly json?: true; readonly markdown?: true }) => {
      if (markdown === true) return say(settingsMarkdown());
      const { config, origins } = loadConfig(sources(flags));
      const entries = SETTING_NAMES.map(
        (name) => [name, { value: jsonOf(config, name), source: origins[name] }] as const,
      );
      if (json === true) return say(JSON.stringify(Object.fromEntries(entries), null, 2));
      const rows = SETTING_NAMES.map((name) => [name, showSetting(config, name), origins[name]]);
      say(table(['SETTING', 'VALUE', 'FROM'], rows));
    });
}
