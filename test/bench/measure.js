/* How benchmarks measure: alternating runs of a subject and its yardstick in one process tree, medians, spread. */
import { readFileSync } from 'node:fs';

/** Median of numbers. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The value below which that share of them lies. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/**
 * Runs yardstick and subject in turns, so that what else the machine does falls on both. Each is an async function that gives a
 * number. `ratio` is the median of the ratios of neighbouring runs; `spread` their range.
 */
export async function alternate(rounds, yardstick, subject) {
  const yards = [];
  const subjects = [];
  for (let i = 0; i < rounds; i++) {
    yards.push(await yardstick());
    subjects.push(await subject());
  }
  const ratios = subjects.map((value, i) => value / yards[i]);
  return {
    value: median(subjects),
    yardstick: median(yards),
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
  };
}

const TICKS_PER_SECOND = 100;

/** CPU seconds that a process and its children, gone ones too, have used (Linux). */
export function cpuSeconds(pid) {
  const fields = (id) => {
    const stat = readFileSync(`/proc/${id}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  };
  const own = fields(pid);
  let ticks = Number(own[11]) + Number(own[12]) + Number(own[13]) + Number(own[14]);
  for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)) {
    const stat = fields(child);
    ticks += Number(stat[11]) + Number(stat[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

const memory = (pid, field) =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

/** Resident bytes of a process, now and at most so far (Linux). */
export const residentBytes = (pid) => memory(pid, 'VmRSS');
export const mostBytes = (pid) => memory(pid, 'VmHWM');
