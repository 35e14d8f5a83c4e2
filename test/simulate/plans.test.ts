import t from 'tap';
import { digests, recordedDigests } from './plans.js';

void t.test('the policy decides as recorded, to the byte', (t) => {
  t.same(
    digests(),
    recordedDigests(),
    'a change of the policy is meant: run node out/test/simulate/plans.js, and npm run bench -- policy',
  );
  t.end();
});
