import type { StatementReport, Totals } from '@waggle/protocol/audit';
import { base64, ERRORS } from '@waggle/protocol/base';
import type { Cluster } from '@waggle/protocol/sealing';
import { proofIn, type CheckedEpoch, type CheckedSuccession, type Finding, type Outcome } from './check.ts';
import { UnusableError } from './source.ts';

/** What the cluster's identity rests on: a genesis file, an earlier run, or nothing but the source itself. */
export type Pin = 'genesis' | 'state' | null;

/** Where results go: one call for each line, without its line feed. */
export interface Output {
  readonly epoch: (checked: CheckedEpoch) => void;
  readonly statement: (report: StatementReport, cluster: Cluster) => void;
  readonly end: (outcome: Outcome, pin: Pin, keepsState: boolean) => void;
  /** Something is wrong that has no outcome: with a statement, or with the arguments or a node. */
  readonly failed: (finding: Finding | UnusableError) => void;
}

type Write = (line: string) => void;

/** Files and nodes choose names and messages: what could drive a terminal is shown as `?`. */
// oxlint-disable-next-line no-control-regex -- finding them is the point
const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');

const totalsText = (totals: Totals): string =>
  Object.entries(totals)
    .map(([dimension, sum]) => `${dimension} ${sum}`)
    .join(', ');

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;

function sayBreak(say: Write, { predecessor, epoch, treeSize, cosigners, reason, checked }: CheckedSuccession): void {
  const end = treeSize === 0 ? 'which sealed nothing' : `tree size ${treeSize}, cosigned by ${cosigners.join(' ')}`;
  say(`continues cluster ${predecessor} at epoch ${epoch}, signed by the operator: ${end}`);
  if (reason !== '') say(`  the operator says: ${reason}`);
  say(
    checked
      ? '  its log ends there, and nothing that it counted is counted again'
      : '  NOT CHECKED against its log: what it had counted is the word of the operator (--predecessor checks it)',
  );
}

const UNPINNED =
  'UNPINNED: the genesis is the one that the source itself shows. Compare the cluster id with one that you trust, or give it as --genesis FILE.';

/** Lines for people: results on `out`, what is wrong on `err`. */
export function humanOutput(out: Write, err: Write): Output {
  const say = (line: string): void => out(printable(line));
  return {
    epoch(it) {
      const late = it.late > 0 ? ` (${it.late} late)` : '';
      say(
        `epoch ${it.epoch}: ${count(it.statements, 'statement')}${late} from ${count(it.slots, 'slot')}, tree size ${it.treeSize}, root ${base64.encode(it.root)}, cosigned by ${it.cosigners.length} of ${it.roster}: ${it.cosigners.join(' ')}`,
      );
      for (const { epoch, statements, totals } of it.lateUsage)
        say(`  late usage of epoch ${epoch}: ${count(statements, 'statement')}, ${totalsText(totals)}`);
      for (const slot of it.writtenOff) say(`  written off, as far as it was known: slot ${slot}`);
      if (!it.recomputed) say('  NOT RECOMPUTED: its slots are not kept any more');
    },
    statement(it, cluster) {
      say(
        `statement of ${it.customer} for epoch ${it.epoch}, sealed in ${it.sealedIn}, cosigned by ${it.cosigners.join(' ')}`,
      );
      say(`totals: ${totalsText(it.totals)}`);
      say(`OK: it is in the log ${cluster.origin} of cluster ${cluster.id}, tree size ${it.treeSize}`);
    },
    end(it, pin, keepsState) {
      if (it.cluster !== null) say(`cluster ${it.cluster.id}, log ${it.cluster.origin}`);
      if (it.succession !== null) sayBreak(say, it.succession);
      if (pin === null) say(UNPINNED);
      for (const epoch of it.unanchored)
        say(`UNANCHORED: nothing before epoch ${epoch} was verified; from there on all that is in the bundles was.`);
      if (it.notRecomputed.length > 0)
        say(
          `NOT RECOMPUTED: ${count(it.notRecomputed.length, 'epoch')} (${it.notRecomputed[0]} to ${it.notRecomputed.at(-1)}) without slots. Their statements are the sealed ones; that they are the sums of slots, nobody can check any more.`,
        );
      if (it.logSize !== null) say(`the newest checkpoint, tree size ${it.logSize}, continues what was verified`);
      if (keepsState && it.state === null)
        say('STATE NOT KEPT: it begins with the first epoch, which was not among the bundles.');
      say(
        `checked ${count(it.epochs, 'epoch')}${it.first === null ? '' : ` (${it.first} to ${it.last})`}, ${count(it.statements, 'statement')}`,
      );
      say(`totals: ${totalsText(it.totals)}`);
      if (it.finding === null) say('OK');
      else this.failed(it.finding);
    },
    failed(finding) {
      if (finding instanceof UnusableError) return err(printable(`waggle-verify: ${finding.message}`));
      const { error, epoch, where } = finding;
      err(printable(`FAILED ${error.code}: ${ERRORS[error.code].title}`));
      err(printable(`${epoch === null ? '' : `epoch ${epoch}, `}${where}: ${error.message}`));
      const proof = proofIn(finding);
      if (proof === null) return;
      err(printable(`PROOF OF MISBEHAVIOUR: both checkpoints below are signed by ${proof.key}`));
      err('Keep them, and show them around: nobody but the holder of that key can have made them.');
      for (const { note, where: place } of proof.checkpoints) {
        err(printable(`--- ${place}`));
        for (const line of note.trimEnd().split('\n')) err(printable(line));
      }
    },
  };
}

const textTotals = (totals: Totals): Record<string, string> =>
  Object.fromEntries(Object.entries(totals).map(([dimension, sum]) => [dimension, String(sum)]));

const findingJson = (finding: Finding | UnusableError): Record<string, unknown> =>
  finding instanceof UnusableError
    ? { code: finding.code, message: finding.message, epoch: null, where: null }
    : {
        code: finding.error.code,
        message: finding.error.message,
        epoch: finding.epoch,
        where: finding.where,
        ...(proofIn(finding) === null ? {} : { misbehaviour: proofIn(finding) }),
      };

/**
 * JSON lines for programs, all on `out`; the last one, always there, has type `result`:
 *
 * - `{type: "epoch", epoch, where, anchored, recomputed, treeSize, root, slots, statements, late, lateUsage, writtenOff, totals,
 *   cosigners, roster}` for each good epoch, in order. `root` is base64; `cosigners` are the first 8 digits of replica ids; `roster`
 *   is how many may cosign; `lateUsage` lists `{epoch, statements, totals}` by the epoch that usage comes from; `writtenOff` the
 *   slots that their writers have not closed; `recomputed` is false where the slots are not kept any more.
 * - `{type: "statement", cluster, origin, customer, epoch, sealedIn, treeSize, totals, cosigners}` for a good statement.
 * - `{type: "result", ok, finding, …}`: `ok` is whether the exit code is 0; `finding` is null or `{code, message, epoch, where}` (with exit
 *   code 2 `PEER_UNREACHABLE` for a node that could not be read, `SLOTS_EXPIRED` for slots that are not kept any more, else
 *   `CONFIG_INVALID`), with
 *   `misbehaviour: {key, treeSize, checkpoints: [{note, where}, {note, where}]}` where it is a proof of one. A check of epochs adds
 *   `{cluster, origin, pinned, epochs, first, last, statements, totals, unanchored, notRecomputed, logSize, succession, stateEpoch}`: `succession`
 *   is null or `{predecessor, epoch, treeSize, cosigners, reason, checked}` for a cluster that continues another; `pinned` is
 *   "genesis", "state" or null (UNPINNED); `first` and `last` are null if there was no epoch; `unanchored` lists the epochs that
 *   followed nothing that was verified; `stateEpoch` is the epoch to go on with, null if there is no state.
 *
 * Totals are whole numbers as decimal texts, since sums can be beyond 2^53.
 */
export function jsonOutput(out: Write): Output {
  const line = (value: Record<string, unknown>): void => out(JSON.stringify(value));
  return {
    epoch: (it) =>
      line({
        type: 'epoch',
        ...it,
        root: base64.encode(it.root),
        totals: textTotals(it.totals),
        lateUsage: it.lateUsage.map((late) => ({ ...late, totals: textTotals(late.totals) })),
      }),
    statement(it, { id, origin }) {
      line({ type: 'statement', cluster: id, origin, ...it, totals: textTotals(it.totals) });
      line({ type: 'result', ok: true, finding: null });
    },
    end(it, pinned) {
      const { cluster, state, finding, stopped: _, ...rest } = it;
      line({
        type: 'result',
        ok: finding === null,
        finding: finding === null ? null : findingJson(finding),
        cluster: cluster?.id ?? null,
        origin: cluster?.origin ?? null,
        pinned,
        ...rest,
        totals: textTotals(rest.totals),
        stateEpoch: state?.verified.chain.epoch ?? null,
      });
    },
    failed: (finding) => line({ type: 'result', ok: false, finding: findingJson(finding) }),
  };
}
