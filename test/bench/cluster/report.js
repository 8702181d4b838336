/* What the parts of the cluster benchmark print: figures as they come, a line each. */
import { quantile } from '../measure.js';

const rows = [];
let part = '';

/** Names the part whose figures come next. */
export function begin(name) {
  part = name;
  process.stdout.write(`\n== ${name}\n`);
}

/** Says what goes on. */
export const say = (text) => process.stdout.write(`   ${text}\n`);

/** A figure of the part. */
export function figure(what, value, unit) {
  rows.push({ part, what, value, unit });
  process.stdout.write(`   ${what}: ${shown(value)} ${unit}\n`);
}

/** p50, p99 and the greatest of some times in ms. */
export function times(what, values) {
  figure(`${what}, p50`, quantile(values, 0.5), 'ms');
  figure(`${what}, p99`, quantile(values, 0.99), 'ms');
  figure(`${what}, greatest of ${values.length}`, Math.max(...values), 'ms');
}

/** All figures so far: `{part, what, value, unit}`. */
export const figures = () => rows;

const shown = (value) =>
  Number.isInteger(value) ? String(value) : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
