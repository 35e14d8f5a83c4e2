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

void t.test('a balloon that was at rest at its target and moves away, and gets no nearer', async (t) => {
  const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2100));
  const moment = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));
  const [soon, resting, back, small] = [new Progress(), new Progress(), new Progress(), new Progress()];
  for (const progress of [soon, resting, back, small]) {
    progress.begin(100 * MIB, 0, 0);
    progress.move(100 * MIB);
  }
  soon.move(120 * MIB);
  await rest();
  t.equal(soon.awayMs, 0, 'it moved for the target from before');
  resting.move(120 * MIB);
  back.move(10 * MIB);
  small.move(100.5 * MIB);
  await moment();
  t.ok(resting.awayMs >= 20);
  t.equal(small.awayMs, 0, 'a driver ends its step');
  back.move(30 * MIB);
  t.equal(back.awayMs, 0, 'a driver that starts anew gets nearer');
  resting.move(100 * MIB);
  t.equal(resting.awayMs, 0);
  small.move(110 * MIB);
  await moment();
  t.ok(small.awayMs > 0);
  small.begin(100 * MIB, 110 * MIB, 0);
  t.equal(small.awayMs, 0, 'the target is told again');
});
