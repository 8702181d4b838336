import type { Command } from 'commander';
import type { KeyView, TokenView } from '@waggle/identity';
import { asking, Client, type ClientOptions } from './client.ts';
import { fields, say, show, table } from './output.ts';

const ONCE = 'Keep it now: it is shown this once and kept nowhere.';
const keysOf = (customer: string): string => `/v1/customers/${encodeURIComponent(customer)}/keys`;

/** A new API key of a customer; `text` shows it to people. */
export async function issueKey(
  client: Client,
  customer: string,
  scopes?: readonly string[],
): Promise<KeyView & { readonly key: string; readonly text: string }> {
  const issued = await client.ask<KeyView & { readonly key: string }>(
    'POST',
    keysOf(customer),
    scopes === undefined ? {} : { scopes },
  );
  return { ...issued, text: `${fields({ key: issued.key, scopes: issued.scopes.join(' ') })}\n${ONCE}` };
}

/** `waggle key …`: for operators. */
export function keyCommands(program: Command): void {
  const key = program.command('key').description('issue, list and revoke API keys of customers (operator)');
  asking(key.command('issue <customer>'), 'token')
    .description('issue an API key')
    .option('--scope <SCOPE...>', 'what it may do: resize, read (default: both)')
    .option('-q, --quiet', 'print the key only')
    .action(async (customer: string, options: ClientOptions & { readonly scope?: string[] }) => {
      const { text, ...issued } = await issueKey(Client.open(options, 'token'), customer, options.scope);
      show(options, issued, () => text, issued.key);
    });
  asking(key.command('list <customer>'), 'token')
    .description('list the API keys of a customer')
    .action(async (customer: string, options: ClientOptions) => {
      const answer = await Client.open(options, 'token').ask<{ keys: KeyView[] }>('GET', keysOf(customer));
      const rows = answer.keys.map((one) => [
        one.id,
        one.scopes.join(' '),
        one.createdAt,
        one.revoked ? 'revoked' : 'valid',
      ]);
      show(options, answer, () =>
        rows.length === 0 ? 'No keys.' : table(['ID', 'SCOPES', 'CREATED', 'STATUS'], rows),
      );
    });
  asking(key.command('revoke <customer> <key-id>'), 'token')
    .description('refuse an API key for ever')
    .action(async (customer: string, id: string, options: ClientOptions) => {
      await Client.open(options, 'token').ask('DELETE', `${keysOf(customer)}/${encodeURIComponent(id)}`);
      if (options.json !== true) say(`Revoked key ${id}.`);
    });
}

/** `waggle token …`: for operators. */
export function tokenCommands(program: Command): void {
  const token = program
    .command('token')
    .description('create, list and revoke tokens of operators, auditors and metrics (operator)');
  asking(token.command('create <role> <name>'), 'token')
    .description('create a token; the role is operator, auditor or metrics')
    .option('-q, --quiet', 'print the token only')
    .action(async (role: string, name: string, options: ClientOptions) => {
      const answer = await Client.open(options, 'token').ask<{ id: string; token: string }>('POST', '/v1/tokens', {
        role,
        name,
      });
      show(
        options,
        answer,
        () => `${fields({ id: answer.id, role, name, token: answer.token })}\n${ONCE}`,
        answer.token,
      );
    });
  asking(token.command('list'), 'token')
    .description('list tokens')
    .action(async (options: ClientOptions) => {
      const answer = await Client.open(options, 'token').ask<{ tokens: TokenView[] }>('GET', '/v1/tokens');
      const rows = answer.tokens.map((one) => [
        one.id,
        one.role,
        one.name,
        one.createdAt,
        one.revoked ? 'revoked' : 'valid',
      ]);
      show(options, answer, () => table(['ID', 'ROLE', 'NAME', 'CREATED', 'STATUS'], rows));
    });
  asking(token.command('revoke <token-id>'), 'token')
    .description('refuse a token for ever')
    .action(async (id: string, options: ClientOptions) => {
      await Client.open(options, 'token').ask('DELETE', `/v1/tokens/${encodeURIComponent(id)}`);
      if (options.json !== true) say(`Revoked token ${id}.`);
    });
}
