import t from 'tap';
import { valueAt } from '../../../bench/demo/recording.js';
import { GIVING, MIB } from './recordings.js';

void t.test('between two samples on their line, outside of all the nearest', (t) => {
  const at = (seconds: number) => valueAt(GIVING.samples, 'hostBytes', seconds) / MIB;
  t.equal(at(-1), 1536);
  t.equal(at(15), 1024);
  t.equal(at(20), 512);
  t.equal(at(99), 1536);
  t.equal(valueAt([], 'hostBytes', 1), 0);
  t.end();
});
