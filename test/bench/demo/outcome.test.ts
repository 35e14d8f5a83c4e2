import t from 'tap';
import { failing, sentence } from '../../../bench/demo/outcome.js';

const GIB = 2 ** 30;

void t.test('it succeeds only when host memory fell and came back', (t) => {
  t.equal(failing({ fullBytes: 2 * GIB, takenBytes: 1.05 * GIB, againBytes: 2 * GIB }), null);
  t.match(
    failing({ fullBytes: 1.9 * GIB, takenBytes: 1.1 * GIB, againBytes: 2 * GIB }),
    /fell by 819 MiB only/,
  );
  t.match(
    failing({ fullBytes: 2 * GIB, takenBytes: GIB, againBytes: 1.5 * GIB }),
    /came back by 512 MiB only/,
  );
  t.end();
});

void t.test('the sentence has the three figures', (t) => {
  t.match(
    sentence({ fullBytes: 2 * GIB, takenBytes: GIB, againBytes: 1.5 * GIB }),
    /from 2048 to 1024 MiB, and back to 1536 MiB/,
  );
  t.end();
});
