/* `npm test`: installs what is missing, then builds, lints and runs every test. The last line sums it up. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, checkNode, install, npm, root, say } from './install.js';

checkNode();
install();
const sums = [step('build', () => build()), step('lint', () => npm('run', '--silent', 'lint')), vitest()];
const passed = sums.reduce((sum, one) => sum + one.passed, 0);
const failed = sums.reduce((sum, one) => sum + one.failed, 0);
say(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

/** A step that is no test file counts as one test. */
function step(name, run) {
  say(`\n> ${name}`);
  const ok = run();
  if (!ok) say(`${name} failed`);
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1 };
}

/** All projects in one run; arguments go to vitest. Without a report (it crashed) the run counts as one failure. */
function vitest() {
  const folder = mkdtempSync(join(tmpdir(), 'waggle-test-'));
  const report = join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const args = [join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...reporters, ...process.argv.slice(2)];
  say('\n> test');
  try {
    const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
    // A file that cannot be loaded has no failed test, and an error outside of any test not even a failed file.
    const isFailed = ({ status: outcome }) => outcome === 'failed';
    const files = testResults.filter((file) => isFailed(file) && !file.assertionResults.some(isFailed));
    const count = numFailedTests + files.length;
    return { passed: numPassedTests, failed: count === 0 && status !== 0 ? 1 : count };
  } catch {
    return { passed: 0, failed: 1 };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
