import t from 'tap';
import { Progress } from '../../src/vm/progress.js';

const MIB = 2 ** 20;

void t.test('a balloon gets nearer by whole steps, and is at its target once', (t) => {
  const progress = new Progress();
  progress.begin(100 * MIB, 0, 7);
  t.notOk(progress.answered(7));
  t.ok(progress.answered(8));
  t.equal(progress.move(40 * MIB), false);
  t.equal(progress.move(100 * MIB), true);
  t.equal(progress.move(100 * MIB), false);
  t.equal(progress.tookBackBytes, 0);
  t.end();
});

void t.test('a balloon of unknown size is at its target when its driver says so', (t) => {
  const progress = new Progress();
  progress.begin(0, null, 0);
  t.equal(progress.move(0), true);
  t.equal(progress.move(0), false);
  progress.begin(100 * MIB, null, 0);
  t.equal(progress.move(40 * MIB), false);
  t.equal(progress.tookBackBytes, 0, 'it was not seen to hold more');
  t.equal(progress.move(100 * MIB), true);
  t.end();
});

void t.test('a driver that tries again and again does not get nearer', async (t) => {
  const progress = new Progress();
  progress.begin(100 * MIB, 0, 0);
  progress.move(50 * MIB);
  await new Promise((resolve) => setTimeout(resolve, 30));
  for (let n = 0; n < 200; n++) progress.move(50 * MIB + (n % 2) * 4096);
  t.ok(progress.stillMs >= 30, 'one page more and one less is not nearer');
  progress.move(52 * MIB);
  t.ok(progress.stillMs < 30, 'a step is');
});

void t.test('memory that the guest takes out by itself is counted until the target is told again', (t) => {
  const progress = new Progress();
  progress.begin(100 * MIB, 0, 0);
  t.equal(progress.move(100 * MIB), true);
  t.equal(progress.move(90 * MIB), false);
  t.equal(progress.move(80 * MIB), false);
  t.equal(progress.tookBackBytes, 20 * MIB);
  progress.begin(100 * MIB, 80 * MIB, 0);
  t.equal(progress.tookBackBytes, 0);
  t.equal(progress.move(100 * MIB), true);
  progress.begin(20 * MIB, 100 * MIB, 0);
  t.equal(progress.move(50 * MIB), false, 'it was asked to');
  t.equal(progress.move(20 * MIB), true);
  t.end();
});

void t.test('memory that goes in beyond the target is counted until the target is told again', (t) => {
  const progress = new Progress();
  progress.begin(100 * MIB, 140 * MIB, 0);
  t.equal(progress.move(120 * MIB), false, 'it comes down, as it was asked to');
  t.equal(progress.overshotBytes, 0);
  t.equal(progress.move(150 * MIB), false);
  t.equal(progress.overshotBytes, 30 * MIB);
  t.equal(progress.tookBackBytes, 0);
  t.equal(progress.move(100 * MIB), true);
  t.equal(progress.overshotBytes, 0);
  t.end();
});
