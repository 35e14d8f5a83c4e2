import t from 'tap';
import { gibMinutes } from '../../bench/host-samples.js';

void t.test('GiB·min of samples, until one of them and between two', (t) => {
  const samples = [
    { seconds: 0, mib: 1024 },
    { seconds: 60, mib: 1024 },
    { seconds: 120, mib: 0 },
  ];
  t.equal(gibMinutes(samples, 60), 1);
  t.equal(gibMinutes(samples, 90), 1.375);
  t.equal(gibMinutes(samples, 120), 1.5);
  t.equal(gibMinutes(samples, 30), 0.5);
  t.equal(gibMinutes(samples.slice(0, 1), 60), 0);
  t.end();
});
