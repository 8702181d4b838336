import {
  BUNDLE_FILES,
  bundleEpoch,
  totalsOf,
  verifyBreak,
  verifyBundle,
  verifySuccessor,
  type Bundle,
  type EpochReport,
  type Succession,
  type Totals,
  type Verified,
} from '@waggle/protocol/audit';
import { base64, equalBytes, WaggleError, type ClusterId, type Epoch } from '@waggle/protocol/base';
import { chainStart, parseSlotList, type Cluster, type Roster } from '@waggle/protocol/sealing';
import {
  consistencyProof,
  formatVerifierKey,
  frontierRoot,
  verifyConsistency,
  type VerifierKey,
} from '@waggle/protocol/transparency';
import { slotName } from '@waggle/protocol/usage';
import { parseCluster } from './cluster.ts';
import { misbehaviourIn, MisbehaviourError, type Misbehaviour, type Witnessed } from './evidence.ts';
import { nodeCrypto } from './node-crypto.ts';
import { isOutline, verifyOutline } from './outline.ts';
import {
  isSameRoster,
  rosterAt,
  rosterIn,
  rostersOfGenesis,
  rostersOfState,
  unknownRoster,
  type Known,
} from './rosters.ts';
import { keysOf, openLog } from './signed.ts';
import { TwiceError, UnusableError, type Item, type LogSource, type Source } from './source.ts';
import { withRoster, type State } from './state.ts';
import { explainStatements, lateUsageIn, statementsIn, type LateUsage } from './statements.ts';

/** A good epoch, as it is told while the check goes on. */
export interface CheckedEpoch extends EpochReport {
  readonly where: string;
  /** Whether everything from the genesis up to this epoch was verified, now or in an earlier run. */
  readonly anchored: boolean;
  /** Whether its statements were computed again from its slots. Not, where those are not kept any more. */
  readonly recomputed: boolean;
  /** Usage of earlier epochs that it counts. */
  readonly lateUsage: readonly LateUsage[];
  /** Slots that their writers have not closed, by name: counted as far as they were known. */
  readonly writtenOff: readonly string[];
}

/** What is wrong, and where. */
export interface Finding {
  readonly error: WaggleError;
  /** Null if it is nothing about one epoch. */
  readonly epoch: Epoch | null;
  readonly where: string;
}

/** That a cluster continues another one, by the operator's signature. */
export interface CheckedSuccession {
  readonly predecessor: ClusterId;
  /** The first epoch of the successor. */
  readonly epoch: Epoch;
  /** Of the predecessor's last checkpoint, and who cosigned it, first 8 digits of each; 0 and nobody if it sealed nothing. */
  readonly treeSize: number;
  readonly cosigners: readonly string[];
  readonly reason: string;
  /** Whether the predecessor's log was verified up to that end, and what it had counted compared. */
  readonly checked: boolean;
}

/** What came of a check: all that was good up to the end, or to the first thing that was not. */
export interface Outcome {
  readonly cluster: Cluster | null;
  readonly epochs: number;
  readonly first: Epoch | null;
  readonly last: Epoch | null;
  readonly statements: number;
  readonly totals: Totals;
  /** Epochs that followed nothing that was verified: each begins a stretch that stands for itself. */
  readonly unanchored: readonly Epoch[];
  /** Epochs of which all was checked but the sums, because their slots are not kept any more. */
  readonly notRecomputed: readonly Epoch[];
  /** Tree size of the source's newest checkpoint, which continues what was verified; null if it shows none. */
  readonly logSize: number | null;
  /** What the cluster continues; null if it succeeds none. */
  readonly succession: CheckedSuccession | null;
  /** What is to be gone on from next time; null if nothing was verified from the genesis on. */
  readonly state: State | null;
  readonly finding: Finding | null;
  /** Why it ended before the end, if something could not be read or judged: nothing that is wrong. */
  readonly stopped: UnusableError | null;
}

/** What a check starts from. */
export interface Trust {
  /** The cluster that it has to be; null: the one that the source shows. */
  readonly pinned: ClusterId | null;
  /** The predecessor of that, if it has one: its bundles may come first. */
  readonly ancestor: ClusterId | null;
  readonly state: State | null;
  /** The rosters that a chain of them proves. */
  readonly rosters: Known | null;
  /** Checkpoints that somebody else was shown, to hold against the source's. */
  readonly witnessed: readonly Witnessed[];
  /** Whether bundles without the contents of slots will do. */
  readonly withoutSlots: boolean;
}

/** Goes through the bundles of a source, one in memory at a time. What is wrong, or could not be read, is in the outcome. */
export async function checkSource(
  source: Source,
  name: string,
  trust: Trust,
  tell: (epoch: CheckedEpoch) => void,
): Promise<Outcome> {
  return new Check(trust, tell).run(source, name);
}

class Check {
  readonly #trust: Trust;
  /** What was verified in an earlier run, and the cluster that it has to be: of a successor from the break on. */
  #base: State | null;
  #pinned: ClusterId | null;
  #isBreakChecked = false;
  readonly #tell: (epoch: CheckedEpoch) => void;
  readonly #witnessed: Witnessed[];
  /** The keys of all rosters seen, by their texts. */
  readonly #keys = new Map<string, VerifierKey>();
  #item: Item | null = null;
  #last: State | null = null;
  #cluster: Cluster | null;
  #epochs = 0;
  #first: Epoch | null = null;
  #lastEpoch: Epoch | null = null;
  #statements = 0;
  #totals = totalsOf([]);
  readonly #unanchored: Epoch[] = [];
  readonly #notRecomputed: Epoch[] = [];
  #logSize: number | null = null;
  #state: State | null;

  constructor(trust: Trust, tell: (epoch: CheckedEpoch) => void) {
    this.#trust = trust;
    this.#tell = tell;
    this.#base = trust.state;
    this.#pinned = trust.pinned;
    this.#state = trust.state;
    this.#cluster = trust.state?.verified.cluster ?? null;
    this.#witnessed = [...trust.witnessed];
    if (trust.state === null) return;
    const { verified, checkpoint } = trust.state;
    if (checkpoint !== null) this.#witnessed.push({ note: checkpoint, where: 'the state' });
    this.#learn(verified.cluster);
    for (const { roster } of trust.state.rosters) this.#learn(verified.cluster, roster);
  }

  async run(source: Source, name: string): Promise<Outcome> {
    let finding: Finding | null = null;
    let stopped: UnusableError | null = null;
    try {
      await this.#check(source);
    } catch (error) {
      const { epoch = null, where = name } = this.#item ?? {};
      const why = explain(error);
      if (why instanceof UnusableError) stopped = why;
      else finding = { error: why, epoch, where };
    }
    return {
      cluster: this.#cluster,
      epochs: this.#epochs,
      first: this.#first,
      last: this.#lastEpoch,
      statements: this.#statements,
      totals: this.#totals,
      unanchored: this.#unanchored,
      notRecomputed: this.#notRecomputed,
      logSize: this.#logSize,
      succession: this.#succession(),
      state: this.#state,
      finding,
      stopped,
    };
  }

  async #check(source: Source): Promise<void> {
    if (source.genesis !== null) this.#enter(source.genesis);
    if (source.genesis !== null) this.#learn(readGenesis(source.genesis, this.#pinned));
    const state = this.#base;
    if (source.log !== null && state !== null) await this.#compareState(source.log, state);
    try {
      for await (this.#item of source.items(state?.verified ?? null)) await this.#checkItem(this.#item);
    } catch (error) {
      if (error instanceof TwiceError)
        await this.#proveTwice(error.items).catch((reason: unknown) => {
          if (reason instanceof MisbehaviourError) throw reason;
          // Whatever else is wrong with them, there are two.
        });
      throw error;
    }
    this.#item = null;
    if (this.#pinned !== null && this.#cluster !== null && this.#cluster.id !== this.#pinned)
      throw new WaggleError(
        'GENESIS_MISMATCH',
        `Expected bundles of cluster ${this.#pinned}, received those of its predecessor only`,
      );
    if (source.log !== null) await this.#checkLog(source.log);
  }

  /** Goes on with a successor where the cluster that was verified ends; anything else is for whoever reads the genesis. */
  #enter(genesis: Uint8Array): void {
    const ended = (this.#last ?? this.#base)?.verified;
    if (ended === undefined) return;
    const cluster = clusterIn(genesis);
    if (cluster?.genesis.predecessor?.cluster !== ended.cluster.id) return;
    const succession = verifySuccessor(cluster, nodeCrypto)!;
    checkEnd(succession, { cluster: ended.cluster, verified: ended });
    this.#isBreakChecked = true;
    this.#last = null;
    this.#base = null;
    this.#pinned = cluster.id;
    this.#learn(cluster);
  }

  /** The cluster that a bundle has to be of; null if nothing is known. */
  #expected(bundle: Bundle): ClusterId | null {
    const { ancestor } = this.#trust;
    const isBefore =
      ancestor !== null && clusterIn(bundle.get(BUNDLE_FILES.genesis) ?? new Uint8Array())?.id === ancestor;
    return isBefore && !this.#isBreakChecked ? ancestor : this.#pinned;
  }

  #succession(): CheckedSuccession | null {
    if (this.#cluster === null) return null;
    try {
      const succession = verifySuccessor(this.#cluster, nodeCrypto);
      return succession === null ? null : checkedSuccession(succession, this.#isBreakChecked);
    } catch {
      // It is the finding already.
      return null;
    }
  }

  /** The source must show the epoch that was verified last under the checkpoint that it had: if not, both together may be a proof. */
  async #compareState(log: LogSource, { verified }: State): Promise<void> {
    const epoch = verified.chain.epoch - 1;
    const note = await log.checkpoint(epoch).catch(() => null);
    // Whatever is wrong without a proof is found where the list of epochs is read.
    if (note !== null) this.#compare(note, `the checkpoint of epoch ${epoch} now`);
  }

  async #checkItem(item: Item): Promise<void> {
    const bundle = await item.load(this.#trust.withoutSlots);
    this.#enter(bundle.get(BUNDLE_FILES.genesis) ?? new Uint8Array());
    const [state, pinned] = [this.#base, this.#expected(bundle)];
    const note = bundle.get(BUNDLE_FILES.checkpoint) ?? new Uint8Array();
    const before = [this.#last, state].map((each) => each?.verified ?? null);
    let found: Found;
    try {
      found = checkBundle(
        bundle,
        item,
        before,
        pinned ?? this.#cluster?.id ?? null,
        this.#known(),
        this.#trust.withoutSlots,
      );
      checkState(found.verified, state?.verified ?? null);
    } catch (error) {
      // That it contradicts what was seen before says more than how.
      this.#compare(note, item.where);
      throw error;
    }
    const { verified, report, recomputed } = found;
    this.#learn(verified.cluster, verified.chain.roster);
    if (this.#trust.rosters?.cluster === verified.cluster.id)
      for (const { roster } of this.#trust.rosters.rosters) this.#learn(verified.cluster, roster);
    this.#compare(note, item.where);
    const isGap = !verified.fromGenesis && report.epoch !== (this.#lastEpoch ?? -2) + 1;
    if (isGap) this.#unanchored.push(report.epoch);
    if (!recomputed) this.#notRecomputed.push(report.epoch);
    const rosters = withRoster((this.#last ?? state)?.rosters ?? [], verified);
    this.#last = { verified, checkpoint: Buffer.from(note).toString('utf8'), rosters };
    this.#epochs++;
    this.#first ??= report.epoch;
    this.#lastEpoch = report.epoch;
    this.#statements += report.statements;
    this.#totals = totalsOf([this.#totals, report.totals]);
    if (verified.fromGenesis && verified.chain.epoch > (this.#state?.verified.chain.epoch ?? 0))
      this.#state = this.#last;
    this.#tell({
      ...report,
      where: item.where,
      anchored: verified.fromGenesis,
      recomputed,
      lateUsage: report.late > 0 ? lateUsageIn(statementsIn(bundle), report.epoch) : [],
      writtenOff: writtenOffIn(bundle),
    });
  }

  /** Who knows rosters, beside the genesis. */
  #known(): Known[] {
    const states = [this.#last, this.#base].flatMap((state) => (state === null ? [] : [rostersOfState(state)]));
    return this.#trust.rosters === null ? states : [...states, this.#trust.rosters];
  }

  /** Throws the proof, if two bundles of one epoch are one. */
  async #proveTwice(items: readonly Item[]): Promise<void> {
    const expected = this.#pinned ?? this.#cluster?.id ?? null;
    for (const { load, where } of items) {
      const bundle = await load(true);
      this.#learn(readGenesis(bundle.get(BUNDLE_FILES.genesis) ?? new Uint8Array(), expected));
      const note = bundle.get(BUNDLE_FILES.checkpoint) ?? new Uint8Array();
      this.#compare(note, where);
      this.#witnessed.push({ note: Buffer.from(note).toString('utf8'), where });
    }
  }

  /** That the newest checkpoint of the log, as everybody sees it, continues what was verified (RFC 6962 §2.1.2). */
  async #checkLog(log: LogSource): Promise<void> {
    const verified = (this.#last ?? this.#base)?.verified;
    if (verified === undefined) return;
    const note = await log.newest();
    this.#compare(note, 'the newest checkpoint');
    const { checkpoint } = openLog(note, verified.cluster, [...this.#keys.values()]);
    const { frontier } = verified;
    const root = frontierRoot(nodeCrypto, frontier);
    if (checkpoint.size < frontier.size || (checkpoint.size === frontier.size && !equalBytes(checkpoint.root, root)))
      throw new WaggleError(
        'HISTORY_CHANGED',
        `Expected the newest checkpoint to continue tree size ${frontier.size} and root ${base64.encode(root)}, as verified, received ${checkpoint.size} and ${base64.encode(checkpoint.root)}`,
      );
    const proof = await consistencyProof(nodeCrypto, log.readTile, frontier.size, checkpoint.size);
    verifyConsistency(nodeCrypto, proof, root, checkpoint.root);
    this.#logSize = checkpoint.size;
  }

  /** Throws `HISTORY_CHANGED` with the proof, if one key signed this checkpoint and a contradicting one that was witnessed. */
  #compare(note: Uint8Array, where: string): void {
    const found: Witnessed = { note: Buffer.from(note).toString('utf8'), where };
    const last = this.#last?.checkpoint;
    const others = last === undefined || last === null ? [] : [{ note: last, where: 'the bundle before' }];
    for (const other of [...this.#witnessed, ...others]) {
      const misbehaviour = misbehaviourIn(other, found, [...this.#keys.values()]);
      if (misbehaviour !== null) throw new MisbehaviourError(misbehaviour);
    }
  }

  /** Takes note of the cluster, and of the keys that may sign for it. */
  #learn(cluster: Cluster, roster: Roster = cluster.genesis.roster): void {
    this.#cluster = cluster;
    for (const key of keysOf(cluster, roster)) this.#keys.set(formatVerifierKey(key), key);
  }
}

/** The cluster of a genesis, if it is one. */
function clusterIn(genesis: Uint8Array): Cluster | null {
  try {
    return parseCluster(genesis);
  } catch {
    return null;
  }
}

const checkedSuccession = (
  { cluster, epoch, checkpoint, cosigners, reason }: Succession,
  checked: boolean,
): CheckedSuccession => ({
  predecessor: cluster.genesis.predecessor!.cluster,
  epoch,
  treeSize: checkpoint?.size ?? 0,
  cosigners,
  reason,
  checked,
});

/** `verifyBreak`. A log that was not verified up to its end yet says nothing for or against the break: `UnusableError`. */
function checkEnd(
  succession: Succession,
  predecessor: { readonly cluster: Cluster; readonly verified: Verified },
): void {
  try {
    verifyBreak(succession, predecessor, nodeCrypto);
  } catch (error) {
    const [end, seen] = [succession.epoch, predecessor.verified.chain.epoch];
    if (seen >= end || !(error instanceof WaggleError) || error.code !== 'HISTORY_CHANGED') throw error;
    throw new UnusableError(
      `Expected the predecessor's log to be verified up to its end, epoch ${end - 1}, received it up to epoch ${seen - 1}: verify the rest first, with the same --state, from the bundles that survivors and auditors keep`,
    );
  }
}

/**
 * Holds a cluster against what was verified of its predecessor, up to the end of that log. Gives the outcome with the break in it,
 * checked, or the finding. Throws `UnusableError` for a cluster that succeeds none.
 */
export function checkBreak(outcome: Outcome, predecessor: Outcome, name: string): Outcome {
  const { cluster } = outcome;
  if (cluster?.genesis.predecessor === undefined || outcome.succession === null)
    throw new UnusableError('Expected a cluster that succeeds another one for --predecessor');
  if (predecessor.finding !== null) return { ...outcome, finding: predecessor.finding };
  if (predecessor.stopped !== null) throw predecessor.stopped;
  const where = `${name} (the predecessor)`;
  try {
    if (predecessor.cluster === null || predecessor.state === null)
      throw new WaggleError('GENESIS_MISMATCH', 'Expected the predecessor to be verified from its genesis on');
    const succession = verifySuccessor(cluster, nodeCrypto)!;
    checkEnd(succession, { cluster: predecessor.cluster, verified: predecessor.state.verified });
    return { ...outcome, succession: checkedSuccession(succession, true) };
  } catch (error) {
    const why = explain(error);
    if (why instanceof UnusableError) throw why;
    return { ...outcome, finding: { error: why, epoch: null, where } };
  }
}

function readGenesis(bytes: Uint8Array, pinned: ClusterId | null): Cluster {
  const cluster = parseCluster(bytes);
  if (pinned !== null && cluster.id !== pinned)
    throw new WaggleError(
      'GENESIS_MISMATCH',
      `Expected the genesis of cluster ${pinned}, received that of ${cluster.id}`,
    );
  return cluster;
}

type Found = ReturnType<typeof verifyBundle> & { readonly recomputed: boolean };

/**
 * Verifies one bundle after the first of what was verified before that it follows, or alone, against a roster that is known. Throws
 * `UnusableError` for one that is good in itself, but of a roster that nobody here knows, and for one without the contents of slots
 * where those are demanded.
 */
function checkBundle(
  bundle: Bundle,
  item: Item,
  before: readonly (Verified | null)[],
  pinned: ClusterId | null,
  known: readonly Known[],
  withoutSlots: boolean,
): Found {
  const epoch = bundleEpoch(bundle);
  if (epoch !== item.epoch)
    throw new WaggleError(
      'BUNDLE_MALFORMED',
      `Expected the bundle of epoch ${item.epoch}, received that of epoch ${epoch}`,
    );
  const after = before.find((verified) => verified?.chain.epoch === epoch) ?? null;
  const recomputed = !isOutline(bundle);
  if (!recomputed && !withoutSlots)
    throw new UnusableError(
      `Expected the contents of the slots of epoch ${epoch}, received none (--without-slots checks the rest)`,
      { code: 'SLOTS_EXPIRED' },
    );
  const cluster = clusterIn(bundle.get(BUNDLE_FILES.genesis) ?? new Uint8Array());
  const isOurs = cluster !== null && (pinned === null || cluster.id === pinned);
  if (!recomputed && isOurs && after === null && epoch !== chainStart(cluster).epoch)
    throw new UnusableError(
      `Expected all epochs before ${epoch} too, or a state of them: without the contents of slots it can be checked in sequence only`,
    );
  // What is refused for its genesis anyway needs no roster.
  const { roster, isCertain } = isOurs
    ? rosterAt([rostersOfGenesis(cluster), ...known.filter((each) => each.cluster === cluster.id)], epoch)
    : { roster: undefined, isCertain: true };
  const supposed = isCertain ? roster : (rosterIn(bundle) ?? roster);
  const found = recomputed ? verifyWhole(bundle, after, pinned, supposed) : verifyOutline(bundle, after, pinned);
  const { listed } = item;
  const { treeSize, root } = found.report;
  if (listed !== null && (listed.treeSize !== treeSize || !equalBytes(listed.root, root)))
    throw new WaggleError(
      'ROOT_MISMATCH',
      `Expected tree size ${treeSize} and root ${base64.encode(root)} in the list of epochs, as in the bundle, received ${listed.treeSize} and ${base64.encode(listed.root)}`,
    );
  if (after === null && supposed !== undefined && !isSameRoster(supposed, roster!))
    throw unknownRoster(epoch, 'its bundle names another roster, and is good if that one is right');
  return { ...found, recomputed };
}

/** `verifyBundle`, which says of statements that are wrong in which way they are. */
function verifyWhole(
  bundle: Bundle,
  after: Verified | null,
  pinned: ClusterId | null,
  roster: Roster | undefined,
): ReturnType<typeof verifyBundle> {
  try {
    return verifyBundle(bundle, after, pinned, nodeCrypto, roster);
  } catch (error) {
    if (!(error instanceof WaggleError) || error.code !== 'STATEMENT_MISMATCH') throw error;
    const why = explainStatements(bundle);
    throw why === null ? error : new WaggleError(error.code, `${error.message}: ${why}`, { cause: error });
  }
}

/** Slots that a bundle counts and that their writers have not closed. Of a good bundle. */
const writtenOffIn = (bundle: Bundle): string[] =>
  parseSlotList(bundle.get(BUNDLE_FILES.slotList) ?? new Uint8Array())
    .filter(({ closed }) => !closed)
    .map(slotName);

/** A bundle of the epoch that was verified last in an earlier run must lead to the very same log. */
function checkState(verified: Verified, state: Verified | null): void {
  if (state === null || verified.chain.epoch !== state.chain.epoch) return;
  const [root, expected] = [verified, state].map(({ frontier }) => frontierRoot(nodeCrypto, frontier)) as [
    Uint8Array,
    Uint8Array,
  ];
  const isSame =
    verified.chain.previous === state.chain.previous &&
    verified.frontier.size === state.frontier.size &&
    equalBytes(root, expected);
  if (!isSame)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected tree size ${state.frontier.size} and root ${base64.encode(expected)} after epoch ${state.chain.epoch - 1}, as verified before, received ${verified.frontier.size} and ${base64.encode(root)}`,
    );
}

/**
 * What the table of errors calls it. A file that the system does not let us read is not wrong; and what goes wrong in here without a
 * name is a mistake of ours, which says nothing against the bundle.
 */
export function explain(error: unknown): WaggleError | UnusableError {
  if (error instanceof UnusableError || error instanceof WaggleError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && 'syscall' in error)
    return new UnusableError(`Expected to read it: ${message}`, { cause: error });
  return new WaggleError('INTERNAL', `This is a mistake of waggle-verify: ${message}`, { cause: error });
}

/** The proof in a finding, if it is one. */
export const proofIn = ({ error }: Finding): Misbehaviour | null =>
  error instanceof MisbehaviourError ? error.misbehaviour : null;
