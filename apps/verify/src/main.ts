import { verifyStatement } from '@waggle/protocol/audit';
import type { Epoch } from '@waggle/protocol/base';
import type { Cluster } from '@waggle/protocol/sealing';
import { Command, CommanderError } from 'commander';
import { checkBreak, checkSource, explain, type Outcome } from './check.ts';
import { parseCluster } from './cluster.ts';
import type { Witnessed } from './evidence.ts';
import { openFiles, readWhole } from './files.ts';
import { nodeCrypto } from './node-crypto.ts';
import { humanOutput, jsonOutput, type Output } from './output.ts';
import {
  mayBeOfOthers,
  rosterAt,
  rostersOfChain,
  rostersOfGenesis,
  rostersOfState,
  unknownRoster,
  type Known,
} from './rosters.ts';
import { UnusableError, type Source } from './source.ts';
import { readState, writeState } from './state.ts';
import { openUrl } from './url.ts';

interface Options {
  readonly genesis?: string;
  readonly state?: string;
  readonly rosters?: string;
  readonly statement?: string;
  readonly proof?: string;
  readonly checkpoint?: readonly string[];
  readonly predecessor?: string;
  readonly withoutSlots?: boolean;
  readonly token?: string;
  readonly json?: boolean;
}

/** Bytes of a genesis, a statement or a proof file at most. */
const SMALL_BYTES_MAX = 4_194_304;
/** Bytes of a chain of rosters at most: some ten thousand changes. */
const ROSTERS_BYTES_MAX = 134_217_728;

const HELP = `
Exit codes: 0 all that was checked is good; 1 something is wrong, and is named; 2 the arguments cannot be used, or something
could not be read, or not be judged: nothing is said against it.

Examples:
  waggle-verify https://waggle.example --token wgt_... --state ./waggle-state
  waggle-verify epoch-17.tar --genesis genesis.json
  waggle-verify --statement shop.json --proof shop.tlog-proof --genesis genesis.json --rosters rosters.jsonl`;

/**
 * The command line: `waggle-verify <url | directory | .tar>`. Gives the exit code: 0 all good, 1 something is wrong, 2 the
 * arguments cannot be used, or something could not be read. Writes to standard output and standard error only.
 */
export async function run(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number> {
  const out = (line: string): void => void process.stdout.write(`${line}\n`);
  const err = (line: string): void => void process.stderr.write(`${line}\n`);
  const command = new Command('waggle-verify')
    .description('Checks sealed epochs of Waggle, or one statement, without trusting who sent them.')
    .argument('[source]', 'the URL of a node, a directory of bundles, or one .tar')
    .option('--genesis <FILE>', 'the genesis that you trust')
    .option('--rosters <FILE>', 'who had to sign when, as GET /v1/rosters.jsonl shows it (checked from the genesis on)')
    .option('--state <DIR>', 'go on from what an earlier run verified, and keep what this one does')
    .option(
      '--statement <FILE>',
      'check this statement (with --proof and --genesis, without a source; --rosters or --state for later rosters)',
    )
    .option('--proof <FILE>', 'the .tlog-proof of the statement')
    .option(
      '--checkpoint <FILE...>',
      'checkpoints that others were shown: contradicting ones are a proof of misbehaviour',
    )
    .option(
      '--predecessor <SOURCE>',
      'the log that this one continues after a recovery: a directory of bundles, a URL, or the --state of it',
    )
    .option('--without-slots', 'where slots are not kept any more, check all but that statements are their sums')
    .option(
      '--token <TOKEN>',
      'token of an auditor for a URL (or WAGGLE_TOKEN, which does not show in the list of processes)',
    )
    .option('--json', 'print JSON lines')
    .addHelpText('after', HELP)
    .exitOverride()
    .configureOutput({ writeOut: (text) => out(text.trimEnd()), writeErr: (text) => err(text.trimEnd()) });
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  const options = command.opts<Options>();
  const output = options.json === true ? jsonOutput(out) : humanOutput(out, err);
  try {
    const [source] = command.args;
    const isGood =
      options.statement === undefined && options.proof === undefined
        ? await checkEpochs(source, { ...options, token: options.token ?? env['WAGGLE_TOKEN'] }, output)
        : await checkStatement(source, options, output);
    return isGood ? 0 : 1;
  } catch (error) {
    if (!(error instanceof UnusableError)) throw error;
    output.failed(error);
    return 2;
  }
}

type EpochOptions = Omit<Options, 'token'> & { readonly token: string | undefined };

async function checkEpochs(name: string | undefined, options: EpochOptions, output: Output): Promise<boolean> {
  if (name === undefined)
    throw new UnusableError('Expected the URL of a node, a directory or a .tar file, received nothing');
  const pinned = options.genesis === undefined ? null : await readCluster(options.genesis);
  const state = options.state === undefined ? null : await readState(options.state);
  const kept = state?.verified.cluster ?? null;
  // A state of its predecessor will do: the break is checked.
  if (pinned !== null && kept !== null && pinned.id !== kept.id && pinned.genesis.predecessor?.cluster !== kept.id)
    throw new UnusableError(`Expected a state of cluster ${pinned.id}, received one of cluster ${kept.id}`);
  const cluster = pinned ?? kept;
  if (options.rosters !== undefined && cluster === null)
    throw new UnusableError('Expected --genesis, or a --state, with --rosters');
  const rosters = options.rosters === undefined ? null : await readRosters(options.rosters, cluster!, output);
  if (rosters === false) return false;
  const witnessed = await Promise.all((options.checkpoint ?? []).map(readCheckpoint));
  const source = await openSource(name, options.token);
  const trust = {
    pinned: cluster?.id ?? null,
    ancestor: cluster?.genesis.predecessor?.cluster ?? null,
    state,
    rosters,
    witnessed,
    withoutSlots: options.withoutSlots === true,
  };
  let outcome = await checkSource(source, name, trust, output.epoch);
  // What was good before the first thing that is not, or could not be read, need not be checked again.
  if (options.state !== undefined && outcome.state !== null && outcome.state !== state)
    await writeState(options.state, outcome.state);
  if (outcome.stopped !== null) throw outcome.stopped;
  if (options.predecessor !== undefined && outcome.finding === null)
    outcome = checkBreak(outcome, await checkPredecessor(options.predecessor, outcome, options), options.predecessor);
  output.end(outcome, pinned !== null ? 'genesis' : state !== null ? 'state' : null, options.state !== undefined);
  return outcome.finding === null;
}

/** What can be verified of a predecessor: what an earlier run did, or all of its bundles. */
async function checkPredecessor(name: string, { cluster }: Outcome, options: EpochOptions): Promise<Outcome> {
  const pinned = cluster?.genesis.predecessor?.cluster ?? null;
  const state = /^[a-z]+:\/\//i.test(name) ? null : await readState(name);
  const nothing: Source = { genesis: null, log: null, async *items() {} };
  const source = state === null ? await openSource(name, options.token) : nothing;
  if (state !== null && state.verified.cluster.id !== pinned)
    throw new UnusableError(`Expected a state of cluster ${pinned}, received one of ${state.verified.cluster.id}`);
  const withoutSlots = options.withoutSlots === true;
  const trust = { pinned, ancestor: null, state, rosters: null, witnessed: [], withoutSlots };
  return checkSource(source, name, trust, () => {});
}

function openSource(name: string, token: string | undefined): Promise<Source> {
  if (!/^[a-z]+:\/\//i.test(name)) return openFiles(name);
  if (!URL.canParse(name) || !/^https?:\/\//i.test(name))
    throw new UnusableError(`Expected a URL with http or https, received ${name}`);
  return openUrl(new URL(name), token);
}

async function checkStatement(name: string | undefined, options: Options, output: Output): Promise<boolean> {
  const { statement, proof, genesis } = options;
  if (statement === undefined || proof === undefined || genesis === undefined || name !== undefined)
    throw new UnusableError('Expected --statement, --proof and --genesis together, and no source with them');
  const cluster = await readCluster(genesis);
  const state = options.state === undefined ? null : await readState(options.state);
  if (state !== null && state.verified.cluster.id !== cluster.id)
    throw new UnusableError(`Expected a state of cluster ${cluster.id}, received one of ${state.verified.cluster.id}`);
  const [text, path] = [await readSmall(statement), await readSmall(proof)];
  const rosters = options.rosters === undefined ? null : await readRosters(options.rosters, cluster, output);
  if (rosters === false) return false;
  const known = [
    rostersOfGenesis(cluster),
    ...(state === null ? [] : [rostersOfState(state)]),
    ...(rosters === null ? [] : [rosters]),
  ];
  // Saying another epoch leads to another roster or, since the leaf has it, to no leaf.
  const epoch = sealedIn(text);
  const { roster, isCertain } = rosterAt(known, epoch);
  try {
    output.statement(verifyStatement(text, path, cluster, roster, nodeCrypto), cluster);
    return true;
  } catch (error) {
    if (!isCertain && mayBeOfOthers(error, path, cluster, roster))
      throw unknownRoster(epoch, 'others than those have signed the proof, or too few of them');
    return fail(output, error, `${statement} with ${proof}`);
  }
}

/** Names what is wrong. */
function fail(output: Output, error: unknown, where: string): false {
  const why = explain(error);
  if (why instanceof UnusableError) throw why;
  output.failed({ error: why, epoch: null, where });
  return false;
}

/** The epoch that a statement says has sealed it; 0 if it is none. */
function sealedIn(statement: Uint8Array): Epoch {
  try {
    const said = JSON.parse(Buffer.from(statement).toString('utf8')) as { readonly sealedIn?: unknown } | null;
    return typeof said?.sealedIn === 'number' ? said.sealedIn : 0;
  } catch {
    // It is refused when it is read.
    return 0;
  }
}

/** What a chain of rosters proves; false if it does not, which is said. */
async function readRosters(path: string, cluster: Cluster, output: Output): Promise<Known | false> {
  const bytes = await readArgument(path, ROSTERS_BYTES_MAX);
  try {
    return rostersOfChain(cluster, bytes);
  } catch (error) {
    return fail(output, error, path);
  }
}

/** Reads a file that the arguments name. */
const readArgument = (path: string, bytesMax: number): Promise<Uint8Array> =>
  readWhole(path, bytesMax).catch((cause: unknown) => {
    throw new UnusableError(`Expected a file, received ${path}: ${(cause as Error).message}`, { cause });
  });

const readSmall = (path: string): Promise<Uint8Array> => readArgument(path, SMALL_BYTES_MAX);

const readCheckpoint = async (path: string): Promise<Witnessed> => ({
  note: Buffer.from(await readSmall(path)).toString('utf8'),
  where: path,
});

async function readCluster(path: string): Promise<ReturnType<typeof parseCluster>> {
  const bytes = await readSmall(path);
  try {
    return parseCluster(bytes);
  } catch (cause) {
    throw new UnusableError(`Expected a genesis as a node shows it, received ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
}
