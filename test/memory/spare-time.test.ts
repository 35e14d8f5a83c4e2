import t from 'tap';
import { SpareTime } from '../../src/memory/spare-time.js';
import { eventually } from '../support/deadline.js';

/** Steps that each take longer than a turn. */
function* steps(name: string, count: number, seen: string[]): Generator<undefined, void> {
  for (let n = 0; n < count; n++) {
    for (const end = performance.now() + 1.1; performance.now() < end;);
    seen.push(name);
    yield;
  }
}

void t.test('jobs take turns, each to its end', async (t) => {
  const spare = new SpareTime();
  const seen: string[] = [];
  const ended: string[] = [];
  for (const name of ['a', 'b']) {
    spare.run(steps(name, 3, seen), (ms) => {
      t.ok(ms > 3, 'it says what the steps took');
      ended.push(name);
    });
  }
  t.same(seen, [], 'not at once');
  await eventually(
    () => ended.length === 2,
    () => `both end; ${seen.join(' ')}`,
  );
  t.equal(seen.join(''), 'ababab');
});

void t.test('a job that is called off takes no further step', async (t) => {
  const spare = new SpareTime();
  const seen: string[] = [];
  const callOff = spare.run(steps('a', 100, seen), () => t.fail('it ended'));
  let ended = false;
  spare.run(steps('b', 2, seen), () => {
    callOff();
    ended = true;
  });
  await eventually(
    () => ended,
    () => seen.join(''),
  );
  const before = seen.length;
  spare.run(steps('c', 1, seen), () => undefined);
  await eventually(
    () => seen.includes('c'),
    () => seen.join(''),
  );
  t.equal(seen.length, before + 1);
});
