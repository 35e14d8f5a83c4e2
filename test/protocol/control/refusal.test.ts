// The compiler refuses a refusal without a next step; what is said is put together as it was given.
import t from 'tap';
import {
  passedOn,
  refusal,
  refusalLines,
  refusalOf,
  RefusingError,
  type NextStep,
} from '../../../protocol/control/refusal.js';
import { RefusedError } from '../../../src/control/fleet.js';
import { Problem } from '../../../src/control/problem.js';
import { SettingsError } from '../../../src/daemon/settings.js';
import { NEXT_STEP } from '../../support/next-step.js';

void t.test('a sentence says what is wrong, and then the next step', (t) => {
  const name: string = 'web';
  const steps: NextStep[] = [
    `see balloonctl show ${name}`,
    `did you mean ${name}?`,
    `the guest cannot give more; set ${name} a smaller balloon`,
    `a file is at ${name}, move it away`,
    'is balloond running there?',
  ];
  for (const step of steps) t.match(refusal('it is wrong', step), NEXT_STEP);
  t.equal(refusal('the path is taken', 'give another path'), 'the path is taken: give another path');
  t.equal(refusal('one', 'see another', '; '), 'one; see another');
  const own = refusalOf('key', refusal('is wrong', 'lower it'));
  t.equal(refusalLines([own, passedOn('see the log')]), 'key is wrong: lower it\nsee the log');
  const error = new Problem(404, own, {}, { cause: 'none' });
  t.match(error, { name: 'Problem', message: own, detail: own, cause: 'none' });
  t.ok(error instanceof RefusingError);
  t.end();
});

void t.test('nothing else compiles', (t) => {
  const name: string = 'web';
  // @ts-expect-error it has no verb
  refusal('it is wrong', 'nothing helps');
  // @ts-expect-error a verb without an object
  refusal('it is wrong', 'restart');
  // @ts-expect-error not known before the program runs
  refusal('it is wrong', name);
  // @ts-expect-error the step is missing
  refusal('it is wrong');
  // @ts-expect-error no text that somebody wrote by hand
  new RefusedError('it is wrong: see the log');
  // @ts-expect-error nor a text with figures in it
  new SettingsError(`it is wrong: see ${name}`);
  // @ts-expect-error nor what any error says
  new Problem(400, new Error(name).message);
  t.pass('by the compiler');
  t.end();
});
