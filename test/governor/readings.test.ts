import t from 'tap';
import { VmReadings } from '../../src/governor/readings.js';
import { MIB } from '../support/e2e.js';

void t.test('the part of a cgroup that is the VMM, where guest memory is files and where it is not', (t) => {
  const stat = { anon: 600 * MIB, shmem: 100 * MIB, kernel: 20 * MIB };
  const usage = () => ({ currentBytes: 740 * MIB, stat, pressure: null });
  const cgroup = { usage, watch: () => null, unwatch: () => undefined };
  const overhead = (mayUseBytes: number | null) =>
    (new VmReadings(cgroup, () => undefined).memory(mayUseBytes)?.overheadBytes ?? NaN) / MIB;
  t.equal(overhead(null), 620, 'all that is no file');
  t.equal(overhead(1024 * MIB), 20, 'a guest that may have all of it');
  t.equal(overhead(512 * MIB), 208, 'memory beyond the most that the guest can have');
  t.equal(overhead(0), 720);
  t.end();
});
