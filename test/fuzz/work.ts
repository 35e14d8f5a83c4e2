// Tries one case after another, and says which one it is at where a crash leaves it to be read.
import { writeSync } from 'node:fs';
import { Dice } from './dice.js';
import { FUZZERS } from './fuzzers.js';

/** A file that the parent reads: the seed of the case at hand, and how many were begun. */
const PROGRESS_FD = 4;

const [name = '', seed = '0', seconds = '0', cases = '0'] = process.argv.slice(2);
const fuzzer = FUZZERS[name]?.();
if (fuzzer === undefined) throw new Error(`there is no fuzzer ${name}`);

process.on('uncaughtException', (error) => {
  console.error(`escaped: ${error.stack ?? error.message}`);
  process.exit(1);
});

const progress = new Uint32Array(2);
const most = Number(cases) > 0 ? Number(cases) : Infinity;
const end = Number(cases) > 0 ? Infinity : performance.now() + 1000 * Number(seconds);
for (let n = 0; n < most && performance.now() < end; n++) {
  progress[0] = Number(seed) + n;
  progress[1] = n + 1;
  writeSync(PROGRESS_FD, progress, 0, 8, 0);
  await fuzzer.run(new Dice(Number(seed) + n));
}
await fuzzer.close();
process.exit(0);
