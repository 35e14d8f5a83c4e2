import t from 'tap';
import { callsIn } from '../../bench/system-calls.js';

void t.test('calls are told from errors, and their total is no call', (t) => {
  const table = [
    '% time     seconds  usecs/call     calls    errors syscall',
    '------ ----------- ----------- --------- --------- ----------------',
    ' 73.50    0.004041        2020         2         1 wait4',
    '  5.00    0.000275           9        29           mmap',
    '  0.00    0.000000           0         7           rt_sigaction',
    '------ ----------- ----------- --------- --------- ----------------',
    '100.00    0.005498          30        38         1 total',
  ];
  const calls = callsIn(table.join('\n'));
  t.same(
    [...calls],
    [
      ['wait4', 2],
      ['mmap', 29],
      ['rt_sigaction', 7],
    ],
  );
  t.end();
});
