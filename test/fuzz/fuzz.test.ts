// A short run of each fuzzer: seeds that found something once, the same few as ever, and some that were never tried.
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { Dice } from './dice.js';
import { FUZZERS } from './fuzzers.js';
import { buildNative } from './native-fuzzer.js';
import { keptSeeds } from './seeds.js';

const FIXED_SEEDS = [1, 2, 3, 4, 5];
/** At most, and no longer than that. */
const NEW_CASES = 200;
const NEW_MS = 2000;
const NATIVE_CASES = 300;

for (const [name, make] of Object.entries(FUZZERS)) {
  void t.test(`fuzz ${name}`, async (t) => {
    const random = Math.floor(Math.random() * 2 ** 31);
    t.comment(`new cases from seed ${random} on; npm run fuzz -- --only ${name} --seed N --cases 1`);
    const fuzzer = make();
    const tries = async (seed: number): Promise<void> => {
      await t.resolves(fuzzer.run(new Dice(seed)), `seed ${seed}`);
    };
    for (const seed of [...keptSeeds(name), ...FIXED_SEEDS]) await tries(seed);
    const end = performance.now() + NEW_MS;
    for (let n = 0; n < NEW_CASES && performance.now() < end; n++) await tries(random + n);
    await fuzzer.close();
  });
}

void t.test('fuzz native', (t) => {
  const program = buildNative();
  const random = Math.floor(Math.random() * 2 ** 31);
  const runs = [...keptSeeds('native').map((seed) => [seed, 1]), [1, NATIVE_CASES], [random, NATIVE_CASES]];
  for (const [seed, cases] of runs) {
    const { status, stderr } = spawnSync(program, [String(seed), '0', String(cases)], { encoding: 'utf8' });
    t.equal(status, 0, `${String(cases)} cases from seed ${String(seed)}: ${stderr}`);
  }
  t.end();
});
