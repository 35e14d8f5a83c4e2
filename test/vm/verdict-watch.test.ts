import t from 'tap';
import type { Diagnosis } from '../../src/vm/diagnosis.js';
import { VerdictWatch } from '../../src/vm/verdict-watch.js';

/** So many looks let it read the verdict once. */
const LOOKS = 8;

void t.test(
  'a verdict is over when nothing is wrong, and not when something else is, of which another event tells',
  (t) => {
    const told: string[] = [];
    const watch = new VerdictWatch((event, message) => told.push(`${event}: ${message}`));
    const look = (code: Diagnosis['code'] | null): void => {
      const found: Diagnosis | null = code === null ? null : { code, text: code, remedy: 'see it' };
      for (let n = 0; n < LOOKS; n++) watch.look(() => found);
    };
    look('out-of-puff');
    t.same(told, ['verdict: out-of-puff: see it']);
    look('qmp-unanswered');
    look('out-of-puff');
    t.equal(told.length, 1, 'nothing more');
    look('no-statistics');
    t.equal(told.pop(), 'verdict: no-statistics: see it');
    look('qmp-unanswered');
    look(null);
    t.equal(told.pop(), 'verdict-over: what the last verdict found wrong is over');
    look('qmp-unanswered');
    look(null);
    t.equal(told.length, 1, 'nothing was told that could be over');
    t.end();
  },
);
