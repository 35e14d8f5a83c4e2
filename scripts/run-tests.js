// Runs tap, shows what fails and what is skipped, and ends with one plain line that counts tests: a test is a
// leaf `t.test`, or a file's own assertions where it has no subtests.
import { spawn } from 'node:child_process';
import { Parser } from 'tap-parser';

const files = process.argv.slice(2);
const tap = spawn(
  process.execPath,
  [
    'node_modules/.bin/tap',
    'run',
    '--reporter=tap',
    '--disable-coverage',
    '--allow-empty-coverage',
    ...files,
  ],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const counts = { passed: 0, failed: 0, skipped: 0 };

function seconds(ms) {
  return `(${(ms / 1000).toFixed(1)} s)`;
}

// Follows one level of the stream, which `path` names; results count when a leaf ends.
function follow(parser, path) {
  const children = new Set();
  parser.on('child', (child) => {
    children.add(child.name);
    follow(child, [...path, child.name]);
  });
  parser.on('assert', (result) => {
    const isChild = children.delete(result.name);
    if (result.skip || result.todo) {
      counts.skipped++;
      console.log(`skip ${[...path, result.name].join(' > ')}: ${result.skip || result.todo}`);
    } else if (!isChild && !result.ok) {
      console.log(`FAIL ${[...path, result.name].join(' > ')}`);
      if (result.diag) console.log(JSON.stringify(result.diag, null, 2));
    }
  });
  parser.on('complete', (results) => {
    if (path.length === 1) console.log(`${results.ok ? 'ok  ' : 'FAIL'} ${path[0]} ${seconds(results.time)}`);
    if (path.length === 0 || parser.hadChildren) return;
    if (results.count === 0 && !results.bailout) return;
    counts[results.ok ? 'passed' : 'failed']++;
  });
  parser.on('child', () => {
    parser.hadChildren = true;
  });
}

const root = new Parser();
root.on('bailout', (reason) => console.log(`bailed out: ${reason}`));
follow(root, []);
tap.stdout.pipe(root);
const code = await new Promise((resolve) => {
  tap.on('close', resolve);
});
const total = counts.passed + counts.failed;
if (total === 0) console.log('no test ran');
if (code !== 0 && counts.failed === 0) console.log(`tap ended with ${code}`);
const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
console.log(`${counts.passed} passed, ${counts.failed} failed${skipped}`);
const skipFails = process.env.CI === 'true' && counts.skipped > 0;
process.exitCode = code === 0 && counts.failed === 0 && total > 0 && !skipFails ? 0 : 1;
