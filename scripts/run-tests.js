// Runs test files, four at a time and those that take longest first, shows what fails and what is skipped, and ends with
// one plain line that counts tests: a test is a leaf `t.test`, or a file's own assertions where it has no subtests. With --lint
// the linters run beside them, and are one test.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { inspect } from 'node:util';
import { Parser } from 'tap-parser';

/** On two processors: while tests wait for a guest or a timer, others have their turn. */
const JOBS = 4;
/** Of one file, which bounds one that hangs: on a busy machine the longest takes three times as long as on a quiet one. */
const TIMEOUT_S = 3600;
/** Those that boot machines. */
const LONG = ['e2e/host.', 'e2e/balloon.', 'e2e/lifecycle.', 'e2e/'];

const total = { passed: 0, failed: 0, skipped: 0 };

function rank(file) {
  const found = LONG.findIndex((prefix) => file.startsWith(prefix));
  return found < 0 ? LONG.length : found;
}

// Node reads all certificates of NODE_EXTRA_CA_CERTS at each start, a third of an empty program's time; checks need them
// for npm.
function environmentOf(file) {
  const { NODE_EXTRA_CA_CERTS, ...rest } = { ...process.env, TAP_TIMEOUT: `${TIMEOUT_S}` };
  return file.endsWith('.check.js') && NODE_EXTRA_CA_CERTS ? { ...rest, NODE_EXTRA_CA_CERTS } : rest;
}

function seconds(ms) {
  return `(${(ms / 1000).toFixed(1)} s)`;
}

// Follows one level of the stream, which `path` names; results count when a leaf ends.
function follow(parser, path, counts) {
  const children = new Set();
  parser.on('child', (child) => {
    parser.hadChildren = true;
    children.add(child.name);
    follow(child, [...path, child.name], counts);
  });
  parser.on('assert', (result) => {
    const isChild = children.delete(result.name);
    if (result.skip || result.todo) {
      counts.skipped++;
      console.log(`skip ${[...path, result.name].join(' > ')}: ${result.skip || result.todo}`);
    } else if (!isChild && !result.ok) {
      console.log(`FAIL ${[...path, result.name].join(' > ')}`);
      if (result.diag) console.log(inspect(result.diag, { depth: null, maxStringLength: null }));
    }
  });
  parser.on('complete', (results) => {
    // A test may fail by throwing only, and then counts nothing; a file that has no test is not one.
    if (parser.hadChildren || (path.length === 1 && results.count === 0)) return;
    counts[results.ok ? 'passed' : 'failed']++;
  });
}

/** Resolves when the file has been run and counted. */
async function run(file) {
  const begun = performance.now();
  const test = spawn(process.execPath, ['--enable-source-maps', file], {
    env: environmentOf(file),
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: (TIMEOUT_S + 10) * 1000,
    killSignal: 'SIGKILL',
  });
  const parser = new Parser();
  const counts = { passed: 0, failed: 0, skipped: 0 };
  parser.on('bailout', (reason) => console.log(`bailed out: ${reason}`));
  follow(parser, [file], counts);
  const results = new Promise((resolve) => parser.on('complete', resolve));
  test.stdout.pipe(parser);
  const code = await new Promise((resolve) =>
    test.on('close', (status, signal) => resolve(status ?? signal)),
  );
  const { ok } = await results;
  const ran = counts.passed + counts.failed + counts.skipped > 0;
  if ((code !== 0 || !ok || !ran) && counts.failed === 0) counts.failed++;
  for (const kind of Object.keys(total)) total[kind] += counts[kind];
  const how = code === 0 || code === 1 ? '' : `, ended with ${code}`;
  console.log(`${counts.failed === 0 ? 'ok  ' : 'FAIL'} ${file} ${seconds(performance.now() - begun)}${how}`);
}

/** Resolves when eslint and prettier have looked at everything. */
async function lint() {
  const begun = performance.now();
  const linters = spawn('npm', ['run', '--silent', 'lint'], { stdio: 'inherit' });
  const code = await new Promise((resolve) => linters.on('close', (status) => resolve(status)));
  total[code === 0 ? 'passed' : 'failed']++;
  console.log(`${code === 0 ? 'ok  ' : 'FAIL'} lint ${seconds(performance.now() - begun)}`);
}

/** Of the sources: what was built of one that is no more is not run. */
function allTests() {
  return readdirSync('test', { recursive: true })
    .filter((path) => path.endsWith('.test.ts'))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map((path) => `out/test/${path.slice(0, -'.ts'.length)}.js`);
}

const lints = process.argv[2] === '--lint';
const args = process.argv.slice(lints ? 3 : 2);
const files = args.length > 0 ? args : allTests();
const jobs = files.map((file) => () => run(file));
if (lints) jobs.splice(1, 0, lint);
await Promise.all(
  Array.from({ length: JOBS }, async () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await job();
  }),
);
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
const skipFails = process.env.CI === 'true' && total.skipped > 0;
process.exitCode = total.failed === 0 && total.passed > 0 && !skipFails ? 0 : 1;
